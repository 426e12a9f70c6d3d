//! What the watchers saw. A look that failed is `Unknown`, never "down".

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The answer of one resolver to one look-up of the GSLB name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResolverAnswer {
    /// At least one address.
    Addresses(BTreeSet<IpAddr>),
    /// An authoritative "no such name" or an empty answer.
    NoAddress,
    /// No answer, and why; nothing follows from it.
    Unknown(String),
}

/// One round of look-ups.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DnsSample {
    /// Answer of each resolver, by its name.
    pub answers: BTreeMap<String, ResolverAnswer>,
    /// Whether our own network could look up the self-test name; `None` = no self-test configured.
    pub self_test: Option<bool>,
}

/// Role of a Patroni member as `/cluster` words it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// Leader of a primary cluster.
    Leader,
    /// Leader of a standby cluster.
    StandbyLeader,
    /// Follower of the leader.
    Replica,
    /// Any other word.
    Other,
}

/// One member of the Patroni cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: MemberRole,
    /// Its role as worded, for metrics.
    pub role_text: String,
    /// Its state as worded (`running`, `streaming`, `in archive recovery`, `start failed`, ...).
    pub state: String,
    /// Its timeline, absent while it is not running.
    pub timeline: Option<u64>,
    /// Bytes behind the leader; `None` for the leader and where Patroni says `unknown`.
    pub lag: Option<u64>,
}

impl Member {
    /// Whether Patroni's word for the state means a working member (3.x: `running`; 4.x and standbys since 3.0.4:
    /// `streaming`, `in archive recovery`).
    pub fn is_healthy(&self) -> bool {
        matches!(self.state.as_str(), "running" | "streaming" | "in archive recovery")
    }
}

/// A successful look at Patroni.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PatroniView {
    /// Whether the dynamic configuration has a `standby_cluster` section.
    pub standby_configured: bool,
    /// `standby_cluster.host`, which may be a comma list.
    pub standby_host: Option<String>,
    /// All members, by name.
    pub members: Vec<Member>,
    /// Whether some member answers `GET /primary` with 200, so takes writes; `None` = the endpoint is not offered
    /// or a member could not be asked.
    pub primary_endpoint: Option<bool>,
    /// Whether some member answers `GET /standby-leader` with 200; `None` as above.
    pub standby_endpoint: Option<bool>,
    /// Timeline of the leader.
    pub timeline: Option<u64>,
    /// Last write-ahead-log position of the leader in bytes: written where it is primary, received or replayed
    /// where it is standby.
    pub lsn: Option<u64>,
    /// Whether the leader's PostgreSQL replays instead of writing. Patroni's role words follow the configuration up
    /// to half a second sooner.
    pub in_recovery: Option<bool>,
}

/// What one poll of Patroni gave.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PatroniSample {
    /// The view.
    Seen(PatroniView),
    /// Patroni did not answer or not sensibly, and why.
    Unknown(String),
}

/// Kind of a watch event that carried a pipeline run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RunEvent {
    /// `ADDED`, or found in a list.
    Added,
    /// `MODIFIED`.
    Modified,
    /// `DELETED`.
    Deleted,
}

/// A Tekton PipelineRun as seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PipelineRunSeen {
    /// Kind of the watch event.
    pub kind: RunEvent,
    /// `metadata.name`.
    pub name: String,
    /// Label `triggers.tekton.dev/triggers-eventid`.
    pub event_id: Option<String>,
    /// Parameter `release-namespace`.
    pub release: Option<String>,
    /// `reason` of the condition `Succeeded` (the first condition where none is named so).
    pub reason: Option<String>,
    /// Its `status`: `Some(true)` succeeded, `Some(false)` failed, `None` still running.
    pub succeeded: Option<bool>,
    /// `metadata.creationTimestamp` in milliseconds since 1970, where given.
    pub created: Option<u64>,
}
