//! Access tokens for Google: a service-account key, the metadata server, or workload identity federation.
//!
//! Owns the one token that all clones share, and renews it before it expires. Tokens, keys and assertions never get
//! into a log or an error. A key file is read anew for every token, so a rotated key needs no restart.
//!
//! Google's own crate is not used here: it stops for good after one refusal of its token server, has no limits in time
//! and no way to throw a revoked token away, and can't be pointed at another token server.

mod external;
mod jwt;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::adapters::attempts::{Attempts, Told};
use crate::adapters::gcp::call::code_of;
use crate::adapters::gcp::error::shorten;
use crate::adapters::http_client::{HttpError, kind_of_status};
use crate::adapters::wire::{Got, Sent, Wire, is_near};
use crate::config::Secret;
use crate::model::FailureKind;

/// What the tokens are for: reading and changing Compute, nothing else.
pub const SCOPE: &str = "https://www.googleapis.com/auth/compute";
/// What a federated token needs to take on a service account's identity.
pub(super) const PLATFORM_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Google's token server.
pub const TOKEN_ENDPOINT: &str = "https://oauth2.googleapis.com/token";
/// The metadata server of Google's machines.
pub const METADATA: &str = "http://metadata.google.internal";

/// Limit of one call.
const LIMIT: Duration = Duration::from_secs(15);
/// A token is renewed this long before it expires, or after three quarters of a short life.
const EARLY: Duration = Duration::from_secs(300);
/// So long a failure stands for everybody who asks: a hundred waiting calls are one question.
const FAILURE_STANDS: Duration = Duration::from_secs(1);
/// A life that is longer is not believed.
const LONGEST_LIFE: u64 = 12 * 3600;
/// Largest file that is read.
const FILE_LIMIT: u64 = 256 * 1024;

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq)]
pub enum CredentialSource {
    /// A file as `GOOGLE_APPLICATION_CREDENTIALS` names it: `service_account` or `external_account`.
    File {
        /// Its path.
        path: PathBuf,
        /// Another token server than the file's (`GCP_TOKEN_ENDPOINT`).
        token_endpoint: Option<String>,
    },
    /// The content of such a file.
    Json {
        /// The content.
        content: Secret,
        /// Another token server than the one in it.
        token_endpoint: Option<String>,
    },
    /// The metadata server.
    Metadata {
        /// Its base address, without a trailing slash; usually [`METADATA`].
        endpoint: String,
    },
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// A file can't be read.
    #[error("credentials file {}: {reason}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The credentials are not usable.
    #[error("credentials: {0}")]
    Content(String),
    /// A token server did not answer.
    #[error("credentials: {0}")]
    Http(HttpError),
    /// A token server refused.
    #[error("credentials: {what}: status {status}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Its reason, shortened.
        message: String,
    },
}

impl CredentialError {
    /// How to take it.
    pub fn kind(&self) -> FailureKind {
        match self {
            // Files of mounted secrets are away for a moment while they are replaced.
            Self::File { .. } => FailureKind::Transient,
            Self::Http(error) => error.kind(),
            Self::Refused { status, .. } => kind_of_status(*status),
            Self::Content(_) => FailureKind::Permanent,
        }
    }
}

/// A token and how long it lives.
pub(super) struct Minted {
    pub(super) token: Secret,
    pub(super) life: Duration,
}

impl Minted {
    pub(super) fn new(token: &str, seconds: u64) -> Self {
        Self { token: Secret::new(token), life: Duration::from_secs(seconds.min(LONGEST_LIFE)) }
    }
}

/// The source with its current token. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    source: CredentialSource,
    scope: &'static str,
    wire: Wire,
    attempts: Attempts,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Kept>,
    failed: Option<(Instant, CredentialError)>,
}

struct Kept {
    token: Secret,
    renew_at: Instant,
    expires_at: Instant,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("source", &self.inner.source).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Contacts nothing and reads nothing yet.
    pub fn new(source: CredentialSource, wire: Wire, attempts: Attempts) -> Self {
        Self::with_scope(source, SCOPE, wire, attempts)
    }

