//! Settings of the Leases that decide which of several replicas acts: one for the agent, one for `geo_sync` alone.
//!
//! Owns names and validation. Contacts nothing.

use std::time::Duration;

use super::Reader;
use super::kube::is_object_name;

/// `true` = several agents run at this site and a Lease decides which one acts; the others wait (default `false`).
pub const AGENT_LEASE: &str = "AGENT_LEASE";
/// Name of that Lease, beside the record (default `switchover-agent-ENVIRONMENT`).
pub const AGENT_LEASE_NAME: &str = "AGENT_LEASE_NAME";
/// Whether a Lease decides which of several replicas of `geo_sync` works.
pub const LEADER_ELECT: &str = "LEADER_ELECT";
/// Namespace of that Lease.
pub const LEASE_NAMESPACE: &str = "GEO_LEASE_NAMESPACE";
/// Name of that Lease.
pub const LEASE_NAME: &str = "GEO_LEASE_NAME";

/// The Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Seconds after which an unrenewed Lease is free.
    pub duration_seconds: u64,
    /// Time between two renewals or attempts, and limit of one.
    pub renew: Duration,
    /// A holder that could not renew for this long stops, well before others may begin.
    pub give_up: Duration,
}

/// Reads the settings of `geo_sync`; `None` = no election.
pub(super) fn read_geo(reader: &mut Reader<'_>) -> Option<LeaseSettings> {
    if !reader.flag(LEADER_ELECT, false) {
        return None;
    }
    let namespace = reader.required(LEASE_NAMESPACE, "the namespace of the Lease");
    check(reader, LEASE_NAMESPACE, &namespace);
    let name = reader.text_or(LEASE_NAME, "geo-sync");
    check(reader, LEASE_NAME, &name);
    Some(lease(namespace, name))
}

/// Reads the settings of the agent; `None` = no election. The Lease is where the record is.
pub(super) fn read_agent(
    reader: &mut Reader<'_>,
    environment: &str,
    namespace: &str,
    engine: bool,
) -> Option<LeaseSettings> {
    let wanted = reader.flag(AGENT_LEASE, false);
    let name = reader.text_or(AGENT_LEASE_NAME, &format!("switchover-agent-{environment}"));
    if !wanted {
        return None;
    }
    if !engine {
        reader.problem(AGENT_LEASE, Some("true"), "only with logic_handler: it decides which engine acts");
    }
    check(reader, AGENT_LEASE_NAME, &name);
    Some(lease(namespace.to_owned(), name))
}

fn check(reader: &mut Reader<'_>, setting: &str, text: &str) {
    if !text.is_empty() && !is_object_name(text) {
        reader.problem(setting, Some(text), "a name: a-z, 0-9, - and .");
    }
}

fn lease(namespace: String, name: String) -> LeaseSettings {
    let seconds = Duration::from_secs;
    LeaseSettings { namespace, name, duration_seconds: 15, renew: seconds(4), give_up: seconds(10) }
}
