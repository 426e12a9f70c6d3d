//! `geo_sync`: labelled ingresses of this cluster become one pool of a Cloudflare load balancer.
//!
//! Owns the rhythm: the ingresses' store, the debounce, the resync, the back-off, the grace period's clock. What is
//! wanted and in which order it is written is decided by [`crate::rules::geo`]; the calls are made by
//! [`crate::adapters::cloudflare`]. A lost Kubernetes API, a lost Lease and the end of the process change nothing.
//! It fails only where it can never work; whatever may pass or waits for a person leaves it running and not ready, so
//! that an agent which also moves a service is never restarted for the sake of a load balancer.

mod drive;
mod dry;
mod ingresses;
mod metrics;
mod notices;
mod publisher;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::election::Election;
use super::heartbeat::Heartbeat;
use super::jitter::Jitter;
use super::{Ctx, Exit};
use crate::adapters::kube::watch::list_then_watch_at;
use crate::adapters::kube::{Change, Kube, WatchPace, WatchTarget};
use crate::config::geo::GeoSettings;
use crate::model::FailureKind;
use crate::rules::geo::grace::Grace;
use crate::rules::geo::pass::{Report, wanted};
pub use drive::Driver;
pub use dry::{DryRun, dry_run};
use ingresses::Ingresses;
use metrics::GeoMetrics;
use publisher::{Publisher, Trouble};

/// Longest time between two signs of life of the idle task.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Silence after which it hangs: a call with all its attempts takes a minute, the wait for the rate limit five.
const HANGING: Duration = Duration::from_secs(450);
/// First and longest wait after a failure that may pass.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Wait after a refusal, which a person has to resolve.
const SLOW: Duration = Duration::from_secs(300);
/// Setting the load balancer's own settings back this often ...
const FIGHTS: usize = 3;
/// ... within this time is a fight with somebody; then we hold back for as long.
const TRUCE: Duration = Duration::from_secs(3600);
/// The collection that is watched.
const INGRESSES: &str = "/apis/networking.k8s.io/v1/ingresses";
/// Ingresses of a page of their list.
const PAGE: u32 = 500;
/// Limit of telling people about ingresses that are left out.
const TELLING: Duration = Duration::from_secs(10);

/// What probes want to know. One per agent; outlives restarts of the task.
#[derive(Debug)]
pub struct GeoHealth {
    ready: AtomicBool,
    pulse: Heartbeat,
}

impl Default for GeoHealth {
    fn default() -> Self {
        Self { ready: AtomicBool::new(false), pulse: Heartbeat::new(HANGING) }
    }
}

impl GeoHealth {
    /// Whether the ingresses were listed and Cloudflare let us read, once.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether the task works or waits as it should.
    pub fn is_alive(&self) -> bool {
        !self.pulse.silent()
    }

    /// The pulse, for the supervisor.
    pub fn pulse(&self) -> Heartbeat {
        self.pulse.clone()
    }

    fn beat(&self) {
        self.pulse.touch();
    }
}

/// Publishes until cancelled. Ends at once when cancelled: a call under way is abandoned, and its outcome is found by
/// the next start. A Lease that it holds is released first, within seconds.
pub async fn run(ctx: Ctx, settings: GeoSettings, kube: Kube, health: Arc<GeoHealth>) -> Exit {
    let mut jitter = Jitter::new(settings.seed);
    let (leader_sender, leader) = watch::channel(settings.lease.is_none());
    let mut election = settings.lease.clone().map(|lease| {
        let source = Jitter::new(Some(jitter.number()));
        Election::new(kube.clone(), lease, "geo-sync", source, leader_sender.clone())
    });
    let work = async {
        let pace = WatchPace {
            backoff: settings.watch_backoff,
            healthy: Duration::from_secs(60),
            jitter: Some(jitter.number()),
            page: Some(PAGE),
            from_start: false,
        };
        let selector = Some(settings.selector.clone());
        let target = WatchTarget { name: "ingresses", path: INGRESSES.to_owned(), selector };
        let watch = list_then_watch_at(&kube, target, pace);
        match Sync::new(&ctx, settings.clone(), kube.clone(), health, leader, jitter) {
            Ok(mut sync) => sync.run(watch).await,
            Err(reason) => Exit::Failed(reason),
        }
    };
    let elect = async {
        match &mut election {
            Some(election) => election.run().await,
            None => std::future::pending().await,
        }
    };
    let exit = tokio::select! {
        () = ctx.cancel.cancelled() => Exit::Cancelled,
        () = elect => Exit::Failed("the Lease election ended".to_owned()),
        exit = work => exit,
    };
    if let Some(election) = &mut election {
        election.release().await;
    }
    exit
}

