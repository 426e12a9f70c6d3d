//! One circuit breaker: whether a target that keeps failing is asked at all.
//!
//! Owns three states and their changes; time is passed in. Never: calls, sleeps, decides what a failure means. What is
//! counted is a whole chain of retries. Failures count only in a row; half-open lets exactly one probe through.

use serde::{Deserialize, Serialize};

use crate::model::Mono;

/// Limits of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BreakerSettings {
    /// Failures in a row that open it; at least 1.
    pub threshold: u32,
    /// Milliseconds from the last failure until a probe is let through.
    pub timeout_ms: u64,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { threshold: 5, timeout_ms: 300_000 }
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Calls are refused.
    Open,
    /// One probe is under way, all other calls are refused.
    HalfOpen,
}

impl BreakerState {
    /// The word in events and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Something worth an event; [`BreakerChange::word`] is the event's operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerChange {
    /// Failed too often: closed or half-open to open.
    Opened,
    /// Failed, and still closed.
    FailureRecorded,
    /// The time is over: one probe goes through.
    HalfOpen,
    /// The probe was well.
    Closed,
    /// Refused a call.
    CallBlocked,
}

impl BreakerChange {
    /// The word in events: `opened`, `failure_recorded`, `half_open`, `closed`, `call_blocked`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::FailureRecorded => "failure_recorded",
            Self::HalfOpen => "half_open",
            Self::Closed => "closed",
            Self::CallBlocked => "call_blocked",
        }
    }
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Admitted,
    /// Yes, as the one probe of a half-open breaker.
    Probe,
    /// No; worth asking again after this many milliseconds.
    Blocked {
        /// Milliseconds until a probe is let through.
        retry_in_ms: u64,
    },
}

/// The breaker of one target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Breaker {
    settings: BreakerSettings,
    state: BreakerState,
    failures: u32,
    /// Of the last failure while open, of the probe's start while half-open.
    since: Mono,
}

impl Breaker {
    /// A closed breaker. A threshold of 0 means 1.
    pub fn new(settings: BreakerSettings) -> Self {
        let settings = BreakerSettings { threshold: settings.threshold.max(1), ..settings };
        Self { settings, state: BreakerState::Closed, failures: 0, since: Mono(0) }
    }

    /// Where it stands.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Asks for a call. Every admission is followed by one of [`Breaker::succeeded`] and [`Breaker::failed`]; a probe
    /// that never reports back (its caller was stopped) loses its turn after the timeout.
    pub fn admit(&mut self, now: Mono) -> Admission {
        if self.state == BreakerState::Closed {
            return Admission::Admitted;
        }
        let waited = now.since(self.since);
        if waited < self.settings.timeout_ms {
            return Admission::Blocked { retry_in_ms: self.settings.timeout_ms - waited };
        }
        self.state = BreakerState::HalfOpen;
        self.since = now;
        Admission::Probe
    }

    /// An admitted chain went well.
    pub fn succeeded(&mut self) -> Option<BreakerChange> {
        self.failures = 0;
        let was = std::mem::replace(&mut self.state, BreakerState::Closed);
        (was != BreakerState::Closed).then_some(BreakerChange::Closed)
    }

    /// An admitted chain failed.
    pub fn failed(&mut self, now: Mono) -> BreakerChange {
        self.failures = self.failures.saturating_add(1);
        let opens = self.state != BreakerState::Closed || self.failures >= self.settings.threshold;
        if !opens {
            return BreakerChange::FailureRecorded;
        }
        self.state = BreakerState::Open;
        self.since = now;
        BreakerChange::Opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings { threshold: 3, timeout_ms: 300_000 })
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut breaker = breaker();
        for _ in 0..3 {
            assert_eq!(breaker.failed(Mono(1)), BreakerChange::FailureRecorded);
            assert_eq!(breaker.succeeded(), None);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.failed(Mono(2)), BreakerChange::FailureRecorded);
        assert_eq!(breaker.failed(Mono(3)), BreakerChange::FailureRecorded);
        assert_eq!(breaker.failed(Mono(4)), BreakerChange::Opened);
        assert_eq!(breaker.admit(Mono(5)), Admission::Blocked { retry_in_ms: 299_999 });
    }

    #[test]
    fn half_open_lets_one_probe_through_and_follows_its_fate() {
        let mut breaker = breaker();
        for _ in 0..3 {
            breaker.failed(Mono(0));
        }
        assert_eq!(breaker.admit(Mono(300_000)), Admission::Probe);
        assert_eq!(breaker.admit(Mono(300_000)), Admission::Blocked { retry_in_ms: 300_000 });
        assert_eq!(breaker.failed(Mono(300_010)), BreakerChange::Opened);
        assert_eq!(breaker.admit(Mono(600_009)), Admission::Blocked { retry_in_ms: 1 }, "the timer restarts");
        assert_eq!(breaker.admit(Mono(600_010)), Admission::Probe);
        assert_eq!(breaker.succeeded(), Some(BreakerChange::Closed));
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::Closed, 0));
        assert_eq!(breaker.admit(Mono(600_011)), Admission::Admitted);
    }

    #[test]
    fn a_probe_that_never_reports_back_does_not_lock_the_door() {
        let mut breaker = Breaker::new(BreakerSettings { threshold: 0, timeout_ms: 1000 });
        assert_eq!(breaker.failed(Mono(0)), BreakerChange::Opened, "0 means 1");
        assert_eq!(breaker.admit(Mono(1000)), Admission::Probe);
        assert_eq!(breaker.admit(Mono(1999)), Admission::Blocked { retry_in_ms: 1 });
        assert_eq!(breaker.admit(Mono(2000)), Admission::Probe);
    }
}
