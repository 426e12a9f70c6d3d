//! The control socket: one request and one answer per connection, each one line of JSON, over a Unix socket that only
//! its owner may open. Also the lock that keeps a second agent from running beside the first.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::control::Control;

/// Where the socket is when nothing else is said.
pub const DEFAULT_PATH: &str = "/run/anycastd/control.sock";

/// Longest request.
const REQUEST_LIMIT: u64 = 64 * 1024;

/// Longest answer that the client reads.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;

/// Limit of one exchange.
const LIMIT: Duration = Duration::from_secs(15);

/// What can be asked over the socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything.
    Status,
    /// Why a prefix is announced or not.
    Explain {
        /// The prefix.
        prefix: String,
    },
    /// Run all checks of a service at once.
    Check {
        /// The service.
        service: String,
    },
    /// Take a service out.
    Drain {
        /// The service.
        service: String,
        /// For so long, in milliseconds; until undrained where it is missing.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// End a drain.
    Undrain {
        /// The service.
        service: String,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was done.
    Ok(Value),
    /// It was not, and why.
    Error(String),
}

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent has it.
    #[error("an agent runs already, process {pid} holds {path}")]
    Held {
        /// The lock file.
        path: String,
        /// The other agent's process number, as it wrote it.
        pid: String,
    },
    /// It cannot be opened.
    #[error("control socket {path}: {reason}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// The claimed socket; the lock ends with it.
#[derive(Debug)]
pub struct Claimed {
    path: PathBuf,
    listener: std::os::unix::net::UnixListener,
    _lock: Flock<File>,
}

/// Whether this process may make a socket there.
///
/// # Errors
/// What the file system says.
pub(super) fn usable(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path.with_extension("lock")).map(drop)
}

/// Takes the lock beside the socket, removes what a dead agent left and listens.
///
/// # Errors
/// Another agent holds it, with its process number; or the file system refuses.
pub fn claim(path: &Path) -> Result<Claimed, SocketError> {
    let lock_path = path.with_extension("lock");
    let io = |path: &Path, error: &dyn std::fmt::Display| SocketError::Io {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| io(folder, &error))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|error| io(&lock_path, &error))?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, error)| {
        if error != nix::errno::Errno::EWOULDBLOCK {
            return io(&lock_path, &error);
        }
        let mut pid = String::new();
        let _ = (&file).take(32).read_to_string(&mut pid);
        SocketError::Held { path: lock_path.display().to_string(), pid: pid.trim().to_owned() }
    })?;
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut lock).map_err(|error| io(&lock_path, &error))?;
    // Whoever had it is dead: the lock is ours.
    let _ = std::fs::remove_file(path);
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(|error| io(path, &error))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| io(path, &error))?;
    listener.set_nonblocking(true).map_err(|error| io(path, &error))?;
    Ok(Claimed { path: path.to_owned(), listener, _lock: lock })
}

/// Answers until cancelled, then removes the socket.
pub(super) async fn serve(claimed: Claimed, control: Control, cancel: CancellationToken) {
    let Claimed { path, listener, _lock } = claimed;
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "control socket");
            return;
        }
    };
    let exchanges = TaskTracker::new();
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = cancel.cancelled() => break,
            Ok(place) = std::sync::Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let control = control.clone();
                exchanges.spawn(async move {
                    let _ = tokio::time::timeout(LIMIT, exchange(stream, control)).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let _ = std::fs::remove_file(&path);
}

async fn exchange(stream: UnixStream, control: Control) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(REQUEST_LIMIT)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => answer(request, &control).await,
        Err(error) => Answer::Error(format!("not a request: {error}")),
    };
    let mut text = serde_json::to_string(&answer).map_err(std::io::Error::other)?;
    text.push('\n');
    writer.write_all(text.as_bytes()).await
}

async fn answer(request: Request, control: &Control) -> Answer {
    let json = |value: Result<Value, serde_json::Error>| {
        value.map_or_else(|e| Answer::Error(e.to_string()), Answer::Ok)
    };
    let told = |text: String| Answer::Ok(Value::String(text));
    let result = match request {
        Request::Status => control.status().await.map(|status| json(serde_json::to_value(status))),
        Request::Explain { prefix } => {
            control.explain(&prefix).await.map(|found| json(serde_json::to_value(found)))
        }
        Request::Check { service } => control.check_now(&service).await.map(told),
        Request::Drain { service, for_ms } => {
            control.drain(&service, for_ms.map(Duration::from_millis)).await.map(told)
        }
        Request::Undrain { service } => control.undrain(&service).await.map(told),
    };
    result.unwrap_or_else(|error| Answer::Error(error.to_string()))
}

/// Asks the agent behind the socket.
///
/// # Errors
/// No agent there, or one that does not answer.
pub async fn ask(path: &Path, request: &Request) -> Result<Answer, String> {
    let shown = path.display();
    let exchange = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut text = serde_json::to_string(request).map_err(std::io::Error::other)?;
        text.push('\n');
        stream.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_LIMIT).read_to_string(&mut answer).await?;
        serde_json::from_str(&answer).map_err(std::io::Error::other)
    };
    match tokio::time::timeout(LIMIT, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("no agent answers at {shown}: {error}")),
        Err(_) => Err(format!("no agent answers at {shown} in time")),
    }
}
