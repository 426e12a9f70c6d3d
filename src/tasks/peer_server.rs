//! `peer_server`: accepts the peer's connections and answers each of its frames with one pong, in order.
//!
//! Owns the listener and one session per connection. Never acts on a message: it hands it to the engine and, where
//! the sender numbered it, waits a moment for the engine to have handled it before it acknowledges. A session that
//! misbehaves ends alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::peer_client::post_status;
use super::{Ctx, Exit};
use crate::bus::Bus;
use crate::config::peer::PeerSettings;
use crate::model::{Event, OutboxId, PeerMessage};
use crate::peer::PeerShared;
use crate::peer::message::{self, Request, Stamp};
use crate::peer::tls::{self, ClientAuth};

/// A client that does not get through TLS and the websocket upgrade in this time holds a slot for nothing.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way per session allowed: strangers who open connections and say nothing must not take the
/// places of sessions.
const HANDSHAKES_PER_SESSION: usize = 4;
/// How long the acknowledgement of a message waits for the engine, and a message for a place on the bus.
const HANDLED_WAIT: Duration = Duration::from_secs(1);
/// How long an answer may take to leave; a peer that does not read is not waited for.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// How long a session that we close reads on, so that the close frame is not lost in a reset.
const LINGER: Duration = Duration::from_secs(2);
/// The same refusal is logged at most this often.
const REFUSAL_LOG_PAUSE: Duration = Duration::from_secs(10);
/// Log lines that one connection may cause.
const LINES_PER_CONNECTION: u32 = 5;
/// How often the migration switch is complained about.
const MIGRATION_REMINDER: Duration = Duration::from_secs(3600);

/// Listens on `PEER_LISTEN` until cancelled.
pub async fn run(ctx: Ctx, settings: Arc<PeerSettings>, shared: PeerShared) -> Exit {
    match TcpListener::bind(settings.listen).await {
        Ok(listener) => serve(ctx, listener, settings, shared).await,
        Err(error) => Exit::Failed(format!("cannot listen on {}: {error}", settings.listen)),
    }
}

/// Serves a listener that is bound already, until cancelled.
pub async fn serve(ctx: Ctx, listener: TcpListener, settings: Arc<PeerSettings>, shared: PeerShared) -> Exit {
    let handshakes = Arc::new(Semaphore::new(settings.max_connections * HANDSHAKES_PER_SESSION));
    let slots = Arc::new(Semaphore::new(settings.max_connections));
    let server = Arc::new(Server { ctx: ctx.clone(), settings, shared, slots, logged: Mutex::default() });
    let mut sessions = JoinSet::new();
    let mut reminder = interval(MIGRATION_REMINDER);
    let fresh = server.shared.tls.keep_fresh(&ctx.cancel);
    tokio::pin!(fresh);
    loop {
        tokio::select! {
            () = ctx.cancel.cancelled() => break,
            () = &mut fresh => break,
            _ = reminder.tick(), if server.settings.client_auth == ClientAuth::AcceptMissing => {
                tracing::warn!("PEER_CLIENT_AUTH=accept-missing: connections without a certificate are accepted");
            }
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match handshakes.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let server = server.clone();
                        sessions.spawn(async move { server.session(stream, from, permit).await });
                    }
                    Err(_) => server.refuse(from, "too-many", "too many handshakes are under way"),
                },
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would only spin.
                    server.refuse(server.settings.listen, "accept", &error.to_string());
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
        }
    }
    let farewell = async { while sessions.join_next().await.is_some() {} };
    timeout(LINGER, farewell).await.ok();
    Exit::Cancelled
}

