//! Calls in words: what changes, from what to what. For logs and dry runs.
//!
//! Pure. Names pools as people do, with the identifier only where no name is known.

use super::{Balancer, BalancerChange, Call, Pool, PoolChange, Steps};

/// A call in one line; `pools` and `balancer` are what was read before it.
pub fn describe(call: &Call, pools: &[Pool], balancer: Option<&Balancer>) -> String {
    let name = |id: &String| pools.iter().find(|pool| pool.id == *id).map_or(id, |pool| &pool.name).clone();
    let names = |ids: &[String]| list(ids.iter().map(name));
    match call {
        Call::CreatePool(pool) => {
            let monitor = pool.monitor.as_ref().map_or_else(String::new, |id| format!(", monitor {id}"));
            let place = pool.latitude.zip(pool.longitude).map_or_else(String::new, degrees);
            format!("create pool {} with {}{place}{monitor}", pool.name, addresses(pool))
        }
        Call::PatchPool(id, change) => {
            let old = pools.iter().find(|pool| pool.id == *id);
            format!("change pool {}: {}", name(id), pool_change(change, old))
        }
        Call::DeletePool(id) => format!("delete pool {}", name(id)),
        Call::CreateBalancer(new) => {
            let fallback = new.fallback_pool.as_ref().map(name).unwrap_or_default();
            format!(
                "create load balancer {} with {}; fallback {fallback}; steering {}; {}",
                new.name,
                names(&new.default_pools),
                new.steering,
                if new.proxied { "proxied" } else { "not proxied" }
            )
        }
        Call::PatchBalancer(id, change) => {
            let host = balancer.map_or(id, |balancer| &balancer.name);
            format!("change load balancer {host}: {}", balancer_change(change, balancer, &name))
        }
        Call::ListPools
        | Call::ListBalancers
        | Call::GetPool(_)
        | Call::GetBalancer(_)
        | Call::References(_) => "read".to_owned(),
    }
}

fn list(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn addresses(pool: &Pool) -> String {
    list(pool.origins.iter().map(|origin| origin.address.clone()))
}

fn degrees((latitude, longitude): (Steps, Steps)) -> String {
    format!(" at {}, {}", latitude as f64 / 10_000.0, longitude as f64 / 10_000.0)
}

/// `what old -> new`, without the old where it is not known.
fn from_to(what: &str, old: Option<String>, new: &str) -> String {
    match old {
        Some(old) => format!("{what} {old} -> {new}"),
        None => format!("{what} {new}"),
    }
}

fn pool_change(change: &PoolChange, old: Option<&Pool>) -> String {
    let mut parts = Vec::new();
    if let Some(origins) = &change.origins {
        let new = list(origins.iter().map(|origin| origin.address.clone()));
        parts.push(from_to("origins", old.map(addresses), &new));
    }
    if let Some(enabled) = change.enabled {
        parts.push(if enabled { "enable" } else { "disable" }.to_owned());
    }
    if let Some(coordinates) = change.coordinates {
        parts.push(format!("coordinates{}", degrees(coordinates)));
    }
    if let Some(monitor) = &change.monitor {
        let none = || "none".to_owned();
        parts.push(from_to("monitor", old.map(|pool| pool.monitor.clone().unwrap_or_else(none)), monitor));
    }
    if change.description.is_some() {
        parts.push("our marker in the description".to_owned());
    }
    parts.join("; ")
}

fn balancer_change(
    change: &BalancerChange,
    old: Option<&Balancer>,
    name: &dyn Fn(&String) -> String,
) -> String {
    let mut parts = Vec::new();
    if let Some(pools) = &change.default_pools {
        let old = old.map(|balancer| list(balancer.default_pools.iter().map(name)));
        parts.push(from_to("pools", old, &list(pools.iter().map(name))));
    }
    if let Some(pool) = &change.fallback_pool {
        let old = old.and_then(|balancer| balancer.fallback_pool.as_ref()).map(name);
        parts.push(from_to("fallback", old, &name(pool)));
    }
    if let Some(proxied) = change.proxied {
        parts.push(if proxied { "proxied" } else { "not proxied" }.to_owned());
    }
    if let Some(steering) = &change.steering {
        parts.push(from_to("steering", old.map(|balancer| balancer.steering.clone()), steering));
    }
    if let Some(ttl) = change.ttl {
        parts.push(format!("ttl {ttl} s"));
    }
    parts.join("; ")
}
