//! `command`: a program exits with 0. It runs in a process group of its own, and the whole group is killed when its
//! time is over or nobody waits for it any more.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::{Boxed, Check, Report};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The program: a path, or a name looked up in `PATH`. No shell is involved.
    pub command: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Limit of one run.
    pub timeout: Duration,
}

/// Bytes of the program's output that an error shows.
const SHOWN: u64 = 200;

/// The check.
#[derive(Debug)]
pub struct CommandCheck {
    spec: Spec,
}

/// Kills the process group unless it was disarmed.
struct GroupGuard(Option<Pid>);

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Fails only where the group is already gone.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl CommandCheck {
    /// A check by the program.
    pub fn new(spec: Spec) -> Self {
        Self { spec }
    }

    async fn run(&self) -> Report {
        let Spec { command, arguments, timeout } = &self.spec;
        let spawned = Command::new(command)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let name = command.display();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return Report::unknown(format!("can't start {name}: {error}")),
        };
        // Killed on every way out: what the program left running belongs to this run.
        let _guard = GroupGuard(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
        match tokio::time::timeout(*timeout, finish(&mut child)).await {
            Err(_) => Report::fail(format!(
                "{name}: not done within {}, killed",
                humantime::format_duration(*timeout)
            )),
            Ok(Err(error)) => Report::unknown(format!("can't wait for {name}: {error}")),
            Ok(Ok((status, _))) if status.success() => Report::pass(),
            Ok(Ok((status, output))) if output.is_empty() => Report::fail(format!("{name}: {status}")),
            Ok(Ok((status, output))) => Report::fail(format!("{name}: {status}: {output}")),
        }
    }
}

/// Waits for the program alone, not for what it may have left behind with its output open.
async fn finish(child: &mut Child) -> std::io::Result<(std::process::ExitStatus, String)> {
    let mut pipe = child.stderr.take();
    let mut shown = Vec::new();
    let status = {
        let read = drain(pipe.as_mut(), &mut shown);
        tokio::pin!(read);
        let mut ended = false;
        let status = tokio::select! {
            status = child.wait() => status?,
            () = &mut read => {
                ended = true;
                child.wait().await?
            }
        };
        if !ended {
            // What it wrote is in the pipe already; what it left running may keep the pipe open for ever.
            let _ = tokio::time::timeout(Duration::from_millis(20), &mut read).await;
        }
        status
    };
    let text: String = String::from_utf8_lossy(&shown).lines().next().unwrap_or_default().trim().to_owned();
    Ok((status, text))
}

/// Reads everything and keeps the beginning, so that a talkative program never blocks on a full pipe.
async fn drain(pipe: Option<&mut (impl AsyncRead + Unpin)>, shown: &mut Vec<u8>) {
    let Some(pipe) = pipe else { return };
    let mut limited = pipe.take(SHOWN);
    if limited.read_to_end(shown).await.is_ok() {
        let _ = tokio::io::copy(limited.into_inner(), &mut tokio::io::sink()).await;
    }
}

impl Check for CommandCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(self.run())
    }
}
