//! The load balancer's list of pools: a function that every instance computes alike.
//!
//! Pure. Never empties the list, never drops an entry that is not ours, never touches anything but pools (and, where
//! the operator asks for it, steering and proxying).

use std::collections::BTreeSet;

use super::names::{Marker, Rest};
use super::{Balancer, BalancerChange, GeoPolicy, Pool};

/// Whether the pool should be in the load balancer: marked for it, enabled, not being deleted.
pub fn is_live(policy: &GeoPolicy, pool: &Pool) -> bool {
    pool.enabled
        && Marker::read(&pool.description)
            .is_some_and(|marker| marker.lb == policy.hostname && marker.rest.is_none())
}

/// Whether we are about to delete the pool.
pub fn is_own_leaving(policy: &GeoPolicy, pool: &Pool) -> bool {
    Marker::read(&pool.description).is_some_and(|marker| {
        marker.lb == policy.hostname && marker.is_only(&policy.owner) && marker.rest == Some(Rest::Leaving)
    })
}

/// The live pools by name.
fn live<'a>(policy: &GeoPolicy, pools: &'a [Pool]) -> Vec<&'a Pool> {
    let mut live: Vec<&Pool> = pools.iter().filter(|pool| is_live(policy, pool)).collect();
    live.sort_by(|a, b| a.name.cmp(&b.name));
    live
}

/// A new load balancer; `None` while there is no pool for it.
pub fn new_balancer(policy: &GeoPolicy, pools: &[Pool]) -> Option<Balancer> {
    let default_pools: Vec<String> = live(policy, pools).iter().map(|pool| pool.id.clone()).collect();
    let first = default_pools.first()?.clone();
    Some(Balancer {
        id: String::new(),
        name: policy.hostname.clone(),
        fallback_pool: Some(policy.fallback_pool.clone().unwrap_or(first)),
        default_pools,
        proxied: policy.proxied,
        steering: policy.steering.clone(),
        ttl: Some(policy.ttl),
    })
}

/// Entries of the load balancer that are not among the pools read: gone, or not listed.
pub fn unknown_entries(balancer: &Balancer, pools: &[Pool]) -> Vec<String> {
    let known: BTreeSet<&String> = pools.iter().map(|pool| &pool.id).collect();
    let entries = balancer.default_pools.iter().chain(&balancer.fallback_pool);
    let unknown: BTreeSet<&String> = entries.filter(|id| !known.contains(id)).collect();
    unknown.into_iter().cloned().collect()
}

/// What has to change; `None` = nothing. `gone` are entries that are known not to exist.
pub fn change(
    policy: &GeoPolicy,
    pools: &[Pool],
    gone: &BTreeSet<String>,
    current: &Balancer,
) -> Option<BalancerChange> {
    let leaving: BTreeSet<&String> =
        pools.iter().filter(|pool| is_own_leaving(policy, pool)).map(|pool| &pool.id).collect();
    let out = |id: &String| gone.contains(id) || leaving.contains(id);
    let mut list: Vec<String> = current.default_pools.iter().filter(|id| !out(id)).cloned().collect();
    for pool in live(policy, pools) {
        if !list.contains(&pool.id) {
            list.push(pool.id.clone());
        }
    }
    // A load balancer without pools answers nobody; then our pool stays until there is another.
    let list = if list.is_empty() { current.default_pools.clone() } else { list };
    let keeps = |id: &&String| list.contains(id) || !out(id);
    let fallback = current.fallback_pool.as_ref().filter(keeps).or(policy.fallback_pool.as_ref());
    let fallback = fallback.or(list.first()).cloned();
    let change = BalancerChange {
        default_pools: (list != current.default_pools).then_some(list),
        fallback_pool: if fallback == current.fallback_pool { None } else { fallback },
        proxied: (policy.enforce && policy.proxied != current.proxied).then_some(policy.proxied),
        steering: (policy.enforce && policy.steering != current.steering).then(|| policy.steering.clone()),
        ttl: (policy.enforce && !policy.proxied && current.ttl != Some(policy.ttl)).then_some(policy.ttl),
    };
    (change != BalancerChange::default()).then_some(change)
}

/// Whether traffic has a pool to go to other than this one.
pub fn has_other(policy: &GeoPolicy, pools: &[Pool], balancer: &Balancer, id: &str) -> bool {
    let in_use = |pool: &Pool| balancer.default_pools.contains(&pool.id) || is_live(policy, pool);
    pools.iter().any(|pool| pool.id != id && pool.enabled && in_use(pool))
}

/// The pool of ours that must go back into service because the load balancer has no enabled pool at all: instances
/// that emptied at the same moment each saw the other's pool. Whoever sees that puts its own back; one pool too many
/// for a while is harmless, and the next pass takes it out.
pub fn must_return<'a>(policy: &GeoPolicy, pools: &'a [Pool], balancer: &Balancer) -> Option<&'a Pool> {
    let listed = || pools.iter().filter(|pool| balancer.default_pools.contains(&pool.id));
    if listed().any(|pool| pool.enabled) || pools.iter().any(|pool| is_live(policy, pool)) {
        return None;
    }
    listed().find(|pool| {
        Marker::read(&pool.description).is_some_and(|marker| {
            marker.lb == policy.hostname && marker.rest.is_some() && marker.is_only(&policy.owner)
        })
    })
}
