//! Which of several replicas works: a Lease of `coordination.k8s.io`.
//!
//! Owns acquiring and renewing. Follows the rule of client-go: a foreign Lease is over when it has not changed for
//! its duration as seen by our own clock; clocks of different machines are never compared.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::adapters::kube::{Kube, KubeError};

/// Time after which an unrenewed Lease is free, in seconds.
const DURATION_SECONDS: u64 = 15;
/// Time between two renewals or attempts.
const RENEW: Duration = Duration::from_secs(4);
/// A holder that could not renew for this long stops, well before others may begin.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Tries to be the holder, for ever; tells whether it is.
pub async fn hold(kube: &Kube, namespace: &str, name: &str, leader: &watch::Sender<bool>) {
    let identity = format!("geo-sync-{:016x}", rand::random::<u64>());
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let mut seen: Option<(Value, Instant)> = None;
    let mut renewed: Option<Instant> = None;
    loop {
        let began = Instant::now();
        // A renewal that takes longer than we may hold on is as good as a failed one.
        let attempt = tokio::time::timeout(RENEW, attempt(kube, &path, name, &identity, &mut seen)).await;
        match attempt {
            Ok(Ok(true)) => renewed = Some(began),
            Ok(Ok(false)) => renewed = None,
            Ok(Err(error)) => tracing::debug!(%error, "the Lease cannot be renewed"),
            Err(_) => tracing::debug!("the Lease cannot be renewed in time"),
        }
        let holds = renewed.is_some_and(|at| at.elapsed() < GIVE_UP);
        leader.send_if_modified(|leader| {
            let changed = *leader != holds;
            if changed {
                tracing::info!(identity, holds, "the Lease decides who works");
            }
            *leader = holds;
            changed
        });
        let jitter = RENEW.mul_f64(0.5 + 0.25 * rand::random::<f64>());
        tokio::time::sleep(jitter).await;
    }
}

async fn attempt(
    kube: &Kube,
    path: &str,
    name: &str,
    identity: &str,
    seen: &mut Option<(Value, Instant)>,
) -> Result<bool, KubeError> {
    let target = format!("{path}/{name}");
    let mut lease = match kube.get_json(&target).await {
        Ok(lease) => lease,
        Err(error) if error.is_not_found() => {
            let body = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name}, "spec": spec(identity, &Value::Null),
            });
            return kube.create(path, &body).await.map(|_| true).or_else(conflict);
        }
        Err(error) => return Err(error),
    };
    let record = lease["spec"].clone();
    if seen.as_ref().is_none_or(|(known, _)| *known != record) {
        *seen = Some((record.clone(), Instant::now()));
    }
    let holder = record["holderIdentity"].as_str().unwrap_or_default();
    let length = record["leaseDurationSeconds"].as_u64().unwrap_or(DURATION_SECONDS);
    let quiet = seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
    if !holder.is_empty() && holder != identity && quiet < Duration::from_secs(length) {
        return Ok(false);
    }
    // The resource version in it makes the API server refuse whoever is second.
    lease["spec"] = spec(identity, &record);
    kube.replace(&target, &lease).await.map(|_| true).or_else(conflict)
}

fn conflict(error: KubeError) -> Result<bool, KubeError> {
    if error.kind() == crate::model::FailureKind::Conflict { Ok(false) } else { Err(error) }
}

fn spec(identity: &str, before: &Value) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let ours = before["holderIdentity"] == identity;
    let transitions = before["leaseTransitions"].as_u64().unwrap_or(0);
    json!({
        "holderIdentity": identity,
        "leaseDurationSeconds": DURATION_SECONDS,
        "acquireTime": if ours { before["acquireTime"].clone() } else { json!(now) },
        "renewTime": now,
        "leaseTransitions": transitions + u64::from(!ours),
    })
}
