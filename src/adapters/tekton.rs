//! Tekton's EventListener: starts a pipeline run the way a GitHub push would. Knows nothing of why; the runs
//! themselves are Kubernetes objects and watched elsewhere.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Client;
use serde::Serialize;
use sha1::Sha1;
use sha2::Sha256;

use super::http_client::{self, HttpError};
use crate::config::Secret;
use crate::config::tekton::TektonSettings;
use crate::model::FailureKind;

/// Why no run could be started, or not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TektonError {
    /// The call failed.
    #[error("pipeline trigger: {0}")]
    Http(HttpError),
    /// The listener accepted the event and named no `eventID`, so a run may have begun that cannot be recognised.
    #[error("pipeline trigger: started but not identifiable: {reason}")]
    NotIdentifiable {
        /// What is wrong with the answer.
        reason: String,
    },
}

impl TektonError {
    /// How to take it. A run that cannot be identified is permanent: trying again could start a second one.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Http(error) => error.kind(),
            Self::NotIdentifiable { .. } => FailureKind::Permanent,
        }
    }

    /// Whether the listener itself said no, so that no run has begun. An answer that never came, and one that a
    /// proxy may have written (5xx), prove nothing.
    pub fn is_surely_not_started(&self) -> bool {
        matches!(self, Self::Http(HttpError::Status { status: 300..=499, .. } | HttpError::Client { .. }))
    }
}

/// The push event as the listener's interceptor and bindings read it; order of keys as the predecessor sent it.
#[derive(Serialize)]
struct Push<'a> {
    #[serde(rename = "ref")]
    git_ref: &'a str,
    repository: Repository<'a>,
    head_commit: HeadCommit,
}

#[derive(Serialize)]
struct Repository<'a> {
    name: &'static str,
    clone_url: &'a str,
}

#[derive(Serialize)]
struct HeadCommit {
    id: &'static str,
    message: &'static str,
    author: Author,
}

#[derive(Serialize)]
struct Author {
    username: &'static str,
}

/// The listener.
#[derive(Debug, Clone)]
pub struct Tekton {
    client: Client,
    url: String,
    body: Vec<u8>,
    secret: Secret,
    settle: Duration,
}

impl Tekton {
    /// A client of the listener that is set.
    pub fn new(settings: &TektonSettings) -> Result<Self, TektonError> {
        let client = http_client::client(&settings.url, Duration::from_millis(settings.timeout_ms))
            .map_err(TektonError::Http)?;
        Ok(Self {
            client,
            url: settings.url.clone(),
            body: body(settings),
            secret: settings.secret.clone(),
            settle: Duration::from_millis(settings.settle_ms),
        })
    }

    /// How long after a trigger its run may still appear: the listener answers before it makes the run.
    pub fn settle_time(&self) -> Duration {
        self.settle
    }

    /// Starts a run and gives its event id. Not idempotent: each success is one run. `delivery` is our own id of the
    /// request; a binding may copy it to the run (`$(header.X-GitHub-Delivery)`), which makes the run recognisable
    /// even when this answer is lost.
    ///
    /// A time-out counts as transient although the listener may have heard us; whoever tries again looks first.
    pub async fn trigger(&self, delivery: &str) -> Result<String, TektonError> {
        let key = self.secret.expose().as_bytes();
        let request = self
            .client
            .post(&self.url)
            .header("Accept", "application/json")
            .header("Content-Type", "application/json")
            .header("X-GitHub-Event", "push")
            .header("X-GitHub-Delivery", delivery)
            .header("X-Hub-Signature", signature_sha1(key, &self.body))
            .header("X-Hub-Signature-256", signature_sha256(key, &self.body))
            .body(self.body.clone());
        let answer = match http_client::call(request, "POST to the listener").await {
            Ok(answer) => answer.success().map_err(TektonError::Http)?,
            // A 2xx whose body is too large has been accepted all the same, and so may be any other.
            Err(error @ HttpError::TooLarge { .. }) => {
                return Err(TektonError::NotIdentifiable { reason: error.to_string() });
            }
            Err(error) => return Err(TektonError::Http(error)),
        };
        let json =
            answer.json().map_err(|error| TektonError::NotIdentifiable { reason: error.to_string() })?;
        match json.get("eventID").and_then(serde_json::Value::as_str) {
            Some(id) if !id.trim().is_empty() => Ok(id.to_owned()),
            _ => Err(TektonError::NotIdentifiable { reason: "the answer has no eventID".to_owned() }),
        }
    }
}

/// The exact bytes that are signed and sent.
fn body(settings: &TektonSettings) -> Vec<u8> {
    let push = Push {
        git_ref: &settings.git_ref,
        repository: Repository { name: "", clone_url: &settings.repository },
        head_commit: HeadCommit { id: "", message: "", author: Author { username: "switchover_agent" } },
    };
    serde_json::to_vec(&push).expect("plain strings always serialise")
}

/// Value of `X-Hub-Signature-256`: `sha256=` and the HMAC-SHA-256 of the body in lower-case hex.
pub fn signature_sha256(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// Value of the legacy `X-Hub-Signature`: `sha1=` and the HMAC-SHA-1 of the body in lower-case hex.
pub fn signature_sha1(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(body);
    format!("sha1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_the_published_test_vectors() {
        let fox = b"The quick brown fox jumps over the lazy dog";
        assert_eq!(
            signature_sha256(b"key", fox),
            "sha256=f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
        );
        assert_eq!(signature_sha1(b"key", fox), "sha1=de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9");
        // GitHub's documented example of a webhook signature.
        assert_eq!(
            signature_sha256(b"It's a Secret to Everybody", b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    #[test]
    fn the_body_is_byte_for_byte_what_the_listener_knows() {
        let settings = TektonSettings {
            url: String::new(),
            repository: "https://example.org/r.git".to_owned(),
            git_ref: "refs/heads/main".to_owned(),
            secret: Secret::new(""),
            timeout_ms: 1,
            settle_ms: 1,
        };
        let want = r#"{"ref":"refs/heads/main","repository":{"name":"","clone_url":"https://example.org/r.git"},"head_commit":{"id":"","message":"","author":{"username":"switchover_agent"}}}"#;
        assert_eq!(String::from_utf8(body(&settings)).unwrap(), want);
    }
}
