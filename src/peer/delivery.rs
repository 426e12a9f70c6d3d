//! Handing a message to the task that carries it to the peer, and getting the answer back.
//!
//! ```text
//!  executor (1x per message) -- Courier, bounded queue --> peer_client_fwd (1x) -- one connection each --> peer
//!                            <------- oneshot -----------
//! ```
//!
//! Owns the queue and its bounds. Never retries: the engine's outbox does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::model::{Detail, FailureKind, OutboxId, PeerMessage};

/// Messages that may wait for `peer_client_fwd`: a transition sends a handful, and each may take the whole forward
/// time-out when the peer hangs, so a longer queue would only age.
pub const QUEUE_CAPACITY: usize = 16;

/// Why a message is not known to have reached the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The queue stayed full, or `peer_client_fwd` does not run.
    #[error("message {} was not taken for delivery to the peer: {why}", id.0)]
    NotTaken {
        /// Number of the message.
        id: OutboxId,
        /// What was in the way.
        why: &'static str,
    },
    /// No connection, or it broke before the answer.
    #[error("message {} did not reach the peer at {peer}: {why}", id.0)]
    NotDelivered {
        /// Number of the message.
        id: OutboxId,
        /// Address as configured.
        peer: String,
        /// What went wrong.
        why: String,
    },
    /// The peer took the connection and did not answer in time.
    #[error("the peer at {peer} did not answer message {} within {limit_ms} ms", id.0)]
    NoAnswer {
        /// Number of the message.
        id: OutboxId,
        /// Address as configured.
        peer: String,
        /// The forward time-out.
        limit_ms: u64,
    },
    /// A new agent answered, but its engine has not handled the message yet.
    #[error("the peer at {peer} took message {} and has not handled it yet", id.0)]
    NotHandled {
        /// Number of the message.
        id: OutboxId,
        /// Address as configured.
        peer: String,
    },
}

impl DeliveryError {
    /// How to take it: everything here may be better at the next try.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotTaken { .. }
            | Self::NotDelivered { .. }
            | Self::NoAnswer { .. }
            | Self::NotHandled { .. } => FailureKind::Transient,
        }
    }
}

/// A message with the way back to who sent it.
pub struct Delivery {
    /// Number of the message.
    pub id: OutboxId,
    /// The message.
    pub message: PeerMessage,
    /// Where the result goes.
    pub reply: oneshot::Sender<Result<Detail, DeliveryError>>,
}

/// The receiving end for `peer_client_fwd`; it survives a restart of the task.
#[derive(Clone)]
pub struct DeliveryQueue {
    receiver: Arc<Mutex<mpsc::Receiver<Delivery>>>,
}

impl DeliveryQueue {
    /// The next message that somebody still waits for; `None` when every [`Courier`] is gone.
    pub async fn next(&self) -> Option<Delivery> {
        let mut receiver = self.receiver.lock().await;
        loop {
            let delivery = receiver.recv().await?;
            if !delivery.reply.is_closed() {
                return Some(delivery);
            }
        }
    }
}

/// The handle that the executor holds.
#[derive(Debug, Clone)]
pub struct Courier {
    sender: mpsc::Sender<Delivery>,
    limit: Duration,
}

impl Courier {
    /// A courier and the queue that `peer_client_fwd` empties. `forward_ms` is `PEER_FORWARD_TIMEOUT_SECONDS`.
    pub fn new(forward_ms: u64) -> (Self, DeliveryQueue) {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let queue = DeliveryQueue { receiver: Arc::new(Mutex::new(receiver)) };
        (Self { sender, limit: Duration::from_millis(forward_ms) }, queue)
    }

    /// Carries one message to the peer and waits for its answer. `acknowledged` in the detail tells whether a new
    /// agent has handled it (`true`) or a predecessor has merely taken it (`false`).
    ///
    /// # Errors
    /// [`DeliveryError`]; nothing is retried here. A message whose caller has gone is not sent any more.
    pub async fn deliver(&self, id: OutboxId, message: &PeerMessage) -> Result<Detail, DeliveryError> {
        let (reply, answer) = oneshot::channel();
        let delivery = Delivery { id, message: message.clone(), reply };
        match self.sender.send_timeout(delivery, self.limit).await {
            Ok(()) => {}
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                return Err(DeliveryError::NotTaken { id, why: "the queue is full" });
            }
            Err(mpsc::error::SendTimeoutError::Closed(_)) => {
                return Err(DeliveryError::NotTaken { id, why: "peer_client_fwd has ended" });
            }
        }
        // Everything ahead of us in the queue takes at most one time-out each.
        let longest = self.limit * (QUEUE_CAPACITY as u32 + 2);
        match tokio::time::timeout(longest, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(DeliveryError::NotTaken { id, why: "peer_client_fwd was restarted" }),
            Err(_) => Err(DeliveryError::NotTaken { id, why: "peer_client_fwd does not run" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_whose_caller_has_gone_is_not_sent() {
        let (courier, queue) = Courier::new(1000);
        let gone = courier.clone();
        let first = tokio::spawn(async move {
            gone.deliver(OutboxId(1), &PeerMessage::Dns { result: "none".to_owned() }).await
        });
        while courier.sender.capacity() == QUEUE_CAPACITY {
            tokio::task::yield_now().await;
        }
        first.abort();
        let _ = first.await;
        let second = tokio::spawn(async move {
            courier.deliver(OutboxId(2), &PeerMessage::Dns { result: "none".to_owned() }).await
        });
        let delivery = queue.next().await.unwrap();
        assert_eq!(delivery.id, OutboxId(2));
        delivery.reply.send(Ok(Detail::PeerAnswered { acknowledged: true })).unwrap();
        assert_eq!(second.await.unwrap(), Ok(Detail::PeerAnswered { acknowledged: true }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_nobody_empties_gives_an_error_in_bounded_time() {
        let (courier, _queue) = Courier::new(1000);
        let message = PeerMessage::Dns { result: "none".to_owned() };
        let error = courier.deliver(OutboxId(1), &message).await.unwrap_err();
        assert_eq!(error, DeliveryError::NotTaken { id: OutboxId(1), why: "peer_client_fwd does not run" });
        assert_eq!(error.kind(), FailureKind::Transient);
    }
}
