//! Who may ask for side effects: a bearer token, or the API server's word for one (TokenReview).
//!
//! Never logs a token. Probes and metrics are open and do not come here.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::config::http::{API_TOKEN, AuthSettings};
use crate::telemetry::Metrics;

/// Asks who a token belongs to (`authentication.k8s.io/v1` TokenReview).
pub trait TokenReviewer: Send + Sync {
    /// The user's name, `None` where the token is not known; `Err` says why nobody could be asked. The call has its
    /// own time-out.
    fn review<'a>(&'a self, token: &'a Secret) -> BoxFuture<'a, Result<Option<String>, String>>;
}

/// How side effects are authenticated.
#[derive(Clone)]
pub enum Auth {
    /// Nobody is let through.
    Nobody,
    /// Whoever knows the token.
    Token(Secret),
    /// Whoever the reviewer knows as one of these users.
    Review {
        /// Asks the API server.
        reviewer: Arc<dyn TokenReviewer>,
        /// User names that are let through.
        allowed_users: Vec<String>,
    },
}

impl Auth {
    /// From the settings; `token-review` without a reviewer lets nobody through.
    pub fn from_settings(settings: &AuthSettings, reviewer: Option<Arc<dyn TokenReviewer>>) -> Self {
        match (settings, reviewer) {
            (AuthSettings::Token(token), _) => Self::Token(token.clone()),
            (AuthSettings::TokenReview { allowed_users }, Some(reviewer)) => {
                Self::Review { reviewer, allowed_users: allowed_users.clone() }
            }
            (AuthSettings::TokenReview { .. }, None) | (AuthSettings::Nobody, _) => Self::Nobody,
        }
    }

    /// Who asks, or the response that turns the request away. Refusals are counted and logged here.
    pub(super) async fn check(
        &self,
        headers: &HeaderMap,
        path: &str,
        metrics: &Metrics,
    ) -> Result<String, Box<Response>> {
        let refusal = match self.decide(headers).await {
            Ok(who) => return Ok(who),
            Err(refusal) => refusal,
        };
        metrics.count_auth_failure(refusal.reason);
        tracing::warn!(path, reason = refusal.reason, "side effect refused");
        let mut response = (refusal.status, Json(json!({"detail": refusal.detail}))).into_response();
        if refusal.status == StatusCode::UNAUTHORIZED {
            let value = HeaderValue::from_static("Bearer realm=\"switchover-agent\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        Err(Box::new(response))
    }

    async fn decide(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        if matches!(self, Self::Nobody) {
            let detail =
                format!("side effects are off; set {API_TOKEN}, {API_TOKEN}_FILE or API_AUTH=token-review");
            return Err(Refusal { status: StatusCode::FORBIDDEN, reason: "not-configured", detail });
        }
        let token = bearer(headers).ok_or_else(|| Refusal {
            status: StatusCode::UNAUTHORIZED,
            reason: "no-token",
            detail: "a bearer token is needed".to_owned(),
        })?;
        let wrong = || Refusal {
            status: StatusCode::UNAUTHORIZED,
            reason: "wrong-token",
            detail: "the token is not known".to_owned(),
        };
        match self {
            Self::Nobody => Err(wrong()),
            Self::Token(known) => {
                let same = bool::from(known.expose().as_bytes().ct_eq(token.expose().as_bytes()));
                if same && !known.is_empty() { Ok("token".to_owned()) } else { Err(wrong()) }
            }
            Self::Review { reviewer, allowed_users } => match reviewer.review(&token).await {
                Ok(Some(user)) if allowed_users.contains(&user) => Ok(user),
                Ok(Some(user)) => Err(Refusal {
                    status: StatusCode::FORBIDDEN,
                    reason: "user-not-allowed",
                    detail: format!("API_ALLOWED_USERS does not name {user}"),
                }),
                Ok(None) => Err(wrong()),
                Err(why) => Err(Refusal {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    reason: "review-failed",
                    detail: format!("the token could not be checked: {why}"),
                }),
            },
        }
    }
}

struct Refusal {
    status: StatusCode,
    reason: &'static str,
    detail: String,
}

/// The token of `Authorization: Bearer ...` (RFC 6750, the scheme in any case).
fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| Secret::new(token))
}
