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
        if settings.loss_ms < 2 * settings.ping_ms {
            let value = (settings.loss_ms as f64 / 1000.0).to_string();
            let want = format!("at least twice {PEER_PING_SECONDS}, or one slow answer is a lost peer");
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
            Err(errors) => {
                for error in errors {
                    let setting = match error.file {
                        MaterialFile::Ca => TLS_CA,
                        MaterialFile::Certificate => TLS_LOCAL_CRT,
                        MaterialFile::Key => TLS_LOCAL_KEY,
                    };
                    reader.problem(setting, Some(&error.path.display().to_string()), error.problem);
                }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::peer::certs::{DevCa, Leaf, PemPair};

    const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

    fn now() -> Wall {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Wall(since.as_millis() as u64)
    }

    fn leaf() -> Leaf {
        Leaf::new("gold", &["gold.test".to_owned()], 30)
    }

    /// A directory with a CA and the pair that `make` gives, and the settings that name them.
    fn site(make: impl Fn(&DevCa) -> PemPair) -> (tempfile::TempDir, BTreeMap<String, String>) {
        let dir = tempfile::tempdir().unwrap();
        let ca = DevCa::new("test", 60).unwrap();
        let pair = make(&ca);
        for (file, text) in
            [("ca.crt", ca.pem().certificate), ("gold.crt", pair.certificate), ("gold.key", pair.key)]
        {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let at = |file: &str| dir.path().join(file).display().to_string();
        let env = [
            (TLS_CA, at("ca.crt")),
            (TLS_LOCAL_CRT, at("gold.crt")),
            (TLS_LOCAL_KEY, at("gold.key")),
            (PEER_HOST, "golddr.test".to_owned()),
        ];
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        (dir, env)
    }

    fn read(env: &BTreeMap<String, String>, now: Wall) -> (PeerSettings, Vec<String>) {
        let mut reader = Reader::new(env);
        let settings = PeerSettings::read(&mut reader, true, now);
        (settings, reader.into_problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_the_predecessors_port_and_the_strict_choices() {
        let (_dir, env) = site(|ca| ca.issue(&leaf()).unwrap());
        let (settings, problems) = read(&env, now());
        assert_eq!(problems, [""; 0]);
        assert_eq!(settings.warnings, [""; 0]);
        assert_eq!((settings.port, settings.listen.to_string()), (8765, "0.0.0.0:8765".to_owned()));
        assert_eq!((settings.client_auth, settings.tls_min), (ClientAuth::Require, TlsMin::V13));
        assert_eq!((settings.ping_ms, settings.loss_ms, settings.forward_ms), (1000, 3000, 5000));
        assert_eq!(settings.san.to_str(), "golddr.test");
    }

    #[test]
    fn everything_missing_is_named_at_once_and_only_where_it_is_needed() {
        let env = BTreeMap::new();
        let (_, problems) = read(&env, now());
        let names: Vec<&str> = problems.iter().filter_map(|problem| problem.split(' ').next()).collect();
        assert_eq!(names, [TLS_CA, TLS_LOCAL_CRT, TLS_LOCAL_KEY, PEER_HOST]);
        let mut reader = Reader::new(&env);
        PeerSettings::read(&mut reader, false, now());
        assert_eq!(reader.into_problems(), []);
    }

    #[test]
    fn malformed_values_say_what_would_be_right() {
        let (_dir, mut env) = site(|ca| ca.issue(&leaf()).unwrap());
        for (name, value) in [
            (PEER_PORT, "0"),
            (PEER_LISTEN, "8765"),
            (PEER_CLIENT_AUTH, "never"),
            (PEER_TLS_MIN, "1.1"),
            (PEER_SAN, "not a name"),
            (PEER_LOSS_SECONDS, "1.5"),
        ] {
            env.insert(name.to_owned(), value.to_owned());
        }
        let (_, problems) = read(&env, now());
        assert_eq!(
            problems,
            [
                r#"PEER_SAN="not a name": a DNS name or an IP address"#,
                r#"PEER_PORT="0": a whole number from 1 to 65535"#,
                r#"PEER_LISTEN="8765": an address and a port such as 0.0.0.0:8765"#,
                r#"PEER_CLIENT_AUTH="never": require or accept-missing"#,
                r#"PEER_TLS_MIN="1.1": 1.3 or 1.2"#,
                r#"PEER_LOSS_SECONDS="1.5": at least twice PEER_PING_SECONDS, or one slow answer is a lost peer"#,
            ]
        );
    }

    #[test]
    fn unusable_files_are_problems_of_the_setting_that_names_them() {
        let pair = |ca: &DevCa| ca.issue(&leaf()).unwrap();
        let overwrite = |dir: &Path, file: &str, text: &str| std::fs::write(dir.join(file), text).unwrap();
        let foreign = DevCa::new("other", 1).unwrap().issue(&leaf()).unwrap();

        let (dir, env) = site(pair);
        overwrite(dir.path(), "gold.key", &foreign.key);
        let (_, problems) = read(&env, now());
        assert!(problems[0].starts_with(TLS_LOCAL_KEY) && problems[0].contains("must be the key of"));
        assert!(!problems[0].contains("PRIVATE KEY-----"), "a key never shows");

        let (dir, env) = site(pair);
        overwrite(dir.path(), "ca.crt", "not PEM");
        let (_, problems) = read(&env, now());
        assert!(problems[0].starts_with(TLS_CA) && problems[0].contains("at least one certificate"));

        let (dir, env) = site(pair);
        std::fs::remove_file(dir.path().join("gold.crt")).unwrap();
        let (_, problems) = read(&env, now());
        assert!(
            problems[0].starts_with(TLS_LOCAL_CRT) && problems[0].contains("must be a readable PEM file")
        );
    }

    #[test]
    fn a_certificate_out_of_its_time_is_a_problem() {
        let (_dir, env) = site(|ca| ca.issue(&leaf().expired()).unwrap());
        let (_, problems) = read(&env, now());
        assert!(problems[0].starts_with(TLS_LOCAL_CRT) && problems[0].contains("expired on"), "{problems:?}");
        let (_dir, env) = site(|ca| ca.issue(&leaf()).unwrap());
        let (_, problems) = read(&env, Wall(now().0 - YEAR_MS));
        assert!(problems[0].contains("is not before"), "{problems:?}");
        let (_, problems) = read(&env, Wall(now().0 + YEAR_MS));
        assert!(problems[0].starts_with(TLS_CA), "the authority is older still: {problems:?}");
    }

    #[test]
    fn a_migration_warns_and_goes_on() {
        let (_dir, mut env) = site(|ca| ca.issue(&leaf().server_only()).unwrap());
        env.insert(PEER_CLIENT_AUTH.to_owned(), "accept-missing".to_owned());
        let (settings, problems) = read(&env, Wall(now().0 + Duration::from_secs(1).as_millis() as u64));
        assert_eq!(problems, [""; 0]);
        assert!(settings.warnings[0].contains("lacks clientAuth"), "{:?}", settings.warnings);
        assert!(settings.warnings[1].starts_with(PEER_CLIENT_AUTH), "{:?}", settings.warnings);
    }
}
