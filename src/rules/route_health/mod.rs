//! Route steering: from what is seen of two regions to what this site's router and Cloudflare should say.
//!
//! ```text
//! answers ─▶ grade ─▶ three samples ─▶ windows ─▶ candidate ─▶ verified, dwelt ─▶ active ─▶ outcome ─▶ actuate ─▶ writes
//!                       (unknown never enters)                                       ▲ the phase's pin beats it
//! ```
//!
//! Owns the state table, the smoothing and the limits. Never: a clock, a call, a name of a project. One pure value per
//! site ([`Core`]); the task `route_watch` feeds it, the simulator, the model checker and the tests do the same.

pub mod actuate;
mod core;
pub mod grade;
pub mod window;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{RoutePin, Side};
pub use core::{Active, Candidate, Core, Decision, Skip, Verdict};
use grade::EmptyRegion;

/// What is known of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Proven good.
    Healthy,
    /// Proven bad.
    Unhealthy,
    /// Not known now; nothing follows from it.
    Unknown,
}

impl Health {
    /// All three, in a fixed order.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Unhealthy, Self::Unknown];

    /// As a boolean where it is known.
    pub fn known(self) -> Option<bool> {
        match self {
            Self::Healthy => Some(true),
            Self::Unhealthy => Some(false),
            Self::Unknown => None,
        }
    }

    /// As the metrics show it: 1, 0 or -1.
    pub fn gauge(self) -> i64 {
        self.known().map_or(-1, i64::from)
    }
}

impl From<bool> for Health {
    fn from(good: bool) -> Self {
        if good { Self::Healthy } else { Self::Unhealthy }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        })
    }
}

/// One value of each input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Inputs {
    /// Backends of the own region.
    pub local: Health,
    /// Backends of the other region.
    pub remote: Health,
    /// BGP sessions of the other region's router.
    pub bgp: Health,
}

impl Inputs {
    /// Whether all three are known.
    pub fn all_known(self) -> bool {
        [self.local, self.remote, self.bgp].iter().all(|health| *health != Health::Unknown)
    }
}

/// A row of the state table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteState {
    /// 1: everything is well.
    AllGood,
    /// 2: the own region is down, the other one serves.
    LocalDown,
    /// 3: the other region is down, its router reachable.
    RemoteDown,
    /// 4: both regions are down; each keeps its own prefix.
    BothDown,
    /// 5: the own region is down and the other router has lost its sessions.
    LocalDownRemoteCut,
    /// 6: the other router has lost its sessions, both regions are well.
    RemoteCut,
    /// 7: the other region is dead altogether: backends and sessions down.
    RemoteLost,
}

impl RouteState {
    /// Every state, by number.
    pub const ALL: [Self; 7] = [
        Self::AllGood,
        Self::LocalDown,
        Self::RemoteDown,
        Self::BothDown,
        Self::LocalDownRemoteCut,
        Self::RemoteCut,
        Self::RemoteLost,
    ];

    /// The number in events and metrics; 0 is no state but "hold".
    pub fn code(self) -> u8 {
        match self {
            Self::AllGood => 1,
            Self::LocalDown => 2,
            Self::RemoteDown => 3,
            Self::BothDown => 4,
            Self::LocalDownRemoteCut => 5,
            Self::RemoteCut => 6,
            Self::RemoteLost => 7,
        }
    }

    /// The number under which settings speak of it: remote-lost is verified and dwelt like state 3.
    pub fn settings_code(self) -> u8 {
        if self == Self::RemoteLost { 3 } else { self.code() }
    }

    /// What the state asks for.
    pub fn outcome(self) -> Outcome {
        let (primary, secondary, priority) = match self {
            Self::AllGood => (true, false, Priority::Primary),
            Self::LocalDown => (false, false, Priority::Secondary),
            Self::RemoteDown | Self::RemoteCut | Self::RemoteLost => (true, true, Priority::Primary),
            Self::BothDown | Self::LocalDownRemoteCut => (true, false, Priority::Secondary),
        };
        Outcome { primary, secondary, priority }
    }
}

/// Which of the two configured Cloudflare priorities the own routes carry; lower numbers win there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// `CLOUDFLARE_PRIMARY_PRIORITY`.
    Primary,
    /// `CLOUDFLARE_SECONDARY_PRIORITY`.
    Secondary,
}

/// What the own router and Cloudflare should say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Outcome {
    /// The own prefix is announced here.
    pub primary: bool,
    /// The other region's prefix is announced here.
    pub secondary: bool,
    /// Priority of the own Cloudflare routes.
    pub priority: Priority,
}

/// What a site's routes say while they are pinned to the passive site.
pub fn pinned_outcome(side: Side) -> Outcome {
    match side {
        Side::Active => RouteState::LocalDown.outcome(),
        Side::Passive => RouteState::RemoteDown.outcome(),
    }
}

