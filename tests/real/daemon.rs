//! A child process that cannot outlive its test, and the addresses and waiting that all daemons share.
//!
//! Owns: process groups, the death signal, log files, random loopback networks. Never: kills anything it did not
//! start.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A running daemon, the leader of its own process group. Dropping it stops the group.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `argv` as `user`, output to `log`. The kernel ends it when the starting thread ends, so start daemons
    /// from a thread that lives as long as they should.
    pub fn start(user: &str, home: &Path, log: &Path, argv: &[&str]) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("log file");
        let child = Command::new("/usr/bin/setpriv")
            .args([&format!("--reuid={user}"), &format!("--regid={user}")])
            .args(["--init-groups", "--pdeathsig", "TERM", "--"])
            .args(argv)
            .env("HOME", home)
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("log file twice"))
            .stderr(out)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {argv:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Process id, which is also the process group.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"))
    }

    /// Sends a signal to the whole group. A stop has taken effect when this returns: a thread that still runs may answer.
    pub fn signal(&self, signal: Signal) {
        let _ = killpg(self.pid(), signal);
        let deadline = Instant::now() + Duration::from_secs(10);
        while signal == Signal::SIGSTOP && !self.has_stopped() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether every thread of the process stands still.
    fn has_stopped(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else { return true };
        let stopped = |stat: String| {
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            matches!(state, Some('T' | 't' | 'Z' | 'X'))
        };
        threads.flatten().all(|thread| std::fs::read_to_string(thread.path().join("stat")).is_ok_and(stopped))
    }

    /// Whether the process has not ended.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last lines of its log, for a failure message.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Ends the group: TERM, then KILL after `patience`.
    pub fn stop(&mut self, patience: Duration) {
        if self.running() {
            self.signal(Signal::SIGTERM);
            let end = Instant::now() + patience;
            while self.running() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(30));
            }
            self.signal(Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(20));
    }
}

/// One random /24 inside 127/8, so that every daemon keeps its usual port and parallel runs cannot collide.
#[derive(Debug, Clone, Copy)]
pub struct Network(u8, u8);

impl Network {
    /// Picks one.
    pub fn random() -> Self {
        Self(rand::random_range(64..=126), rand::random())
    }

    /// Address of host N.
    pub fn host(self, n: u8) -> String {
        format!("127.{}.{}.{n}", self.0, self.1)
    }
}

/// A temporary directory that other users may enter.
pub fn open_tempdir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix("switchover-real-").tempdir().expect("temporary directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("open it");
    dir
}

/// Polls until `probe` gives something; panics with `what` after `seconds`.
pub fn wait_for<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "waited {seconds} s in vain for: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
