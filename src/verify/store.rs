//! Every distinct part once, and every step of a part once: what makes ten million worlds cheap.
//!
//! A world is two numbers of parts and a few counters. What the engine does when something is given to a part depends on
//! that part alone, so it is computed once and remembered. Parts are compared whole, not by a fingerprint: two worlds
//! that are one here are equal, not probably equal.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Mutex;

use super::canon::canonical;
use super::face::{Face, Names};
use super::invariants::{self, Judged};
use super::part::{BASE_MS, Given, Letter, Part, Past, Setting};
use super::site::Site;
use super::table::Table;
pub use super::table::{QuickBuild, lock};
use crate::model::{Action, Command, Mono, OutboxId, PatroniSample, PeerStatus, RecordSeen, Side};
use crate::rules::automation::AutomationMemory;
use crate::rules::lease::LeaseMemory;
use crate::rules::pipeline::Pipeline;
use crate::rules::sensors::SensorMemory;
use crate::rules::state::{Ask, Grant, Lane, Outgoing, Peer, Run, StepRun};

const SHARDS: usize = 64;

/// A part with what the world needs to know of it. Both are kept once for all parts that share them.
struct Held {
    /// Numbers of the rest of the part, its talk, place and memory, its run and the steps of its run.
    pieces: [u32; 6],
    /// Number of what others see of it.
    face: u32,
}

/// What a part has to do with the other site.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Talk {
    peer: Peer,
    outbox: Vec<Outgoing>,
    handled: BTreeMap<String, OutboxId>,
    ask: Option<Ask>,
    grant: Option<Grant>,
    copy: Option<Letter>,
}

/// What a part has to do with its own site.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    site: Site,
    calls: Vec<Command>,
    record: RecordSeen,
    patroni: Option<(PatroniSample, Mono)>,
    chores: Lane,
    beside: Vec<StepRun>,
}

/// What a part remembers of what was before.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Memory {
    pipeline: Pipeline,
    automation: AutomationMemory,
    sensors: SensorMemory,
    lease: LeaseMemory,
    past: Past,
}

/// What is given to a part, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`Given::Carry`].
    Carry(u8, bool),
    /// [`Given::Fail`].
    Fail(u8),
    /// [`Given::Hang`].
    Hang(u8, bool),
    /// [`Given::Delay`].
    Delay(u8),
    /// [`Given::Delivered`].
    Delivered(u8, bool),
    /// [`Given::Hear`].
    Hear(u32),
    /// [`Given::Keep`].
    Keep(u32),
    /// [`Given::HearCopy`].
    HearCopy,
    /// [`Given::Crash`].
    Crash(Option<u8>),
    /// [`Given::Start`].
    Start,
    /// [`Given::Observe`].
    Observe,
    /// [`Given::Witness`].
    Witness(Option<crate::model::LeaseHolder>),
    /// [`Given::Status`].
    Status(u32),
    /// [`Given::Lost`].
    Lost,
    /// [`Given::Pass`], with the milliseconds.
    Pass(u32),
    /// [`Given::Tick`].
    Tick,
    /// [`Given::Follow`].
    Follow(u16, u16),
    /// [`Given::Write`].
    Write,
    /// [`Given::Dns`].
    Dns(super::part::Answer),
    /// [`Given::Ask`].
    Ask(u8),
    /// [`Given::FailRun`].
    FailRun,
    /// [`Given::Skew`].
    Skew(i32),
}

/// What became of a part.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// The part afterwards.
    pub part: u32,
    /// What the engine said, judged; a number of [`Store::judged`].
    pub judged: u32,
}

type Memo = Mutex<HashMap<(u32, Op), Reply, QuickBuild>>;

/// All parts, letters and steps of one search.
pub struct Store {
    /// What the search is about.
    pub setting: Setting,
    parts: Table<Held>,
    faces: Table<Face>,
    letters: Table<Letter>,
    statuses: Table<PeerStatus>,
    judged: Table<Judged>,
    rests: Table<Part>,
    talks: Table<Talk>,
    places: Table<Place>,
    memories: Table<Memory>,
    runs: Table<Option<Run>>,
    steps: Table<Vec<StepRun>>,
    memo: Vec<Memo>,
}