    /// The same for another API than Compute.
    pub fn with_scope(source: CredentialSource, scope: &'static str, wire: Wire, attempts: Attempts) -> Self {
        Self { inner: Arc::new(Inner { source, scope, wire, attempts, held: Mutex::default() }) }
    }

    /// Reads the credentials without asking anybody: whether the file is there and says what it must.
    ///
    /// # Errors
    /// What is wrong with them.
    pub async fn check(&self) -> Result<(), CredentialError> {
        match self.content().await? {
            None => Ok(()),
            Some(content) => self.recipe(&content).map(|_| ()),
        }
    }

    /// A token that is valid now. A renewal that fails is no error while the old token still lives.
    ///
    /// # Errors
    /// Where there is none to be had.
    pub async fn token(&self) -> Result<Secret, CredentialError> {
        let mut held = self.inner.held.lock().await;
        let now = Instant::now();
        if let Some(kept) = held.token.as_ref().filter(|kept| now < kept.renew_at) {
            return Ok(kept.token.clone());
        }
        let alive = held.token.as_ref().filter(|kept| now < kept.expires_at).map(|kept| kept.token.clone());
        let failed = held.failed.as_ref().filter(|(at, _)| now < *at + FAILURE_STANDS);
        if let Some((_, error)) = failed {
            return alive.ok_or_else(|| error.clone());
        }
        match self.mint().await {
            Ok(minted) => {
                let now = Instant::now();
                let early = EARLY.min(minted.life / 4);
                held.failed = None;
                held.token = Some(Kept {
                    token: minted.token.clone(),
                    renew_at: now + (minted.life - early),
                    expires_at: now + minted.life,
                });
                Ok(minted.token)
            }
            Err(error) => {
                held.failed = Some((Instant::now(), error.clone()));
                match alive {
                    Some(token) => {
                        tracing::warn!(%error, "the access token could not be renewed yet");
                        Ok(token)
                    }
                    None => Err(error),
                }
            }
        }
    }

    /// Throws a token away that was refused, unless somebody has renewed it meanwhile.
    pub async fn forget(&self, token: &Secret) {
        let mut held = self.inner.held.lock().await;
        if held.token.as_ref().is_some_and(|kept| kept.token == *token) {
            held.token = None;
        }
    }

    async fn mint(&self) -> Result<Minted, CredentialError> {
        let Some(content) = self.content().await? else { return self.metadata().await };
        match self.recipe(&content)? {
            Recipe::Key(key) => self.exchange_key(&key).await,
            Recipe::External(external) => self.exchange_external(&external).await,
        }
    }

    async fn content(&self) -> Result<Option<Secret>, CredentialError> {
        match &self.inner.source {
            CredentialSource::Metadata { .. } => Ok(None),
            CredentialSource::Json { content, .. } => Ok(Some(content.clone())),
            CredentialSource::File { path, .. } => read_file(path).await.map(Some),
        }
    }

    fn recipe(&self, content: &Secret) -> Result<Recipe, CredentialError> {
        let value: Value = serde_json::from_str(content.expose())
            .map_err(|_| CredentialError::Content("the content is not JSON".to_owned()))?;
        match value.get("type").and_then(Value::as_str) {
            Some("service_account") => jwt::Key::read(&value).map(Recipe::Key),
            Some("external_account") => external::External::read(&value).map(Recipe::External),
            Some(other) => Err(CredentialError::Content(format!(
                "type {:?} is not supported, only service_account and external_account",
                shorten(other)
            ))),
            None => Err(CredentialError::Content("there is no type in it".to_owned())),
        }
    }

    /// Another token server than the credentials name.
    fn token_endpoint(&self) -> Option<&str> {
        match &self.inner.source {
            CredentialSource::File { token_endpoint, .. } | CredentialSource::Json { token_endpoint, .. } => {
                token_endpoint.as_deref()
            }
            CredentialSource::Metadata { .. } => None,
        }
    }

    async fn exchange_key(&self, key: &jwt::Key) -> Result<Minted, CredentialError> {
        let endpoint = self.token_endpoint().unwrap_or(&key.token_uri);
        let assertion = key.assertion(endpoint, self.inner.scope, wall_seconds())?;
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let form = [("grant_type", grant), ("assertion", assertion.expose())];
        let sent = Sent::new(Method::POST, endpoint).form(&form);
        let answer = self.ask(sent, "access token of a service account").await?;
        read_token(&answer)
    }

