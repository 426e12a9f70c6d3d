//! From samples to a verdict: windows, strategies, and the state of one service.
//!
//! Owns: rise and fall, the strategies, flap damping, disable and drain, and what UNKNOWN means. Never: runs a
//! check, reads a clock, or knows prefixes (that is [`super::prefixes`]). Sits between the scheduler of the
//! `anycast` task and its announcers.
//!
//! ```text
//!   INIT --pass--> RISING --rise passes--> UP --fail--> FALLING --fall fails--> DOWN --pass--> RISING
//!   any --no fresh result--> UNKNOWN      any --disable--> DISABLED      any --drain--> DRAINING
//! ```

use std::collections::BTreeMap;
use std::fmt;

use crate::model::Mono;

/// What one run of a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sample {
    /// As it should be.
    Pass,
    /// Not as it should be; no answer in time counts here.
    Fail,
    /// The check itself could not be done; says nothing about the service.
    Unknown,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        })
    }
}

/// Rise and fall of one check: how many equal samples in a row turn its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    rise: u32,
    fall: u32,
    run: u32,
    last: Sample,
    verdict: Sample,
}

impl Window {
    /// An empty window; the verdict is Unknown until `rise` passes or `fall` failures were seen in a row.
    pub fn new(rise: u32, fall: u32) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), run: 0, last: Sample::Unknown, verdict: Sample::Unknown }
    }

    /// Takes a sample and returns the verdict. An Unknown sample breaks a run and changes no verdict. A decisive
    /// failure (the process is gone, the connection was reset) does not wait for `fall`.
    pub fn push(&mut self, sample: Sample, decisive: bool) -> Sample {
        self.run = if sample == self.last { self.run.saturating_add(1) } else { 1 };
        self.last = sample;
        let enough = match sample {
            Sample::Pass => self.run >= self.rise,
            Sample::Fail => decisive || self.run >= self.fall,
            Sample::Unknown => false,
        };
        if enough {
            self.verdict = sample;
        }
        self.verdict
    }

    /// Whether samples and verdict differ, so that the next sample should come soon.
    pub fn is_turning(&self) -> bool {
        self.last != self.verdict && self.last != Sample::Unknown
    }

    /// The verdict now.
    pub fn verdict(&self) -> Sample {
        self.verdict
    }
}

/// How the checks of a service make one verdict. All are monotone: one more failed check never helps.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Strategy {
    /// Down when at least one check failed.
    #[default]
    AnyFailed,
    /// Down when every check failed.
    AllFailed,
    /// Down when all checks of at least one group failed.
    GroupFailed,
    /// Down when more than this fraction of the checks failed.
    MoreThanFraction(f64),
    /// Down when fewer than this many checks pass.
    FewerThanPass(u32),
}

impl Strategy {
    /// Whether the service is down, given group and failure of each check.
    fn is_down<'a>(self, checks: impl Iterator<Item = (&'a str, bool)>) -> bool {
        let (mut total, mut failed) = (0_u32, 0_u32);
        let mut group_alive: BTreeMap<&str, bool> = BTreeMap::new();
        for (group, has_failed) in checks {
            total += 1;
            failed += u32::from(has_failed);
            *group_alive.entry(group).or_default() |= !has_failed;
        }
        match self {
            Self::AnyFailed => failed > 0,
            Self::AllFailed => total > 0 && failed == total,
            Self::GroupFailed => group_alive.values().any(|alive| !alive),
            Self::MoreThanFraction(fraction) => total > 0 && f64::from(failed) / f64::from(total) > fraction,
            Self::FewerThanPass(needed) => total - failed < needed,
        }
    }

    /// The verdict over checks given as group and sample. Unknown only where the unknown checks decide: when it
    /// comes out the same whether all of them pass or all of them fail, it is known.
    pub fn combine(self, checks: &[(&str, Sample)]) -> Sample {
        let at_best = self.is_down(checks.iter().map(|(group, sample)| (*group, *sample == Sample::Fail)));
        let at_worst = self.is_down(checks.iter().map(|(group, sample)| (*group, *sample != Sample::Pass)));
        match (at_best, at_worst) {
            (true, _) => Sample::Fail,
            (false, false) => Sample::Pass,
            (false, true) => Sample::Unknown,
        }
    }
}

