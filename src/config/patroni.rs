//! Settings of the local Patroni and of the peer's database that this site follows as a standby.
//!
//! Never contacts Patroni. Read by `adapters::patroni`, `tasks::patroni_worker` and the executor.

use super::{Reader, Secret};

/// Address of the local Patroni REST API, a path prefix included; may be a balanced address of all members.
pub const PATRONI_LOCAL_API: &str = "PATRONI_LOCAL_API";
/// Host of the local Patroni, used where `PATRONI_LOCAL_API` is not set.
pub const PATRONI_LOCAL_HOST: &str = "PATRONI_LOCAL_HOST";
/// Port of the local Patroni beside `PATRONI_LOCAL_HOST`; 8008 by default.
pub const PATRONI_LOCAL_PORT: &str = "PATRONI_LOCAL_PORT";
/// User for changes, where Patroni's `restapi.authentication` asks for one.
pub const PATRONI_USERNAME: &str = "PATRONI_USERNAME";
/// Password for changes (or `PATRONI_PASSWORD_FILE`).
pub const PATRONI_PASSWORD: &str = "PATRONI_PASSWORD";
/// Seconds one call may take.
pub const PATRONI_TIMEOUT_SECONDS: &str = "PATRONI_TIMEOUT_SECONDS";
/// Seconds between polls.
pub const PATRONI_POLL_SECONDS: &str = "PATRONI_POLL_SECONDS";
/// Database host of the peer site, as a standby follows it; may be a comma list.
pub const PATRONI_PEER_HOST: &str = "PATRONI_PEER_HOST";
/// Database port of the peer site, kept as text because it is written as text.
pub const PATRONI_PEER_PORT: &str = "PATRONI_PEER_PORT";
/// `restore_command` that a fenced database gets; it must fail, since nothing may be restored.
pub const PATRONI_FENCE_RESTORE_COMMAND: &str = "PATRONI_FENCE_RESTORE_COMMAND";
/// `create_replica_methods` that a fenced database gets, a comma list.
pub const PATRONI_FENCE_CREATE_REPLICA_METHODS: &str = "PATRONI_FENCE_CREATE_REPLICA_METHODS";

/// Settings of Patroni.
#[derive(Debug, Clone)]
pub struct PatroniSettings {
    /// Base address without a trailing slash; `None` where no Patroni is configured.
    pub base: Option<String>,
    /// User and password for changes.
    pub credentials: Option<(String, Secret)>,
    /// Milliseconds one call may take.
    pub timeout_ms: u64,
    /// Milliseconds between polls.
    pub poll_ms: u64,
    /// Database host or hosts of the peer site.
    pub peer_host: Option<String>,
    /// Database port of the peer site as text.
    pub peer_port: String,
    /// `restore_command` of a fenced database; never empty, because Patroni takes a section with neither host, port
    /// nor `restore_command` for no section at all.
    pub fence_restore_command: String,
    /// `create_replica_methods` of a fenced database.
    pub fence_create_replica_methods: Vec<String>,
}

/// Reads the section. `needed` = a task that cannot work without Patroni is on, so its address is required.
pub fn read(reader: &mut Reader<'_>, needed: bool) -> PatroniSettings {
    PatroniSettings {
        base: base(reader, needed),
        credentials: credentials(reader),
        timeout_ms: reader.seconds(PATRONI_TIMEOUT_SECONDS, 2000, 0.1, 60.0),
        poll_ms: reader.seconds(PATRONI_POLL_SECONDS, 5000, 0.1, 3600.0),
        peer_host: reader.text(PATRONI_PEER_HOST),
        peer_port: peer_port(reader),
        fence_restore_command: reader.text_or(PATRONI_FENCE_RESTORE_COMMAND, "false"),
        fence_create_replica_methods: reader
            .list(PATRONI_FENCE_CREATE_REPLICA_METHODS)
            .filter(|methods| !methods.is_empty())
            .unwrap_or_else(|| vec!["basebackup".to_owned()]),
    }
}

