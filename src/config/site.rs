//! Which site this is, which tasks run, how far automation goes, and the numbers that plans use.

use std::collections::BTreeSet;

use super::Reader;
use super::kube::DATABASE_REPLICAS;
use super::routes::clouds::LOCAL_BGP_ROUTER;
use crate::model::{Side, SiteName};
use crate::rules::policy::{Automation, DestructionGate};
use crate::tasks::TaskName;

/// Name of this site; one of `ACTIVE_SITE` and `PASSIVE_SITE`.
pub const KUBE_CLUSTER: &str = "KUBE_CLUSTER";
/// Name of the site that serves on a normal day (default `gold`).
pub const ACTIVE_SITE: &str = "ACTIVE_SITE";
/// Name of the site that stands by on a normal day (default `golddr`).
pub const PASSIVE_SITE: &str = "PASSIVE_SITE";
/// Suffix of object names (`dev`, `test`, `prod`).
pub const ENVIRONMENT: &str = "ENVIRONMENT";
/// Comma list of the tasks that run; only `anycast` where nothing but a file with services is given.
pub const PROCESS_LIST: &str = "PROCESS_LIST";
/// `true` = a lasting change of the global load balancer's answer starts a failover.
pub const AUTOMATION_ENABLED: &str = "AUTOMATION_ENABLED";
/// `witnessed` (default where automation is enabled), `self-fencing` or `advise`.
pub const AUTOMATION_MODE: &str = "AUTOMATION_MODE";
/// Least seconds between two attempts of automation to begin a failover (default 60).
pub const AUTOMATION_PAUSE_SECONDS: &str = "AUTOMATION_PAUSE_SECONDS";
/// `true` = promote and verify before traffic is opened (recommended; default `false`, the predecessor's order).
pub const PROMOTE_FIRST: &str = "PROMOTE_FIRST";
/// `true` = the site that gives up the primary role is made read-only first (recommended; default `false`).
pub const FENCE_OLD_PRIMARY: &str = "FENCE_OLD_PRIMARY";
/// `strict` (default) or `consent`: what must be known before data is deleted.
pub const DESTRUCTION_GATE: &str = "DESTRUCTION_GATE";
/// Replicas of the health deployment where the site is offered to the load balancer (default 2).
pub const HEALTH_REPLICAS: &str = "HEALTH_REPLICAS";
/// Replicas of the application where it runs and no pipeline is configured (default 1).
pub const APPLICATION_REPLICAS: &str = "APPLICATION_REPLICAS";
/// Seconds that the peer has to answer a request for consent (default 30).
pub const CONSENT_TIMEOUT_SECONDS: &str = "CONSENT_TIMEOUT_SECONDS";
/// Facts about a database older than this many seconds are unknown (default 15).
pub const FRESH_SECONDS: &str = "FRESH_SECONDS";

const DEFAULT_PROCESSES: &str =
    "logic_handler,peer_server,peer_client,peer_client_fwd,dns_watch,tick_producer";

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteSettings {
    /// This site.
    pub site: SiteName,
    /// The other site.
    pub peer_site: SiteName,
    /// Side of this site.
    pub side: Side,
    /// Suffix of object names.
    pub environment: String,
    /// Tasks that run.
    pub tasks: BTreeSet<TaskName>,
    /// How far automation goes.
    pub automation: Automation,
    /// Least time between two attempts of automation, in milliseconds.
    pub automation_pause_ms: u64,
    /// `PROMOTE_FIRST`.
    pub promote_first: bool,
    /// `FENCE_OLD_PRIMARY`.
    pub fence_old_primary: bool,
    /// `DESTRUCTION_GATE`.
    pub gate: DestructionGate,
    /// `HEALTH_REPLICAS`.
    pub health_replicas: u32,
    /// `DATABASE_REPLICAS`.
    pub database_replicas: u32,
    /// `APPLICATION_REPLICAS`.
    pub application_replicas: u32,
    /// Time that the peer has to answer, in milliseconds.
    pub consent_ms: u64,
    /// Age from which facts are unknown, in milliseconds.
    pub fresh_ms: u64,
    /// Sentences for the log at start.
    pub warnings: Vec<String>,
}

