//! A small world: two regions, two routers, one account, clients of them, and everything that the onlooker was told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use switchover_agent::adapters::attempts::{Attempts, RetryPolicy, Told};
use switchover_agent::adapters::cloudflare_routes::{MagicRoutes, MagicSettings};
use switchover_agent::adapters::gcp::{
    BackendScope, Compute, GcpError, GcpSettings, InstanceHealth, Overrides, RegionAnswer, RouterPlace,
    Steered, WantedPrefix,
};
use switchover_agent::config::Secret;
use switchover_agent::lab::compute::{self, Cloud};
use switchover_agent::lab::front::Front;
use switchover_agent::lab::magic_transit::{self, MagicAccount};
use switchover_agent::rules::breaker::{BreakerChange, BreakerSettings};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub const SERVICES: &str = "svc-project";
pub const NETWORK: &str = "net-project";
pub const EAST: &str = "us-east4";
pub const WEST: &str = "us-west1";
pub const OTHER: &str = "10.99.0.0/16";
pub const PRIMARY: &str = "192.0.2.0/24";
pub const SECONDARY: &str = "198.51.100.0/24";
pub const FILTER: &str = "CF-DEV-C";

/// Everything that the onlooker was told.
pub type Heard = Arc<Mutex<Vec<Told>>>;

pub struct Bench {
    pub cloud: Front<Cloud>,
    pub compute: Compute,
    pub attempts: Attempts,
    pub heard: Heard,
    pub stop: CancellationToken,
}

pub fn policy(retries: u32, total: u64) -> RetryPolicy {
    RetryPolicy {
        retries,
        initial: Duration::from_secs(1),
        max: Duration::from_secs(60),
        total: Duration::from_secs(total),
        jitter: false,
    }
}

pub fn settings() -> GcpSettings {
    GcpSettings {
        health_retry: policy(5, 50),
        bgp_retry: policy(4, 50),
        update_retry: policy(2, 60),
        ..GcpSettings::new("")
    }
}

pub fn attempts(breaker: BreakerSettings) -> (Attempts, Heard, CancellationToken) {
    let (heard, stop) = (Heard::default(), CancellationToken::new());
    let ears = Arc::clone(&heard);
    let onlooker = Arc::new(move |told| ears.lock().unwrap().push(told));
    (Attempts::new(breaker, stop.clone(), onlooker), heard, stop)
}

/// Local router with `OTHER` and `PRIMARY`, remote one with `SECONDARY`; a service with three groups in each region.
pub fn cloud() -> Cloud {
    let mut cloud = Cloud::new();
    for region in [EAST, WEST] {
        let groups: Vec<String> = (0..3).map(|n| group(region, n)).collect();
        let groups: Vec<(&str, usize)> = groups.iter().map(|group| (group.as_str(), 2)).collect();
        cloud.add_service(SERVICES, region, "edge", &groups);
    }
    cloud.add_router(&east_router(), &[OTHER, PRIMARY], &["peer-a", "peer-b"]);
    cloud.add_router(&west_router(), &[SECONDARY], &["peer-c", "peer-d"]);
    cloud
}

pub fn group(region: &str, n: usize) -> String {
    format!("https://www.googleapis.com/compute/v1/projects/svc-project/zones/{region}-a/instanceGroups/g{n}")
}

pub fn east_router() -> RouterPlace {
    place(EAST, "router-east")
}

pub fn west_router() -> RouterPlace {
    place(WEST, "router-west")
}

fn place(region: &str, name: &str) -> RouterPlace {
    RouterPlace { project: NETWORK.to_owned(), region: region.to_owned(), name: name.to_owned() }
}

pub fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(300)
}

pub fn wanted(primary: bool, secondary: bool) -> [WantedPrefix; 2] {
    [(PRIMARY, primary), (SECONDARY, secondary)]
        .map(|(prefix, announce)| WantedPrefix { prefix: prefix.parse().unwrap(), announce })
}

impl Bench {
    pub fn new() -> Self {
        Self::with(cloud(), settings(), BreakerSettings::default())
    }

    pub fn with(cloud: Cloud, settings: GcpSettings, breaker: BreakerSettings) -> Self {
        let cloud = Front::new(cloud);
        let (attempts, heard, stop) = attempts(breaker);
        let compute = compute::connect(&cloud, settings, attempts.clone());
        Self { cloud, compute, attempts, heard, stop }
    }

    pub async fn east(&self) -> Result<RegionAnswer, GcpError> {
        self.compute.backend_health(&scope(EAST), deadline()).await
    }

    pub async fn steer(&self, primary: bool, secondary: bool) -> Result<Steered, GcpError> {
        let wanted = wanted(primary, secondary);
        self.compute.steer(&east_router(), &wanted, Overrides::Refuse, deadline()).await
    }

    pub fn listed(&self) -> Vec<String> {
        self.cloud.with(|cloud| cloud.listed(&east_router()))
    }
}

pub fn scope(region: &str) -> BackendScope {
    BackendScope { project: SERVICES.to_owned(), region: region.to_owned(), filter: None }
}

/// Answers of all groups, in order.
pub fn groups(region: &RegionAnswer) -> Vec<&Result<Vec<InstanceHealth>, GcpError>> {
    region.services.iter().flat_map(|service| &service.groups).map(|group| &group.health).collect()
}

/// Whether every instance of every group is healthy.
pub fn all_healthy(region: &RegionAnswer) -> bool {
    groups(region).iter().all(|group| {
        let instances = group.as_ref().unwrap();
        !instances.is_empty() && instances.iter().all(|instance| instance.state == "HEALTHY")
    })
}

/// Waits between attempts, in seconds.
pub fn waits(heard: &Heard) -> Vec<u64> {
    let wait = |told: &Told| match told {
        Told::Retry { wait, .. } => Some(wait.as_secs()),
        _ => None,
    };
    heard.lock().unwrap().iter().filter_map(wait).collect()
}

/// What became of breakers: target and word.
pub fn changes(heard: &Heard) -> Vec<(String, &'static str)> {
    let change = |told: &Told| match told {
        Told::Breaker { target, change, .. } => Some((target.clone(), BreakerChange::word(*change))),
        _ => None,
    };
    heard.lock().unwrap().iter().filter_map(change).collect()
}

pub struct Magic {
    pub account: Front<MagicAccount>,
    pub routes: MagicRoutes,
    pub heard: Heard,
    pub ids: Vec<String>,
}

/// The four routes of A29.
pub fn magic() -> Magic {
    let mut account = MagicAccount::new();
    let ids = vec![
        account.add(PRIMARY, "10.1.0.1", 200, Some("CF-DEV-C a")),
        account.add(PRIMARY, "10.1.0.2", 200, Some("cf-dev-c b")),
        account.add(PRIMARY, "10.1.0.3", 200, None),
        account.add(PRIMARY, "10.1.0.4", 100, Some("CF-DEV-C d")),
    ];
    account.routes[0]["scope"] = serde_json::json!({"colo_regions": ["ENAM"]});
    account.routes[0]["weight"] = serde_json::json!(10);
    let account = Front::new(account);
    let (attempts, heard, _) = attempts(BreakerSettings::default());
    let settings =
        MagicSettings { retry: policy(3, 50), ..MagicSettings::new("", Secret::default(), "", FILTER) };
    let routes = magic_transit::connect(&account, settings, attempts).unwrap();
    Magic { account, routes, heard, ids }
}
