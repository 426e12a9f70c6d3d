//! An authoritative DNS server whose answers change at run time (RFC 2136 updates with a TSIG key).
//!
//! Owns: knotd, its zone and its key. Never: recursion.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::daemon::{Daemon, Network, wait_for};

const KEY: &str = "hmac-sha256:k1.:c3dpdGNob3ZlciB0ZXN0IGtleSwgbm90IHNlY3JldCE=";

/// knotd with the zone `dr.test`; dropping it stops it.
pub struct Knot {
    /// The daemon, for fault injection.
    pub daemon: Daemon,
    /// Its address; port 53.
    pub address: String,
}

impl Knot {
    /// Starts it on host `n` with `www.dr.test` answering `first`.
    pub fn start(dir: &Path, net: Network, n: u8, first: &str) -> Self {
        let address = net.host(n);
        let run = dir.join("knot");
        std::fs::create_dir_all(&run).expect("knot directory");
        let at = run.display();
        let secret = KEY.rsplit(':').next().expect("key text");
        let conf = format!(
            "server:\n  listen: {address}@53\n  rundir: {at}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\nlog:\n- target: stderr\n  any: warning\nkey:\n- id: k1.\n  algorithm: \
             hmac-sha256\n  secret: {secret}\nacl:\n- id: upd\n  key: k1.\n  action: [update, transfer]\n\
             database:\n  storage: {at}\nzone:\n- domain: dr.test\n  storage: {at}\n  file: dr.test.zone\n  \
             acl: upd\n  zonefile-sync: -1\n"
        );
        let zone = format!(
            "dr.test. 5 SOA ns.dr.test. admin.dr.test. 1 60 60 600 5\ndr.test. 5 NS ns.dr.test.\n\
             ns.dr.test. 5 A {address}\nwww.dr.test. 5 A {first}\n"
        );
        let file = run.join("knot.conf");
        std::fs::write(&file, conf).expect("knot.conf");
        std::fs::write(run.join("dr.test.zone"), zone).expect("zone");
        let argv = ["/usr/sbin/knotd", "-c", file.to_str().expect("utf-8 path")];
        let daemon = Daemon::start("root", dir, &dir.join("knot.log"), &argv);
        let knot = Self { daemon, address };
        wait_for("the zone is served", 30, || (knot.answers() == [first]).then_some(()));
        knot
    }

    /// Addresses of `www.dr.test` now; lines that are not addresses (dig prints errors there) are dropped.
    pub fn answers(&self) -> Vec<String> {
        let server = format!("@{}", self.address);
        let out = Command::new("/usr/bin/dig")
            .args(["+short", "+time=1", "+tries=1", &server, "www.dr.test", "A"])
            .output()
            .expect("dig runs");
        String::from_utf8_lossy(&out.stdout)
            .lines()
            .filter(|line| line.parse::<std::net::Ipv4Addr>().is_ok())
            .map(str::to_owned)
            .collect()
    }

    /// Makes `www.dr.test` answer `ip` only, by a dynamic update.
    pub fn point_to(&self, ip: &str) {
        let script = format!(
            "server {}\nzone dr.test.\nupdate delete www.dr.test. A\nupdate add www.dr.test. 5 A {ip}\nsend\n",
            self.address
        );
        let mut child = Command::new("/usr/bin/nsupdate")
            .args(["-y", KEY])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nsupdate runs");
        child.stdin.take().expect("stdin").write_all(script.as_bytes()).expect("script");
        assert!(child.wait().expect("nsupdate ends").success(), "nsupdate was refused");
    }
}
