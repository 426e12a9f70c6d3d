//! The operator's desk: carries a request to the engine and waits for its answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::bus::Bus;
use crate::model::{Event, Note, OperatorRequest};

/// Longest time a request waits for the engine.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Requests that may wait at once; more than that is a flood, not an operator.
const WAITING: usize = 64;

/// What the engine said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it was accepted.
    pub accepted: bool,
    /// Refusal's name or what happens next.
    pub message: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// The engine is not there.
    #[error("the engine does not take requests")]
    EngineGone,
    /// The engine did not answer in time; it may still act on the request.
    #[error("the engine did not answer within 5 s; look at /status before asking again")]
    NoAnswer,
    /// Too many requests wait already.
    #[error("too many requests wait for the engine")]
    TooMany,
}

/// The desk; clones share it.
#[derive(Debug, Clone)]
pub struct OperatorDesk {
    bus: Bus,
    next: Arc<AtomicU64>,
    waiting: Arc<Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>>,
}

impl OperatorDesk {
    /// A desk whose requests go over this bus.
    pub fn new(bus: Bus) -> Self {
        Self { bus, next: Arc::new(AtomicU64::new(1)), waiting: Arc::default() }
    }

    /// Asks the engine and waits for its answer.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn ask(&self, who: &str, request: OperatorRequest) -> Result<Answer, DeskError> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= WAITING {
                return Err(DeskError::TooMany);
            }
            waiting.insert(ticket, sender);
        }
        // also forgets the ticket when the client hangs up and this future is dropped
        let _forget = Forget { desk: self, ticket };
        let exchange = async {
            if !self.bus.send(Event::Operator { ticket, who: who.to_owned(), request }).await {
                return Err(DeskError::EngineGone);
            }
            answer.await.map_err(|_| DeskError::NoAnswer)
        };
        tokio::time::timeout(ANSWER_LIMIT, exchange).await.unwrap_or(Err(DeskError::NoAnswer))
    }

    /// Gives the engine's answer to whoever waits for it; nobody may wait any more.
    pub fn answer(&self, ticket: u64, accepted: bool, message: &str) {
        let sender = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
        if let Some(sender) = sender {
            let _ = sender.send(Answer { accepted, message: message.to_owned() });
        }
    }

    /// Takes the answer out of a note, where it is one.
    pub fn observe_note(&self, note: &Note) {
        if let Note::Answer { ticket, accepted, message } = note {
            self.answer(*ticket, *accepted, message);
        }
    }
}

struct Forget<'a> {
    desk: &'a OperatorDesk,
    ticket: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.desk.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.ticket);
    }
}
