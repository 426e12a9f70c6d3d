//! The simulated account behind HTTP: authentication, scripted failures, a hook before every call, a list of calls.
//!
//! Owns the sockets. Decides nothing about load balancing.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Account, TOKEN, refusal};
use crate::lab::http::{Answer, json_answer};

/// Largest body in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// How long a silent call is kept open.
const SILENCE: Duration = Duration::from_secs(120);

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused with this status; nothing is done.
    Status(u16),
    /// Refused with 429 and this `Retry-After` in seconds.
    RateLimited(u64),
    /// Nothing is done and nothing is answered.
    Silent,
    /// It is done, and nothing is answered.
    DoneSilently,
}

/// A call that arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path and query below `/client/v4`.
    pub target: String,
    /// Body.
    pub body: Option<Value>,
    /// When.
    pub at: tokio::time::Instant,
    /// Status of the answer.
    pub status: u16,
}

type Hook = Box<dyn FnMut(&str, &str, &mut Account) + Send>;

struct Shared {
    account: Account,
    faults: Vec<(String, String, u32, Fault)>,
    seen: Vec<Seen>,
    hook: Option<Hook>,
}

/// A served account. Ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    cancel: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Server {
    /// Serves the account on a free port of the loopback address.
    ///
    /// # Errors
    /// Where no socket can be had.
    pub async fn start(account: Account) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Shared { account, faults: Vec::new(), seen: Vec::new(), hook: None };
        let shared = Arc::new(Mutex::new(shared));
        let cancel = CancellationToken::new();
        let router = Router::new().fallback(answer).with_state((shared.clone(), cancel.clone()));
        let stop = cancel.clone();
        tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the simulated Cloudflare ended");
            }
        });
        Ok(Self { address, shared, cancel })
    }

    /// The base address for `CF_API_BASE`.
    pub fn base(&self) -> String {
        format!("http://{}/client/v4", self.address)
    }

    /// Looks at the account, or changes it as a person would.
    pub fn with<T>(&self, act: impl FnOnce(&mut Account) -> T) -> T {
        act(&mut lock(&self.shared).account)
    }

    /// The next `times` calls of this method whose target contains `part` go wrong.
    pub fn fail(&self, method: &str, part: &str, times: u32, fault: Fault) {
        lock(&self.shared).faults.push((method.to_owned(), part.to_owned(), times, fault));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        lock(&self.shared).faults.clear();
    }

    /// Something to do before every call: method, target, account.
    pub fn before_each(&self, hook: impl FnMut(&str, &str, &mut Account) + Send + 'static) {
        lock(&self.shared).hook = Some(Box::new(hook));
    }

    /// The calls so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared).seen.clone()
    }

    /// The calls so far that change something.
    pub fn writes(&self) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|call| call.method != "GET");
        seen
    }

    /// Forgets the calls so far.
    pub fn forget(&self) {
        lock(&self.shared).seen.clear();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    State((shared, cancel)): State<(Arc<Mutex<Shared>>, CancellationToken)>,
    request: http::Request<Body>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return json_answer(StatusCode::PAYLOAD_TOO_LARGE, &Value::Null);
    };
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let target = target.strip_prefix("/client/v4").unwrap_or(target).to_owned();
    let wanted = format!("Bearer {TOKEN}");
    let known = parts.headers.get(header::AUTHORIZATION).is_some_and(|value| *value == *wanted);
    let method = parts.method.as_str().to_owned();
    let body: Option<Value> = serde_json::from_slice(&bytes).ok();
    let (fault, (status, reply)) = decide(&shared, &method, &target, body, known);
    if matches!(fault, Some(Fault::Silent | Fault::DoneSilently)) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(SILENCE) => {}
        }
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json_answer(status, &reply);
    if let Some(Fault::RateLimited(seconds)) = fault {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

fn decide(
    shared: &Mutex<Shared>,
    method: &str,
    target: &str,
    body: Option<Value>,
    known: bool,
) -> (Option<Fault>, super::Reply) {
    let mut shared = lock(shared);
    let shared = &mut *shared;
    if let Some(hook) = &mut shared.hook {
        hook(method, target, &mut shared.account);
    }
    let mut fault = None;
    for (on, part, times, what) in &mut shared.faults {
        if *times > 0 && on == method && target.contains(part.as_str()) {
            *times -= 1;
            fault = Some(*what);
            break;
        }
    }
    let reply = match fault {
        _ if !known => refusal(403, 9109, "invalid access token"),
        Some(Fault::Status(status)) => refusal(status, 1000, "scripted failure"),
        Some(Fault::RateLimited(_)) => refusal(429, 971, "rate limited"),
        Some(Fault::Silent) => refusal(504, 1000, "silence"),
        Some(Fault::DoneSilently) | None => shared.account.handle(method, target, body.as_ref()),
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let at = tokio::time::Instant::now();
    shared.seen.push(Seen { method, target, body, at, status: reply.0 });
    (fault, reply)
}
