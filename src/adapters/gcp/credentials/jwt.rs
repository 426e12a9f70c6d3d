//! The signed assertion of a service account (RFC 7523): RS256 by `ring`, as rustls offers it.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::{CredentialError, TOKEN_ENDPOINT};
use crate::config::Secret;

/// Life of an assertion in seconds; the token server allows no more.
const LIFE: u64 = 3600;

/// A service account's key.
pub(super) struct Key {
    client_email: String,
    key_id: Option<String>,
    private_key: Secret,
    pub(super) token_uri: String,
}

impl Key {
    /// Reads a file of type `service_account`.
    pub(super) fn read(value: &Value) -> Result<Self, CredentialError> {
        let text = |field: &str| {
            let text = value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let required =
            |field: &str| text(field).ok_or_else(|| CredentialError::Content(format!("{field} is missing")));
        let key = Self {
            client_email: required("client_email")?,
            key_id: text("private_key_id"),
            private_key: Secret::new(required("private_key")?),
            token_uri: text("token_uri").unwrap_or_else(|| TOKEN_ENDPOINT.to_owned()),
        };
        key.signer()?;
        Ok(key)
    }

    /// The assertion for a token server. `now` = seconds since 1970.
    pub(super) fn assertion(&self, audience: &str, scope: &str, now: u64) -> Result<Secret, CredentialError> {
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = &self.key_id {
            header["kid"] = json!(id);
        }
        let claims =
            json!({"iss": self.client_email, "scope": scope, "aud": audience, "iat": now, "exp": now + LIFE});
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let unsigned = |_| CredentialError::Content("the private key does not sign".to_owned());
        let signature = self.signer()?.sign(text.as_bytes()).map_err(unsigned)?;
        Ok(Secret::new(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))))
    }

    fn signer(&self) -> Result<Box<dyn rustls::sign::Signer>, CredentialError> {
        let unusable = || CredentialError::Content("private_key is no RSA key in PEM".to_owned());
        let der =
            PrivateKeyDer::from_pem_slice(self.private_key.expose().as_bytes()).map_err(|_| unusable())?;
        let key = rustls::crypto::ring::sign::any_supported_type(&der).map_err(|_| unusable())?;
        key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).ok_or_else(unusable)
    }
}