/// State of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceState {
    /// No verdict yet.
    Init,
    /// Passes, not often enough yet.
    Rising,
    /// Healthy.
    Up,
    /// Was healthy and fails, not often enough yet.
    Falling,
    /// Not healthy.
    Down,
    /// Switched off by the disable file or by setting.
    Disabled,
    /// An operator takes it out.
    Draining,
    /// Its checks can't be done, or gave nothing for too long.
    Unknown,
}

impl ServiceState {
    /// The name in logs, metrics and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Rising => "RISING",
            Self::Up => "UP",
            Self::Falling => "FALLING",
            Self::Down => "DOWN",
            Self::Disabled => "DISABLED",
            Self::Draining => "DRAINING",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Every state, in a fixed order.
    pub const ALL: [Self; 8] = [
        Self::Init,
        Self::Rising,
        Self::Up,
        Self::Falling,
        Self::Down,
        Self::Disabled,
        Self::Draining,
        Self::Unknown,
    ];
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Hold-down after repeated flaps: doubles with every fall, up to a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damping {
    /// Hold-down after the first fall, in milliseconds.
    pub hold_ms: u64,
    /// Longest hold-down, in milliseconds.
    pub cap_ms: u64,
    /// A service that stayed up this long has its flaps forgotten, in milliseconds.
    pub forget_ms: u64,
}

/// The rules of one service's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Not up before this long after the start, in milliseconds.
    pub start_delay_ms: u64,
    /// How long the last known verdict holds while the checks say Unknown, in milliseconds.
    pub unknown_after_ms: u64,
    /// Flap damping, off where `None`.
    pub damping: Option<Damping>,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// State before.
    pub from: ServiceState,
    /// State now.
    pub to: ServiceState,
}

/// The state of one service over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    policy: Policy,
    born: Mono,
    state: ServiceState,
    since: Mono,
    /// Last combined verdict that was not Unknown.
    known: Sample,
    /// Since when the combined verdict is Unknown.
    unknown_since: Option<Mono>,
    raw: Sample,
    disabled: bool,
    /// Drained until then; `Mono(u64::MAX)` = until undrained.
    drained_until: Option<Mono>,
    falls: u32,
    held_until: Mono,
    up_since: Option<Mono>,
    flaps: u64,
}

impl Health {
    /// A service that was just configured.
    pub fn new(policy: Policy, now: Mono) -> Self {
        Self {
            policy,
            born: now,
            state: ServiceState::Init,
            since: now,
            known: Sample::Unknown,
            unknown_since: Some(now),
            raw: Sample::Unknown,
            disabled: false,
            drained_until: None,
            falls: 0,
            held_until: Mono(0),
            up_since: None,
            flaps: 0,
        }
    }

    /// The same service under other rules: it keeps its state, and its last verdict holds until new checks have
    /// spoken or the new limit for Unknown is over.
    pub fn reconfigured(self, policy: Policy, now: Mono) -> Self {
        Self { policy, raw: Sample::Unknown, unknown_since: Some(now), ..self }
    }

    /// The state now.
    pub fn state(&self) -> ServiceState {
        self.state
    }

    /// Since when it is in that state.
    pub fn since(&self) -> Mono {
        self.since
    }

    /// Times that the service fell from UP (or FALLING) to DOWN.
    pub fn flaps(&self) -> u64 {
        self.flaps
    }

    /// Until when flap damping holds it down, where it does.
    pub fn held_until(&self, now: Mono) -> Option<Mono> {
        (self.held_until > now).then_some(self.held_until)
    }

    /// Whether a first verdict exists (or none is needed).
    pub fn is_settled(&self) -> bool {
        !matches!(self.state, ServiceState::Init | ServiceState::Rising)
    }

