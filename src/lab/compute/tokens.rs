//! Who gets a token and what for: the token server, the token service, impersonation, the metadata server.
//!
//! Assertions are verified in earnest: signature, audience, times, scope. The key is the lab's own and opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{Cloud, refusal};
use crate::lab::front::Reply;
use crate::lab::http::Request;
use crate::model::Mono;

/// Path of the metadata server's token.
pub const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// A token of somebody else's that the token service accepts.
pub const SUBJECT_TOKEN: &str = "lab-subject-token";
/// Audience of the lab's workload identity pool.
const POOL: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/lab/providers/lab";
const EMAIL: &str = "lab@lab.iam.gserviceaccount.com";
const KEY_ID: &str = "lab-key-1";
const KEY: &str = include_str!("lab_key.pem");
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
const COMPUTE: &str = "https://www.googleapis.com/auth/compute";
const PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Seconds that a new token lives.
    pub life_seconds: u64,
    /// Whether the metadata server gives tokens: whether this "machine" has a service account.
    pub metadata: bool,
    issued: BTreeMap<String, (BTreeSet<String>, Mono)>,
    made: u64,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { life_seconds: 3599, metadata: true, issued: BTreeMap::new(), made: 0 }
    }
}

impl Tokens {
    /// A service-account key file for a lab cloud at this base address.
    pub fn key_file(base: &str) -> Value {
        json!({"type": "service_account", "project_id": "lab", "private_key_id": KEY_ID, "private_key": KEY,
            "client_email": EMAIL, "client_id": "1", "token_uri": format!("{base}/token")})
    }

    /// A file for workload identity federation; `source` = its `credential_source`.
    pub fn federation_file(base: &str, source: &Value, impersonate: bool) -> Value {
        let mut file = json!({"type": "external_account", "audience": POOL, "subject_token_type": JWT_TYPE,
            "token_url": format!("{base}/sts/v1/token"), "credential_source": source});
        if impersonate {
            let url = format!("{base}/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken");
            file["service_account_impersonation_url"] = json!(url);
        }
        file
    }

    /// Every token that was given out is no longer accepted.
    pub fn revoke_all(&mut self) {
        self.issued.clear();
    }

    /// Tokens that were given out so far.
    pub fn made(&self) -> u64 {
        self.made
    }

    fn issue(&mut self, scopes: BTreeSet<String>, now: Mono) -> String {
        self.made += 1;
        let token = format!("ya29.lab-{}", self.made);
        self.issued.insert(token.clone(), (scopes, now.plus(self.life_seconds * 1000)));
        token
    }

    /// Whether a call of the API has a token that is good for it.
    pub(super) fn check(&self, request: &Request, now: Mono) -> Result<(), Reply> {
        let Some(scopes) = self.scopes(request, now) else {
            let message = "Request had invalid authentication credentials.";
            return Err(refusal(401, "authError", message));
        };
        if scopes.contains(COMPUTE) || scopes.contains(PLATFORM) {
            return Ok(());
        }
        Err(refusal(403, "insufficientPermissions", "Request had insufficient authentication scopes."))
    }

    fn scopes(&self, request: &Request, now: Mono) -> Option<&BTreeSet<String>> {
        let token = request.header("authorization")?.strip_prefix("Bearer ")?;
        let (scopes, expires) = self.issued.get(token)?;
        (now < *expires).then_some(scopes)
    }
}

