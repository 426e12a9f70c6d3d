//! Which of several replicas works: a Lease of `coordination.k8s.io`.
//!
//! Owns acquiring, renewing and releasing. Follows the rule of client-go: a foreign Lease is over when it has not
//! changed for its duration as seen by our own clock; clocks of different machines are never compared.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::jitter::Jitter;
use crate::adapters::kube::{Kube, KubeError};
use crate::config::lease::LeaseSettings;

/// Limit of giving the Lease up at the end.
const RELEASE: Duration = Duration::from_secs(2);

/// A replica's part in the election.
pub struct Election {
    kube: Kube,
    settings: LeaseSettings,
    collection: String,
    identity: String,
    jitter: Jitter,
    leader: watch::Sender<bool>,
    /// A foreign Lease as last seen, and since when it has not changed.
    seen: Option<(Value, Instant)>,
    /// When the last good renewal was begun.
    renewed: Option<Instant>,
}

impl Election {
    /// A replica that does not hold the Lease and is called `who` in it; `leader` is told when that changes.
    pub fn new(
        kube: Kube,
        settings: LeaseSettings,
        who: &str,
        mut jitter: Jitter,
        leader: watch::Sender<bool>,
    ) -> Self {
        let collection = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", settings.namespace);
        let identity = format!("{who}-{:016x}", jitter.number());
        Self { kube, settings, collection, identity, jitter, leader, seen: None, renewed: None }
    }

    /// Tries to be the holder, for ever.
    pub async fn run(&mut self) {
        loop {
            let began = Instant::now();
            // What takes longer than we may hold on is as good as failed.
            let end =
                self.give_up_at().unwrap_or(began + self.settings.renew).min(began + self.settings.renew);
            match tokio::time::timeout_at(end, self.attempt()).await {
                Ok(Ok(true)) => self.renewed = Some(began),
                Ok(Ok(false)) => self.renewed = None,
                Ok(Err(error)) => tracing::debug!(%error, "the Lease cannot be renewed"),
                Err(_) => tracing::debug!("the Lease cannot be renewed in time"),
            }
            self.publish();
            let wake =
                Instant::now() + self.jitter.between(self.settings.renew / 2, self.settings.renew * 3 / 4);
            match self.give_up_at().filter(|end| *end < wake) {
                Some(end) => {
                    tokio::time::sleep_until(end).await;
                    self.publish();
                }
                None => tokio::time::sleep_until(wake).await,
            }
        }
    }

    /// Gives the Lease up where we hold it, so that another replica need not wait for its end.
    pub async fn release(&mut self) {
        if self.renewed.take().is_none() {
            return;
        }
        self.publish();
        match tokio::time::timeout(RELEASE, self.give_up()).await {
            Ok(Ok(())) => tracing::info!(identity = self.identity, "the Lease is released"),
            Ok(Err(error)) => tracing::debug!(%error, "the Lease is not released and will run out"),
            Err(_) => tracing::debug!("the Lease is not released in time and will run out"),
        }
    }

    /// Until when we may act as the holder.
    fn give_up_at(&self) -> Option<Instant> {
        self.renewed.map(|at| at + self.settings.give_up).filter(|end| *end > Instant::now())
    }

    fn publish(&mut self) {
        let holds = self.give_up_at().is_some();
        let identity = &self.identity;
        self.leader.send_if_modified(|leader| {
            let changed = *leader != holds;
            if changed {
                tracing::info!(identity, holds, "the Lease decides who works");
            }
            *leader = holds;
            changed
        });
    }

    fn target(&self) -> String {
        format!("{}/{}", self.collection, self.settings.name)
    }

    async fn attempt(&mut self) -> Result<bool, KubeError> {
        let mut lease = match self.kube.get_json(&self.target()).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let body = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.settings.name}, "spec": self.spec(&Value::Null),
                });
                return self.kube.create(&self.collection, &body).await.map(|_| true).or_else(conflict);
            }
            Err(error) => return Err(error),
        };
        let record = lease["spec"].clone();
        if self.seen.as_ref().is_none_or(|(known, _)| *known != record) {
            self.seen = Some((record.clone(), Instant::now()));
        }
        let holder = record["holderIdentity"].as_str().unwrap_or_default();
        let length = record["leaseDurationSeconds"].as_u64().unwrap_or(self.settings.duration_seconds);
        let quiet = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        if !holder.is_empty() && holder != self.identity && quiet < Duration::from_secs(length) {
            return Ok(false);
        }
        // The resource version in it makes the API server refuse whoever is second.
        lease["spec"] = self.spec(&record);
        self.kube.replace(&self.target(), &lease).await.map(|_| true).or_else(conflict)
    }

    async fn give_up(&self) -> Result<(), KubeError> {
        let mut lease = self.kube.get_json(&self.target()).await?;
        if lease["spec"]["holderIdentity"] == self.identity {
            lease["spec"]["holderIdentity"] = json!("");
            lease["spec"]["leaseDurationSeconds"] = json!(1);
            lease["spec"]["renewTime"] = json!(now());
            self.kube.replace(&self.target(), &lease).await?;
        }
        Ok(())
    }

    fn spec(&self, before: &Value) -> Value {
        let now = now();
        let ours = before["holderIdentity"] == self.identity;
        let transitions = before["leaseTransitions"].as_u64().unwrap_or(0);
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.settings.duration_seconds,
            "acquireTime": if ours { before["acquireTime"].clone() } else { json!(now) },
            "renewTime": now,
            "leaseTransitions": transitions + u64::from(!ours),
        })
    }
}

fn conflict(error: KubeError) -> Result<bool, KubeError> {
    if error.is_conflict() { Ok(false) } else { Err(error) }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
