//! The record on the wire: one ConfigMap, read by selector, written by name.
//!
//! Owns the reading of its object and the form of its patch. Never interprets phases or transitions.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::objects::Done;
use super::request::items;
use super::{Kube, KubeError};
use crate::config::kube::KubeSettings;
use crate::model::{Record, RecordSeen, RecordWrite};

/// Annotation that tells readers of the record why the last request was refused.
pub const REFUSAL_ANNOTATION: &str = "switchover-agent.io/last-refusal";

impl Kube {
    /// Path of the collection that holds the record.
    pub fn record_path(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.settings().health_namespace)
    }

    /// Reads the record by its selector: the object of the record's name, else the first one.
    ///
    /// # Errors
    /// As [`Kube::list`]. A read that failed is an error, never [`RecordSeen::Missing`].
    pub async fn read_record(&self) -> Result<RecordSeen, KubeError> {
        let path = self.record_path();
        let list = self.list(&path, Some(&self.settings().record_selector)).await?;
        let objects = items(&list).ok_or_else(|| KubeError::Malformed {
            call: format!("GET {path}"),
            reason: "not a list of ConfigMaps".to_owned(),
        })?;
        Ok(choose_record(self.settings(), objects))
    }

    /// Patches the record. `maintenance` is always cleared, as the predecessor does.
    ///
    /// # Errors
    /// A conflict where `expect` is given and somebody else has written since; else as [`Kube::patch`].
    pub async fn write_record(&self, write: &RecordWrite) -> Done {
        let target = format!("{}/{}", self.record_path(), self.settings().record_name);
        self.strategic(&target, &record_patch(write)).await
    }
}

/// The record among the objects that its selector found: the one of its name, else the first.
pub fn choose_record(settings: &KubeSettings, objects: &[Value]) -> RecordSeen {
    let named = objects.iter().find(|object| name_of(object) == Some(settings.record_name.as_str()));
    match named.or_else(|| objects.first()) {
        Some(object) => RecordSeen::Present(record_from_object(object)),
        None => RecordSeen::Missing,
    }
}

/// Reads a ConfigMap object. Values that are no texts are kept as their JSON text, so that they are refused by
/// name and not overlooked; `null` counts as absent.
pub fn record_from_object(object: &Value) -> Record {
    let mut data = BTreeMap::new();
    for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::String(text) => {
                data.insert(key.clone(), text.clone());
            }
            other => {
                data.insert(key.clone(), other.to_string());
            }
        }
    }
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    Record::from_data(data, version.filter(|version| !version.is_empty()).map(str::to_owned))
}

/// `metadata.name`, where the object has one.
pub fn name_of(object: &Value) -> Option<&str> {
    object.pointer("/metadata/name").and_then(Value::as_str)
}

/// The patch; the order of keys is part of the contract.
fn record_patch(write: &RecordWrite) -> Value {
    let mut data = Map::new();
    if let Some(phase) = &write.phase {
        data.insert("last_stable_state".to_owned(), json!(phase));
        data.insert("last_stable_state_ts".to_owned(), json!(write.timestamp));
    }
    if let Some(transition) = &write.transition {
        data.insert("transition".to_owned(), json!(transition));
    }
    data.insert("maintenance".to_owned(), Value::Null);
    let mut patch = json!({"data": data});
    let mut metadata = Map::new();
    if let Some(version) = &write.expect {
        metadata.insert("resourceVersion".to_owned(), json!(version));
    }
    if let Some(text) = &write.annotation {
        let value = if text.is_empty() { Value::Null } else { json!(text) };
        metadata.insert("annotations".to_owned(), json!({REFUSAL_ANNOTATION: value}));
    }
    if !metadata.is_empty() {
        patch["metadata"] = Value::Object(metadata);
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_the_predecessors_keys_in_its_order() {
        let mut write = RecordWrite {
            phase: Some("golddr-primary".into()),
            transition: Some(String::new()),
            timestamp: "2026-01-02T03:04:05Z".into(),
            annotation: None,
            expect: None,
        };
        assert_eq!(
            record_patch(&write).to_string(),
            r#"{"data":{"last_stable_state":"golddr-primary","last_stable_state_ts":"2026-01-02T03:04:05Z","transition":"","maintenance":null}}"#
        );
        write.phase = None;
        write.transition = None;
        write.expect = Some("7".into());
        write.annotation = Some(String::new());
        assert_eq!(
            record_patch(&write).to_string(),
            r#"{"data":{"maintenance":null},"metadata":{"resourceVersion":"7","annotations":{"switchover-agent.io/last-refusal":null}}}"#
        );
    }

    #[test]
    fn odd_objects_are_read_without_a_guess() {
        let record = record_from_object(&json!({"data": {"transition": 5, "last_stable_state": null}}));
        assert_eq!(record.data.get("transition").map(String::as_str), Some("5"));
        assert_eq!(record.known_phase(), None);
        assert_eq!(record.resource_version, None);
        assert_eq!(record_from_object(&json!("x")).data.len(), 0);
    }
}
