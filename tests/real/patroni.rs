//! Patroni members with PostgreSQL 15, and clusters of them.
//!
//! Owns: their YAML, data directories and processes. Never: decides when a member runs; the test or
//! [`super::spilo`] does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown};

use super::daemon::{Daemon, Network, wait_for};
use super::{etcd::Etcd, rest};

/// Host (or comma list of hosts) and port that a standby cluster streams from.
pub type Upstream = (String, u16);

/// One running member; dropping it stops Patroni and its PostgreSQL.
pub struct PatroniMember {
    /// Patroni, for fault injection.
    pub daemon: Daemon,
    data: PathBuf,
}

impl Drop for PatroniMember {
    fn drop(&mut self) {
        self.daemon.stop(Duration::from_secs(30));
        // A Patroni that was killed leaves its PostgreSQL behind.
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        if let Some(pid) = text.lines().next().and_then(|line| line.parse::<i32>().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// A cluster of up to a few members, some running.
pub struct PatroniCluster {
    scope: String,
    dir: PathBuf,
    net: Network,
    first_host: u8,
    etcd: String,
    members: BTreeMap<u8, PatroniMember>,
}

impl PatroniCluster {
    /// A cluster without running members; member N will live on host `first_host + N`.
    pub fn new(dir: &Path, net: Network, scope: &str, first_host: u8, etcd: &Etcd) -> Self {
        let (scope, etcd) = (scope.to_owned(), etcd.client.clone());
        Self { scope, dir: dir.to_owned(), net, first_host, etcd, members: BTreeMap::new() }
    }

    /// Address of member N.
    pub fn host(&self, ordinal: u8) -> String {
        self.net.host(self.first_host + ordinal)
    }

    /// `ip:8008` of member N.
    pub fn api(&self, ordinal: u8) -> String {
        format!("{}:8008", self.host(ordinal))
    }

    /// Ordinals of the running members.
    pub fn running(&self) -> Vec<u8> {
        self.members.keys().copied().collect()
    }

    /// Starts member N; where the cluster is new, it bootstraps as a standby of `upstream` or as a primary.
    pub fn start(&mut self, ordinal: u8, upstream: Option<&Upstream>) {
        let name = format!("{}-{ordinal}", self.scope);
        let data = self.dir.join("data").join(&name);
        let socket = self.dir.join("sock").join(&name);
        let home = self.dir.join("home");
        for path in [data.parent().expect("has a parent"), socket.as_path(), home.as_path()] {
            own_by_postgres(path);
        }
        let yaml = self.yaml(&name, &self.host(ordinal), &data, &socket, upstream);
        let file = self.dir.join(format!("{name}.yml"));
        std::fs::write(&file, yaml).expect("member file");
        let argv = ["/usr/bin/patroni", file.to_str().expect("utf-8 path")];
        let daemon = Daemon::start("postgres", &home, &self.dir.join(format!("{name}.log")), &argv);
        self.members.insert(ordinal, PatroniMember { daemon, data });
    }

    /// Stops member N in order (its PostgreSQL with it).
    pub fn stop(&mut self, ordinal: u8) {
        self.members.remove(&ordinal);
    }

    /// The data of a stopped member is gone, as with a deleted volume.
    pub fn wipe(&self, ordinal: u8) {
        assert!(!self.members.contains_key(&ordinal), "a running member keeps its volume");
        let data = self.dir.join("data").join(format!("{}-{ordinal}", self.scope));
        let _ = std::fs::remove_dir_all(data.with_extension("failed"));
        let _ = std::fs::remove_dir_all(data);
    }

    /// Removes the cluster's keys from etcd; no member may be running.
    pub fn forget_state(&self) {
        assert!(self.members.is_empty(), "running members would write their state again");
        Etcd::forget_scope(&self.etcd, &self.scope);
    }

    /// Whether member N answers 200 at `path` (`/primary`, `/standby-leader`, `/replica`).
    pub fn is(&self, ordinal: u8, path: &str) -> bool {
        rest::status(&self.api(ordinal), path) == Some(200)
    }

    /// Waits until member N answers 200 at `path`; the failure shows its log.
    pub fn wait_until(&self, ordinal: u8, path: &str) {
        let mut polls = 0_u32;
        wait_for(&format!("{}-{ordinal} {path}", self.scope), 120, || {
            polls += 1;
            if polls.is_multiple_of(300) {
                eprintln!("{}", self.members.get(&ordinal).map(|m| m.daemon.tail()).unwrap_or_default());
            }
            self.is(ordinal, path).then_some(())
        });
    }

    /// PATCH /config through member N; panics unless Patroni takes it.
    pub fn patch_config(&self, ordinal: u8, body: &str) {
        let answer = rest::request("PATCH", &self.api(ordinal), "/config", body);
        assert_eq!(answer.as_ref().map(|(status, _)| *status), Some(200), "PATCH {body}: {answer:?}");
    }

    fn yaml(
        &self,
        name: &str,
        host: &str,
        data: &Path,
        socket: &Path,
        upstream: Option<&Upstream>,
    ) -> String {
        let Self { scope, etcd, .. } = self;
        let standby = upstream
            .map(|(host, port)| format!("    standby_cluster: {{host: \"{host}\", port: {port}}}\n"))
            .unwrap_or_default();
        let (data, socket) = (data.display(), socket.display());
        format!(
            r#"scope: {scope}
namespace: /service/
name: {name}
restapi: {{listen: "{host}:8008", connect_address: "{host}:8008"}}
etcd3: {{hosts: "{etcd}"}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 1048576
{standby}    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {{wal_level: replica, hot_standby: "on", wal_log_hints: "on", max_wal_senders: 10, max_replication_slots: 10, wal_keep_size: 128MB, shared_buffers: 16MB, max_connections: 40, fsync: "off", wal_receiver_status_interval: 1s}}
  initdb: [encoding: UTF8, {{locale: C.UTF-8}}, data-checksums]
postgresql:
  listen: "{host}:5432"
  connect_address: "{host}:5432"
  data_dir: {data}
  bin_dir: /usr/lib/postgresql/15/bin
  pgpass: {data}.pgpass
  authentication: {{superuser: {{username: postgres, password: pgsu}}, replication: {{username: repl, password: pgrepl}}, rewind: {{username: rewind, password: pgrewind}}}}
  pg_hba: [local all all trust, host all all 127.0.0.0/8 scram-sha-256, host replication repl 127.0.0.0/8 scram-sha-256]
  parameters: {{unix_socket_directories: "{socket}"}}
"#
        )
    }
}

fn own_by_postgres(path: &Path) {
    std::fs::create_dir_all(path).expect("directory");
    let user = User::from_name("postgres").expect("passwd is readable").expect("user postgres");
    chown(path, Some(user.uid), Some(user.gid)).expect("chown");
}
