//! Scaling a StatefulSet and waiting until its pods are there or gone.
//!
//! Owns the done-condition: the controller has seen the new number and the pods follow it. "No pod is ready" is
//! never taken for "no pod is left", because volumes are deleted next.

use std::time::Duration;

use serde_json::{Value, json};

use super::objects::Done;
use super::record::name_of;
use super::watch::{self, Change, WatchTarget};
use super::{Kube, KubeError};
use crate::config::kube::Dependant;
use crate::model::Detail;

/// Time between two direct reads beside the watch: a selector that does not match or a watch that misses an event
/// must not cost the whole limit.
const POLL: Duration = Duration::from_secs(10);

/// Time between two looks at a dependant.
const DEPENDANT_POLL: Duration = Duration::from_millis(500);

impl Kube {
    /// Scales the database and waits, at most for the setting `KUBE_SCALE_TIMEOUT_SECONDS`.
    ///
    /// # Errors
    /// [`KubeError::NotReached`] where the pods did not follow; else as [`Kube::patch`].
    pub async fn scale_database(&self, replicas: u32) -> Done {
        let settings = self.settings();
        self.scale_and_wait(&settings.database_statefulset, &settings.database_selector, replicas).await
    }

    /// Scales the application and what depends on it, and waits; for sites without Tekton. Dependants start after
    /// the application and stop before it.
    ///
    /// # Errors
    /// As [`Kube::scale_database`].
    pub async fn scale_application(&self, replicas: u32) -> Done {
        let settings = self.settings();
        let (name, selector) = (&settings.application_statefulset, &settings.application_selector);
        if replicas > 0 {
            self.scale_and_wait(name, selector, replicas).await?;
            for dependant in &settings.application_dependants {
                self.scale_dependant(dependant, dependant.replicas).await?;
            }
        } else {
            for dependant in settings.application_dependants.iter().rev() {
                self.scale_dependant(dependant, 0).await?;
            }
            self.scale_and_wait(name, selector, 0).await?;
        }
        Ok(Detail::Nothing)
    }

    /// Scales what runs beside the application and waits by reading it by name.
    async fn scale_dependant(&self, dependant: &Dependant, replicas: u32) -> Done {
        let path = format!("/apis/apps/v1/namespaces/{}/{}", self.settings().namespace, dependant.kind);
        let target = format!("{path}/{}", dependant.name);
        self.strategic(&format!("{target}/scale"), &json!({"spec": {"replicas": replicas}})).await?;
        let limit = self.settings().scale_timeout;
        let follow = async {
            while !self.get_json(&target).await.is_ok_and(|object| pods_follow(&object, replicas)) {
                tokio::time::sleep(DEPENDANT_POLL).await;
            }
        };
        tokio::time::timeout(limit, follow).await.map(|()| Detail::Nothing).map_err(|_| {
            KubeError::NotReached {
                what: format!("{} {} at {replicas} replicas", dependant.kind, dependant.name),
                limit_ms: limit.as_millis(),
                last_seen: "not there yet".to_owned(),
            }
        })
    }

    /// Scales the application to one replica, without waiting.
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn start_application(&self) -> Done {
        self.scale_statefulset(&self.settings().application_statefulset, 1).await
    }

    async fn scale_statefulset(&self, name: &str, replicas: u32) -> Done {
        let target = format!("{}/{name}/scale", self.statefulsets());
        self.strategic(&target, &json!({"spec": {"replicas": replicas}})).await
    }

    fn statefulsets(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/statefulsets", self.settings().namespace)
    }

    async fn scale_and_wait(&self, name: &str, selector: &str, replicas: u32) -> Done {
        self.scale_statefulset(name, replicas).await?;
        let limit = self.settings().scale_timeout;
        let mut last_seen = format!("no StatefulSet {name} among {selector}");
        let wait = self.wait_for_pods(name, selector, replicas, &mut last_seen);
        match tokio::time::timeout(limit, wait).await {
            Ok(()) => Ok(Detail::Nothing),
            Err(_) => Err(KubeError::NotReached {
                what: format!("StatefulSet {name} at {replicas} replicas"),
                limit_ms: limit.as_millis(),
                last_seen,
            }),
        }
    }

    async fn wait_for_pods(&self, name: &str, selector: &str, replicas: u32, last_seen: &mut String) {
        let target =
            WatchTarget { name: "scale", path: self.statefulsets(), selector: Some(selector.to_owned()) };
        let mut changes = watch::list_then_watch(self, target);
        let mut poll = tokio::time::interval_at(tokio::time::Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let objects = tokio::select! {
                change = changes.recv() => match change {
                    Some(Change::Listed(objects)) => objects,
                    Some(Change::Added(object) | Change::Modified(object)) => vec![object],
                    Some(Change::Deleted(_) | Change::Lost(_)) => Vec::new(),
                    // The watch only ends with its receiver; should it ever, the poll still decides.
                    None => std::future::pending().await,
                },
                _ = poll.tick() => match self.get_json(&format!("{}/{name}", self.statefulsets())).await {
                    Ok(object) => vec![object],
                    Err(_) => Vec::new(),
                },
            };
            // Some servers leave names out; the selector has chosen then.
            let ours = objects.iter().find(|object| name_of(object).is_none_or(|found| found == name));
            if let Some(object) = ours {
                if pods_follow(object, replicas) {
                    return;
                }
                *last_seen = describe(object);
            }
        }
    }
}

fn number(object: &Value, pointer: &str) -> Option<u64> {
    object.pointer(pointer).and_then(Value::as_u64)
}

/// Whether the pods of a StatefulSet have reached the number.
fn pods_follow(object: &Value, target: u32) -> bool {
    let generation = number(object, "/metadata/generation");
    let observed = number(object, "/status/observedGeneration");
    if let (Some(generation), Some(observed)) = (generation, observed)
        && observed < generation
    {
        return false;
    }
    match target {
        // `status.replicas` counts pods that still terminate; an absent status says nothing at all.
        0 => {
            object.get("status").is_some_and(Value::is_object)
                && number(object, "/status/replicas").unwrap_or(0) == 0
        }
        _ => number(object, "/status/readyReplicas") == Some(u64::from(target)),
    }
}

fn describe(object: &Value) -> String {
    let shown = |pointer| number(object, pointer).map_or_else(|| "-".to_owned(), |n| n.to_string());
    format!(
        "replicas {} ready {} generation {} observed {}",
        shown("/status/replicas"),
        shown("/status/readyReplicas"),
        shown("/metadata/generation"),
        shown("/status/observedGeneration")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_ready_replicas_do_not_prove_that_no_pod_is_left() {
        assert!(!pods_follow(&json!({"status": {"replicas": 1}}), 0));
        assert!(!pods_follow(&json!({}), 0));
        assert!(pods_follow(&json!({"status": {"replicas": 0}}), 0));
        assert!(pods_follow(&json!({"status": {"observedGeneration": 2}, "metadata": {"generation": 2}}), 0));
    }

    #[test]
    fn a_status_of_an_older_generation_proves_nothing() {
        let object = |observed: u64, ready: u64| {
            json!({"metadata": {"generation": 5},
                   "status": {"observedGeneration": observed, "replicas": ready, "readyReplicas": ready}})
        };
        assert!(!pods_follow(&object(4, 3), 3));
        assert!(pods_follow(&object(5, 3), 3));
        assert!(!pods_follow(&object(4, 0), 0));
        assert!(!pods_follow(&object(5, 2), 3));
    }
}