/// Why the table has no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// An input is not known.
    Unknown,
    /// Everything is down: there is nowhere to go. Worth an alarm.
    AllLost,
    /// The other region is dead and `REMOTE_LOST_ACTION=hold`.
    RemoteLost,
}

/// What a wholly dead other region means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteLostAction {
    /// Announce its prefix here, verified like state 3.
    Takeover,
    /// Change nothing, as the predecessor.
    Hold,
}

/// The state table.
///
/// # Errors
/// Why nothing may change.
pub fn table(inputs: Inputs, lost: RemoteLostAction) -> Result<RouteState, Hold> {
    let (Some(local), Some(remote), Some(bgp)) =
        (inputs.local.known(), inputs.remote.known(), inputs.bgp.known())
    else {
        return Err(Hold::Unknown);
    };
    match (local, remote, bgp) {
        (true, true, true) => Ok(RouteState::AllGood),
        (false, true, true) => Ok(RouteState::LocalDown),
        (true, false, true) => Ok(RouteState::RemoteDown),
        (false, false, true) => Ok(RouteState::BothDown),
        (false, true, false) => Ok(RouteState::LocalDownRemoteCut),
        (true, true, false) => Ok(RouteState::RemoteCut),
        (true, false, false) if lost == RemoteLostAction::Takeover => Ok(RouteState::RemoteLost),
        (true, false, false) => Err(Hold::RemoteLost),
        (false, false, false) => Err(Hold::AllLost),
    }
}

/// When a prefix may be taken back from the own router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithdrawGuard {
    /// Refused where the other router shows what it announces and the prefix is not there.
    Auto,
    /// Refused unless the other router is seen announcing the prefix.
    Strict,
    /// Never refused.
    Off,
}

/// How many sessions must be up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BgpUp {
    /// One.
    Any,
    /// Every one.
    All,
    /// This many.
    AtLeast(u32),
}

/// Everything that the decision is told at start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoutePolicy {
    /// Side of this site: where the pin's routes are.
    pub side: Side,
    /// Samples in the windows of the backends.
    pub window: usize,
    /// Healthy samples that make a region healthy.
    pub threshold: usize,
    /// `ASYMMETRIC_HYSTERESIS`: leave on fewer than 2 healthy samples, come back on 4.
    pub asymmetric: bool,
    /// Samples in the window of the BGP sessions.
    pub bgp_window: usize,
    /// Good samples that make the sessions count as up.
    pub bgp_threshold: usize,
    /// Detections before a state applies, by number 1 to 6.
    pub verification: [u32; 6],
    /// Shortest stay in a state, in milliseconds.
    pub dwell_ms: u64,
    /// States from and to which one may go at once, by number.
    pub dwell_exceptions: BTreeSet<u8>,
    /// Time between two cycles, in milliseconds.
    pub interval_ms: u64,
    /// What a dead other region means.
    pub remote_lost: RemoteLostAction,
    /// Nothing is written and nothing is verified.
    pub passive: bool,
    /// Writes in an hour that may take routes away; `None` = any number.
    pub writes_per_hour: Option<u32>,
    /// When a prefix may be taken back.
    pub guard: WithdrawGuard,
    /// Least share of healthy instances of a service, in percent.
    pub min_healthy_percent: u32,
    /// What a region without backends means.
    pub empty_region: EmptyRegion,
    /// How many sessions must be up.
    pub bgp_up: BgpUp,
}

impl RoutePolicy {
    /// The predecessor's defaults with the required model's additions.
    pub fn new(side: Side) -> Self {
        Self {
            side,
            window: 5,
            threshold: 3,
            asymmetric: false,
            bgp_window: 5,
            bgp_threshold: 3,
            verification: [1, 2, 2, 2, 2, 2],
            dwell_ms: 120_000,
            dwell_exceptions: BTreeSet::from([1, 4]),
            interval_ms: 60_000,
            remote_lost: RemoteLostAction::Takeover,
            passive: false,
            writes_per_hour: None,
            guard: WithdrawGuard::Auto,
            min_healthy_percent: 100,
            empty_region: EmptyRegion::Unknown,
            bgp_up: BgpUp::Any,
        }
    }

    /// Detections before the state applies.
    pub fn verification_of(&self, state: RouteState) -> u32 {
        self.verification.get(usize::from(state.settings_code()) - 1).copied().unwrap_or(1)
    }

    /// Whether one may leave `from` for `to` before the dwell time is over.
    pub fn dwell_excepted(&self, from: RouteState, to: RouteState) -> bool {
        [from, to].iter().any(|state| self.dwell_exceptions.contains(&state.settings_code()))
    }

    /// What the routes should say now, `None` where nothing may change. The pin beats health; an unknown pin holds.
    pub fn desired(&self, pin: Option<RoutePin>, decision: &Decision) -> Option<Outcome> {
        match pin? {
            RoutePin::Passive => Some(pinned_outcome(self.side)),
            RoutePin::Health => match decision.verdict {
                Verdict::Act(state) => Some(state.outcome()),
                Verdict::Skip(_) => None,
            },
        }
    }
}
