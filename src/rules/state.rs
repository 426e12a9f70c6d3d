//! All that the engine knows, as plain data: cloned by the model checker, written to the journal, shown by `/status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::automation::AutomationMemory;
use super::dns::Damping;
use super::lag::LagMemory;
use super::lease::LeaseMemory;
use super::pipeline::Pipeline;
use super::sensors::SensorMemory;
use crate::model::{
    ActionId, Generation, Mono, OutboxId, PatroniSample, PeerLink, PeerMessage, PeerStatus, Phase,
    RecordSeen, RefusalNote, Transition, Wall,
};
use crate::plan::{Facts, Step};

/// Who asked for a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Somebody edited the record.
    Record,
    /// An operator's authenticated request.
    Operator,
    /// The peer ordered it.
    Peer,
    /// Automation.
    Automation,
}

impl Origin {
    /// The word for logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Operator => "operator",
            Self::Peer => "peer",
            Self::Automation => "automation",
        }
    }
}

/// A transition that this agent has put (or is putting) into the record, until the record shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Which one.
    pub transition: Transition,
    /// Who asked.
    pub origin: Origin,
    /// Generation that the peer gave it.
    pub generation: Option<Generation>,
    /// Reason for accepting that data may be lost.
    pub accept_data_loss: Option<String>,
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// Its command is being carried out.
    InFlight {
        /// The command.
        action: ActionId,
        /// When an outcome must have come.
        until: Mono,
    },
    /// Its command failed; the next try is at this moment.
    Backoff {
        /// When.
        until: Mono,
    },
    /// Its command was answered; the world must be seen in the wanted state.
    Observing {
        /// Since when.
        since: Mono,
    },
    /// Done.
    Finished,
}

/// A step under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepRun {
    /// The step.
    pub step: Step,
    /// How far it is.
    pub status: StepStatus,
    /// Tries so far.
    pub attempt: u32,
    /// When it was first looked at.
    pub started: Option<Mono>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl StepRun {
    /// A step that has not begun.
    pub fn new(step: Step) -> Self {
        Self { step, status: StepStatus::Pending, attempt: 0, started: None, last_error: None }
    }
}

/// Steps one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lane {
    /// All steps.
    pub steps: Vec<StepRun>,
    /// Index of the one under way.
    pub cursor: usize,
}

impl Lane {
    /// A lane that has not begun.
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps: steps.into_iter().map(StepRun::new).collect(), cursor: 0 }
    }

    /// Whether every step is behind it.
    pub fn is_finished(&self) -> bool {
        self.cursor >= self.steps.len()
    }

    /// The step under way.
    pub fn current(&self) -> Option<&StepRun> {
        self.steps.get(self.cursor)
    }
}

/// Why a run stands still.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Halt {
    /// The step.
    pub step: String,
    /// What a person must look at.
    pub reason: String,
}

/// Why the destruction gate is closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GateClosed {
    /// Since when.
    pub since: Mono,
    /// Name of the refusal.
    pub refusal: String,
    /// The sentence for a person.
    pub why: String,
}

/// A transition being carried out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    /// Which one.
    pub transition: Transition,
    /// Its fencing number.
    pub generation: Generation,
    /// Rule that started it.
    pub rule: String,
    /// Who asked.
    pub origin: Origin,
    /// Its steps.
    pub lane: Lane,
    /// What the plan was made from.
    pub facts: Facts,
    /// When it started.
    pub started: Mono,
    /// Phase of the record when it started.
    pub from: Phase,
    /// Whether the peer consented to (or ordered) this generation.
    pub consented: bool,
    /// Reason for accepting that data may be lost.
    pub accept_data_loss: Option<String>,
    /// Timeline of the local database when the run started.
    pub timeline_before: Option<u64>,
    /// Highest position of the local database seen before it was stopped.
    pub local_lsn: Option<u64>,
    /// Position of the peer when it gave its consent.
    pub catch_up_lsn: Option<u64>,
    /// Why it stands still.
    pub halted: Option<Halt>,
    /// The destruction gate was found closed.
    pub gate_closed: Option<GateClosed>,
}

/// Our request for the peer's consent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ask {
    /// Transition.
    pub transition: Transition,
    /// Who asked us.
    pub origin: Origin,
    /// Used once.
    pub nonce: String,
    /// Generation that the run would get.
    pub generation: Generation,
    /// When the request is void.
    pub until: Mono,
    /// The same by the wall clock, as sent.
    pub expires: Wall,
    /// Number of the message.
    pub message: OutboxId,
    /// Reason for accepting that data may be lost.
    pub accept_data_loss: Option<String>,
}

/// A consent that we gave (or are preparing to give).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// Generation that the peer's run will have; a predecessor names none.
    pub generation: Option<Generation>,
    /// The JSON text to hand back.
    pub item: String,
    /// When it ends.
    pub until: Mono,
    /// Making our database read-only before the consent is given; `None` where nothing is to be done.
    pub fence: Option<Lane>,
    /// Whether the yes was sent.
    pub given: bool,
    /// Whether our database was made read-only for it.
    pub fenced: bool,
}

/// A message on its way to the peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outgoing {
    /// Its number.
    pub id: OutboxId,
    /// The message.
    pub message: PeerMessage,
    /// Tries so far.
    pub attempt: u32,
    /// Command under way.
    pub in_flight: Option<ActionId>,
    /// Not before this moment.
    pub not_before: Mono,
    /// Not after this moment; `None` = until acknowledged or superseded.
    pub until: Option<Mono>,
}

