//! What the two agents say to each other, freed of its wire form (that is `peer::message`).

use serde::{Deserialize, Serialize};

use super::{Generation, Wall};

/// Number of a message in our outbox; the peer acknowledges it and drops a second copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OutboxId(pub u64);

/// Whether the peer's agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerLink {
    /// Nothing heard and nothing failed yet.
    #[default]
    Unknown,
    /// Heartbeats are answered.
    Up,
    /// Heartbeats have failed for the loss time.
    Down,
}

/// What a new agent tells about its site with every heartbeat. A predecessor peer sends none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    /// Random name of the sending process; a new one means that the peer restarted.
    pub instance: String,
    /// Name of the peer's site.
    pub site: String,
    /// `last_stable_state` of its record, empty where unknown.
    pub phase: String,
    /// Transition that it is carrying out, empty where none.
    pub transition: String,
    /// Highest generation it knows.
    pub generation: Generation,
    /// Whether its database takes writes; `None` = it does not know.
    pub writable: Option<bool>,
    /// Whether its database is a standby that follows a source; `None` = it does not know.
    pub standby: Option<bool>,
    /// Timeline of its database leader.
    pub timeline: Option<u64>,
    /// Last write-ahead-log position of its database leader, in bytes.
    pub lsn: Option<u64>,
    /// Whether everything that the last transition asked for has happened (pipeline done, maintenance as wanted).
    pub settled: bool,
    /// The global load balancer's answer as that site sees it: an address, `none` or `error`; empty where untold.
    pub dns: String,
}

/// A message inside `from_peer`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerMessage {
    /// The DNS answer of the other site changed; informational.
    Dns {
        /// Address, `error` or `none`.
        result: String,
    },
    /// The other site orders a transition.
    TransitionTo {
        /// Name as sent; not yet known to be valid.
        state: String,
        /// Fencing number; a predecessor sends none.
        generation: Option<Generation>,
        /// Reason for which a person accepted at the other site that data may be lost.
        accept_data_loss: Option<String>,
    },
    /// The other site asks for our consent.
    Confirm {
        /// Phase that we must be in.
        required_state: String,
        /// Opaque JSON text to hand back unchanged.
        item: String,
    },
    /// The other site consents.
    Yes {
        /// The JSON text that we sent, as handed back.
        item: String,
        /// Facts that a new agent adds to its consent.
        evidence: Option<PeerStatus>,
    },
    /// The other site, a new agent, refuses.
    No {
        /// The JSON text that we sent, as handed back.
        item: String,
        /// Name of its refusal.
        reason: String,
    },
    /// Well-formed, but an event that we do not know.
    Unknown {
        /// Its `event`.
        event: String,
    },
}

/// What we put inside the opaque item of a consent request, and look for in the answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConsentTag {
    /// Unguessable, used once.
    pub nonce: String,
    /// Generation that the transition would get.
    pub generation: Generation,
    /// After this moment the consent is void.
    pub expires: Wall,
    /// Transition that is asked for.
    pub transition: String,
    /// Name of the asking site.
    pub site: String,
}

impl ConsentTag {
    /// The opaque item of a consent request: what a predecessor sends, with this tag beside its data.
    pub fn item(&self, record: &std::collections::BTreeMap<String, String>) -> String {
        serde_json::json!({ "event": "switchover_state", "data": record, "consent": self }).to_string()
    }

    /// The tag inside an item; `None` where a predecessor made the item.
    pub fn from_item(item: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(item).ok()?;
        serde_json::from_value(value.get("consent")?.clone()).ok()
    }
}
