//! `geo_sync`: labelled ingresses of this cluster become one pool of a Cloudflare load balancer.
//!
//! Owns the rhythm: the ingresses' store, the debounce, the resync, the back-off, the grace period's clock. What is
//! wanted and in which order it is written is decided by [`crate::rules::geo`]; the calls are made by
//! [`crate::adapters::cloudflare`]. A lost Kubernetes API, a lost Lease and the end of the process change nothing.

mod drive;
mod ingresses;
mod lease;
mod metrics;
mod notices;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Ctx, Exit};
use crate::adapters::cloudflare::Cloudflare;
use crate::adapters::kube::{Change, Kube, WatchTarget, watch::list_then_watch};
use crate::config::geo::GeoSettings;
use crate::model::FailureKind;
use crate::rules::geo::GeoPolicy;
use crate::rules::geo::grace::Grace;
use crate::rules::geo::pass::{Input, Pass, Report, wanted};
use crate::rules::geo::select::{Selected, select};
pub use drive::{describe, drive};
use ingresses::Ingresses;
use metrics::GeoMetrics;

/// Longest time between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A pass is bounded by its calls; one that takes this long hangs.
const HANGING: Duration = Duration::from_secs(900);
/// First and longest wait after a failure that may pass.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Wait after a refusal, which a person has to resolve.
const SLOW: Duration = Duration::from_secs(300);
/// Time for which an answer about a proxied record is kept.
const LOOP_MEMORY: Duration = Duration::from_secs(3600);
/// The collection that is watched.
const INGRESSES: &str = "/apis/networking.k8s.io/v1/ingresses";

/// What probes want to know. One per agent; outlives restarts of the task.
#[derive(Debug, Default)]
pub struct GeoHealth {
    ready: AtomicBool,
    beat: AtomicU64,
    start: OnceLock<Instant>,
}

impl GeoHealth {
    /// Whether the ingresses were listed and Cloudflare answered, once.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether the task works or waits as it should. Before its start it is alive.
    pub fn is_alive(&self) -> bool {
        let Some(start) = self.start.get() else { return true };
        let beat = Duration::from_millis(self.beat.load(Ordering::Relaxed));
        start.elapsed().saturating_sub(beat) < HANGING
    }

    fn beat(&self) {
        let start = self.start.get_or_init(Instant::now);
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(ms, Ordering::Relaxed);
    }
}

/// Publishes until cancelled. Ends at once when cancelled; a call under way is abandoned, and its outcome is found
/// by the next start.
pub async fn run(ctx: Ctx, settings: GeoSettings, kube: Kube, health: Arc<GeoHealth>) -> Exit {
    for warning in &settings.warnings {
        tracing::warn!(warning, "geo settings");
    }
    let (leader_sender, leader) = watch::channel(settings.lease.is_none());
    let election = async {
        match &settings.lease {
            Some((namespace, name)) => lease::hold(&kube, namespace, name, &leader_sender).await,
            None => std::future::pending().await,
        }
    };
    let work = async {
        let mut sync = match Sync::new(&ctx, settings.clone(), kube.clone(), health, leader).await {
            Ok(sync) => sync,
            Err(reason) => return Exit::Failed(reason),
        };
        let target = WatchTarget {
            name: "ingresses",
            path: INGRESSES.to_owned(),
            selector: Some(settings.selector.clone()),
        };
        sync.run(list_then_watch(&kube, target)).await
    };
    tokio::select! {
        () = ctx.cancel.cancelled() => Exit::Cancelled,
        () = election => Exit::Failed("the Lease election ended".to_owned()),
        exit = work => exit,
    }
}

/// The changes that the settings ask for right now, one line each, without making them.
///
/// # Errors
/// Whatever keeps them from being computed.
pub async fn dry_run(
    settings: GeoSettings,
    kube: Kube,
    registry: &prometheus::Registry,
) -> Result<Vec<String>, String> {
    let settings = GeoSettings { dry_run: true, ..settings };
    let cloudflare = Cloudflare::new(settings.cloudflare.clone(), registry).map_err(|e| e.to_string())?;
    let policy = policy_of(&settings, &kube).await?;
    let list = kube.list(INGRESSES, Some(&settings.selector)).await.map_err(|error| error.to_string())?;
    let mut ingresses = Ingresses::default();
    let items = crate::adapters::kube::items(&list).ok_or("the ingresses are not a list")?;
    ingresses.take(Change::Listed(items.to_vec()));
    let selected = select(&policy, &BTreeSet::new(), ingresses.iter());
    let input = Input { wanted: wanted(&policy, &selected.clusters), due: BTreeSet::new(), dry_run: true };
    let mut pass = Pass::new(Arc::new(policy), Arc::new(input));
    drive(&cloudflare, &settings.place, &mut pass, settings.verify).await;
    match pass.report().failures.first() {
        Some(failure) => Err(failure.reason.clone()),
        None => Ok(pass.report().planned.iter().map(describe).collect()),
    }
}

