//! `route_watch`: the health of two regions steers this site's Cloud Router and Cloudflare routes.
//!
//! Owns the rhythm: when a cycle begins, how long it may take, what follows a stop. What is decided comes from
//! [`crate::rules::route_health`], who owns the routes from the engine; the calls are made by the adapters. A failure
//! never ends the task: what is not known holds, what was not written is tried again with the next cycle.

mod act;
mod cloud_log;
mod clouds;
mod cycle;
pub mod events;
pub mod files;
mod metrics;
mod observe;
pub mod pinner;
mod startup;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::clock::Clock;
use super::heartbeat::Heartbeat;
use super::{Ctx, Exit};
use crate::adapters::wire::Wire;
use crate::config::routes::RouteSettings;
use crate::model::{FailureKind, Mono, Outcome as Answer, RoutePin};
use crate::rules::route_health::actuate::Budget;
use crate::rules::route_health::{Core, Decision, Outcome};
use clouds::Clouds;
use events::{Ended, Events, Fact};
use metrics::RouteMetrics;
pub use pinner::{PinOrder, PinOrders, RoutePinner};
use store::{Saved, Store};

/// How long a cycle may go on after the agent was asked to stop: no wait is left in it then, only calls under way.
const GRACE: Duration = Duration::from_millis(1_500);
/// Longest time between two signs of life while the task waits.
const SIGN: Duration = Duration::from_secs(10);
/// A cycle that takes this much longer than it may hangs.
const HANGING: Duration = Duration::from_secs(120);

/// Who says whether the phase owns the routes.
#[derive(Clone)]
pub enum PinSource {
    /// Nobody: health always owns them.
    Health,
    /// The engine, by its snapshot's `route_pin`.
    Engine(watch::Receiver<Value>),
}

/// What the task needs, kept over its restarts.
#[derive(Clone)]
pub struct RouteParts {
    /// Settings.
    pub settings: Arc<RouteSettings>,
    /// Orders of plans.
    pub orders: PinOrders,
    /// Who owns the routes.
    pub pins: PinSource,
    /// A way to simulated clouds instead of the network.
    pub wire: Option<Wire>,
    /// Nothing is written, only told.
    pub dry_run: bool,
    /// Silent for too long while a cycle hangs.
    pub pulse: Heartbeat,
}

impl RouteParts {
    /// Parts for the network, with the other end of the orders.
    pub fn new(settings: RouteSettings, pins: PinSource) -> (Self, RoutePinner) {
        let (pinner, orders) = RoutePinner::new();
        let limit = settings.deadline * 2 + settings.gcp.operation_timeout + settings.cloudflare.bulk_timeout;
        let pulse = Heartbeat::new(limit + HANGING);
        let settings = Arc::new(settings);
        (Self { settings, orders, pins, wire: None, dry_run: false, pulse }, pinner)
    }
}

/// The task's memory.
pub struct Watch {
    settings: Arc<RouteSettings>,
    pins: PinSource,
    clouds: Clouds,
    events: Events,
    metrics: RouteMetrics,
    clock: Clock,
    store: Option<Store>,
    core: Core,
    budget: Budget,
    pin: Option<RoutePin>,
    dry_run: bool,
    /// The last cycle's decision and when it was made.
    last: Option<(Decision, Mono)>,
    last_code: Option<u8>,
    last_wanted: Option<Outcome>,
    last_failed: bool,
    failures: u32,
    /// The other router has told what it announces: from then on, nothing told means nothing announced.
    peer_tells: bool,
    /// What the start still has to look at.
    unchecked: bool,
    began: Instant,
}

/// How one cycle ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CycleReport {
    /// `success`, `no_change`, `skipped` or `failure`.
    pub ended: Ended,
    /// Sentences about what went wrong or why nothing was done.
    pub notes: Vec<String>,
}

