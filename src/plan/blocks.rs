//! Building blocks of plans, in the order in which the specification's section 4.3 lists them.

use super::limits::{
    BESIDE_MS, CATCH_UP_MS, CLONE_MS, COSMETIC_PATIENCE_MS, FENCE_MS, PATIENCE_MS, PEER_FENCE_MS,
    PIPELINE_MS, PROMOTE_MS, SCALE_MS, WITNESS_MS, WRITE_MS,
};
use super::{Done, Failure, Step, Undo, Work};
use crate::model::{Effect, PeerMessage, Phase, RoutePin, Traffic, Transition};

/// How much a write matters to the plan that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The plan halts without it.
    Needed,
    /// The plan goes on and tries again beside it: a failover is not blocked by it.
    Aside,
}

impl Weight {
    fn limit_ms(self) -> u64 {
        match self {
            Self::Needed => WRITE_MS,
            Self::Aside => BESIDE_MS,
        }
    }

    /// What a plan does when such a write fails.
    pub fn on_failure(self) -> Failure {
        match self {
            Self::Needed => Failure::Halt,
            Self::Aside => Failure::Beside { patience_ms: PATIENCE_MS },
        }
    }
}

fn write(name: &str, effect: Effect, weight: Weight, undo: Undo) -> Step {
    Step {
        name: name.to_owned(),
        work: Work::Do(effect),
        done: Done::Answered,
        limit_ms: weight.limit_ms(),
        on_failure: weight.on_failure(),
        undo,
        gated: false,
    }
}

fn cosmetic(name: &str, effect: Effect, undo: Undo) -> Step {
    Step {
        on_failure: Failure::Beside { patience_ms: COSMETIC_PATIENCE_MS },
        ..write(name, effect, Weight::Aside, undo)
    }
}

fn wait(name: &str, done: Done, limit_ms: u64, on_failure: Failure) -> Step {
    Step {
        name: name.to_owned(),
        work: Work::Wait,
        done,
        limit_ms,
        on_failure,
        undo: Undo::Needless,
        gated: false,
    }
}

/// Terraform variables: who recovers, whether in maintenance.
pub fn recovery_vars(in_recovery: bool, in_maintenance: bool, weight: Weight) -> Step {
    let effect = Effect::SetRecoveryVars { in_recovery, in_maintenance };
    write("set-recovery-vars", effect, weight, Undo::Needless)
}

/// Health deployment and its disruption budget: what the global load balancer sees of this site.
pub fn health(replicas: u32, weight: Weight) -> [Step; 2] {
    let undo = Undo::Needless;
    [
        write("scale-health", Effect::ScaleHealth { replicas }, weight, undo.clone()),
        write(
            "set-disruption-budget",
            Effect::SetDisruptionBudget { min_available: u32::from(replicas > 0) },
            weight,
            undo,
        ),
    ]
}

/// Maintenance page on: restart the page, route the service to it, tell the portal.
pub fn maintenance_on(portal: bool, weight: Weight) -> Vec<Step> {
    let mut steps = vec![
        cosmetic("restart-maintenance-page", Effect::RestartMaintenancePage, Undo::Needless),
        write(
            "route-to-maintenance-page",
            Effect::RouteService(Traffic::MaintenancePage),
            weight,
            Undo::Effect(Effect::RouteService(Traffic::Application)),
        ),
    ];
    if portal {
        let undo = Undo::Effect(Effect::SetPortal { on: false });
        steps.push(cosmetic("portal-on", Effect::SetPortal { on: true }, undo));
    }
    steps
}

/// Maintenance page off: route the service to the application, restart the page, tell the portal.
pub fn maintenance_off(portal: bool, weight: Weight) -> Vec<Step> {
    let mut steps = vec![
        write(
            "route-to-application",
            Effect::RouteService(Traffic::Application),
            weight,
            Undo::Effect(Effect::RouteService(Traffic::MaintenancePage)),
        ),
        cosmetic("restart-maintenance-page", Effect::RestartMaintenancePage, Undo::Needless),
    ];
    if portal {
        let undo = Undo::Effect(Effect::SetPortal { on: true });
        steps.push(cosmetic("portal-off", Effect::SetPortal { on: false }, undo));
    }
    steps
}

/// Restart of the gateway, so that it drops its connections to this site.
pub fn restart_gateway() -> Step {
    cosmetic("restart-gateway", Effect::RestartGateway, Undo::Needless)
}

/// Promotion, until the database is seen to take writes. Where it takes them already nothing is asked for, but it is
/// looked at once more: a fence may have been on its way when the plan was made.
fn promote_database() -> Step {
    let undo = Undo::Never("demotion is a transition of its own, behind the destruction gate".to_owned());
    Step {
        done: Done::DatabasePrimary,
        limit_ms: PROMOTE_MS,
        ..write("promote-database", Effect::PromoteDatabase, Weight::Needed, undo)
    }
}

/// Promotion, and the database pods pointed at nobody, so that a restarted pod does not follow again. Of a database
/// that is a primary `already`, its pods follow nobody.
pub fn become_primary(already: bool) -> Vec<Step> {
    if already {
        return vec![promote_database()];
    }
    vec![
        promote_database(),
        write(
            "follow-nobody",
            Effect::SetStandbySource { follow_peer: false },
            Weight::Needed,
            Undo::Effect(Effect::SetStandbySource { follow_peer: true }),
        ),
    ]
}

/// Every member of a stopped database started again.
pub fn start_database(replicas: u32) -> Step {
    Step {
        limit_ms: SCALE_MS,
        ..write("start-database", Effect::ScaleDatabase { replicas }, Weight::Needed, Undo::Needless)
    }
}