async fn policy_of(settings: &GeoSettings, kube: &Kube) -> Result<GeoPolicy, String> {
    let mut policy = settings.policy.clone();
    if policy.owner.is_empty() {
        let namespace = kube.get_json("/api/v1/namespaces/kube-system").await;
        let uid = namespace.map_err(|error| format!("who we are (or set GEO_OWNER): {error}"))?;
        let uid = uid.pointer("/metadata/uid").and_then(serde_json::Value::as_str);
        uid.ok_or("the namespace kube-system has no uid; set GEO_OWNER")?.clone_into(&mut policy.owner);
    }
    Ok(policy)
}

struct Sync {
    settings: GeoSettings,
    kube: Kube,
    cloudflare: Cloudflare,
    policy: GeoPolicy,
    metrics: GeoMetrics,
    health: Arc<GeoHealth>,
    leader: watch::Receiver<bool>,
    ingresses: Ingresses,
    lost: bool,
    grace: Grace,
    /// Name of the zone; inner `None` = the token may not read it.
    zone: Option<Option<String>>,
    monitored: bool,
    /// Host names of our zone: whether they are proxied, and when that was asked.
    records: BTreeMap<String, (bool, Instant)>,
    notices: notices::Notices,
    start: Instant,
    next: Instant,
    failures: u32,
}

impl Sync {
    async fn new(
        ctx: &Ctx,
        settings: GeoSettings,
        kube: Kube,
        health: Arc<GeoHealth>,
        leader: watch::Receiver<bool>,
    ) -> Result<Self, String> {
        let cloudflare =
            Cloudflare::new(settings.cloudflare.clone(), &ctx.registry).map_err(|e| e.to_string())?;
        let metrics = GeoMetrics::register(&ctx.registry).map_err(|error| error.to_string())?;
        let policy = policy_of(&settings, &kube).await?;
        let (host, geo, owner) = (&policy.hostname, &policy.geo, &policy.owner);
        tracing::info!(%host, %geo, %owner, dry_run = settings.dry_run, "geo configuration loaded");
        let now = Instant::now();
        Ok(Self {
            kube,
            cloudflare,
            policy,
            metrics,
            health,
            leader,
            ingresses: Ingresses::default(),
            lost: false,
            grace: Grace::default(),
            zone: None,
            monitored: settings.monitor.is_none() || settings.dry_run,
            records: BTreeMap::new(),
            notices: notices::Notices::default(),
            start: now,
            next: now,
            failures: 0,
            settings,
        })
    }

