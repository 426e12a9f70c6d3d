//! One service as it runs: its configuration, its state, the last results of its checks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::schedule::Sampled;
use super::status::{CheckStatus, ServiceStatus};
use crate::checks::Sample;
use crate::config::anycast::Service;
use crate::model::Mono;
use crate::rules::health::{Change, Health};

/// The last result of one check.
#[derive(Debug, Clone)]
pub(super) struct Last {
    pub(super) sample: Sample,
    pub(super) verdict: Sample,
    pub(super) reason: String,
    pub(super) at: Instant,
    pub(super) took: Duration,
}

/// A service as it runs.
pub(super) struct Runtime {
    pub(super) id: u64,
    pub(super) config: Arc<Service>,
    pub(super) health: Health,
    pub(super) last: Vec<Option<Last>>,
    pub(super) nudges: Vec<Arc<Notify>>,
    pub(super) cancel: CancellationToken,
    /// Until when a drain still announces.
    pub(super) drain_waits_until: Option<Instant>,
    /// Whether its routes were wanted by the last decision.
    pub(super) announced: bool,
}

impl Runtime {
    /// Takes the result of a run; says what changed.
    pub(super) fn take(&mut self, sampled: &Sampled, now: Mono) -> Option<Change> {
        let slot = self.last.get_mut(sampled.check)?;
        *slot = Some(Last {
            sample: sampled.report.sample,
            verdict: sampled.verdict,
            reason: sampled.report.reason.clone(),
            at: Instant::now(),
            took: sampled.took,
        });
        self.evaluate(now)
    }

    /// Lets time pass: results grow stale, drains and hold-downs end.
    pub(super) fn tick(&mut self, now: Mono) -> Option<Change> {
        if self.drain_waits_until.is_some_and(|until| until <= Instant::now()) {
            self.drain_waits_until = None;
        }
        self.evaluate(now)
    }

    fn evaluate(&mut self, now: Mono) -> Option<Change> {
        let mut raw: Vec<(&str, Sample)> = Vec::with_capacity(self.last.len());
        let mut smooth: Vec<(&str, Sample)> = Vec::with_capacity(self.last.len());
        for (configured, last) in self.config.checks.iter().zip(&self.last) {
            if configured.advisory {
                continue;
            }
            let (sample, verdict) = match last {
                // A result that is not renewed says nothing any more.
                Some(last) if last.at.elapsed() > configured.interval * 2 + configured.deadline => {
                    (Sample::Unknown, Sample::Unknown)
                }
                Some(last) if last.sample == Sample::Unknown => (Sample::Unknown, Sample::Unknown),
                Some(last) => (last.sample, last.verdict),
                None => (Sample::Unknown, Sample::Unknown),
            };
            raw.push((&configured.group, sample));
            smooth.push((&configured.group, verdict));
        }
        if raw.is_empty() {
            // Announced without checks: there is nothing to wait for.
            let verdict = if self.config.always_announce { Sample::Pass } else { Sample::Unknown };
            return self.health.observe(verdict, verdict, now);
        }
        let strategy = self.config.strategy;
        self.health.observe(strategy.combine(&raw), strategy.combine(&smooth), now)
    }

    /// Why it is in its state: the first check that does not pass.
    pub(super) fn reason(&self, now: Mono) -> String {
        let bad = self.config.checks.iter().zip(&self.last).find_map(|(configured, last)| {
            let last = last.as_ref()?;
            (last.sample != Sample::Pass && !configured.advisory)
                .then(|| format!("{}: {}", configured.name, last.reason))
        });
        match (bad, self.health.held_until(now)) {
            (Some(bad), _) => bad,
            (None, Some(until)) => format!("held down for {} ms after flapping", until.since(now)),
            (None, None) => String::new(),
        }
    }

    pub(super) fn status(&self, now: Mono) -> ServiceStatus {
        let checks = self.config.checks.iter().zip(&self.last).map(|(configured, last)| CheckStatus {
            name: configured.name.clone(),
            kind: configured.kind.clone(),
            sample: last.as_ref().map_or("pending".to_owned(), |last| last.sample.to_string()),
            verdict: last.as_ref().map_or("pending".to_owned(), |last| last.verdict.to_string()),
            reason: last.as_ref().map_or(String::new(), |last| last.reason.clone()),
            age_ms: last.as_ref().map(|last| last.at.elapsed().as_millis() as u64),
            took_ms: last.as_ref().map_or(0.0, |last| last.took.as_secs_f64() * 1000.0),
        });
        ServiceStatus {
            name: self.config.name.clone(),
            state: self.health.state().to_string(),
            for_ms: now.since(self.health.since()),
            reason: self.reason(now),
            flaps: self.health.flaps(),
            held_for_ms: self.health.held_until(now).map(|until| until.since(now)),
            checks: checks.collect(),
        }
    }
}
