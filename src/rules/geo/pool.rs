//! One pool: what it should be, and the smallest change that makes it so.
//!
//! Pure. Keeps everything that somebody else set: foreign origins, disabled origins, weights, unknown fields.

use std::collections::BTreeSet;

use super::names::{self, Marker, Rest};
use super::{GeoPolicy, Origin, Pool, PoolChange};

/// A pool that we want.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The cluster's label value.
    pub cluster: String,
    /// Its addresses; never empty.
    pub addresses: BTreeSet<String>,
}

/// How far we may go with an existing pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// We alone write it.
    Own,
    /// Others write it too: nothing is removed.
    Together,
    /// It belongs to another load balancer, or to another cluster's name: hands off.
    Foreign,
}

/// Whose a pool is that has the name of one of ours; `cluster` is for which we want it.
pub fn standing(policy: &GeoPolicy, cluster: Option<&str>, pool: &Pool) -> Standing {
    match Marker::read(&pool.description) {
        None if policy.shared_pool => Standing::Together,
        None => Standing::Own,
        Some(marker) if marker.lb != policy.hostname => Standing::Foreign,
        // The same name by accident: cluster `a-b` at `c` and cluster `a` at `b-c`.
        Some(marker) if cluster.is_some_and(|it| it != marker.cluster || policy.geo != marker.geo) => {
            Standing::Foreign
        }
        Some(marker) if marker.is_only(&policy.owner) && !policy.shared_pool => Standing::Own,
        Some(_) => Standing::Together,
    }
}

/// A new pool.
pub fn new_pool(policy: &GeoPolicy, name: &str, wanted: &Wanted) -> Pool {
    let mut pool = Pool {
        id: String::new(),
        name: name.to_owned(),
        description: marker(policy, wanted).to_string(),
        enabled: true,
        latitude: Some(policy.latitude),
        longitude: Some(policy.longitude),
        monitor: policy.monitor.clone(),
        origins: Vec::new(),
    };
    pool.origins = origins(policy, wanted, &pool, Standing::Own);
    pool
}

/// What has to change in an existing pool; `None` = nothing.
pub fn change(policy: &GeoPolicy, wanted: &Wanted, pool: &Pool) -> Option<PoolChange> {
    let standing = standing(policy, Some(&wanted.cluster), pool);
    if standing == Standing::Foreign {
        return None;
    }
    let old = Marker::read(&pool.description);
    let mut marker = marker(policy, wanted);
    if let Some(old) = &old {
        marker.owners.clone_from(&old.owners);
        if !marker.owners.contains(&policy.owner) {
            marker.owners.push(policy.owner.clone());
            marker.owners.sort();
        }
    }
    let origins = origins(policy, wanted, pool, standing);
    let coordinates = (policy.latitude, policy.longitude);
    let rested = old.as_ref().is_some_and(|old| old.rest.is_some());
    let monitor = policy.monitor.as_ref().filter(|monitor| match &pool.monitor {
        None => true,
        // One that we made ourselves makes room for the one of today's settings.
        Some(current) => current != *monitor && (policy.enforce || policy.old_monitors.contains(current)),
    });
    let change = PoolChange {
        description: (old.as_ref() != Some(&marker)).then(|| marker.write_into(&pool.description)),
        // Only what we disabled ourselves is enabled again; a person's decision stays.
        enabled: (rested && !pool.enabled).then_some(true),
        coordinates: ((pool.latitude, pool.longitude) != (Some(coordinates.0), Some(coordinates.1)))
            .then_some(coordinates),
        monitor: monitor.cloned(),
        origins: (origins != pool.origins).then_some(origins),
    };
    (change != PoolChange::default()).then_some(change)
}

/// Puts a pool of ours out of service, or back into it (`None`); nothing else about it changes.
pub fn rest(pool: &Pool, rest: Option<Rest>) -> Option<PoolChange> {
    let marker = Marker::read(&pool.description)?;
    let enabled = rest.is_none();
    let described = Marker { rest, ..marker.clone() };
    let change = PoolChange {
        description: (described != marker).then(|| described.write_into(&pool.description)),
        enabled: (pool.enabled != enabled).then_some(enabled),
        ..PoolChange::default()
    };
    (change != PoolChange::default()).then_some(change)
}

fn marker(policy: &GeoPolicy, wanted: &Wanted) -> Marker {
    Marker {
        lb: policy.hostname.clone(),
        cluster: wanted.cluster.clone(),
        geo: policy.geo.clone(),
        owners: vec![policy.owner.clone()],
        rest: None,
    }
}

fn origins(policy: &GeoPolicy, wanted: &Wanted, pool: &Pool, standing: Standing) -> Vec<Origin> {
    let mut seen = BTreeSet::new();
    let mut list: Vec<Origin> = Vec::new();
    for origin in &pool.origins {
        let address = super::address::canonical(&origin.address).unwrap_or_else(|_| origin.address.clone());
        let ours = names::is_own_origin(&origin.name, &policy.geo);
        let wanted_here = wanted.addresses.contains(&address);
        let stale = ours && standing == Standing::Own && (!wanted_here || seen.contains(&address));
        if stale {
            continue;
        }
        let mut origin = origin.clone();
        if ours && wanted_here && policy.enforce {
            origin.weight = policy.weight;
            fixed_fields(policy, &mut origin);
        }
        seen.insert(address);
        list.push(origin);
    }
    for address in wanted.addresses.difference(&seen).cloned().collect::<Vec<_>>() {
        let mut origin = Origin {
            name: free_name(policy, wanted, &list, &address),
            address,
            enabled: true,
            weight: policy.weight,
            rest: std::collections::BTreeMap::new(),
        };
        fixed_fields(policy, &mut origin);
        list.push(origin);
    }
    list
}

fn free_name(policy: &GeoPolicy, wanted: &Wanted, list: &[Origin], address: &str) -> String {
    let free = |name: &String| list.iter().all(|origin| origin.name != *name);
    let single = names::single_origin(&policy.geo);
    if !policy.shared_pool && wanted.addresses.len() == 1 && free(&single) {
        return single;
    }
    let name = if policy.shared_pool {
        names::shared_origin(&policy.geo, &policy.owner, address)
    } else {
        names::origin(&policy.geo, address)
    };
    // Six digits can collide, and names must differ in a pool.
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.clone()).chain(numbered).find(free).unwrap_or(name)
}

fn fixed_fields(policy: &GeoPolicy, origin: &mut Origin) {
    if let Some(host) = &policy.host_header {
        origin.rest.insert("header".to_owned(), format!("{{\"Host\":[\"{host}\"]}}"));
    }
    if let Some(network) = &policy.virtual_network {
        origin.rest.insert("virtual_network_id".to_owned(), format!("\"{network}\""));
    }
}