    /// Takes the combined verdicts: `raw` over the last samples, `smooth` over the windows.
    pub fn observe(&mut self, raw: Sample, smooth: Sample, now: Mono) -> Option<Change> {
        self.raw = raw;
        match smooth {
            Sample::Unknown => {
                self.unknown_since.get_or_insert(now);
            }
            Sample::Pass | Sample::Fail => {
                self.unknown_since = None;
                self.known = smooth;
            }
        }
        self.settle(now)
    }

    /// Switches the service off or on.
    pub fn disable(&mut self, off: bool, now: Mono) -> Option<Change> {
        self.disabled = off;
        self.settle(now)
    }

    /// Takes the service out, for `for_ms` milliseconds or until [`Self::undrain`].
    pub fn drain(&mut self, for_ms: Option<u64>, now: Mono) -> Option<Change> {
        self.drained_until = Some(for_ms.map_or(Mono(u64::MAX), |ms| now.plus(ms)));
        self.settle(now)
    }

    /// Ends a drain.
    pub fn undrain(&mut self, now: Mono) -> Option<Change> {
        self.drained_until = None;
        self.settle(now)
    }

    /// Lets time pass: ends of drains, hold-downs and start delays, expiry of verdicts.
    pub fn tick(&mut self, now: Mono) -> Option<Change> {
        self.settle(now)
    }

    fn settle(&mut self, now: Mono) -> Option<Change> {
        if self.drained_until.is_some_and(|until| until <= now) {
            self.drained_until = None;
        }
        if let (Some(damping), Some(up_since)) = (self.policy.damping, self.up_since)
            && now.since(up_since) >= damping.forget_ms
        {
            self.falls = 0;
        }
        let next = self.next_state(now);
        if next == self.state {
            return None;
        }
        let from = std::mem::replace(&mut self.state, next);
        self.since = now;
        self.count_flap(from, now);
        Some(Change { from, to: next })
    }

    fn next_state(&self, now: Mono) -> ServiceState {
        let was_up = matches!(self.state, ServiceState::Up | ServiceState::Falling);
        if self.disabled {
            return ServiceState::Disabled;
        }
        if self.drained_until.is_some() {
            return ServiceState::Draining;
        }
        let silent_for = self.unknown_since.map_or(0, |since| now.since(since));
        if silent_for > self.policy.unknown_after_ms {
            return ServiceState::Unknown;
        }
        match self.known {
            Sample::Unknown if self.raw == Sample::Pass => ServiceState::Rising,
            Sample::Unknown => ServiceState::Init,
            Sample::Pass if was_up && self.raw == Sample::Fail => ServiceState::Falling,
            Sample::Pass if was_up => ServiceState::Up,
            Sample::Pass if self.may_rise(now) => ServiceState::Up,
            Sample::Pass => ServiceState::Rising,
            Sample::Fail if self.raw == Sample::Pass => ServiceState::Rising,
            Sample::Fail => ServiceState::Down,
        }
    }

    fn may_rise(&self, now: Mono) -> bool {
        now.since(self.born) >= self.policy.start_delay_ms && now >= self.held_until
    }

    fn count_flap(&mut self, from: ServiceState, now: Mono) {
        let was_up = matches!(from, ServiceState::Up | ServiceState::Falling);
        let is_up = matches!(self.state, ServiceState::Up | ServiceState::Falling);
        if is_up && !was_up {
            self.up_since = Some(now);
        }
        if was_up && !is_up {
            self.up_since = None;
        }
        if !(was_up && matches!(self.state, ServiceState::Down | ServiceState::Rising)) {
            return;
        }
        self.flaps += 1;
        if let Some(damping) = self.policy.damping {
            let doubled = damping.hold_ms.saturating_mul(1_u64 << self.falls.min(32));
            self.held_until = now.plus(doubled.min(damping.cap_ms));
            self.falls = self.falls.saturating_add(1);
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
