//! The filter expressions of a list, as far as the lab understands them: `name = x`, `!=`, `eq` and `ne` with a regular
//! expression, on top-level text fields, joined by `AND` or `OR`, with brackets around each. Anything else is refused.

use regex::Regex;
use serde_json::Value;

/// Fields that can be asked for.
const FIELDS: [&str; 4] = ["name", "description", "loadBalancingScheme", "protocol"];

/// An expression.
pub(super) enum Filter {
    /// Everything passes.
    All,
    /// All parts, or any part.
    Joined { every: bool, parts: Vec<Term> },
}

/// One comparison.
pub(super) struct Term {
    field: String,
    /// The whole text must match it.
    pattern: Regex,
    negated: bool,
}

impl Filter {
    /// Whether a resource passes.
    pub(super) fn passes(&self, resource: &Value) -> bool {
        match self {
            Self::All => true,
            Self::Joined { every: true, parts } => parts.iter().all(|term| term.passes(resource)),
            Self::Joined { every: false, parts } => parts.iter().any(|term| term.passes(resource)),
        }
    }
}

impl Term {
    fn passes(&self, resource: &Value) -> bool {
        let text = resource[&self.field].as_str().unwrap_or_default();
        self.pattern.is_match(text) != self.negated
    }
}

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Filter, String> {
    if text.trim().is_empty() {
        return Ok(Filter::All);
    }
    let (every, parts): (bool, Vec<&str>) = if text.contains(" OR ") {
        (false, text.split(" OR ").collect())
    } else {
        (true, text.split(" AND ").collect())
    };
    let parts = parts.into_iter().map(term).collect::<Result<_, _>>()?;
    Ok(Filter::Joined { every, parts })
}

fn term(text: &str) -> Result<Term, String> {
    let invalid = || format!("Invalid value for field 'filter': '{text}'");
    let inner = text.trim();
    let inner = match inner.strip_prefix('(') {
        Some(rest) => rest.strip_suffix(')').ok_or_else(invalid)?,
        None => inner,
    };
    let mut words = inner.trim().splitn(3, ' ');
    let (Some(field), Some(operator), Some(value)) = (words.next(), words.next(), words.next()) else {
        return Err(invalid());
    };
    if !FIELDS.contains(&field) {
        return Err(invalid());
    }
    let value = value.trim();
    let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let (pattern, negated) = match operator {
        "=" => (regex::escape(value), false),
        "!=" => (regex::escape(value), true),
        "eq" => (value.to_owned(), false),
        "ne" => (value.to_owned(), true),
        _ => return Err(invalid()),
    };
    let pattern = Regex::new(&format!("^(?:{pattern})$")).map_err(|_| invalid())?;
    Ok(Term { field: field.to_owned(), pattern, negated })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_whole_text_must_match() {
        let passes = |filter: &str, name: &str| parse(filter).unwrap().passes(&json!({"name": name}));
        assert!(passes("name = edge", "edge") && !passes("name = edge", "edge-2"));
        assert!(passes("name eq \"edge.*\"", "edge-2") && !passes("name eq \"edge\"", "edge-2"));
        assert!(passes("(name = a) OR (name = b)", "b") && !passes("(name != a) AND (name != b)", "b"));
        assert!(parse("colour = blue").is_err() && parse("name").is_err() && parse("(name = a").is_err());
    }
}
