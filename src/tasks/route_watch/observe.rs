//! The questions of a cycle, all at once and within one deadline, and what the answers amount to.
//!
//! A question that fails makes its input unknown. Nothing is decided here.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::clouds::Clouds;
use super::events::{Ended, Events, Fact};
use super::metrics::RouteMetrics;
use crate::adapters::gcp::{BackendScope, GcpError, RegionAnswer, RouterPlace, RouterStatus};
use crate::config::routes::{self, RouteSettings};
use crate::rules::route_health::grade::{
    BackendSeen, InstanceSeen, RegionGrade, SessionSeen, grade_region, grade_sessions,
};
use crate::rules::route_health::{Health, Inputs};

/// Sick backends that an event names at most.
const NAMED: usize = 50;

/// What a cycle saw.
pub struct Observed {
    /// The samples.
    pub inputs: Inputs,
    /// The other router's sessions, where they could be read.
    pub peer: Option<RouterStatus>,
    /// The own router's sessions, where they could be read.
    pub own: Option<RouterStatus>,
}

/// Where a router is, as the adapter names it.
pub fn place(place: &routes::RouterPlace) -> RouterPlace {
    RouterPlace { project: place.project.clone(), region: place.region.clone(), name: place.router.clone() }
}

/// Asks everything.
pub async fn observe(
    settings: &RouteSettings,
    clouds: &Clouds,
    events: &Events,
    metrics: &RouteMetrics,
) -> Observed {
    let deadline = Instant::now() + settings.deadline;
    let gcp = &settings.gcp;
    let scope = |region: &str| BackendScope {
        project: gcp.project.clone(),
        region: region.to_owned(),
        filter: gcp.filter.clone(),
    };
    let (local_scope, remote_scope) = (scope(&gcp.local_region), scope(&gcp.remote_region));
    let (local_router, remote_router) = (place(&gcp.local_router), place(&gcp.remote_router));
    let (local, remote, peer, own) = tokio::join!(
        clouds.compute.backend_health(&local_scope, deadline),
        clouds.compute.backend_health(&remote_scope, deadline),
        clouds.compute.sessions(&remote_router, deadline),
        clouds.compute.sessions(&local_router, deadline),
    );
    let tell = Tell { settings, events, metrics };
    let inputs = Inputs {
        local: tell.region("local", &gcp.local_region, &local),
        remote: tell.region("remote", &gcp.remote_region, &remote),
        bgp: tell.sessions("remote", &gcp.remote_router, &peer),
    };
    // The own router's sessions decide nothing; somebody should know when it announces into the void.
    tell.sessions("local", &gcp.local_router, &own);
    Observed { inputs, peer: peer.ok(), own: own.ok() }
}

struct Tell<'a> {
    settings: &'a RouteSettings,
    events: &'a Events,
    metrics: &'a RouteMetrics,
}

impl Tell<'_> {
    fn region(&self, which: &str, region: &str, answer: &Result<RegionAnswer, GcpError>) -> Health {
        let grade = match answer {
            Ok(answer) => grade_region(&self.settings.policy, answer.services.len(), &backends(answer)),
            Err(_) => RegionGrade::unknown(),
        };
        self.metrics.region(which, &grade);
        let error = answer.as_ref().err();
        let mut services: Vec<&str> = grade.sick.iter().map(|sick| sick.service.as_str()).collect();
        services.dedup();
        let details = json!({
            "region": region,
            "service_type": "backend_services",
            "healthy": grade.health.known(),
            "project": self.settings.gcp.project,
            "total_services": grade.services,
            "total_backends": grade.backends,
            "healthy_backends": grade.healthy,
            "unanswered_backends": grade.unanswered,
            "unhealthy_backends": grade.sick.iter().take(NAMED).map(|sick| json!({
                "service": sick.service,
                "backend": sick.backend,
                "instance": sick.instance,
                "health_state": sick.health_state,
                "reason": sick.reason,
            })).collect::<Vec<_>>(),
            "services_with_issues": services,
            "monitoring_unavailable": grade.health == Health::Unknown,
            "error_code": error.and_then(GcpError::status),
            "error_reason": error.map(ToString::to_string),
        });
        self.told("check_backend_services", grade.health, details, error);
        grade.health
    }

    fn sessions(
        &self,
        which: &str,
        router: &routes::RouterPlace,
        answer: &Result<RouterStatus, GcpError>,
    ) -> Health {
        let health = match answer {
            Ok(status) => grade_sessions(&self.settings.policy, &sessions(status)),
            Err(_) => Health::Unknown,
        };
        let (up, total) = answer.as_ref().map_or((0, 0), RouterStatus::up_of);
        self.metrics.sessions(which, up, total);
        let statuses: BTreeMap<&str, &str> = answer
            .iter()
            .flat_map(|status| &status.sessions)
            .map(|session| (session.name.as_str(), session.status.as_str()))
            .collect();
        let error = answer.as_ref().err();
        let details: Value = json!({
            "region": router.region,
            "service_type": "bgp_sessions",
            "which": which,
            "healthy": health.known(),
            "project": router.project,
            "router": router.router,
            "total_peers": total,
            "peers_up": up,
            "peers_down": total.saturating_sub(up),
            "peer_statuses": statuses,
            "monitoring_unavailable": health == Health::Unknown,
            "error_code": error.and_then(GcpError::status),
            "error_reason": error.map(ToString::to_string),
        });
        self.told("check_bgp_sessions", health, details, error);
        health
    }

    fn told(&self, operation: &'static str, health: Health, details: Value, error: Option<&GcpError>) {
        // "Not known" is the failure of the question; "unhealthy" is an answer.
        let ended = if health == Health::Unknown { Ended::Failure } else { Ended::Success };
        let fact = Fact::new("health_check_result", "health_check", operation, ended, details);
        self.events.emit(&fact.because(error.map(ToString::to_string)));
        if let Some(error) = error {
            self.events.say(tracing::Level::WARN, &format!("{operation}: not known: {error}"));
        }
    }
}

fn backends(answer: &RegionAnswer) -> Vec<BackendSeen> {
    let groups =
        answer.services.iter().flat_map(|service| service.groups.iter().map(move |it| (service, it)));
    groups
        .map(|(service, group)| BackendSeen {
            service: service.name.clone(),
            group: group.group.clone(),
            drained: group.drained,
            failover: group.failover,
            answer: match &group.health {
                Ok(instances) => Ok(instances
                    .iter()
                    .map(|it| InstanceSeen { name: it.name.clone(), state: it.state.clone() })
                    .collect()),
                Err(error) => Err(error.word()),
            },
        })
        .collect()
}

fn sessions(status: &RouterStatus) -> Vec<SessionSeen> {
    let seen = |session: &crate::adapters::gcp::Session| SessionSeen {
        name: session.name.clone(),
        status: session.status.clone(),
        disabled: session.disabled,
    };
    status.sessions.iter().map(seen).collect()
}
