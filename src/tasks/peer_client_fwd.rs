//! `peer_client_fwd`: carries the engine's messages to the peer, one connection each, in order.
//!
//! Owns no message: the engine's outbox does, and it alone decides on retries. A peer that hangs costs each message
//! at most the forward time-out.

use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use super::{Ctx, Exit};
use crate::config::peer::PeerSettings;
use crate::model::{Detail, OutboxId, PeerMessage};
use crate::peer::delivery::{DeliveryError, DeliveryQueue};
use crate::peer::dial::{self, PeerSocket};
use crate::peer::{PeerShared, message};

/// Delivers until cancelled.
pub async fn run(ctx: Ctx, settings: Arc<PeerSettings>, shared: PeerShared, queue: DeliveryQueue) -> Exit {
    let carry = async {
        while let Some(delivery) = queue.next().await {
            let (result, socket) = forward(&settings, &shared, delivery.id, &delivery.message).await;
            let label = if result.is_ok() { "ok" } else { "failed" };
            shared.metrics.connections.with_label_values(&["forward", label]).inc();
            if let Err(error) = &result {
                tracing::warn!(%error, "peer_client_fwd");
            }
            // The caller may have given up meanwhile; its outbox still holds the message.
            drop(delivery.reply.send(result));
            if let Some(socket) = socket {
                dial::close(socket).await;
            }
        }
    };
    tokio::select! {
        () = ctx.cancel.cancelled() => Exit::Cancelled,
        () = shared.tls.keep_fresh(&ctx.cancel) => Exit::Cancelled,
        () = carry => Exit::Finished,
    }
}

/// One message over a connection of its own; the connection comes back where it is worth closing politely.
async fn forward(
    settings: &PeerSettings,
    shared: &PeerShared,
    id: OutboxId,
    message: &PeerMessage,
) -> (Result<Detail, DeliveryError>, Option<PeerSocket>) {
    let peer = settings.address();
    let limit = Duration::from_millis(settings.forward_ms);
    let deadline = Instant::now() + limit;
    let lost = |why: String| DeliveryError::NotDelivered { id, peer: peer.clone(), why };
    let late = || DeliveryError::NoAnswer { id, peer: peer.clone(), limit_ms: settings.forward_ms };

    let frame = message::encode_from_peer(message, &shared.instance, id);
    if frame.len() > message::MAX_MESSAGE_BYTES {
        return (Err(lost(format!("{} bytes are more than the peer takes", frame.len()))), None);
    }
    let mut socket = match dial::dial(settings, &shared.tls, limit).await {
        Ok(socket) => socket,
        Err(error) => return (Err(lost(error.to_string())), None),
    };
    let exchange = async {
        socket.send(Message::text(frame)).await.map_err(|error| error.to_string())?;
        dial::next_frame(&mut socket).await
    };
    let answer = match timeout_at(deadline, exchange).await {
        Ok(Ok(answer)) => message::decode_answer(&answer),
        Ok(Err(why)) => return (Err(lost(why)), None),
        Err(_) => return (Err(late()), None),
    };
    (delivered(&answer, id, &peer), Some(socket))
}

/// What an answer means for the message that it answers.
pub(crate) fn delivered(answer: &message::Answer, id: OutboxId, peer: &str) -> Result<Detail, DeliveryError> {
    match (&answer.instance, answer.ack) {
        (None, _) => Ok(Detail::PeerAnswered { acknowledged: false }),
        (Some(_), Some(ack)) if ack == id => Ok(Detail::PeerAnswered { acknowledged: true }),
        (Some(_), _) => Err(DeliveryError::NotHandled { id, peer: peer.to_owned() }),
    }
}
