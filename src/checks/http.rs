//! `http_2xx` and `http`: an HTTP server answers with an expected status and body.
//!
//! Every probe is a connection of its own, bodies are read up to a megabyte, proxies of the environment are not used.

use std::net::IpAddr;
use std::time::Duration;

use regex::Regex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, redirect};

use super::{Boxed, BuildError, Check, Report, Retry, trust};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Absolute URL with scheme.
    pub url: String,
    /// Method.
    pub method: String,
    /// Headers; `Host` replaces the authority of the request.
    pub headers: Vec<(String, String)>,
    /// `User-Agent` where the headers name none.
    pub user_agent: String,
    /// Body, sent with any method.
    pub body: Option<String>,
    /// Statuses that pass, as closed ranges.
    pub valid_status: Vec<(u16, u16)>,
    /// Patterns that all must match somewhere in the body.
    pub body_patterns: Vec<String>,
    /// Redirects that are followed.
    pub redirects: usize,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Name to resolve to `pin`, in place of the name's own addresses.
    pub pin: Option<(String, IpAddr)>,
    /// Trust and client certificate.
    pub options: trust::Options,
    /// Tries and their limits.
    pub retry: Retry,
}

/// Bytes of a body that are looked at.
const BODY_LIMIT: usize = 1024 * 1024;

/// The check.
pub struct HttpCheck {
    spec: Spec,
    client: Client,
    method: Method,
    headers: HeaderMap,
    patterns: Vec<Regex>,
}

/// An HTTP client for probes: no pool, no proxy, no automatic retry.
pub(super) fn client(
    options: &trust::Options,
    trust: &trust::Trust,
    timeout: Duration,
    adjust: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<Client, BuildError> {
    let builder = Client::builder()
        .tls_backend_preconfigured(trust.client(options)?)
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(0)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .timeout(timeout);
    adjust(builder).build().map_err(|error| BuildError(format!("HTTP client: {error}")))
}

/// The innermost cause of an error, which is the part that says something.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    if error.is_timeout() { "no answer in time".to_owned() } else { inner.to_string() }
}

impl HttpCheck {
    /// A check of the server.
    ///
    /// # Errors
    /// A method, header or pattern that is none, or unusable files.
    pub fn new(spec: Spec, trust: &trust::Trust) -> Result<Self, BuildError> {
        let bad = |what: &str, value: &str| BuildError(format!("{what} {value:?} is malformed"));
        let mut headers = HeaderMap::new();
        for (name, value) in &spec.headers {
            let name_parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("header", name))?;
            headers.append(name_parsed, HeaderValue::from_str(value).map_err(|_| bad("header", name))?);
        }
        let method = Method::from_bytes(spec.method.as_bytes()).map_err(|_| bad("method", &spec.method))?;
        let patterns = spec.body_patterns.iter().map(|pattern| Regex::new(pattern)).collect::<Result<_, _>>();
        let patterns = patterns.map_err(|error| BuildError(format!("body pattern: {error}")))?;
        let client = client(&spec.options, trust, spec.retry.timeout, |mut builder| {
            if spec.redirects > 0 {
                builder = builder.redirect(redirect::Policy::limited(spec.redirects));
            }
            if let Some((name, address)) = &spec.pin {
                builder = builder.resolve(name, (*address, 0).into());
            }
            builder.local_address(spec.source).user_agent(spec.user_agent.clone())
        })?;
        Ok(Self { spec, client, method, headers, patterns })
    }

    async fn attempt(&self) -> Result<(), String> {
        let url = &self.spec.url;
        let mut request = self.client.request(self.method.clone(), url).headers(self.headers.clone());
        if let Some(body) = &self.spec.body {
            request = request.body(body.clone());
        }
        let mut response = request.send().await.map_err(|error| format!("{url}: {}", cause(&error)))?;
        let status = response.status().as_u16();
        if !self.spec.valid_status.iter().any(|(low, high)| (*low..=*high).contains(&status)) {
            return Err(format!("{url}: status {status}"));
        }
        if self.patterns.is_empty() {
            return Ok(());
        }
        let mut body = Vec::new();
        while body.len() < BODY_LIMIT {
            match response.chunk().await.map_err(|error| format!("{url}: body: {}", cause(&error)))? {
                Some(chunk) => body.extend_from_slice(&chunk),
                None => break,
            }
        }
        body.truncate(BODY_LIMIT);
        let text = String::from_utf8_lossy(&body);
        match self.patterns.iter().find(|pattern| !pattern.is_match(&text)) {
            Some(pattern) => Err(format!("{url}: the body does not match {:?}", pattern.as_str())),
            None => Ok(()),
        }
    }
}

impl Check for HttpCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(async { self.spec.retry.run(|| self.attempt()).await.into() })
    }
}
