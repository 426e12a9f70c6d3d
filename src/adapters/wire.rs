//! How a request gets to a cloud and its answer back: over the network, or straight into a simulated cloud.
//!
//! Owns the choice, the limits in time and size, and which addresses never go through a proxy. Never knows what is
//! asked. The direct way exists so that whole histories run on a virtual clock, where real sockets cannot.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use reqwest::Url;
use serde_json::Value;

use super::http_client::{self, BODY_LIMIT, HttpError};

/// A request. Its `Debug` form leaves the body out: forms carry assertions.
#[derive(Clone)]
pub struct Sent {
    /// Method.
    pub method: Method,
    /// Whole address.
    pub url: String,
    /// Headers. Those with secrets are marked sensitive.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?} ({} bytes)", self.method, self.url, self.headers, self.body.len())
    }
}

impl Sent {
    /// A request without headers and body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// With a bearer token.
    pub fn bearer(mut self, token: &str) -> Self {
        // A token with line breaks in it is no token: it is left out, and the other side says 401.
        if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {token}")) {
            value.set_sensitive(true);
            self.headers.insert(header::AUTHORIZATION, value);
        }
        self
    }

    /// With a header. Characters that no header may have leave it out.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            self.headers.insert(name, value);
        }
        self
    }

    /// With a JSON body.
    pub fn json(mut self, body: &Value) -> Self {
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = Bytes::from(body.to_string());
        self
    }

    /// With a form as its body.
    pub fn form(mut self, fields: &[(&str, &str)]) -> Self {
        let mut url = Url::parse("http://form/").expect("the address is constant");
        url.query_pairs_mut().extend_pairs(fields);
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        self.headers.insert(header::CONTENT_TYPE, kind);
        self.body = Bytes::from(url.query().unwrap_or_default().to_owned());
        self
    }
}

/// A whole answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Got {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, at most [`BODY_LIMIT`] bytes.
    pub body: Bytes,
}

impl Got {
    /// The body as JSON, whatever its content type says; `None` where it is not JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// `Retry-After` in seconds (RFC 9110); a date there is not understood, and no cloud here sends one.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }
}

/// Something that answers requests in this process: a simulated cloud.
pub type Direct = Arc<dyn Fn(Sent) -> BoxFuture<'static, Result<Got, HttpError>> + Send + Sync>;

/// The way to a cloud. Cheap to clone.
#[derive(Clone)]
pub enum Wire {
    /// Sockets.
    Network(Network),
    /// A function.
    Direct(Direct),
}

/// Clients with and without the proxies of the environment.
#[derive(Clone)]
pub struct Network {
    far: reqwest::Client,
    near: reqwest::Client,
}

impl Wire {
    /// Over the network; `longest` bounds every call, whatever limit it is given. Up to `kept` connections to a host
    /// are kept for a little while: none where calls are rare, some where they come in bursts.
    ///
    /// # Errors
    /// Where the HTTP clients cannot be made.
    pub fn network(longest: Duration, kept: usize) -> Result<Self, HttpError> {
        let far = http_client::keeping_client("https://far.invalid", longest, kept)?;
        let near = http_client::keeping_client("http://127.0.0.1", longest, kept)?;
        Ok(Self::Network(Network { far, near }))
    }

    /// Sends a request and reads the whole answer within `limit`. `what` names it in errors, without secrets.
    ///
    /// # Errors
    /// Where there is no answer, or one that is too large.
    pub async fn send(&self, sent: Sent, what: &str, limit: Duration) -> Result<Got, HttpError> {
        match tokio::time::timeout(limit, self.exchange(sent, what)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::Timeout { what: what.to_owned() }),
        }
    }

    async fn exchange(&self, sent: Sent, what: &str) -> Result<Got, HttpError> {
        match self {
            Self::Direct(answer) => {
                let got = answer(sent).await?;
                if got.body.len() > BODY_LIMIT {
                    return Err(HttpError::TooLarge { what: what.to_owned(), limit: BODY_LIMIT });
                }
                Ok(got)
            }
            Self::Network(network) => {
                let client = if is_near(&sent.url) { &network.near } else { &network.far };
                let request = client.request(sent.method, &sent.url).headers(sent.headers).body(sent.body);
                let answer = http_client::call(request, what).await?;
                Ok(Got { status: answer.status.as_u16(), headers: answer.headers, body: answer.body })
            }
        }
    }
}

/// Loopback, and the metadata server of Google's machines: a proxy would answer for another machine.
pub fn is_near(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let near = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    matches!(host, "localhost" | "metadata.google.internal" | "metadata") || host.parse().is_ok_and(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_server_is_never_behind_a_proxy() {
        for url in ["http://metadata.google.internal/x", "http://169.254.169.254/x", "http://[::1]:80/"] {
            assert!(is_near(url), "{url}");
        }
        for url in ["https://compute.googleapis.com/", "http://10.0.0.1/", "not an address"] {
            assert!(!is_near(url), "{url}");
        }
    }

    #[test]
    fn a_form_is_escaped_and_a_token_is_not_shown() {
        let sent = Sent::new(Method::POST, "http://x").form(&[("a b", "c&d"), ("e", "f=g")]).bearer("secret");
        assert_eq!(sent.body, "a+b=c%26d&e=f%3Dg");
        assert!(!format!("{sent:?}").contains("secret"), "{sent:?}");
    }
}
