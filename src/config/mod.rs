//! Settings: where they come from, what they are called, what is wrong with them.
//!
//! One file per section; each reads through [`lookup::Reader`], so that all problems of all sections are reported at
//! once. Nothing here contacts anything.

pub mod anycast;
pub mod bgp;
pub mod dns;
pub mod env_file;
pub mod faults;
pub mod geo;
pub mod http;
pub mod journal;
pub mod kube;
pub mod lease;
pub mod log;
pub mod lookup;
pub mod patroni;
pub mod peer;
pub mod portal;
pub mod recorder;
pub mod routes;
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
    /// The Lease that decides which of several agents acts; `None` = there is one agent.
    pub lease: Option<lease::LeaseSettings>,
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
    /// Route steering; `None` where `route_watch` does not run.
    pub routes: Option<routes::RouteSettings>,
    /// Anycast services; `None` where `anycast` does not run.
    pub anycast: Option<anycast::settings::AnycastSettings>,
    /// HTTP interface.
    pub http: http::HttpSettings,
    /// Journal.
    pub journal: journal::JournalSettings,
    /// Logs.
    pub log: log::LogSettings,
    /// Recording of events; `None` = nothing is recorded.
    pub recorder: Option<recorder::RecorderSettings>,
    /// What is broken on purpose.
    pub faults: faults::FaultSettings,
}

/// Exit code for settings that cannot work (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIG: u8 = 78;

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// One for each thing that is wrong.
    pub problems: Vec<Problem>,
    /// What the process should exit with: the predecessor's code where only its file is wrong.
    pub exit_code: u8,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} problem(s) in the settings:", self.problems.len())?;
        for problem in &self.problems {
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
        let mut source = anycast::settings::Source::find(&Reader::new(lookup));
        if source.is_none() && site::names_anycast(&Reader::new(lookup)) {
            source = Some(anycast::settings::Source::usual());
        }
        let of_file =
            source.as_mut().map(|source| std::mem::take(&mut source.environment)).unwrap_or_default();
        let layers = Layered(vec![lookup, &of_file]);
        let mut reader = Reader::new(&layers);
        let mut site =
            site::read(&mut reader, source.as_ref().is_some_and(|source| source.anycast.is_some()));
        let observers = read_observers(&mut reader, &mut site);
        let on = |task: TaskName| site.tasks.contains(&task);
        let engine = on(TaskName::LogicHandler);
        let uses_peer =
            [TaskName::PeerServer, TaskName::PeerClient, TaskName::PeerClientFwd].into_iter().any(on);
        // `geo_sync` looks at all namespaces and needs none of these names.
        let names_needed =
            [TaskName::LogicHandler, TaskName::KubeWatch, TaskName::TektonWatch].into_iter().any(on);
        let uses_patroni = on(TaskName::PatroniWorker) || engine;
        let dns = dns::read(&mut reader, on(TaskName::DnsWatch));
        let kube = kube::read(&mut reader, &site.environment, names_needed);
        let mut config = Self {
            lease: lease::read_agent(&mut reader, &site.environment, &kube.health_namespace, engine),
            kube,
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
            routes: on(TaskName::RouteWatch).then(|| routes::read(&mut reader, site.side)),
            anycast: None,
            http: http::read(&mut reader, site.tasks.iter().all(|task| *task == TaskName::Anycast)),
            journal: journal::read(&mut reader, engine),
            log: log::read(&mut reader),
            recorder: recorder::read(&mut reader),
            faults: faults::read(&mut reader),
            site,
        };
        let path = source.as_ref().map(|source| source.path.clone()).unwrap_or_default();
        let file = config.read_anycast(&mut reader, source);
        let mut problems = reader.into_problems();
        let exit_code = match &file {
            Err(error) if problems.is_empty() => error.exit_code(),
            _ => EXIT_CONFIG,
        };
        match file {
            Err(error) => problems.splice(..0, error.problems(&path)).for_each(drop),
            Ok(settings) => config.anycast = settings,
        }
        if problems.is_empty() { Ok(config) } else { Err(Problems { problems, exit_code }) }
    }

    /// The anycast section, where that task runs.
    fn read_anycast(
        &mut self,
        reader: &mut Reader<'_>,
        source: Option<anycast::settings::Source>,
    ) -> Result<Option<anycast::settings::AnycastSettings>, anycast::LoadError> {
        let Some(source) = source else { return Ok(None) };
        if self.site.tasks.contains(&TaskName::Anycast) {
            let path = source.path.clone();
            let settings = anycast::settings::read(reader, source)?;
            if settings.is_none() {
                let want = format!("{} has no services for the task anycast", path.display());
                reader.problem(anycast::settings::CONFIG, Some(&path.display().to_string()), want);
            }
            return Ok(settings);
        }
        if source.anycast.transpose()?.is_some() {
            let (path, list) = (source.path.display(), site::PROCESS_LIST);
            let text = format!("{path} has services, and {list} does not name anycast: nothing is announced");
            self.site.warnings.push(text);
        }
        Ok(None)
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
            routes: self.routes.is_some(),
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
        let alone = self.site.automation.acts_alone() && self.dns.asks_one_only();
        let alone = alone.then(|| {
            "one resolver alone is believed where the peer says nothing: name several in DNS_RESOLVERS"
                .to_owned()
        });
        let geo = self.geo.iter().flat_map(|geo| geo.warnings.clone());
        let routes = self.routes.iter().flat_map(|routes| routes.warnings.clone());
        let own = self.site.warnings.iter().chain(&self.tekton.warnings).cloned();
        own.chain(peer).chain(geo).chain(routes).chain(alone).collect()
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
