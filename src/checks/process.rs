//! `process`: the process that a pid file names is alive; its end is noticed within milliseconds (pidfd).
//!
//! Owns nothing of the process. Never signals it.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;

use tokio::io::unix::AsyncFd;

use super::{Boxed, Check, Report, Sample};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// File with the process number.
    pub pid_file: PathBuf,
}

/// The check.
#[derive(Debug)]
pub struct ProcessCheck {
    spec: Spec,
}

impl ProcessCheck {
    /// A check of the process.
    pub fn new(spec: Spec) -> Self {
        Self { spec }
    }

    fn pid(&self) -> Result<i32, String> {
        let path = self.spec.pid_file.display();
        let text =
            std::fs::read_to_string(&self.spec.pid_file).map_err(|error| format!("{path}: {error}"))?;
        match text.trim().parse::<i32>() {
            Ok(pid) if pid > 0 => Ok(pid),
            Ok(_) | Err(_) => Err(format!("{path} holds no process number")),
        }
    }

    fn look(&self) -> Report {
        let gone = |reason: String| Report { decisive: true, ..Report::fail(reason) };
        let pid = match self.pid() {
            Ok(pid) => pid,
            Err(reason) => return Report::fail(reason),
        };
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if is_dead(&stat) => gone(format!("process {pid} has ended")),
            Ok(_) => Report::pass(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone(format!("process {pid} is gone")),
            Err(error) => Report::unknown(format!("can't look at process {pid}: {error}")),
        }
    }

    async fn until_exit(&self) -> String {
        // The descriptor of a process that has ended is ready at once, for ever: only a live one is waited for.
        if self.look().sample != Sample::Pass {
            return std::future::pending().await;
        }
        let waited = async {
            let pid = self.pid().map_err(io::Error::other)?;
            let fd = watched(pidfd(pid)?)?;
            let _ready = fd.readable().await?;
            Ok::<i32, io::Error>(pid)
        };
        match waited.await {
            Ok(pid) => format!("process {pid} has ended"),
            // No process to wait for: the next poll says so.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Whether `/proc/PID/stat` shows a zombie or a dead process. The state follows the name, which may hold anything.
fn is_dead(stat: &str) -> bool {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    matches!(after_name.trim_start().chars().next(), Some('Z' | 'X' | 'x'))
}

/// A descriptor that becomes readable when the process ends (`pidfd_open(2)`).
fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "no safe wrapper among our dependencies")]
    // SAFETY: the call takes two integers and returns a new descriptor or -1; nobody else owns that descriptor.
    let fd = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, libc::O_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as RawFd)
    };
    debug_assert!(fd.as_raw_fd() >= 0);
    Ok(fd)
}

/// Registers the descriptor with the runtime.
fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "the safe constructor is deprecated")]
    // SAFETY: an OwnedFd stays open, and is the same descriptor, until it is dropped after its registration.
    unsafe {
        AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE).map_err(io::Error::from)
    }
}

impl Check for ProcessCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(async { self.look() })
    }

    fn event(&self) -> Option<Boxed<'_, String>> {
        Some(Box::pin(self.until_exit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_counts_as_dead_whatever_its_name() {
        assert!(is_dead("12 (a) b) Z 1 2"));
        assert!(!is_dead("12 (Z) S 1 2"));
    }
}