/// What all sessions of a listener share.
struct Server {
    ctx: Ctx,
    settings: Arc<PeerSettings>,
    shared: PeerShared,
    slots: Arc<Semaphore>,
    logged: Mutex<BTreeMap<&'static str, Instant>>,
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// A connection, whether the client proved to be the peer, and its place among the sessions.
type Opened = (Socket, bool, OwnedSemaphorePermit);

/// Why we close a connection: the code and what to log.
struct Closing {
    code: CloseCode,
    why: String,
}

impl Closing {
    fn new(code: CloseCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

impl Server {
    /// Counts a connection that never became a session, and says so at most every ten seconds per reason.
    fn refuse(&self, from: SocketAddr, reason: &'static str, why: &str) {
        self.shared.metrics.refused.with_label_values(&[reason]).inc();
        self.shared.metrics.connections.with_label_values(&["in", "refused"]).inc();
        if reason == "closed" {
            // Load balancers and probes connect and go away.
            return tracing::debug!(%from, why, "peer_server: a connection ended before its handshake");
        }
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if logged.get(reason).is_some_and(|last| now.duration_since(*last) < REFUSAL_LOG_PAUSE) {
            return;
        }
        logged.insert(reason, now);
        tracing::warn!(%from, reason, why, "peer_server refused a connection");
    }

    async fn session(&self, stream: TcpStream, from: SocketAddr, permit: OwnedSemaphorePermit) {
        let mut generation = self.shared.tls.generation();
        let (socket, authenticated, _slot) = match timeout(HANDSHAKE, self.handshake(stream)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err((reason, why))) => return self.refuse(from, reason, &why),
            Err(_) => return self.refuse(from, "timeout", "the handshake took too long"),
        };
        drop(permit);
        let result = if authenticated { "accepted" } else { "accepted-unauthenticated" };
        self.shared.metrics.connections.with_label_values(&["in", result]).inc();
        let mut session = Session { server: self, socket, from, authenticated, lines: 0 };
        let idle = Duration::from_millis(self.settings.idle_ms);
        let closing = loop {
            let frame = tokio::select! {
                () = self.ctx.cancel.cancelled() => break Closing::new(CloseCode::Away, "this agent stops"),
                _ = generation.changed() => break Closing::new(CloseCode::Away, "certificates were replaced"),
                frame = timeout(idle, session.socket.next()) => frame,
            };
            let answered = match frame {
                Err(_) => Err(Closing::new(CloseCode::Away, "no frame within the idle time")),
                Ok(None) => return,
                Ok(Some(Ok(message))) => session.take(message).await,
                Ok(Some(Err(error))) => match fault_of(error) {
                    Some(closing) => Err(closing),
                    None => return,
                },
            };
            if let Err(closing) = answered {
                break closing;
            }
        };
        session.end(closing).await;
    }

    /// TLS and the websocket upgrade; the flag tells whether the client proved to be the peer.
    async fn handshake(&self, stream: TcpStream) -> Result<Opened, (&'static str, String)> {
        stream.set_nodelay(true).ok();
        let stream = TlsAcceptor::from(self.shared.tls.server())
            .accept(stream)
            .await
            .map_err(|error| (tls::refusal(&error), error.to_string()))?;
        let authenticated = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
        let slot = self
            .slots
            .clone()
            .try_acquire_owned()
            .map_err(|_| ("too-many", "all connections are in use".to_owned()))?;
        let config = Some(crate::peer::websocket_config());
        let socket = tokio_tungstenite::accept_async_with_config(stream, config)
            .await
            .map_err(|error| ("not-websocket", error.to_string()))?;
        Ok((socket, authenticated, slot))
    }
}

/// The engine did not take a message in time.
#[derive(Debug)]
pub(crate) struct EngineBusy;

/// Gives a message to the engine and waits until it has handled it; the number to acknowledge, if it has. A stamp
/// counts only where the sender is authenticated.
pub(crate) async fn give_to_engine(
    bus: &Bus,
    mut handled: watch::Receiver<BTreeMap<String, OutboxId>>,
    message: PeerMessage,
    stamp: Option<Stamp>,
    authenticated: bool,
) -> Result<Option<OutboxId>, EngineBusy> {
    let stamp = stamp.filter(|_| authenticated);
    let event = Event::PeerMessage { id: stamp.clone(), message, authenticated };
    if timeout(HANDLED_WAIT, bus.send(event)).await != Ok(true) {
        return Err(EngineBusy);
    }
    let Some((instance, id)) = stamp else { return Ok(None) };
    let reached = handled.wait_for(|handled| handled.get(&instance).is_some_and(|highest| *highest >= id));
    let reached = matches!(timeout(HANDLED_WAIT, reached).await, Ok(Ok(_)));
    Ok(reached.then_some(id))
}

/// The close that a read error calls for; `None` where the connection is gone already.
fn fault_of(error: WsError) -> Option<Closing> {
    match error {
        WsError::Capacity(error) => Some(Closing::new(CloseCode::Size, error.to_string())),
        WsError::Utf8(why) => Some(Closing::new(CloseCode::Invalid, why)),
        WsError::Protocol(error) => Some(Closing::new(CloseCode::Protocol, error.to_string())),
        _ => None,
    }
}

/// One connection of the peer.
struct Session<'a> {
    server: &'a Server,
    socket: Socket,
    from: SocketAddr,
    authenticated: bool,
    lines: u32,
}

impl Session<'_> {
    /// Answers one websocket message; control frames are answered by the library as we read on.
    async fn take(&mut self, message: Message) -> Result<(), Closing> {
        let (Message::Text(_) | Message::Binary(_)) = message else { return Ok(()) };
        let metrics = &self.server.shared.metrics;
        let request = match message::decode_request(&message.into_data()) {
            Ok(request) => request,
            Err(error) => {
                metrics.frames.with_label_values(&["malformed"]).inc();
                return Err(Closing::new(CloseCode::Error, error.to_string()));
            }
        };
        metrics.frames.with_label_values(&[request.label()]).inc();
        let ack = match request {
            Request::Ping { status } => {
                match status {
                    Some(status) if self.authenticated => {
                        post_status(&self.server.ctx.bus, &self.server.shared, status).await;
                    }
                    // Evidence that opens destructive steps is not taken from a stranger.
                    Some(_) => metrics.statuses_dropped.inc(),
                    None => {}
                }
                None
            }
            Request::FromPeer { message: Some(message), stamp } => self.hand_over(message, stamp).await?,
            Request::FromPeer { message: None, .. } => {
                self.log("from_peer without a message");
                None
            }
            Request::Unknown { event } => {
                self.log(&format!("unknown event {event}"));
                None
            }
        };
        self.answer(ack).await
    }

