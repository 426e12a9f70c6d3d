//! One etcd process.
//!
//! Owns: its data directory and its address. Never: a cluster of several.

use std::path::Path;
use std::process::Command;

use super::daemon::{Daemon, Network, wait_for};
use super::rest;

/// A single-node etcd; dropping it stops it.
pub struct Etcd {
    /// The daemon, for fault injection.
    pub daemon: Daemon,
    /// `ip:2379`
    pub client: String,
}

impl Etcd {
    /// Starts it on host `n` of the network and waits until it is healthy.
    pub fn start(dir: &Path, net: Network, n: u8) -> Self {
        let client = format!("{}:2379", net.host(n));
        let (url, peer) = (format!("http://{client}"), format!("http://{}:2380", net.host(n)));
        let data = dir.join(format!("etcd{n}"));
        let cluster = format!("etcd{n}={peer}");
        let name = format!("etcd{n}");
        let argv = [
            "/usr/bin/etcd",
            "--name",
            &name,
            "--data-dir",
            data.to_str().expect("utf-8 path"),
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &cluster,
            "--log-level",
            "error",
        ];
        let daemon = Daemon::start("root", dir, &dir.join(format!("etcd{n}.log")), &argv);
        wait_for("etcd healthy", 60, || (rest::status(&client, "/health") == Some(200)).then_some(()));
        Self { daemon, client }
    }

    /// Removes every key of a Patroni scope, as deleting the cluster's state objects does in Kubernetes.
    pub fn forget_scope(client: &str, scope: &str) {
        let done = Command::new("/usr/bin/etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", client, "del", "--prefix", &format!("/service/{scope}/")])
            .output()
            .expect("etcdctl runs");
        assert!(done.status.success(), "etcdctl del: {}", String::from_utf8_lossy(&done.stderr));
    }
}
