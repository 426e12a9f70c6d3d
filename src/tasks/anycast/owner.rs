//! The owner of all services: takes samples and requests one after the other, and publishes what is wanted.
//!
//! Everything that a decision needs is in here and nowhere else, so that there is nothing to lock. Only routes of
//! services that changed are decided anew, and publishing takes at most a fifth of the time, so that ten thousand
//! services that come up in one second cost little.

mod outlets;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::outlets::Outlet;
use super::StartError;
use super::control::Input;
use super::metrics::Metrics;
use super::schedule::{Sampled, Scheduled, first_delay};
use super::service::Runtime;
use crate::announce::Announcer;
use crate::checks::trust::Trust;
use crate::checks::{self, Check, Sample};
use crate::config::anycast::{AnnouncerRef, Anycast, Graded, Route, Service, StartRule};
use crate::model::Mono;
use crate::rules::health::{Change, Health, ServiceState};
use crate::rules::prefixes::{Decision, View, decide};
use crate::tasks::Exit;

/// How often disable files are looked for and time is let pass.
const TICK: Duration = Duration::from_millis(250);

/// A service with its checks built, ready to run.
type Built = (Arc<Service>, Vec<Box<dyn Check>>);

pub(super) struct Owner {
    config: Anycast,
    trust: Trust,
    metrics: Metrics,
    sender: mpsc::Sender<Input>,
    services: BTreeMap<u64, Runtime>,
    by_name: BTreeMap<String, u64>,
    next_id: u64,
    started: Instant,
    checks: TaskTracker,
    stop_checks: CancellationToken,
    outlets: BTreeMap<AnnouncerRef, Outlet>,
    decisions: BTreeMap<Route, Decision<Graded>>,
    /// Services that have a route.
    sharers: BTreeMap<Route, Vec<u64>>,
    /// Services whose routes must be decided anew.
    dirty: BTreeSet<u64>,
    /// Whether decisions wait to be published, and until when they may.
    unpublished: bool,
    quiet_until: Instant,
    fail_open: bool,
    ready: bool,
    built: Vec<Built>,
}

