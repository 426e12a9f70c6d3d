//! The patch kinds: JSON merge patch (RFC 7396), strategic merge patch, JSON patch (RFC 6902).

use serde_json::{Map, Value};

/// How a patch is to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/json-patch+json`.
    Json,
}

impl PatchKind {
    /// The kind of a content type.
    pub fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/json-patch+json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Why a patch can't be applied.
#[derive(Debug, PartialEq, Eq)]
pub enum PatchError {
    /// The body is not a patch (400).
    Malformed(String),
    /// It does not fit the object (422).
    Unfit(String),
}

/// Applies a patch.
pub fn apply(kind: PatchKind, object: &mut Value, body: &[u8]) -> Result<(), PatchError> {
    let patch: Value = serde_json::from_slice(body)
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    match kind {
        PatchKind::Merge | PatchKind::Strategic if patch.is_object() => {
            // Lists in the kinds served here that have a merge key are not patched by anyone in the pair; a map
            // merge is what remains of the strategic form.
            merge(object, &patch);
            Ok(())
        }
        PatchKind::Merge | PatchKind::Strategic => {
            Err(PatchError::Malformed("the patch is not a JSON object".to_owned()))
        }
        PatchKind::Json => match patch.as_array() {
            Some(operations) => operations.iter().try_for_each(|operation| step(object, operation)),
            None => Err(PatchError::Malformed("a JSON patch is a list of operations".to_owned())),
        },
    }
}

/// Recursive merge in which `null` deletes (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            map.shift_remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

fn step(object: &mut Value, operation: &Value) -> Result<(), PatchError> {
    let text = |key: &str| operation[key].as_str();
    let (Some(op), Some(path)) = (text("op"), text("path")) else {
        return Err(PatchError::Malformed("an operation needs \"op\" and \"path\"".to_owned()));
    };
    let value = || {
        let sent = operation.get("value").cloned();
        sent.ok_or_else(|| PatchError::Malformed(format!("{op} {path} needs a \"value\"")))
    };
    match op {
        "test" => {
            let wanted = value()?;
            match object.pointer(path) {
                Some(found) if *found == wanted => Ok(()),
                _ => Err(PatchError::Unfit(format!("testing path {path:?} failed"))),
            }
        }
        "replace" => match object.pointer_mut(path) {
            Some(place) => {
                *place = value()?;
                Ok(())
            }
            None => Err(PatchError::Unfit(format!("replace operation does not apply: no {path:?}"))),
        },
        "add" => add(object, path, value()?),
        "remove" => remove(object, path).map(|_| ()),
        "move" | "copy" => {
            let Some(from) = text("from") else {
                return Err(PatchError::Malformed(format!("{op} needs \"from\"")));
            };
            let moved = if op == "move" {
                remove(object, from)?
            } else {
                let found = object.pointer(from).cloned();
                found.ok_or_else(|| PatchError::Unfit(format!("copy does not apply: no {from:?}")))?
            };
            add(object, path, moved)
        }
        other => Err(PatchError::Malformed(format!("unknown operation {other:?}"))),
    }
}

fn split_last(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(object: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *object = value;
        return Ok(());
    }
    let unfit = || PatchError::Unfit(format!("add operation does not apply: no parent of {path:?}"));
    let (parent, last) = split_last(path).ok_or_else(unfit)?;
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(last, value);
            Ok(())
        }
        Some(Value::Array(list)) => {
            let at = if last == "-" { Some(list.len()) } else { last.parse().ok() };
            match at.filter(|at| *at <= list.len()) {
                Some(at) => {
                    list.insert(at, value);
                    Ok(())
                }
                None => Err(unfit()),
            }
        }
        _ => Err(unfit()),
    }
}

fn remove(object: &mut Value, path: &str) -> Result<Value, PatchError> {
    let unfit = || PatchError::Unfit(format!("remove operation does not apply: no {path:?}"));
    let (parent, last) = split_last(path).ok_or_else(unfit)?;
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) => map.shift_remove(&last).ok_or_else(unfit),
        Some(Value::Array(list)) => match last.parse::<usize>() {
            Ok(at) if at < list.len() => Ok(list.remove(at)),
            _ => Err(unfit()),
        },
        _ => Err(unfit()),
    }
}
