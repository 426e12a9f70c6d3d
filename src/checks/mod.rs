//! Service checks: the trait, the kinds, and what one run reports. One kind per file.
//!
//! Owns: [`Check`], [`CheckSpec`] and the arm that builds each kind. Never: decides what a result means for a
//! service (`rules/health.rs`) or when a check runs (`tasks/anycast/schedule.rs`).
//!
//! To add a kind: a file here with its plain `Spec` and its [`Check`]; a variant of [`CheckSpec`] and its arm in
//! [`build`]; its reader in `config/anycast/checks.rs`; pass, fail and unknown rows in `tests/anycast_checks.rs`.

pub mod address;
pub mod cabourotte;
pub mod certificate;
pub mod command;
pub mod dns;
pub mod file;
pub mod http;
pub mod icmp;
pub mod ntp;
pub mod process;
pub mod tcp;
pub mod tftp;
pub mod tls;
pub mod trust;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use crate::rules::health::Sample;

/// A future that borrows its check.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A configured health test. One run at a time; the scheduler bounds each run by the check's deadline.
pub trait Check: Send + Sync {
    /// Runs the test once.
    fn probe(&self) -> Boxed<'_, Report>;

    /// Waits for a sign that the service has changed (its process ended, its connection was reset) and says what
    /// happened; the scheduler then probes at once. `None` = this check has nothing to wait for.
    fn event(&self) -> Option<Boxed<'_, String>> {
        None
    }
}

/// What one run found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Pass, fail or unknown.
    pub sample: Sample,
    /// Why, in one line; empty for an ordinary pass.
    pub reason: String,
    /// A failure that needs no repetition to be believed.
    pub decisive: bool,
    /// Figures for the metrics.
    pub facts: Facts,
}

/// Figures that a run brings along.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Facts {
    /// None.
    #[default]
    Nothing,
    /// A certificate.
    Certificate {
        /// Path of the file; empty for a remote certificate.
        path: String,
        /// `host:port` of a remote certificate; empty for a file.
        host: String,
        /// NotAfter, in seconds since 1970.
        not_after: i64,
    },
    /// A run of echo requests.
    Ping(icmp::PingFigures),
    /// An answer of a time server.
    Ntp {
        /// Its address or name as configured.
        host: String,
        /// Its clock minus ours, in milliseconds.
        offset_ms: f64,
        /// Round trip, in milliseconds.
        rtt_ms: f64,
    },
}

impl Report {
    /// As it should be.
    pub fn pass() -> Self {
        Self { sample: Sample::Pass, reason: String::new(), decisive: false, facts: Facts::Nothing }
    }

    /// Not as it should be.
    pub fn fail(reason: impl Into<String>) -> Self {
        Self { sample: Sample::Fail, reason: reason.into(), ..Self::pass() }
    }

    /// The test could not be done.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { sample: Sample::Unknown, reason: reason.into(), ..Self::pass() }
    }

    /// With figures.
    pub fn with(self, facts: Facts) -> Self {
        Self { facts, ..self }
    }
}

impl From<Result<(), String>> for Report {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::fail, |()| Self::pass())
    }
}

/// Tries of the kinds that retry within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, at least one.
    pub tries: u8,
    /// Wait between two tries.
    pub interval: Duration,
    /// Limit of one try.
    pub timeout: Duration,
}

impl Retry {
    /// One try.
    pub fn once(timeout: Duration) -> Self {
        Self { tries: 1, interval: Duration::ZERO, timeout }
    }

    /// The longest that all tries and the waits between them can take.
    pub fn longest(&self) -> Duration {
        let tries = u32::from(self.tries.max(1));
        self.timeout.saturating_mul(tries) + self.interval.saturating_mul(tries - 1)
    }

    /// Tries until one succeeds; an error names tries, interval and the last error.
    pub async fn run<T, F, Fut>(&self, mut attempt: F) -> Result<T, String>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, String>>,
    {
        let tries = self.tries.max(1);
        let mut last = String::new();
        for number in 1..=tries {
            match tokio::time::timeout(self.timeout, attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => last = error,
                Err(_) => last = format!("no answer within {}", humantime::format_duration(self.timeout)),
            }
            tracing::debug!(attempt = number, error = %last, "try failed");
            if number < tries {
                tokio::time::sleep(self.interval).await;
            }
        }
        if tries == 1 {
            return Err(last);
        }
        let interval = humantime::format_duration(self.interval);
        Err(format!("{tries} tries, {interval} apart, all failed; the last: {last}"))
    }
}

/// What to test, by kind. Plain data: two equal specifications are the same check.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckSpec {
    /// An address is assigned to this machine.
    Address(address::Spec),
    /// Cabourotte says so.
    Cabourotte(cabourotte::Spec),
    /// A program exits with 0.
    Command(command::Spec),
    /// A DNS server answers as expected.
    Dns(dns::Spec),
    /// A file is there, or is not.
    File(file::Spec),
    /// An HTTP server answers as expected.
    Http(Box<http::Spec>),
    /// A host answers echo requests.
    Icmp(icmp::Spec),
    /// A time server agrees with our clock.
    Ntp(ntp::Spec),
    /// A process lives.
    Process(process::Spec),
    /// A TCP port accepts (or must not).
    Tcp(tcp::Spec),
    /// A TFTP server sends a file.
    Tftp(tftp::Spec),
    /// A certificate in a file is as expected.
    CertificateFile(certificate::Expect),
    /// A TLS server's handshake and certificate are as expected.
    Tls(Box<tls::Spec>),
}

/// A check that cannot be built; found at start-up and by `check-config`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

/// Builds the check. `trust` = the system's certificate authorities, read once.
///
/// # Errors
/// Where the machine lacks something that the kind needs: no permission for ICMP, an unreadable key.
pub fn build(spec: &CheckSpec, trust: &trust::Trust) -> Result<Box<dyn Check>, BuildError> {
    Ok(match spec.clone() {
        CheckSpec::Address(spec) => Box::new(address::AddressCheck::new(spec)),
        CheckSpec::Cabourotte(spec) => Box::new(cabourotte::CabourotteCheck::new(spec, trust)?),
        CheckSpec::Command(spec) => Box::new(command::CommandCheck::new(spec)),
        CheckSpec::Dns(spec) => Box::new(dns::DnsCheck::new(spec)?),
        CheckSpec::File(spec) => Box::new(file::FileCheck::new(spec)),
        CheckSpec::Http(spec) => Box::new(http::HttpCheck::new(*spec, trust)?),
        CheckSpec::Icmp(spec) => Box::new(icmp::IcmpCheck::new(spec)?),
        CheckSpec::Ntp(spec) => Box::new(ntp::NtpCheck::new(spec)),
        CheckSpec::Process(spec) => Box::new(process::ProcessCheck::new(spec)),
        CheckSpec::Tcp(spec) => Box::new(tcp::TcpCheck::new(spec)),
        CheckSpec::Tftp(spec) => Box::new(tftp::TftpCheck::new(spec)),
        CheckSpec::CertificateFile(expect) => Box::new(certificate::CertificateCheck::new(expect)),
        CheckSpec::Tls(spec) => Box::new(tls::TlsCheck::new(*spec, trust)?),
    })
}
