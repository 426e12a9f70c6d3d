//! What every simulated cloud stands behind: sockets or a function, scripted failures, a hook before every call, a list
//! of calls and counters. Never knows what a call means: the cloud behind it does.

mod delivery;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::http::Request;
use crate::adapters::wire::Wire;
use crate::model::Mono;
pub use delivery::ServedCloud;

/// Calls that are remembered; the oldest leave first.
const SEEN_LIMIT: usize = 20_000;

/// An answer of a simulated cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Headers besides the content type.
    pub headers: Vec<(&'static str, String)>,
    /// Content type.
    pub kind: &'static str,
    /// Body.
    pub body: String,
}

impl Reply {
    /// A JSON answer.
    pub fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: Vec::new(), kind: "application/json", body: body.to_string() }
    }
}

/// A cloud: a state that answers calls, one after the other.
pub trait Simulated: Send + 'static {
    /// Answers a call at a moment.
    fn handle(&mut self, request: &Request, now: Mono) -> Reply;
    /// A refusal in the cloud's own words.
    fn refusal(&self, status: u16, reason: &str) -> Reply;
    /// Whether a call asks for a change.
    fn is_write(&self, request: &Request) -> bool;
    /// Name of the operation, for the counters.
    fn operation(&self, request: &Request) -> &'static str;
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudFault {
    /// Refused with a status and a reason; nothing is done.
    Refused(u16, &'static str),
    /// Refused with 429 and this `Retry-After` in seconds; nothing is done.
    RateLimited(u64),
    /// Done, and answered this much later.
    Slow(Duration),
    /// Nothing is done, nothing is answered.
    Silent,
    /// Done, and nothing is answered.
    DoneSilently,
    /// Nothing is done, the connection is closed.
    Reset,
    /// Done, and the connection is closed without an answer.
    DoneReset,
    /// Done, and the answer is no JSON.
    NotJson,
    /// Done, and the answer ends in its middle.
    Truncated,
    /// A page of something in between, with this status; nothing is done.
    Html(u16),
}

/// A call that arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenCall {
    /// Name of the operation.
    pub operation: &'static str,
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Body, where it is JSON.
    pub body: Option<Value>,
    /// Milliseconds since the front began.
    pub at: Mono,
    /// Status of the answer; 0 where there was none.
    pub status: u16,
    /// Whether it asks for a change.
    pub write: bool,
}

type Hook<S> = Box<dyn FnMut(&Request, &mut S) + Send>;

struct Shared<S> {
    state: S,
    faults: Vec<(String, String, u32, CloudFault)>,
    seen: VecDeque<SeenCall>,
    counts: BTreeMap<&'static str, u64>,
    writes: u64,
    hook: Option<Hook<S>>,
    began: Instant,
}

/// The front of a cloud. Cheap to clone: clones are the same cloud.
pub struct Front<S> {
    shared: Arc<Mutex<Shared<S>>>,
}

impl<S> Clone for Front<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// How a call is delivered.
struct Delivery {
    wait: Duration,
    then: Then,
}

enum Then {
    Answer(Reply),
    Cut(Reply),
    Close,
    Silence,
}

