//! The `anycast` task: runs the checks of all services, keeps exactly the right prefixes announced, answers operators.
//!
//! Owns the wiring only. One owner task holds the state of all services; each check has a task with a schedule of
//! its own; each announcer has a task that makes the actual routes equal to the wanted ones.
//!
//! ```text
//!   schedule (1x per check) --Sampled--> owner (1x) --wanted set--> reconcile (1x per announcer) --> Announcer
//!   control (socket, CLI)   --Request-->   |   ^                            |
//!                                          |   +------- RouteStatus --------+
//!                                          +--> metrics, log
//! ```
//!
//! Never: decides what a sample means (`rules/health.rs`), what a state means for a route (`rules/prefixes.rs`), or
//! how a route is announced (`announce/`).

pub mod command;
pub mod control;
pub mod equip;
mod listener;
pub mod metrics;
pub mod neighbours;
mod owner;
mod reconcile;
mod schedule;
mod service;
pub mod socket;
mod station;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Exit;
use crate::announce::{Announcer, PrefixKey};
use crate::checks::trust::Trust;
use crate::config::anycast::{AnnouncerRef, Anycast};

pub use control::{Control, ControlError};
pub use metrics::Metrics;
pub use station::Station;
pub use status::{CheckStatus, Explanation, RouteStatus, ServiceStatus, Status};

/// Samples and requests that may wait for the owner: a burst of every check of a large file at once. When it is full
/// the checks wait, which a late-check counter shows.
const QUEUE: usize = 4096;

/// Everything the task needs.
pub struct Setup {
    /// The file.
    pub config: Anycast,
    /// One announcer for each that [`Anycast::announcers`] names.
    pub announcers: BTreeMap<AnnouncerRef, Box<dyn Announcer>>,
    /// Whom TLS checks trust.
    pub trust: Trust,
    /// Where metrics go.
    pub registry: Arc<prometheus::Registry>,
    /// Where the control socket is; `None` = there is none.
    pub socket: Option<PathBuf>,
}

/// The task that runs and the handle on it.
pub struct Running {
    /// Operators' handle; cheap to clone.
    pub control: Control,
    /// Ends when the token is cancelled and everything is taken back (or left) as the file says.
    pub task: tokio::task::JoinHandle<Exit>,
}

/// A set-up that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A check cannot be built on this machine.
    #[error("service {service}, check {check}: {reason}")]
    Check {
        /// The service.
        service: String,
        /// The check.
        check: String,
        /// Why.
        reason: String,
    },
    /// Prefixes name an announcer that was not given.
    #[error("no announcer {0} is set up")]
    NoAnnouncer(String),
    /// The metrics listener.
    #[error("metrics listener {address}: {reason}")]
    Listener {
        /// Its address.
        address: String,
        /// Why.
        reason: String,
    },
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    /// An announcer.
    #[error(transparent)]
    Announcer(#[from] crate::announce::AnnounceError),
    /// The metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Starts checks, announcers and the control socket. Nothing is announced before there are verdicts.
///
/// # Errors
/// What is missing; then nothing was started and no route was touched.
pub fn start(setup: Setup, cancel: CancellationToken) -> Result<Running, StartError> {
    let Setup { config, announcers, trust, registry, socket } = setup;
    for needed in config.announcers() {
        if !announcers.contains_key(&needed) {
            return Err(StartError::NoAnnouncer(needed.to_string()));
        }
    }
    for warning in &config.warnings {
        tracing::warn!(%warning, "configuration");
    }
    let lock = socket.as_deref().map(socket::claim).transpose()?;
    let listener = config.metrics_listen.as_deref().map(|address| {
        listener::bind(address)
            .map_err(|error| StartError::Listener { address: address.to_owned(), reason: error.to_string() })
    });
    let listener = listener.transpose()?;
    let metrics = Metrics::register(&registry)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let control = Control::new(sender.clone());
    let owner = owner::Owner::new(config, trust, metrics, sender)?;
    // Listener and socket end with the owner, however it ends, so that a new start finds their places free.
    let doors = cancel.child_token();
    if let Some(listener) = listener {
        tokio::spawn(listener::serve(listener, registry, doors.clone()));
    }
    let socket_task = lock.map(|lock| {
        let (control, doors) = (control.clone(), doors.clone());
        tokio::spawn(socket::serve(lock, control, doors))
    });
    let task = tokio::spawn(async move {
        let doors = doors.drop_guard();
        let exit = owner.run(announcers, receiver, cancel).await;
        drop(doors);
        if let Some(task) = socket_task {
            let _ = task.await;
        }
        exit
    });
    Ok(Running { control, task })
}

/// Runs the task until it is cancelled; for a supervisor that has nothing to ask of it.
pub async fn run(setup: Setup, cancel: CancellationToken) -> Exit {
    match start(setup, cancel) {
        Ok(running) => running.task.await.unwrap_or_else(|error| Exit::Failed(error.to_string())),
        Err(error) => Exit::Failed(error.to_string()),
    }
}

/// Says how the withdrawal at the end went.
fn conclude(left: &BTreeSet<(String, PrefixKey)>, unconfirmed: &[String]) -> Exit {
    if left.is_empty() && unconfirmed.is_empty() {
        info!("every route is withdrawn");
        return Exit::Cancelled;
    }
    let mut what: Vec<String> = left.iter().map(|(announcer, key)| format!("{key} ({announcer})")).collect();
    what.extend(unconfirmed.iter().cloned());
    let text = format!("routes that may remain: {}", what.join(", "));
    error!(routes = %what.join(", "), "routes may remain after the end");
    Exit::Failed(text)
}
