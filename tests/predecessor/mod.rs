//! A scripted stand-in of the predecessor agent: its frames and its habits on the peer link, in both roles.
//!
//! Independent of this project's codec and TLS rules on purpose: what it says is what the predecessor says (server
//! that asks for no client certificate, a pong for anything with an `event`, 1011 for the rest; one ping connection,
//! a new connection per forwarded message, five tries, copies where the other side closes with 1000; consent by
//! comparing two strings, silence as refusal). Times can be scaled.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test helper")]

mod client;
mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
pub use tls::{ClientSocket, connect};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// What it shows and whom it believes, in PEM form.
#[derive(Clone)]
pub struct Credentials {
    pub ca: String,
    /// As a client, speaks TLS 1.2 at most.
    pub only_tls12: bool,
    /// Certificate and key; `None` = shows nothing as a client (a server always has one).
    pub own: Option<(String, String)>,
}

/// Its timers. The real ones are 5 s, 2 s and 2 s.
#[derive(Clone, Copy)]
pub struct Timers {
    pub ping: Duration,
    pub reconnect: Duration,
    pub retry: Duration,
}

impl Timers {
    /// The real timers divided by `divisor`.
    pub fn scaled(divisor: u32) -> Self {
        Self {
            ping: Duration::from_secs(5) / divisor,
            reconnect: Duration::from_secs(2) / divisor,
            retry: Duration::from_secs(2) / divisor,
        }
    }
}

/// How its server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answers {
    /// A pong at once.
    #[default]
    AtOnce,
    /// A pong, then no look at the socket for this long: frames and control pings wait.
    ThenBusy(Duration),
    /// A close with 1000 instead of the pong.
    Close1000,
    /// Nothing; the connection stays open.
    Never,
}

/// How it consents when its record matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consent {
    #[default]
    Once,
    Twice,
    Late(Duration),
    Never,
}

/// What it remembers of its record.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub last_stable_state: String,
    pub transition: String,
}

/// Called with the state of each `transition_to`, and with the item of each `yes_happy_to_proceed`.
pub type Hook = Box<dyn Fn(&Value) + Send + Sync>;

/// Everything that the roles share.
pub struct Shared {
    pub answers: Mutex<Answers>,
    pub consent: Mutex<Consent>,
    pub record: Mutex<Record>,
    /// Frames that the server has received, as JSON.
    pub received: Mutex<Vec<Value>>,
    /// Connections that the server has accepted, TLS included.
    pub accepted: AtomicU64,
    /// Pongs that the ping connection has got.
    pub pongs: AtomicU64,
    /// `ok` and `error` as the predecessor would queue them, in order.
    pub peer_states: Mutex<Vec<&'static str>>,
    /// Messages dropped after five tries.
    pub dropped: AtomicU64,
    on_transition: Hook,
    on_yes: Hook,
}

/// A running stand-in; it ends when dropped.
pub struct Predecessor {
    pub shared: Arc<Shared>,
    pub address: SocketAddr,
    outgoing: mpsc::Sender<Value>,
    queue: Option<mpsc::Receiver<Value>>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Predecessor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Predecessor {
    /// Starts the server on the listener; nothing is dialled before [`Self::dial`].
    pub fn start(
        listener: TcpListener,
        credentials: &Credentials,
        on_transition: Hook,
        on_yes: Hook,
    ) -> Self {
        let (outgoing, queue) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            consent: Mutex::default(),
            record: Mutex::default(),
            received: Mutex::default(),
            accepted: AtomicU64::new(0),
            pongs: AtomicU64::new(0),
            peer_states: Mutex::default(),
            dropped: AtomicU64::new(0),
            on_transition,
            on_yes,
        });
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(credentials)));
        let server = tokio::spawn(serve(listener, acceptor, shared.clone(), outgoing.clone()));
        Self { shared, address, outgoing, queue: Some(queue), tasks: vec![server.abort_handle()] }
    }

    /// Starts the ping connection and the forwarder towards `peer`, whose certificate must carry `name`.
    pub fn dial(&mut self, peer: SocketAddr, name: &str, credentials: &Credentials, timers: Timers) {
        let queue = self.queue.take().expect("dial is called once");
        let target = client::Target { peer, name: name.to_owned(), credentials: credentials.clone(), timers };
        let ping = tokio::spawn(client::ping_for_ever(target.clone(), self.shared.clone()));
        let forward = tokio::spawn(client::forward_all(target, self.shared.clone(), queue));
        self.tasks.extend([ping.abort_handle(), forward.abort_handle()]);
    }

    pub fn set_answers(&self, answers: Answers) {
        *self.shared.answers.lock().unwrap() = answers;
    }

    pub fn set_consent(&self, consent: Consent) {
        *self.shared.consent.lock().unwrap() = consent;
    }

    pub fn set_record(&self, last_stable_state: &str, transition: &str) {
        *self.shared.record.lock().unwrap() =
            Record { last_stable_state: last_stable_state.to_owned(), transition: transition.to_owned() };
    }

    /// Messages received inside `from_peer`, in order.
    pub fn messages(&self) -> Vec<Value> {
        let received = self.shared.received.lock().unwrap();
        received.iter().filter_map(|frame| frame.get("message").cloned()).collect()
    }

    /// Queues a message for the peer, as its logic does.
    pub async fn send(&self, message: Value) {
        self.outgoing.send(message).await.unwrap();
    }

    /// Orders a transition.
    pub async fn order(&self, state: &str) {
        self.send(json!({"event": "transition_to", "state": state})).await;
    }

    /// Asks for consent, with the record's data as item like the original.
    pub async fn ask_consent(&self, required_state: &str, data: Value) {
        let item = json!({"event": "switchover_state", "data": data});
        self.send(json!({
            "event": "confirm_happy_to_proceed", "required_state": required_state, "item": item
        }))
        .await;
    }
}

