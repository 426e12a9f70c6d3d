//! Settings of the Lease that decides which of several replicas publishes.
//!
//! Owns names and validation. Contacts nothing.

use std::time::Duration;

use crate::config::Reader;
use crate::config::kube::is_object_name;

/// Whether a Lease decides which of several replicas works.
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

/// Reads the settings; `None` = no election.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<LeaseSettings> {
    if !reader.flag(LEADER_ELECT, false) {
        return None;
    }
    let namespace = reader.required(LEASE_NAMESPACE, "the namespace of the Lease");
    let name = reader.text_or(LEASE_NAME, "geo-sync");
    for (setting, text) in [(LEASE_NAMESPACE, &namespace), (LEASE_NAME, &name)] {
        if !text.is_empty() && !is_object_name(text) {
            reader.problem(setting, Some(text), "a name: a-z, 0-9, - and .");
        }
    }
    let seconds = Duration::from_secs;
    Some(LeaseSettings { namespace, name, duration_seconds: 15, renew: seconds(4), give_up: seconds(10) })
}
