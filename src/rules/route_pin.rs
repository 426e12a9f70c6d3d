//! Who owns the routes: the health of both regions, or the phase that people chose.
//!
//! A pure function of the engine's state, so that a restarted agent knows it again: the pin of the run under way where
//! its step has begun, else the phase's own.

use super::Engine;
use super::state::StepStatus;
use crate::model::{Effect, Phase, RoutePin};
use crate::plan::Work;

/// The pin that belongs to a phase. Health fills every phase that does not say otherwise.
pub fn phase_pin(phase: Phase) -> RoutePin {
    match phase {
        Phase::GolddrPrimary | Phase::GoldStandby | Phase::GoldStandbyPartial => RoutePin::Passive,
        Phase::Independent
        | Phase::ActivePassive
        | Phase::ActivePassivePartial
        | Phase::GolddrMaintenance => RoutePin::Health,
    }
}

impl Engine {
    /// Who owns the routes now; `None` = not known (no record seen, no step begun), so that nothing may change.
    pub fn route_pin(&self) -> Option<RoutePin> {
        let steps = self.state.run.iter().flat_map(|run| run.lane.steps.iter().rev());
        let begun =
            steps.filter(|step| step.status != StepStatus::Pending).find_map(|step| match &step.step.work {
                Work::Do(Effect::PinRoutes(pin)) => Some(*pin),
                _ => None,
            });
        begun.or_else(|| self.state.phase().map(phase_pin))
    }
}