impl Names for Store {
    fn letter(&self, letter: &Letter) -> u32 {
        self.letters.number(letter, |known| known == letter, || letter.clone())
    }
    fn status(&self, status: &PeerStatus) -> u32 {
        self.statuses.number(status, |known| known == status, || status.clone())
    }
}

impl Store {
    /// An empty store.
    pub fn new(setting: Setting) -> Self {
        Self {
            setting,
            parts: Table::default(),
            faces: Table::default(),
            letters: Table::default(),
            statuses: Table::default(),
            judged: Table::default(),
            rests: Table::default(),
            talks: Table::default(),
            places: Table::default(),
            memories: Table::default(),
            runs: Table::default(),
            steps: Table::default(),
            memo: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// The number of a part that stands at [`BASE_MS`].
    pub fn keep(&self, part: Part) -> u32 {
        let pieces = self.take_apart(part.clone());
        let complete = || {
            let face = Face::of(&self.setting, &part, Mono(BASE_MS), self);
            Held { pieces, face: self.faces.intern(face) }
        };
        self.parts.number(&pieces, |held| held.pieces == pieces, complete)
    }

    fn take_apart(&self, mut part: Part) -> [u32; 6] {
        let state = &mut part.state;
        let steps = state.run.as_mut().map(|run| std::mem::take(&mut run.lane.steps)).unwrap_or_default();
        let run = state.run.take();
        let talk = Talk {
            peer: std::mem::take(&mut state.peer),
            outbox: std::mem::take(&mut state.outbox),
            handled: std::mem::take(&mut state.handled),
            ask: state.ask.take(),
            grant: state.grant.take(),
            copy: part.copy.take(),
        };
        let place = Place {
            site: std::mem::replace(&mut part.site, Site::new(part.side)),
            calls: std::mem::take(&mut part.calls),
            record: std::mem::replace(&mut state.record, RecordSeen::Missing),
            patroni: state.patroni.take(),
            chores: std::mem::take(&mut state.chores),
            beside: std::mem::take(&mut state.beside),
        };
        let memory = Memory {
            pipeline: std::mem::take(&mut state.pipeline),
            automation: std::mem::take(&mut state.automation),
            sensors: std::mem::take(&mut state.sensors),
            lease: std::mem::take(&mut state.lease),
            past: std::mem::take(&mut part.past),
        };
        [
            self.rests.intern(part),
            self.talks.intern(talk),
            self.places.intern(place),
            self.memories.intern(memory),
            self.runs.intern(run),
            self.steps.intern(steps),
        ]
    }

    fn put_together(&self, [rest, talk, place, memory, run, steps]: [u32; 6]) -> Part {
        let mut part = self.rests.get(rest).clone();
        let (talk, place) = (self.talks.get(talk).clone(), self.places.get(place).clone());
        let memory = self.memories.get(memory).clone();
        let state = &mut part.state;
        state.run.clone_from(self.runs.get(run));
        if let Some(run) = &mut state.run {
            run.lane.steps.clone_from(self.steps.get(steps));
        }
        (state.peer, state.outbox, state.handled) = (talk.peer, talk.outbox, talk.handled);
        (state.ask, state.grant, part.copy) = (talk.ask, talk.grant, talk.copy);
        (part.site, part.calls, state.record) = (place.site, place.calls, place.record);
        (state.patroni, state.chores, state.beside) = (place.patroni, place.chores, place.beside);
        (state.pipeline, state.automation, state.sensors) =
            (memory.pipeline, memory.automation, memory.sensors);
        (state.lease, part.past) = (memory.lease, memory.past);
        part
    }

    /// A part as others see it.
    pub fn face(&self, id: u32) -> &Face {
        self.faces.get(self.parts.get(id).face)
    }

    /// A part, whole.
    pub fn whole(&self, id: u32) -> Part {
        self.put_together(self.parts.get(id).pieces)
    }

    /// Distinct parts, and steps computed.
    pub fn sizes(&self) -> (usize, usize) {
        (self.parts.len(), self.memo.iter().map(|memo| lock(memo).len()).sum())
    }

    /// What was judged about a step.
    pub fn judged(&self, id: u32) -> &Judged {
        self.judged.get(id)
    }

    /// A letter.
    pub fn letter_of(&self, id: u32) -> &Letter {
        self.letters.get(id)
    }

    /// What happens to a part; computed once.
    pub fn reply(&self, part: u32, op: Op) -> Reply {
        let key = (part, op);
        let mark = QuickBuild::default().hash_one(key);
        let shard = &self.memo[(mark >> 58) as usize % SHARDS];
        if let Some(reply) = lock(shard).get(&key) {
            return *reply;
        }
        let (mut after, _, judged) = self.compute(&self.whole(part), op, Mono(BASE_MS));
        self.make_canonical(&mut after, at(op, Mono(BASE_MS)));
        let judged = self.judged.number(&judged, |known| *known == judged, || judged.clone());
        let reply = Reply { part: self.keep(after), judged };
        lock(shard).insert(key, reply);
        reply
    }

    /// The same without remembering, in words.
    pub fn explain(&self, part: u32, op: Op) -> Vec<Action> {
        self.compute(&self.whole(part), op, Mono(BASE_MS)).1
    }

    /// One step of a part at any moment, without canonical form.
    pub fn compute(&self, before: &Part, op: Op, now: Mono) -> (Part, Vec<Action>, Judged) {
        let (mut after, given, now) = (before.clone(), self.given(op), at(op, now));
        let said = after.step(&self.setting, &given, now);
        let judged = invariants::judge_part(before, (op, &given, now), &said, &mut after);
        (after, said, judged)
    }

    /// Canonical form at a moment.
    pub fn make_canonical(&self, part: &mut Part, now: Mono) {
        canonical(part, &self.setting.policies[part.side as usize], now);
    }

    fn given(&self, op: Op) -> Given {
        match op {
            Op::Carry(index, answered) => Given::Carry(index, answered),
            Op::Fail(index) => Given::Fail(index),
            Op::Hang(index, applied) => Given::Hang(index, applied),
            Op::Delay(index) => Given::Delay(index),
            Op::Delivered(index, acknowledged) => Given::Delivered(index, acknowledged),
            Op::Hear(letter) => Given::Hear(self.letters.get(letter).clone()),
            Op::Keep(letter) => Given::Keep(self.letters.get(letter).clone()),
            Op::HearCopy => Given::HearCopy,
            Op::Crash(applied) => Given::Crash(applied),
            Op::Start => Given::Start,
            Op::Observe => Given::Observe,
            Op::Witness(holder) => Given::Witness(holder),
            Op::Status(status) => Given::Status(self.statuses.get(status).clone()),
            Op::Lost => Given::Lost,
            Op::Pass(ms) => Given::Pass(u64::from(ms)),
            Op::Tick => Given::Tick,
            Op::Follow(timeline, lsn) => Given::Follow(u64::from(timeline), u64::from(lsn)),
            Op::Write => Given::Write,
            Op::Dns(answer) => Given::Dns(answer),
            Op::Ask(index) => Given::Ask(index),
            Op::FailRun => Given::FailRun,
            Op::Skew(ms) => Given::Skew(i64::from(ms)),
        }
    }
}

/// The moment after an operation that began at `now`.
pub fn at(op: Op, now: Mono) -> Mono {
    match op {
        Op::Pass(ms) => now.plus(u64::from(ms)),
        _ => now,
    }
}

/// The parts of a side that search and replay have in common.
pub trait Stage {
    /// What others see of a side.
    fn face(&self, side: Side) -> std::borrow::Cow<'_, Face>;
    /// Something happens to a side.
    fn act(&mut self, side: Side, op: Op);
}
