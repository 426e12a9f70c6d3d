//! The announcers' side of the owner: their tasks, what they are handed, what they report, how they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::info;

use super::Owner;
use crate::announce::{Announcer, PrefixKey, Shutdown};
use crate::config::anycast::AnnouncerRef;
use crate::tasks::Exit;
use crate::tasks::anycast::conclude;
use crate::tasks::anycast::control::Input;
use crate::tasks::anycast::reconcile::{Applied, End, Reconciler, Wanted};

/// State of an announcer as seen from here.
pub(super) struct Outlet {
    pub(super) wanted: watch::Sender<Arc<Wanted>>,
    pub(super) every: watch::Sender<Duration>,
    pub(super) end: Option<oneshot::Sender<End>>,
    pub(super) name: String,
    /// What it has; `None` = its last call failed.
    pub(super) announced: Option<Arc<Wanted>>,
    pub(super) diagnoses: BTreeMap<PrefixKey, String>,
}

impl Owner {
    pub(super) fn open_outlets(&mut self, announcers: BTreeMap<AnnouncerRef, Box<dyn Announcer>>) {
        for (which, announcer) in announcers {
            let name = announcer.name().to_owned();
            let (wanted, wanted_receiver) = watch::channel(Arc::new(Wanted::default()));
            let (every, every_receiver) = watch::channel(self.config.reconcile);
            let (end, end_receiver) = oneshot::channel();
            let reconciler = Reconciler {
                which: which.clone(),
                announcer,
                wanted: wanted_receiver,
                every: every_receiver,
                reports: self.sender.clone(),
                metrics: self.metrics.clone(),
                diagnosed: BTreeMap::new(),
            };
            tokio::spawn(reconciler.run(end_receiver));
            let outlet =
                Outlet { wanted, every, end: Some(end), name, announced: None, diagnoses: BTreeMap::new() };
            self.outlets.insert(which, outlet);
        }
    }

    /// Hands the wanted sets to the announcers.
    pub(super) fn publish(&mut self) {
        let began = Instant::now();
        for (which, outlet) in &self.outlets {
            let mine = self.decisions.iter().filter(|(route, _)| route.announcer == *which);
            let mut wanted = Wanted { ready: self.ready, ..Wanted::default() };
            for (route, decision) in mine {
                if let Some(graded) = &decision.announce {
                    wanted.routes.insert(route.key.clone(), graded.attributes.clone());
                }
                wanted.reasons.insert(route.key.clone(), decision.reason.clone());
            }
            outlet.wanted.send_if_modified(|held| {
                // A prefix that is new is looked for at once: a former process may have left it.
                let same = held.routes == wanted.routes && held.reasons.keys().eq(wanted.reasons.keys());
                let changed = !same || held.ready != wanted.ready;
                *held = Arc::new(wanted);
                changed
            });
        }
        self.unpublished = false;
        self.quiet_until = Instant::now() + began.elapsed() * 4;
    }

    pub(super) fn applied(&mut self, applied: Applied) {
        let Some(outlet) = self.outlets.get_mut(&applied.which) else { return };
        outlet.announced = applied.announced;
        match applied.result {
            Ok(changes) => outlet.diagnoses = changes.diagnoses,
            Err(_) => outlet.diagnoses.clear(),
        }
    }

    /// Checks stop first, so that nothing changes its mind; then drain, withdraw, confirm, close.
    pub(super) async fn end(mut self, inputs: &mut mpsc::Receiver<Input>) -> Exit {
        self.stop_checks.cancel();
        self.checks.close();
        let rules = self.config.shutdown.clone();
        let keep = rules.keep_routes;
        let any = self.decisions.values().any(|decision| decision.announce.is_some());
        if any && !keep && !rules.drain_delay.is_zero() {
            info!(delay_ms = rules.drain_delay.as_millis() as u64, "routes are marked for graceful shutdown");
            for decision in self.decisions.values_mut() {
                if let Some(graded) = &mut decision.announce {
                    graded.attributes.graceful_shutdown = true;
                }
            }
            self.publish();
            tokio::time::sleep(rules.drain_delay).await;
        }
        let mut waiting = Vec::new();
        for outlet in self.outlets.values_mut() {
            let (done, result) = oneshot::channel();
            // The delay is over: the announcer itself has nothing to wait for.
            let how = if keep {
                Shutdown::KeepRoutes
            } else {
                Shutdown::Withdraw { drain_ms: 0, reason: rules.reason.clone() }
            };
            if let Some(end) = outlet.end.take() {
                let _ = end.send(End { how, limit: rules.limit, done });
            }
            waiting.push((outlet.name.clone(), result));
        }
        // Nobody may wait for a place in the queue that nobody empties.
        inputs.close();
        let (mut left, mut unconfirmed) = (BTreeSet::new(), Vec::new());
        for (name, result) in waiting {
            match result.await {
                Ok(Ok(keys)) => left.extend(keys.into_iter().map(|key| (name.clone(), key))),
                Ok(Err(reason)) => unconfirmed.push(reason),
                Err(_) => unconfirmed.push(format!("{name}: its task broke down")),
            }
        }
        // Each ends at its next breath, and kills what it started; nobody needs to wait long for that.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.checks.wait()).await;
        if keep {
            info!("routes are left where they are");
            return Exit::Cancelled;
        }
        conclude(&left, &unconfirmed)
    }
}