impl Cloud {
    /// A call of a token server; `None` for any other path.
    pub(super) fn token_call(&mut self, request: &Request, now: Mono) -> Option<Reply> {
        let reply = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/token") => self.key_exchange(request, now),
            ("POST", "/sts/v1/token") => self.federation(request, now),
            ("GET", METADATA_PATH) => self.metadata(request, now),
            ("GET", "/subject-token") => Ok(subject_token(request)),
            ("POST", path) if path.ends_with(":generateAccessToken") => self.impersonation(request, now),
            _ => return None,
        };
        Some(reply.unwrap_or_else(|reply| reply))
    }

    fn token_reply(&mut self, scopes: BTreeSet<String>, now: Mono) -> Reply {
        let life = self.tokens.life_seconds;
        let token = self.tokens.issue(scopes, now);
        Reply::json(
            200,
            &json!({"access_token": token, "expires_in": life, "token_type": "Bearer",
            "issued_token_type": ACCESS_TOKEN_TYPE}),
        )
    }

    fn key_exchange(&mut self, request: &Request, now: Mono) -> Result<Reply, Reply> {
        let form = form(request)?;
        if form.get("grant_type").map(String::as_str) != Some(JWT_GRANT) {
            return Err(oauth("unsupported_grant_type", "Invalid grant_type"));
        }
        let audience = format!("http://{}{}", request.header("host").unwrap_or_default(), request.path);
        let assertion = form.get("assertion").map(String::as_str).unwrap_or_default();
        let claims = verified(assertion).map_err(|reason| oauth("invalid_grant", &reason))?;
        let number = |name: &str| claims[name].as_u64().unwrap_or(0);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (iat, exp) = (number("iat"), number("exp"));
        if claims["iss"] != EMAIL || claims["aud"] != audience {
            return Err(oauth("invalid_grant", "Invalid issuer or audience"));
        }
        if iat > wall + 300 || exp <= wall || exp > iat + 3600 {
            return Err(oauth("invalid_grant", "Token must be a short-lived token"));
        }
        let scopes = known_scopes(claims["scope"].as_str().unwrap_or_default())?;
        Ok(self.token_reply(scopes, now))
    }

    fn federation(&mut self, request: &Request, now: Mono) -> Result<Reply, Reply> {
        let form = form(request)?;
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if field("grant_type") != EXCHANGE_GRANT || field("requested_token_type") != ACCESS_TOKEN_TYPE {
            return Err(oauth("invalid_request", "Invalid grant_type or requested_token_type"));
        }
        if field("audience") != POOL || field("subject_token_type") != JWT_TYPE {
            return Err(oauth("invalid_target", "The audience or the type of the subject token is invalid"));
        }
        if field("subject_token") != SUBJECT_TOKEN {
            return Err(oauth("invalid_grant", "The subject token is invalid"));
        }
        let scopes = known_scopes(field("scope"))?;
        Ok(self.token_reply(scopes, now))
    }

    fn impersonation(&mut self, request: &Request, now: Mono) -> Result<Reply, Reply> {
        let scopes = self.tokens.scopes(request, now);
        if scopes.is_none_or(|scopes| !scopes.contains(PLATFORM)) {
            return Err(refusal(401, "authError", "Request had invalid authentication credentials."));
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let list = body["scope"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let scopes = known_scopes(&list.collect::<Vec<_>>().join(" "))?;
        let lifetime = body["lifetime"].as_str().and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
        let lifetime = lifetime.filter(|seconds| *seconds <= 3600);
        let lifetime = lifetime.ok_or_else(|| refusal(400, "badRequest", "lifetime is longer than 3600s"))?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let life = lifetime.min(self.tokens.life_seconds);
        let expires =
            jiff::Timestamp::from_second(i64::try_from(wall + life).unwrap_or(0)).unwrap_or_default();
        let token = self.tokens.issue(scopes, now);
        Ok(Reply::json(200, &json!({"accessToken": token, "expireTime": expires.to_string()})))
    }

    fn metadata(&mut self, request: &Request, now: Mono) -> Result<Reply, Reply> {
        if request.header("metadata-flavor") != Some("Google") {
            return Err(refusal(403, "forbidden", "Missing Metadata-Flavor:Google header."));
        }
        if !self.tokens.metadata {
            return Err(refusal(404, "notFound", "The machine has no service account."));
        }
        let scopes = request.parameter("scopes").unwrap_or_else(|| PLATFORM.to_owned());
        let scopes = known_scopes(&scopes.replace(',', " "))?;
        Ok(self.token_reply(scopes, now))
    }
}

/// What a neighbour on the machine gives out, with the header that keeps browsers away.
fn subject_token(request: &Request) -> Reply {
    if request.header("metadata") != Some("true") {
        return refusal(400, "badRequest", "the header is missing");
    }
    Reply::json(200, &json!({"token_type": "Bearer", "access_token": SUBJECT_TOKEN}))
}

fn known_scopes(text: &str) -> Result<BTreeSet<String>, Reply> {
    let scopes: BTreeSet<String> = text.split_whitespace().map(str::to_owned).collect();
    let strange = scopes.iter().any(|scope| !scope.starts_with("https://www.googleapis.com/auth/"));
    if scopes.is_empty() || strange {
        return Err(oauth("invalid_scope", "Invalid OAuth scope or ID token audience provided."));
    }
    Ok(scopes)
}

fn oauth(error: &str, description: &str) -> Reply {
    Reply::json(400, &json!({"error": error, "error_description": description}))
}

fn form(request: &Request) -> Result<BTreeMap<String, String>, Reply> {
    let kind = request.header("content-type").unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(oauth("invalid_request", "the body is no form"));
    }
    let text = String::from_utf8_lossy(&request.body);
    let url = reqwest::Url::parse(&format!("http://form/?{text}"))
        .map_err(|_| oauth("invalid_request", "the body is no form"))?;
    Ok(url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
}

/// The claims of an assertion whose signature is the lab key's.
fn verified(assertion: &str) -> Result<Value, String> {
    let (signed, signature) = assertion.rsplit_once('.').ok_or("the assertion has no signature")?;
    let (header, claims) = signed.split_once('.').ok_or("the assertion has no claims")?;
    let decode =
        |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| "the assertion is not base64url");
    let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| "the header is not JSON")?;
    if header["alg"] != "RS256" || header["kid"] != KEY_ID {
        return Err("Invalid JWT header".to_owned());
    }
    let signature = decode(signature)?;
    let der = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).map_err(|_| "no key")?;
    let key = rustls::crypto::ring::sign::any_supported_type(&der).map_err(|_| "no key")?;
    let public = key.public_key().ok_or("no public key")?;
    let (_, info) = SubjectPublicKeyInfo::from_der(public.as_ref()).map_err(|_| "no public key")?;
    let known = rustls::crypto::ring::default_provider().signature_verification_algorithms.mapping;
    let scheme = known.iter().find(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256);
    let (_, algorithms) = scheme.ok_or("no algorithm")?;
    let good = algorithms
        .iter()
        .any(|a| a.verify_signature(&info.subject_public_key.data, signed.as_bytes(), &signature).is_ok());
    if !good {
        return Err("Invalid JWT signature.".to_owned());
    }
    serde_json::from_slice(&decode(claims)?).map_err(|_| "the claims are not JSON".to_owned())
}