/// Reads the section.
///
/// `services` = a file with anycast services is given.
pub fn read(reader: &mut Reader<'_>, services: bool) -> SiteSettings {
    let tasks = read_tasks(reader, services);
    let engine = tasks.contains(&TaskName::LogicHandler);
    let (site, peer_site, side) = read_site(reader, engine);
    let environment = if engine {
        reader.required(ENVIRONMENT, "the suffix of object names, such as dev, test or prod")
    } else {
        reader.text_or(ENVIRONMENT, "")
    };
    let automation = read_automation(reader);
    let mut settings = SiteSettings {
        site,
        peer_site,
        side,
        environment,
        tasks,
        automation,
        automation_pause_ms: reader.seconds(AUTOMATION_PAUSE_SECONDS, 60_000, 1.0, 86_400.0),
        promote_first: reader.flag(PROMOTE_FIRST, false),
        fence_old_primary: read_fence(reader, automation),
        gate: read_gate(reader),
        health_replicas: replicas(reader, HEALTH_REPLICAS, 2),
        database_replicas: replicas(reader, DATABASE_REPLICAS, 3),
        application_replicas: replicas(reader, APPLICATION_REPLICAS, 1),
        consent_ms: reader.seconds(CONSENT_TIMEOUT_SECONDS, 30_000, 1.0, 3_600.0),
        fresh_ms: reader.seconds(FRESH_SECONDS, 15_000, 2.0, 600.0),
        warnings: Vec::new(),
    };
    settings.warnings = warnings(&settings);
    settings
}

fn warnings(settings: &SiteSettings) -> Vec<String> {
    let mut warnings = Vec::new();
    if settings.automation == Automation::Witnessed && !settings.fence_old_primary {
        warnings.push(format!(
            "{FENCE_OLD_PRIMARY} is off: after a failover the old database still takes writes until it is rebuilt"
        ));
    }
    if settings.gate == DestructionGate::Consent {
        warnings.push(format!("{DESTRUCTION_GATE}=consent: data is deleted on the peer's word alone"));
    }
    warnings
}

fn replicas(reader: &mut Reader<'_>, name: &str, default: u64) -> u32 {
    u32::try_from(reader.integer(name, default, 1, 100)).unwrap_or(1)
}

/// Whether the list of tasks names the anycast task in so many words.
pub fn names_anycast(reader: &Reader<'_>) -> bool {
    let list = reader.list(PROCESS_LIST).unwrap_or_default();
    list.iter().any(|name| name == TaskName::Anycast.as_str())
}

fn read_tasks(reader: &mut Reader<'_>, services: bool) -> BTreeSet<TaskName> {
    // Whoever gives nothing but a predecessor's file wants that predecessor and no more.
    let is_site = [KUBE_CLUSTER, ENVIRONMENT].into_iter().any(|name| reader.text(name).is_some());
    // The environment of a route-steering predecessor names no site and no processes.
    let only_routes = !is_site && reader.text(LOCAL_BGP_ROUTER).is_some();
    let text = reader.text(PROCESS_LIST).unwrap_or_else(|| match (services, is_site) {
        (true, false) => TaskName::Anycast.to_string(),
        (true, true) => format!("{DEFAULT_PROCESSES},{}", TaskName::Anycast),
        (false, _) if only_routes => TaskName::RouteWatch.to_string(),
        (false, _) => DEFAULT_PROCESSES.to_owned(),
    });
    let mut tasks = BTreeSet::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name.parse::<TaskName>() {
            Ok(task) => {
                tasks.insert(task);
            }
            Err(known) => reader.problem(PROCESS_LIST, Some(name), known),
        }
    }
    tasks
}

