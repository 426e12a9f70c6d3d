//! The witness: a lease on the service, kept in an etcd at a third place.
//! <https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>
//!
//! One key names the site that may serve; it hangs on an etcd lease, so it goes away by itself when its holder falls
//! silent for the lease's time. etcd's own consensus decides; nothing here elects. Owns the calls. Never decides who
//! should hold it: that is `rules::lease`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Client;
use serde_json::{Value, json};

use super::http_client::{self, HttpError, Trust};
use crate::config::Secret;
use crate::config::witness::WitnessSettings;
use crate::model::{FailureKind, LeaseHolder};

/// Why the witness could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// A file of ours cannot be read.
    #[error("witness: {file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The call failed.
    #[error("witness: {0}")]
    Http(#[from] HttpError),
}

impl WitnessError {
    /// How to take it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::File { .. } => FailureKind::Permanent,
            Self::Http(error) => error.kind(),
        }
    }
}

/// The key as etcd has it.
struct Holding {
    site: String,
    lease: String,
}

/// The witness as one site uses it.
#[derive(Debug)]
pub struct Witness {
    client: Client,
    base: String,
    key: String,
    site: String,
    ttl_s: u64,
    login: Option<(String, Secret)>,
    token: Option<String>,
}

impl Witness {
    /// A client for `site`, whose lease lasts `ttl_ms` beyond its last renewal.
    ///
    /// # Errors
    /// A certificate that cannot be used.
    pub fn new(settings: &WitnessSettings, site: &str, ttl_ms: u64) -> Result<Self, WitnessError> {
        let read = |path: &Option<std::path::PathBuf>| match path {
            None => Ok(None),
            Some(path) => std::fs::read(path).map(Some).map_err(|error| WitnessError::File {
                file: path.display().to_string(),
                reason: error.to_string(),
            }),
        };
        let trust = Trust { ca: read(&settings.ca)?, identity: read(&settings.client_pem)? };
        let total = Duration::from_millis(settings.poll_ms.max(500));
        Ok(Self {
            client: http_client::client_with(&settings.base, total, &trust)?,
            base: settings.base.clone(),
            key: BASE64.encode(&settings.key),
            site: site.to_owned(),
            ttl_s: ttl_ms.div_ceil(1_000).max(2),
            login: settings.login.clone(),
            token: None,
        })
    }

    /// Takes or renews the lease where `wanted`, gives it back where not, leaves it alone where that is not known, and
    /// says who holds it now.
    ///
    /// # Errors
    /// Where the witness did not answer, or not sensibly; who holds the lease is unknown then.
    pub async fn look(&mut self, wanted: Option<bool>) -> Result<LeaseHolder, WitnessError> {
        let result = self.look_once(wanted).await;
        if let Err(WitnessError::Http(HttpError::Status { status: 401 | 403, .. })) = &result
            && self.login.is_some()
        {
            // The token has run out.
            self.token = None;
        }
        result
    }

    async fn look_once(&mut self, wanted: Option<bool>) -> Result<LeaseHolder, WitnessError> {
        self.log_in().await?;
        match self.holding().await? {
            None if wanted == Some(true) => self.take().await,
            None => Ok(LeaseHolder::Nobody),
            Some(holding) if holding.site != self.site => Ok(LeaseHolder::Peer),
            Some(holding) => match wanted {
                Some(true) => self.renew(&holding.lease).await,
                Some(false) => {
                    self.post("lease/revoke", json!({ "ID": holding.lease })).await?;
                    Ok(LeaseHolder::Nobody)
                }
                None => Ok(LeaseHolder::Us),
            },
        }
    }

    async fn log_in(&mut self) -> Result<(), WitnessError> {
        let (Some((name, password)), None) = (&self.login, &self.token) else { return Ok(()) };
        let body = json!({ "name": name, "password": password.expose() });
        let answer = self.post("auth/authenticate", body).await?;
        self.token = answer.get("token").and_then(Value::as_str).map(str::to_owned);
        Ok(())
    }

    async fn holding(&self) -> Result<Option<Holding>, WitnessError> {
        let answer = self.post("kv/range", json!({ "key": self.key })).await?;
        Ok(answer.get("kvs").and_then(|kvs| kvs.get(0)).map(holding))
    }

    async fn take(&self) -> Result<LeaseHolder, WitnessError> {
        let granted = self.post("lease/grant", json!({ "TTL": self.ttl_s.to_string() })).await?;
        let lease = text(&granted, "ID");
        let absent = json!({ "key": self.key, "target": "CREATE", "createRevision": "0", "result": "EQUAL" });
        let put = json!({ "key": self.key, "value": BASE64.encode(&self.site), "lease": lease });
        let answer =
            self.post("kv/txn", json!({ "compare": [absent], "success": [{ "requestPut": put }] })).await?;
        if answer.get("succeeded").and_then(Value::as_bool) == Some(true) {
            return Ok(LeaseHolder::Us);
        }
        // Somebody was quicker. Our lease would lapse by itself; giving it back is only tidy.
        let _ = self.post("lease/revoke", json!({ "ID": lease })).await;
        let holder = self.holding().await?;
        Ok(match holder {
            Some(holding) if holding.site == self.site => LeaseHolder::Us,
            Some(_) => LeaseHolder::Peer,
            None => LeaseHolder::Nobody,
        })
    }

    async fn renew(&self, lease: &str) -> Result<LeaseHolder, WitnessError> {
        let answer = self.post("lease/keepalive", json!({ "ID": lease })).await?;
        let left = text(answer.get("result").unwrap_or(&Value::Null), "TTL");
        match left.parse::<u64>() {
            Ok(left) if left > 0 => Ok(LeaseHolder::Us),
            // It lapsed between the two calls.
            _ => Ok(LeaseHolder::Nobody),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, HttpError> {
        let mut request = self.client.post(format!("{}/v3/{path}", self.base)).json(&body);
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let what = format!("POST /v3/{path}");
        http_client::call(request, &what).await?.success()?.json()
    }
}

fn holding(kv: &Value) -> Holding {
    let site = BASE64.decode(text(kv, "value")).unwrap_or_default();
    Holding { site: String::from_utf8_lossy(&site).into_owned(), lease: text(kv, "lease") }
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}
