//! The client role of the stand-in: its ping connection and its forwarder, with all their habits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::tls::{ClientSocket, connect};
use super::{Credentials, Shared, Timers, close};

#[derive(Clone)]
pub(super) struct Target {
    pub(super) peer: SocketAddr,
    pub(super) name: String,
    pub(super) credentials: Credentials,
    pub(super) timers: Timers,
}

/// How a connection ended, as its library tells it.
enum End {
    /// With 1000 or 1001: no error for it.
    Clean,
    /// Any other way.
    Abnormal,
}

/// The ping connection: it does not look at the socket while it sleeps, so control pings wait that long.
pub(super) async fn ping_for_ever(target: Target, shared: Arc<Shared>) {
    let mut sequence = 2;
    loop {
        let end = match connect(target.peer, &target.name, &target.credentials).await {
            Ok(mut socket) => loop {
                let ping = json!({"event": "ping", "name": format!("Sequence {sequence}")});
                sequence += 1;
                match exchange(&mut socket, &ping).await {
                    Ok(_) => {
                        shared.pongs.fetch_add(1, Ordering::SeqCst);
                        note(&shared, "ok");
                    }
                    Err(end) => break end,
                }
                tokio::time::sleep(target.timers.ping).await;
            },
            Err(_) => End::Abnormal,
        };
        match end {
            End::Clean => tokio::task::yield_now().await,
            End::Abnormal => {
                note(&shared, "error");
                tokio::time::sleep(target.timers.reconnect).await;
            }
        }
    }
}

fn note(shared: &Shared, state: &'static str) {
    let mut states = shared.peer_states.lock().unwrap();
    if states.last() != Some(&state) {
        states.push(state);
    }
}

/// One message after the other, five tries each; a hanging peer hangs it.
pub(super) async fn forward_all(target: Target, shared: Arc<Shared>, mut queue: mpsc::Receiver<Value>) {
    while let Some(message) = queue.recv().await {
        let frame = json!({"event": "from_peer", "message": message});
        let mut delivered = false;
        for _ in 0..5 {
            let end = match connect(target.peer, &target.name, &target.credentials).await {
                Ok(mut socket) => match exchange(&mut socket, &frame).await {
                    Ok(_) => {
                        close(&mut socket, CloseCode::Normal).await;
                        delivered = true;
                        break;
                    }
                    Err(end) => end,
                },
                Err(_) => End::Abnormal,
            };
            if matches!(end, End::Abnormal) {
                tokio::time::sleep(target.timers.retry).await;
            }
        }
        if !delivered {
            shared.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn exchange(socket: &mut ClientSocket, frame: &Value) -> Result<Message, End> {
    socket.send(Message::text(frame.to_string())).await.map_err(|_| End::Abnormal)?;
    loop {
        match socket.next().await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => return Ok(message),
            Some(Ok(Message::Close(Some(frame)))) => {
                let clean = matches!(frame.code, CloseCode::Normal | CloseCode::Away);
                return Err(if clean { End::Clean } else { End::Abnormal });
            }
            Some(Ok(Message::Close(None)) | Err(_)) | None => return Err(End::Abnormal),
            Some(Ok(_)) => {}
        }
    }
}
