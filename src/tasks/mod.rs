//! Long-lived tasks, one file each, named as `PROCESS_LIST` names them.
//!
//! A task is `async fn run(ctx: Ctx) -> Exit`: it works until its token is cancelled and never panics on input from
//! outside; the supervisor restarts it where it failed. To add a task: a variant here, its arm in the agent's spawn
//! table, its file.

pub mod anycast;
pub mod clock;
pub mod diary;
pub mod dns_watch;
pub mod election;
pub mod executor;
pub mod geo_sync;
pub mod heartbeat;
pub mod jitter;
pub mod kill_switch;
pub mod kube_store;
pub mod kube_watch;
pub mod logic_handler;
pub mod meters;
pub mod once;
pub mod patroni_worker;
pub mod peer_client;
pub mod peer_client_fwd;
pub mod peer_server;
pub mod recorder;
pub mod route_watch;
pub mod sensor_watch;
pub mod supervisor;
pub mod tekton_watch;
pub mod tick_producer;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;

/// What every task gets.
#[derive(Clone)]
pub struct Ctx {
    /// Cancelled when the agent stops.
    pub cancel: CancellationToken,
    /// The way to the engine.
    pub bus: Bus,
    /// Where the task registers its metrics; one registry per agent.
    pub registry: Arc<prometheus::Registry>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to end.
    Cancelled,
    /// It has nothing more to do.
    Finished,
    /// It cannot go on, and why; the supervisor starts it again.
    Failed(String),
}

/// A task that `PROCESS_LIST` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskName {
    /// The engine and its executor.
    LogicHandler,
    /// Looks up the GSLB name.
    DnsWatch,
    /// Watches the record.
    KubeWatch,
    /// Watches PipelineRuns.
    TektonWatch,
    /// Polls Patroni.
    PatroniWorker,
    /// Accepts the peer's connections.
    PeerServer,
    /// Heartbeats to the peer.
    PeerClient,
    /// Carries messages to the peer.
    PeerClientFwd,
    /// Accepted for old configurations; posts a tick every 30 s.
    TickProducer,
    /// Asks the witness and the application.
    SensorWatch,
    /// Publishes ingresses as a geo load balancer.
    GeoSync,
    /// Steers the routes of Cloud Router and Cloudflare.
    RouteWatch,
    /// Checks services and announces their prefixes.
    Anycast,
}

impl TaskName {
    /// Every task, in a fixed order.
    pub const ALL: [Self; 13] = [
        Self::LogicHandler,
        Self::DnsWatch,
        Self::KubeWatch,
        Self::TektonWatch,
        Self::PatroniWorker,
        Self::PeerServer,
        Self::PeerClient,
        Self::PeerClientFwd,
        Self::TickProducer,
        Self::SensorWatch,
        Self::GeoSync,
        Self::RouteWatch,
        Self::Anycast,
    ];

    /// The name in `PROCESS_LIST`, `/health`, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LogicHandler => "logic_handler",
            Self::DnsWatch => "dns_watch",
            Self::KubeWatch => "kube_watch",
            Self::TektonWatch => "tekton_watch",
            Self::PatroniWorker => "patroni_worker",
            Self::PeerServer => "peer_server",
            Self::PeerClient => "peer_client",
            Self::PeerClientFwd => "peer_client_fwd",
            Self::TickProducer => "tick_producer",
            Self::SensorWatch => "sensor_watch",
            Self::GeoSync => "geo_sync",
            Self::RouteWatch => "route_watch",
            Self::Anycast => "anycast",
        }
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TaskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|task| task.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|task| task.as_str()).collect();
            format!("known processes are {}", known.join(", "))
        })
    }
}

/// The task with what it needs, or its failure where that is not configured.
pub fn with<T, F>(part: Option<T>, run: impl FnOnce(T) -> F) -> supervisor::TaskFuture
where
    F: Future<Output = Exit> + Send + 'static,
{
    match part {
        Some(part) => run(part).boxed(),
        None => async { Exit::Failed("what it needs is not configured".to_owned()) }.boxed(),
    }
}
