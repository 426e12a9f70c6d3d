//! What may happen in a world next.

use super::face::{Call, Face};
use super::model::{CUTS, Move, World, blind, cut, down};
use super::part::{Answer, requests};
use super::store::Store;
use crate::model::Side;

impl World {
    /// The move of a world in which nobody interferes.
    pub fn fair_move(&self, store: &Store) -> Move {
        if self.has(CUTS) {
            return Move::Heal;
        }
        for side in Side::ALL {
            if self.has(down(side)) {
                return Move::Start(side);
            }
            let face = self.face(store, side);
            if !face.calls.is_empty() {
                return Move::Carry(side, 0);
            }
            if face.copy {
                return Move::HearCopy(side);
            }
        }
        Move::Time
    }

    /// Everything that may happen now.
    pub fn moves(&self, store: &Store, moves: &mut Vec<Move>) {
        moves.clear();
        let faulty = self.left.faults > 0;
        let mut idle = true;
        for side in Side::ALL {
            let face = self.face(store, side);
            idle &= face.calls.len() == usize::from(face.late.is_some());
            if face.copy && !self.has(down(side)) {
                moves.push(Move::HearCopy(side));
            }
            if self.left.writes > 0 && face.writable {
                moves.push(Move::Write(side));
            }
            if self.has(down(side)) {
                moves.push(Move::Start(side));
                continue;
            }
            for (index, call) in face.calls.iter().enumerate() {
                let index = index as u8;
                moves.push(Move::Carry(side, index));
                if faulty {
                    moves.extend([Move::Fail(side, index), Move::LoseAnswer(side, index)]);
                    if matches!(call, Call::Letter(_)) {
                        moves.push(Move::KeepCopy(side, index));
                    } else {
                        moves.extend([true, false].map(|applied| Move::Hang(side, index, applied)));
                        if face.late.is_none() {
                            moves.push(Move::Delay(side, index));
                        }
                        moves.push(Move::Crash(side, Some(index)));
                    }
                }
            }
            if self.left.requests > 0 {
                let asks = (0..requests().len() as u8).filter(|index| face.asks >> index & 1 == 1);
                moves.extend(asks.map(|index| Move::Ask(side, index)));
            }
            if face.resolves != Answer::Active {
                moves.push(Move::Dns(Some(side), Answer::Active));
            }
            if faulty {
                self.faults(side, face, moves);
            }
        }
        if faulty {
            moves.push(Move::Dns(None, Answer::Passive));
            if !idle {
                moves.push(Move::Slow);
            }
        }
        if self.has(CUTS) {
            moves.push(Move::Heal);
        }
        if idle && self.may_wait(store) {
            moves.push(Move::Time);
        }
    }

    fn faults(&self, side: Side, face: &Face, moves: &mut Vec<Move>) {
        moves.push(Move::Crash(side, None));
        let odd = [Answer::Passive, Answer::OneLies, Answer::Silence];
        let odd = odd.into_iter().filter(|answer| *answer != face.resolves);
        moves.extend(odd.map(|said| Move::Dns(Some(side), said)));
        if self.witnessed && !self.has(blind(side)) {
            moves.push(Move::Blind(side));
        }
        if !self.has(cut(side)) {
            moves.push(Move::Cut(side));
        }
        if face.runs_pipeline {
            moves.push(Move::FailRun(side));
        }
        moves.push(Move::Skew(side, face.skew_ms == 0));
    }

    /// Whether every call that is late may be late for as long as time would go on.
    fn may_wait(&self, store: &Store) -> bool {
        let faces = Side::ALL.map(|side| self.face(store, side));
        // Hardly ever is one late, and only then the span is worth reckoning.
        let span = || self.span(faces[0], faces[1]).0;
        faces.iter().all(|face| face.late.is_none_or(|left| span() < left))
    }
}