/// Steers until cancelled.
pub async fn run(ctx: Ctx, parts: RouteParts) -> Exit {
    let mut orders = parts.orders.lock().await;
    let mut watch = match Watch::new(&ctx.cancel, &ctx.registry, &parts) {
        Ok(watch) => watch,
        Err(reason) => return Exit::Failed(reason),
    };
    let stop = ctx.cancel.clone();
    match stoppable(&stop, watch.start()).await {
        Some(Ok(())) => {}
        Some(Err(reason)) => {
            watch.events.files().flush();
            return Exit::Failed(reason);
        }
        None => return watch.end("signal"),
    }
    let mut hangups = signal(SignalKind::hangup()).ok();
    let mut next = Instant::now();
    loop {
        parts.pulse.touch();
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return watch.end("signal"),
            order = orders.recv() => match order {
                Some(order) => {
                    if stoppable(&stop, watch.obey(order)).await.is_none() {
                        return watch.end("signal");
                    }
                }
                None => return Exit::Failed("nobody can give orders any more".to_owned()),
            },
            () = tokio::time::sleep_until(next) => {
                let began = Instant::now();
                if stoppable(&stop, watch.cycle()).await.is_none() { return watch.end("signal") };
                next = watch.next_cycle(began);
                watch.show_life();
            }
            _ = hangup => {
                watch.events.files().reopen();
                watch.events.say(Level::INFO, "log files opened anew");
            }
            () = tokio::time::sleep(SIGN) => watch.show_life(),
        }
    }
}

/// One start and one cycle.
///
/// # Errors
/// What keeps it from beginning.
pub async fn once(
    parts: &RouteParts,
    registry: &prometheus::Registry,
    stop: &CancellationToken,
) -> Result<CycleReport, String> {
    let mut watch = Watch::new(stop, registry, parts)?;
    watch.start().await?;
    let report = watch.cycle().await;
    watch.end("once");
    Ok(report)
}

/// The work's end, or `None` where it did not end soon enough after the stop.
async fn stoppable<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => Some(done),
        () = stop.cancelled() => tokio::time::timeout(GRACE, work).await.ok(),
    }
}

impl Watch {
    fn new(
        stop: &CancellationToken,
        registry: &prometheus::Registry,
        parts: &RouteParts,
    ) -> Result<Self, String> {
        let settings = parts.settings.clone();
        let cloud = cloud_log::start(&settings, parts.wire.clone(), stop.clone())?;
        let events = Events::open(&settings.events, cloud).map_err(|error| format!("log files: {error}"))?;
        let metrics = RouteMetrics::register(registry).map_err(|error| error.to_string())?;
        metrics.passive.set(i64::from(settings.policy.passive));
        let clouds = Clouds::new(&settings, parts.wire.clone(), stop.clone(), registry, &events)?;
        let store =
            settings.state_file.as_deref().map(Store::open).transpose().map_err(|error| error.to_string())?;
        let saved = store.as_ref().and_then(Store::load);
        let clock = Clock::starting_at(saved.as_ref().map_or(Mono(0), Saved::mono_now));
        let peer_tells = saved.as_ref().is_some_and(|saved| saved.peer_tells);
        let (core, budget, pin) =
            saved.map_or_else(Default::default, |saved| (saved.core, saved.budget, saved.pin));
        Ok(Self {
            pins: parts.pins.clone(),
            clouds,
            events,
            metrics,
            clock,
            store,
            core,
            budget,
            pin,
            dry_run: parts.dry_run,
            last: None,
            last_code: None,
            last_wanted: None,
            last_failed: false,
            failures: 0,
            peer_tells,
            unchecked: true,
            began: Instant::now(),
            settings,
        })
    }

    /// Cycles begin one interval apart; one that took longer is followed at once.
    fn next_cycle(&self, began: Instant) -> Instant {
        if began.elapsed() > self.settings.interval {
            let took = began.elapsed().as_secs_f64();
            self.events.say(Level::WARN, &format!("the cycle took {took:.1} s, longer than the interval"));
        }
        (began + self.settings.interval).max(Instant::now())
    }

