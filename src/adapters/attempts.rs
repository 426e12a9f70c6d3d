//! Trying again, and not trying at all: chains of attempts with a deadline, and one circuit breaker per target.
//!
//! Owns waits, breakers (the pure ones of `rules::breaker`) and what an onlooker is told. Never knows what is tried.
//! Only what may pass is tried again; `Retry-After` is honoured; a stop ends a wait at once and never cuts a call.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::{FailureKind, Mono};
use crate::rules::breaker::{Admission, Breaker, BreakerChange, BreakerSettings, BreakerState};

/// How often and how long something is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries: u32,
    /// Longest wait before the first retry; doubles with every further one.
    pub initial: Duration,
    /// Longest wait of all.
    pub max: Duration,
    /// Limit of the whole chain, calls and waits together.
    pub total: Duration,
    /// Whether a wait is a random share of its longest (full jitter), or always its longest.
    pub jitter: bool,
}

impl RetryPolicy {
    /// One attempt within `total`.
    pub fn once(total: Duration) -> Self {
        Self { retries: 0, initial: Duration::ZERO, max: Duration::ZERO, total, jitter: false }
    }

    /// Longest wait before retry `number`, counted from 0: `min(max, initial * 2^number)`.
    pub fn longest_wait(&self, number: u32) -> Duration {
        let factor = 1_u32.checked_shl(number.min(31)).unwrap_or(u32::MAX);
        self.initial.checked_mul(factor).map_or(self.max, |wait| wait.min(self.max))
    }

    fn wait(&self, number: u32) -> Duration {
        let longest = self.longest_wait(number);
        if self.jitter { longest.mul_f64(rand::random::<f64>()) } else { longest }
    }
}

/// What the chain must know about an error.
pub trait Retryable: Display + Sized {
    /// How to take it: `Transient` and `Conflict` are tried again, as every attempt begins with a fresh read.
    fn kind(&self) -> FailureKind;
    /// What the other side asks to wait.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
    /// Whether the target failed, rather than something on this side of it.
    fn counts(&self) -> bool {
        true
    }
    /// The error of a target whose breaker is open.
    fn blocked(target: &str, retry_in: Duration) -> Self;
    /// The error of a chain whose time was up during a call.
    fn late(target: &str, operation: &str) -> Self;
}

/// What an onlooker is told: for metrics, events and logs.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A request was answered, or not.
    Call {
        /// `compute`, `cloudflare` or `token`.
        api: &'static str,
        /// The operation, such as `routers.patch`.
        operation: &'static str,
        /// HTTP status, or `timeout`, `no-answer`, `malformed`.
        code: String,
        /// How long it took.
        took: Duration,
    },
    /// A chain waits before its next attempt.
    Retry {
        /// Name of the target.
        target: String,
        /// The operation.
        operation: &'static str,
        /// Number of the retry, from 1.
        number: u32,
        /// The wait.
        wait: Duration,
        /// What went wrong.
        reason: String,
    },
    /// A breaker changed, or blocked a call.
    Breaker {
        /// Name of the target.
        target: String,
        /// What happened.
        change: BreakerChange,
        /// Failures in a row.
        failures: u32,
    },
}

/// Someone who is told. Must be quick: it is called in the middle of things.
pub type Onlooker = Arc<dyn Fn(Told) + Send + Sync>;

/// The breakers of all targets, the stop and the onlooker. Cheap to clone; clones share all of it.
#[derive(Clone)]
pub struct Attempts {
    inner: Arc<Inner>,
}

struct Inner {
    settings: BreakerSettings,
    breakers: Mutex<BTreeMap<String, Breaker>>,
    began: Instant,
    onlooker: Onlooker,
    stop: CancellationToken,
}

impl Attempts {
    /// No target is known at first. After `stop`, nothing is tried again and nobody waits.
    pub fn new(settings: BreakerSettings, stop: CancellationToken, onlooker: Onlooker) -> Self {
        let breakers = Mutex::new(BTreeMap::new());
        Self { inner: Arc::new(Inner { settings, breakers, began: Instant::now(), onlooker, stop }) }
    }

    /// Breakers with their state and their failures in a row, by name of the target.
    pub fn breakers(&self) -> BTreeMap<String, (BreakerState, u32)> {
        let breakers = self.lock();
        breakers.iter().map(|(name, breaker)| (name.clone(), (breaker.state(), breaker.failures()))).collect()
    }

