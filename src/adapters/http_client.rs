//! One way to make HTTP clients and to read their answers: bounded in time and size, errors with a kind.
//!
//! Owns trust, proxies, redirects, limits. Never knows whom it talks to. Under every HTTP adapter.
//!
//! * TLS: `ring`, and the trust roots of the operating system (`/etc/ssl/certs`, or what `SSL_CERT_FILE` and
//!   `SSL_CERT_DIR` name) by reqwest's platform verifier. An image without any roots can still talk plain HTTP.
//! * Proxies of the environment (`HTTP_PROXY`, `NO_PROXY`, ...) are honoured, never for a loopback address.
//! * Redirects are not followed: a write is judged by its own status. Nothing is retried here.
//! * No connection is kept unless asked for: calls are seconds apart, and a stale one would fail the very call that
//!   matters.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use crate::model::FailureKind;

/// Most bytes of an answer that are read.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// Characters of a refusal's text that go into an error.
const EXCERPT: usize = 160;

/// How long an unused connection is kept, where any is.
const IDLE: Duration = Duration::from_secs(20);

/// Why a call failed. `what` says what was tried on what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The client could not be made.
    #[error("HTTP client: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
    /// No connection, or one that ended without an answer.
    #[error("{what}: no answer: {reason}")]
    NoAnswer {
        /// What was tried.
        what: String,
        /// Cause.
        reason: String,
    },
    /// The time was up.
    #[error("{what}: timed out")]
    Timeout {
        /// What was tried.
        what: String,
    },
    /// Answered with an unwanted status.
    #[error("{what}: status {status}{excerpt}")]
    Status {
        /// What was tried.
        what: String,
        /// The status.
        status: u16,
        /// Beginning of the answer's text, led by `: `, or empty.
        excerpt: String,
    },
    /// The answer is larger than allowed.
    #[error("{what}: the answer is larger than {limit} bytes")]
    TooLarge {
        /// What was tried.
        what: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer is not what it should be.
    #[error("{what}: {reason}")]
    Malformed {
        /// What was tried.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl HttpError {
    /// How to take it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NoAnswer { .. } | Self::Timeout { .. } => FailureKind::Transient,
            Self::Status { status, .. } => kind_of_status(*status),
            Self::Client { .. } | Self::TooLarge { .. } | Self::Malformed { .. } => FailureKind::Permanent,
        }
    }
}

/// How to take a status that is not a success (RFC 9110): 408, 425, 429 and 5xx may pass, 409 and 412 are a change by
/// somebody else, everything else stays.
pub fn kind_of_status(status: u16) -> FailureKind {
    match status {
        408 | 425 | 429 | 500..=599 => FailureKind::Transient,
        409 | 412 => FailureKind::Conflict,
        _ => FailureKind::Permanent,
    }
}

/// A client for the system at `base`; `total` bounds a whole call, connecting and reading included.
pub fn client(base: &str, total: Duration) -> Result<Client, HttpError> {
    client_of(base, total, &Trust::default(), 0)
}

/// As [`client`], and keeps up to `idle` connections to each host for a little while: for bursts of calls.
pub fn keeping_client(base: &str, total: Duration, idle: usize) -> Result<Client, HttpError> {
    client_of(base, total, &Trust::default(), idle)
}

/// Certificates beside the system's.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// CA certificates (PEM) that alone are trusted; `None` = the system's.
    pub ca: Option<Vec<u8>>,
    /// Client certificate and key (PEM).
    pub identity: Option<Vec<u8>>,
}

/// As [`client`], with certificates of one's own.
pub fn client_with(base: &str, total: Duration, trust: &Trust) -> Result<Client, HttpError> {
    client_of(base, total, trust, 0)
}

