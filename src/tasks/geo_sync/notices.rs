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

/// Logs what a dry run would do.
pub fn log_planned(planned: &[String]) {
    for change in planned {
        tracing::info!(change, "dry run: would change Cloudflare");
    }
}

/// Which right of the token a refused call needs.
fn missing_right(reason: &str) -> &'static str {
    let reads = reason.contains(" GET ");
    match (reason.contains("/zones/"), reads) {
        (true, true) => "zone: Load Balancers Read",
        (true, false) => "zone: Load Balancers Write",
        (false, true) => "account: Load Balancing: Monitors and Pools Read",
        (false, false) => "account: Load Balancing: Monitors and Pools Write",
    }
}

/// Logs what a pass found.
pub fn log(policy: &GeoPolicy, report: &Report) {
    log_planned(&report.planned);
    for pool in &report.conflicts {
        tracing::error!(
            pool,
            "another cluster writes this pool too: give the clusters distinct cluster names, then leave only the \
             right owner= in the pool's description"
        );
    }
    for pool in &report.foreign {
        tracing::error!(
            pool,
            host = policy.hostname,
            "this pool belongs to another load balancer or cluster"
        );
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
        if failure.forbidden {
            let right = missing_right(&failure.reason);
            tracing::error!(reason = failure.reason, right, "geo pass failed: the API token lacks a right");
        } else {
            tracing::error!(reason = failure.reason, "geo pass failed");
        }
    }
    if report.unsettled {
        tracing::warn!("others keep changing the load balancer; trying again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_names_the_right_that_is_missing() {
        let right = |call: &str| missing_right(&format!("Cloudflare: {call}: status 403, code 9109: no"));
        assert_eq!(right("PATCH /zones/z/load_balancers/b"), "zone: Load Balancers Write");
        assert_eq!(right("GET /zones/z/load_balancers"), "zone: Load Balancers Read");
        assert!(right("POST /accounts/a/load_balancers/pools").starts_with("account: Load Balancing"));
    }
}
