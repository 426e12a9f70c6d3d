//! A witness on virtual time: one lease, which lapses, and a way to it that can be cut for each site.

use crate::model::{LeaseHolder, Mono, Side, WitnessSample};

/// The witness.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SimulatedWitness {
    holder: Option<(Side, Mono)>,
    /// Whether the active site's way to it is cut.
    pub cut_active: bool,
    /// Whether the passive site's way to it is cut.
    pub cut_passive: bool,
}

impl SimulatedWitness {
    /// One look of `side`, as `adapters::witness` makes it.
    pub fn look(&mut self, side: Side, wanted: Option<bool>, ttl_ms: u64, now: Mono) -> WitnessSample {
        let cut = if side == Side::Active { self.cut_active } else { self.cut_passive };
        if cut {
            return WitnessSample::Unknown("no answer".to_owned());
        }
        if self.holder.is_some_and(|(_, until)| now >= until) {
            self.holder = None;
        }
        match (self.holder, wanted) {
            (None, Some(true)) => self.holder = Some((side, now.plus(ttl_ms))),
            (Some((holder, _)), Some(true)) if holder == side => self.holder = Some((side, now.plus(ttl_ms))),
            (Some((holder, _)), Some(false)) if holder == side => self.holder = None,
            _ => {}
        }
        let holder = match self.holder {
            Some((holder, _)) if holder == side => LeaseHolder::Us,
            Some(_) => LeaseHolder::Peer,
            None => LeaseHolder::Nobody,
        };
        WitnessSample::Answered { holder, asked: now }
    }
}
