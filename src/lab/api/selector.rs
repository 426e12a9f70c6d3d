//! Label selectors, equality and set based, and the two field selectors that every kind has.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// A selector; an empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(&'static str, String, bool)>,
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`; the error says what can't be read.
    pub fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, String> {
        let mut selector = Self::default();
        for part in split(labels.unwrap_or_default()) {
            selector.labels.push(requirement(part.trim())?);
        }
        for part in split(fields.unwrap_or_default()) {
            let (name, value, equal) = match (part.split_once("!="), part.split_once('=')) {
                (Some((name, value)), _) => (name, value, false),
                (None, Some((name, value))) => (name, value.trim_start_matches('='), true),
                (None, None) => return Err(format!("invalid field selector: {part}")),
            };
            let pointer = match name.trim() {
                "metadata.name" => "/metadata/name",
                "metadata.namespace" => "/metadata/namespace",
                other => return Err(format!("field label not supported: {other}")),
            };
            selector.fields.push((pointer, value.trim().to_owned(), equal));
        }
        Ok(selector)
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        let labels = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                label(key).is_some_and(|have| values.iter().any(|value| value == have))
            }
            Requirement::NotIn(key, values) => {
                !label(key).is_some_and(|have| values.iter().any(|value| value == have))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        });
        labels
            && self.fields.iter().all(|(pointer, value, equal)| {
                (object.pointer(pointer).and_then(Value::as_str) == Some(value)) == *equal
            })
    }
}

/// Splits at commas that are not inside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let checked = |key: &str| -> Result<String, String> {
        let key = key.trim();
        let good = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
        if key.is_empty() || !key.chars().all(good) {
            return Err(format!("unable to parse requirement: {part:?}"));
        }
        Ok(key.to_owned())
    };
    if let Some((head, list)) = part.strip_suffix(')').and_then(|open| open.split_once('(')) {
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Requirement::In(checked(key)?, values)),
            (Some(key), Some("notin"), None) => Ok(Requirement::NotIn(checked(key)?, values)),
            _ => Err(format!("unable to parse requirement: {part:?}")),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(checked(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(checked(key)?, vec![value.trim().to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(checked(key)?)),
        None => Ok(Requirement::Exists(checked(part)?)),
    }
}
