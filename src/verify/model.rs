//! The world that the checker explores: two sides, the network between them, faults and requests within a budget.
//!
//! A [`World`] is small: its sides are numbers of [`Store`]. Time has no bound, see [`super::clockwork`].

use super::face::{Call, Face, Promoter};
use super::part::{Answer, BASE_MS, Part, Setting};
use super::stage::Canonical;
use super::store::{Op, Stage, Store};
use crate::model::{Mono, PeerLink, Side};

/// How far a wall clock jumps: more than a consent lasts.
pub const SKEW_MS: i32 = 60_000;

/// What may happen besides the normal course, and how often on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Failed, lost, repeated, late or hanging calls and messages, crashes, cuts, lying resolvers, clock jumps,
    /// failing pipelines.
    pub faults: u8,
    /// Requests of operators that change something.
    pub requests: u8,
    /// Clients' writes.
    pub writes: u8,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// A call is carried out and answered.
    Carry(Side, u8),
    /// A call fails and does nothing.
    Fail(Side, u8),
    /// A call is carried out (a message delivered), but its answer is an error.
    LoseAnswer(Side, u8),
    /// A call is carried out (or not) and never answered.
    Hang(Side, u8, bool),
    /// A call stays under way while time goes on, within its limit.
    Delay(Side, u8),
    /// A message is acknowledged now and delivered once more, late.
    KeepCopy(Side, u8),
    /// A late copy of a message arrives at this side.
    HearCopy(Side),
    /// The agent dies; one of its calls may take effect all the same.
    Crash(Side, Option<u8>),
    /// The agent starts again with its journal.
    Start(Side),
    /// The way from this side to the other is cut.
    Cut(Side),
    /// The way from this side to the witness is cut.
    Blind(Side),
    /// All ways work again.
    Heal,
    /// A round of look-ups at one side, or at both.
    Dns(Option<Side>, Answer),
    /// An operator asks.
    Ask(Side, u8),
    /// A client's write is acknowledged here.
    Write(Side),
    /// The pipeline run under way here will fail.
    FailRun(Side),
    /// The wall clock of this side jumps forward (or back to true).
    Skew(Side, bool),
    /// Time goes on to the next deadline; everybody looks again.
    Time,
    /// The same while calls are still under way.
    Slow,
}

/// A state of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    /// Numbers of both sides in the store.
    pub parts: [u32; 2],
    /// What is left.
    pub left: Bounds,
    /// Ways that are cut, agents that are down, and what the path has seen.
    pub flags: u8,
    /// There is a witness.
    pub witnessed: bool,
    /// The witness's lease: milliseconds left and side, see [`World::holder`].
    pub lease: u32,
}

/// The way from a side is cut.
pub fn cut(side: Side) -> u8 {
    1 << side as u8
}
/// The agent of a side is down.
pub fn down(side: Side) -> u8 {
    4 << side as u8
}
/// A promotion went on although the other site could not be seen fenced, as a person or the mode accepts.
pub const EXCUSED: u8 = 16;
/// A person asked for a transition.
pub const ASKED: u8 = 32;
/// The way from a side to the witness is cut.
pub fn blind(side: Side) -> u8 {
    64 << side as u8
}

/// Every way that may be cut.
pub(super) const CUTS: u8 = 0b1100_0011;

/// Something that happened to one side during a move.
#[derive(Debug, Clone, Copy)]
pub struct Acted {
    /// The side.
    pub side: Side,
    /// Its part before.
    pub before: u32,
    /// What happened.
    pub op: Op,
    /// What was judged.
    pub judged: u32,
}

impl World {
    /// A normal day: both agents have seen their sites and each other.
    pub fn new(store: &Store, bounds: Bounds) -> Self {
        let quiet = |side: Side| !store.setting.policies[side as usize].automation.acts_alone();
        let part = |side: Side| {
            let mut part = Part::new(side, &store.setting);
            part.past.quiet = quiet(side);
            store.make_canonical(&mut part, Mono(BASE_MS));
            store.keep(part)
        };
        let witnessed = store.setting.policies[0].safety.witness;
        let mut world = Self { parts: Side::ALL.map(part), left: bounds, flags: 0, witnessed, lease: 0 };
        let mut acted = Vec::new();
        for step in [Move::Time, Move::Dns(None, Answer::Active), Move::Time] {
            world = world.after(store, step, &mut acted);
            world = world.calm(store, 200).0;
        }
        world.left = bounds;
        world
    }

