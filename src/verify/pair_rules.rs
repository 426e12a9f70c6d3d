//! The invariants of the pair: over a move of the world, and at rest.

use super::face::{Call, Face, Promoter};
use super::model::{ASKED, Acted, EXCUSED, Move, World};
use super::rule::Rule;
use super::site::Role;
use super::store::{Op, Store};
use crate::model::{Phase, Side};

/// Both sites may be read-only this long on the way to rest: a call that stops the database and never answers, the wait
/// for an unused consent, and a few retries.
pub const DEMOTED_MS: u64 = 900_000;

/// What a move showed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// The first invariant that it breaks.
    pub bad: Option<Rule>,
    /// Invariants whose premise held.
    pub exercised: u32,
}

impl Shown {
    fn check(&mut self, rule: Rule, premise: bool, holds: bool) {
        self.exercised |= u32::from(premise) << rule as u32;
        if premise && !holds && self.bad.is_none() {
            self.bad = Some(rule);
        }
    }
}

/// Judges a move; at rest, the world that it leads back to.
pub fn judge(store: &Store, before: &World, step: Move, after: &World, acted: &[Acted]) -> Shown {
    let mut shown = Shown::default();
    for one in acted {
        if let Some(rule) = store.judged(one.judged).bad {
            shown.bad = shown.bad.or(Some(rule));
        }
    }
    let was = Side::ALL.map(|side| before.face(store, side));
    let is = Side::ALL.map(|side| after.face(store, side));
    let rose = (0..2).any(|side| is[side].writable && !was[side].writable);
    let both = is[0].writable && is[1].writable && !after.has(EXCUSED);
    shown.check(Rule::OneWriter, rose && !after.has(EXCUSED) || both, !both);
    for one in acted {
        if let Some(Call::Delete { accepted: false }) = deleting(store, one) {
            let ours = store.face(one.before);
            let theirs = before.face(store, one.side.other());
            shown.check(Rule::Proof, true, is_proven(ours, theirs));
        }
    }
    for side in 0..2 {
        let (here, there) = (was[side], was[1 - side]);
        let promotes = is[side].writable && !here.writable && here.promoter == Promoter::Consent;
        shown.check(Rule::PlannedKeepsAll, promotes, !there.writable && there.lsn <= is[side].lsn);
    }
    if step == Move::Time && before == after {
        at_rest(&mut shown, after, is);
    }
    shown
}

/// The deletion that takes effect in this step of a side, if any.
fn deleting(store: &Store, one: &Acted) -> Option<Call> {
    let index = match one.op {
        Op::Carry(index, _) | Op::Hang(index, true) | Op::Crash(Some(index)) => index,
        _ => return None,
    };
    store.face(one.before).calls.get(usize::from(index)).copied()
}

fn is_proven(ours: &Face, theirs: &Face) -> bool {
    let empty = ours.lsn == 0;
    let later = theirs.timeline > ours.timeline || ours.role == Role::Standby;
    // It may have been made read-only a moment ago; what it holds, it holds.
    let holds = matches!(theirs.role, Role::Primary | Role::Fenced);
    holds && (empty || theirs.lsn >= ours.lsn && later)
}

fn at_rest(shown: &mut Shown, world: &World, faces: [&Face; 2]) {
    let clear = !world.has(0b1111) && faces.iter().all(|face| !face.copy && face.calls.is_empty());
    if !clear {
        return;
    }
    let named = |face: &Face| face.rest.halted || face.rest.held;
    for face in faces {
        let done = !face.rest.runs && !face.rest.busy && !face.rest.asked;
        let settled = face.rest.settled || face.rest.gave_up;
        shown.check(Rule::GoalReached, true, done && settled || named(face));
    }
    let stands = faces.iter().any(|face| named(face) || face.rest.refused);
    shown.check(Rule::SitesAgree, !stands && !world.has(EXCUSED), agree(faces));
    let warned = faces.iter().any(|face| named(face) || face.rest.stranded);
    let serves = faces.iter().any(|face| face.writable);
    shown.check(Rule::OneServes, world.has(ASKED) || faces[0].phase != 1, serves || warned);
}

/// Whether two resting sites show one phase and their databases are what it says.
fn agree(faces: [&Face; 2]) -> bool {
    let [active, passive] = faces.map(|face| Phase::ALL.get(usize::from(face.phase)).copied());
    let roles = |here: bool, there: Role| faces[0].writable == here && faces[1].role == there;
    match (active, passive) {
        (Some(Phase::ActivePassive), Some(Phase::ActivePassive)) => roles(true, Role::Standby),
        (Some(Phase::GolddrPrimary), Some(Phase::GolddrPrimary)) => roles(false, Role::Primary),
        (Some(Phase::GoldStandby), Some(Phase::GoldStandby)) => {
            roles(false, Role::Primary) && faces[0].role == Role::Standby
        }
        // The site is detached for maintenance by asking each for itself: one may lack the word.
        (Some(Phase::ActivePassive | Phase::GolddrMaintenance), Some(Phase::GolddrMaintenance))
        | (Some(Phase::GolddrMaintenance), Some(Phase::ActivePassive)) => true,
        _ => false,
    }
}
