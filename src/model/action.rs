//! Outputs of the engine: effects as data. Only the executor turns them into calls.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Note, OutboxId, PeerMessage, RecordWrite};

/// Number of an action within one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub u64);

/// Where the service selector points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// To the application (Keycloak).
    Application,
    /// To the maintenance page.
    MaintenancePage,
}

/// One change in the world. Names of objects are settings that the executor knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Set `in_recovery` and `in_maintenance` in the Terraform variables Secret.
    SetRecoveryVars {
        /// This site is recovering, the other one serves or will.
        in_recovery: bool,
        /// The pair is in maintenance.
        in_maintenance: bool,
    },
    /// Scale the health deployment that the global load balancer probes.
    ScaleHealth {
        /// Wanted replicas.
        replicas: u32,
    },
    /// Set `minAvailable` of the health deployment's disruption budget.
    SetDisruptionBudget {
        /// Pods that must stay.
        min_available: u32,
    },
    /// Restart the deployment that shows the maintenance page, so that it drops its connections.
    RestartMaintenancePage,
    /// Restart the gateway deployment (Kong).
    RestartGateway,
    /// Point the service at the application or at the maintenance page.
    RouteService(Traffic),
    /// Tell the maintenance portal.
    SetPortal {
        /// Whether maintenance is on.
        on: bool,
    },
    /// Write the peer's database address into (or out of) the environment ConfigMap of the database pods.
    SetStandbySource {
        /// `true` = follow the peer, `false` = follow nobody.
        follow_peer: bool,
    },
    /// Scale the database StatefulSet and wait until the pods are there or gone.
    ScaleDatabase {
        /// Wanted replicas.
        replicas: u32,
    },
    /// Delete the volume claim of one database pod. Cannot be undone.
    DeleteVolume {
        /// Ordinal of the pod.
        ordinal: u32,
    },
    /// Delete the ConfigMap in which Patroni keeps the state of the cluster. Cannot be undone.
    DeleteClusterState,
    /// Scale the application directly and wait (sites without Tekton).
    ScaleApplication {
        /// Wanted replicas.
        replicas: u32,
    },
    /// Start the application as the predecessor's `/keycloak_start` does: scale 1, no wait.
    StartApplication,
    /// Remove `standby_cluster` from Patroni's configuration.
    PromoteDatabase,
    /// Put a `standby_cluster` without a host into Patroni's configuration: read-only, follows nobody, keeps its data.
    FenceDatabase,
    /// Start the deployment pipeline.
    TriggerPipeline,
    /// Cancel a pipeline run, letting its `finally` tasks run.
    CancelPipelineRun {
        /// Name of the run.
        name: String,
    },
    /// Write the record.
    WriteRecord(RecordWrite),
    /// Send a message to the peer.
    SendPeer {
        /// Its number.
        id: OutboxId,
        /// The message.
        message: PeerMessage,
    },
    /// Steer the routes to the active or the passive site, or leave them to health.
    PinRoutes(RoutePin),
}

/// Who owns the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutePin {
    /// The health of both regions decides.
    Health,
    /// The routes stay at the passive site.
    Passive,
}

impl Effect {
    /// Whether doing it twice could do harm that doing it once does not, so that a repetition first looks at the
    /// world.
    pub fn is_once_only(&self) -> bool {
        matches!(
            self,
            Self::TriggerPipeline
                | Self::DeleteVolume { .. }
                | Self::DeleteClusterState
                | Self::PromoteDatabase
        )
    }

    /// Whether it destroys data.
    pub fn is_destructive(&self) -> bool {
        matches!(self, Self::DeleteVolume { .. } | Self::DeleteClusterState)
    }
}

/// An output of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Change the world.
    Perform(Command),
    /// Let people know.
    Report(Note),
}

/// An effect that the executor must bring about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Command {
    /// Its number; the outcome carries it back.
    pub id: ActionId,
    /// Name of the step that asks for it.
    pub step: String,
    /// What to do.
    pub effect: Effect,
    /// Time the whole call may take, in milliseconds.
    pub limit_ms: u64,
}

/// How a failed call should be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Trying again may help: connection, time-out, 429, 5xx.
    Transient,
    /// Somebody else changed the object: read it again and decide anew.
    Conflict,
    /// The other side understood and refuses: 4xx, bad configuration.
    Permanent,
}

/// Facts that a successful call brought back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Detail {
    /// Nothing to add.
    Nothing,
    /// The pipeline listener's event id.
    PipelineStarted {
        /// `eventID` of the answer.
        event_id: String,
    },
    /// The peer answered; `acknowledged` where it named our message's number (new agents do).
    PeerAnswered {
        /// Whether the number came back.
        acknowledged: bool,
    },
    /// The object was already as wanted, nothing was written.
    AlreadySo,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The call was answered as it should be.
    Done(Detail),
    /// It was not.
    Failed {
        /// How to take it.
        kind: FailureKind,
        /// What was tried and what went wrong, in one line without secrets.
        reason: String,
    },
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetRecoveryVars { in_recovery, in_maintenance } => {
                write!(f, "set in_recovery={in_recovery} in_maintenance={in_maintenance}")
            }
            Self::ScaleHealth { replicas } => write!(f, "scale the health deployment to {replicas}"),
            Self::SetDisruptionBudget { min_available } => {
                write!(f, "set the health disruption budget to {min_available}")
            }
            Self::RestartMaintenancePage => f.write_str("restart the maintenance page"),
            Self::RestartGateway => f.write_str("restart the gateway"),
            Self::RouteService(Traffic::Application) => f.write_str("route the service to the application"),
            Self::RouteService(Traffic::MaintenancePage) => {
                f.write_str("route the service to the maintenance page")
            }
            Self::SetPortal { on } => write!(f, "set the maintenance portal {}", on_off(*on)),
            Self::SetStandbySource { follow_peer: true } => {
                f.write_str("point the database pods at the peer")
            }
            Self::SetStandbySource { follow_peer: false } => f.write_str("point the database pods at nobody"),
            Self::ScaleDatabase { replicas } => write!(f, "scale the database to {replicas} and wait"),
            Self::DeleteVolume { ordinal } => write!(f, "delete database volume {ordinal}"),
            Self::DeleteClusterState => f.write_str("delete the database cluster state"),
            Self::ScaleApplication { replicas } => write!(f, "scale the application to {replicas} and wait"),
            Self::StartApplication => f.write_str("start the application"),
            Self::PromoteDatabase => f.write_str("promote the database"),
            Self::FenceDatabase => f.write_str("make the database read-only"),
            Self::TriggerPipeline => f.write_str("start the deployment pipeline"),
            Self::CancelPipelineRun { name } => write!(f, "cancel pipeline run {name}"),
            Self::WriteRecord(write) => match (&write.phase, &write.transition) {
                (Some(phase), Some(transition)) => {
                    write!(f, "record phase {phase}, transition {transition:?}")
                }
                (Some(phase), None) => write!(f, "record phase {phase}"),
                (None, Some(transition)) => write!(f, "record transition {transition:?}"),
                (None, None) => f.write_str("annotate the record"),
            },
            Self::SendPeer { id, .. } => write!(f, "send message {} to the peer", id.0),
            Self::PinRoutes(RoutePin::Health) => f.write_str("leave the routes to health"),
            Self::PinRoutes(RoutePin::Passive) => f.write_str("pin the routes to the passive site"),
        }
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