impl Owner {
    /// Builds every check, so that what this machine lacks is known before anything starts.
    pub(super) fn new(
        config: Anycast,
        trust: Trust,
        metrics: Metrics,
        sender: mpsc::Sender<Input>,
    ) -> Result<Self, StartError> {
        let built =
            config.services.iter().map(|service| build(service, &trust)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            config,
            trust,
            metrics,
            sender,
            services: BTreeMap::new(),
            by_name: BTreeMap::new(),
            next_id: 0,
            started: Instant::now(),
            checks: TaskTracker::new(),
            stop_checks: CancellationToken::new(),
            outlets: BTreeMap::new(),
            decisions: BTreeMap::new(),
            sharers: BTreeMap::new(),
            dirty: BTreeSet::new(),
            unpublished: false,
            quiet_until: Instant::now(),
            fail_open: false,
            ready: false,
            built,
        })
    }

    fn now(&self) -> Mono {
        Mono(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs until cancelled, then takes the routes back.
    pub(super) async fn run(
        mut self,
        announcers: BTreeMap<AnnouncerRef, Box<dyn Announcer>>,
        mut inputs: mpsc::Receiver<Input>,
        cancel: CancellationToken,
    ) -> Exit {
        let built = std::mem::take(&mut self.built);
        self.begin(built, &BTreeMap::new());
        self.look_at_disable_files();
        self.ready = self.config.start == StartRule::Withdraw;
        self.open_outlets(announcers);
        self.redo_everything();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                _ = tick.tick() => self.tick(),
                () = tokio::time::sleep_until(self.quiet_until), if self.unpublished => self.publish(),
                input = inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
            }
            self.decide();
        }
        self.end(&mut inputs).await
    }

    /// Starts services; one that had another configuration before keeps its state until its new checks have spoken.
    fn begin(&mut self, built: Vec<Built>, former: &BTreeMap<String, Runtime>) {
        let count: usize = built.iter().map(|(_, checks)| checks.len()).sum();
        let (start, now) = (Instant::now(), self.now());
        let mut place = 0;
        for (config, checks) in built {
            let id = self.next_id;
            self.next_id += 1;
            let cancel = self.stop_checks.child_token();
            let mut nudges = Vec::new();
            for (index, check) in checks.into_iter().enumerate() {
                let nudge = Arc::new(Notify::new());
                nudges.push(Arc::clone(&nudge));
                let configured = config.checks[index].clone();
                let first = start + first_delay(place, count, configured.interval);
                place += 1;
                let scheduled = Scheduled { service: id, index, configured, check, first, now: nudge };
                self.checks.spawn(scheduled.run(self.sender.clone(), cancel.clone()));
            }
            info!(service = %config.name, checks = config.checks.len(), routes = config.routes.len(), "service starts");
            let health = match former.get(&config.name) {
                Some(before) => before.health.clone().reconfigured(config.policy, now),
                None => Health::new(config.policy, now),
            };
            let runtime = Runtime {
                id,
                health,
                last: vec![None; config.checks.len()],
                nudges,
                cancel,
                drain_waits_until: None,
                announced: former.get(&config.name).is_some_and(|before| before.announced),
                config: Arc::clone(&config),
            };
            self.by_name.insert(config.name.clone(), id);
            self.metrics.service_state(&config.name, runtime.health.state());
            self.services.insert(id, runtime);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Sampled(sampled) => self.sampled(&sampled),
            Input::Applied(applied) => self.applied(applied),
            Input::Request(request) => self.request(request),
        }
    }

    fn sampled(&mut self, sampled: &Sampled) {
        let now = self.now();
        let Some(service) = self.services.get_mut(&sampled.service) else { return };
        let Some(configured) = service.config.checks.get(sampled.check) else { return };
        let before = service.last[sampled.check].as_ref().map(|last| last.sample);
        if before != Some(sampled.report.sample) {
            let (check, reason) = (&configured.name, &sampled.report.reason);
            let event = sampled.event.as_deref().unwrap_or("");
            match sampled.report.sample {
                Sample::Pass => info!(service = %service.config.name, %check, %event, "check passes"),
                Sample::Fail => warn!(service = %service.config.name, %check, %reason, %event, "check fails"),
                Sample::Unknown => {
                    warn!(service = %service.config.name, %check, %reason, "check can't be done")
                }
            }
        }
        self.metrics.sampled(&service.config.name, configured, sampled);
        let change = service.take(sampled, now);
        self.metrics.service_up(&service.config.name, service.health.state());
        let id = service.id;
        self.changed(id, change, now);
    }

    fn changed(&mut self, id: u64, change: Option<Change>, now: Mono) {
        let Some(change) = change else { return };
        let Some(service) = self.services.get(&id) else { return };
        let (from, to, reason) = (change.from, change.to, service.reason(now));
        info!(service = %service.config.name, %from, %to, %reason, "service state");
        self.metrics.changed(&service.config.name, from, to, service.health.flaps());
        self.dirty.insert(id);
    }

    fn tick(&mut self) {
        self.look_at_disable_files();
        let now = self.now();
        let mut changes = Vec::new();
        for service in self.services.values_mut() {
            let waited = service.drain_waits_until.is_some();
            if let Some(change) = service.tick(now) {
                changes.push((service.id, change));
            }
            if waited && service.drain_waits_until.is_none() {
                self.dirty.insert(service.id);
            }
        }
        for (id, change) in changes {
            self.changed(id, Some(change), now);
        }
        if !self.ready && self.services.values().all(|service| service.health.is_settled()) {
            self.ready = true;
            self.unpublished = true;
        }
    }

    fn look_at_disable_files(&mut self) {
        let now = self.now();
        let mut changes = Vec::new();
        for service in self.services.values_mut() {
            // A file that can't be looked for leaves things as they are.
            if let Some(Ok(there)) = service.config.disable_file.as_ref().map(|path| path.try_exists()) {
                changes.extend(service.health.disable(there, now).map(|change| (service.id, change)));
            }
        }
        for (id, change) in changes {
            self.changed(id, Some(change), now);
        }
    }

    /// Decides on every route, after a start or a reload.
    fn redo_everything(&mut self) {
        self.sharers.clear();
        for service in self.services.values() {
            for route in &service.config.routes {
                self.sharers.entry(route.clone()).or_default().push(service.id);
            }
        }
        self.decisions.retain(|route, _| self.sharers.contains_key(route));
        self.dirty = self.services.keys().copied().collect();
        self.unpublished = true;
        self.decide();
    }

    /// Decides on the routes of services that changed.
    fn decide(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        if self.config.fail_open.min_healthy_percent > 0.0 {
            self.weigh_fail_open();
        }
        let now = self.now();
        let dirty = std::mem::take(&mut self.dirty);
        let of_dirty =
            dirty.iter().filter_map(|id| self.services.get(id)).flat_map(|service| &service.config.routes);
        let routes: BTreeSet<&Route> = of_dirty.collect();
        let owners: BTreeSet<u64> = routes.iter().flat_map(|route| &self.sharers[*route]).copied().collect();
        let owners: Vec<&Runtime> = owners.iter().filter_map(|id| self.services.get(id)).collect();
        let reasons: Vec<String> = owners.iter().map(|service| service.reason(now)).collect();
        let views: Vec<View<'_, Route, Graded>> =
            owners.iter().zip(&reasons).map(|(service, reason)| view(service, reason)).collect();
        let mut decided = decide(&views, self.fail_open, |graded| i64::from(graded.class));
        decided.retain(|route, _| routes.contains(route));
        // One by one: `append` would build the whole map anew.
        self.decisions.extend(decided);
        for id in &dirty {
            if let Some(service) = self.services.get_mut(id) {
                let wanted = |route: &Route| self.decisions.get(route).is_some_and(|d| d.announce.is_some());
                service.announced = service.config.routes.iter().any(wanted);
            }
        }
        self.unpublished = true;
        if Instant::now() >= self.quiet_until {
            self.publish();
        }
    }

    fn weigh_fail_open(&mut self) {
        let covered = self.services.values().filter(|service| service.config.fail_open);
        let states: Vec<ServiceState> = covered.map(|service| service.health.state()).collect();
        let in_force = self.config.fail_open.in_force(states.iter());
        if in_force != self.fail_open {
            warn!(in_force, "fail-open: whether too few services are healthy");
            self.metrics.fail_open(in_force);
            self.fail_open = in_force;
            self.dirty = self.services.keys().copied().collect();
        }
    }
}

fn build(service: &Service, trust: &Trust) -> Result<Built, StartError> {
    let checks = service.checks.iter().map(|configured| {
        checks::build(&configured.spec, trust).map_err(|error| StartError::Check {
            service: service.name.clone(),
            check: configured.name.clone(),
            reason: error.to_string(),
        })
    });
    Ok((Arc::new(service.clone()), checks.collect::<Result<_, _>>()?))
}

fn view<'a>(service: &'a Runtime, reason: &'a str) -> View<'a, Route, Graded> {
    View {
        name: &service.config.name,
        state: service.health.state(),
        reason,
        always: service.config.always_announce,
        announced: service.announced,
        hold_unknown: service.config.hold_unknown,
        drain_waits: service.drain_waits_until.is_some(),
        fail_open: service.config.fail_open,
        sharing: service.config.sharing,
        routes: &service.config.routes,
        attributes: &service.config.attributes,
    }
}