impl<S: Simulated> Front<S> {
    /// A cloud that nobody has called yet. Its clock is tokio's, and begins now.
    pub fn new(state: S) -> Self {
        let shared = Shared {
            state,
            faults: Vec::new(),
            seen: VecDeque::new(),
            counts: BTreeMap::new(),
            writes: 0,
            hook: None,
            began: Instant::now(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Looks at the cloud, or changes it as a person would.
    pub fn with<T>(&self, act: impl FnOnce(&mut S) -> T) -> T {
        act(&mut self.lock().state)
    }

    /// As [`Front::with`], with the cloud's time.
    pub fn at<T>(&self, act: impl FnOnce(&mut S, Mono) -> T) -> T {
        let mut shared = self.lock();
        let now = since(shared.began);
        act(&mut shared.state, now)
    }

    /// The next `times` calls of this method whose path and query contain `part` go wrong.
    pub fn fail(&self, method: &str, part: &str, times: u32, fault: CloudFault) {
        self.lock().faults.push((method.to_owned(), part.to_owned(), times, fault));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Something to do before every call, such as between a read and the write that follows from it.
    pub fn before_each(&self, hook: impl FnMut(&Request, &mut S) + Send + 'static) {
        self.lock().hook = Some(Box::new(hook));
    }

    /// The latest calls, the oldest first.
    pub fn seen(&self) -> Vec<SeenCall> {
        self.lock().seen.iter().cloned().collect()
    }

    /// Those of the latest calls that ask for a change.
    pub fn writes(&self) -> Vec<SeenCall> {
        self.lock().seen.iter().filter(|call| call.write).cloned().collect()
    }

    /// Calls by operation since the beginning, or since [`Front::forget`].
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    /// Calls of one operation.
    pub fn count(&self, operation: &str) -> u64 {
        self.lock().counts.get(operation).copied().unwrap_or(0)
    }

    /// Calls that ask for a change.
    pub fn write_count(&self) -> u64 {
        self.lock().writes
    }

    /// Forgets the calls so far.
    pub fn forget(&self) {
        let mut shared = self.lock();
        shared.seen.clear();
        shared.counts.clear();
        shared.writes = 0;
    }

    /// The way straight into this cloud, without sockets: works on a paused clock.
    pub fn wire(&self) -> Wire {
        let front = self.clone();
        Wire::Direct(Arc::new(move |sent| {
            let front = front.clone();
            Box::pin(async move { front.direct(sent).await })
        }))
    }

    /// One call, from the hook to the way its answer goes.
    fn take(&self, request: &Request) -> Delivery {
        let mut shared = self.lock();
        let shared = &mut *shared;
        let now = since(shared.began);
        if let Some(hook) = &mut shared.hook {
            hook(request, &mut shared.state);
        }
        let target = target(request);
        let mut fault = None;
        for (on, part, times, what) in &mut shared.faults {
            if *times > 0 && on == request.method.as_str() && target.contains(part.as_str()) {
                *times -= 1;
                fault = Some(*what);
                break;
            }
        }
        let (write, operation) = (shared.state.is_write(request), shared.state.operation(request));
        let delivery = deliver(&mut shared.state, request, now, fault);
        let status = match &delivery.then {
            Then::Answer(reply) | Then::Cut(reply) => reply.status,
            Then::Close | Then::Silence => 0,
        };
        *shared.counts.entry(operation).or_default() += 1;
        shared.writes += u64::from(write);
        if shared.seen.len() == SEEN_LIMIT {
            shared.seen.pop_front();
        }
        let (method, body) = (request.method.to_string(), serde_json::from_slice(&request.body).ok());
        shared.seen.push_back(SeenCall { operation, method, target, body, at: now, status, write });
        delivery
    }

    fn lock(&self) -> MutexGuard<'_, Shared<S>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deliver<S: Simulated>(state: &mut S, request: &Request, now: Mono, fault: Option<CloudFault>) -> Delivery {
    let mut wait = Duration::ZERO;
    let html = |status| Reply {
        status,
        headers: Vec::new(),
        kind: "text/html",
        body: "<html><body>Something in between is broken.</body></html>".to_owned(),
    };
    let then = match fault {
        None => Then::Answer(state.handle(request, now)),
        Some(CloudFault::Refused(status, reason)) => Then::Answer(state.refusal(status, reason)),
        Some(CloudFault::RateLimited(seconds)) => {
            let mut reply = state.refusal(429, "rateLimitExceeded");
            reply.headers.push(("retry-after", seconds.to_string()));
            Then::Answer(reply)
        }
        Some(CloudFault::Slow(time)) => {
            wait = time;
            Then::Answer(state.handle(request, now))
        }
        Some(CloudFault::Silent) => Then::Silence,
        Some(CloudFault::DoneSilently) => {
            state.handle(request, now);
            Then::Silence
        }
        Some(CloudFault::Reset) => Then::Close,
        Some(CloudFault::DoneReset) => {
            state.handle(request, now);
            Then::Close
        }
        Some(CloudFault::NotJson) => {
            let reply = state.handle(request, now);
            Then::Answer(Reply { body: format!("{{{}", reply.body), ..reply })
        }
        Some(CloudFault::Truncated) => Then::Cut(state.handle(request, now)),
        Some(CloudFault::Html(status)) => Then::Answer(html(status)),
    };
    Delivery { wait, then }
}

/// Path and query of a call.
pub fn target(request: &Request) -> String {
    match &request.query {
        Some(query) => format!("{}?{query}", request.path),
        None => request.path.clone(),
    }
}

fn since(began: Instant) -> Mono {
    let passed = Instant::now().saturating_duration_since(began);
    Mono(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
}
