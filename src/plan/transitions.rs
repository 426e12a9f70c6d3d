//! One plan per transition and side, in the order of the specification's section 4.4.
//!
//! Two settings change the old order: `PROMOTE_FIRST` promotes and verifies before traffic is opened, and
//! `FENCE_OLD_PRIMARY` makes the site that gives up the primary role read-only before the other one takes it.

use serde::{Deserialize, Serialize};

use super::blocks::{
    Weight, await_catch_up, await_peer_fenced, await_witness, become_primary, deploy, fence_database, health,
    maintenance_off, maintenance_on, order_peer, pin_routes, rebuild_first_member, rebuild_other_members,
    record, recovery_vars, remind_peer, restart_gateway, start_database,
};
use super::limits::BESIDE_MS;
use super::{Failure, Step};
use crate::model::{Phase, RoutePin, Side, Transition};

/// Everything that a plan depends on, fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Facts {
    /// Side of this site.
    pub side: Side,
    /// Whether the peer ordered the transition (so that it needs no telling).
    pub ordered_by_peer: bool,
    /// Whether automation began it: then nothing is assumed where the old primary cannot be seen fenced.
    pub automatic: bool,
    /// Local database already a primary, every member healthy.
    pub database_is_primary: bool,
    /// Local database already a healthy standby that follows the peer.
    pub database_is_standby: bool,
    /// A plan that was given up has stopped the local database.
    #[serde(default)]
    pub database_is_stopped: bool,
    /// The peer gave a position that must be replayed before promotion.
    pub catch_up: bool,
    /// `PROMOTE_FIRST`.
    pub promote_first: bool,
    /// `FENCE_OLD_PRIMARY`.
    pub fence: bool,
    /// A maintenance portal is configured.
    pub portal: bool,
    /// A deployment pipeline is configured.
    pub tekton: bool,
    /// Routes are steered by this agent.
    pub routes: bool,
    /// How long a lost peer that fences itself may still serve, in milliseconds; 0 = it does not fence itself.
    #[serde(default)]
    pub peer_lease_ms: u64,
    /// A witness gives a lease on the service.
    #[serde(default)]
    pub witness: bool,
    /// Replicas of the health deployment where the site is offered to the load balancer.
    pub health_replicas: u32,
    /// Members of the database.
    pub database_replicas: u32,
    /// Replicas of the application where it runs.
    pub application_replicas: u32,
}

/// The steps that carry out `transition` at the side that `facts` name. Empty where that side has nothing to do.
pub fn build(transition: Transition, facts: &Facts) -> Vec<Step> {
    match (transition, facts.side) {
        (Transition::GolddrPrimary, Side::Active) => give_up_service(facts),
        (Transition::GolddrPrimary, Side::Passive) => take_service(facts),
        (Transition::GoldStandby, Side::Active) => active_becomes_standby(facts),
        (Transition::GoldStandby, Side::Passive) => vec![record(Phase::GoldStandby)],
        (Transition::ActivePassive | Transition::ActivePassiveForce, Side::Active) => {
            take_back(transition, facts)
        }
        (Transition::ActivePassive, Side::Passive) => stand_by_again(facts),
        (Transition::ActivePassiveForce, Side::Passive) => {
            // Two primaries must not stay, whatever the gate then says about the data.
            let mut steps = vec![fence_database(Failure::Halt)];
            steps.extend(stand_by_again(facts));
            steps
        }
        (Transition::GolddrMaintenance, Side::Active) => vec![record(Phase::GolddrMaintenance)],
        (Transition::GolddrMaintenance, Side::Passive) => detach(facts),
        (Transition::TestPingPong, _) => Vec::new(),
    }
}

/// The steps that remain at a site whose record shows a `-partial` phase and no transition: it was stopped while
/// the first member was cloning.
pub fn build_rest_of_rebuild(phase: Phase, facts: &Facts) -> Vec<Step> {
    let mut steps = rebuild_other_members(facts.database_replicas);
    if phase == Phase::GoldStandby {
        // Whether the order was delivered before the stop is not known; a peer that has obeyed ignores it.
        steps.push(remind_peer(Transition::GoldStandby));
    }
    steps.push(deploy(facts.tekton, 0));
    steps.push(record(phase));
    steps
}

/// The steps that follow a successful deployment: maintenance as the transition wants it.
pub fn build_followup(maintenance: bool, facts: &Facts) -> Vec<Step> {
    if maintenance {
        maintenance_on(facts.portal, Weight::Aside)
    } else {
        maintenance_off(facts.portal, Weight::Aside)
    }
}

/// Steps of an operator's "rollback, the active site is down": its traffic comes back.
pub fn build_rollback(facts: &Facts) -> Vec<Step> {
    let mut steps = maintenance_off(facts.portal, Weight::Needed);
    steps.extend(health(facts.health_replicas, Weight::Needed));
    steps.push(recovery_vars(false, false, Weight::Needed));
    steps
}

/// Steps with which a site stops serving by itself: first no writes, then no traffic.
pub fn build_self_fence(facts: &Facts) -> Vec<Step> {
    let mut steps = vec![fence_database(Failure::Proceed)];
    steps.extend(health(0, Weight::Aside));
    steps.extend(maintenance_on(facts.portal, Weight::Aside));
    steps
}

