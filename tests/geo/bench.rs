//! One instance without its task: ingresses in, a pass against the simulated account, a report out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use switchover_agent::adapters::cloudflare::Cloudflare;
use switchover_agent::config::geo::{GeoSettings, read};
use switchover_agent::config::{Problem, Reader};
use switchover_agent::lab::cloudflare::{Account, Server};
use switchover_agent::lab::geo_scenario::environment;
use switchover_agent::rules::geo::pass::{Input, Pass, Report, wanted};
use switchover_agent::rules::geo::select::{Ingress, select};
use switchover_agent::tasks::geo_sync::{Driver, GeoHealth};
use switchover_agent::tasks::jitter::Jitter;

pub const HOST: &str = switchover_agent::lab::geo_scenario::HOST;
pub const POOL: &str = "k8s-pool-c1-eu";

pub async fn account() -> Server {
    Server::start(Account::new("x.test")).await.unwrap()
}

pub fn settings(
    base: &str,
    location: &str,
    owner: &str,
    more: &[(&str, &str)],
) -> Result<GeoSettings, Vec<String>> {
    let env = environment(base, location, owner, more);
    let mut reader = Reader::new(&env);
    let settings = read(&mut reader);
    let problems: Vec<String> = reader.into_problems().iter().map(Problem::to_string).collect();
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

pub struct Instance {
    pub settings: GeoSettings,
    pub cloudflare: Cloudflare,
}

impl Instance {
    pub fn new(server: &Server, location: &str, owner: &str, more: &[(&str, &str)]) -> Self {
        let mut settings = settings(&server.base(), location, owner, more).unwrap();
        settings.cloudflare.backoff = (Duration::from_millis(1), Duration::from_millis(5));
        settings.verify = Duration::from_millis(1);
        let cloudflare = Cloudflare::new(settings.cloudflare.clone(), &Registry::new()).unwrap();
        Self { settings, cloudflare }
    }

    pub fn eu(server: &Server) -> Self {
        Self::new(server, "eu", "owner-a", &[])
    }

    pub async fn pass(&self, ingresses: &[Ingress]) -> Report {
        self.pass_due(ingresses, &[]).await
    }

    pub async fn pass_due(&self, ingresses: &[Ingress], due: &[&str]) -> Report {
        let policy = Arc::new(self.settings.policy.clone());
        let selected = select(&policy, &BTreeSet::new(), ingresses);
        let input = Input {
            wanted: wanted(&policy, &selected.clusters),
            due: due.iter().map(|name| (*name).to_owned()).collect(),
            dry_run: self.settings.dry_run,
        };
        let mut pass = Pass::new(policy, Arc::new(input));
        let (mut jitter, health) = (Jitter::new(Some(1)), GeoHealth::default());
        let mut driver = Driver {
            cloudflare: &self.cloudflare,
            place: &self.settings.place,
            verify: self.settings.verify,
            jitter: &mut jitter,
            health: &health,
        };
        driver.drive(&mut pass).await;
        pass.report().clone()
    }
}

pub fn ingress(cluster: &str, addresses: &[&str]) -> Ingress {
    Ingress {
        namespace: "web".into(),
        name: format!("{cluster}-{}", addresses.join("-")),
        uid: "u".into(),
        cluster: Some(cluster.into()),
        deleting: false,
        addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
    }
}

pub fn addresses(server: &Server, pool: &str) -> Vec<String> {
    server.with(|account| {
        let origins = account.pool(pool).map(|pool| pool["origins"].as_array().unwrap().clone());
        origins.unwrap_or_default().iter().map(|o| o["address"].as_str().unwrap().to_owned()).collect()
    })
}

/// Waits until it is true; a minute is the last resort.
pub async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The sum of a metric's samples, of those with this label's value where one is given.
pub fn metric_of(registry: &Registry, name: &str, label: Option<&str>) -> f64 {
    let families = registry.gather();
    let samples =
        families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
    let wanted =
        samples.filter(|it| label.is_none_or(|label| it.get_label().iter().any(|l| l.value() == label)));
    wanted.map(|it| it.get_counter().get_value() + it.get_gauge().get_value()).sum()
}

/// The sum of a metric's samples.
pub fn metric(registry: &Registry, name: &str) -> f64 {
    metric_of(registry, name, None)
}
