//! When a check runs: one task per check, on a fixed beat that neither a slow run nor a wall clock moves.
//!
//! Owns the beat, the hard deadline and the window of its check. A run never overlaps the next one: a beat that falls
//! into a run is skipped. While samples and verdict differ the runs come faster; an event of the check itself (its
//! process ended, its connection was reset) or an operator's wish starts a run at once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::control::Input;
use crate::checks::{Check, Report, Sample};
use crate::config::anycast::ConfiguredCheck;
use crate::rules::health::Window;

/// Shortest time from the start of a run to that of a run which an event asks for.
const EVENT_GAP: Duration = Duration::from_millis(20);

/// The result of one run.
#[derive(Debug)]
pub(super) struct Sampled {
    /// Which service, as the owner numbered it.
    pub(super) service: u64,
    /// Which check of it.
    pub(super) check: usize,
    /// What the run found.
    pub(super) report: Report,
    /// What the window makes of it.
    pub(super) verdict: Sample,
    /// How long the run took.
    pub(super) took: Duration,
    /// How far behind its beat it started.
    pub(super) late: Duration,
    /// What started it early, where something did.
    pub(super) event: Option<String>,
}

/// One check with its place.
pub(super) struct Scheduled {
    pub(super) service: u64,
    pub(super) index: usize,
    pub(super) configured: ConfiguredCheck,
    pub(super) check: Box<dyn Check>,
    /// Start of the first run.
    pub(super) first: Instant,
    pub(super) now: Arc<Notify>,
}

impl Scheduled {
    /// Runs until cancelled or until nobody listens.
    pub(super) async fn run(self, results: mpsc::Sender<Input>, cancel: CancellationToken) {
        let (interval, fast) = (self.configured.interval, self.configured.fast_interval);
        let mut window = Window::new(self.configured.rise, self.configured.fall);
        let mut beat = self.first;
        let mut wake = self.first;
        let mut event = None;
        let mut last_start = Instant::now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                reason = self.until(wake), if event.is_none() => event = reason,
            }
            if event.is_some() {
                // A service that accepts and closes at once must not make a busy loop of us.
                sleep_until(last_start + EVENT_GAP).await;
            }
            let started = Instant::now();
            last_start = started;
            let late = if event.is_some() { Duration::ZERO } else { started.saturating_duration_since(wake) };
            let report = tokio::select! {
                () = cancel.cancelled() => return,
                report = self.once() => report,
            };
            let took = started.elapsed();
            let verdict = window.push(report.sample, report.decisive);
            let sampled = Sampled {
                service: self.service,
                check: self.index,
                report,
                verdict,
                took,
                late,
                event: event.take(),
            };
            if results.send(Input::Sampled(sampled)).await.is_err() {
                return;
            }
            let now = Instant::now();
            beat = next_beat(beat, interval, now);
            wake = if window.is_turning() { beat.min((started + fast).max(now)) } else { beat };
        }
    }

    /// Waits for the beat, an event of the check, or an operator; says what it was unless it was the beat.
    async fn until(&self, wake: Instant) -> Option<String> {
        let event = async {
            match self.check.event() {
                Some(event) => event.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep_until(wake) => None,
            reason = event => Some(reason),
            () = self.now.notified() => Some("asked for".to_owned()),
        }
    }

    async fn once(&self) -> Report {
        let deadline = self.configured.deadline;
        match timeout(deadline, AssertUnwindSafe(self.check.probe()).catch_unwind()).await {
            Ok(Ok(report)) => report,
            Ok(Err(_)) => Report::unknown("the check broke down; this is a defect of the agent"),
            Err(_) => Report::fail(format!("not done within {}", humantime::format_duration(deadline))),
        }
    }
}

/// The first beat after `now`, on the grid of `interval` that `beat` lies on. A run between two beats moves nothing.
fn next_beat(beat: Instant, interval: Duration, now: Instant) -> Instant {
    if beat > now {
        return beat;
    }
    let next = beat + interval;
    if next > now {
        return next;
    }
    let missed = now.duration_since(beat).as_nanos() / interval.as_nanos().max(1);
    let skip =
        u64::try_from(missed.saturating_add(1).saturating_mul(interval.as_nanos())).unwrap_or(u64::MAX);
    beat + Duration::from_nanos(skip)
}

/// How long after the start check number `index` of `count` first runs: spread over up to an interval, so that ten
/// thousand checks do not fall into the same millisecond, and next to nothing for a handful.
pub(super) fn first_delay(index: usize, count: usize, interval: Duration) -> Duration {
    let spread =
        interval.min(Duration::from_micros(500).saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)));
    spread.mul_f64(index as f64 / count.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_beat_never_drifts_and_skips_what_it_missed() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(next_beat(start, second, start + Duration::from_millis(300)), start + second);
        assert_eq!(next_beat(start, second, start + Duration::from_millis(2500)), start + 3 * second);
        assert_eq!(next_beat(start, second, start + 2 * second), start + 3 * second);
        assert_eq!(next_beat(start + second, second, start + second / 5), start + second, "after a fast run");
    }

    #[test]
    fn a_handful_of_checks_starts_at_once_and_thousands_are_spread() {
        let second = Duration::from_secs(1);
        assert!(first_delay(3, 4, second) < Duration::from_millis(2));
        assert_eq!(first_delay(5000, 10_000, second), Duration::from_millis(500));
    }
}
