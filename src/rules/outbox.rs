//! The outbox: messages to the peer, numbered, tried until acknowledged, superseded or expired. Nothing is dropped
//! without a word.

use super::Engine;
use super::mutant::Mutant;
use super::state::{OUTBOX_KEPT, Outgoing};
use crate::model::{ActionId, Detail, Effect, Mono, Now, OutboxId, Outcome, PeerMessage};

const RETRY_MS: u64 = 500;
const RETRY_MAX_MS: u64 = 5_000;
/// A DNS answer that the peer has not heard of after this long interests nobody.
const NEWS_MS: u64 = 60_000;

impl Outgoing {
    /// Whether it orders a transition.
    pub(super) fn is_order(&self) -> bool {
        matches!(self.message, PeerMessage::TransitionTo { .. })
    }

    fn is_news(&self) -> bool {
        matches!(self.message, PeerMessage::Dns { .. })
    }
}

impl Engine {
    /// Puts a message into the outbox. A newer order supersedes an older one, newer news older news.
    pub(super) fn enqueue(&mut self, message: PeerMessage, now: Now) -> OutboxId {
        let id = OutboxId(self.state.last_message.0 + 1);
        self.state.last_message = id;
        let until = match &message {
            PeerMessage::TransitionTo { .. } => None,
            PeerMessage::Dns { .. } => Some(now.mono.plus(NEWS_MS)),
            _ => Some(now.mono.plus(self.policy.consent_ms)),
        };
        let entry = Outgoing { id, message, attempt: 0, in_flight: None, not_before: now.mono, until };
        let (order, news) = (entry.is_order(), entry.is_news());
        self.state.outbox.retain(|old| !(order && old.is_order() || news && old.is_news()));
        if self.state.outbox.len() == OUTBOX_KEPT {
            let oldest = self.state.outbox.remove(0);
            self.remark("error", format!("the outbox is full; message {} was not delivered", oldest.id.0));
        }
        self.state.outbox.push(entry);
        self.changed = true;
        id
    }

    pub(super) fn drop_message(&mut self, id: OutboxId) {
        self.state.outbox.retain(|entry| entry.id != id);
    }

    /// Sends what is due, one message at a time and in order, so that the peer hears things in the order in which
    /// they were said.
    pub(super) fn advance_outbox(&mut self, now: Now) {
        let before = self.state.outbox.len();
        let expired = |entry: &Outgoing| {
            entry.in_flight.is_none() && entry.until.is_some_and(|until| now.mono >= until)
        };
        let late: Vec<u64> =
            self.state.outbox.iter().filter(|entry| expired(entry)).map(|entry| entry.id.0).collect();
        self.state.outbox.retain(|entry| !expired(entry));
        for id in late {
            self.remark("warning", format!("message {id} to the peer was not delivered in time"));
        }
        self.changed |= before != self.state.outbox.len();
        if self.state.outbox.iter().any(|entry| entry.in_flight.is_some()) {
            return;
        }
        // Strictly the oldest: the peer takes a lower number after a higher one for a copy and drops it.
        let newest_first = self.mutated(Mutant::OutboxNewestFirst);
        let next = if newest_first { self.state.outbox.last() } else { self.state.outbox.first() };
        let Some(entry) = next.filter(|entry| entry.not_before <= now.mono) else {
            return;
        };
        let (id, message) = (entry.id, entry.message.clone());
        let (action, _) = self.perform("tell-peer", Effect::SendPeer { id, message });
        if let Some(entry) = self.state.outbox.iter_mut().find(|entry| entry.id == id) {
            entry.in_flight = Some(action);
            entry.attempt += 1;
        }
    }

    /// Takes in how a delivery ended. `false` = the action was not a delivery.
    pub(super) fn delivery_ended(&mut self, action: ActionId, outcome: &Outcome, now: Now) -> bool {
        let Some(index) = self.state.outbox.iter().position(|entry| entry.in_flight == Some(action)) else {
            return false;
        };
        let knows_us = self.state.peer.status.is_some();
        let delivered = match outcome {
            Outcome::Done(Detail::PeerAnswered { acknowledged }) => *acknowledged || !knows_us,
            // Any answer of a predecessor means that its server took the message.
            Outcome::Done(_) => true,
            Outcome::Failed { .. } => self.mutated(Mutant::OutboxTriesOnce),
        };
        if delivered {
            self.state.outbox.remove(index);
        } else if let Some(entry) = self.state.outbox.get_mut(index) {
            let pause = (RETRY_MS << entry.attempt.saturating_sub(1).min(4)).min(RETRY_MAX_MS);
            entry.in_flight = None;
            entry.not_before = now.mono.plus(pause);
        }
        self.changed = true;
        true
    }

    pub(super) fn outbox_deadline(&self) -> Option<(Mono, &'static str)> {
        let idle = || self.state.outbox.iter().filter(|entry| entry.in_flight.is_none());
        let next = self.state.outbox.first().filter(|entry| entry.in_flight.is_none());
        let next = next.map(|entry| entry.not_before);
        next.into_iter()
            .chain(idle().filter_map(|entry| entry.until))
            .min()
            .map(|at| (at, "message to the peer"))
    }
}
