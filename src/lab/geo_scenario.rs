//! The geo load balancer in the lab: four clusters join, one dies, one empties and returns.
//!
//! Owns a simulated cluster with the real task `geo_sync` in it, and the story. Every step waits for what must be
//! true then and fails loudly where it does not come true. Nothing here is used by a running agent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cloudflare::{ACCOUNT, Account, Server, TOKEN, ZONE};
use super::{SiteHandle, World, WorldSettings};
use crate::adapters::kube::{Kube, PatchKind};
use crate::bus::Bus;
use crate::config::{Problem, Reader, geo, kube};
use crate::model::{Event, Side};
use crate::tasks::geo_sync::{self, GeoHealth};
use crate::tasks::{Ctx, Exit};

/// Name of the load balancer in the lab.
pub const HOST: &str = "app.x.test";
/// Longest wait for one step of the story.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Namespace of the ingresses.
const NAMESPACE: &str = "web";

/// Why the lab gave up.
#[derive(Debug, thiserror::Error)]
#[error("geo lab: {0}")]
pub struct GeoLabError(pub String);

fn broken(what: &str) -> impl Fn(&dyn std::fmt::Display) -> GeoLabError {
    move |error| GeoLabError(format!("{what}: {error}"))
}

/// The environment of a cluster in the lab; `more` wins.
pub fn environment(
    base: &str,
    location: &str,
    owner: &str,
    more: &[(&str, &str)],
) -> BTreeMap<String, String> {
    let usual = [
        (geo::API_TOKEN, TOKEN),
        (geo::ACCOUNT_ID, ACCOUNT),
        (geo::ZONE_ID, ZONE),
        (geo::API_BASE, base),
        (geo::LOCATION, location),
        (geo::LB_HOSTNAME, HOST),
        (geo::OWNER, owner),
        (geo::RESYNC, "1"),
        (geo::DEBOUNCE, "0.02"),
        (geo::VERIFY, "0.02"),
        (geo::EMPTY_GRACE, "0.3"),
        (geo::RATE_BUDGET, "1200"),
        (kube::NAMESPACE, NAMESPACE),
        (kube::HEALTH_NAMESPACE, NAMESPACE),
    ];
    usual.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A simulated cluster, and the task if it runs.
pub struct Cluster {
    /// Its name, the label of its ingresses.
    pub name: String,
    /// Its simulated Kubernetes API.
    pub world: World,
    /// A client of that API.
    pub kube: Kube,
    /// The task's metrics.
    pub registry: Arc<Registry>,
    /// The task's health.
    pub health: Arc<GeoHealth>,
    env: BTreeMap<String, String>,
    _site: Arc<SiteHandle>,
    running: Option<(CancellationToken, JoinHandle<Exit>, tokio::sync::mpsc::Receiver<Event>)>,
}

impl Cluster {
    /// A cluster without ingresses whose task does not run yet.
    ///
    /// # Errors
    /// Where a socket or a setting is of no use.
    pub async fn new(name: &str, env: BTreeMap<String, String>) -> Result<Self, GeoLabError> {
        let world = World::new(WorldSettings { namespace: NAMESPACE.to_owned(), ..WorldSettings::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| broken("socket")(&e))?;
        let site = world.serve(Side::Active, listener).map_err(|e| broken("simulated cluster")(&e))?;
        let mut env = env;
        env.insert(kube::API_URL.to_owned(), format!("{}/k8s", site.url()));
        let registry = Arc::new(Registry::new());
        let settings = kube::read(&mut Reader::new(&env), "dev", true);
        let kube = Kube::connect(settings, &registry).await.map_err(|e| broken("client")(&e))?;
        let health = Arc::new(GeoHealth::default());
        let name = name.to_owned();
        Ok(Self { name, world, kube, registry, health, env, _site: Arc::new(site), running: None })
    }

    /// Another replica of the task in the same cluster; it does not run yet.
    ///
    /// # Errors
    /// Where a setting is of no use.
    pub async fn replica(&self) -> Result<Self, GeoLabError> {
        let registry = Arc::new(Registry::new());
        let settings = kube::read(&mut Reader::new(&self.env), "dev", true);
        let kube = Kube::connect(settings, &registry).await.map_err(|e| broken("client")(&e))?;
        Ok(Self {
            name: self.name.clone(),
            world: self.world.clone(),
            kube,
            registry,
            health: Arc::new(GeoHealth::default()),
            env: self.env.clone(),
            _site: Arc::clone(&self._site),
            running: None,
        })
    }

    /// The environment that a real agent of this cluster would have.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The address of its Kubernetes API.
    pub fn api(&self) -> &str {
        self.env.get(kube::API_URL).map_or("", String::as_str)
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// The section as the task gets it.
    ///
    /// # Errors
    /// All problems of the settings.
    pub fn settings(&self) -> Result<geo::GeoSettings, GeoLabError> {
        let mut reader = Reader::new(&self.env);
        let mut settings = geo::read(&mut reader);
        let problems: Vec<String> = reader.into_problems().iter().map(Problem::to_string).collect();
        if !problems.is_empty() {
            return Err(GeoLabError(problems.join("; ")));
        }
        // The lab's clock runs faster than the world's.
        settings.watch_backoff = (LOOK, 20 * LOOK);
        settings.cloudflare.backoff = (LOOK / 4, 5 * LOOK);
        if let Some(lease) = &mut settings.lease {
            (lease.duration_seconds, lease.renew, lease.give_up) = (2, 15 * LOOK, 60 * LOOK);
        }
        Ok(settings)
    }

    /// Starts the task.
    ///
    /// # Errors
    /// Where a setting is wrong.
    pub fn start(&mut self) -> Result<(), GeoLabError> {
        let (bus, events) = Bus::new();
        let cancel = CancellationToken::new();
        let ctx = Ctx { cancel: cancel.clone(), bus, registry: Arc::clone(&self.registry) };
        let task = geo_sync::run(ctx, self.settings()?, self.kube.clone(), Arc::clone(&self.health));
        self.running = Some((cancel, tokio::spawn(task), events));
        Ok(())
    }

    /// Stops the task, as SIGTERM does; gives how it ended.
    pub async fn stop(&mut self) -> Option<Exit> {
        let (cancel, task, _events) = self.running.take()?;
        cancel.cancel();
        task.await.ok()
    }

    /// Waits until the task ends by itself.
    pub async fn ended(&mut self) -> Option<Exit> {
        let (_cancel, task, _events) = self.running.take()?;
        task.await.ok()
    }

    /// Kills the task in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some((_, task, _)) = self.running.take() {
            task.abort();
        }
    }

    /// Makes or replaces a labelled ingress with these addresses.
    ///
    /// # Errors
    /// What the simulated API says.
    pub async fn publish(&self, name: &str, addresses: &[&str]) -> Result<(), GeoLabError> {
        self.put(name, json!({"dns.external/geo-route": "true", "cluster-name": self.name}), addresses).await
    }

    /// As [`Cluster::publish`], with other labels.
    ///
    /// # Errors
    /// What the simulated API says.
    pub async fn put(&self, name: &str, labels: Value, addresses: &[&str]) -> Result<(), GeoLabError> {
        let entry = |text: &&str| {
            let ip = text.parse::<std::net::IpAddr>().is_ok();
            if ip { json!({ "ip": text }) } else { json!({ "hostname": text }) }
        };
        let entries: Vec<Value> = addresses.iter().map(entry).collect();
        let body = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
            "spec": {}, "status": {"loadBalancer": {"ingress": entries}},
        });
        let path = collection();
        let one = format!("{path}/{name}");
        let done = match self.kube.get_json(&one).await {
            Ok(_) => self.kube.patch(&one, PatchKind::Merge, &body).await,
            Err(_) => self.kube.create(&path, &body).await,
        };
        done.map(|_| ()).map_err(|e| broken("ingress")(&e))
    }

    /// Makes so many labelled ingresses at once, with one of these addresses each.
    pub fn crowd(&self, count: usize, addresses: &[&str]) {
        let labels = json!({"dns.external/geo-route": "true", "cluster-name": self.name});
        self.world.with(Side::Active, |site, _| {
            for (number, address) in addresses.iter().cycle().take(count).enumerate() {
                let object = json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                    "metadata": {"name": format!("i{number}"), "namespace": NAMESPACE, "labels": labels},
                    "spec": {}, "status": {"loadBalancer": {"ingress": [{ "ip": address }]}},
                });
                site.store.put("ingresses", object);
            }
        });
    }

    /// Forgets the API server's history, as a compaction of etcd does.
    pub fn compact(&self) {
        self.world.with(Side::Active, |site, _| site.store.compact());
    }

    /// Deletes an ingress.
    ///
    /// # Errors
    /// What the simulated API says.
    pub async fn withdraw(&self, name: &str) -> Result<(), GeoLabError> {
        let done = self.kube.delete(&format!("{}/{name}", collection())).await;
        done.map(|_| ()).map_err(|e| broken("ingress")(&e))
    }
}

