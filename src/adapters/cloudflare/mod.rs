//! Cloudflare API v4: one call, its envelope, its limits and its errors.
//!
//! Owns authentication, the envelope `{success, errors, result, result_info}`, retries of reads, `Retry-After` and
//! the rate budget of a token that several instances share. Never knows what is changed: [`load_balancing`] does,
//! and so will every other product beside it. Writes are never repeated here: whoever wrote must read first.

mod budget;
pub mod load_balancing;
pub mod monitors;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::http_client::{HttpError, kind_of_status};
use super::wire::{Sent, Wire};
use crate::config::Secret;
use crate::model::FailureKind;
use budget::Budget;

/// Characters of an error's message that are kept.
const MESSAGE_LIMIT: usize = 200;
/// Pages of a list that are read at most.
const PAGE_LIMIT: u64 = 100;
/// A longer `Retry-After` is not waited for inside a call: the caller comes back later.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How the API is used.
#[derive(Debug, Clone, PartialEq)]
pub struct CloudflareSettings {
    /// Base address, without a trailing slash.
    pub base: String,
    /// API token.
    pub token: Secret,
    /// Limit of one call.
    pub timeout: Duration,
    /// Calls in five minutes that this instance may make; the token's limit is 1200 for all its users.
    pub budget: u32,
    /// Attempts of a read.
    pub attempts: u32,
    /// First and longest wait between attempts, before jitter.
    pub backoff: (Duration, Duration),
    /// Limit of all attempts of a read together.
    pub total: Duration,
}

impl CloudflareSettings {
    /// The usual limits.
    pub fn new(base: impl Into<String>, token: Secret) -> Self {
        Self {
            base: base.into(),
            token,
            timeout: Duration::from_secs(30),
            budget: 300,
            attempts: 5,
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            total: Duration::from_secs(60),
        }
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudflareError {
    /// No usable answer.
    #[error("Cloudflare: {0}")]
    Http(HttpError),
    /// The API refused.
    #[error("Cloudflare: {what}: status {status}, code {code}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// HTTP status.
        status: u16,
        /// The first error's code; 0 where there is none.
        code: i64,
        /// The first error's message, shortened.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("Cloudflare: {what}: {reason}")]
    Malformed {
        /// What was tried.
        what: String,
        /// What is wrong.
        reason: String,
    },
}

impl CloudflareError {
    /// How to take it. Code 1005 (in use) is a conflict whatever the status says.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Http(error) => error.kind(),
            Self::Refused { code: 1005, .. } => FailureKind::Conflict,
            Self::Refused { status, .. } => kind_of_status(*status),
            Self::Malformed { .. } => FailureKind::Transient,
        }
    }

    /// Whether the object does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether a name or value is already taken (code 1003, or a message that says so).
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Refused { code: 1003, .. } | Self::Refused { status: 409, .. })
            || matches!(self, Self::Refused { message, .. } if message.contains("not unique"))
    }

    /// Whether the token may not do this.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. })
    }

    /// Its word in metrics.
    pub(in crate::adapters) fn code(&self) -> String {
        match self {
            Self::Http(HttpError::Timeout { .. }) => "timeout".to_owned(),
            Self::Http(_) => "no-answer".to_owned(),
            Self::Refused { status, .. } => status.to_string(),
            Self::Malformed { .. } => "malformed".to_owned(),
        }
    }
}

/// A client. Cheap to clone: clones share the rate budget.
#[derive(Clone)]
pub struct Cloudflare {
    inner: Arc<Inner>,
}

struct Inner {
    wire: Wire,
    settings: CloudflareSettings,
    budget: Budget,
    requests: IntCounterVec,
    remaining: IntGauge,
}

impl Cloudflare {
    /// Sets the client up; contacts nothing.
    ///
    /// # Errors
    /// Where the HTTP client or the metrics cannot be made.
    pub fn new(settings: CloudflareSettings, registry: &Registry) -> Result<Self, HttpError> {
        let wire = Wire::network(settings.timeout, 0)?;
        Self::over(settings, registry, wire)
    }

    /// A client that goes another way than over the network.
    ///
    /// # Errors
    /// Where the metrics cannot be made.
    pub fn over(settings: CloudflareSettings, registry: &Registry, wire: Wire) -> Result<Self, HttpError> {
        let broken = |error: prometheus::Error| HttpError::Client { reason: error.to_string() };
        let requests = IntCounterVec::new(
            Opts::new("switchover_cf_requests_total", "Calls of the Cloudflare API, by result"),
            &["method", "object", "code"],
        )
        .map_err(broken)?;
        let remaining = IntGauge::new("switchover_cf_rate_remaining", "Calls left in this instance's budget")
            .map_err(broken)?;
        // A restarted task takes the place of the earlier one's metrics.
        let _ = registry.unregister(Box::new(requests.clone()));
        let _ = registry.unregister(Box::new(remaining.clone()));
        registry.register(Box::new(requests.clone())).map_err(broken)?;
        registry.register(Box::new(remaining.clone())).map_err(broken)?;
        let budget = Budget::new(settings.budget);
        Ok(Self { inner: Arc::new(Inner { wire, settings, budget, requests, remaining }) })
    }

