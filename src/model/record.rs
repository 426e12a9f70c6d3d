//! The record: the ConfigMap `switchover-state-<env>` that people read with `kubectl` and that asks for transitions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Phase, Transition};

/// `last_stable_state` as found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RecordPhase {
    /// The key is missing or empty: this site was never part of a pair.
    Empty,
    /// One of the known phases.
    Known(Phase),
    /// Something else; nothing is decided on it.
    Unknown(String),
}

/// `transition` as found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RecordTransition {
    /// The key is missing or empty: nothing is asked for.
    Empty,
    /// One of the known transitions.
    Known(Transition),
    /// Something else; it is refused by name.
    Unknown(String),
}

/// The record as read from the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Stable phase of this site.
    pub phase: RecordPhase,
    /// Transition asked for or under way.
    pub transition: RecordTransition,
    /// All keys as found, in key order, for the wire and for `GET /configmap`.
    pub data: BTreeMap<String, String>,
    /// `metadata.resourceVersion`, where the API server gives one; a write then demands it unchanged.
    pub resource_version: Option<String>,
}

impl Record {
    /// Reads the record's keys; a key that is missing counts as empty.
    pub fn from_data(data: BTreeMap<String, String>, resource_version: Option<String>) -> Self {
        let text = |key: &str| data.get(key).map(|value| value.trim().to_owned()).unwrap_or_default();
        let phase = match text("last_stable_state") {
            empty if empty.is_empty() => RecordPhase::Empty,
            name => name.parse().map_or(RecordPhase::Unknown(name), RecordPhase::Known),
        };
        let transition = match text("transition") {
            empty if empty.is_empty() => RecordTransition::Empty,
            name => name.parse().map_or(RecordTransition::Unknown(name), RecordTransition::Known),
        };
        Self { phase, transition, data, resource_version }
    }

    /// The phase, where it is a known one.
    pub fn known_phase(&self) -> Option<Phase> {
        match self.phase {
            RecordPhase::Known(phase) => Some(phase),
            RecordPhase::Empty | RecordPhase::Unknown(_) => None,
        }
    }
}

/// What a look at the record gave.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RecordSeen {
    /// The record.
    Present(Record),
    /// The API server says that there is none.
    Missing,
    /// It could not be read or watched just now, and why.
    Unknown(String),
}

/// A change to the record. Fields that are `None` are left out of the write; `maintenance` is always cleared, as
/// the predecessor does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordWrite {
    /// New `last_stable_state`, written with a fresh `last_stable_state_ts`.
    pub phase: Option<String>,
    /// New `transition`.
    pub transition: Option<String>,
    /// The moment for `last_stable_state_ts`, as the record spells time.
    pub timestamp: String,
    /// Annotation with the last refusal or halt: `None` leaves it alone, an empty text removes it.
    pub annotation: Option<String>,
    /// The resource version that the write demands, where one is known.
    pub expect: Option<String>,
}
