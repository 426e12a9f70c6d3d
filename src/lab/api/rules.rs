//! What a real API server checks in the objects that the pair writes.

use serde_json::Value;

use super::paths::Kind;
use super::status::Refusal;

/// A field that is wrong: its path, why, and whether its type is wrong (else its value).
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field.
    pub field: String,
    /// What is wrong.
    pub why: String,
    /// Wrong type: such a body can't even be read.
    pub of_type: bool,
}

impl Problem {
    fn of_type(field: &str, why: String) -> Self {
        Self { field: field.to_owned(), why, of_type: true }
    }

    fn of_value(field: &str, why: String) -> Self {
        Self { field: field.to_owned(), why, of_type: false }
    }

    /// The refusal: a body that can't be read is 400 where it was sent whole, 422 where it came of a patch.
    pub fn refusal(self, kind: &Kind, name: &str, patched: bool) -> Refusal {
        if self.of_type && !patched {
            let Self { field, why, .. } = self;
            return Refusal::bad_request(format!(
                "{} in version cannot be handled: {field}: {why}",
                kind.kind
            ));
        }
        Refusal::invalid(kind, name, &self.field, &self.why)
    }
}

/// Checks an object.
pub fn check(kind: &Kind, object: &Value) -> Result<(), Problem> {
    let metadata = &object["metadata"];
    if !metadata.is_object() {
        return Err(Problem::of_type("metadata", "must be an object".to_owned()));
    }
    check_name(metadata["name"].as_str().unwrap_or_default())?;
    check_strings("metadata.labels", &metadata["labels"])?;
    check_strings("metadata.annotations", &metadata["annotations"])?;
    check_labels(&metadata["labels"])?;
    match kind.plural {
        "configmaps" => check_strings("data", &object["data"]),
        "secrets" => {
            check_strings("stringData", &object["stringData"])?;
            check_strings("data", &object["data"])
        }
        "services" => check_strings("spec.selector", &object["spec"]["selector"]),
        "deployments" | "statefulsets" => {
            check_count("spec.replicas", &object["spec"]["replicas"])?;
            let template = &object["spec"]["template"]["metadata"];
            check_strings("spec.template.metadata.annotations", &template["annotations"])?;
            check_strings("spec.template.metadata.labels", &template["labels"])
        }
        "poddisruptionbudgets" => match &object["spec"]["minAvailable"] {
            Value::String(text) if text.ends_with('%') => Ok(()),
            other => check_count("spec.minAvailable", other),
        },
        _ => Ok(()),
    }
}

/// A number of replicas: an integer that is not negative and fits in 32 bits, or absent.
pub fn check_count(field: &str, value: &Value) -> Result<(), Problem> {
    match value {
        Value::Null => Ok(()),
        Value::Number(number) => match number.as_i64() {
            Some(count) if count < 0 => Err(Problem::of_value(
                field,
                format!("Invalid value: {count}: must be greater than or equal to 0"),
            )),
            Some(count) if i32::try_from(count).is_ok() => Ok(()),
            _ => Err(Problem::of_type(field, format!("cannot unmarshal number {number} into int32"))),
        },
        other => Err(Problem::of_type(field, format!("cannot unmarshal {} into int32", type_name(other)))),
    }
}

fn check_strings(field: &str, map: &Value) -> Result<(), Problem> {
    match map {
        Value::Null => Ok(()),
        Value::Object(entries) => match entries.iter().find(|(_, value)| !value.is_string()) {
            Some((key, value)) => {
                let why = format!("cannot unmarshal {} of key {key:?} into string", type_name(value));
                Err(Problem::of_type(field, why))
            }
            None => Ok(()),
        },
        other => Err(Problem::of_type(field, format!("cannot unmarshal {} into a map", type_name(other)))),
    }
}

/// DNS-1123 subdomain (RFC 1123 as Kubernetes takes it).
fn check_name(name: &str) -> Result<(), Problem> {
    let label = |part: &str| {
        let edge = |letter: Option<char>| {
            letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        };
        edge(part.chars().next())
            && edge(part.chars().last())
            && part
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
    };
    if name.is_empty() {
        return Err(Problem::of_value(
            "metadata.name",
            "Required value: name or generateName is required".to_owned(),
        ));
    }
    if name.len() > 253 || !name.split('.').all(label) {
        let why = format!(
            "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
             characters, '-' or '.', and must start and end with an alphanumeric character"
        );
        return Err(Problem::of_value("metadata.name", why));
    }
    Ok(())
}

fn check_labels(labels: &Value) -> Result<(), Problem> {
    for (key, value) in labels.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let good = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if value.len() > 63 || !value.chars().all(good) {
            let why = format!("Invalid value: {value:?}: not a label value (key {key:?})");
            return Err(Problem::of_value("metadata.labels", why));
        }
    }
    Ok(())
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
