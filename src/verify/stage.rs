//! Where a world is played: in canonical parts, each step computed once, or in parts as they are.

use std::borrow::Cow;

use super::face::Face;
use super::model::Acted;
use super::part::Part;
use super::store::{Op, Stage, Store, at};
use crate::model::{Mono, Side};

/// A world being played, in canonical parts.
pub struct Canonical<'a> {
    /// Where the parts are kept.
    pub store: &'a Store,
    /// The parts now.
    pub parts: [u32; 2],
    /// What happened.
    pub acted: Vec<Acted>,
}

impl Stage for Canonical<'_> {
    fn face(&self, side: Side) -> Cow<'_, Face> {
        Cow::Borrowed(self.store.face(self.parts[side as usize]))
    }
    fn act(&mut self, side: Side, op: Op) {
        let before = self.parts[side as usize];
        let reply = self.store.reply(before, op);
        self.parts[side as usize] = reply.part;
        self.acted.push(Acted { side, before, op, judged: reply.judged });
    }
}

/// The same with parts as they are, at flowing time: what canonical parts are compared with.
pub struct Raw<'a> {
    /// Names of letters and heartbeats.
    pub store: &'a Store,
    /// The parts now.
    pub parts: [Part; 2],
    /// The moment.
    pub now: [Mono; 2],
}

impl Stage for Raw<'_> {
    fn face(&self, side: Side) -> Cow<'_, Face> {
        let (part, now) = (&self.parts[side as usize], self.now[side as usize]);
        Cow::Owned(Face::of(&self.store.setting, part, now, self.store))
    }
    fn act(&mut self, side: Side, op: Op) {
        let now = self.now[side as usize];
        self.parts[side as usize] = self.store.compute(&self.parts[side as usize], op, now).0;
        self.now[side as usize] = at(op, now);
    }
}
