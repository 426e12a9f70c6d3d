//! One `vtysh` process: bounded in time and output, killed when late, its verdict read from code and text.
//!
//! Never builds commands; never runs two at once, because its owner has it by itself and FRR's configuration lock
//! (FRR 9 and later) refuses the second.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::model::FailureKind;

/// Largest answer read: a running configuration with a few hundred thousand lines.
const OUTPUT_LIMIT: u64 = 64 * 1024 * 1024;

/// How to run `vtysh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vtysh {
    /// The program.
    pub path: PathBuf,
    /// Arguments before the commands, such as `-N` and a path space.
    pub arguments: Vec<String>,
    /// Longest run time of one process, unless one was too slow for it already.
    pub timeout: Duration,
    /// What the run time may grow to: it doubles after every process that was killed for being late.
    pub longest: Duration,
}

impl Default for Vtysh {
    fn default() -> Self {
        Self {
            path: "/usr/bin/vtysh".into(),
            arguments: Vec::new(),
            // What the Python predecessor allows.
            timeout: Duration::from_millis(1500),
            longest: Duration::from_secs(12),
        }
    }
}

/// A `vtysh` run that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum VtyshError {
    /// The program did not start.
    #[error("cannot run {path}: {source}")]
    Start {
        /// The program.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It ran for longer than allowed and was killed. Its change may or may not have happened.
    #[error("vtysh did not end within {limit:?} and was killed ({command})")]
    Timeout {
        /// The limit.
        limit: Duration,
        /// The last command.
        command: String,
    },
    /// Somebody else holds the configuration lock.
    #[error("FRR's configuration is locked: {text}")]
    Locked {
        /// What FRR said.
        text: String,
    },
    /// A statement to be removed was not there: somebody else removed it since we looked.
    #[error("FRR's configuration changed meanwhile: {text}")]
    Changed {
        /// What FRR said.
        text: String,
    },
    /// A daemon of FRR is not running.
    #[error("FRR is not there: {text}")]
    Down {
        /// What vtysh said.
        text: String,
    },
    /// FRR refuses a command.
    #[error("FRR refuses ({command}): {text}")]
    Refused {
        /// The last command.
        command: String,
        /// What FRR said.
        text: String,
    },
    /// The answer makes no sense.
    #[error("FRR's running configuration: {what}")]
    Unreadable {
        /// What is missing.
        what: String,
    },
    /// FRR has no BGP instance for a wanted prefix.
    #[error("FRR has no `router bgp` for {}", vrf.as_deref().map_or("the default VRF".to_owned(), |v| format!("VRF {v}")))]
    NoInstance {
        /// The VRF; `None` = the default one.
        vrf: Option<String>,
    },
}

impl VtyshError {
    /// How the failure should be taken.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Start { .. } | Self::Refused { .. } => FailureKind::Permanent,
            Self::Changed { .. } => FailureKind::Conflict,
            _ => FailureKind::Transient,
        }
    }

    /// Whether another attempt within the same change is worth it.
    pub fn retriable(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Locked { .. } | Self::Changed { .. })
    }
}

impl Vtysh {
    /// Allows twice the time, after a process was killed for being late.
    pub fn be_more_patient(&mut self) {
        self.timeout = (self.timeout * 2).min(self.longest.max(self.timeout));
    }

    /// Runs these commands in one process; what it printed.
    ///
    /// # Errors
    /// See [`VtyshError`]. FRR stops at the first command that fails; those before it have taken effect.
    pub async fn run(&self, commands: &[String]) -> Result<String, VtyshError> {
        let mut process = Command::new(&self.path);
        process.args(&self.arguments);
        for command in commands {
            process.arg("-c").arg(command);
        }
        process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A group of its own: a wrapper script's children die with it.
        process.process_group(0);
        let last = commands.last().cloned().unwrap_or_default();
        let started = |source| VtyshError::Start { path: self.path.display().to_string(), source };
        let mut child = process.spawn().map_err(started)?;
        let group = child.id();
        let (mut out, mut err) = (String::new(), String::new());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let read_out = async {
                if let Some(pipe) = stdout {
                    let _ = pipe.take(OUTPUT_LIMIT).read_to_string(&mut out).await;
                }
            };
            let read_err = async {
                if let Some(pipe) = stderr {
                    let _ = pipe.take(64 * 1024).read_to_string(&mut err).await;
                }
            };
            tokio::join!(read_out, read_err);
            child.wait().await
        };
        let status = match tokio::time::timeout(self.timeout, work).await {
            Ok(status) => status.map_err(started)?,
            Err(_) => {
                kill_group(group);
                return Err(VtyshError::Timeout { limit: self.timeout, command: last });
            }
        };
        judge(status.success(), out, &err, last)
    }
}

fn kill_group(group: Option<u32>) {
    if let Some(group) = group.and_then(|id| i32::try_from(id).ok()) {
        let _ =
            nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
    }
}

fn judge(success: bool, out: String, err: &str, command: String) -> Result<String, VtyshError> {
    let all = format!("{} {}", out.trim(), err.trim());
    let text: String = all.trim().chars().take(500).collect();
    let lower = text.to_ascii_lowercase();
    if success && err.trim().is_empty() {
        return Ok(out);
    }
    if lower.contains("lock") {
        return Err(VtyshError::Locked { text });
    }
    if lower.contains("can't find static route") {
        return Err(VtyshError::Changed { text });
    }
    if lower.contains("is not running") || lower.contains("failed to connect") {
        return Err(VtyshError::Down { text });
    }
    if success {
        // Warnings on stderr of a run that succeeded; the read-back decides.
        tracing::debug!(%text, "vtysh");
        return Ok(out);
    }
    Err(VtyshError::Refused { command, text })
}
