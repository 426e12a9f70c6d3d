//! What people are told: log lines about a pass, Kubernetes Events about ingresses that are left out.
//!
//! Owns the words. An Event is made once per ingress and reason; without the right to make Events only the log tells.

use std::collections::BTreeSet;

use serde_json::json;

use super::ingresses::Ingresses;
use crate::adapters::kube::Kube;
use crate::rules::geo::GeoPolicy;
use crate::rules::geo::pass::Report;
use crate::rules::geo::select::{Ignored, Selected};

/// Events that are made in one pass at most: a wrong selector must not flood the API server.
const EVENT_LIMIT: usize = 20;

/// What was told before.
#[derive(Debug, Default)]
pub struct Notices {
    told: BTreeSet<(String, String, Ignored)>,
}

impl Notices {
    /// Tells about ingresses that are newly left out by mistake.
    pub async fn tell(&mut self, kube: &Kube, ingresses: &Ingresses, selected: &Selected) {
        self.told.retain(|entry| selected.ignored.contains(entry));
        let new: Vec<_> = selected
            .ignored
            .iter()
            .filter(|entry| entry.2.is_mistake() && !self.told.contains(*entry))
            .take(EVENT_LIMIT)
            .cloned()
            .collect();
        for entry in new {
            let (namespace, name, why) = &entry;
            tracing::warn!(ingress = %format!("{namespace}/{name}"), why = why.sentence(), "ingress is left out");
            let uid = ingresses.get(namespace, name).map_or("", |ingress| &ingress.uid);
            event(kube, namespace, name, uid, why).await;
            self.told.insert(entry);
        }
    }
}

async fn event(kube: &Kube, namespace: &str, name: &str, uid: &str, why: &Ignored) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": format!("{name}.{:016x}", rand::random::<u64>()), "namespace": namespace},
        "involvedObject": {
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "namespace": namespace, "name": name, "uid": uid,
        },
        "type": "Warning", "reason": "NotPublished",
        "message": format!("This ingress {}.", why.sentence()),
        "source": {"component": "switchover-agent"},
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    });
    if let Err(error) = kube.create(&format!("/api/v1/namespaces/{namespace}/events"), &body).await {
        tracing::debug!(%error, "no Kubernetes Event was made");
    }
}

/// Logs what a pass found.
pub fn log(policy: &GeoPolicy, report: &Report) {
    for call in &report.planned {
        tracing::info!(change = super::describe(call), "dry run: would change Cloudflare");
    }
    for pool in &report.conflicts {
        tracing::error!(
            pool,
            "another cluster writes this pool too: give the clusters distinct cluster names"
        );
    }
    for pool in &report.foreign {
        tracing::error!(pool, host = policy.hostname, "this pool belongs to another load balancer");
    }
    for pool in &report.last {
        tracing::error!(pool, "this pool has no address and stays, being the last one that is enabled");
    }
    for (pool, users) in &report.blocked {
        tracing::error!(pool, users = users.join(", "), "this pool cannot be deleted while it is in use");
    }
    for pool in &report.orphans {
        tracing::info!(pool, "this pool has no address");
    }
    for pool in &report.unmonitored {
        tracing::warn!(pool, "this pool has no monitor: it never fails over");
    }
    for failure in &report.failures {
        tracing::error!(reason = failure.reason, "geo pass failed");
    }
    if report.unsettled {
        tracing::warn!("others keep changing the load balancer; trying again");
    }
}