    /// What others see of a side.
    pub fn face<'a>(&self, store: &'a Store, side: Side) -> &'a Face {
        store.face(self.parts[side as usize])
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Lets everything that needs no fault and no person happen, in a fixed fair order, until nothing changes.
    /// Gives the world and whether it came to rest within `most` moves.
    pub fn calm(mut self, store: &Store, most: usize) -> (Self, bool) {
        let mut acted = Vec::new();
        for _ in 0..most {
            let step = self.fair_move(store);
            acted.clear();
            let next = self.after(store, step, &mut acted);
            if next == self && step == Move::Time {
                return (self, true);
            }
            self = next;
        }
        (self, false)
    }

    /// The state after a move; what happened to the sides is added to `acted`.
    pub fn after(&self, store: &Store, step: Move, acted: &mut Vec<Acted>) -> Self {
        let mut world = *self;
        let mut stage = Canonical { store, parts: self.parts, acted: std::mem::take(acted) };
        world.play(&mut stage, step);
        world.parts = stage.parts;
        *acted = stage.acted;
        if let (Move::Ask(..), true) = (step, world.parts == self.parts) {
            // A refused request that changes nothing costs nothing.
            world.left = self.left;
        }
        if acted.iter().any(|one| store.judged(one.judged).accepted) {
            world.flags |= ASKED;
        }
        let faces = Side::ALL.map(|side| world.face(store, side));
        let few = !(faces[0].writable && faces[1].writable);
        let one_phase = faces[0].phase == faces[1].phase;
        if few
            && one_phase
            && faces.iter().all(|face| !face.promoting && !face.rest.runs && face.calls.is_empty())
        {
            // Whatever a person or the mode accepted is over.
            world.flags &= !EXCUSED;
        }
        world
    }

    /// A move on any stage. The parts of `self` are not used: the stage has them.
    pub fn play(&mut self, stage: &mut dyn Stage, step: Move) {
        match step {
            Move::Fail(..)
            | Move::LoseAnswer(..)
            | Move::Hang(..)
            | Move::Delay(..)
            | Move::KeepCopy(..)
            | Move::Crash(..)
            | Move::Cut(_)
            | Move::Blind(_)
            | Move::FailRun(_)
            | Move::Skew(..)
            | Move::Slow
            | Move::Dns(_, Answer::Passive | Answer::OneLies | Answer::Silence) => self.left.faults -= 1,
            Move::Ask(..) => self.left.requests -= 1,
            Move::Write(_) => self.left.writes -= 1,
            Move::Carry(..)
            | Move::HearCopy(_)
            | Move::Start(_)
            | Move::Heal
            | Move::Time
            | Move::Dns(_, Answer::Active) => {}
        }
        match step {
            Move::Carry(side, index) => self.carry(stage, side, index, true),
            Move::LoseAnswer(side, index) => self.carry(stage, side, index, false),
            Move::Fail(side, index) => stage.act(side, Op::Fail(index)),
            Move::Hang(side, index, applied) => {
                self.excuse_call(stage, side, index);
                stage.act(side, Op::Hang(index, applied));
            }
            Move::Delay(side, index) => stage.act(side, Op::Delay(index)),
            Move::KeepCopy(side, index) => {
                if let Some(Call::Letter(letter)) = stage.face(side).calls.get(usize::from(index)).copied() {
                    stage.act(side.other(), Op::Keep(letter));
                }
                self.carry(stage, side, index, true);
            }
            Move::HearCopy(side) => stage.act(side, Op::HearCopy),
            Move::Crash(side, applied) => {
                if let Some(index) = applied {
                    self.excuse_call(stage, side, index);
                }
                self.flags |= down(side);
                stage.act(side, Op::Crash(applied));
            }
            Move::Start(side) => {
                self.flags &= !down(side);
                stage.act(side, Op::Start);
            }
            Move::Blind(side) => self.flags |= blind(side),
            Move::Cut(side) => self.flags |= cut(side),
            Move::Heal => self.flags &= !CUTS,
            Move::Dns(Some(side), answer) => stage.act(side, Op::Dns(answer)),
            Move::Dns(None, answer) => {
                for side in Side::ALL.into_iter().filter(|side| !self.has(down(*side))) {
                    stage.act(side, Op::Dns(answer));
                }
            }
            Move::Ask(side, index) => stage.act(side, Op::Ask(index)),
            Move::Write(side) => stage.act(side, Op::Write),
            Move::FailRun(side) => stage.act(side, Op::FailRun),
            Move::Skew(side, ahead) => stage.act(side, Op::Skew(if ahead { SKEW_MS } else { 0 })),
            Move::Time | Move::Slow => self.pass_time(stage),
        }
    }

    fn carry(&mut self, stage: &mut dyn Stage, side: Side, index: u8, answered: bool) {
        let Some(call) = stage.face(side).calls.get(usize::from(index)).copied() else { return };
        let other = side.other();
        match call {
            Call::Letter(_) if self.has(cut(side) | down(other)) => {
                stage.act(side, Op::Delivered(index, false));
            }
            Call::Letter(letter) => {
                stage.act(other, Op::Hear(letter));
                stage.act(side, Op::Delivered(index, answered && !self.has(cut(other))));
            }
            Call::Promote => {
                self.excuse(stage, side);
                stage.act(side, Op::Carry(index, answered));
            }
            Call::Delete { .. } | Call::Plain => stage.act(side, Op::Carry(index, answered)),
        }
    }

    fn excuse_call(&mut self, stage: &dyn Stage, side: Side, index: u8) {
        if stage.face(side).calls.get(usize::from(index)) == Some(&Call::Promote) {
            self.excuse(stage, side);
        }
    }

    /// Whether the assumptions take this promotion out of what `one-writer` promises.
    fn excuse(&mut self, stage: &dyn Stage, side: Side) {
        let (here, there) = (stage.face(side), stage.face(side.other()));
        // A3: nobody can fence a site that nobody can reach, unless it fences itself.
        let unreachable = here.link == PeerLink::Down && !here.self_fencing;
        // A1 and A2: its agent is dead, or its fence takes longer than the grace.
        let cannot_fence = here.self_fencing && (self.has(down(side.other())) || there.fencing);
        // A6: a person's failover goes on after its wait, and force does not wait.
        let by_person = here.promoter == Promoter::Person && here.waited_out;
        let takes_back = there.promoter == Promoter::Consent && there.rest.runs;
        let serves = there.writable || there.promoting || takes_back || there.calls.contains(&Call::Promote);
        let forced = here.promoter == Promoter::Force || there.promoter == Promoter::Force;
        if forced || serves && (unreachable || cannot_fence || by_person) {
            self.flags |= EXCUSED;
        }
    }
}

/// A store and its first world.
pub fn begin(setting: Setting, bounds: Bounds) -> (Store, World) {
    let store = Store::new(setting);
    let world = World::new(&store, bounds);
    (store, world)
}
