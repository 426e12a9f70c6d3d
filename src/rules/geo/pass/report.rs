//! What a pass starts from and what it tells at its end. Plain data.

use std::collections::{BTreeMap, BTreeSet};

use crate::rules::geo::pool::Wanted;
use crate::rules::geo::{CallFailure, GeoPolicy, names};

/// What a pass starts from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Input {
    /// The pools that we want, by name.
    pub wanted: BTreeMap<String, Wanted>,
    /// Names of pools whose grace period is over.
    pub due: BTreeSet<String>,
    /// Whether to compute only.
    pub dry_run: bool,
}

/// The pools that addresses per cluster ask for.
pub fn wanted(policy: &GeoPolicy, clusters: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, Wanted> {
    let pool = |(cluster, addresses): (&String, &BTreeSet<String>)| {
        let wanted = Wanted { cluster: cluster.clone(), addresses: addresses.clone() };
        (names::pool_name(cluster, &policy.geo), wanted)
    };
    clusters.iter().map(pool).collect()
}

/// What a pass found and did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Report {
    /// Calls that changed something.
    pub writes: Vec<&'static str>,
    /// Writes that a dry run would have made, in words.
    pub planned: Vec<String>,
    /// Both lists were read: the credential and the way to the API are good.
    pub looked: bool,
    /// Settings of the load balancer itself (not its pools) were set back.
    pub enforced: bool,
    /// Own pools without an address.
    pub orphans: BTreeSet<String>,
    /// Pools that others write too although nobody said they are shared.
    pub conflicts: BTreeSet<String>,
    /// Pools with the name of ours that belong to another load balancer.
    pub foreign: BTreeSet<String>,
    /// Empty pools that stay because they are the last ones.
    pub last: BTreeSet<String>,
    /// Pools that cannot be deleted, and who uses them.
    pub blocked: BTreeMap<String, Vec<String>>,
    /// Own pools without a monitor: they never fail over.
    pub unmonitored: BTreeSet<String>,
    /// Origins of each own pool.
    pub origins: BTreeMap<String, usize>,
    /// Pools of the load balancer.
    pub balancer_pools: usize,
    /// Failures.
    pub failures: Vec<CallFailure>,
    /// The rounds were used up without a quiet one.
    pub unsettled: bool,
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.blocked.is_empty() && !self.unsettled
    }
}
