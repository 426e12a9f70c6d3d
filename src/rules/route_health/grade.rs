//! From answers to samples: what the backends of a region and the sessions of a router amount to.
//!
//! A failed question makes the answer unknown, never bad, unless what was answered proves more than half of it bad.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BgpUp, Health, RoutePolicy};

/// What a region without a single backend to judge means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmptyRegion {
    /// Nothing is known (a wrong project looks like this).
    Unknown,
    /// All is well, as the predecessor has it.
    Healthy,
    /// All is lost.
    Unhealthy,
}

/// State of one instance as the API words it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceSeen {
    /// Its name or URL.
    pub name: String,
    /// `HEALTHY`, `UNHEALTHY` or another word; missing = empty.
    pub state: String,
}

/// One backend group of one service as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BackendSeen {
    /// Name of the service.
    pub service: String,
    /// URL of the group.
    pub group: String,
    /// Takes no traffic (`capacityScaler: 0`): not judged.
    pub drained: bool,
    /// Only takes traffic when the others cannot.
    pub failover: bool,
    /// What `getHealth` said; `Err` is why it said nothing.
    pub answer: Result<Vec<InstanceSeen>, String>,
}

/// A backend that is not well, for the events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sick {
    /// Name of the service.
    pub service: String,
    /// URL of the group.
    pub backend: String,
    /// The instance; empty where there is none.
    pub instance: String,
    /// Its state as worded.
    pub health_state: String,
    /// `unhealthy_instance`, `incomplete_health_response`, or the error.
    pub reason: String,
}

/// What a region amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RegionGrade {
    /// The sample.
    pub health: Health,
    /// Services that were listed.
    pub services: usize,
    /// Backends that were judged.
    pub backends: usize,
    /// Healthy ones among them.
    pub healthy: usize,
    /// Those that are not, and why.
    pub sick: Vec<Sick>,
    /// Backends about which nothing could be learnt.
    pub unanswered: usize,
}

impl RegionGrade {
    /// A region that could not be listed.
    pub fn unknown() -> Self {
        Self {
            health: Health::Unknown,
            services: 0,
            backends: 0,
            healthy: 0,
            sick: Vec::new(),
            unanswered: 0,
        }
    }
}

/// Healthy and all instances of a group of backends.
#[derive(Default, Clone, Copy)]
struct Tally {
    healthy: usize,
    all: usize,
}

impl Tally {
    fn passes(self, percent: u32) -> bool {
        self.all > 0 && self.healthy * 100 >= self.all * percent as usize
    }
}

/// Judges a region. `services` = number of services listed, with or without backends.
pub fn grade_region(policy: &RoutePolicy, services: usize, seen: &[BackendSeen]) -> RegionGrade {
    let mut grade = RegionGrade { services, ..RegionGrade::unknown() };
    // By service: its usual backends and those for failover.
    let mut tallies: BTreeMap<&str, [Tally; 2]> = BTreeMap::new();
    for backend in seen.iter().filter(|backend| !backend.drained) {
        grade.backends += 1;
        let tally = &mut tallies.entry(&backend.service).or_default()[usize::from(backend.failover)];
        match &backend.answer {
            Ok(instances) => {
                let sick = sick_instances(backend, instances);
                tally.all += instances.len().max(1);
                tally.healthy += instances.len() - sick.len().min(instances.len());
                grade.healthy += usize::from(sick.is_empty());
                grade.sick.extend(sick);
            }
            Err(reason) => {
                grade.unanswered += 1;
                grade.sick.push(note(backend, "", "", reason));
            }
        }
    }
    grade.health = if grade.backends == 0 {
        match policy.empty_region {
            EmptyRegion::Unknown => Health::Unknown,
            EmptyRegion::Healthy => Health::Healthy,
            EmptyRegion::Unhealthy => Health::Unhealthy,
        }
    } else if grade.unanswered > 0 {
        let proven_bad = grade.backends - grade.healthy - grade.unanswered;
        if proven_bad * 2 > grade.backends { Health::Unhealthy } else { Health::Unknown }
    } else {
        let percent = policy.min_healthy_percent;
        let serves = |[usual, failover]: &[Tally; 2]| usual.passes(percent) || failover.passes(percent);
        Health::from(tallies.values().all(serves))
    };
    grade
}

fn sick_instances(backend: &BackendSeen, instances: &[InstanceSeen]) -> Vec<Sick> {
    if instances.is_empty() {
        return vec![note(backend, "", "", "incomplete_health_response")];
    }
    let sick = instances.iter().filter(|instance| instance.state != "HEALTHY");
    sick.map(|it| note(backend, &it.name, &it.state, "unhealthy_instance")).collect()
}

fn note(backend: &BackendSeen, instance: &str, state: &str, reason: &str) -> Sick {
    Sick {
        service: backend.service.clone(),
        backend: backend.group.clone(),
        instance: instance.to_owned(),
        health_state: state.to_owned(),
        reason: reason.to_owned(),
    }
}

/// What is seen of one session of a router.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionSeen {
    /// Name of the peer.
    pub name: String,
    /// `UP`, `DOWN`, `UNKNOWN` or another word.
    pub status: String,
    /// Switched off in the router's configuration: not judged.
    pub disabled: bool,
}

/// Judges a router's sessions. No session at all is down; sessions that the API itself does not know can't prove it.
pub fn grade_sessions(policy: &RoutePolicy, sessions: &[SessionSeen]) -> Health {
    let judged: Vec<&SessionSeen> = sessions.iter().filter(|session| !session.disabled).collect();
    let up = judged.iter().filter(|session| session.status == "UP").count();
    let unclear = judged.iter().filter(|session| session.status == "UNKNOWN").count();
    let needed = match policy.bgp_up {
        BgpUp::Any => 1,
        BgpUp::All => judged.len().max(1),
        BgpUp::AtLeast(number) => number as usize,
    };
    if up >= needed {
        Health::Healthy
    } else if up + unclear >= needed {
        Health::Unknown
    } else {
        Health::Unhealthy
    }
}