    /// Gives a message to the engine. The number to acknowledge comes back once the engine has handled it; numbers
    /// of an unauthenticated sender mean nothing, since they could shadow those of the real peer.
    async fn hand_over(
        &mut self,
        message: PeerMessage,
        stamp: Option<Stamp>,
    ) -> Result<Option<OutboxId>, Closing> {
        if let PeerMessage::Unknown { event } = &message {
            self.log(&format!("message with an event that is not known: {event}"));
        }
        let (bus, handled) = (&self.server.ctx.bus, self.server.shared.handled.clone());
        give_to_engine(bus, handled, message, stamp, self.authenticated)
            .await
            // An answer would tell a predecessor that the message arrived; a close makes it try again.
            .map_err(|EngineBusy| Closing::new(CloseCode::Again, "the engine takes no message now"))
    }

    async fn answer(&mut self, ack: Option<OutboxId>) -> Result<(), Closing> {
        let shared = &self.server.shared;
        let status = shared.status.borrow().clone();
        let pong = message::encode_pong(&shared.instance, Some(&status), ack);
        match timeout(SEND_LIMIT, self.socket.send(Message::text(pong))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Closing::new(CloseCode::Error, error.to_string())),
            Err(_) => Err(Closing::new(CloseCode::Error, "the peer does not read its answers")),
        }
    }

    /// Sends the close frame and reads on for a moment: unread input would turn the close into a reset.
    async fn end(mut self, closing: Closing) {
        if closing.code == CloseCode::Away {
            tracing::debug!(from = %self.from, why = closing.why, "peer_server closes a connection");
        } else {
            self.log(&format!("closed with {}: {}", u16::from(closing.code), closing.why));
        }
        let frame = CloseFrame { code: closing.code, reason: "".into() };
        let farewell = async {
            self.socket.send(Message::Close(Some(frame))).await.ok();
            let mut rest = [0; 4096];
            while matches!(self.socket.get_mut().read(&mut rest).await, Ok(read) if read > 0) {}
        };
        timeout(LINGER, farewell).await.ok();
    }

    fn log(&mut self, what: &str) {
        self.lines += 1;
        if self.lines <= LINES_PER_CONNECTION {
            let last = self.lines == LINES_PER_CONNECTION;
            tracing::warn!(from = %self.from, what, last, "peer_server");
        }
    }
}
