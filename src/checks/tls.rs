//! `tls` and the remote form of `tls_certificate`: a handshake succeeds and the certificate is as expected.
//!
//! Connection and handshake together have one limit, so a server that accepts and never speaks fails in time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::certificate::{self, Expect};
use super::{Boxed, BuildError, Check, Facts, Report, tcp, trust};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Name to ask for and to verify, in place of `host`.
    pub server_name: Option<String>,
    /// Trust and client certificate.
    pub options: trust::Options,
    /// What the certificate must be like.
    pub expect: Expect,
    /// Limit of one run.
    pub timeout: Duration,
}

/// The check.
pub struct TlsCheck {
    spec: Spec,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl TlsCheck {
    /// A check of the server.
    ///
    /// # Errors
    /// A name that is none, or unusable files.
    pub fn new(spec: Spec, trust: &trust::Trust) -> Result<Self, BuildError> {
        let name = spec.server_name.as_ref().unwrap_or(&spec.host).clone();
        let name = ServerName::try_from(name.clone())
            .map_err(|_| BuildError(format!("{name:?} is neither a DNS name nor an address")))?;
        let connector = TlsConnector::from(Arc::new(trust.client(&spec.options)?));
        Ok(Self { spec, name, connector })
    }

    async fn run(&self) -> Report {
        let Spec { host, port, source, timeout, .. } = &self.spec;
        let remote = format!("{host}:{port}");
        let handshake = async {
            let stream = tcp::connect(host, *port, *source).await?;
            let stream = self.connector.connect(self.name.clone(), stream).await;
            stream.map_err(|error| format!("TLS handshake with {remote}: {error}"))
        };
        let stream = match tokio::time::timeout(*timeout, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Report::fail(error),
            Err(_) => {
                let limit = humantime::format_duration(*timeout);
                return Report::fail(format!("TLS handshake with {remote}: not done within {limit}"));
            }
        };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let (not_after, verdict) = certificate::judge(chain, &self.spec.expect, certificate::unix_now());
        let report = Report::from(verdict.map_err(|why| format!("certificate of {remote}: {why}")));
        match not_after {
            Some(not_after) => {
                report.with(Facts::Certificate { path: String::new(), host: remote, not_after })
            }
            None => report,
        }
    }
}

impl Check for TlsCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(self.run())
    }
}
