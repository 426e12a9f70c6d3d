//! What a simulation is made of: the seed, how long, which mode, how often things are looked at.

use crate::model::{Phase, Side};
use crate::rules::policy::{Automation, Policy};
use crate::verify::settings;

/// Milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;
/// Milliseconds of an episode: things break in its first part, then must come to rest, then a person tidies up.
pub const EPISODE_MS: u64 = 3 * 3_600_000;
/// Episodes of a day.
pub const EPISODES_A_DAY: u64 = DAY_MS / EPISODE_MS;

/// How long traffic must have moved before anybody follows it (`DNS_AGREE_SECONDS`).
pub const DAMPING_MS: u64 = 40_000;

/// `LEASE_SECONDS` and `LEASE_GRACE_SECONDS`.
const LEASE_MS: u64 = 30_000;

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Everything, more than twenty faults a day.
    Nemesis,
    /// Nothing but bad sensors: one look in twenty fails, the load balancer flaps for 1 to 30 s.
    Sensors,
    /// Real outages of the active site and nothing else.
    Outages,
}

impl Scenario {
    /// Every scenario with its name.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Nemesis, "nemesis"), (Self::Sensors, "sensors"), (Self::Outages, "outages")];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }

    /// The scenario of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(scenario, _)| *scenario)
    }
}

/// Faults planted into the agents or the world, to show that the checker sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// The agents run without `FENCE_OLD_PRIMARY`.
    NoFencing,
    /// A standby promotes itself.
    RogueStandby,
    /// The pipeline is started twice by whoever carries the call.
    DoubledCall,
    /// One resolver is believed alone, at once.
    Gullible,
    /// Promotion forgets the newest acknowledged writes.
    Forgetful,
    /// No standby ever follows, and no agent knows.
    Stuck,
}

/// How often things are looked at, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between rounds of look-ups.
    pub dns: u64,
    /// Between polls of Patroni.
    pub patroni: u64,
    /// Between full reads of the record.
    pub resync: u64,
    /// Between heartbeats.
    pub ping: u64,
    /// Without an answer after which the peer counts as lost.
    pub loss: u64,
    /// The delivery of one message.
    pub forward: u64,
    /// Between looks at the witness.
    pub witness: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            dns: 10_000,
            patroni: 10_000,
            resync: 30_000,
            ping: 10_000,
            loss: 25_000,
            forward: 5_000,
            witness: 10_000,
        }
    }
}

/// A simulation.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// Episodes of three hours; eight are a day.
    pub episodes: u64,
    /// What breaks.
    pub scenario: Scenario,
    /// How far the agents may act alone.
    pub mode: Automation,
    /// There is a witness.
    pub witness: bool,
    /// Traffic is opened before the promotion or after it.
    pub promote_first: bool,
    /// See [`Planted`].
    pub planted: Planted,
    /// See [`Pace`].
    pub pace: Pace,
}

/// Modes that a seed may stand for, each with whether there is a witness.
pub const MODES: [(Automation, bool); 5] = [
    (Automation::Witnessed, false),
    (Automation::SelfFencing, false),
    (Automation::Witnessed, true),
    (Automation::SelfFencing, true),
    (Automation::Advise, false),
];

impl Plan {
    /// The plan that a seed stands for.
    pub fn of(seed: u64, episodes: u64) -> Self {
        let (mode, witness) = MODES[(seed % MODES.len() as u64) as usize];
        Self {
            seed,
            episodes,
            scenario: Scenario::Nemesis,
            mode,
            witness,
            promote_first: seed.is_multiple_of(2),
            planted: Planted::Nothing,
            pace: Pace::default(),
        }
    }

    /// The one command that runs it again.
    pub fn command(&self) -> String {
        let scenario = match self.scenario {
            Scenario::Nemesis => String::new(),
            other => format!(" --faults {}", other.name()),
        };
        // Episodes of a seed come one after the other, so that a longer run begins with the shorter one.
        let days = self.episodes.div_ceil(EPISODES_A_DAY);
        format!("switchover-agent lab --seed {} --days {days}{scenario} --trace", self.seed)
    }

    /// Settings of an agent.
    pub fn policy(&self, side: Side, instance: String) -> Policy {
        let mut policy = settings::policy(side);
        policy.instance = instance;
        policy.automation = self.mode;
        policy.promote_first = self.promote_first;
        policy.fence_old_primary = self.planted != Planted::NoFencing;
        policy.dns.agree_ms = DAMPING_MS;
        policy.fresh_ms = 3 * self.pace.patroni;
        policy.safety.witness = self.witness;
        (policy.safety.lease_ms, policy.safety.grace_ms) = (LEASE_MS, LEASE_MS);
        policy.safety.boot_grace_ms = LEASE_MS / 3;
        policy.safety.boot_fence = policy.fence_old_primary && self.mode.acts_alone();
        policy.database_peer = Some(super::site::PEER_HOST.to_owned());
        if self.planted == Planted::Gullible {
            (policy.dns.quorum, policy.dns.agree_samples, policy.dns.agree_ms) = (1, 1, 0);
        }
        policy
    }
}

/// Phases in which the pair may come to rest.
pub const RESTING: [Phase; 3] = [Phase::ActivePassive, Phase::GolddrPrimary, Phase::GoldStandby];
