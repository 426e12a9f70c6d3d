//! A small network for the BGP tests: one network namespace with real routing daemons in it, joined to ours by a
//! veth pair. Owns the daemons it starts and takes everything down again when dropped.
//!
//! ```text
//!   this test (.1, ::1) ---- veth ---- namespace: FRR .2, BIRD .3, GoBGP .4, ExaBGP .5 (and ::2 to ::5)
//! ```
//!
//! Where a daemon, `ip` or root is missing the test prints `SKIPPED` and returns; with `CI=true` it fails instead.

#![allow(dead_code, reason = "every test binary uses its own part of the lab")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code, outside of #[test] functions")]
#![allow(missing_docs, reason = "test code")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

pub mod daemons;

/// Longest wait for anything in the lab.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Hosts of the lab by the last part of their address.
pub const FRR: u8 = 2;
pub const BIRD: u8 = 3;
pub const GOBGP: u8 = 4;
pub const EXABGP: u8 = 5;

/// The AS of a host of the lab: 65002 for FRR and so on.
pub fn asn(host: u8) -> u32 {
    65000 + u32::from(host)
}

/// Tests that measure this process's memory must be alone in it, which plain `cargo test` does not give them.
static COMPANY: RwLock<()> = RwLock::new(());

enum Company {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

pub struct Lab {
    _company: Company,
    pub namespace: String,
    pub dir: tempfile::TempDir,
    net: (u8, u8),
    veth: String,
    daemons: Vec<(String, Child)>,
    frr_paths: Vec<PathBuf>,
}

/// Runs a command to its end; its output, or what went wrong.
pub fn run(command: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(command).args(arguments).output().map_err(|e| format!("{command}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{command} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn must(command: &str, arguments: &[&str]) -> String {
    run(command, arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// What is missing for a test that needs these programs; `None` = nothing.
pub fn missing(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root, for network namespaces".to_owned());
    }
    let absent = |p: &&&str| {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/lib/frr"];
        !folders.iter().any(|folder| fs::metadata(format!("{folder}/{p}")).is_ok())
    };
    programs.iter().chain(&["ip"]).find(absent).map(|p| (*p).to_owned())
}

#[allow(clippy::disallowed_methods, reason = "a test's own switch, not a setting")]
fn option_env_ci() -> Option<std::ffi::OsString> {
    std::env::var_os("CI")
}

impl Lab {
    /// A lab for a test that needs these programs; `None` = skipped, which is said on stdout.
    pub fn new(programs: &[&str]) -> Option<Self> {
        let _guard = COMPANY.read().unwrap_or_else(PoisonError::into_inner);
        Self::with(programs, Company::Shared { _guard })
    }

    /// A lab while no other is in this process.
    pub fn alone(programs: &[&str]) -> Option<Self> {
        let _guard = COMPANY.write().unwrap_or_else(PoisonError::into_inner);
        Self::with(programs, Company::Alone { _guard })
    }

    fn with(programs: &[&str], company: Company) -> Option<Self> {
        if let Some(what) = missing(programs) {
            assert!(option_env_ci().is_none_or(|v| v != "true"), "missing in CI: {what}");
            println!("SKIPPED: {what}");
            return None;
        }
        let id = std::process::id();
        let thread = format!("{:?}", std::thread::current().id());
        let number: u32 =
            thread.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
        let mix = id.wrapping_mul(31).wrapping_add(number.wrapping_mul(977));
        let net = (100 + (mix % 100) as u8, ((mix / 100) % 250) as u8);
        let namespace = format!("bgplab{}-{}", net.0, net.1);
        let veth = format!("bl{}-{}", net.0, net.1);
        let lab = Self {
            _company: company,
            namespace,
            dir: tempfile::Builder::new().prefix("bgplab").tempdir().unwrap(),
            net,
            veth,
            daemons: Vec::new(),
            frr_paths: Vec::new(),
        };
        lab.wire();
        Some(lab)
    }

    fn wire(&self) {
        let (ns, veth) = (self.namespace.as_str(), self.veth.as_str());
        let _ = run("ip", &["netns", "del", ns]);
        must("ip", &["netns", "add", ns]);
        must("ip", &["-n", ns, "link", "set", "lo", "up"]);
        must("ip", &["link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", ns]);
        must("ip", &["link", "set", veth, "up"]);
        must("ip", &["-n", ns, "link", "set", "eth0", "up"]);
        must("ip", &["addr", "add", &format!("{}/24", self.v4(1)), "dev", veth]);
        must("ip", &["addr", "add", &format!("{}/64", self.v6(1)), "dev", veth, "nodad"]);
        for host in 2..=30 {
            must("ip", &["-n", ns, "addr", "add", &format!("{}/24", self.v4(host)), "dev", "eth0"]);
            must("ip", &["-n", ns, "addr", "add", &format!("{}/64", self.v6(host)), "dev", "eth0", "nodad"]);
        }
    }

    /// IPv4 address of a host; 1 is ours.
    pub fn v4(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.net.0, self.net.1, host)
    }

    /// IPv6 address of a host.
    pub fn v6(&self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd99, self.net.0.into(), self.net.1.into(), 0, 0, 0, 0, host.into())
    }

    pub fn addr(&self, host: u8) -> IpAddr {
        self.v4(host).into()
    }

    /// Writes a file into the lab's folder.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts a daemon in the namespace; it dies with this thread, or when the lab is dropped.
    pub fn spawn(&mut self, name: &str, environment: &[(&str, &str)], command: &[&str]) {
        let log = fs::File::create(self.dir.path().join(format!("{name}.log"))).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "ip", "netns", "exec", &self.namespace])
            .args(command)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        self.daemons.push((name.to_owned(), child));
    }

