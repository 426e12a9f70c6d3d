//! The state of one site's decision: windows, the candidate that is being verified, the active state that is applied.

use serde::{Deserialize, Serialize};

use super::window::{Window, WindowRules};
use super::{Health, Hold, Inputs, RoutePolicy, RouteState, table};
use crate::model::Mono;

/// A state that is seen and not applied yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// The state.
    pub state: RouteState,
    /// Detections one after the other; held cycles neither count nor interrupt.
    pub count: u32,
}

/// The state whose outcome is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Active {
    /// The state.
    pub state: RouteState,
    /// Since when.
    pub since: Mono,
}

/// Why a cycle writes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// `RUN_PASSIVE`.
    Passive,
    /// The table has no state.
    Hold(Hold),
    /// Too few samples since the start for a change.
    WarmingUp,
    /// The candidate was not seen often enough yet.
    Verifying,
}

impl Skip {
    /// The word in events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passive => "passive_mode",
            Self::Hold(Hold::Unknown) => "unknown_health",
            Self::Hold(Hold::AllLost) => "everything_down",
            Self::Hold(Hold::RemoteLost) => "remote_lost",
            Self::WarmingUp => "warming_up",
            Self::Verifying => "verification_pending",
        }
    }
}

/// What a cycle does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Compare the world with this state's outcome and correct it.
    Act(RouteState),
    /// Write nothing.
    Skip(Skip),
}

/// What one cycle found out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// The samples of this cycle.
    pub raw: Inputs,
    /// After the windows.
    pub smoothed: Inputs,
    /// What the table says; `Err` = hold.
    pub seen: Result<RouteState, Hold>,
    /// The state under verification with its detections so far.
    pub candidate: Option<Candidate>,
    /// The applied state.
    pub active: Option<Active>,
    /// The state that was applied before, where this cycle changed it.
    pub changed_from: Option<Option<RouteState>>,
    /// Milliseconds that the dwell time still refuses the candidate; 0 = it does not.
    pub dwell_left_ms: u64,
    /// What to do.
    pub verdict: Verdict,
}

impl Decision {
    /// Number of what is seen; 0 = hold.
    pub fn seen_code(&self) -> u8 {
        self.seen.map_or(0, RouteState::code)
    }
}

/// The decision's whole memory; stored as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Core {
    /// Samples of the own region.
    pub local: Window,
    /// Samples of the other region.
    pub remote: Window,
    /// Samples of the other router's sessions.
    pub bgp: Window,
    /// What is being verified.
    pub candidate: Option<Candidate>,
    /// What is applied.
    pub active: Option<Active>,
}

/// Rules of the three windows: own region, other region, sessions.
fn rules(policy: &RoutePolicy) -> [WindowRules; 3] {
    let stale = |size: usize| policy.interval_ms.saturating_mul(size as u64);
    let region = WindowRules {
        size: policy.window,
        threshold: policy.threshold,
        asymmetric: policy.asymmetric,
        stale_ms: stale(policy.window),
    };
    let bgp = WindowRules {
        size: policy.bgp_window,
        threshold: policy.bgp_threshold,
        asymmetric: false,
        stale_ms: stale(policy.bgp_window.max(policy.window)),
    };
    [region, region, bgp]
}

impl Core {
    /// Takes the samples of one cycle in and decides.
    pub fn step(&mut self, policy: &RoutePolicy, raw: Inputs, now: Mono) -> Decision {
        let [local, remote, bgp] = rules(policy);
        self.local.take(raw.local, local, now);
        self.remote.take(raw.remote, remote, now);
        self.bgp.take(raw.bgp, bgp, now);
        let or_unknown = |raw: Health, smoothed: Health| {
            if raw == Health::Unknown { Health::Unknown } else { smoothed }
        };
        // A cycle that could not see an input decides nothing, whatever the window remembers.
        let smoothed = Inputs {
            local: or_unknown(raw.local, self.local.smoothed(local)),
            remote: or_unknown(raw.remote, self.remote.smoothed(remote)),
            bgp: or_unknown(raw.bgp, self.bgp.smoothed(bgp)),
        };
        let seen = table(smoothed, policy.remote_lost);
        let before = self.active;
        let (verdict, dwell_left_ms) = self.judge(policy, seen, now);
        let changed = self.active.map(|active| active.state) != before.map(|active| active.state);
        Decision {
            raw,
            smoothed,
            seen,
            candidate: self.candidate,
            active: self.active,
            changed_from: changed.then(|| before.map(|active| active.state)),
            dwell_left_ms,
            verdict,
        }
    }

    fn judge(&mut self, policy: &RoutePolicy, seen: Result<RouteState, Hold>, now: Mono) -> (Verdict, u64) {
        if policy.passive {
            self.candidate = seen.ok().map(|state| Candidate { state, count: 0 });
            return (Verdict::Skip(Skip::Passive), 0);
        }
        let state = match seen {
            Ok(state) => state,
            Err(hold) => return (Verdict::Skip(Skip::Hold(hold)), 0),
        };
        if let Some(active) = self.active.filter(|active| active.state == state) {
            self.candidate = None;
            return (Verdict::Act(active.state), 0);
        }
        if !self.is_warm(policy) {
            // One raw sample after a start proves nothing; only what was applied before may be kept up.
            self.candidate = None;
            return (Verdict::Skip(Skip::WarmingUp), 0);
        }
        let counted = self.candidate.filter(|candidate| candidate.state == state);
        let count = counted.map_or(1, |candidate| candidate.count.saturating_add(1));
        self.candidate = Some(Candidate { state, count });
        if count < policy.verification_of(state) {
            return (Verdict::Skip(Skip::Verifying), 0);
        }
        if let Some(active) = self.active {
            let stayed = now.since(active.since);
            if stayed < policy.dwell_ms && !policy.dwell_excepted(active.state, state) {
                return (Verdict::Act(active.state), policy.dwell_ms - stayed);
            }
        }
        self.active = Some(Active { state, since: now });
        self.candidate = None;
        (Verdict::Act(state), 0)
    }

    /// Whether every window is full.
    pub fn is_warm(&self, policy: &RoutePolicy) -> bool {
        let [local, remote, bgp] = rules(policy);
        self.local.is_full(local) && self.remote.is_full(remote) && self.bgp.is_full(bgp)
    }
}