    async fn metadata(&self) -> Result<Minted, CredentialError> {
        let CredentialSource::Metadata { endpoint } = &self.inner.source else {
            return Err(CredentialError::Content("no metadata server is set".to_owned()));
        };
        let mut url = reqwest::Url::parse(&format!(
            "{endpoint}/computeMetadata/v1/instance/service-accounts/default/token"
        ))
        .map_err(|_| CredentialError::Content("the metadata server's address is none".to_owned()))?;
        url.query_pairs_mut().append_pair("scopes", self.inner.scope);
        let sent = Sent::new(Method::GET, url).header("Metadata-Flavor", "Google");
        let answer = self.ask(sent, "access token of the metadata server").await?;
        read_token(&answer)
    }

    /// One question to a token server. `what` names it without secrets.
    async fn ask(&self, sent: Sent, what: &'static str) -> Result<Value, CredentialError> {
        judge(what, &self.exchange(sent, what).await?)
    }

    /// As [`Credentials::ask`], for an answer that need not be JSON.
    async fn text(&self, sent: Sent, what: &'static str) -> Result<Secret, CredentialError> {
        let got = self.exchange(sent, what).await?;
        if (200..300).contains(&got.status) {
            return Ok(Secret::new(String::from_utf8_lossy(&got.body)));
        }
        judge(what, &got).map(|_| Secret::default())
    }

    async fn exchange(&self, sent: Sent, what: &'static str) -> Result<Got, CredentialError> {
        let secure = sent.url.starts_with("https://") || is_near(&sent.url);
        if !secure {
            return Err(CredentialError::Content(format!("{what}: secrets go over https only")));
        }
        let began = Instant::now();
        let result = self.inner.wire.send(sent, what, LIMIT).await;
        let (code, took) = (code_of(&result), began.elapsed());
        self.inner.attempts.tell(Told::Call { api: "token", operation: "token", code, took });
        result.map_err(CredentialError::Http)
    }
}

enum Recipe {
    Key(jwt::Key),
    External(external::External),
}

fn judge(what: &str, got: &Got) -> Result<Value, CredentialError> {
    let body = got.json();
    if (200..300).contains(&got.status) {
        let malformed =
            || HttpError::Malformed { what: what.to_owned(), reason: "the answer is not JSON".to_owned() };
        return body.ok_or_else(|| CredentialError::Http(malformed()));
    }
    // OAuth says {error, error_description}, Google's APIs {error: {message}}.
    let body = body.unwrap_or_default();
    let word = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(shorten);
    let message = [word("/error"), word("/error_description"), word("/error/message")];
    let message: Vec<String> = message.into_iter().flatten().collect();
    let message = if message.is_empty() { "-".to_owned() } else { message.join(": ") };
    Err(CredentialError::Refused { what: what.to_owned(), status: got.status, message })
}

fn read_token(answer: &Value) -> Result<Minted, CredentialError> {
    let token = answer.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let seconds = answer.get("expires_in").and_then(Value::as_u64);
    match (token, seconds) {
        (Some(token), Some(seconds)) => Ok(Minted::new(token, seconds)),
        _ => {
            Err(CredentialError::Content("the token server's answer has no token or no lifetime".to_owned()))
        }
    }
}

async fn read_file(path: &PathBuf) -> Result<Secret, CredentialError> {
    let failed = |reason: String| CredentialError::File { path: path.clone(), reason };
    let read = async {
        let size = tokio::fs::metadata(path).await?.len();
        if size > FILE_LIMIT {
            return Err(std::io::Error::other(format!("longer than {FILE_LIMIT} bytes")));
        }
        tokio::fs::read_to_string(path).await
    };
    match tokio::time::timeout(LIMIT, read).await {
        Ok(result) => result.map(Secret::new).map_err(|error| failed(error.to_string())),
        Err(_) => Err(failed("reading it took too long".to_owned())),
    }
}

/// Seconds since 1970, for the one thing that needs them: the times inside an assertion.
pub(super) fn wall_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
