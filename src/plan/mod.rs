//! Plans: a transition as an ordered list of named steps.
//!
//! Owns: what is done in which order at which side, when a step counts as done, how long it may take, what undoes it.
//! Never: looks at the world or decides whether to start (that is `rules`). `plan` on the command line prints exactly
//! this data, and running it does exactly this.
//!
//! To add a step: a constructor in [`blocks`], its place in [`transitions`]; if it needs a new effect, a variant in
//! `model::action`, then follow the compiler.

pub mod blocks;
pub mod limits;
pub mod transitions;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Effect, PeerMessage, Phase, Transition};

pub use transitions::{Facts, build};

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Bring about an effect.
    Do(Effect),
    /// Write the record: new phase, new transition text and annotation, each left alone where `None`.
    Record {
        /// New phase.
        phase: Option<Phase>,
        /// New transition text.
        transition: Option<String>,
        /// New annotation; an empty text removes it.
        annotation: Option<String>,
    },
    /// Put a message into the outbox; it is delivered beside the plan.
    Tell(PeerMessage),
    /// Order a transition from the peer, with the generation of this run.
    Order(Transition),
    /// Only wait for the done-condition.
    Wait,
}

/// When a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// The call was answered with success: the write is judged by its status code, the call itself waited where
    /// there was something to wait for, or the message is in the outbox.
    Answered,
    /// The local database is seen as a primary that takes writes.
    DatabasePrimary,
    /// The local database is seen as a working standby of the peer, every member healthy.
    DatabaseStandby,
    /// The local database is seen not to take writes.
    DatabaseFenced,
    /// The local database has replayed what the peer had written when it gave its consent.
    CaughtUp,
    /// The peer's database is seen not to take writes, or the peer's agent is lost.
    PeerFenced,
    /// The witness has given this site its lease.
    WitnessHeld,
    /// The record shows what the step wrote.
    RecordShows,
}

/// What happens when a step is not done within its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The transition halts and says what a person must look at.
    Halt,
    /// The plan goes on after `patience_ms`; the step is tried again beside it until its limit, and reported.
    Beside {
        /// How long the plan waits for it, in milliseconds.
        patience_ms: u64,
    },
    /// The plan goes on after the limit, with a report.
    Proceed,
}

/// What undoes a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// This effect.
    Effect(Effect),
    /// Another transition.
    Transition(Transition),
    /// Nothing does.
    Never(String),
    /// Nothing needs to.
    Needless,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// Its name: stable, lower-case, unique in its plan.
    pub name: String,
    /// What it does.
    pub work: Work,
    /// When it is done.
    pub done: Done,
    /// Time for all tries together, in milliseconds.
    pub limit_ms: u64,
    /// What happens after that.
    pub on_failure: Failure,
    /// What undoes it.
    pub undo: Undo,
    /// Whether the destruction gate must be open before it.
    pub gated: bool,
}

impl Step {
    /// Whether it destroys data.
    pub fn is_destructive(&self) -> bool {
        matches!(&self.work, Work::Do(effect) if effect.is_destructive())
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Do(effect) => effect.fmt(f),
            Self::Record { phase: Some(phase), transition: Some(transition), .. } => {
                write!(f, "record phase {phase}, transition {transition:?}")
            }
            Self::Record { phase: Some(phase), transition: None, .. } => write!(f, "record phase {phase}"),
            Self::Record { phase: None, transition, .. } => {
                write!(f, "record transition {:?}", transition.as_deref().unwrap_or_default())
            }
            Self::Tell(message) => write!(f, "tell the peer {message:?}"),
            Self::Order(transition) => write!(f, "order {transition} from the peer"),
            Self::Wait => f.write_str("wait"),
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered with success",
            Self::DatabasePrimary => "the database is seen as a writable primary",
            Self::DatabaseStandby => "the database is seen as a healthy standby of the peer",
            Self::DatabaseFenced => "the database is seen not to take writes",
            Self::CaughtUp => "the database has replayed all that the peer had written",
            Self::PeerFenced => "the peer's database is seen not to take writes, or the peer is lost",
            Self::WitnessHeld => "the witness has given this site its lease",
            Self::RecordShows => "the record shows it",
        })
    }
}
