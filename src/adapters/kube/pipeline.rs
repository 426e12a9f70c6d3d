//! Tekton PipelineRuns through the Kubernetes API: find, list, cancel.
//!
//! Owns the API version and the reading of a run's object. Never starts a run (the listener does) nor judges one.

use serde_json::{Value, json};

use super::objects::Done;
use super::request::items;
use super::{Kube, KubeError, PatchKind};
use crate::config::kube::is_object_name;
use crate::model::{Detail, FailureKind, PipelineRunSeen, RunEvent};

/// Label that carries the listener's event id.
pub const EVENT_ID_LABEL: &str = "triggers.tekton.dev/triggers-eventid";

impl Kube {
    /// Path of the PipelineRuns, in the API version that settings or the API server name.
    ///
    /// # Errors
    /// Where the API server could not be asked just now. One that offers no discovery means `v1beta1`.
    pub async fn pipeline_runs_path(&self) -> Result<String, KubeError> {
        let version = match &self.settings().tekton_version {
            Some(fixed) => fixed.as_str(),
            None => match self.inner.tekton_version.get() {
                Some(known) => known,
                None => self.discover_tekton().await?,
            },
        };
        let namespace = &self.settings().tekton_namespace;
        Ok(format!("/apis/tekton.dev/{version}/namespaces/{namespace}/pipelineruns"))
    }

    async fn discover_tekton(&self) -> Result<&'static str, KubeError> {
        let group = match self.get_json("/apis/tekton.dev").await {
            Ok(group) => group,
            Err(error @ KubeError::Malformed { .. }) => {
                tracing::debug!(%error, "no discovery of tekton.dev, v1beta1 is assumed");
                return Ok("v1beta1");
            }
            Err(error) if error.kind() == FailureKind::Transient => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "no discovery of tekton.dev, v1beta1 is assumed");
                return Ok("v1beta1");
            }
        };
        let served = |wanted: &str| {
            let versions = group.get("versions").and_then(Value::as_array).into_iter().flatten();
            versions.filter_map(|entry| entry.get("version")).any(|version| version == wanted)
        };
        let version = if served("v1") { "v1" } else { "v1beta1" };
        // Only an answer is remembered: Tekton may be installed later.
        Ok(self.inner.tekton_version.get_or_init(async || version).await)
    }

    /// Cancels a run, letting its `finally` tasks run. [`Detail::AlreadySo`] = there is no such run.
    ///
    /// # Errors
    /// [`KubeError::BadName`] for a name that no object can have; else as [`Kube::patch`].
    pub async fn cancel_run(&self, name: &str) -> Done {
        if !is_object_name(name) {
            return Err(KubeError::BadName(name.to_owned()));
        }
        let target = format!("{}/{name}", self.pipeline_runs_path().await?);
        let body = json!({"spec": {"status": "CancelledRunFinally"}});
        match self.patch(&target, PatchKind::Merge, &body).await {
            Ok(_) => Ok(Detail::Nothing),
            Err(error) if error.is_not_found() => Ok(Detail::AlreadySo),
            Err(error) => Err(error),
        }
    }

    /// The runs of the namespace, narrowed by the setting `TEKTON_LABEL_SELECTOR`.
    ///
    /// # Errors
    /// As [`Kube::list`].
    pub async fn list_runs(&self) -> Result<Vec<PipelineRunSeen>, KubeError> {
        let path = self.pipeline_runs_path().await?;
        let list = self.list(&path, self.settings().tekton_selector.as_deref()).await?;
        let runs = items(&list).ok_or_else(|| KubeError::Malformed {
            call: format!("GET {path}"),
            reason: "not a list of PipelineRuns".to_owned(),
        })?;
        Ok(runs.iter().map(|run| run_from_object(RunEvent::Added, run)).collect())
    }

    /// The run that the listener started for an event; `None` = there is none (yet).
    ///
    /// # Errors
    /// As [`Kube::list`].
    pub async fn find_run_by_event(&self, event_id: &str) -> Result<Option<PipelineRunSeen>, KubeError> {
        let runs = self.list_runs().await?;
        Ok(runs.into_iter().find(|run| run.event_id.as_deref() == Some(event_id)))
    }
}

/// Reads a PipelineRun object; whatever is missing stays unknown.
pub fn run_from_object(kind: RunEvent, object: &Value) -> PipelineRunSeen {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let metadata = |key: &str| object.get("metadata").and_then(|metadata| metadata.get(key));
    let list = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let release = list("/spec/params")
        .find(|param| param.get("name").and_then(Value::as_str) == Some("release-namespace"))
        .and_then(|param| text(param.get("value")));
    let is_verdict = |condition: &&Value| condition.get("type").and_then(Value::as_str) == Some("Succeeded");
    let condition = list("/status/conditions").find(is_verdict).or_else(|| list("/status/conditions").next());
    let succeeded = match condition.and_then(|condition| condition.get("status")).and_then(Value::as_str) {
        Some("True") => Some(true),
        Some("False") => Some(false),
        _ => None,
    };
    let created = metadata("creationTimestamp")
        .and_then(Value::as_str)
        .and_then(|moment| moment.parse::<jiff::Timestamp>().ok())
        .and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
    PipelineRunSeen {
        kind,
        name: text(metadata("name")).unwrap_or_default(),
        event_id: text(metadata("labels").and_then(|labels| labels.get(EVENT_ID_LABEL))),
        release,
        reason: text(condition.and_then(|condition| condition.get("reason"))),
        succeeded,
        created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_named_succeeded_is_read_wherever_it_stands() {
        let run = run_from_object(
            RunEvent::Modified,
            &json!({
                "metadata": {"name": "r1", "labels": {EVENT_ID_LABEL: "e1"}, "creationTimestamp": "1970-01-01T00:00:02Z"},
                "spec": {"params": [{"name": "x", "value": ["a"]}, {"name": "release-namespace", "value": "apps"}]},
                "status": {"conditions": [
                    {"type": "Other", "status": "True", "reason": "No"},
                    {"type": "Succeeded", "status": "False", "reason": "Failed"}]},
            }),
        );
        assert_eq!((run.name.as_str(), run.event_id.as_deref()), ("r1", Some("e1")));
        assert_eq!((run.reason.as_deref(), run.succeeded), (Some("Failed"), Some(false)));
        assert_eq!((run.release.as_deref(), run.created), (Some("apps"), Some(2000)));
    }

    #[test]
    fn a_run_without_anything_is_unknown_throughout() {
        for object in [json!({}), json!({"metadata": null, "status": {"conditions": []}}), json!([])] {
            let run = run_from_object(RunEvent::Added, &object);
            assert_eq!((run.name.as_str(), run.event_id, run.succeeded), ("", None, None));
        }
    }
}