/// Read-only database that keeps its data and follows nobody.
pub fn fence_database(on_failure: Failure) -> Step {
    Step {
        done: Done::DatabaseFenced,
        limit_ms: FENCE_MS,
        on_failure,
        ..write(
            "fence-database",
            Effect::FenceDatabase,
            Weight::Needed,
            Undo::Effect(Effect::PromoteDatabase),
        )
    }
}

/// Wait until the other site's database is seen not to take writes.
pub fn await_peer_fenced(limit_ms: u64, on_failure: Failure) -> Step {
    wait("await-peer-fenced", Done::PeerFenced, limit_ms.max(PEER_FENCE_MS), on_failure)
}

/// Wait until the witness has given this site the lease on the service: nobody else can hold it then.
pub fn await_witness(on_failure: Failure) -> Step {
    wait("await-witness-lease", Done::WitnessHeld, WITNESS_MS, on_failure)
}

/// Wait until the peer's last write is here.
pub fn await_catch_up() -> Step {
    wait("await-catch-up", Done::CaughtUp, CATCH_UP_MS, Failure::Halt)
}

/// First part of a rebuild: empty the database and let one pod clone from the peer.
pub fn rebuild_first_member() -> Vec<Step> {
    let never = || Undo::Never("a deleted volume is cloned again from the peer".to_owned());
    let scale = |name: &str, replicas: u32| Step {
        limit_ms: SCALE_MS,
        ..write(name, Effect::ScaleDatabase { replicas }, Weight::Needed, Undo::Needless)
    };
    vec![
        // The gate stands before the first step that takes the old copy out of service.
        Step {
            gated: true,
            ..write(
                "follow-peer",
                Effect::SetStandbySource { follow_peer: true },
                Weight::Needed,
                Undo::Effect(Effect::SetStandbySource { follow_peer: false }),
            )
        },
        Step { gated: true, ..scale("stop-database", 0) },
        Step {
            gated: true,
            ..write("delete-volume-0", Effect::DeleteVolume { ordinal: 0 }, Weight::Needed, never())
        },
        Step {
            gated: true,
            ..write("delete-cluster-state", Effect::DeleteClusterState, Weight::Needed, never())
        },
        scale("start-first-member", 1),
    ]
}

/// Second part: once the first member follows the peer, clone the others.
pub fn rebuild_other_members(replicas: u32) -> Vec<Step> {
    let mut steps = vec![wait("await-standby", Done::DatabaseStandby, CLONE_MS, Failure::Halt)];
    steps.extend((1..replicas).map(|ordinal| {
        let undo = Undo::Never("a deleted volume is cloned again from the first member".to_owned());
        let name = format!("delete-volume-{ordinal}");
        Step { gated: true, ..write(&name, Effect::DeleteVolume { ordinal }, Weight::Needed, undo) }
    }));
    steps.push(Step {
        limit_ms: SCALE_MS,
        ..write("start-all-members", Effect::ScaleDatabase { replicas }, Weight::Needed, Undo::Needless)
    });
    steps
}

/// Start of the deployment pipeline, or, at a site without one, the application's scale itself.
pub fn deploy(tekton: bool, application_replicas: u32) -> Step {
    let undo = || Undo::Never("a run is superseded by the next one".to_owned());
    if tekton {
        Step {
            limit_ms: PIPELINE_MS,
            ..write("start-pipeline", Effect::TriggerPipeline, Weight::Needed, undo())
        }
    } else {
        let effect = Effect::ScaleApplication { replicas: application_replicas };
        Step { limit_ms: SCALE_MS, ..write("scale-application", effect, Weight::Needed, Undo::Needless) }
    }
}

/// Order of a transition to the peer; delivery goes on beside the plan until acknowledged.
pub fn order_peer(transition: Transition) -> Step {
    Step {
        name: format!("order-peer-{transition}"),
        work: Work::Order(transition),
        done: Done::Answered,
        limit_ms: WRITE_MS,
        on_failure: Failure::Proceed,
        undo: Undo::Never("an order stands until a newer generation supersedes it".to_owned()),
        gated: false,
    }
}

/// The same order once more, from an agent that no longer knows the number under which it gave it.
pub fn remind_peer(transition: Transition) -> Step {
    let state = transition.wire().to_owned();
    Step {
        name: format!("remind-peer-{transition}"),
        work: Work::Tell(PeerMessage::TransitionTo { state, generation: None, accept_data_loss: None }),
        ..order_peer(transition)
    }
}

/// The record shows a new phase and no transition.
pub fn record(phase: Phase) -> Step {
    record_as(&format!("record-{phase}"), Some(phase), Some(String::new()), None)
}

/// The record shows whatever is given; `None` leaves a key alone.
pub fn record_as(
    name: &str,
    phase: Option<Phase>,
    transition: Option<String>,
    annotation: Option<String>,
) -> Step {
    Step {
        name: name.to_owned(),
        work: Work::Record { phase, transition, annotation },
        done: Done::RecordShows,
        limit_ms: WRITE_MS,
        on_failure: Failure::Halt,
        undo: Undo::Needless,
        gated: false,
    }
}

/// Routes steered by phase or by health.
pub fn pin_routes(pin: RoutePin) -> Step {
    let name = match pin {
        RoutePin::Passive => "pin-routes-to-passive",
        RoutePin::Health => "release-routes-to-health",
    };
    write(name, Effect::PinRoutes(pin), Weight::Aside, Undo::Needless)
}
