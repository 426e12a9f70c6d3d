//! The HTTP server of a site: one port, one dispatcher, bounded bodies and connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::serve::{IncomingStream, Listener};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::faults::Fault;
use super::world::{SiteHandle, World};
use super::{api, control, names, patroni};
use crate::model::Side;

/// Largest request body in bytes (the limit of etcd behind a real API server).
const BODY_LIMIT: usize = 1_500_000;
/// Connections at one time; more wait.
const CONNECTION_LIMIT: usize = 1024;
/// Time in which a request's body must be there.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Time after which a hanging request is given up.
const HANG_TIME: Duration = Duration::from_secs(600);
/// How late a slow API answers.
const SLOW_TIME: Duration = Duration::from_millis(1000);
/// Time that open requests get when the site stops.
const STOP_TIME: Duration = Duration::from_secs(2);

/// An answer.
pub type Answer = http::Response<Body>;

/// A request whose body is here.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its query, without the question mark.
    pub query: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Request {
    /// The path after a prefix; empty where it does not begin so.
    pub fn rest(&self, prefix: &str) -> &str {
        self.path.strip_prefix(prefix).unwrap_or_default()
    }

    /// The first value of a query parameter, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let url = reqwest::Url::parse(&format!("http://lab/?{}", self.query.as_deref()?)).ok()?;
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

/// A JSON answer.
pub fn json_answer(status: StatusCode, body: &Value) -> Answer {
    text_answer(status, "application/json", body.to_string())
}

/// An answer of some text type.
pub fn text_answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Answer::new(Body::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Starts the server of a site.
pub(super) fn serve(world: World, side: Side, listener: TcpListener) -> io::Result<SiteHandle> {
    let address = listener.local_addr()?;
    let cancel = CancellationToken::new();
    let limits = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    let site = Served { world, side, cancel: cancel.clone() };
    let router = Router::new().fallback(dispatch).with_state(site);
    let server = axum::serve(
        Sockets::new(listener, limits),
        router.into_make_service_with_connect_info::<Connection>(),
    );
    let stop = cancel.clone();
    let task = tokio::spawn(async move {
        let graceful = server.with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::select! {
            result = graceful => {
                if let Err(error) = result {
                    tracing::error!(%error, %side, "the simulated site's server ended");
                }
            }
            () = async { stop.cancelled().await; tokio::time::sleep(STOP_TIME).await } => {}
        }
    });
    Ok(SiteHandle::new(address, cancel, task))
}

#[derive(Clone)]
struct Served {
    world: World,
    side: Side,
    cancel: CancellationToken,
}

async fn dispatch(
    State(site): State<Served>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: http::Request<Body>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY_LIMIT)).await;
    let body = match read {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let problem =
                json!({"error": format!("the body is unreadable or longer than {BODY_LIMIT} bytes")});
            return json_answer(StatusCode::PAYLOAD_TOO_LARGE, &problem);
        }
        Err(_) => return json_answer(StatusCode::REQUEST_TIMEOUT, &json!({"error": "the body is late"})),
    };
    let request = Request {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body,
    };
    let number = is_change(&request)
        .then(|| {
            let (method, path) = (request.method.as_str(), request.path_and_query());
            site.world.with(site.side, |site, _| site.activity.arrived(method, &path, &request.body))
        })
        .flatten();
    let answer = route(&site, &connection, &request).await;
    if let Some(number) = number
        && !connection.aborted()
    {
        site.world.with(site.side, |site, _| site.activity.answered(number, answer.status().as_u16()));
    }
    answer
}

/// Whether a request asks for a change that the activity list shows.
fn is_change(request: &Request) -> bool {
    let path = request.path.as_str();
    let changes = matches!(request.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    let shown = (path.starts_with("/k8s/") && !path.ends_with("/tokenreviews"))
        || path.starts_with("/patroni/")
        || path.starts_with("/maintenance/")
        || (path == "/tekton" || path.starts_with("/tekton/") && !path.starts_with("/tekton/mode/"));
    changes && shown
}

async fn route(served: &Served, connection: &Connection, request: &Request) -> Answer {
    let (world, side) = (&served.world, served.side);
    let first = request.path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "k8s" => kubernetes(served, connection, request).await,
        "patroni" => {
            let answer =
                world.with(side, |site, _| patroni::answer(site, world.settings(), request)).flatten();
            answer.unwrap_or_else(|| connection.abort())
        }
        "tekton" if request.path.starts_with("/tekton/mode/") => control::tekton_mode(world, side, request),
        "tekton" => {
            let answer = listener(served, request);
            let mute = world.with(side, |site, _| site.faults.bites(Fault::ListenerMute)) == Some(true);
            if mute { connection.abort() } else { answer }
        }
        "maintenance" => control::maintenance(world, side, request),
        "dns" if request.method == Method::GET => resolve(served).await,
        "phase" => control::phase(world, side, request),
        "initiate" => control::initiate_request(world, side, request),
        "lift" => control::lift_request(world, side, request),
        "activity" => control::activity(world, side, request),
        "lab" if request.path == "/lab/state" && request.method == Method::GET => {
            json_answer(StatusCode::OK, &world.describe(side))
        }
        "health" if request.path == "/health" => json_answer(StatusCode::OK, &json!({"status": "up"})),
        _ => control::not_found(),
    }
}

