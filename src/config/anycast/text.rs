//! From text to a tree of values, whatever the syntax, and from there to the dialect's reader.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, Numbers, Problems};
use super::{Anycast, Dialect, LoadError, go, python};
use crate::config::Problem;

/// Reads a text, telling syntax and dialect by content.
///
/// # Errors
/// Everything that is wrong with it, at once where it is well-formed.
pub fn parse(text: &str) -> Result<Anycast, LoadError> {
    let tree = tree(text)?;
    let empty = serde_json::Map::new();
    let root = match &tree {
        Value::Object(map) => map,
        Value::Null => &empty,
        _ => {
            return Err(LoadError::Syntax {
                syntax: "configuration",
                reason: "the file is not a table".to_owned(),
            });
        }
    };
    let problems = Problems::default();
    let config = match dialect(root) {
        Dialect::Python => python::read(&Fields::root(root, &problems, Numbers::Seconds)),
        Dialect::Go => go::read(&Fields::root(root, &problems, Numbers::Refused)),
    };
    let mut problems = problems.into_inner();
    if let Some(Err(more)) = config.bgp.as_ref().map(|section| section.speaker()) {
        for problem in more {
            // What stands for a value that is missing or unreadable was complained of already.
            let known = problems.iter().any(|old| old.setting.starts_with(&problem.setting));
            if !known {
                problems.push(problem);
            }
        }
    }
    if problems.is_empty() { Ok(config) } else { Err(LoadError::Invalid(problems)) }
}

/// What a file says beside or instead of anycast services: its `env` table, as settings of the whole agent.
///
/// The flag says whether the file has anything for [`parse`].
///
/// # Errors
/// No syntax of ours, or an entry that is no text, number or truth value.
pub fn environment(text: &str) -> Result<(BTreeMap<String, String>, bool), LoadError> {
    let Value::Object(root) = tree(text)? else { return Ok((BTreeMap::new(), false)) };
    let has_anycast = root.keys().any(|key| !key.eq_ignore_ascii_case("env"));
    let (mut settings, mut problems) = (BTreeMap::new(), Vec::new());
    let wrong = |setting: String, want: &str| Problem { setting, value: None, want: want.to_owned() };
    match root.get("env") {
        None | Some(Value::Null) => {}
        Some(Value::Object(entries)) => {
            for (name, value) in entries {
                match value {
                    Value::String(text) => drop(settings.insert(name.clone(), text.clone())),
                    Value::Number(number) => drop(settings.insert(name.clone(), number.to_string())),
                    Value::Bool(flag) => drop(settings.insert(name.clone(), flag.to_string())),
                    // The value may be a secret.
                    _ => problems.push(wrong(format!("env.{name}"), "a text, a number, true or false")),
                }
            }
        }
        Some(_) => problems.push(wrong("env".to_owned(), "a table of settings is wanted")),
    }
    if problems.is_empty() { Ok((settings, has_anycast)) } else { Err(LoadError::Invalid(problems)) }
}

/// The Go predecessor's files have a list of services, or one of the sections that only they have. An empty document
/// is taken for one, so that every missing key is named.
fn dialect(root: &serde_json::Map<String, Value>) -> Dialect {
    let has =
        |key: &str| root.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
    match has("services") {
        Some(Value::Array(_)) => Dialect::Go,
        Some(_) => Dialect::Python,
        None if root.is_empty() || has("announcer").is_some() => Dialect::Go,
        None => Dialect::Python,
    }
}

fn tree(text: &str) -> Result<Value, LoadError> {
    let one_line = |error: &dyn std::fmt::Display| {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join(" ").chars().take(400).collect::<String>()
    };
    let trimmed = text.trim_start_matches('\u{feff}').trim_start();
    if trimmed.is_empty() {
        return Ok(Value::Null);
    }
    if trimmed.starts_with('{') {
        return serde_json::from_str(trimmed).or_else(|json_error| {
            // A YAML flow mapping also begins with a brace.
            serde_saphyr::from_str(trimmed)
                .map_err(|_| LoadError::Syntax { syntax: "JSON", reason: one_line(&json_error) })
        });
    }
    let toml_error = match toml::from_str::<toml::Value>(trimmed) {
        Ok(value) => {
            return serde_json::to_value(value)
                .map_err(|error| LoadError::Syntax { syntax: "TOML", reason: one_line(&error) });
        }
        Err(error) => error,
    };
    match serde_saphyr::from_str::<Value>(trimmed) {
        Ok(value @ (Value::Object(_) | Value::Null)) => Ok(value),
        Ok(_) => Err(LoadError::Syntax { syntax: "TOML", reason: one_line(&toml_error) }),
        Err(_) if looks_like_toml(trimmed) => {
            Err(LoadError::Syntax { syntax: "TOML", reason: one_line(&toml_error) })
        }
        Err(error) => Err(LoadError::Syntax { syntax: "YAML", reason: one_line(&error) }),
    }
}

fn looks_like_toml(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| {
        let (equals, colon) = (line.find('='), line.find(':'));
        line.starts_with('[') || equals.is_some_and(|at| colon.is_none_or(|colon| at < colon))
    })
}

/// All problems, one after the other.
pub(super) fn join(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
