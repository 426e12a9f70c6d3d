//! Why something at Google failed, and how to take it.

use std::time::Duration;

use serde_json::Value;

use super::credentials::CredentialError;
use crate::adapters::attempts::Retryable;
use crate::adapters::http_client::{HttpError, kind_of_status};
use crate::adapters::wire::Got;
use crate::model::FailureKind;

/// Characters of a message that are kept.
const MESSAGE_LIMIT: usize = 200;
/// Reasons of a 403 that mean "slower", not "no": the quota of a minute is used up.
const RATE_REASONS: [&str; 4] =
    ["rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "RATE_LIMIT_EXCEEDED"];

/// Why a call, or a chain of calls, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GcpError {
    /// No usable answer.
    #[error("GCP: {0}")]
    Http(HttpError),
    /// The API refused.
    #[error("GCP: {what}: status {status}, {reason}: {message}")]
    Refused {
        /// What was tried on what.
        what: String,
        /// HTTP status.
        status: u16,
        /// The first error's reason, such as `notFound`; `-` where there is none.
        reason: String,
        /// Its message, shortened.
        message: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the API promises.
    #[error("GCP: {what}: {reason}")]
    Malformed {
        /// What was tried on what.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// No access token.
    #[error("GCP: {0}")]
    Credentials(CredentialError),
    /// An operation ended with an error.
    #[error("GCP: {what}: operation {operation} failed: {code}: {message}")]
    Operation {
        /// What was tried on what.
        what: String,
        /// Its name.
        operation: String,
        /// The first error's code.
        code: String,
        /// Its message, shortened.
        message: String,
    },
    /// An operation did not end in time. Nobody knows whether the change will be made.
    #[error("GCP: {what}: operation {operation} is not done in time")]
    OperationLate {
        /// What was tried on what.
        what: String,
        /// Its name.
        operation: String,
    },
    /// The router's configuration does not let its list of prefixes have an effect.
    #[error("GCP: router {router}: {reason}")]
    Unsteerable {
        /// Its name.
        router: String,
        /// Why, and what would help.
        reason: String,
    },
    /// The change was made and is not there: somebody else wrote at the same time.
    #[error("GCP: router {router}: after the change, {differs}")]
    NotApplied {
        /// Its name.
        router: String,
        /// What differs.
        differs: String,
    },
    /// The target's breaker is open: nothing was asked.
    #[error("GCP: {target} is not asked: it failed too often; again in {} s", retry_in.as_secs())]
    Blocked {
        /// Name of the target.
        target: String,
        /// Until a probe goes through.
        retry_in: Duration,
    },
    /// The time for all attempts was up.
    #[error("GCP: {operation} of {target}: out of time")]
    Late {
        /// Name of the target.
        target: String,
        /// The operation.
        operation: String,
    },
}

impl GcpError {
    /// How to take it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Http(error) => match error {
                // A broken or cut body is the line's fault, not the question's.
                HttpError::Malformed { .. } => FailureKind::Transient,
                other => other.kind(),
            },
            Self::Refused { status: 403, reason, .. } if RATE_REASONS.contains(&reason.as_str()) => {
                FailureKind::Transient
            }
            Self::Refused { status: 400, reason, .. } if reason == "resourceNotReady" => {
                FailureKind::Transient
            }
            Self::Refused { status, .. } => kind_of_status(*status),
            Self::Malformed { .. } | Self::Blocked { .. } | Self::Late { .. } => FailureKind::Transient,
            Self::Credentials(error) => error.kind(),
            Self::OperationLate { .. } => FailureKind::Transient,
            Self::NotApplied { .. } => FailureKind::Conflict,
            Self::Operation { .. } | Self::Unsteerable { .. } => FailureKind::Permanent,
        }
    }

    /// HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// One short word for events: `api_error_http_404`, or `unexpected_error`.
    pub fn word(&self) -> String {
        match self.status() {
            Some(status) => format!("api_error_http_{status}"),
            None => "unexpected_error".to_owned(),
        }
    }

    /// What an answer that is no success means.
    pub(super) fn refused(what: &str, got: &Got) -> Self {
        let body = got.json().unwrap_or(Value::Null);
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(shorten);
        let reason = text("/error/errors/0/reason").or_else(|| text("/error/status"));
        let message = text("/error/message").or_else(|| text("/error/errors/0/message"));
        Self::Refused {
            what: what.to_owned(),
            status: got.status,
            reason: reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| "-".to_owned()),
            message: message.unwrap_or_else(|| "-".to_owned()),
            retry_after: got.retry_after(),
        }
    }

    pub(super) fn malformed(what: &str, reason: impl Into<String>) -> Self {
        Self::Malformed { what: what.to_owned(), reason: reason.into() }
    }
}

impl Retryable for GcpError {
    fn kind(&self) -> FailureKind {
        Self::kind(self)
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    fn counts(&self) -> bool {
        !matches!(self, Self::Unsteerable { .. } | Self::Blocked { .. })
    }

    fn blocked(target: &str, retry_in: Duration) -> Self {
        Self::Blocked { target: target.to_owned(), retry_in }
    }

    fn late(target: &str, operation: &str) -> Self {
        Self::Late { target: target.to_owned(), operation: operation.to_owned() }
    }
}

/// A text from outside in one short line.
pub(super) fn shorten(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, reason: &str) -> GcpError {
        let body = serde_json::json!({"error": {"code": status, "message": "m",
            "errors": [{"reason": reason, "domain": "global", "message": "m"}]}});
        let got = Got { status, headers: http::HeaderMap::new(), body: body.to_string().into() };
        GcpError::refused("GET x", &got)
    }

    #[test]
    fn a_used_up_quota_is_not_a_missing_permission() {
        for (status, reason, kind) in [
            (403, "rateLimitExceeded", FailureKind::Transient),
            (403, "forbidden", FailureKind::Permanent),
            (400, "resourceNotReady", FailureKind::Transient),
            (400, "invalid", FailureKind::Permanent),
            (404, "notFound", FailureKind::Permanent),
            (409, "conflict", FailureKind::Conflict),
            (412, "conditionNotMet", FailureKind::Conflict),
            (429, "-", FailureKind::Transient),
            (503, "backendError", FailureKind::Transient),
        ] {
            assert_eq!(refused(status, reason).kind(), kind, "{status} {reason}");
        }
    }

    #[test]
    fn an_answer_from_something_in_between_is_still_an_error() {
        let body = "<html>bad gateway\n</html>".into();
        let got = Got { status: 502, headers: http::HeaderMap::new(), body };
        assert_eq!(GcpError::refused("GET x", &got).to_string(), "GCP: GET x: status 502, -: -");
    }
}