    async fn run(&mut self, mut changes: mpsc::Receiver<Change>) -> Exit {
        loop {
            self.health.beat();
            let works = self.ingresses.is_listed() && !self.lost && *self.leader.borrow();
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take(change),
                    None => return Exit::Failed("the watch of the ingresses ended".to_owned()),
                },
                () = tokio::time::sleep_until(self.next), if works => {
                    if let Err(reason) = self.guarded_pass().await {
                        return Exit::Failed(reason);
                    }
                }
                () = tokio::time::sleep(HEARTBEAT) => {}
                _ = self.leader.changed(), if self.settings.lease.is_some() => {}
            }
        }
    }

    fn take(&mut self, change: Change) {
        if let Change::Lost(reason) = &change {
            // What is not seen is not empty: every grace period begins anew after an outage.
            tracing::warn!(reason, "ingresses are out of sight: nothing is changed until they are back");
            self.lost = true;
            self.grace.forget();
            return;
        }
        let was_lost = std::mem::take(&mut self.lost);
        let changed = self.ingresses.take(change);
        self.metrics.selected.set(self.ingresses.iter().count() as i64);
        if changed || was_lost {
            self.next = self.next.min(Instant::now() + self.settings.debounce);
        }
    }

    /// A pass that is abandoned when the Lease is lost.
    async fn guarded_pass(&mut self) -> Result<(), String> {
        let mut leader = self.leader.clone();
        let lost = async move {
            // The sender lives as long as the task.
            let _ = leader.wait_for(|leader| !leader).await;
        };
        tokio::select! {
            result = self.pass() => result,
            () = lost => {
                tracing::warn!("another replica works: the pass is abandoned");
                Ok(())
            }
        }
    }

    async fn pass(&mut self) -> Result<(), String> {
        let began = Instant::now();
        if let Err((kind, reason)) = self.prepare().await? {
            tracing::warn!(reason, "Cloudflare cannot be used");
            self.metrics.passes.with_label_values(&["failed"]).inc();
            self.retry(kind);
            return Ok(());
        }
        let loops = self.loops().await;
        let selected = select(&self.policy, &loops, self.ingresses.iter());
        self.tell_ignored(&selected).await;
        let now = self.now_ms();
        let grace = u64::try_from(self.settings.grace.as_millis()).unwrap_or(u64::MAX);
        let input = Input {
            wanted: wanted(&self.policy, &selected.clusters),
            due: self.grace.due(now, grace),
            dry_run: self.settings.dry_run,
        };
        let mut pass = Pass::new(Arc::new(self.policy.clone()), Arc::new(input));
        drive(&self.cloudflare, &self.settings.place, &mut pass, self.settings.verify).await;
        let report = pass.report();
        self.metrics.observe(report, began.elapsed(), pass.round());
        notices::log(&self.policy, report);
        if report.failures.is_empty() {
            self.health.ready.store(true, Ordering::Relaxed);
            self.grace.note(&report.orphans, self.now_ms());
        }
        self.schedule(report, grace);
        Ok(())
    }

    fn schedule(&mut self, report: &Report, grace: u64) {
        if !report.is_good() {
            let kind = report.failures.first().map_or(FailureKind::Transient, |failure| failure.kind);
            let blocked = report.failures.is_empty() && !report.unsettled;
            return self.retry(if blocked { FailureKind::Permanent } else { kind });
        }
        self.failures = 0;
        self.next = Instant::now() + self.settings.resync.mul_f64(0.9 + 0.2 * rand::random::<f64>());
        if let Some(end) = self.grace.next_end(self.now_ms(), grace) {
            self.next = self.next.min(self.start + Duration::from_millis(end));
        }
    }

    fn retry(&mut self, kind: FailureKind) {
        self.failures = self.failures.saturating_add(1);
        let wait = if kind == FailureKind::Permanent {
            SLOW.min(self.settings.resync)
        } else {
            let cap = BACKOFF.0.saturating_mul(1 << self.failures.min(9)).min(BACKOFF.1);
            cap.mul_f64(0.5 + 0.5 * rand::random::<f64>())
        };
        self.next = Instant::now() + wait;
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What has to be known once: whether the name is in the zone, and the monitor.
    async fn prepare(&mut self) -> Result<Result<(), (FailureKind, String)>, String> {
        if self.zone.is_none() {
            match self.cloudflare.zone_name(&self.settings.place.zone).await {
                Ok(name) => {
                    let host = &self.policy.hostname;
                    let inside = *host == name || host.ends_with(&format!(".{name}"));
                    if !inside {
                        return Err(format!("CF_LB_HOSTNAME={host} is not in the zone {name}"));
                    }
                    self.zone = Some(Some(name));
                }
                Err(error) if error.kind() == FailureKind::Permanent => {
                    tracing::warn!(%error, "the zone cannot be read: names are not checked against it");
                    self.zone = Some(None);
                }
                Err(error) => return Ok(Err((error.kind(), error.to_string()))),
            }
        }
        if let Some(spec) = self.settings.monitor.as_ref().filter(|_| !self.monitored) {
            match self.cloudflare.ensure_monitor(&self.settings.place.account, spec).await {
                Ok(id) => {
                    tracing::info!(monitor = id, "monitor found or made");
                    self.policy.monitor = Some(id);
                    self.monitored = true;
                }
                Err(error) => return Ok(Err((error.kind(), error.to_string()))),
            }
        }
        Ok(Ok(()))
    }

    /// Host names among the addresses that are proxied records of our zone.
    async fn loops(&mut self) -> BTreeSet<String> {
        let Some(Some(zone)) = self.zone.clone() else { return BTreeSet::new() };
        self.records.retain(|_, (_, asked)| asked.elapsed() < LOOP_MEMORY);
        let ending = format!(".{zone}");
        let names: BTreeSet<String> = self
            .ingresses
            .iter()
            .flat_map(|ingress| &ingress.addresses)
            .filter_map(|text| crate::rules::geo::address::canonical(text).ok())
            .filter(|name| name.ends_with(&ending) && *name != self.policy.hostname)
            .collect();
        for name in &names {
            if self.records.contains_key(name) {
                continue;
            }
            match self.cloudflare.is_proxied(&self.settings.place.zone, name).await {
                Ok(proxied) => {
                    self.records.insert(name.clone(), (proxied, Instant::now()));
                }
                Err(error) => {
                    tracing::warn!(%error, name, "unknown whether this name leads back to Cloudflare")
                }
            }
        }
        let proxied = |name: &String| self.records.get(name).is_some_and(|(proxied, _)| *proxied);
        names.into_iter().filter(proxied).collect()
    }

    async fn tell_ignored(&mut self, selected: &Selected) {
        self.metrics.count_ignored(selected);
        self.notices.tell(&self.kube, &self.ingresses, selected).await;
    }
}
