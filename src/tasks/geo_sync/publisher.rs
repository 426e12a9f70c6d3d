//! One look and what follows from it: everything that a pass needs besides the ingresses.
//!
//! Owns what is found out once (who we are, the zone's name, the monitor) and the answers about proxied records. Knows
//! nothing of rhythm and Lease; the dry run uses it as the task does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::time::Instant;

use super::ingresses::Ingresses;
use super::{Driver, GeoHealth};
use crate::adapters::cloudflare::{Cloudflare, CloudflareError};
use crate::adapters::kube::Kube;
use crate::config::geo::GeoSettings;
use crate::model::FailureKind;
use crate::rules::geo::pass::{Input, Pass, wanted};
use crate::rules::geo::select::{Selected, select};
use crate::rules::geo::{Call, GeoPolicy};
use crate::tasks::jitter::Jitter;

/// Time for which an answer about a proxied record is kept.
const LOOP_MEMORY: Duration = Duration::from_secs(3600);

/// Why nothing can be published right now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// How to take it.
    pub kind: FailureKind,
    /// One line.
    pub reason: String,
}

impl Trouble {
    fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

impl From<CloudflareError> for Trouble {
    fn from(error: CloudflareError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

/// What publishes.
pub(super) struct Publisher {
    pub settings: GeoSettings,
    pub policy: GeoPolicy,
    pub health: Arc<GeoHealth>,
    pub jitter: Jitter,
    kube: Kube,
    cloudflare: Cloudflare,
    /// Name of the zone; inner `None` = the token may not read it.
    zone: Option<Option<String>>,
    monitored: bool,
    /// Host names of our zone: whether they are proxied, and when that was asked.
    records: BTreeMap<String, (bool, Instant)>,
}

impl Publisher {
    /// Contacts nothing.
    pub(super) fn new(
        settings: GeoSettings,
        kube: Kube,
        registry: &Registry,
        health: Arc<GeoHealth>,
        jitter: Jitter,
    ) -> Result<Self, String> {
        let cloudflare =
            Cloudflare::new(settings.cloudflare.clone(), registry).map_err(|error| error.to_string())?;
        Ok(Self {
            policy: settings.policy.clone(),
            monitored: settings.monitor.is_none(),
            settings,
            health,
            jitter,
            kube,
            cloudflare,
            zone: None,
            records: BTreeMap::new(),
        })
    }

    /// What has to be known once: who we are, whether the name is in the zone, the monitor. Gives the lines that a dry
    /// run has to tell.
    pub(super) async fn prepare(&mut self) -> Result<Vec<String>, Trouble> {
        self.learn_owner().await?;
        self.learn_zone().await?;
        self.learn_monitor().await
    }

    async fn learn_owner(&mut self) -> Result<(), Trouble> {
        if !self.policy.owner.is_empty() {
            return Ok(());
        }
        let namespace = self.kube.get_json("/api/v1/namespaces/kube-system").await.map_err(|error| {
            Trouble::new(error.kind(), format!("who we are is unknown (or set GEO_OWNER): {error}"))
        })?;
        let uid = namespace.pointer("/metadata/uid").and_then(serde_json::Value::as_str);
        let uid = uid.filter(|uid| !uid.is_empty()).ok_or_else(|| {
            Trouble::new(FailureKind::Permanent, "the namespace kube-system has no uid; set GEO_OWNER")
        })?;
        uid.clone_into(&mut self.policy.owner);
        let (host, geo, owner) = (&self.policy.hostname, &self.policy.geo, &self.policy.owner);
        tracing::info!(%host, %geo, %owner, "this cluster writes its pools as");
        Ok(())
    }

    async fn learn_zone(&mut self) -> Result<(), Trouble> {
        if self.zone.is_some() {
            return Ok(());
        }
        self.health.beat();
        match self.cloudflare.zone_name(&self.settings.place.zone).await {
            Ok(name) => {
                let host = &self.policy.hostname;
                if *host != name && !host.ends_with(&format!(".{name}")) {
                    let reason = format!("CF_LB_HOSTNAME={host} is not in the zone {name} of CF_ZONE_ID");
                    return Err(Trouble::new(FailureKind::Permanent, reason));
                }
                self.zone = Some(Some(name));
            }
            Err(error) if error.kind() == FailureKind::Permanent => {
                tracing::warn!(%error, "the zone cannot be read: names are not checked against it");
                self.zone = Some(None);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn learn_monitor(&mut self) -> Result<Vec<String>, Trouble> {
        let Some(spec) = self.settings.monitor.as_ref().filter(|_| !self.monitored) else {
            return Ok(Vec::new());
        };
        self.health.beat();
        let account = &self.settings.place.account;
        let mut found = self.cloudflare.monitors(account, spec).await?;
        let mut planned = Vec::new();
        if found.current.is_none() && self.settings.dry_run {
            planned.push(format!("create monitor {}", spec.words()));
            found.current = Some("(new monitor)".to_owned());
        } else if found.current.is_none() {
            self.cloudflare.create_monitor(account, spec).await?;
            tracing::info!(change = format!("create monitor {}", spec.words()), "Cloudflare changed");
            // Another instance may have made the same one meanwhile; all take the first.
            found = self.cloudflare.monitors(account, spec).await?;
        }
        let vanished = || Trouble::new(FailureKind::Transient, "the monitor that was made is not listed");
        self.policy.monitor = Some(found.current.ok_or_else(vanished)?);
        self.policy.old_monitors = found.others;
        self.monitored = true;
        Ok(planned)
    }

    /// Forgets what a failed write may contradict, so that it is found out again.
    pub(super) fn doubt(&mut self) {
        self.monitored = self.settings.monitor.is_none();
    }

    /// Whether Cloudflare lets us read, for a replica that does not work.
    pub(super) async fn probe(&self) -> Result<(), Trouble> {
        for call in [Call::ListPools, Call::ListBalancers] {
            self.health.beat();
            let answer = self.cloudflare.perform(&self.settings.place, &call).await;
            answer.map_err(|failure| Trouble::new(failure.kind, failure.reason))?;
        }
        Ok(())
    }

    /// The ingresses sorted into addresses per cluster.
    ///
    /// # Errors
    /// Where it cannot be known whether a name leads back to Cloudflare: neither answer may be assumed.
    pub(super) async fn select(&mut self, ingresses: &Ingresses) -> Result<Selected, Trouble> {
        let loops = self.loops(ingresses).await?;
        Ok(select(&self.policy, &loops, ingresses.iter()))
    }

    /// A whole pass.
    pub(super) async fn pass(&mut self, selected: &Selected, due: BTreeSet<String>, enforce: bool) -> Pass {
        let policy = GeoPolicy { enforce: self.policy.enforce && enforce, ..self.policy.clone() };
        let dry_run = self.settings.dry_run;
        let input = Input { wanted: wanted(&policy, &selected.clusters), due, dry_run };
        let mut pass = Pass::new(Arc::new(policy), Arc::new(input));
        let mut driver = Driver {
            cloudflare: &self.cloudflare,
            place: &self.settings.place,
            verify: self.settings.verify,
            jitter: &mut self.jitter,
            health: &self.health,
        };
        driver.drive(&mut pass).await;
        pass
    }

    /// Host names among the addresses that are proxied records of our zone.
    async fn loops(&mut self, ingresses: &Ingresses) -> Result<BTreeSet<String>, Trouble> {
        let Some(Some(zone)) = self.zone.clone() else { return Ok(BTreeSet::new()) };
        self.records.retain(|_, (_, asked)| asked.elapsed() < LOOP_MEMORY);
        let ending = format!(".{zone}");
        let names: BTreeSet<String> = ingresses
            .iter()
            .flat_map(|ingress| &ingress.addresses)
            .filter_map(|text| crate::rules::geo::address::canonical(text).ok())
            .filter(|name| name.ends_with(&ending) && *name != self.policy.hostname)
            .collect();
        for name in &names {
            if self.records.contains_key(name) {
                continue;
            }
            self.health.beat();
            let proxied = match self.cloudflare.is_proxied(&self.settings.place.zone, name).await {
                Ok(proxied) => proxied,
                // Without the right to read records nothing better will be known.
                Err(error) if error.is_forbidden() => {
                    tracing::warn!(%error, name, "nobody can tell whether this name leads back to Cloudflare");
                    false
                }
                Err(error) => return Err(error.into()),
            };
            self.records.insert(name.clone(), (proxied, Instant::now()));
        }
        let proxied = |name: &String| self.records.get(name).is_some_and(|(proxied, _)| *proxied);
        Ok(names.into_iter().filter(proxied).collect())
    }
}
