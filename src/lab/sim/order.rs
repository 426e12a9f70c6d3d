//! Whether the pair is in order, by what the world shows: records, databases, traffic.

use super::world::World;
use crate::model::{Phase, Side, Traffic};

/// The phase in which the pair is in order.
///
/// # Errors
/// What is not in order.
pub fn in_order(world: &World) -> Result<Phase, String> {
    let (active, passive) = (world.look(Side::Active), world.look(Side::Passive));
    for site in &world.sites {
        let (phase, transition) = site.recorded();
        if !transition.is_empty() {
            return Err(format!("the {} record asks for {transition} in {phase}", site.side));
        }
    }
    let (first, second) = (active.recorded().0, passive.recorded().0);
    if first != second {
        return Err(format!("the records show {first} and {second}"));
    }
    let phase: Phase = first.parse().map_err(|_| format!("the records show {first}"))?;
    if !super::plan::RESTING.contains(&phase) {
        return Err(format!("the pair is half way: {phase}"));
    }
    let serving = serving(phase);
    check_databases(world, phase, serving)?;
    let (front, back) = (world.look(serving), world.look(serving.other()));
    if front.traffic != Traffic::Application || back.traffic != Traffic::MaintenancePage {
        return Err(format!("traffic is not as {phase} wants it"));
    }
    if front.health == 0 {
        return Err(format!("the {serving} site serves and is not offered to the load balancer"));
    }
    Ok(phase)
}

/// The side that serves in a phase.
pub fn serving(phase: Phase) -> Side {
    if phase == Phase::ActivePassive { Side::Active } else { Side::Passive }
}

fn check_databases(world: &World, phase: Phase, serving: Side) -> Result<(), String> {
    if !world.look(serving).database.writable() {
        return Err(format!("the database of the {serving} site does not take writes in {phase}"));
    }
    let other = &world.look(serving.other()).database;
    if other.writable() {
        return Err(format!("both databases take writes in {phase}"));
    }
    let streams = other.leader_member().is_some_and(|member| member.streaming);
    if phase != Phase::GolddrPrimary && !streams {
        return Err(format!("the database of the {} site does not follow in {phase}", serving.other()));
    }
    Ok(())
}