    /// Whether the stop was asked for.
    pub fn is_stopped(&self) -> bool {
        self.inner.stop.is_cancelled()
    }

    /// Tells the onlooker.
    pub fn tell(&self, told: Told) {
        (self.inner.onlooker)(told);
    }

    /// Waits, not beyond the stop; `false` where it came.
    pub async fn sleep(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// A guarded chain: asks the target's breaker, tries until it works or until it is pointless, tells the breaker.
    /// `attempt` gets the chain's deadline.
    ///
    /// # Errors
    /// The last attempt's, or [`Retryable::blocked`], or [`Retryable::late`].
    pub async fn run<T, E, F, A>(
        &self,
        (target, operation): (&str, &'static str),
        policy: &RetryPolicy,
        deadline: Instant,
        attempt: F,
    ) -> Result<T, E>
    where
        E: Retryable,
        F: FnMut(Instant) -> A,
        A: Future<Output = Result<T, E>>,
    {
        self.admit(target).map_err(|wait| E::blocked(target, wait))?;
        let result = self.chain((target, operation), policy, deadline, attempt).await;
        match &result {
            Ok(_) => self.settle(target, true),
            Err(error) if error.counts() => self.settle(target, false),
            // The target answered well; what is wrong is on this side.
            Err(_) => self.settle(target, true),
        }
        result
    }

    /// A chain of attempts without a breaker.
    ///
    /// # Errors
    /// The last attempt's, or [`Retryable::late`].
    pub async fn chain<T, E, F, A>(
        &self,
        (target, operation): (&str, &'static str),
        policy: &RetryPolicy,
        deadline: Instant,
        mut attempt: F,
    ) -> Result<T, E>
    where
        E: Retryable,
        F: FnMut(Instant) -> A,
        A: Future<Output = Result<T, E>>,
    {
        let deadline = deadline.min(Instant::now() + policy.total);
        let mut number = 0;
        loop {
            let result = tokio::time::timeout_at(deadline, attempt(deadline)).await;
            let error = match result {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => return Err(E::late(target, operation)),
            };
            if error.kind() == FailureKind::Permanent || number >= policy.retries || self.is_stopped() {
                return Err(error);
            }
            let wait = policy.wait(number).max(error.retry_after().unwrap_or_default());
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            number += 1;
            let (target, reason) = (target.to_owned(), error.to_string());
            self.tell(Told::Retry { target, operation, number, wait, reason });
            if !self.sleep(wait).await {
                return Err(error);
            }
        }
    }

    /// Asks a target's breaker.
    ///
    /// # Errors
    /// Where it is open: how long until a probe goes through.
    pub fn admit(&self, target: &str) -> Result<(), Duration> {
        let now = self.now();
        let (change, failures, result) = {
            let mut breakers = self.lock();
            let breaker =
                breakers.entry(target.to_owned()).or_insert_with(|| Breaker::new(self.inner.settings));
            let (change, result) = match breaker.admit(now) {
                Admission::Admitted => (None, Ok(())),
                Admission::Probe => (Some(BreakerChange::HalfOpen), Ok(())),
                Admission::Blocked { retry_in_ms } => {
                    (Some(BreakerChange::CallBlocked), Err(Duration::from_millis(retry_in_ms)))
                }
            };
            (change, breaker.failures(), result)
        };
        self.tell_change(target, change, failures);
        result
    }

    /// Tells a target's breaker how an admitted chain ended.
    pub fn settle(&self, target: &str, well: bool) {
        let now = self.now();
        let (change, failures) = {
            let mut breakers = self.lock();
            let Some(breaker) = breakers.get_mut(target) else { return };
            let change = if well { breaker.succeeded() } else { Some(breaker.failed(now)) };
            (change, breaker.failures())
        };
        self.tell_change(target, change, failures);
    }

    fn tell_change(&self, target: &str, change: Option<BreakerChange>, failures: u32) {
        if let Some(change) = change {
            self.tell(Told::Breaker { target: target.to_owned(), change, failures });
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Breaker>> {
        self.inner.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Mono {
        let passed = Instant::now().saturating_duration_since(self.inner.began);
        Mono(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }
}
