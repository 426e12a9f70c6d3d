//! Time in the checked world: to the next deadline, with everybody looking just before it strikes.

use super::face::Face;
use super::model::{World, blind, down};
use super::site::Role;
use super::store::{Op, Stage};
use crate::model::{LeaseHolder, PeerLink, Side};

/// A look at the world comes at least this often while there is something to see.
const LOOK_MS: u32 = 1_000;
/// And this often where there is nothing: what is told must not grow stale.
const IDLE_MS: u32 = 10_000;
/// How long the witness's lease lasts: lease and grace.
const WITNESS_MS: u32 = 45_000;
impl World {
    /// How far time goes on at once, and the next deadline.
    pub(super) fn span(&self, active: &Face, passive: &Face) -> (u32, Option<u32>) {
        let heard = !self.has(0b1111);
        let told = heard && (active.knows != Some(passive.status) || passive.knows != Some(active.status));
        let linked = |face: &Face| (face.link == PeerLink::Up) == heard;
        let up = |side: Side| !self.has(down(side));
        let lags = follows(active, passive, heard).is_some() || follows(passive, active, heard).is_some();
        let news = told
            || lags
            || up(Side::Active) && (active.news || !linked(active))
            || up(Side::Passive) && (passive.news || !linked(passive));
        let wakes = [(active, Side::Active), (passive, Side::Passive)]
            .into_iter()
            .filter_map(|(face, side)| {
                // A dead agent has no deadlines; its site changes within the time of a look.
                if up(side) { face.wakes } else { face.promoting.then_some(LOOK_MS) }
            })
            .min();
        let span = match wakes {
            Some(ms) if news => ms.min(LOOK_MS),
            Some(ms) => ms,
            None if news => LOOK_MS,
            None => IDLE_MS,
        };
        (span, wakes)
    }

    /// Time goes on.
    pub(super) fn pass_time(&mut self, stage: &mut dyn Stage) {
        let heard = !self.has(0b1111);
        let (span, wakes) = self.span(&stage.face(Side::Active), &stage.face(Side::Passive));
        // Everybody has looked just before a deadline strikes.
        let before = span.saturating_sub(1);
        self.pass_lease(span);
        for side in Side::ALL {
            stage.act(side, Op::Pass(before));
        }
        self.look(stage, heard);
        for side in Side::ALL {
            stage.act(side, Op::Pass(span - before));
            if wakes == Some(span) && !self.has(down(side)) {
                stage.act(side, Op::Tick);
            }
        }
    }

    fn look(&mut self, stage: &mut dyn Stage, heard: bool) {
        for (side, other) in [(Side::Active, Side::Passive), (Side::Passive, Side::Active)] {
            let follow = follows(&stage.face(side), &stage.face(other), heard);
            if let Some((timeline, lsn)) = follow {
                stage.act(side, Op::Follow(timeline as u16, lsn as u16));
            }
        }
        for side in Side::ALL.into_iter().filter(|side| !self.has(down(*side))) {
            stage.act(side, Op::Observe);
        }
        for side in Side::ALL {
            if self.has(down(side)) {
                continue;
            }
            let status = stage.face(side.other()).status;
            if heard {
                stage.act(side, Op::Status(status));
            } else if stage.face(side).link != PeerLink::Down {
                stage.act(side, Op::Lost);
            }
            if self.witnessed {
                let holder = self.ask_witness(side, stage.face(side).wants_lease);
                stage.act(side, Op::Witness(holder));
            }
        }
    }

    /// Who holds the witness's lease.
    pub fn holder(&self) -> Option<Side> {
        (self.lease > 1).then_some(if self.lease & 1 == 0 { Side::Active } else { Side::Passive })
    }

    fn pass_lease(&mut self, ms: u32) {
        self.lease = if (self.lease >> 1) > ms { self.lease - (ms << 1) } else { 0 };
    }

    /// One look of a side at the witness, as `adapters::witness` makes it.
    fn ask_witness(&mut self, side: Side, wanted: Option<bool>) -> Option<LeaseHolder> {
        if self.has(blind(side)) {
            return None;
        }
        match (self.holder(), wanted) {
            (None, Some(true)) => self.lease = WITNESS_MS << 1 | side as u32,
            (Some(holder), Some(true)) if holder == side => self.lease = WITNESS_MS << 1 | side as u32,
            (Some(holder), Some(false)) if holder == side => self.lease = 0,
            _ => {}
        }
        Some(match self.holder() {
            Some(holder) if holder == side => LeaseHolder::Us,
            Some(_) => LeaseHolder::Peer,
            None => LeaseHolder::Nobody,
        })
    }
}

/// What a standby takes over from its source, where it lacks something.
fn follows(standby: &Face, source: &Face, heard: bool) -> Option<(u64, u64)> {
    let attached = heard && standby.role == Role::Standby && standby.replicas > 0 && source.replicas > 0;
    let behind =
        source.timeline > standby.timeline || source.timeline == standby.timeline && source.lsn > standby.lsn;
    (attached && behind && source.role != Role::Stopped)
        .then_some((source.timeline, source.lsn.max(standby.lsn)))
}
