//! The simulated world: two sites, the line between them, the load balancer, clients that write, and the history.
//!
//! One lock holds all of it; every look first brings it up to now, so that nothing depends on who looks. It moves in
//! steps of [`STEP_MS`] while something changes and rests otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::dice::Dice;
use super::history::{Fact, History};
use super::plan::{Plan, Planted};
use super::site::SimSite;
use crate::lab::peer_view::SourceFacts;
use crate::model::{Mono, Side, Wall};
use crate::verify::witness::SimulatedWitness;

/// Wall clock at the beginning, 2026-01-01.
pub const EPOCH: Wall = Wall(1_767_225_600_000);
/// Milliseconds between two steps while something changes, and between two writes of a client then.
pub const STEP_MS: u64 = 200;
/// The same while nothing does.
pub const REST_MS: u64 = 10_000;
/// How long the world moves in small steps after a change.
const TAIL_MS: u64 = 15_000;

/// The line between the sites.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// Nothing goes from the active to the passive site.
    pub from_active: bool,
    /// Nothing goes from the passive to the active site.
    pub from_passive: bool,
    /// Replication is cut although the agents can talk.
    pub replication: bool,
    /// Added to every frame, in milliseconds.
    pub delay: u64,
    /// Thousandths of frames that are lost.
    pub loss: u64,
    /// Thousandths of messages that come a second time, much later.
    pub repeat: u64,
}

impl Line {
    /// Whether frames from this side arrive.
    pub fn carries(&self, from: Side) -> bool {
        !match from {
            Side::Active => self.from_active,
            Side::Passive => self.from_passive,
        }
    }
}

/// What a watch waits for; each has one waiter, so that the order of waking is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bell {
    /// The record.
    Record,
    /// The pipeline runs.
    Runs,
}

type Bells = Arc<[[Arc<Notify>; 2]; 2]>;

/// Everything that changes.
pub struct World {
    /// Both sites.
    pub sites: [SimSite; 2],
    /// The line between them.
    pub line: Line,
    /// Whether each agent runs and is not stalled.
    pub awake: [bool; 2],
    /// The load balancer answers with the passive site until this moment.
    pub flap_until: u64,
    /// What happened.
    pub history: History,
    /// Now, in milliseconds since the beginning.
    pub now: u64,
    /// Thousandths of looks that fail, at every sensor.
    pub sensor_loss: u64,
    /// The witness.
    pub witness: SimulatedWitness,
    planted: Planted,
    sources: [Option<(u64, SourceFacts)>; 2],
    writable: [bool; 2],
    last_writer: Option<Side>,
    line_on: bool,
    traffic: Option<Side>,
    busy_until: u64,
    acknowledged: BTreeMap<u64, u64>,
    next_row: u64,
    versions: [u64; 2],
    bells: Bells,
    dice: Dice,
}

/// The world as its tasks share it.
#[derive(Clone)]
pub struct Shared {
    start: Instant,
    world: Arc<Mutex<World>>,
    bells: Bells,
    /// What is simulated.
    pub plan: Arc<Plan>,
}

impl Shared {
    /// A world on a normal day.
    pub fn new(plan: Plan) -> Self {
        let bells: Bells = Arc::default();
        let world = World {
            sites: Side::ALL.map(SimSite::new),
            line: Line::default(),
            awake: [false; 2],
            flap_until: 0,
            history: History::default(),
            now: 0,
            sensor_loss: 0,
            witness: SimulatedWitness::default(),
            planted: plan.planted,
            sources: [None, None],
            writable: [false; 2],
            last_writer: None,
            line_on: false,
            traffic: None,
            busy_until: TAIL_MS,
            acknowledged: BTreeMap::new(),
            next_row: 1,
            versions: [0; 2],
            bells: Arc::clone(&bells),
            dice: Dice::new(plan.seed, "world"),
        };
        Self { start: Instant::now(), world: Arc::new(Mutex::new(world)), bells, plan: Arc::new(plan) }
    }

    /// The bell of a watch.
    pub fn bell(&self, side: Side, bell: Bell) -> Arc<Notify> {
        Arc::clone(&self.bells[side as usize][bell as usize])
    }

    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When it began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The world, brought up to now.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.catch_up(self.now());
        world
    }

    /// Lets the world go on by itself; never ends.
    pub async fn turn(self) {
        loop {
            let wait = {
                let world = self.lock();
                if world.is_busy() { STEP_MS } else { REST_MS }
            };
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        }
    }
}

impl World {
    /// A site.
    pub fn site(&mut self, side: Side) -> &mut SimSite {
        &mut self.sites[side as usize]
    }

    /// The same, only to look at.
    pub fn look(&self, side: Side) -> &SimSite {
        &self.sites[side as usize]
    }

    /// Adds a fact.
    pub fn note(&mut self, fact: Fact) {
        self.history.add(self.now, fact);
    }

    /// Something was changed from outside: the world moves in small steps for a while.
    pub fn touch(&mut self) {
        self.busy_until = self.now + TAIL_MS;
        self.step();
        self.bells.iter().flatten().for_each(|bell| bell.notify_one());
    }

    fn is_busy(&self) -> bool {
        self.now < self.busy_until
    }

    /// Chance of the world.
    pub fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    fn catch_up(&mut self, now: u64) {
        let pace = if self.is_busy() { STEP_MS } else { REST_MS };
        let due = self.now - self.now % pace + pace;
        if now < due {
            // Between two steps nothing changes; what is noted now is noted at this moment.
            self.now = now;
            return;
        }
        self.now = now;
        self.step();
    }