fn collection() -> String {
    format!("/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses")
}

/// Waits until the account is as it must be.
///
/// # Errors
/// Says what was awaited, and what there was instead.
pub async fn until(
    server: &Server,
    what: &str,
    mut holds: impl FnMut(&Account) -> bool,
) -> Result<(), GeoLabError> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if server.with(|account| holds(account)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    let found = server.with(|account| account.fingerprint());
    Err(GeoLabError(format!("never came true: {what}; the account: {found}")))
}

fn enabled(account: &Account, pool: &str) -> bool {
    account.pool(pool).is_some_and(|pool| pool["enabled"] == json!(true))
}

/// Plays the story and gives the number of steps. Each is told as it comes true: milliseconds from the beginning, and
/// what it is.
///
/// # Errors
/// At the first step that does not come true.
pub async fn run(mut tell: impl FnMut(u128, &str)) -> Result<usize, GeoLabError> {
    let began = Instant::now();
    let mut steps = 0;
    let mut note = |what: &str| {
        steps += 1;
        tell(began.elapsed().as_millis(), what);
    };
    let server = Server::start(Account::new("x.test")).await.map_err(|e| broken("simulated API")(&e))?;
    let places = ["eu", "us_east", "us_west", "asia"];
    let pools = places.map(|place| format!("k8s-pool-c-{place}-{place}"));
    let mut clusters = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let env = environment(&server.base(), place, &format!("owner-{place}"), &[]);
        let mut cluster = Cluster::new(&format!("c-{place}"), env).await?;
        cluster.publish("web", &[&format!("203.0.113.{}", number + 1)]).await?;
        cluster.start()?;
        clusters.push(cluster);
    }
    let all = |account: &Account| {
        let list = account.default_pools(HOST);
        list.len() == 4 && pools.iter().all(|pool| list.contains(pool))
    };
    until(&server, "all four pools are in the load balancer", all).await?;
    note("four clusters joined at the same moment: one load balancer with four pools");

    clusters[1].kill();
    clusters[0].publish("web", &["203.0.113.50"]).await?;
    let moved = |account: &Account| {
        account.pool(&pools[0]).is_some_and(|pool| {
            pool["origins"].as_array().is_some_and(|list| list.len() == 1)
                && pool["origins"][0]["address"] == "203.0.113.50"
        })
    };
    until(&server, "the new address replaced the old one", moved).await?;
    require(&server, "a dead cluster's pool stays: nobody else may judge it", all)?;
    note("one cluster died: its pool stays as it was; another one's address was replaced");

    clusters[2].withdraw("web").await?;
    until(&server, "the empty pool is disabled", |account| !enabled(account, &pools[2])).await?;
    require(&server, "a disabled pool stays listed", all)?;
    note("one cluster emptied: its pool is disabled after the grace period");

    clusters[2].publish("web", &["203.0.113.3"]).await?;
    until(&server, "the pool is enabled again", |account| enabled(account, &pools[2])).await?;
    note("it returned: its pool is enabled again");

    clusters[1].publish("web", &["203.0.113.99"]).await?;
    clusters[1].start()?;
    let back = |account: &Account| {
        account.pool(&pools[1]).is_some_and(|pool| pool["origins"][0]["address"] == "203.0.113.99")
    };
    until(&server, "the returned cluster published its new address", back).await?;
    note("the dead cluster came back with a new address");

    quiet(&server, &mut clusters).await?;
    note("a whole resync of all four changed nothing");
    Ok(steps)
}

fn require(server: &Server, what: &str, holds: impl FnOnce(&Account) -> bool) -> Result<(), GeoLabError> {
    if server.with(|account| holds(account)) { Ok(()) } else { Err(GeoLabError(format!("not true: {what}"))) }
}

/// Restarts the clusters, waits until each has looked, and refuses any write.
async fn quiet(server: &Server, clusters: &mut [Cluster]) -> Result<(), GeoLabError> {
    let end = Instant::now() + PATIENCE;
    loop {
        for cluster in &mut *clusters {
            cluster.stop().await;
        }
        server.forget();
        for cluster in &mut *clusters {
            cluster.start()?;
        }
        let lists = || server.seen().iter().filter(|call| call.target.ends_with("/pools")).count();
        while lists() < 2 * clusters.len() && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
        if server.writes().is_empty() && lists() >= 2 * clusters.len() {
            break;
        }
        if Instant::now() >= end {
            return Err(GeoLabError(format!("writes do not end: {:?}", server.writes())));
        }
    }
    for cluster in clusters {
        cluster.stop().await;
    }
    Ok(())
}