/// The peer as known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Whether its agent answers.
    pub link: PeerLink,
    /// What it last told about itself, and when.
    pub status: Option<(PeerStatus, Mono)>,
}

/// The state of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct State {
    /// Highest generation known.
    pub generation: Generation,
    /// The record as last seen.
    pub record: RecordSeen,
    /// Damping of DNS answers.
    pub damping: Damping,
    /// Last result as told: address, `error` or `none`.
    pub dns_result: Option<String>,
    /// Patroni as last seen, and when.
    pub patroni: Option<(PatroniSample, Mono)>,
    /// Summary of Patroni as last told.
    pub patroni_told: Option<(String, Vec<String>)>,
    /// The peer.
    pub peer: Peer,
    /// Highest message number handled, per peer process.
    pub handled: BTreeMap<String, OutboxId>,
    /// Messages on their way.
    pub outbox: Vec<Outgoing>,
    /// Last number given to a message.
    pub last_message: OutboxId,
    /// A transition on its way into the record.
    pub request: Option<Request>,
    /// The peer's order that waits until it can be judged, and whether its sender was authenticated.
    #[serde(default)]
    pub waiting_order: Option<(Request, bool)>,
    /// Request for consent under way.
    pub ask: Option<Ask>,
    /// Consent that we gave.
    pub grant: Option<Grant>,
    /// A plan has stopped the database and nothing has started it again.
    #[serde(default)]
    pub database_stopped: bool,
    /// Transition being carried out.
    pub run: Option<Run>,
    /// Maintenance as the finished transition wants it.
    pub followup: Option<Lane>,
    /// Single steps outside of transitions, in order.
    pub chores: Lane,
    /// Steps that were left behind and are tried again.
    pub beside: Vec<StepRun>,
    /// The deployment pipeline.
    pub pipeline: Pipeline,
    /// What automation remembers.
    pub automation: AutomationMemory,
    /// What the sensors last said.
    #[serde(default)]
    pub sensors: SensorMemory,
    /// What is remembered about the lease.
    #[serde(default)]
    pub lease: LeaseMemory,
    /// How far the standby is behind, over time.
    #[serde(default)]
    pub lag: LagMemory,
    /// Whether everything that the last transition asked for has happened.
    pub settled: bool,
    /// The transition that is not settled yet.
    pub unsettled: Option<(Transition, Generation)>,
    /// An operator aborted: nothing resumes by itself.
    pub held: bool,
    /// The agent stands still because its journal was found damaged, and how; a person's resume ends it.
    pub safe_halt: Option<String>,
    /// Whether the record carries an annotation of ours.
    pub annotated: bool,
    /// Text of the last request that was refused without clearing it, so that it is said once.
    pub refused: Option<String>,
    /// Latest refusals, oldest first, at most [`REFUSALS_KEPT`].
    pub refusals: Vec<(Wall, RefusalNote)>,
    /// Last number given to a command.
    pub last_action: ActionId,
    /// Counter in nonces.
    pub last_nonce: u64,
}

/// Refusals that `/status` shows.
pub const REFUSALS_KEPT: usize = 16;
/// Messages that may wait for the peer; more means that something is wrong, and the oldest informational one goes.
pub const OUTBOX_KEPT: usize = 32;

impl State {
    /// Nothing seen, nothing begun.
    pub fn new(agree_samples: u32, agree_ms: u64) -> Self {
        Self {
            generation: Generation::default(),
            record: RecordSeen::Unknown("not read yet".to_owned()),
            damping: Damping::new(agree_samples, agree_ms),
            dns_result: None,
            patroni: None,
            patroni_told: None,
            peer: Peer::default(),
            handled: BTreeMap::new(),
            outbox: Vec::new(),
            last_message: OutboxId::default(),
            request: None,
            waiting_order: None,
            ask: None,
            grant: None,
            database_stopped: false,
            run: None,
            followup: None,
            chores: Lane::default(),
            beside: Vec::new(),
            pipeline: Pipeline::default(),
            automation: AutomationMemory::default(),
            sensors: SensorMemory::default(),
            lease: LeaseMemory::default(),
            lag: LagMemory::default(),
            settled: true,
            unsettled: None,
            held: false,
            safe_halt: None,
            annotated: false,
            refused: None,
            refusals: Vec::new(),
            last_action: ActionId::default(),
            last_nonce: 0,
        }
    }

    /// Phase that the record shows, where it is a known one.
    pub fn phase(&self) -> Option<Phase> {
        match &self.record {
            RecordSeen::Present(record) => record.known_phase(),
            RecordSeen::Missing | RecordSeen::Unknown(_) => None,
        }
    }
}

impl State {
    /// The step whose command this is, wherever it stands.
    pub(super) fn step_in_flight(&mut self, id: ActionId) -> Option<&mut StepRun> {
        let run = self.run.iter_mut().flat_map(|run| &mut run.lane.steps);
        let followup = self.followup.iter_mut().flat_map(|lane| &mut lane.steps);
        let fence = self.grant.iter_mut().filter_map(|grant| grant.fence.as_mut());
        run.chain(followup)
            .chain(&mut self.chores.steps)
            .chain(&mut self.beside)
            .chain(fence.flat_map(|lane| &mut lane.steps))
            .find(|step| matches!(step.status, StepStatus::InFlight { action, .. } if action == id))
    }
}