fn client_of(base: &str, total: Duration, trust: &Trust, idle: usize) -> Result<Client, HttpError> {
    // reqwest takes the process's provider; where somebody already installed one (ours), this does nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let plain = base.starts_with("http://");
    let mut builder_with = builder(base, total, idle);
    if let Some(ca) = &trust.ca {
        let certificates = reqwest::Certificate::from_pem_bundle(ca).map_err(|e| broken(&e))?;
        builder_with = builder_with.tls_certs_only(certificates);
    }
    if let Some(identity) = &trust.identity {
        builder_with = builder_with.identity(reqwest::Identity::from_pem(identity).map_err(|e| broken(&e))?);
    }
    match builder_with.build() {
        Ok(client) => Ok(client),
        // No trust roots on this machine: that must not stop what never uses TLS.
        Err(_) if plain => builder(base, total, idle).tls_certs_only([]).build().map_err(|e| broken(&e)),
        Err(error) => Err(broken(&error)),
    }
}

fn broken(error: &reqwest::Error) -> HttpError {
    HttpError::Client { reason: cause(error) }
}

fn builder(base: &str, total: Duration, idle: usize) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("switchover-agent/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(idle)
        .pool_idle_timeout(IDLE)
        .connect_timeout(total)
        .timeout(total);
    if is_loopback(base) { builder.no_proxy() } else { builder }
}

fn is_loopback(base: &str) -> bool {
    let Ok(url) = Url::parse(base) else { return false };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: reqwest::header::HeaderMap,
    /// Its body, at most [`BODY_LIMIT`] bytes.
    pub body: Bytes,
    what: String,
}

impl Answer {
    /// The answer where its status is 2xx, the refusal as an error otherwise.
    pub fn success(self) -> Result<Self, HttpError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let text: String = String::from_utf8_lossy(&self.body)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(EXCERPT)
            .collect();
        let text = text.trim();
        let excerpt = if text.is_empty() { String::new() } else { format!(": {text}") };
        Err(HttpError::Status { what: self.what, status: self.status.as_u16(), excerpt })
    }

    /// The body as JSON, whatever its content type says.
    pub fn json(&self) -> Result<Value, HttpError> {
        serde_json::from_slice(&self.body).map_err(|error| self.malformed(format!("not JSON: {error}")))
    }

    /// An error that says what is wrong with this answer.
    pub fn malformed(&self, reason: impl Into<String>) -> HttpError {
        HttpError::Malformed { what: self.what.clone(), reason: reason.into() }
    }
}

/// Sends a request and reads the whole answer, whatever its status. `what` names it in errors, without secrets.
pub async fn call(request: RequestBuilder, what: &str) -> Result<Answer, HttpError> {
    let response = request.send().await.map_err(|error| failed(error, what))?;
    let status = response.status();
    let headers = response.headers().clone();
    let body = read(response, what, BODY_LIMIT).await?;
    Ok(Answer { status, headers, body, what: what.to_owned() })
}

/// Reads a body of at most `limit` bytes.
pub async fn read(mut response: Response, what: &str, limit: usize) -> Result<Bytes, HttpError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(error, what))? {
        if body.len() + chunk.len() > limit {
            return Err(HttpError::TooLarge { what: what.to_owned(), limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn failed(error: reqwest::Error, what: &str) -> HttpError {
    let what = what.to_owned();
    if error.is_timeout() {
        return HttpError::Timeout { what };
    }
    // The address may carry a password, so it never gets into the text.
    let error = error.without_url();
    if error.is_builder() {
        return HttpError::Malformed { what, reason: cause(&error) };
    }
    HttpError::NoAnswer { what, reason: cause(&error) }
}

/// The deepest cause: reqwest's own sentence only says that something failed.
fn cause(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_whether_trying_again_helps() {
        for (status, kind) in [
            (301, FailureKind::Permanent),
            (400, FailureKind::Permanent),
            (401, FailureKind::Permanent),
            (404, FailureKind::Permanent),
            (409, FailureKind::Conflict),
            (412, FailureKind::Conflict),
            (429, FailureKind::Transient),
            (500, FailureKind::Transient),
            (503, FailureKind::Transient),
        ] {
            assert_eq!(kind_of_status(status), kind, "{status}");
        }
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for base in
            ["http://127.0.0.1:8008", "http://127.41.2.11/x", "http://localhost:1", "http://[::1]:8008"]
        {
            assert!(is_loopback(base), "{base}");
        }
        for base in ["http://patroni:8008", "https://10.0.0.1", "http://127.example.org"] {
            assert!(!is_loopback(base), "{base}");
        }
    }
}
