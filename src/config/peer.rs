//! Settings of the peer link: addresses, certificate files, times.
//!
//! Reads and judges the certificate files too, so that `check-config` finds a missing key before a failover does.
//! Contacts nothing.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::lookup::Reader;
use crate::model::Wall;
use crate::peer::material::{Material, MaterialFile, MaterialPaths};
use crate::peer::tls::{ClientAuth, TlsMin, TlsRules};

/// PEM file of the authorities that both sites trust.
pub const TLS_CA: &str = "TLS_CA";
/// PEM file of our certificate, for both TLS roles (serverAuth and clientAuth).
pub const TLS_LOCAL_CRT: &str = "TLS_LOCAL_CRT";
/// PEM file of our certificate's private key.
pub const TLS_LOCAL_KEY: &str = "TLS_LOCAL_KEY";
/// Host name or address of the agent at the other site.
pub const PEER_HOST: &str = "PEER_HOST";
/// Its port (default 8765).
pub const PEER_PORT: &str = "PEER_PORT";
/// Name or address that the peer's certificate must carry (default `PEER_HOST`).
pub const PEER_SAN: &str = "PEER_SAN";
/// Address and port that we listen on (default 0.0.0.0:8765).
pub const PEER_LISTEN: &str = "PEER_LISTEN";
/// `require` (default) or, only while the other site still runs the predecessor, `accept-missing`.
pub const PEER_CLIENT_AUTH: &str = "PEER_CLIENT_AUTH";
/// Oldest TLS version: `1.3` (default) or `1.2`.
pub const PEER_TLS_MIN: &str = "PEER_TLS_MIN";
/// Seconds between heartbeats (default 1).
pub const PEER_PING_SECONDS: &str = "PEER_PING_SECONDS";
/// Seconds without an answer after which the peer counts as lost (default 3).
pub const PEER_LOSS_SECONDS: &str = "PEER_LOSS_SECONDS";
/// Seconds without any frame after which an incoming connection is closed (default 60).
pub const PEER_IDLE_SECONDS: &str = "PEER_IDLE_SECONDS";
/// Seconds that the delivery of one message may take (default 5).
pub const PEER_FORWARD_TIMEOUT_SECONDS: &str = "PEER_FORWARD_TIMEOUT_SECONDS";
/// Connections that the listener serves at once (default 32); more are refused.
pub const PEER_MAX_CONNECTIONS: &str = "PEER_MAX_CONNECTIONS";

/// Everything that the peer link needs to know. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSettings {
    /// Certificate files.
    pub files: MaterialPaths,
    /// Host of the other agent.
    pub host: String,
    /// Port of the other agent.
    pub port: u16,
    /// Name or address that its certificate must carry.
    pub san: ServerName<'static>,
    /// Where we listen.
    pub listen: SocketAddr,
    /// What is asked of incoming connections.
    pub client_auth: ClientAuth,
    /// Oldest TLS version.
    pub tls_min: TlsMin,
    /// Between heartbeats.
    pub ping_ms: u64,
    /// Loss time.
    pub loss_ms: u64,
    /// Idle time of incoming connections.
    pub idle_ms: u64,
    /// Limit of one delivery.
    pub forward_ms: u64,
    /// Bound of incoming connections.
    pub max_connections: usize,
    /// Remarks for the start-up log; the agent runs all the same.
    pub warnings: Vec<String>,
}