    /// One object or anything that is not a list: the `result` of the envelope. Repeated while that may help.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn get(&self, path: &str, object: &'static str) -> Result<Value, CloudflareError> {
        Ok(take_result(self.read(path, object).await?))
    }

    /// All pages of a list.
    ///
    /// # Errors
    /// As [`Cloudflare::get`]; half a list is an error, never a short list.
    pub async fn list(&self, path: &str, object: &'static str) -> Result<Vec<Value>, CloudflareError> {
        self.list_at(path, object, "/result").await
    }

    /// All pages of a list that is somewhere inside the envelope.
    ///
    /// # Errors
    /// As [`Cloudflare::list`].
    pub async fn list_at(
        &self,
        path: &str,
        object: &'static str,
        pointer: &str,
    ) -> Result<Vec<Value>, CloudflareError> {
        let mut all = Vec::new();
        let mut page = 1;
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let target = if page == 1 { path.to_owned() } else { format!("{path}{separator}page={page}") };
            let mut envelope = self.read(&target, object).await?;
            let info =
                |field: &str| envelope.pointer(&format!("/result_info/{field}")).and_then(Value::as_u64);
            let (pages, total) = (info("total_pages").unwrap_or(1), info("total_count"));
            match envelope.pointer_mut(pointer).map(Value::take) {
                Some(Value::Array(items)) => all.extend(items),
                _ => {
                    return Err(malformed(&format!("GET {path}"), "the result is not a list"));
                }
            }
            if page >= pages {
                // Fewer than there are: somebody deleted while we turned the page, or pages are told otherwise.
                return match total {
                    Some(total) if (all.len() as u64) < total => {
                        Err(malformed(&format!("GET {path}"), "the list is not whole"))
                    }
                    _ => Ok(all),
                };
            }
            page += 1;
            if page > PAGE_LIMIT {
                return Err(malformed(&format!("GET {path}"), "too many pages"));
            }
        }
    }

    /// A change: the `result` of the envelope. Sent once.
    ///
    /// # Errors
    /// Any. After a transient one, nobody knows whether the change was made.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        object: &'static str,
    ) -> Result<Value, CloudflareError> {
        Ok(take_result(self.once(&method, path, body, object).await?))
    }

    /// How long `Retry-After` still keeps calls from being made.
    pub(in crate::adapters) fn blocked_for(&self) -> Duration {
        self.inner.budget.blocked_for()
    }

    async fn read(&self, path: &str, object: &'static str) -> Result<Value, CloudflareError> {
        let settings = &self.inner.settings;
        let deadline = Instant::now() + settings.total;
        let mut cap = settings.backoff.0;
        for attempt in 1.. {
            match self.once(&Method::GET, path, None, object).await {
                Err(error) if error.kind() == FailureKind::Transient && attempt < settings.attempts => {
                    let wait = cap.mul_f64(rand::random::<f64>()).max(self.inner.budget.blocked_for());
                    if Instant::now() + wait >= deadline || wait > LONGEST_WAIT {
                        return Err(error);
                    }
                    tracing::debug!(%error, attempt, "Cloudflare read is repeated");
                    tokio::time::sleep(wait).await;
                    cap = (cap * 2).min(settings.backoff.1);
                }
                result => return result,
            }
        }
        unreachable!("the loop ends by returning")
    }

    async fn once(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        object: &'static str,
    ) -> Result<Value, CloudflareError> {
        let inner = &self.inner;
        inner.remaining.set(inner.budget.take().await);
        let result = self.send(method, path, body).await;
        let code = result.as_ref().map_or_else(CloudflareError::code, |_| "200".to_owned());
        inner.requests.with_label_values(&[method.as_str(), object, &code]).inc();
        result
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CloudflareError> {
        let settings = &self.inner.settings;
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let url = format!("{}{path}", settings.base);
        let mut request = Sent::new(method.clone(), url).bearer(settings.token.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let sent = self.inner.wire.send(request, &what, settings.timeout).await;
        let answer = sent.map_err(CloudflareError::Http)?;
        if answer.status == 429 {
            self.inner.budget.block(answer.retry_after().unwrap_or(Duration::from_secs(5)));
        }
        judge(&what, answer.status, answer.json())
    }
}

/// Whether an answer is a success (2xx and `success: true`); gives the envelope.
///
/// # Errors
/// The first error of the envelope, or what is wrong with it.
pub fn judge(what: &str, status: u16, envelope: Option<Value>) -> Result<Value, CloudflareError> {
    let good = (200..300).contains(&status);
    let success = envelope.as_ref().and_then(|e| e.get("success")).and_then(Value::as_bool);
    match envelope {
        Some(envelope) if good && success == Some(true) => Ok(envelope),
        None if good => Err(malformed(what, "the answer is not JSON")),
        envelope => {
            let first = envelope.as_ref().and_then(|e| e.pointer("/errors/0"));
            let message = first.and_then(|e| e.get("message")).and_then(Value::as_str).unwrap_or("-");
            let message = message.chars().filter(|c| !c.is_control()).take(MESSAGE_LIMIT).collect();
            let code = first.and_then(|e| e.get("code")).and_then(Value::as_i64).unwrap_or(0);
            Err(CloudflareError::Refused { what: what.to_owned(), status, code, message })
        }
    }
}

fn take_result(mut envelope: Value) -> Value {
    envelope.get_mut("result").map(Value::take).unwrap_or(Value::Null)
}

fn malformed(what: &str, reason: &str) -> CloudflareError {
    CloudflareError::Malformed { what: what.to_owned(), reason: reason.to_owned() }
}
