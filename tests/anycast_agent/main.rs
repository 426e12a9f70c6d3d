//! The real binary from a predecessor's file to a real neighbour: `run --config FILE` against BIRD and FRRouting, and
//! what signals, commands and accidents do to the routes.
//!
//! Each test makes its own network; see `tests/bgp_lab/mod.rs` for what is skipped when.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code, outside of #[test] functions")]

#[path = "../bgp_lab/mod.rs"]
mod bgp_lab;

mod alone;
mod clock;
mod ends;
mod exits;
mod frr;
mod frr_calls;
mod metrics;
mod own_speaker;
mod reload;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use bgp_lab::PATIENCE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BINARY: &str = env!("CARGO_BIN_EXE_switchover-agent");

/// A running agent; killed when dropped.
struct Agent {
    child: Child,
    folder: PathBuf,
}

impl Agent {
    /// `run --config FILE` with its log and control socket in the folder.
    fn start(folder: &Path, file: &str) -> Self {
        Self::start_with(folder, &["run", "--config", file], &[])
    }

    fn start_with(folder: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let log = File::options().create(true).append(true).open(folder.join("agent.log")).unwrap();
        // Dies with the test, whatever happens to it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", BINARY])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("ANYCAST_CONTROL_SOCKET", folder.join("control.sock"))
            .env("LOG_LEVEL", "info")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder: folder.to_owned() }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its end.
    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(self) -> (Option<i32>, String) {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// Waits for an end that was asked for.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = self.end();
        (status.code(), self.log())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// The `anycast` command: what it says, or its complaint.
    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = self.folder.join("control.sock");
        let mut all = vec!["anycast", "--socket", socket.to_str().unwrap()];
        all.extend(arguments);
        let output = binary(&all);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("--- agent\n{}", &log[log.len().saturating_sub(6000)..]);
        }
    }
}

/// Runs the binary to its end.
fn binary(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).env_clear().output().unwrap()
}

/// `GET` of a small server: the body.
fn fetch(address: &str, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
