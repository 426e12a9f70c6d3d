//! What must happen once: objects that are deleted by their uid, pipeline runs that are recognised.
//!
//! Owns the reading of identities and the deletion of exactly one object. Never decides whether to delete or to start
//! again: that is `tasks::once`.

use serde_json::{Value, json};

use super::objects::Done;
use super::pipeline::run_from_object;
use super::request::items;
use super::{Kube, KubeError};
use crate::model::{Detail, FailureKind, PipelineRunSeen, RunEvent};

/// An object that is about to be deleted, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The API server says that there is none.
    Gone,
    /// It is being deleted already.
    Ending,
    /// It is there, with this uid.
    There(String),
    /// It cannot be told which one it is, and why: reading is not allowed, or it has no uid.
    Nameless(String),
}

/// A pipeline run with what might carry our id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRun {
    /// The run.
    pub run: PipelineRunSeen,
    /// Whether a label, an annotation or a parameter holds the id that was looked for.
    pub carries_id: bool,
}

impl Kube {
    /// Path of the volume claim of one database pod.
    pub fn volume_path(&self, ordinal: u32) -> String {
        let settings = self.settings();
        format!(
            "/api/v1/namespaces/{}/persistentvolumeclaims/{}-{ordinal}",
            settings.namespace, settings.database_volume_prefix
        )
    }

    /// Path of the ConfigMap of Patroni's cluster state.
    pub fn cluster_state_path(&self) -> String {
        let settings = self.settings();
        format!("/api/v1/namespaces/{}/configmaps/{}", settings.namespace, settings.database_config)
    }

    /// Looks at an object. Only the API server's own word (`NotFound`) counts as gone.
    ///
    /// # Errors
    /// As [`Kube::get_json`] where it may be better at the next try; what never will be is [`Standing::Nameless`].
    pub async fn standing(&self, target: &str) -> Result<Standing, KubeError> {
        let object = match self.get_json(target).await {
            Ok(object) => object,
            Err(KubeError::Status { status: 404, reason, .. }) if reason == "NotFound" => {
                return Ok(Standing::Gone);
            }
            Err(error) if error.kind() == FailureKind::Permanent => {
                return Ok(Standing::Nameless(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        if object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string) {
            return Ok(Standing::Ending);
        }
        match object.pointer("/metadata/uid").and_then(Value::as_str).filter(|uid| !uid.is_empty()) {
            Some(uid) => Ok(Standing::There(uid.to_owned())),
            None => Ok(Standing::Nameless(format!("GET {target}: the object has no uid"))),
        }
    }

    /// Deletes an object, where a uid is given only the one with that uid (DeleteOptions `preconditions`); another
    /// one is a conflict. [`Detail::AlreadySo`] = it was gone.
    ///
    /// # Errors
    /// As [`Kube::delete`].
    pub async fn delete_exactly(&self, target: &str, uid: Option<&str>) -> Done {
        let was_there = match uid {
            None => self.delete(target).await?,
            Some(uid) => {
                let options = json!({
                    "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid},
                });
                self.delete_with(target, &options).await?
            }
        };
        Ok(if was_there { Detail::Nothing } else { Detail::AlreadySo })
    }

    /// The runs of the namespace, each with whether it carries an id of ours.
    ///
    /// # Errors
    /// As [`Kube::list`].
    pub async fn list_runs_with(&self, id: &str) -> Result<Vec<ListedRun>, KubeError> {
        let path = self.pipeline_runs_path().await?;
        let list = self.list(&path, self.settings().tekton_selector.as_deref()).await?;
        let runs = items(&list).ok_or_else(|| KubeError::Malformed {
            call: format!("GET {path}"),
            reason: "not a list of PipelineRuns".to_owned(),
        })?;
        let listed = |object: &Value| ListedRun {
            run: run_from_object(RunEvent::Added, object),
            carries_id: carries(object, id),
        };
        Ok(runs.iter().map(listed).collect())
    }
}

/// Whether a label, an annotation or a parameter of a run has this value.
fn carries(object: &Value, id: &str) -> bool {
    let marked = ["/metadata/labels", "/metadata/annotations"].iter().any(|pointer| {
        let map = object.pointer(pointer).and_then(Value::as_object);
        map.is_some_and(|map| map.values().any(|value| value == id))
    });
    let params = object.pointer("/spec/params").and_then(Value::as_array);
    marked || params.is_some_and(|params| params.iter().any(|param| param["value"] == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_wherever_a_template_puts_it() {
        for object in [
            json!({"metadata": {"labels": {"switchover/delivery": "d1"}}}),
            json!({"metadata": {"annotations": {"any": "d1"}}}),
            json!({"spec": {"params": [{"name": "delivery", "value": "d1"}]}}),
        ] {
            assert!(carries(&object, "d1") && !carries(&object, "d2"), "{object}");
        }
        assert!(!carries(&json!([]), "d1"));
    }
}