impl PeerSettings {
    /// Reads the section. `needed` = a peer process is on: then the certificate files and the peer's host are
    /// required, and the files are judged as of `now`.
    pub fn read(reader: &mut Reader<'_>, needed: bool, now: Wall) -> Self {
        let path = |reader: &mut Reader<'_>, name: &str, want: &str| {
            PathBuf::from(if needed { reader.required(name, want) } else { reader.text_or(name, "") })
        };
        let files = MaterialPaths {
            ca: path(reader, TLS_CA, "the PEM file of the authorities that both sites trust"),
            certificate: path(reader, TLS_LOCAL_CRT, "the PEM file of this site's certificate"),
            key: path(reader, TLS_LOCAL_KEY, "the PEM file of this site's private key"),
        };
        let host = if needed {
            reader.required(PEER_HOST, "the host name or address of the agent at the other site")
        } else {
            reader.text_or(PEER_HOST, "")
        };
        let mut settings = Self {
            files,
            san: peer_san(reader, &host),
            host,
            port: reader.integer(PEER_PORT, 8765, 1, 65535) as u16,
            listen: reader
                .parsed(PEER_LISTEN, "an address and a port such as 0.0.0.0:8765")
                .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 8765))),
            client_auth: choice(
                reader,
                PEER_CLIENT_AUTH,
                &[("require", ClientAuth::Require), ("accept-missing", ClientAuth::AcceptMissing)],
            ),
            tls_min: choice(reader, PEER_TLS_MIN, &[("1.3", TlsMin::V13), ("1.2", TlsMin::V12)]),
            ping_ms: reader.seconds(PEER_PING_SECONDS, 1000, 0.05, 60.0),
            loss_ms: reader.seconds(PEER_LOSS_SECONDS, 3000, 0.1, 600.0),
            idle_ms: reader.seconds(PEER_IDLE_SECONDS, 60_000, 1.0, 3600.0),
            forward_ms: reader.seconds(PEER_FORWARD_TIMEOUT_SECONDS, 5000, 0.1, 60.0),
            max_connections: reader.integer(PEER_MAX_CONNECTIONS, 32, 4, 1024) as usize,
            warnings: Vec::new(),
        };
        if settings.loss_ms <= settings.ping_ms {
            let value = (settings.loss_ms as f64 / 1000.0).to_string();
            let want = format!("more than {PEER_PING_SECONDS}, or every heartbeat comes too late");
            reader.problem(PEER_LOSS_SECONDS, Some(&value), want);
        }
        if needed {
            settings.judge_files(reader, now);
        }
        settings
    }

    /// The rules for TLS.
    pub fn tls_rules(&self) -> TlsRules {
        TlsRules { peer_san: self.san.clone(), client_auth: self.client_auth, min: self.tls_min }
    }

    /// Host and port as text for logs and the dialled URL.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn judge_files(&mut self, reader: &mut Reader<'_>, now: Wall) {
        if self.files.each().iter().any(|(_, path)| path.as_os_str().is_empty()) {
            return; // A missing setting has been reported already.
        }
        match Material::load(&self.files, now) {
            Ok(material) => self.warnings.extend(material.warnings),
            Err(error) => {
                let setting = match error.file {
                    MaterialFile::Ca => TLS_CA,
                    MaterialFile::Certificate => TLS_LOCAL_CRT,
                    MaterialFile::Key => TLS_LOCAL_KEY,
                };
                reader.problem(setting, Some(&error.path.display().to_string()), error.problem);
            }
        }
        if self.client_auth == ClientAuth::AcceptMissing {
            self.warnings.push(format!(
                "{PEER_CLIENT_AUTH}=accept-missing: anybody who reaches {} can pretend to be the peer; \
                 set it to require once the other site runs this agent",
                self.listen
            ));
        }
    }
}

/// The pinned name; an unusable one is a problem and stands as a name that no certificate carries.
fn peer_san(reader: &mut Reader<'_>, host: &str) -> ServerName<'static> {
    let text = reader.text_or(PEER_SAN, host);
    ServerName::try_from(text.clone()).unwrap_or_else(|_| {
        let setting = if reader.text(PEER_SAN).is_some() { PEER_SAN } else { PEER_HOST };
        if !text.is_empty() {
            reader.problem(setting, Some(&text), "a DNS name or an IP address");
        }
        ServerName::try_from("unset.invalid").expect("a literal DNS name")
    })
}

/// One of a few words; the first is the default.
fn choice<T: Copy>(reader: &mut Reader<'_>, name: &str, words: &[(&str, T)]) -> T {
    let default = words[0].1;
    let Some(text) = reader.text(name) else { return default };
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).unwrap_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        reader.problem(name, Some(&text), known.join(" or "));
        default
    })
}
