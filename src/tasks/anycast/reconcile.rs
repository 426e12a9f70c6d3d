//! One announcer's task: makes the actual routes equal to the wanted ones, on change and periodically, and retries
//! until they are.
//!
//! Owns the announcer and the back-off. A call that hangs is given up after its limit and repeated; another announcer
//! never waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use super::control::Input;
use super::metrics::Metrics;
use crate::announce::{AnnounceError, Announcer, Changes, PrefixKey, RouteAttributes, Shutdown};
use crate::config::anycast::AnnouncerRef;

/// Limit of one call of an announcer, beyond the limits that announcers have of their own.
const CALL_LIMIT: Duration = Duration::from_secs(35);

/// First wait after a failed call; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(200);

/// When to look again at prefixes that reach nobody, and at those that could not be looked at yet.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const UNSURE: Duration = Duration::from_secs(1);

/// Wait between two looks at whether a withdrawal has reached everybody.
const CONFIRM: Duration = Duration::from_millis(20);

/// Diagnoses, and prefixes that may remain, that are told one by one.
const NAMED: usize = 20;

/// Longest wait after a failed call.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What is wanted of one announcer.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) routes: BTreeMap<PrefixKey, RouteAttributes>,
    /// Why each known prefix is wanted or not.
    pub(super) reasons: BTreeMap<PrefixKey, String>,
    /// Whether anything may be taken back yet.
    pub(super) ready: bool,
}

/// How an announcer should end.
pub(super) struct End {
    pub(super) how: Shutdown,
    pub(super) limit: Duration,
    /// Gets what is left, or why that is not known.
    pub(super) done: oneshot::Sender<Result<BTreeSet<PrefixKey>, String>>,
}

/// What an announcer's task tells its owner.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) which: AnnouncerRef,
    pub(super) result: Result<Changes, AnnounceError>,
    /// What is announced since then; `None` = not known.
    pub(super) announced: Option<Arc<Wanted>>,
}

/// The task's parts.
pub(super) struct Reconciler {
    pub(super) which: AnnouncerRef,
    pub(super) announcer: Box<dyn Announcer>,
    pub(super) wanted: watch::Receiver<Arc<Wanted>>,
    pub(super) every: watch::Receiver<Duration>,
    pub(super) reports: mpsc::Sender<Input>,
    pub(super) metrics: Metrics,
    /// What was wrong with which prefix when it was last looked at.
    pub(super) diagnosed: BTreeMap<PrefixKey, String>,
}

impl Reconciler {
    /// Runs until it is told to end.
    pub(super) async fn run(mut self, mut end: oneshot::Receiver<End>) {
        let mut failures: u32 = 0;
        let mut last_error = String::new();
        for key in self.wanted.borrow().reasons.keys() {
            self.metrics.known(self.announcer.name(), key);
        }
        loop {
            let wanted = Arc::clone(&self.wanted.borrow_and_update());
            let mut next = Instant::now() + *self.every.borrow();
            if wanted.ready {
                let applied = tokio::select! {
                    biased;
                    // An end does not wait for a call that hangs: what it did is read back before the withdrawal.
                    ending = &mut end => Err(ending),
                    applied = self.apply(&wanted, &mut last_error) => Ok(applied),
                };
                let applied = match applied {
                    Ok(applied) => applied,
                    Err(Ok(ending)) => return self.finish(ending).await,
                    Err(Err(_)) => return,
                };
                match applied {
                    Ok(soon) => {
                        failures = 0;
                        next = soon.map_or(next, |soon| next.min(Instant::now() + soon));
                    }
                    Err(()) => {
                        failures = failures.saturating_add(1);
                        let wait = RETRY_MIN.saturating_mul(1 << (failures - 1).min(16)).min(RETRY_MAX);
                        next = Instant::now() + wait;
                    }
                }
            }
            tokio::select! {
                biased;
                ending = &mut end => {
                    if let Ok(ending) = ending {
                        self.finish(ending).await;
                    }
                    return;
                }
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = sleep_until(next) => {}
            }
        }
    }

    /// Calls the announcer; says when to call again, where that should be before long.
    async fn apply(&mut self, wanted: &Arc<Wanted>, last_error: &mut String) -> Result<Option<Duration>, ()> {
        let name = self.announcer.name().to_owned();
        self.announcer.manage(&mut wanted.reasons.keys());
        let result = call(&mut self.announcer, &wanted.routes).await;
        match &result {
            Ok(changes) => {
                self.log(&name, wanted, changes);
                self.diagnose(&name, wanted, changes);
                last_error.clear();
            }
            Err(error) => {
                self.metrics.announce_failed(&name);
                let text = error.to_string();
                // Once for each new error, however often it comes back.
                if *last_error != text {
                    error!(announcer = %name, %error, "routes could not be set; trying again");
                    *last_error = text;
                }
            }
        }
        let outcome = result.as_ref().map_err(|_| ()).map(|changes| match changes {
            Changes { unsure: true, .. } => Some(UNSURE),
            Changes { diagnoses, .. } if !diagnoses.is_empty() => Some(LOOK_AGAIN),
            _ => None,
        });
        let announced = result.is_ok().then(|| Arc::clone(wanted));
        // The owner may be waiting for us at its end; then nobody needs this report any more.
        let applied = Applied { which: self.which.clone(), result, announced };
        let _ = self.reports.try_send(Input::Applied(applied));
        outcome
    }

