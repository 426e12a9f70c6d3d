//! What can go wrong with a call to the API server, and how it should be taken.
//!
//! Owns the reading of `Status` objects. Never shows a body, and of Secrets and tokens not even the message.

use serde_json::Value;

use crate::model::FailureKind;

/// Characters of a server's message that are kept.
const MESSAGE_LIMIT: usize = 300;

/// A failed call. `call` is the method and the path without its query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KubeError {
    /// The client could not be set up.
    #[error("Kubernetes access: {0}")]
    Setup(String),
    /// No answer: connection refused or broken, TLS failed.
    #[error("{call}: no answer from the API server: {reason}")]
    Connection {
        /// What was tried.
        call: String,
        /// What went wrong.
        reason: String,
    },
    /// No answer in time.
    #[error("{call}: no answer within {limit_ms} ms")]
    Timeout {
        /// What was tried.
        call: String,
        /// The limit in milliseconds.
        limit_ms: u128,
    },
    /// An answer other than 2xx.
    #[error("{call}: answered {status} {reason}: {message}")]
    Status {
        /// What was tried.
        call: String,
        /// HTTP status.
        status: u16,
        /// `reason` of the Status object, or the standard phrase.
        reason: String,
        /// `message` of the Status object, shortened; `(not shown)` for Secrets and tokens.
        message: String,
    },
    /// 410: the resource version is too old, the list must be read again.
    #[error("{call}: the resource version has expired")]
    Gone {
        /// What was tried.
        call: String,
    },
    /// The answer is not what the API promises.
    #[error("{call}: the answer is not understood: {reason}")]
    Malformed {
        /// What was tried.
        call: String,
        /// Why not.
        reason: String,
    },
    /// The answer is longer than we take.
    #[error("{call}: the answer exceeds {limit} bytes")]
    TooLarge {
        /// What was tried.
        call: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A list has no item to act on.
    #[error("no {kind} in namespace {namespace} matches {selector}")]
    NoMatch {
        /// Kind of object.
        kind: &'static str,
        /// Namespace.
        namespace: String,
        /// Label selector.
        selector: String,
    },
    /// A name that came from outside cannot be the name of an object.
    #[error("{0:?} is not the name of an object")]
    BadName(String),
    /// The world did not follow in time.
    #[error("{what}: not reached within {limit_ms} ms; last seen: {last_seen}")]
    NotReached {
        /// What was waited for.
        what: String,
        /// The limit in milliseconds.
        limit_ms: u128,
        /// What was seen last.
        last_seen: String,
    },
}

impl KubeError {
    /// How the failure should be taken.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Connection { .. } | Self::Timeout { .. } | Self::NotReached { .. } => {
                FailureKind::Transient
            }
            // A proxy in between answers with its own pages while the API server is away.
            Self::Malformed { .. } => FailureKind::Transient,
            Self::Status { status: 409 | 412, .. } | Self::Gone { .. } => FailureKind::Conflict,
            Self::Status { status: 408 | 429 | 500..=599, .. } => FailureKind::Transient,
            Self::Status { .. }
            | Self::Setup(_)
            | Self::TooLarge { .. }
            | Self::NoMatch { .. }
            | Self::BadName(_) => FailureKind::Permanent,
        }
    }

    /// Whether the API server says that there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }

    /// Whether somebody else changed (or made) the object.
    pub fn is_conflict(&self) -> bool {
        self.kind() == FailureKind::Conflict
    }

    /// The error of an answer with this status and body.
    pub(super) fn from_answer(call: String, status: u16, body: &[u8], secret: bool) -> Self {
        let object = serde_json::from_slice(body).unwrap_or(Value::Null);
        Self::from_status(call, status, &object, secret)
    }

    /// The error of a `Status` object, as answers and `ERROR` watch events carry it.
    pub(super) fn from_status(call: String, status: u16, object: &Value, secret: bool) -> Self {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let reason = text("reason").filter(|reason| is_word(reason));
        if status == 410 || matches!(reason, Some("Expired" | "Gone")) {
            return Self::Gone { call };
        }
        let phrase = http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
        let message = match text("message") {
            _ if secret => "(not shown)".to_owned(),
            Some(message) => one_line(message),
            None => "no message".to_owned(),
        };
        Self::Status { call, status, reason: reason.or(phrase).unwrap_or("unknown").to_owned(), message }
    }
}

/// A reason is one CamelCase word; anything else might be anything.
fn is_word(text: &str) -> bool {
    text.len() <= 40 && !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Shortened and without control characters, fit for a log line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> KubeError {
        KubeError::from_answer("GET /x".into(), code, b"{}", false)
    }

    #[test]
    fn failures_are_sorted_by_status() {
        for code in [408, 429, 500, 503, 504] {
            assert_eq!(status(code).kind(), FailureKind::Transient, "{code}");
        }
        for code in [409, 412, 410] {
            assert_eq!(status(code).kind(), FailureKind::Conflict, "{code}");
        }
        for code in [400, 401, 403, 404, 422, 301] {
            assert_eq!(status(code).kind(), FailureKind::Permanent, "{code}");
        }
        assert!(status(404).is_not_found());
        assert!(matches!(status(410), KubeError::Gone { .. }));
    }

    #[test]
    fn a_secret_calls_message_is_withheld() {
        let body = br#"{"reason":"Invalid","message":"value hunter2 is bad"}"#;
        let shown = KubeError::from_answer("PATCH /s".into(), 422, body, true).to_string();
        assert_eq!(shown, "PATCH /s: answered 422 Invalid: (not shown)");
        let open = KubeError::from_answer("PATCH /s".into(), 422, body, false).to_string();
        assert!(open.contains("hunter2"));
    }

    #[test]
    fn a_message_stays_one_short_line() {
        let body = serde_json::json!({"message": format!("a\nb{}", "x".repeat(2000))}).to_string();
        let shown = KubeError::from_answer("GET /x".into(), 500, body.as_bytes(), false).to_string();
        assert!(!shown.contains('\n') && shown.len() < 400, "{shown}");
    }
}