    /// One step: databases, pipelines, clients, and what of it is a fact.
    fn step(&mut self) {
        let now = self.now;
        for side in Side::ALL {
            let source = self.source_of(side);
            self.sites[side as usize].advance(now, source.as_ref());
        }
        if self.planted == Planted::RogueStandby && now > 3_600_000 && !self.writable[1] {
            let none = serde_json::json!({"standby_cluster": null});
            self.sites[1].database.patch_config(&none);
        }
        self.ring();
        self.note_roles();
        self.write_rows();
        self.note_surroundings();
        if self.sites.iter().any(SimSite::is_moving) {
            self.busy_until = self.busy_until.max(now + STEP_MS);
        }
    }

    fn ring(&mut self) {
        for side in Side::ALL {
            let (site, bells) = (&self.sites[side as usize], &self.bells[side as usize]);
            if std::mem::replace(&mut self.versions[side as usize], site.version) != site.version {
                bells[Bell::Record as usize].notify_one();
            }
            if site.has_run_news() {
                bells[Bell::Runs as usize].notify_one();
            }
        }
    }

    /// What the standby of a side sees of the other database: late by the lag while that one takes writes. One that
    /// ceases to take writes hands over all it has first, as PostgreSQL does on a clean shutdown.
    fn source_of(&mut self, side: Side) -> Option<SourceFacts> {
        let other = side.other();
        let cut = self.planted == Planted::Stuck
            || self.line.from_active
            || self.line.from_passive
            || self.line.replication;
        let source = if cut { None } else { self.look(other).database.as_source() };
        let lag = self.look(other).broken.lag;
        let kept = &mut self.sources[side as usize];
        let Some(fresh) = source else {
            *kept = None;
            return None;
        };
        let late = kept.as_ref().is_some_and(|(at, _)| self.now < at + lag) && fresh.writable;
        if !late {
            *kept = Some((self.now, fresh));
        }
        kept.as_ref().map(|(_, facts)| facts.clone())
    }

    fn note_roles(&mut self) {
        for side in Side::ALL {
            let on = self.look(side).database.writable();
            if std::mem::replace(&mut self.writable[side as usize], on) == on {
                continue;
            }
            // An election that ends where it began moves nothing.
            if on && self.last_writer.replace(side) == Some(side.other()) {
                self.note_promotion(side);
            }
            self.note(Fact::Writable { side, on });
        }
    }

    fn note_promotion(&mut self, side: Side) {
        let rows: BTreeSet<u64> = self
            .look(side)
            .database
            .leader_data()
            .map(|data| data.rows.iter().copied().collect())
            .unwrap_or_default();
        // Only what the other database still has can be lost by this move; what went with a copy that was wiped
        // before is counted at the end of the episode.
        let other: BTreeSet<u64> = self
            .look(side.other())
            .database
            .volumes
            .values()
            .flat_map(|data| data.rows.iter().copied().collect::<Vec<_>>())
            .collect();
        let (mut missing, mut oldest) = (0, self.now);
        // What is missing here is charged to this promotion, not to a later one again.
        self.acknowledged.retain(|row, at| {
            let kept = rows.contains(row) || !other.contains(row);
            if !kept {
                (missing, oldest) = (missing + 1, oldest.min(*at));
            }
            kept
        });
        let oldest_ms = self.now - oldest;
        self.note(Fact::Promoted { side, missing, oldest_ms });
    }

    /// Clients write wherever they are served; some still go to the site that was left.
    fn write_rows(&mut self) {
        for side in Side::ALL {
            let row = self.next_row;
            let site = self.site(side);
            if site.serves() && site.database.write(row) {
                self.acknowledged.insert(row, self.now);
                self.next_row += 1;
            }
        }
    }

    /// Whether the two agents can talk: both ways, both awake.
    pub fn can_talk(&self) -> bool {
        self.awake == [true; 2] && !self.line.from_active && !self.line.from_passive
    }

    /// Whether the agents can talk and the databases replicate.
    pub fn is_connected(&self) -> bool {
        self.can_talk()
            && self.line.loss == 0
            && !self.line.replication
            && self.sites.iter().all(|site| !site.broken.database)
    }

    /// Where the load balancer sends clients.
    pub fn traffic(&self) -> Option<Side> {
        if self.now < self.flap_until {
            return Some(Side::Passive);
        }
        Side::ALL.into_iter().find(|side| self.look(*side).health > 0 && !self.look(*side).broken.outside)
    }

    fn note_surroundings(&mut self) {
        let (line, traffic) = (self.can_talk(), self.traffic());
        if std::mem::replace(&mut self.line_on, line) != line {
            self.note(Fact::Line { on: line });
        }
        if std::mem::replace(&mut self.traffic, traffic) != traffic {
            self.note(Fact::Traffic { to: traffic });
        }
    }

    /// Forgets rows that every copy has; says which acknowledged ones the serving database lacks for ever.
    pub fn settle_rows(&mut self, serving: Side) {
        let rows: BTreeSet<u64> = self
            .look(serving)
            .database
            .leader_data()
            .map(|data| data.rows.iter().copied().collect())
            .unwrap_or_default();
        let lost = self.acknowledged.keys().filter(|row| !rows.contains(row)).count();
        if lost > 0 {
            self.note(Fact::Lost { rows: lost });
        }
        self.acknowledged.clear();
        for site in &mut self.sites {
            for data in site.database.volumes.values_mut() {
                data.rows = Arc::default();
            }
        }
        self.sources = [None, None];
    }

    /// Both counts of time by a true clock.
    pub fn true_now(&self) -> (Mono, Wall) {
        (Mono(self.now), Wall(EPOCH.0 + self.now))
    }
}