fn base(reader: &mut Reader<'_>, needed: bool) -> Option<String> {
    let port = reader.integer(PATRONI_LOCAL_PORT, 8008, 1, 65_535);
    if reader.text(PATRONI_LOCAL_API).is_some() {
        return reader.http_url(PATRONI_LOCAL_API);
    }
    match reader.text(PATRONI_LOCAL_HOST) {
        Some(host) => {
            let host = if host.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{host}]") } else { host };
            let url = format!("http://{host}:{port}");
            if reqwest::Url::parse(&url).is_err() || host.contains(['/', '@', '?', '#']) {
                reader.problem(PATRONI_LOCAL_HOST, Some(&host), "a host name or address");
                return None;
            }
            Some(url)
        }
        None => {
            if needed {
                reader.problem(
                    PATRONI_LOCAL_API,
                    None,
                    "the address of Patroni, such as http://patroni:8008",
                );
            }
            None
        }
    }
}

fn credentials(reader: &mut Reader<'_>) -> Option<(String, Secret)> {
    let given = reader.present(PATRONI_PASSWORD) || reader.present(&format!("{PATRONI_PASSWORD}_FILE"));
    match (reader.text(PATRONI_USERNAME), reader.secret(PATRONI_PASSWORD)) {
        (Some(user), Some(password)) => Some((user, password)),
        (Some(user), None) if !given => {
            reader.problem(PATRONI_USERNAME, Some(&user), format!("together with {PATRONI_PASSWORD}"));
            None
        }
        (None, Some(password)) if !password.is_empty() => {
            reader.problem(PATRONI_PASSWORD, Some("***"), format!("together with {PATRONI_USERNAME}"));
            None
        }
        _ => None,
    }
}

fn peer_port(reader: &mut Reader<'_>) -> String {
    let text = reader.text_or(PATRONI_PEER_PORT, "5432");
    if !text.parse::<u16>().is_ok_and(|port| port > 0) {
        reader.problem(PATRONI_PEER_PORT, Some(&text), "a port from 1 to 65535");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_from(pairs: &[(&str, &str)], needed: bool) -> (PatroniSettings, Vec<String>) {
        let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut reader = Reader::new(&map);
        let settings = read(&mut reader, needed);
        (settings, reader.into_problems().into_iter().map(|problem| problem.setting).collect())
    }

    #[test]
    fn the_address_comes_from_the_api_or_from_host_and_port() {
        let base = |pairs: &[(&str, &str)]| read_from(pairs, true).0.base;
        assert_eq!(base(&[(PATRONI_LOCAL_API, "http://h/patroni/")]).unwrap(), "http://h/patroni");
        assert_eq!(base(&[(PATRONI_LOCAL_HOST, "h")]).unwrap(), "http://h:8008");
        assert_eq!(
            base(&[(PATRONI_LOCAL_HOST, "::1"), (PATRONI_LOCAL_PORT, "9")]).unwrap(),
            "http://[::1]:9"
        );
        let both = [(PATRONI_LOCAL_API, "http://a"), (PATRONI_LOCAL_HOST, "h")];
        assert_eq!(base(&both).unwrap(), "http://a");
        assert_eq!(read_from(&[], true).1, [PATRONI_LOCAL_API]);
        assert_eq!(read_from(&[], false).1, Vec::<String>::new());
        let idle = [(PATRONI_LOCAL_API, "http://a"), (PATRONI_LOCAL_PORT, "x")];
        assert_eq!(read_from(&idle, true).1, [PATRONI_LOCAL_PORT], "wrong even where it is not used");
        assert_eq!(read_from(&[(PATRONI_LOCAL_HOST, "a/b")], true).1, [PATRONI_LOCAL_HOST]);
    }

    #[test]
    fn user_and_password_come_together() {
        let good = [(PATRONI_USERNAME, "u"), (PATRONI_PASSWORD, "p")];
        assert_eq!(read_from(&good, false).0.credentials, Some(("u".to_owned(), Secret::new("p"))));
        assert_eq!(read_from(&good[..1], false).1, [PATRONI_USERNAME]);
        assert_eq!(read_from(&good[1..], false).1, [PATRONI_PASSWORD]);
    }

    #[test]
    fn the_peer_port_stays_text() {
        assert_eq!(read_from(&[], false).0.peer_port, "5432");
        assert_eq!(read_from(&[(PATRONI_PEER_PORT, "06432")], false).0.peer_port, "06432");
        assert_eq!(read_from(&[(PATRONI_PEER_PORT, "x")], false).1, [PATRONI_PEER_PORT]);
    }
}
