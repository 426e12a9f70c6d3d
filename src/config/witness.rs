//! Settings of the observers that `sensor_watch` asks: the witness and the application of this site.

use std::path::PathBuf;

use super::{Reader, Secret};

/// Address of an etcd at a third place (its v3 JSON gateway); unset = no witness.
pub const WITNESS_URL: &str = "WITNESS_URL";
/// File with the CA certificates (PEM) that the witness's certificate must come from; unset = the system's.
pub const WITNESS_CA: &str = "WITNESS_CA";
/// File with this site's client certificate and key (PEM, one file) for the witness.
pub const WITNESS_CLIENT_PEM: &str = "WITNESS_CLIENT_PEM";
/// User at the witness, where it asks for one.
pub const WITNESS_USER: &str = "WITNESS_USER";
/// Password of that user.
pub const WITNESS_PASSWORD: &str = "WITNESS_PASSWORD";
/// Key of the lease; both sites must name the same (default `/switchover/ENVIRONMENT/service`).
pub const WITNESS_KEY: &str = "WITNESS_KEY";
/// Seconds between two looks at the witness (default 2); one look may take as long.
pub const WITNESS_POLL_SECONDS: &str = "WITNESS_POLL_SECONDS";
/// Address of this site's application that answers 2xx while it works; unset = not asked.
pub const APPLICATION_HEALTH_URL: &str = "APPLICATION_HEALTH_URL";
/// Seconds between two looks at the application (default 5); one look may take as long.
pub const APPLICATION_POLL_SECONDS: &str = "APPLICATION_POLL_SECONDS";
/// Bad answers in a row that make the application count as down (default 3).
pub const APPLICATION_FAILURES: &str = "APPLICATION_FAILURES";

/// The witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessSettings {
    /// Address without a trailing slash.
    pub base: String,
    /// Trusted CA certificates.
    pub ca: Option<PathBuf>,
    /// Client certificate and key.
    pub client_pem: Option<PathBuf>,
    /// User and password.
    pub login: Option<(String, Secret)>,
    /// Key of the lease.
    pub key: String,
    /// Milliseconds between two looks, and for one.
    pub poll_ms: u64,
}

/// The application of this site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationSettings {
    /// What is asked.
    pub url: String,
    /// Milliseconds between two looks, and for one.
    pub poll_ms: u64,
    /// Bad answers in a row that count.
    pub failures: u32,
}

/// What `sensor_watch` asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObserverSettings {
    /// The witness, where there is one.
    pub witness: Option<WitnessSettings>,
    /// The application, where it is asked.
    pub application: Option<ApplicationSettings>,
}

impl ObserverSettings {
    /// Whether there is nobody to ask.
    pub fn is_empty(&self) -> bool {
        self.witness.is_none() && self.application.is_none()
    }
}

/// Reads the section.
pub fn read(reader: &mut Reader<'_>, environment: &str) -> ObserverSettings {
    let poll_ms = reader.seconds(WITNESS_POLL_SECONDS, 2_000, 0.1, 60.0);
    let login = login(reader);
    let key = reader.text_or(WITNESS_KEY, &format!("/switchover/{environment}/service"));
    let (ca, client_pem) = (file(reader, WITNESS_CA), file(reader, WITNESS_CLIENT_PEM));
    let witness = reader.http_url(WITNESS_URL).map(|base| WitnessSettings {
        base,
        ca,
        client_pem,
        login,
        key,
        poll_ms,
    });
    let poll_ms = reader.seconds(APPLICATION_POLL_SECONDS, 5_000, 0.1, 600.0);
    let failures = u32::try_from(reader.integer(APPLICATION_FAILURES, 3, 1, 1_000)).unwrap_or(3);
    let application =
        reader.http_url(APPLICATION_HEALTH_URL).map(|url| ApplicationSettings { url, poll_ms, failures });
    ObserverSettings { witness, application }
}

fn login(reader: &mut Reader<'_>) -> Option<(String, Secret)> {
    let (user, password) = (reader.text(WITNESS_USER), reader.secret(WITNESS_PASSWORD));
    match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        (Some(user), None) => {
            reader.problem(WITNESS_USER, Some(&user), format!("{WITNESS_PASSWORD} beside it"));
            None
        }
        (None, Some(_)) => {
            reader.problem(WITNESS_PASSWORD, None, format!("{WITNESS_USER} beside it"));
            None
        }
    }
}

fn file(reader: &mut Reader<'_>, name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(reader.text(name)?);
    if std::fs::File::open(&path).is_err() {
        reader.problem(name, path.to_str(), "a readable file in PEM form");
    }
    Some(path)
}
