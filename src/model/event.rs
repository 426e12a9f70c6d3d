//! Inputs of the engine. Nothing else reaches it.

use serde::{Deserialize, Serialize};

use super::{
    ActionId, DnsSample, Mono, OutboxId, Outcome, PatroniSample, PeerMessage, PeerStatus, PipelineRunSeen,
    Reading, RecordSeen, SensorName, Transition, WitnessSample,
};

/// What an operator asks for, after authentication.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OperatorRequest {
    /// Ask for a transition, as setting `transition` in the record does.
    Transition {
        /// Which one.
        transition: Transition,
        /// Reason for accepting that data may be lost; lifts the destruction gate for this one transition.
        accept_data_loss: Option<String>,
    },
    /// Go on with a halted transition from the step that halted it.
    Resume,
    /// Give up the transition that is halted or waiting.
    Abort,
    /// Turn the maintenance page on or off.
    Maintenance(bool),
    /// Bring the active site's traffic back: maintenance off, health up, `in_recovery=false`.
    RollbackActiveDown,
    /// Make the local database a primary.
    SetPrimary,
    /// Make the local database read-only.
    SetReadonly,
    /// Restart the gateway deployment.
    RestartGateway,
    /// Start the application (scale 1).
    StartApplication,
    /// Route the service to the application (`true`) or to the maintenance page (`false`).
    ServiceFlow(bool),
    /// Acknowledge a completed automatic failover, so that the next one may be automatic.
    Acknowledge,
}

/// An input of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A round of DNS look-ups.
    Dns(DnsSample),
    /// A look at the record.
    Record(RecordSeen),
    /// A poll of Patroni.
    Patroni(PatroniSample),
    /// A pipeline run was added, changed or deleted.
    PipelineRun(PipelineRunSeen),
    /// Heartbeats are answered (`true`) or lost (`false`, with the reason).
    PeerLink {
        /// Whether the peer answers.
        up: bool,
        /// Why not.
        reason: String,
    },
    /// The peer answered a heartbeat of ours: it knew then that this agent lives.
    PeerAnswered {
        /// When the heartbeat was sent, by the clock of the engine.
        asked: Mono,
    },
    /// A look at the witness.
    Witness(WitnessSample),
    /// A reading of another observer.
    Sensor {
        /// Which one.
        name: SensorName,
        /// What it says.
        reading: Reading,
    },
    /// A new agent told how its site is.
    PeerStatus(PeerStatus),
    /// A message of the peer.
    PeerMessage {
        /// Its number in the peer's outbox, and the peer process that numbered it; a predecessor has none.
        id: Option<(String, OutboxId)>,
        /// The message.
        message: PeerMessage,
        /// Whether the sender proved to be the peer by its certificate.
        authenticated: bool,
    },
    /// An operator's request, numbered so that the answer can be given back.
    Operator {
        /// Number for the answer.
        ticket: u64,
        /// Who asked, as far as known.
        who: String,
        /// What.
        request: OperatorRequest,
    },
    /// An action ended.
    ActionDone {
        /// Which one.
        id: ActionId,
        /// How.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}
