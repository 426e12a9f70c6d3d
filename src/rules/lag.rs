//! How far the standby is behind, in bytes and in time, and the gate in front of a planned move.
//!
//! Both figures compare what the two agents last told of their databases. What is not known refuses nothing: a
//! failover must work with a silent peer. What is known and too much does, unless a person accepts the loss.

use serde::{Deserialize, Serialize};

use super::Engine;
use super::database::{Role, role};
use super::refusal::Refusal;
use crate::model::{Mono, Now, PatroniSample, PeerLink, Phase, Side, Transition};

/// Positions of the primary that are remembered to tell how old the standby's is.
const KEPT: usize = 64;

/// Positions of the primary over time, oldest first. Empty where `MAX_LAG_SECONDS` is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LagMemory {
    history: Vec<(Mono, u64)>,
}

impl LagMemory {
    /// Takes a position in; those kept span twice the limit, which is all that the gate asks about.
    fn note(&mut self, position: u64, limit_ms: u64, now: Mono) {
        let grain = limit_ms * 2 / KEPT as u64;
        if self.history.last().is_some_and(|(at, last)| position <= *last || now.since(*at) < grain) {
            return;
        }
        if self.history.len() == KEPT {
            self.history.remove(0);
        }
        self.history.push((now, position));
    }

    /// Since when the primary has been past this position.
    fn passed(&self, position: u64) -> Option<Mono> {
        self.history.iter().find(|(_, past)| *past > position).map(|(at, _)| *at)
    }
}

impl Engine {
    /// Position of the primary and of its standby, whichever site is which.
    fn positions(&self, now: Mono) -> Option<(u64, u64)> {
        let (writable, standby, _, ours) = self.database_facts(now);
        let peer = self.peer_status_now(now)?;
        let (ours, theirs) = (ours?, peer.lsn?);
        match (writable, standby, peer.writable, peer.standby) {
            (Some(true), _, _, Some(true)) => Some((ours, theirs)),
            (_, Some(true), Some(true), _) => Some((theirs, ours)),
            _ => None,
        }
    }

    /// Takes note of the primary's position.
    pub(super) fn measure_lag(&mut self, now: Now) {
        let Some(limit_ms) = self.policy.safety.max_lag_ms else { return };
        match self.positions(now.mono) {
            Some((primary, _)) => self.state.lag.note(primary, limit_ms, now.mono),
            None => self.state.lag = LagMemory::default(),
        }
    }

    /// Bytes that the standby is behind, where both sites' figures are fresh.
    pub fn lag_bytes(&self, now: Mono) -> Option<u64> {
        self.positions(now).map(|(primary, standby)| primary.saturating_sub(standby))
    }

    fn lag_ms(&self, now: Mono) -> Option<u64> {
        let (_, standby) = self.positions(now)?;
        self.state.lag.passed(standby).map(|since| now.since(since))
    }

    /// Whether a move that nothing forces may begin now.
    ///
    /// # Errors
    /// Where the standby is known to be too far behind, or to be no standby.
    pub(super) fn check_planned_move(
        &self,
        phase: Phase,
        transition: Transition,
        accept_data_loss: Option<&String>,
        now: Now,
    ) -> Result<(), Refusal> {
        let planned = match transition {
            Transition::GolddrPrimary => phase == Phase::ActivePassive,
            Transition::ActivePassive => self.policy.side == Side::Active && phase == Phase::GoldStandby,
            _ => false,
        };
        if !planned || accept_data_loss.is_some() || self.state.peer.link != PeerLink::Up {
            return Ok(());
        }
        let safety = &self.policy.safety;
        if let (Some(behind), Some(limit)) = (self.lag_bytes(now.mono), safety.max_lag_bytes)
            && behind > limit
        {
            return Err(Refusal::LagTooHigh { behind, limit });
        }
        if let (Some(behind_ms), Some(limit_ms)) = (self.lag_ms(now.mono), safety.max_lag_ms)
            && behind_ms > limit_ms
        {
            return Err(Refusal::LagTooLong { behind_ms, limit_ms });
        }
        self.taker_is_ready(transition, now.mono)
    }

    /// The database that is to take the service: ours, or the peer's as it tells.
    fn taker_is_ready(&self, transition: Transition, now: Mono) -> Result<(), Refusal> {
        let ours = (transition == Transition::GolddrPrimary) == (self.policy.side == Side::Passive);
        let unfit = if ours {
            matches!(&self.state.patroni, Some((sample @ PatroniSample::Seen(_), at))
                if now.since(*at) <= self.policy.fresh_ms && role(sample) == Role::Neither)
        } else {
            self.peer_status_now(now)
                .is_some_and(|status| (status.writable, status.standby) == (Some(false), None))
        };
        if unfit { Err(Refusal::StandbyNotReady) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_behind_since_the_primary_passed_its_position() {
        let mut lag = LagMemory::default();
        for second in 0..10 {
            lag.note(second * 100, 30_000, Mono(second * 1_000));
        }
        assert_eq!(lag.passed(900), None);
        assert_eq!(lag.passed(450), Some(Mono(5_000)));
    }

    #[test]
    fn a_long_history_is_bounded_and_spans_twice_the_limit() {
        let mut lag = LagMemory::default();
        for tick in 0..1_000 {
            lag.note(tick, 10_000, Mono(tick * 100));
        }
        assert!(lag.history.len() <= KEPT);
        let behind = Mono(99_900).since(lag.passed(10).unwrap());
        assert!((19_000..=30_000).contains(&behind), "{behind}");
    }
}