fn read_site(reader: &mut Reader<'_>, engine: bool) -> (SiteName, SiteName, Side) {
    let active = reader.text_or(ACTIVE_SITE, "gold");
    let passive = reader.text_or(PASSIVE_SITE, "golddr");
    if active == passive {
        reader.problem(PASSIVE_SITE, Some(&passive), format!("another name than {ACTIVE_SITE}"));
    }
    let want = format!("the name of this site: {active:?} ({ACTIVE_SITE}) or {passive:?} ({PASSIVE_SITE})");
    let site =
        if engine { reader.required(KUBE_CLUSTER, &want) } else { reader.text_or(KUBE_CLUSTER, &active) };
    let side = if site == passive { Side::Passive } else { Side::Active };
    if !site.is_empty() && site != active && site != passive {
        reader.problem(KUBE_CLUSTER, Some(&site), want);
    }
    let other = if side == Side::Passive { active } else { passive };
    (SiteName(site), SiteName(other), side)
}

fn read_automation(reader: &mut Reader<'_>) -> Automation {
    let enabled = reader.flag(AUTOMATION_ENABLED, false);
    let mode = reader.text(AUTOMATION_MODE);
    match (enabled, mode.as_deref()) {
        (true, None | Some("witnessed")) => Automation::Witnessed,
        (_, Some("advise")) => Automation::Advise,
        (false, None) => Automation::Off,
        (true, Some("self-fencing")) => Automation::SelfFencing,
        (false, Some(mode @ ("witnessed" | "self-fencing"))) => {
            let want = format!("only with {AUTOMATION_ENABLED}=true");
            reader.problem(AUTOMATION_MODE, Some(mode), want);
            Automation::Off
        }
        (_, Some(other)) => {
            reader.problem(AUTOMATION_MODE, Some(other), "witnessed, self-fencing or advise");
            Automation::Off
        }
    }
}

/// In `self-fencing` the site that gives up is always made read-only first: the mode rests on it.
fn read_fence(reader: &mut Reader<'_>, automation: Automation) -> bool {
    let needed = automation == Automation::SelfFencing;
    let fence = reader.flag(FENCE_OLD_PRIMARY, needed);
    if needed && !fence {
        let want = format!("true or unset with {AUTOMATION_MODE}=self-fencing");
        reader.problem(FENCE_OLD_PRIMARY, Some("false"), want);
    }
    fence
}

fn read_gate(reader: &mut Reader<'_>) -> DestructionGate {
    match reader.text(DESTRUCTION_GATE).as_deref() {
        None | Some("strict") => DestructionGate::Strict,
        Some("consent") => DestructionGate::Consent,
        Some(other) => {
            reader.problem(DESTRUCTION_GATE, Some(other), "strict or consent");
            DestructionGate::Strict
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_from(pairs: &[(&str, &str)]) -> (SiteSettings, Vec<String>) {
        let env: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&env);
        let settings = read(&mut reader, false);
        (settings, reader.into_problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_unknown_process_is_named_and_the_known_ones_are_listed() {
        let (_, problems) = read_from(&[
            (KUBE_CLUSTER, "gold"),
            (ENVIRONMENT, "dev"),
            (PROCESS_LIST, "logic_handler,dns_wach"),
        ]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("dns_wach") && problems[0].contains("dns_watch"), "{problems:?}");
    }

    #[test]
    fn a_site_that_is_neither_of_the_pair_is_a_problem() {
        let (_, problems) = read_from(&[(KUBE_CLUSTER, "silver"), (ENVIRONMENT, "dev")]);
        assert!(problems[0].contains("silver") && problems[0].contains("golddr"), "{problems:?}");
    }

    #[test]
    fn the_predecessors_constants_are_the_defaults() {
        let (settings, problems) = read_from(&[(KUBE_CLUSTER, "golddr"), (ENVIRONMENT, "dev")]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(
            (settings.side, settings.health_replicas, settings.database_replicas),
            (Side::Passive, 2, 3)
        );
        assert_eq!(settings.automation, Automation::Off);
        assert_eq!(settings.tasks.len(), 6);
    }

    #[test]
    fn all_problems_come_at_once() {
        let (_, problems) =
            read_from(&[(DESTRUCTION_GATE, "maybe"), (AUTOMATION_MODE, "yolo"), (HEALTH_REPLICAS, "-1")]);
        assert_eq!(problems.len(), 5, "{problems:?}");
    }
}