// ===== server role

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Value>,
) {
    let mut sessions = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, shared, outgoing) = (acceptor.clone(), shared.clone(), outgoing.clone());
        sessions.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            shared.accepted.fetch_add(1, Ordering::SeqCst);
            let Ok(socket) = tokio_tungstenite::accept_async_with_config(stream, Some(tls::limits())).await
            else {
                return;
            };
            session(socket, &shared, &outgoing).await;
        });
    }
}

async fn session<S>(mut socket: WebSocketStream<S>, shared: &Arc<Shared>, outgoing: &mpsc::Sender<Value>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = socket.next().await {
        let data = match message {
            Message::Text(_) | Message::Binary(_) => message.into_data(),
            Message::Close(_) => break,
            _ => continue,
        };
        let frame = match serde_json::from_slice::<Value>(&data) {
            Ok(frame) if frame.get("event").is_some() => frame,
            _ => return close(&mut socket, CloseCode::Error).await,
        };
        shared.received.lock().unwrap().push(frame.clone());
        let answers = *shared.answers.lock().unwrap();
        match answers {
            Answers::Never => continue,
            Answers::Close1000 => return close(&mut socket, CloseCode::Normal).await,
            Answers::AtOnce | Answers::ThenBusy(_) => {
                if socket.send(Message::text(r#"{"event": "pong"}"#)).await.is_err() {
                    return;
                }
            }
        }
        if frame["event"] == "from_peer" {
            act(&frame["message"], shared, outgoing);
        }
        if let Answers::ThenBusy(pause) = answers {
            tokio::time::sleep(pause).await;
        }
    }
}

/// What its logic does with a message.
fn act(message: &Value, shared: &Arc<Shared>, outgoing: &mpsc::Sender<Value>) {
    match message["event"].as_str() {
        Some("transition_to") => {
            shared.record.lock().unwrap().transition =
                message["state"].as_str().unwrap_or_default().to_owned();
            (shared.on_transition)(&message["state"]);
        }
        Some("confirm_happy_to_proceed") => {
            let record = shared.record.lock().unwrap().clone();
            if !record.transition.is_empty() || message["required_state"] != record.last_stable_state.as_str()
            {
                return; // It says nothing at all.
            }
            let yes = json!({"event": "yes_happy_to_proceed", "item": message["item"]});
            let consent = *shared.consent.lock().unwrap();
            let (copies, wait) = match consent {
                Consent::Once => (1, Duration::ZERO),
                Consent::Twice => (2, Duration::ZERO),
                Consent::Late(wait) => (1, wait),
                Consent::Never => (0, Duration::ZERO),
            };
            let outgoing = outgoing.clone();
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                for _ in 0..copies {
                    outgoing.send(yes.clone()).await.ok();
                }
            });
        }
        Some("yes_happy_to_proceed") => {
            let mut item = message["item"].clone();
            item["peer_ok"] = json!(true);
            (shared.on_yes)(&item);
        }
        _ => {}
    }
}

async fn close<S>(socket: &mut WebSocketStream<S>, code: CloseCode)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    socket.close(Some(CloseFrame { code, reason: "".into() })).await.ok();
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(Duration::from_secs(2), rest).await.ok();
}