async fn kubernetes(served: &Served, connection: &Connection, request: &Request) -> Answer {
    let (world, side) = (&served.world, served.side);
    let on = |fault| world.with(side, |site, _| site.faults.on(fault)) == Some(true);
    if on(Fault::ApiRefused) {
        return connection.abort();
    }
    if world.with(side, |site, _| site.faults.bites(Fault::ApiDown)) == Some(true) {
        return text_answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "upstream is down\n".to_owned());
    }
    if on(Fault::ApiSlow) {
        served.wait_for(SLOW_TIME).await;
    }
    if on(Fault::ApiHang) {
        served.wait_until_lifted(Fault::ApiHang).await;
        return connection.abort();
    }
    let answer = api::answer(world, side, &served.cancel, request);
    let mute = request.method == Method::DELETE
        && world.with(side, |site, _| site.faults.bites(Fault::ApiDeleteMute)) == Some(true);
    if mute { connection.abort() } else { answer }
}

fn listener(served: &Served, request: &Request) -> Answer {
    if request.method != Method::POST {
        return control::method_refused("POST");
    }
    let settings = served.world.settings();
    let answer = served.world.with(served.side, |site, now| {
        if site.faults.bites(Fault::ListenerDown) {
            return (StatusCode::SERVICE_UNAVAILABLE, json!({"error": "no listener"}));
        }
        let fails = site.faults.bites(Fault::PipelineFail);
        site.pipelines.listen(&mut site.store, now, settings, &request.headers, &request.body, fails)
    });
    let (status, body) = answer.unwrap_or((StatusCode::NOT_FOUND, Value::Null));
    json_answer(status, &body)
}

/// `GET /dns`: the answer of `getaddrinfo` as JSON, the predecessor's `DNS_SERVICE_URL`.
async fn resolve(served: &Served) -> Answer {
    let addresses = match names::view(&served.world, served.side, None) {
        names::View::Addresses(addresses) => addresses,
        names::View::Silence => {
            served.wait_until_lifted(Fault::DnsTimeout).await;
            return json_answer(StatusCode::GATEWAY_TIMEOUT, &json!([]));
        }
        names::View::Empty | names::View::ServerFailure => Vec::new(),
    };
    // [family, type, protocol, canonical name, [address, port]]: AF_INET, SOCK_STREAM, IPPROTO_TCP.
    let list: Vec<Value> = addresses.iter().map(|ip| json!([2, 1, 6, "", [ip.to_string(), 443]])).collect();
    json_answer(StatusCode::OK, &Value::Array(list))
}

impl Served {
    async fn wait_for(&self, time: Duration) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    async fn wait_until_lifted(&self, fault: Fault) {
        let end = tokio::time::Instant::now() + HANG_TIME;
        let on = || self.world.with(self.side, |site, _| site.faults.on(fault)) == Some(true);
        while on() && !self.cancel.is_cancelled() && tokio::time::Instant::now() < end {
            self.wait_for(Duration::from_millis(20)).await;
        }
    }
}

/// What a handler can do to the connection that its request came on.
#[derive(Debug, Clone)]
pub(in crate::lab) struct Connection {
    aborted: Arc<AtomicBool>,
}

impl Connection {
    /// Closes the connection without an answer: the answer given back is never written.
    pub(in crate::lab) fn abort(&self) -> Answer {
        self.aborted.store(true, Ordering::SeqCst);
        Answer::default()
    }

    fn aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }
}

impl Connected<IncomingStream<'_, Sockets>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Sockets>) -> Self {
        Self { aborted: Arc::clone(&stream.io().aborted) }
    }
}

pub(in crate::lab) struct Sockets {
    listener: TcpListener,
    limits: Arc<Semaphore>,
}

impl Sockets {
    pub(in crate::lab) fn new(listener: TcpListener, limits: Arc<Semaphore>) -> Self {
        Self { listener, limits }
    }
}

impl Listener for Sockets {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        let permit = Arc::clone(&self.limits).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Socket { stream, aborted: Arc::default(), _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that can be told to say nothing more.
pub(in crate::lab) struct Socket {
    stream: TcpStream,
    aborted: Arc<AtomicBool>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Socket {
    fn check(&self) -> io::Result<()> {
        if self.aborted.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