/// Makes the local database read-only before the peer promotes its own (planned moves with fencing).
pub fn build_fence() -> Vec<Step> {
    vec![fence_database(Failure::Halt)]
}

fn give_up_service(facts: &Facts) -> Vec<Step> {
    // Nothing here may keep the peer from hearing of the failover: every step steps aside after its patience.
    let weight = Weight::Aside;
    let mut steps = Vec::new();
    // A standby takes no writes, and fenced it would lose its source.
    if facts.fence && !facts.database_is_standby {
        steps.push(Step { limit_ms: BESIDE_MS, ..fence_database(Weight::Aside.on_failure()) });
    }
    steps.push(recovery_vars(true, false, weight));
    steps.extend(health(0, weight));
    steps.extend(maintenance_on(facts.portal, weight));
    steps.push(restart_gateway());
    steps.push(order_peer(Transition::GolddrPrimary));
    // Withdrawals wait until the other site announces, so its order comes first.
    steps.extend(routes(RoutePin::Passive, facts));
    steps.push(record(Phase::GolddrPrimary));
    steps
}

fn take_service(facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    if !facts.ordered_by_peer {
        steps.push(order_peer(Transition::GolddrPrimary));
    }
    steps.push(recovery_vars(true, false, Weight::Aside));
    let mut promotion = Vec::new();
    // A person may go on where nothing can be proven; automation may not.
    let on_failure = if facts.automatic { Failure::Halt } else { Failure::Proceed };
    if facts.witness {
        promotion.push(await_witness(on_failure));
    }
    if facts.fence {
        promotion.push(await_peer_fenced(facts.peer_lease_ms, on_failure));
    }
    promotion.extend(take_primary_role(facts));
    let mut traffic = maintenance_on(facts.portal, Weight::Aside);
    traffic.extend(health(facts.health_replicas, Weight::Aside));
    if facts.promote_first {
        steps.extend(promotion);
        steps.extend(traffic);
    } else {
        steps.extend(traffic);
        steps.extend(promotion);
    }
    steps.extend(routes(RoutePin::Passive, facts));
    steps.push(deploy(facts.tekton, facts.application_replicas));
    steps.push(record(Phase::GolddrPrimary));
    steps
}

fn active_becomes_standby(facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::from(health(0, Weight::Needed));
    steps.extend(stand_by(
        Phase::GoldStandby,
        Phase::GoldStandbyPartial,
        Some(Transition::GoldStandby),
        facts,
    ));
    steps
}

/// Becoming a standby, with the peer's order in the place where the old sequence has it: after the first member is
/// started, before the record shows the partial phase.
fn stand_by(target: Phase, partial: Phase, order: Option<Transition>, facts: &Facts) -> Vec<Step> {
    let mut steps = maintenance_on(facts.portal, Weight::Needed);
    let rebuild = !facts.database_is_standby;
    if rebuild {
        steps.extend(rebuild_first_member());
    }
    steps.extend(order.map(order_peer));
    if rebuild {
        steps.push(record(partial));
        steps.extend(rebuild_other_members(facts.database_replicas));
        steps.push(deploy(facts.tekton, 0));
    }
    steps.push(record(target));
    steps
}

fn take_back(transition: Transition, facts: &Facts) -> Vec<Step> {
    let mut steps = vec![recovery_vars(false, false, Weight::Needed)];
    let mut traffic = maintenance_on(facts.portal, Weight::Needed);
    traffic.extend(health(facts.health_replicas, Weight::Needed));
    let mut promotion = Vec::new();
    if facts.catch_up {
        promotion.push(await_catch_up());
    }
    promotion.extend(take_primary_role(facts));
    if facts.promote_first {
        steps.extend(promotion);
        steps.extend(traffic);
    } else {
        steps.extend(traffic);
        steps.extend(promotion);
    }
    steps.push(deploy(facts.tekton, facts.application_replicas));
    steps.extend(routes(RoutePin::Health, facts));
    steps.push(order_peer(transition));
    steps.push(record(Phase::ActivePassive));
    steps
}

fn stand_by_again(facts: &Facts) -> Vec<Step> {
    let mut steps = vec![recovery_vars(false, false, Weight::Needed)];
    steps.extend(health(facts.health_replicas, Weight::Needed));
    steps.extend(routes(RoutePin::Health, facts));
    steps.extend(stand_by(Phase::ActivePassive, Phase::ActivePassivePartial, None, facts));
    steps
}

/// Promotion, of a database that a plan before may have left stopped.
fn take_primary_role(facts: &Facts) -> Vec<Step> {
    let start = facts.database_is_stopped.then(|| start_database(facts.database_replicas));
    start.into_iter().chain(become_primary(facts.database_is_primary)).collect()
}

fn detach(facts: &Facts) -> Vec<Step> {
    let mut steps = vec![recovery_vars(false, true, Weight::Needed)];
    steps.extend(health(0, Weight::Needed));
    steps.extend(take_primary_role(facts));
    steps.push(deploy(facts.tekton, facts.application_replicas));
    steps.push(record(Phase::GolddrMaintenance));
    steps
}

fn routes(pin: RoutePin, facts: &Facts) -> Option<Step> {
    facts.routes.then(|| pin_routes(pin))
}
