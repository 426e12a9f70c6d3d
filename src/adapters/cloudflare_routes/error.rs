//! Why something about Magic Transit routes failed, and how to take it.

use std::time::Duration;

use crate::adapters::attempts::Retryable;
use crate::adapters::cloudflare::CloudflareError;
use crate::adapters::http_client::HttpError;
use crate::model::FailureKind;

/// Why a call, or a chain of calls, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MagicError {
    /// The API did not do it.
    #[error("{error}")]
    Api {
        /// Why.
        error: CloudflareError,
        /// What it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the API promises.
    #[error("Cloudflare: magic routes: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// No route is ours.
    #[error("Cloudflare: none of the account's {listed} magic routes has {filter:?} in its description")]
    NoMatch {
        /// What is looked for.
        filter: String,
        /// Routes that the account has.
        listed: usize,
    },
    /// The filter is empty: every route would be ours.
    #[error("Cloudflare: the text that a route's description must contain is empty")]
    EmptyFilter,
    /// The token is known and not active.
    #[error("Cloudflare: the token's status is {status:?}, not active")]
    Inactive {
        /// Its status.
        status: String,
    },
    /// The write was answered well and is not there.
    #[error("Cloudflare: magic route {id}: its priority is not {priority} after it was written")]
    NotApplied {
        /// Identifier of the route.
        id: String,
        /// What it should be.
        priority: i64,
    },
    /// The breaker is open: nothing was asked.
    #[error("Cloudflare: {target} is not asked: it failed too often; again in {} s", retry_in.as_secs())]
    Blocked {
        /// Name of the target.
        target: String,
        /// Until a probe goes through.
        retry_in: Duration,
    },
    /// The time for all attempts was up.
    #[error("Cloudflare: {operation} of {target}: out of time")]
    Late {
        /// Name of the target.
        target: String,
        /// The operation.
        operation: String,
    },
}

impl MagicError {
    /// How to take it.
    pub fn kind(&self) -> FailureKind {
        match self {
            // A broken or cut body is the line's fault, not the question's.
            Self::Api { error: CloudflareError::Http(HttpError::Malformed { .. }), .. } => {
                FailureKind::Transient
            }
            Self::Api { error, .. } => error.kind(),
            Self::Malformed { .. } | Self::Blocked { .. } | Self::Late { .. } => FailureKind::Transient,
            Self::NotApplied { .. } => FailureKind::Conflict,
            Self::NoMatch { .. } | Self::EmptyFilter | Self::Inactive { .. } => FailureKind::Permanent,
        }
    }

    pub(super) fn client(error: HttpError) -> Self {
        Self::Api { error: CloudflareError::Http(error), retry_after: None }
    }
}

impl Retryable for MagicError {
    fn kind(&self) -> FailureKind {
        Self::kind(self)
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    fn counts(&self) -> bool {
        !matches!(self, Self::NoMatch { .. } | Self::EmptyFilter | Self::Blocked { .. })
    }

    fn blocked(target: &str, retry_in: Duration) -> Self {
        Self::Blocked { target: target.to_owned(), retry_in }
    }

    fn late(target: &str, operation: &str) -> Self {
        Self::Late { target: target.to_owned(), operation: operation.to_owned() }
    }
}
