//! Google Compute v1 for route steering: backend health of a region, and routers.
//!
//! Owns addresses, credentials, paging, operations, errors with a kind, one breaker per target. Decides nothing: what
//! a region amounts to and what a router should announce comes from above. Monitoring that fails is an error (the
//! caller takes it as unknown) or an unanswered backend, never a sick one.

pub mod backends;
mod call;
pub mod credentials;
mod error;
mod operations;
mod patch;
pub mod routers;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::attempts::{Attempts, RetryPolicy};
use super::http_client::HttpError;
use super::wire::Wire;
pub use backends::{BackendScope, GroupAnswer, InstanceHealth, RegionAnswer, ServiceAnswer};
pub use credentials::{CredentialError, CredentialSource, Credentials};
pub use error::GcpError;
pub use routers::{
    AdvertiseMode, AdvertisedRange, BgpPeer, Overrides, RouterPlace, RouterStatus, RouterView, Session,
    Steered, WantedPrefix,
};

/// Google's own address of the API.
pub const COMPUTE: &str = "https://compute.googleapis.com/compute/v1";

/// How the API is used.
#[derive(Debug, Clone)]
pub struct GcpSettings {
    /// Base address, without a trailing slash.
    pub endpoint: String,
    /// Limit of a plain call (`GCP_API_TIMEOUT`).
    pub api_timeout: Duration,
    /// Limit of one `getHealth` (`GCP_BACKEND_HEALTH_TIMEOUT`).
    pub health_timeout: Duration,
    /// Limit of a router's change from the first read to the read-back (`GCP_BGP_OPERATION_TIMEOUT`).
    pub operation_timeout: Duration,
    /// Lists and `getHealth`.
    pub health_retry: RetryPolicy,
    /// Reads of routers and of their status.
    pub bgp_retry: RetryPolicy,
    /// Changes of routers; its total is cut to `operation_timeout`.
    pub update_retry: RetryPolicy,
    /// `getHealth` calls at one time; at least 1.
    pub parallel: usize,
    /// First wait between two looks at an operation; doubles up to ten times as much.
    pub poll: Duration,
}

impl GcpSettings {
    /// The usual limits.
    pub fn new(endpoint: impl Into<String>) -> Self {
        let retry = |retries, total| RetryPolicy {
            retries,
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            total: Duration::from_secs(total),
            jitter: true,
        };
        Self {
            endpoint: endpoint.into(),
            api_timeout: Duration::from_secs(30),
            health_timeout: Duration::from_secs(45),
            operation_timeout: Duration::from_secs(60),
            health_retry: retry(5, 50),
            bgp_retry: retry(4, 50),
            update_retry: retry(2, 60),
            parallel: 16,
            poll: Duration::from_millis(500),
        }
    }
}

/// A client. Cheap to clone: clones share token and breakers.
#[derive(Clone)]
pub struct Compute {
    inner: Arc<Inner>,
}

struct Inner {
    settings: GcpSettings,
    wire: Wire,
    credentials: Credentials,
    attempts: Attempts,
}

impl Compute {
    /// Sets the client up; contacts nothing.
    pub fn new(settings: GcpSettings, wire: Wire, credentials: Credentials, attempts: Attempts) -> Self {
        Self { inner: Arc::new(Inner { settings, wire, credentials, attempts }) }
    }

    /// A client over the network, with the usual credentials.
    ///
    /// # Errors
    /// Where the HTTP clients cannot be made.
    pub fn over_network(
        settings: GcpSettings,
        source: CredentialSource,
        attempts: Attempts,
    ) -> Result<Self, HttpError> {
        let longest = settings.api_timeout.max(settings.health_timeout).max(settings.operation_timeout);
        let wire = Wire::network(longest, settings.parallel)?;
        let credentials = Credentials::new(source, wire.clone(), attempts.clone());
        Ok(Self::new(settings, wire, credentials, attempts))
    }

    /// Whether the project exists and may be read (`projects.get`).
    ///
    /// # Errors
    /// As the API answers.
    pub async fn check_project(&self, project: &str, deadline: Instant) -> Result<(), GcpError> {
        let path = format!("/projects/{}", escape(project));
        self.checked(&path, "projects.get", deadline).await
    }

    /// Whether the region belongs to the project (`regions.get`); a 404 means that it does not.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn check_region(&self, project: &str, region: &str, deadline: Instant) -> Result<(), GcpError> {
        let path = format!("/projects/{}/regions/{}", escape(project), escape(region));
        self.checked(&path, "regions.get", deadline).await
    }

    async fn checked(&self, path: &str, operation: &'static str, deadline: Instant) -> Result<(), GcpError> {
        let settings = &self.inner.settings;
        let attempt = |_| self.get(path, operation, settings.api_timeout);
        self.inner.attempts.chain(("gcp_startup", operation), &settings.bgp_retry, deadline, attempt).await?;
        Ok(())
    }
}

/// A prefix as the API writes it back: host bits cleared; `None` where the text is no prefix.
pub fn canonical(text: &str) -> Option<IpNet> {
    text.trim().parse::<IpNet>().ok().map(|net| net.trunc())
}

/// A name as one segment of a path.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => {
                out.push(byte as char)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
