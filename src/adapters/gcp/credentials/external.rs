//! Workload identity federation: a token of somebody else's, from a file or an address, becomes one of Google's
//! (RFC 8693 at the token service), and on request one of a service account.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{CredentialError, Credentials, Minted, PLATFORM_SCOPE, read_file, read_token, wall_seconds};
use crate::adapters::gcp::error::shorten;
use crate::adapters::wire::Sent;
use crate::config::Secret;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Life of a service account's token.
const LIFE: Duration = Duration::from_secs(3600);

/// A file of type `external_account`.
pub(super) struct External {
    audience: String,
    subject_token_type: String,
    token_url: String,
    impersonation_url: Option<String>,
    source: Source,
    /// Field of a JSON document that holds the token; `None` = the whole text is the token.
    field: Option<String>,
}

enum Source {
    File(PathBuf),
    Url { url: String, headers: Vec<(String, String)> },
}

impl External {
    /// Reads such a file.
    pub(super) fn read(value: &Value) -> Result<Self, CredentialError> {
        let text = |pointer: &str| {
            let text = value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let missing = |field: &str| CredentialError::Content(format!("{field} is missing"));
        let required = |field: &str| text(&format!("/{field}")).ok_or_else(|| missing(field));
        let source = match (text("/credential_source/file"), text("/credential_source/url")) {
            (Some(file), None) => Source::File(PathBuf::from(file)),
            (None, Some(url)) => {
                let headers = value.pointer("/credential_source/headers").and_then(Value::as_object);
                let headers = headers.into_iter().flatten();
                let pair =
                    |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
                Source::Url { url, headers: headers.filter_map(pair).collect() }
            }
            _ => {
                let wanted = "credential_source needs either file or url; other kinds are not supported";
                return Err(CredentialError::Content(wanted.to_owned()));
            }
        };
        let field = match text("/credential_source/format/type").as_deref() {
            None | Some("text") => None,
            Some("json") => {
                let field = text("/credential_source/format/subject_token_field_name");
                Some(field.ok_or_else(|| missing("credential_source.format.subject_token_field_name"))?)
            }
            Some(other) => {
                let other = shorten(other);
                return Err(CredentialError::Content(format!(
                    "credential_source.format.type {other:?} is unknown"
                )));
            }
        };
        Ok(Self {
            audience: required("audience")?,
            subject_token_type: required("subject_token_type")?,
            token_url: required("token_url")?,
            impersonation_url: text("/service_account_impersonation_url"),
            source,
            field,
        })
    }
}

impl Credentials {
    /// The whole exchange.
    pub(super) async fn exchange_external(&self, external: &External) -> Result<Minted, CredentialError> {
        let subject = self.subject_token(external).await?;
        let scope = if external.impersonation_url.is_some() { PLATFORM_SCOPE } else { self.inner.scope };
        let form = [
            ("grant_type", GRANT),
            ("audience", &external.audience),
            ("scope", scope),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", subject.expose()),
            ("subject_token_type", &external.subject_token_type),
        ];
        let endpoint = self.token_endpoint().unwrap_or(&external.token_url);
        let sent = Sent::new(Method::POST, endpoint).form(&form);
        let federated = read_token(&self.ask(sent, "federated access token").await?)?;
        match &external.impersonation_url {
            None => Ok(federated),
            Some(url) => self.impersonate(url, &federated.token).await,
        }
    }

    async fn subject_token(&self, external: &External) -> Result<Secret, CredentialError> {
        let text = match &external.source {
            Source::File(path) => read_file(path).await?,
            Source::Url { url, headers } => {
                let mut sent = Sent::new(Method::GET, url.as_str());
                for (name, value) in headers {
                    sent = sent.header(name, value);
                }
                self.text(sent, "subject token").await?
            }
        };
        let token = match &external.field {
            None => text.expose().trim().to_owned(),
            Some(field) => {
                let value: Option<Value> = serde_json::from_str(text.expose()).ok();
                let token = value.as_ref().and_then(|value| value.get(field)).and_then(Value::as_str);
                token.unwrap_or_default().to_owned()
            }
        };
        if token.is_empty() {
            return Err(CredentialError::Content("the credential source holds no subject token".to_owned()));
        }
        Ok(Secret::new(token))
    }

    async fn impersonate(&self, url: &str, federated: &Secret) -> Result<Minted, CredentialError> {
        let body = json!({"scope": [self.inner.scope], "lifetime": format!("{}s", LIFE.as_secs())});
        let sent = Sent::new(Method::POST, url).bearer(federated.expose()).json(&body);
        let answer = self.ask(sent, "access token of a service account").await?;
        let token = answer.get("accessToken").and_then(Value::as_str).filter(|token| !token.is_empty());
        let expires = answer.get("expireTime").and_then(Value::as_str);
        let expires = expires.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let (Some(token), Some(expires)) = (token, expires) else {
            let reason = "the answer has no accessToken or no expireTime";
            return Err(CredentialError::Content(reason.to_owned()));
        };
        // A clock that goes wrong must not make a token immortal: never longer than was asked for.
        let left = u64::try_from(expires.as_second()).unwrap_or(0).saturating_sub(wall_seconds());
        Ok(Minted::new(token, left.min(LIFE.as_secs())))
    }
}