struct Sync {
    publisher: Publisher,
    kube: Kube,
    metrics: GeoMetrics,
    health: Arc<GeoHealth>,
    leader: watch::Receiver<bool>,
    ingresses: Ingresses,
    lost: bool,
    grace: Grace,
    notices: notices::Notices,
    /// When we set the load balancer's own settings back.
    enforced: VecDeque<Instant>,
    truce_until: Option<Instant>,
    start: Instant,
    next: Instant,
    failures: u32,
}

impl Drop for Sync {
    /// A task that ended sees nothing and leads nobody.
    fn drop(&mut self) {
        self.metrics.leader.set(0);
        self.metrics.visible.set(0);
    }
}

impl Sync {
    fn new(
        ctx: &Ctx,
        settings: GeoSettings,
        kube: Kube,
        health: Arc<GeoHealth>,
        leader: watch::Receiver<bool>,
        jitter: Jitter,
    ) -> Result<Self, String> {
        let (host, geo, dry_run) = (&settings.policy.hostname, &settings.policy.geo, settings.dry_run);
        tracing::info!(%host, %geo, dry_run, "geo configuration loaded");
        let metrics = GeoMetrics::register(&ctx.registry).map_err(|error| error.to_string())?;
        let publisher = Publisher::new(settings, kube.clone(), &ctx.registry, health.clone(), jitter)?;
        let now = Instant::now();
        Ok(Self {
            publisher,
            kube,
            metrics,
            health,
            leader,
            ingresses: Ingresses::default(),
            lost: false,
            grace: Grace::default(),
            notices: notices::Notices::default(),
            enforced: VecDeque::new(),
            truce_until: None,
            start: now,
            next: now,
            failures: 0,
        })
    }

