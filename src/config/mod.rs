//! Settings: where they come from, what they are called, what is wrong with them.
//!
//! One file per section; each reads through [`lookup::Reader`], so that all problems of all sections are reported at
//! once. Nothing here contacts anything.

pub mod anycast;
pub mod bgp;
pub mod dns;
pub mod geo;
pub mod http;
pub mod journal;
pub mod kube;
pub mod log;
pub mod lookup;
pub mod patroni;
pub mod peer;
pub mod portal;
pub mod safety;
pub mod site;
pub mod tekton;
pub mod witness;

use std::fmt;

pub use lookup::{Layered, Lookup, Problem, ProcessEnv, Reader, Secret};

use crate::model::Wall;
use crate::rules::policy::{DnsPolicy, PipelinePolicy, Policy, SafetyPolicy};
use crate::tasks::TaskName;

/// All settings of an agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// Site, tasks, automation.
    pub site: site::SiteSettings,
    /// Kubernetes.
    pub kube: kube::KubeSettings,
    /// DNS.
    pub dns: dns::DnsSettings,
    /// Patroni.
    pub patroni: patroni::PatroniSettings,
    /// Deployment pipeline.
    pub tekton: tekton::TektonSection,
    /// Times and limits of the guards.
    pub safety: SafetyPolicy,
    /// Witness and application.
    pub observers: witness::ObserverSettings,
    /// Maintenance portal; `None` = none.
    pub portal: Option<portal::PortalSettings>,
    /// Peer link; `None` where no peer task runs.
    pub peer: Option<peer::PeerSettings>,
    /// Geo load balancing; `None` where `geo_sync` does not run.
    pub geo: Option<geo::GeoSettings>,
    /// HTTP interface.
    pub http: http::HttpSettings,
    /// Journal.
    pub journal: journal::JournalSettings,
    /// Logs.
    pub log: log::LogSettings,
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} problem(s) in the settings:", self.0.len())?;
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Config {
    /// Reads and checks everything. `now` is for the validity of certificates.
    ///
    /// # Errors
    /// All problems at once.
    pub fn read(lookup: &dyn Lookup, now: Wall) -> Result<Self, Problems> {
        let mut reader = Reader::new(lookup);
        let mut site = site::read(&mut reader);
        let observers = read_observers(&mut reader, &mut site);
        let on = |task: TaskName| site.tasks.contains(&task);
        let engine = on(TaskName::LogicHandler);
        let uses_peer =
            [TaskName::PeerServer, TaskName::PeerClient, TaskName::PeerClientFwd].into_iter().any(on);
        let uses_kube =
            [TaskName::LogicHandler, TaskName::KubeWatch, TaskName::TektonWatch, TaskName::GeoSync]
                .into_iter()
                .any(on);
        let uses_patroni = on(TaskName::PatroniWorker) || engine;
        let dns = dns::read(&mut reader, on(TaskName::DnsWatch));
        let config = Self {
            kube: kube::read(&mut reader, &site.environment, uses_kube),
            safety: safety::read(
                &mut reader,
                site.automation,
                site.fence_old_primary,
                observers.witness.is_some(),
                dns.poll_ms,
            ),
            dns,
            observers,
            patroni: patroni::read(&mut reader, uses_patroni),
            tekton: tekton::read(&mut reader),
            portal: portal::read(&mut reader),
            peer: uses_peer.then(|| peer::PeerSettings::read(&mut reader, true, now)),
            geo: on(TaskName::GeoSync).then(|| geo::read(&mut reader)),
            http: http::read(&mut reader),
            journal: journal::read(&mut reader, engine),
            log: log::read(&mut reader),
            site,
        };
        let problems = reader.into_problems();
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }

    /// What the engine is told. `instance` names this process.
    pub fn policy(&self, instance: &str) -> Policy {
        let pipeline = &self.tekton.pipeline;
        Policy {
            site: self.site.site.clone(),
            side: self.site.side,
            instance: instance.to_owned(),
            automation: self.site.automation,
            dns: DnsPolicy {
                active: self.dns.active.clone(),
                passive: self.dns.passive.clone(),
                quorum: self.dns.quorum,
                agree_samples: self.dns.agree_samples,
                agree_ms: self.dns.agree_ms,
            },
            gate: self.site.gate,
            database_peer: self.patroni.peer_host.clone(),
            pipeline: self.tekton.trigger.as_ref().map(|_| PipelinePolicy {
                retry_interval_ms: pipeline.retry_interval_ms,
                attempt_timeout_ms: pipeline.attempt_timeout_ms,
                max_retries: pipeline.max_retries,
                total_cap_ms: pipeline.total_cap_ms,
            }),
            release: self.kube.namespace.clone(),
            portal: self.portal.is_some(),
            routes: false,
            promote_first: self.site.promote_first,
            fence_old_primary: self.site.fence_old_primary,
            health_replicas: self.site.health_replicas,
            database_replicas: self.site.database_replicas,
            application_replicas: self.site.application_replicas,
            consent_ms: self.site.consent_ms,
            fresh_ms: self.site.fresh_ms,
            automation_pause_ms: self.site.automation_pause_ms,
            safety: self.safety.clone(),
        }
    }

    /// Sentences for the log at start: settings that work and are dangerous.
    pub fn warnings(&self) -> Vec<String> {
        let peer = self.peer.iter().flat_map(|peer| peer.warnings.clone());
        self.site.warnings.iter().chain(&self.tekton.warnings).cloned().chain(peer).collect()
    }
}

/// The observers, and with them the task that asks them.
fn read_observers(reader: &mut Reader<'_>, site: &mut site::SiteSettings) -> witness::ObserverSettings {
    let observers = witness::read(reader, &site.environment);
    if !observers.is_empty() && site.tasks.contains(&TaskName::LogicHandler) {
        site.tasks.insert(TaskName::SensorWatch);
    } else if observers.is_empty() && site.tasks.contains(&TaskName::SensorWatch) {
        let want =
            format!("{} or {} beside sensor_watch", witness::WITNESS_URL, witness::APPLICATION_HEALTH_URL);
        reader.problem(site::PROCESS_LIST, Some("sensor_watch"), want);
    }
    observers
}