    /// Starts a program on our side of the veth pair.
    pub fn spawn_outside(&mut self, name: &str, command: &[&str]) -> u32 {
        let log = fs::File::create(self.dir.path().join(format!("{name}.log"))).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let id = child.id();
        self.daemons.push((name.to_owned(), child));
        id
    }

    /// Sends a signal to a daemon's group.
    pub fn signal(&self, name: &str, signal: nix::sys::signal::Signal) {
        let (_, child) = self.daemons.iter().find(|(n, _)| n == name).unwrap();
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(child.id() as i32), signal);
    }

    /// Ends a daemon for good.
    pub fn kill(&mut self, name: &str) {
        let Some(at) = self.daemons.iter().position(|(n, _)| n == name) else { return };
        let (_, child) = self.daemons.remove(at);
        end(child);
    }

    /// Runs a command inside the namespace.
    pub fn inside(&self, command: &[&str]) -> Result<String, String> {
        let mut arguments = vec!["netns", "exec", self.namespace.as_str()];
        arguments.extend(command);
        run("ip", &arguments)
    }

    pub fn inside_json(&self, command: &[&str]) -> Value {
        self.inside(command).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

fn end(mut child: Child) {
    let group = nix::unistd::Pid::from_raw(child.id() as i32);
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGCONT);
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    let _ = child.wait();
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, _) in &self.daemons {
                let log = self.log(&format!("{name}.log"));
                eprintln!("--- {name}\n{}", &log[log.len().saturating_sub(3000)..]);
            }
        }
        for (_, child) in self.daemons.drain(..) {
            end(child);
        }
        let _ = run("ip", &["link", "del", &self.veth]);
        let _ = run("ip", &["netns", "del", &self.namespace]);
        for path in &self.frr_paths {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Polls until the condition holds; fails with what was wanted when patience ends.
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    assert!(within(PATIENCE, condition).await, "waited {PATIENCE:?} in vain until {what}");
}

/// Polls until the condition holds or the limit has passed.
pub async fn within(limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
