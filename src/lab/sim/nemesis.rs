//! What breaks, where, when and for how long: a schedule made from the seed before anything runs.

use super::dice::Dice;
use super::plan::{EPISODE_MS, Plan, Scenario};
use crate::model::Side;

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The line between the sites is cut both ways.
    Partition,
    /// The line is cut one way.
    OneWay,
    /// Frames take up to some seconds.
    Delay,
    /// Frames are lost.
    Loss,
    /// Messages come a second time, up to five minutes later.
    Repeats,
    /// An agent is stopped and continued.
    Stall,
    /// An agent is killed and started again.
    Crash,
    /// The same, in the middle of a journal write.
    TornCrash,
    /// A wall clock jumps.
    ClockStep,
    /// The journal's disk is full.
    DiskFull,
    /// The journal's disk is slow.
    DiskSlow,
    /// The Kubernetes API is down.
    ApiDown,
    /// The Kubernetes API is slow.
    ApiSlow,
    /// The Kubernetes API fails, conflicts and loses answers.
    ApiFlaky,
    /// Patroni cannot be reached.
    PatroniGone,
    /// The database has no leader for a while.
    NoLeader,
    /// One resolver lies.
    LyingResolver,
    /// Resolvers do not answer.
    SilentResolvers,
    /// The load balancer answers with the other site for some seconds.
    Flap,
    /// Pipeline runs fail.
    FailingPipeline,
    /// Pipeline runs hang.
    HangingPipeline,
    /// The portal fails.
    Portal,
    /// Replication comes late.
    Lag,
    /// Replication is cut while the agents can talk.
    ReplicationCut,
    /// A person edits the record.
    Edit,
    /// A person asks for a transition at a bad moment.
    Ask,
    /// Clients and resolvers cannot reach the active site.
    Ingress,
    /// The active site is cut off from everything, and alive.
    Isolation,
    /// The active site is dead.
    SiteDead,
    /// A site cannot reach the witness.
    WitnessCut,
}