    async fn run(&mut self, mut changes: mpsc::Receiver<Change>) -> Exit {
        let elected = self.publisher.settings.lease.is_some();
        loop {
            self.health.beat();
            let leads = *self.leader.borrow_and_update();
            self.metrics.leader.set(i64::from(leads));
            let sees = self.ingresses.is_listed() && !self.lost;
            self.metrics.visible.set(i64::from(sees));
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take(change),
                    None => return Exit::Failed("the watch of the ingresses ended".to_owned()),
                },
                () = tokio::time::sleep_until(self.next), if sees && (leads || !self.health.is_ready()) => {
                    if leads { self.guarded_pass().await } else { self.probe().await }
                }
                () = tokio::time::sleep(HEARTBEAT) => {}
                _ = self.leader.changed(), if elected => self.leadership_changed(),
            }
        }
    }

    /// Whoever takes over looks at once; and what was empty under another holder was not seen by us.
    fn leadership_changed(&mut self) {
        self.grace.forget();
        self.next = Instant::now();
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
            self.next = self.next.min(Instant::now() + self.publisher.settings.debounce);
        }
    }

    /// A replica that does not work shows whether it could.
    async fn probe(&mut self) {
        match self.publisher.probe().await {
            Ok(()) => {
                self.failures = 0;
                self.health.ready.store(true, Ordering::Relaxed);
            }
            Err(trouble) => self.trouble(&trouble),
        }
    }

    /// A pass that is abandoned when the Lease is lost.
    async fn guarded_pass(&mut self) {
        let mut leader = self.leader.clone();
        let lost = async move {
            // The sender lives as long as the task.
            let _ = leader.wait_for(|leader| !leader).await;
        };
        tokio::select! {
            () = self.pass() => {}
            () = lost => tracing::warn!("another replica works: the pass is abandoned"),
        }
    }

    async fn pass(&mut self) {
        let began = Instant::now();
        let prepared = match self.publisher.prepare().await {
            Ok(planned) => self.publisher.select(&self.ingresses).await.map(|it| (it, planned)),
            Err(trouble) => Err(trouble),
        };
        let (selected, planned) = match prepared {
            Ok(prepared) => prepared,
            Err(trouble) => return self.trouble(&trouble),
        };
        notices::log_planned(&planned);
        self.metrics.count_ignored(&selected);
        let told = self.notices.tell(&self.kube, &self.ingresses, &selected);
        if tokio::time::timeout(TELLING, told).await.is_err() {
            tracing::debug!("Kubernetes Events are not taken in time");
        }
        let now = self.now_ms();
        let grace = u64::try_from(self.publisher.settings.grace.as_millis()).unwrap_or(u64::MAX);
        self.grace.wanted(wanted(&self.publisher.policy, &selected.clusters).keys());
        let due = self.grace.due(now, grace);
        let truce = self.truce_until.is_some_and(|until| until > Instant::now());
        let pass = self.publisher.pass(&selected, due, !truce).await;
        let report = pass.report();
        self.metrics.observe(report, truce, began.elapsed(), pass.round());
        notices::log(&self.publisher.policy, report);
        if report.looked {
            self.health.ready.store(true, Ordering::Relaxed);
        }
        if report.failures.is_empty() {
            self.grace.note(&report.orphans, self.now_ms());
        } else {
            self.publisher.doubt();
        }
        self.watch_for_fights(report);
        self.schedule(report, grace);
    }

    /// Two clusters with different settings, or a person, and we: nobody is helped by taking turns.
    fn watch_for_fights(&mut self, report: &Report) {
        let now = Instant::now();
        self.enforced.retain(|at| now.duration_since(*at) < TRUCE);
        if !report.enforced {
            return;
        }
        self.enforced.push_back(now);
        if self.enforced.len() >= FIGHTS {
            tracing::error!(
                times = FIGHTS,
                "somebody keeps undoing what CF_ENFORCE sets at the load balancer: give all clusters the same \
                 settings; nothing is enforced for an hour"
            );
            self.enforced.clear();
            self.truce_until = Some(now + TRUCE);
        }
    }

    fn schedule(&mut self, report: &Report, grace: u64) {
        if !report.is_good() {
            let kind = report.failures.first().map_or(FailureKind::Transient, |failure| failure.kind);
            let blocked = report.failures.is_empty() && !report.unsettled;
            return self.retry(if blocked { FailureKind::Permanent } else { kind });
        }
        self.failures = 0;
        let resync = self.publisher.settings.resync;
        self.next = Instant::now() + self.publisher.jitter.between(resync.mul_f64(0.9), resync.mul_f64(1.1));
        if let Some(end) = self.grace.next_end(self.now_ms(), grace) {
            self.next = self.next.min(self.start + Duration::from_millis(end));
        }
    }

    fn trouble(&mut self, trouble: &Trouble) {
        if trouble.kind == FailureKind::Permanent {
            tracing::error!(reason = trouble.reason, "geo publishing waits for a person");
        } else {
            tracing::warn!(reason = trouble.reason, "nothing can be published yet");
        }
        self.metrics.passes.with_label_values(&["failed"]).inc();
        self.retry(trouble.kind);
    }

    fn retry(&mut self, kind: FailureKind) {
        self.failures = self.failures.saturating_add(1);
        let wait = if kind == FailureKind::Permanent {
            SLOW.min(self.publisher.settings.resync)
        } else {
            let cap = BACKOFF.0.saturating_mul(1 << self.failures.min(9)).min(BACKOFF.1);
            self.publisher.jitter.between(cap / 2, cap)
        };
        self.next = Instant::now() + wait;
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
