//! Performs a pass: its calls, and the wait before it looks at what became of them.
//!
//! Owns no decision.

use std::time::Duration;

use crate::adapters::cloudflare::Cloudflare;
use crate::adapters::cloudflare::load_balancing::Place;
use crate::rules::geo::pass::{Pass, Step};
use crate::rules::geo::{BalancerChange, Call, PoolChange};

/// Drives the pass to its end. `verify` is the shortest wait before a verification; the longest is three times it,
/// so that instances which wrote together do not look together.
pub async fn drive(cloudflare: &Cloudflare, place: &Place, pass: &mut Pass, verify: Duration) {
    loop {
        match pass.step() {
            Step::Done => return,
            Step::Pause => {
                tokio::time::sleep(verify.mul_f64(1.0 + 2.0 * rand::random::<f64>())).await;
                pass.resume();
            }
            Step::Call(call) => {
                let answer = cloudflare.perform(place, &call).await;
                match &answer {
                    Ok(_) if call.writes() => tracing::info!(change = describe(&call), "Cloudflare changed"),
                    Err(failure) => tracing::debug!(reason = failure.reason, "Cloudflare call failed"),
                    Ok(_) => {}
                }
                pass.answer(answer);
            }
        }
    }
}

/// A change in words, for logs and dry runs.
pub fn describe(call: &Call) -> String {
    match call {
        Call::CreatePool(pool) => {
            let addresses: Vec<&str> = pool.origins.iter().map(|origin| origin.address.as_str()).collect();
            format!("create pool {} with {}", pool.name, addresses.join(", "))
        }
        Call::PatchPool(id, change) => format!("change pool {id}: {}", pool_change(change)),
        Call::DeletePool(id) => format!("delete pool {id}"),
        Call::CreateBalancer(new) => {
            format!("create load balancer {} with {}", new.name, new.default_pools.join(", "))
        }
        Call::PatchBalancer(id, change) => format!("change load balancer {id}: {}", balancer_change(change)),
        Call::ListPools
        | Call::ListBalancers
        | Call::GetPool(_)
        | Call::GetBalancer(_)
        | Call::References(_) => "read".to_owned(),
    }
}

fn pool_change(change: &PoolChange) -> String {
    let mut parts = Vec::new();
    if let Some(origins) = &change.origins {
        let addresses: Vec<&str> = origins.iter().map(|origin| origin.address.as_str()).collect();
        parts.push(format!("origins are {}", addresses.join(", ")));
    }
    if let Some(enabled) = change.enabled {
        parts.push(if enabled { "enabled" } else { "disabled" }.to_owned());
    }
    if change.coordinates.is_some() {
        parts.push("coordinates".to_owned());
    }
    if let Some(monitor) = &change.monitor {
        parts.push(format!("monitor {monitor}"));
    }
    if change.description.is_some() {
        parts.push("marker".to_owned());
    }
    parts.join("; ")
}

fn balancer_change(change: &BalancerChange) -> String {
    let mut parts = Vec::new();
    if let Some(pools) = &change.default_pools {
        parts.push(format!("pools are {}", pools.join(", ")));
    }
    if let Some(pool) = &change.fallback_pool {
        parts.push(format!("fallback {pool}"));
    }
    if change.proxied.is_some() || change.steering.is_some() || change.ttl.is_some() {
        parts.push("steering and proxying".to_owned());
    }
    parts.join("; ")
}