impl Kind {
    /// Every kind with its name and its weight in the draw.
    pub const ALL: [(Self, &'static str, u64); 30] = [
        (Self::Partition, "partition", 4),
        (Self::OneWay, "one-way-partition", 4),
        (Self::Delay, "delay", 3),
        (Self::Loss, "lossy-line", 3),
        (Self::Repeats, "repeated-messages", 4),
        (Self::Stall, "stall", 4),
        (Self::Crash, "crash", 5),
        (Self::TornCrash, "torn-journal", 3),
        (Self::ClockStep, "clock-step", 3),
        (Self::DiskFull, "disk-full", 3),
        (Self::DiskSlow, "disk-slow", 3),
        (Self::ApiDown, "api-down", 4),
        (Self::ApiSlow, "api-slow", 3),
        (Self::ApiFlaky, "api-flaky", 5),
        (Self::PatroniGone, "patroni-unreachable", 4),
        (Self::NoLeader, "no-leader", 2),
        (Self::LyingResolver, "lying-resolver", 4),
        (Self::SilentResolvers, "silent-resolvers", 3),
        (Self::Flap, "gslb-flap", 3),
        (Self::FailingPipeline, "failing-pipeline", 3),
        (Self::HangingPipeline, "hanging-pipeline", 2),
        (Self::Portal, "portal-down", 2),
        (Self::Lag, "replication-lag", 3),
        (Self::ReplicationCut, "replication-cut", 2),
        (Self::Edit, "record-edit", 2),
        (Self::Ask, "person-asks", 9),
        (Self::Ingress, "ingress-outage", 4),
        (Self::Isolation, "site-isolated", 3),
        (Self::SiteDead, "site-dead", 3),
        (Self::WitnessCut, "witness-cut", 3),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    fn draw(dice: &mut Dice) -> Self {
        let total: u64 = Self::ALL.iter().map(|(.., weight)| weight).sum();
        let mut left = dice.between(1, total);
        for (kind, _, weight) in Self::ALL {
            if left <= weight {
                return kind;
            }
            left -= weight;
        }
        Self::Crash
    }

    /// How long it lasts, in milliseconds.
    fn lasts(self, dice: &mut Dice) -> u64 {
        let (low, high) = match self {
            Self::Flap => (1, 30),
            Self::Stall => (5, 400),
            Self::Crash | Self::TornCrash => (1, 120),
            Self::NoLeader => (5, 90),
            Self::Ask => (1, 1),
            Self::Ingress | Self::Isolation | Self::SiteDead => (90, 900),
            Self::Partition | Self::OneWay | Self::ApiDown | Self::PatroniGone => (5, 600),
            _ => (30, 900),
        };
        // Short and long ones alike: the middle of the range would hide both ends.
        let high = if dice.chance(500) { high } else { low + (high - low) / 5 };
        dice.between(low * 1_000, high * 1_000)
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// What.
    pub kind: Kind,
    /// Where.
    pub side: Side,
    /// From when.
    pub at: u64,
    /// Until when.
    pub until: u64,
    /// A number of its own for what else must be drawn.
    pub salt: u64,
}

/// When faults of an episode begin, counted from its start.
pub const FIRST_MS: u64 = 5 * 60_000;
/// When the last of them may begin.
pub const LAST_MS: u64 = 55 * 60_000;
/// When all of them have been mended.
pub const MENDED_MS: u64 = 75 * 60_000;

/// All faults of a plan, in order of their beginning.
pub fn schedule(plan: &Plan) -> Vec<Strike> {
    let mut dice = Dice::new(plan.seed, "nemesis");
    let mut strikes = Vec::new();
    for episode in 0..plan.episodes {
        let start = episode * EPISODE_MS;
        match plan.scenario {
            Scenario::Nemesis => nemesis(start, &mut dice, &mut strikes),
            Scenario::Sensors => flaps(start, &mut dice, &mut strikes),
            Scenario::Outages => outage(start, &mut dice, &mut strikes),
        }
    }
    strikes.sort_by_key(|strike| (strike.at, strike.salt));
    strikes
}

fn nemesis(start: u64, dice: &mut Dice, strikes: &mut Vec<Strike>) {
    // Faults come in bursts: what breaks together finds more than what breaks alone.
    let centre = dice.between(FIRST_MS, LAST_MS);
    for _ in 0..dice.between(3, 5) {
        let kind = Kind::draw(dice);
        let near = dice.chance(600);
        let offset = if near { centre + dice.between(0, 240_000) } else { dice.between(FIRST_MS, LAST_MS) };
        let at = start + offset.min(LAST_MS);
        let until = (at + kind.lasts(dice)).min(start + MENDED_MS);
        let site = matches!(kind, Kind::Ingress | Kind::Isolation | Kind::SiteDead);
        let side = if dice.chance(500) || site { Side::Active } else { Side::Passive };
        strikes.push(Strike { kind, side, at, until, salt: dice.between(0, u64::MAX - 2) });
    }
}

fn flaps(start: u64, dice: &mut Dice, strikes: &mut Vec<Strike>) {
    for _ in 0..dice.between(4, 8) {
        let at = start + dice.between(FIRST_MS, EPISODE_MS - FIRST_MS);
        let until = at + dice.between(1_000, 30_000);
        strikes.push(Strike {
            kind: Kind::Flap,
            side: Side::Active,
            at,
            until,
            salt: dice.between(0, 1 << 60),
        });
    }
}

fn outage(start: u64, dice: &mut Dice, strikes: &mut Vec<Strike>) {
    let kind = *dice.pick(&[Kind::Ingress, Kind::Isolation, Kind::SiteDead]);
    let at = start + dice.between(FIRST_MS, LAST_MS);
    let until = at + dice.between(180_000, 900_000);
    strikes.push(Strike { kind, side: Side::Active, at, until, salt: dice.between(0, 1 << 60) });
}
