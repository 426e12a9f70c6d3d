//! Geo load balancing as decisions: labelled ingresses in, changes of one Cloudflare load balancer out.
//!
//! Owns what a pool and the load balancer should look like and in which order they are read and changed. Never
//! performs a call, reads a clock or draws a random number. The task `geo_sync` performs what [`pass::Pass`] asks
//! for; tests walk the same pass through every order of calls of several instances.
//!
//! ```text
//! ingresses -- select --> addresses per cluster --+
//! pools of the account ---------------------------+--> pool (own pools)  --> changes of single pools
//! load balancer ----------------------------------+--> balancer          --> change of its list of pools
//! ```
//!
//! Every instance computes the load balancer's list alike, from the set of pools; each pool has one writer. So an
//! update that another instance overwrote is made again by whoever looks next.

pub mod address;
pub mod balancer;
pub mod grace;
pub mod names;
pub mod pass;
pub mod pool;
pub mod select;
pub mod words;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::FailureKind;
use address::Cidr;

/// A weight or coordinate in whole steps, so that it can be compared and hashed: hundredths or ten-thousandths.
pub type Steps = i64;

/// What to do with a pool that has had no address for the grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnEmpty {
    /// Disable it; its origins stay, traffic goes to the next pool.
    Disable,
    /// Take it out of the load balancer, then delete it.
    Delete,
    /// Only report it.
    Keep,
}

/// What an instance is told to publish.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GeoPolicy {
    /// Name of the load balancer.
    pub hostname: String,
    /// Location in names: one of the four, or a free slug of a custom site.
    pub geo: String,
    /// Latitude in ten-thousandths of a degree.
    pub latitude: Steps,
    /// Longitude in ten-thousandths of a degree.
    pub longitude: Steps,
    /// Weight of an origin in hundredths, 0 to 100.
    pub weight: Steps,
    /// Who writes our pools: the same for all replicas and restarts of one cluster.
    pub owner: String,
    /// Cluster of ingresses without a label; `None` = they are ignored.
    pub cluster_name: Option<String>,
    /// Namespaces whose ingresses count; `None` = all.
    pub namespaces: Option<BTreeSet<String>>,
    /// Cluster names that count; `None` = all.
    pub clusters: Option<BTreeSet<String>>,
    /// Ranges that an address must be in; empty = all public ones.
    pub allowed: Vec<Cidr>,
    /// Virtual network of the origins, which makes private addresses reachable.
    pub virtual_network: Option<String>,
    /// `Host` header of health checks and requests to the origins.
    pub host_header: Option<String>,
    /// Monitor to attach to our pools.
    pub monitor: Option<String>,
    /// Monitors that we made for earlier settings; pools change from them to `monitor`.
    pub old_monitors: BTreeSet<String>,
    /// Whether traffic goes through Cloudflare's proxy.
    pub proxied: bool,
    /// Time to live in seconds, where it is not proxied.
    pub ttl: u32,
    /// Steering policy of a new load balancer.
    pub steering: String,
    /// Pool for when all others are down.
    pub fallback_pool: Option<String>,
    /// Whether weights, header, monitor, steering and proxying are set back when somebody changed them.
    pub enforce: bool,
    /// What becomes of an empty pool.
    pub on_empty: OnEmpty,
    /// Whether a pool is shared on purpose with other clusters of the same name and location.
    pub shared_pool: bool,
}

/// One origin of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Its name, unique in the pool.
    pub name: String,
    /// IP address or host name.
    pub address: String,
    /// Whether it gets traffic.
    pub enabled: bool,
    /// Weight in hundredths.
    pub weight: Steps,
    /// Every other field as JSON text, kept as it was.
    pub rest: BTreeMap<String, String>,
}

/// A pool of the account, as far as we need it. What is not here is never written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Identifier.
    pub id: String,
    /// Name, unique in the account.
    pub name: String,
    /// Description; holds our marker.
    pub description: String,
    /// Whether it gets traffic.
    pub enabled: bool,
    /// Latitude in ten-thousandths of a degree.
    pub latitude: Option<Steps>,
    /// Longitude in ten-thousandths of a degree.
    pub longitude: Option<Steps>,
    /// Monitor.
    pub monitor: Option<String>,
    /// Origins in their order.
    pub origins: Vec<Origin>,
}

/// The load balancer, as far as we need it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Balancer {
    /// Identifier.
    pub id: String,
    /// Its hostname.
    pub name: String,
    /// Pools in order of preference where nothing else decides.
    pub default_pools: Vec<String>,
    /// Pool for when all others are down.
    pub fallback_pool: Option<String>,
    /// Whether it is proxied.
    pub proxied: bool,
    /// Steering policy.
    pub steering: String,
    /// Time to live in seconds; `None` where the API tells none.
    pub ttl: Option<u32>,
}

/// Fields of a pool to set; `None` = leave as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PoolChange {
    /// Description.
    pub description: Option<String>,
    /// Whether it gets traffic.
    pub enabled: Option<bool>,
    /// Latitude and longitude, which only go together.
    pub coordinates: Option<(Steps, Steps)>,
    /// Monitor.
    pub monitor: Option<String>,
    /// All origins.
    pub origins: Option<Vec<Origin>>,
}

/// Fields of the load balancer to set; `None` = leave as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct BalancerChange {
    /// Pools.
    pub default_pools: Option<Vec<String>>,
    /// Fallback pool.
    pub fallback_pool: Option<String>,
    /// Whether it is proxied.
    pub proxied: Option<bool>,
    /// Steering policy.
    pub steering: Option<String>,
    /// Time to live.
    pub ttl: Option<u32>,
}

impl BalancerChange {
    /// Whether it sets what all clusters' settings should agree on: proxying, steering, time to live.
    pub fn sets_more_than_pools(&self) -> bool {
        self.proxied.is_some() || self.steering.is_some() || self.ttl.is_some()
    }
}

/// A call that a pass needs done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Call {
    /// All pools of the account.
    ListPools,
    /// All load balancers of the zone.
    ListBalancers,
    /// One pool.
    GetPool(String),
    /// One load balancer.
    GetBalancer(String),
    /// Who uses a pool.
    References(String),
    /// A new pool; its `id` is empty.
    CreatePool(Pool),
    /// Changes a pool: identifier, fields.
    PatchPool(String, PoolChange),
    /// Deletes a pool.
    DeletePool(String),
    /// A new load balancer; its `id` is empty.
    CreateBalancer(Balancer),
    /// Changes the load balancer: identifier, fields.
    PatchBalancer(String, BalancerChange),
}

impl Call {
    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        !matches!(
            self,
            Self::ListPools
                | Self::ListBalancers
                | Self::GetPool(_)
                | Self::GetBalancer(_)
                | Self::References(_)
        )
    }
}

/// What a call brought.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// All pools.
    Pools(Vec<Pool>),
    /// All load balancers.
    Balancers(Vec<Balancer>),
    /// A pool, as it is after the call.
    Pool(Pool),
    /// The load balancer, as it is after the call.
    Balancer(Balancer),
    /// Users of a pool, one line each.
    References(Vec<String>),
    /// The object is gone.
    Deleted,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallFailure {
    /// How to take it.
    pub kind: FailureKind,
    /// The object does not exist.
    pub missing: bool,
    /// A name or value is taken.
    pub taken: bool,
    /// The credential may not do this.
    pub forbidden: bool,
    /// One line, without secrets and bodies.
    pub reason: String,
}