    fn log(&self, announcer: &str, wanted: &Wanted, changes: &Changes) {
        let reason = |key: &PrefixKey| wanted.reasons.get(key).map_or("no service wants it", String::as_str);
        for prefix in &changes.announced {
            info!(%announcer, %prefix, reason = reason(prefix), "announced");
        }
        for prefix in &changes.updated {
            info!(%announcer, %prefix, reason = reason(prefix), "announced with other attributes");
        }
        for prefix in &changes.withdrawn {
            info!(%announcer, %prefix, reason = reason(prefix), "withdrawn");
        }
        self.metrics.applied(announcer, changes);
    }

    /// Tells what is newly wrong with prefixes, once.
    fn diagnose(&mut self, announcer: &str, wanted: &Wanted, changes: &Changes) {
        let known = &self.diagnosed;
        let fresh: Vec<(&PrefixKey, &String)> =
            changes.diagnoses.iter().filter(|(key, text)| known.get(*key) != Some(*text)).collect();
        for (prefix, diagnosis) in fresh.iter().take(NAMED) {
            warn!(%announcer, %prefix, %diagnosis, "set and yet not reaching anybody");
        }
        if fresh.len() > NAMED {
            warn!(%announcer, more = fresh.len() - NAMED, "further prefixes that are set and reach nobody");
        }
        for key in changes.diagnoses.keys() {
            self.metrics.reaches(announcer, key, false);
        }
        for key in known.keys().filter(|key| !changes.diagnoses.contains_key(key)) {
            self.metrics.reaches(announcer, key, wanted.routes.contains_key(key));
        }
        self.diagnosed.clone_from(&changes.diagnoses);
    }

    /// Withdraws, confirms and ends, all within the limit.
    async fn finish(mut self, ending: End) {
        let End { how, limit, done } = ending;
        let name = self.announcer.name().to_owned();
        let deadline = Instant::now() + limit;
        let left = match &how {
            Shutdown::KeepRoutes => Ok(BTreeSet::new()),
            Shutdown::Withdraw { .. } => {
                let known: Vec<PrefixKey> = self.wanted.borrow().reasons.keys().cloned().collect();
                self.withdraw_all(deadline).await.map_err(|reason| {
                    let mut names: Vec<String> = known.iter().take(NAMED).map(ToString::to_string).collect();
                    if known.len() > NAMED {
                        names.push(format!("{} more", known.len() - NAMED));
                    }
                    format!("{} ({reason})", names.join(", "))
                })
            }
        };
        if let Err(reason) = &left {
            error!(announcer = %name, %reason, "the withdrawal is not confirmed");
        }
        // An announcer that hangs must not keep the process: what it holds ends with it.
        let rest = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(2));
        if timeout(rest, self.announcer.shutdown(how)).await.is_err() {
            error!(announcer = %name, "did not end in time");
        }
        let _ = done.send(left);
    }

    async fn withdraw_all(&mut self, deadline: Instant) -> Result<BTreeSet<PrefixKey>, String> {
        let nothing = Wanted { ready: true, ..Wanted::default() };
        let name = self.announcer.name().to_owned();
        let mut wait = RETRY_MIN;
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            let result = match timeout(remaining, call(&mut self.announcer, &nothing.routes)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err(format!("{name}: no answer in time")),
            };
            match result {
                Ok(changes) => {
                    for prefix in &changes.withdrawn {
                        info!(announcer = %name, %prefix, reason = "the agent stops", "withdrawn");
                    }
                    break;
                }
                Err(reason) if Instant::now() + wait >= deadline => {
                    self.metrics.announce_failed(&name);
                    return Err(reason);
                }
                Err(reason) => {
                    self.metrics.announce_failed(&name);
                    warn!(announcer = %name, %reason, "withdrawal failed; trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
            }
        }
        self.confirm(&name, deadline.max(Instant::now() + Duration::from_millis(500))).await
    }

    /// Waits until nothing is announced any more; what is left at the deadline.
    async fn confirm(&mut self, name: &str, deadline: Instant) -> Result<BTreeSet<PrefixKey>, String> {
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match timeout(remaining, self.announcer.current()).await {
                Ok(Ok(left)) if left.is_empty() || Instant::now() + CONFIRM >= deadline => return Ok(left),
                // Neighbours take the withdrawal in their own time.
                Ok(Ok(_)) => tokio::time::sleep(CONFIRM).await,
                Ok(Err(error)) => return Err(format!("{name}: withdrawn, and then not readable: {error}")),
                Err(_) => return Err(format!("{name}: withdrawn, and then not readable in time")),
            }
        }
    }
}

async fn call(
    announcer: &mut Box<dyn Announcer>,
    routes: &BTreeMap<PrefixKey, RouteAttributes>,
) -> Result<Changes, AnnounceError> {
    let name = announcer.name().to_owned();
    match timeout(CALL_LIMIT, announcer.set(routes)).await {
        Ok(result) => result,
        Err(_) => Err(AnnounceError::transient(&name, "set the routes", "no answer in time")),
    }
}