    /// Tells systemd that the task goes round, where nothing else in this process does.
    fn show_life(&self) {
        if matches!(self.pins, PinSource::Health) {
            // A process that systemd did not start has nobody to tell.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    /// Reads who owns the routes; what was known last stays known while the engine does not know.
    fn refresh_pin(&mut self) {
        let told = match &self.pins {
            PinSource::Health => Some(RoutePin::Health),
            PinSource::Engine(snapshot) => {
                serde_json::from_value(snapshot.borrow()["route_pin"].clone()).ok().flatten()
            }
        };
        if let Some(pin) = told {
            self.take_pin(pin);
        }
        self.metrics.pinned.set(match self.pin {
            Some(RoutePin::Passive) => 1,
            Some(RoutePin::Health) => 0,
            None => -1,
        });
    }

    fn take_pin(&mut self, pin: RoutePin) {
        if self.pin == Some(pin) {
            return;
        }
        let word = |pin: Option<RoutePin>| pin.map_or("unknown", pin_word);
        let details = json!({"old_owner": word(self.pin), "new_owner": word(Some(pin))});
        self.events.emit(&Fact::new(
            "route_owner",
            "state_machine",
            "owner_changed",
            Ended::Success,
            details,
        ));
        self.events.say(Level::WARN, &format!("the routes are {}", pin_words(pin)));
        self.pin = Some(pin);
    }

    /// A plan's order: one pass over the clouds at once, without a new sample.
    async fn obey(&mut self, order: PinOrder) {
        let pin = order.pin;
        self.take_pin(pin);
        self.keep();
        order.answer(self.steer_to(pin).await);
    }

    async fn steer_to(&mut self, pin: RoutePin) -> Answer {
        if self.settings.policy.passive {
            let reason = "RUN_PASSIVE is on: routes are never changed".to_owned();
            return Answer::Failed { kind: FailureKind::Permanent, reason };
        }
        let now = self.clock.now().mono;
        let fresh = 2 * self.settings.policy.interval_ms;
        let last = self.last.as_ref().filter(|(_, at)| now.since(*at) <= fresh).map(|(decision, _)| decision);
        let wanted = match (pin, last) {
            (RoutePin::Passive, _) => crate::rules::route_health::pinned_outcome(self.settings.policy.side),
            (RoutePin::Health, Some(decision)) => match self.settings.policy.desired(Some(pin), decision) {
                Some(wanted) => wanted,
                None => {
                    return pinner::not_yet(
                        "health says nothing about the routes yet; they stay as they are",
                    );
                }
            },
            (RoutePin::Health, None) => return pinner::not_yet("the health of the regions is not known yet"),
        };
        let deadline = Instant::now() + self.settings.deadline;
        let router = observe::place(&self.settings.gcp.remote_router);
        let peer = self.clouds.compute.sessions(&router, deadline).await.ok();
        let acted = self.actuate(wanted, pin, peer.as_ref(), None).await;
        self.keep();
        if acted.is_complete() {
            return pinner::steered(acted.changes > 0);
        }
        let mut reasons: Vec<String> = acted.failures.iter().map(|(_, reason)| reason.clone()).collect();
        reasons.extend(acted.refused.iter().map(|refused| format!("{refused:?}")));
        let permanent = acted.failures.iter().any(|(kind, _)| *kind == FailureKind::Permanent);
        let kind = if permanent { FailureKind::Permanent } else { FailureKind::Transient };
        Answer::Failed { kind, reason: format!("routes not steered yet: {}", reasons.join("; ")) }
    }

    /// Keeps the memory for the next start.
    fn keep(&self) {
        let Some(store) = self.store.as_ref().filter(|_| !self.dry_run) else { return };
        let now = self.clock.now().mono;
        let saved = Saved::new(now, self.core.clone(), self.budget.clone(), self.pin, self.peer_tells);
        if let Err(error) = store.save(&saved) {
            self.events.say(Level::WARN, &format!("STATE_FILE: {error}"));
        }
    }

    fn end(&self, reason: &str) -> Exit {
        self.keep();
        let details = json!({
            "reason": reason,
            "consecutive_errors": self.failures,
            "final_state_code": self.core.active.map_or(0, |active| active.state.code()),
            "total_uptime_seconds": self.began.elapsed().as_secs_f64(),
        });
        self.events.emit(&Fact::new("daemon_lifecycle", "daemon", "shutdown", Ended::Success, details));
        self.events.say(Level::INFO, "route steering ends; routes stay as they are");
        self.metrics.lost_events.inc_by(self.events.files().lost());
        self.events.files().flush();
        Exit::Cancelled
    }
}

fn pin_word(pin: RoutePin) -> &'static str {
    match pin {
        RoutePin::Health => "health",
        RoutePin::Passive => "pinned-to-passive",
    }
}

fn pin_words(pin: RoutePin) -> &'static str {
    match pin {
        RoutePin::Health => "left to health",
        RoutePin::Passive => "pinned to the passive site",
    }
}
