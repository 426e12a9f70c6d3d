//! From ingresses to addresses per cluster, with a reason for everything that is left out.
//!
//! Pure. Only labels and status are looked at; rules, hosts and annotations never are.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::address::{Refused, canonical, is_public};
use super::{GeoPolicy, names};

/// Labels that name the cluster, the first one that is not empty wins.
pub const CLUSTER_LABELS: [&str; 2] = ["cluster-name", "cluster_name"];

/// An ingress, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Ingress {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identifier of the object, for Kubernetes Events.
    pub uid: String,
    /// Value of the cluster label, where there is one.
    pub cluster: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `ip` and `hostname` of every entry of its status.
    pub addresses: Vec<String>,
}

/// Why an ingress, or one of its addresses, does not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// No cluster label, and no default.
    NoCluster,
    /// Its namespace is not allowed.
    Namespace,
    /// Its cluster name is not allowed.
    Cluster(String),
    /// Its status is empty.
    NoAddress,
    /// It is being deleted.
    Deleting,
    /// The pool of its cluster name would be called as that of another one.
    NameTaken(String),
    /// One address is refused.
    Address(String, Refused),
}

impl Ignored {
    /// The word in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoCluster => "no-cluster-label",
            Self::Namespace => "namespace-not-allowed",
            Self::Cluster(_) => "cluster-not-allowed",
            Self::NoAddress => "no-address",
            Self::Deleting => "deleting",
            Self::NameTaken(_) => "pool-name-taken",
            Self::Address(_, refused) => refused.as_str(),
        }
    }

    /// Whether a person should know: an address that is not there yet is normal.
    pub fn is_mistake(&self) -> bool {
        !matches!(self, Self::NoAddress | Self::Deleting)
    }

    /// One sentence for a Kubernetes Event.
    pub fn sentence(&self) -> String {
        match self {
            Self::NoCluster => format!("has neither label {} nor {}", CLUSTER_LABELS[0], CLUSTER_LABELS[1]),
            Self::Namespace => "is in a namespace that may not publish".to_owned(),
            Self::Cluster(cluster) => format!("names the cluster {cluster:?}, which may not publish"),
            Self::NoAddress => "has no address yet".to_owned(),
            Self::Deleting => "is being deleted".to_owned(),
            Self::NameTaken(other) => format!("asks for a pool whose name is that of cluster {other:?}"),
            Self::Address(address, refused) => format!("address {address:?} is refused: {refused}"),
        }
    }
}

/// What came out of the ingresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selected {
    /// Addresses of each cluster that has at least one.
    pub clusters: BTreeMap<String, BTreeSet<String>>,
    /// Namespace and name of each ingress of which something was left out, and why.
    pub ignored: BTreeSet<(String, String, Ignored)>,
}

/// Sorts the ingresses. `loops` are host names that lead back to Cloudflare (proxied records).
pub fn select<'a>(
    policy: &GeoPolicy,
    loops: &BTreeSet<String>,
    ingresses: impl IntoIterator<Item = &'a Ingress>,
) -> Selected {
    let mut selected = Selected::default();
    let mut members: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for ingress in ingresses {
        let mut ignore = |why| {
            selected.ignored.insert((ingress.namespace.clone(), ingress.name.clone(), why));
        };
        if ingress.deleting {
            ignore(Ignored::Deleting);
            continue;
        }
        if policy.namespaces.as_ref().is_some_and(|allowed| !allowed.contains(&ingress.namespace)) {
            ignore(Ignored::Namespace);
            continue;
        }
        let Some(cluster) = ingress.cluster.as_ref().or(policy.cluster_name.as_ref()) else {
            ignore(Ignored::NoCluster);
            continue;
        };
        if policy.clusters.as_ref().is_some_and(|allowed| !allowed.contains(cluster)) {
            ignore(Ignored::Cluster(cluster.clone()));
            continue;
        }
        let place = (ingress.namespace.clone(), ingress.name.clone());
        members.entry(cluster.clone()).or_default().insert(place);
        if ingress.addresses.is_empty() {
            ignore(Ignored::NoAddress);
        }
        for text in &ingress.addresses {
            match accepted(policy, loops, text) {
                Ok(address) => {
                    selected.clusters.entry(cluster.clone()).or_default().insert(address);
                }
                Err(refused) => ignore(Ignored::Address(text.clone(), refused)),
            }
        }
    }
    refuse_taken_names(policy, &mut selected, &members);
    selected
}

/// Of clusters whose pools would have one name, the first in order that has it unchanged keeps it, else the first: two
/// clusters in one pool would take turns with its addresses.
fn refuse_taken_names(
    policy: &GeoPolicy,
    selected: &mut Selected,
    members: &BTreeMap<String, BTreeSet<(String, String)>>,
) {
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    let mut clusters: Vec<String> = selected.clusters.keys().cloned().collect();
    clusters.sort_by_key(|cluster| !names::is_plain(cluster));
    for cluster in clusters {
        match holders.entry(names::pool_name(&cluster, &policy.geo)) {
            Entry::Vacant(free) => {
                free.insert(cluster);
            }
            Entry::Occupied(taken) => {
                selected.clusters.remove(&cluster);
                for (namespace, name) in members.get(&cluster).into_iter().flatten() {
                    let why = Ignored::NameTaken(taken.get().clone());
                    selected.ignored.insert((namespace.clone(), name.clone(), why));
                }
            }
        }
    }
}

fn accepted(policy: &GeoPolicy, loops: &BTreeSet<String>, text: &str) -> Result<String, Refused> {
    let address = canonical(text)?;
    let Ok(ip) = address.parse::<IpAddr>() else {
        let back = address == policy.hostname
            || loops.contains(&address)
            || address.ends_with(".cdn.cloudflare.net");
        // A range cannot vouch for a name, whose addresses change.
        return match (back, policy.allowed.is_empty()) {
            (true, _) => Err(Refused::Loop),
            (false, false) => Err(Refused::NotAllowed),
            (false, true) => Ok(address),
        };
    };
    if !is_public(ip) && policy.virtual_network.is_none() {
        return Err(Refused::Private);
    }
    if !policy.allowed.is_empty() && !policy.allowed.iter().any(|range| range.contains(ip)) {
        return Err(Refused::NotAllowed);
    }
    Ok(address)
}
