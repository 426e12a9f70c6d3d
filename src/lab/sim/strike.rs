//! How each fault is brought about and mended again.

use super::agent::SimAgent;
use super::history::Fact;
use super::nemesis::{Kind, Strike};
use super::world::{Shared, World};
use crate::model::{Side, Transition};

/// What a strike leaves to be done later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aftermath {
    /// Nothing.
    Nothing,
    /// A person asks for this.
    Ask(Transition),
}

const ASKED: [Transition; 5] = [
    Transition::GolddrPrimary,
    Transition::GolddrPrimary,
    Transition::GoldStandby,
    Transition::ActivePassive,
    Transition::TestPingPong,
];

/// Breaks something.
pub fn begin(strike: &Strike, shared: &Shared, agents: &mut [SimAgent; 2]) -> Aftermath {
    let agent = &mut agents[strike.side as usize];
    let lasts = strike.until - strike.at;
    match strike.kind {
        Kind::Stall => agent.stall(lasts),
        Kind::Crash => agent.crash(),
        Kind::TornCrash => {
            agent.crash();
            let torn = agent.disk.tear();
            debug_assert!(torn.is_ok(), "the folder of the journal is ours");
        }
        Kind::SiteDead => agents[Side::Active as usize].crash(),
        Kind::ClockStep => {
            let ms = i64::try_from(strike.salt % 1_200_001).unwrap_or(0) - 600_000;
            agent.wall.step(ms);
        }
        Kind::DiskFull => agent.disk.set_full(true),
        Kind::DiskSlow => agent.disk.set_slow(200 + strike.salt % 4_000),
        _ => {}
    }
    let mut world = shared.lock();
    world.note(Fact::Broken { kind: strike.kind, side: strike.side, until: strike.until });
    break_world(strike, &mut world);
    world.touch();
    match strike.kind {
        Kind::Ask => Aftermath::Ask(ASKED[(strike.salt % ASKED.len() as u64) as usize]),
        _ => Aftermath::Nothing,
    }
}

fn break_world(strike: &Strike, world: &mut World) {
    let (side, salt) = (strike.side, strike.salt);
    match strike.kind {
        Kind::Partition => (world.line.from_active, world.line.from_passive) = (true, true),
        Kind::OneWay if side == Side::Active => world.line.from_active = true,
        Kind::OneWay => world.line.from_passive = true,
        Kind::Delay => world.line.delay = 500 + salt % 5_000,
        Kind::Loss => world.line.loss = 50 + salt % 400,
        Kind::Repeats => world.line.repeat = 500,
        Kind::ApiDown => world.site(side).broken.api_down = true,
        Kind::ApiSlow => world.site(side).broken.api_slow = 1_000 + salt % 20_000,
        Kind::ApiFlaky => world.site(side).broken.api_flaky = 100 + salt % 400,
        Kind::PatroniGone => world.site(side).broken.patroni = true,
        Kind::NoLeader => world.site(side).broken.no_leader = true,
        Kind::LyingResolver => world.site(side).broken.lying = 1,
        Kind::SilentResolvers => world.site(side).broken.silent = 1 + (salt % 3) as usize,
        Kind::Flap => world.flap_until = strike.until,
        Kind::FailingPipeline => world.site(side).broken.failing_runs = 1 + (salt % 3) as u32,
        Kind::HangingPipeline => world.site(side).broken.hanging_runs = true,
        Kind::Portal => world.site(side).broken.portal = true,
        Kind::Lag => world.site(side).broken.lag = 1_000 + salt % 20_000,
        Kind::ReplicationCut => world.line.replication = true,
        Kind::Edit => edit(side, salt, world),
        Kind::WitnessCut if side == Side::Active => world.witness.cut_active = true,
        Kind::WitnessCut => world.witness.cut_passive = true,
        Kind::Ingress => outage(world, true),
        Kind::Isolation => {
            world.witness.cut_active = true;
            (world.line.from_active, world.line.from_passive) = (true, true);
            outage(world, true);
        }
        Kind::SiteDead => {
            let broken = &mut world.site(Side::Active).broken;
            (broken.database, broken.api_down, broken.patroni) = (true, true, true);
            outage(world, true);
        }
        Kind::Stall
        | Kind::Crash
        | Kind::TornCrash
        | Kind::ClockStep
        | Kind::DiskFull
        | Kind::DiskSlow
        | Kind::Ask => {}
    }
}

/// Outages are the active site's: its ingress is what the load balancer looks at first.
fn outage(world: &mut World, on: bool) {
    world.site(Side::Active).broken.outside = on;
    world.note(Fact::Outage { side: Side::Active, on });
}

fn edit(side: Side, salt: u64, world: &mut World) {
    let (key, value) = match salt % 3 {
        0 => ("transition", "golddr-primry"),
        1 => ("maintenance", "yes"),
        _ => ("transition", "gold-standby"),
    };
    world.site(side).edit_record(key, value);
    let transition = (value == "gold-standby").then_some(Transition::GoldStandby);
    let words = format!("edits the record: {key}={value}");
    let connected = world.is_connected();
    world.note(Fact::Asked { side, transition, words, connected });
}

/// Mends it again. `true` = the agent must be started.
pub fn end(strike: &Strike, shared: &Shared, agents: &mut [SimAgent; 2]) -> bool {
    let agent = &mut agents[strike.side as usize];
    match strike.kind {
        Kind::ClockStep => agent.wall.step(0),
        Kind::DiskFull => agent.disk.set_full(false),
        Kind::DiskSlow => agent.disk.set_slow(0),
        _ => {}
    }
    let mut world = shared.lock();
    let side = strike.side;
    match strike.kind {
        Kind::Partition | Kind::OneWay => {
            (world.line.from_active, world.line.from_passive) = (false, false);
        }
        Kind::Delay => world.line.delay = 0,
        Kind::Loss => world.line.loss = 0,
        Kind::Repeats => world.line.repeat = 0,
        Kind::ApiDown => world.site(side).broken.api_down = false,
        Kind::ApiSlow => world.site(side).broken.api_slow = 0,
        Kind::ApiFlaky => world.site(side).broken.api_flaky = 0,
        Kind::PatroniGone => world.site(side).broken.patroni = false,
        Kind::NoLeader => world.site(side).broken.no_leader = false,
        Kind::LyingResolver => world.site(side).broken.lying = 0,
        Kind::SilentResolvers => world.site(side).broken.silent = 0,
        Kind::FailingPipeline => world.site(side).broken.failing_runs = 0,
        Kind::HangingPipeline => world.site(side).broken.hanging_runs = false,
        Kind::Portal => world.site(side).broken.portal = false,
        Kind::Lag => world.site(side).broken.lag = 0,
        Kind::ReplicationCut => world.line.replication = false,
        Kind::WitnessCut => (world.witness.cut_active, world.witness.cut_passive) = (false, false),
        Kind::Ingress => outage(&mut world, false),
        Kind::Isolation => {
            world.witness.cut_active = false;
            (world.line.from_active, world.line.from_passive) = (false, false);
            outage(&mut world, false);
        }
        Kind::SiteDead => {
            let broken = &mut world.site(Side::Active).broken;
            (broken.database, broken.api_down, broken.patroni) = (false, false, false);
            outage(&mut world, false);
        }
        Kind::Flap
        | Kind::Edit
        | Kind::Ask
        | Kind::Stall
        | Kind::Crash
        | Kind::TornCrash
        | Kind::ClockStep
        | Kind::DiskFull
        | Kind::DiskSlow => {}
    }
    world.touch();
    matches!(strike.kind, Kind::Crash | Kind::TornCrash | Kind::SiteDead)
}
