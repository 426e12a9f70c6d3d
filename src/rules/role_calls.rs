//! Calls that change the role of the local database: a promotion and a fence that are under way at once may take effect in
//! either order, and a call may outlive the step that made it.
//!
//! Owns: what is told of the role meanwhile, what waits for such a call, and the fence after it. Never: asks for a
//! promotion.

use super::Engine;
use super::mutant::Mutant;
use super::state::{Lane, Run, StepRun, StepStatus};
use crate::model::{Mono, Transition};
use crate::plan::Done;

/// Name of a call that outlived its step.
const LAST_CALL: &str = "call-of-before";

impl StepRun {
    /// Whether the step promotes or fences the database.
    fn changes_role(&self) -> bool {
        matches!(self.step.done, Done::DatabasePrimary | Done::DatabaseFenced)
    }

    /// Whether a call that changes the role of the database is under way.
    pub(super) fn is_role_call(&self) -> bool {
        (self.changes_role() || self.is_call_of_before())
            && matches!(self.status, StepStatus::InFlight { .. })
    }

    /// Whether the step is done when the database is seen in a role.
    pub(super) fn waits_for_role(&self) -> bool {
        self.changes_role() || self.step.done == Done::DatabaseStandby
    }

    /// Whether this is a call that outlived its step.
    pub(super) fn is_call_of_before(&self) -> bool {
        self.step.name == LAST_CALL
    }

    /// Nothing is asked for again: the step is over with its call.
    pub(super) fn end_with_call(&mut self) {
        (self.step.done, self.step.limit_ms) = (Done::Answered, 0);
        self.step.name = LAST_CALL.to_owned();
    }
}

impl Engine {
    /// Whether a promotion or a fence of the local database has been begun and not been seen to be over.
    pub(super) fn is_changing_role(&self) -> bool {
        let state = &self.state;
        let run = state.run.iter().filter(|run| run.halted.is_none()).filter_map(|run| run.lane.current());
        let grant = state.grant.iter().filter_map(|grant| grant.fence.as_ref()).filter_map(Lane::current);
        let chores = state.chores.steps.iter().skip(state.chores.cursor);
        let stray = state.beside.iter().any(StepRun::is_role_call);
        let mut steps = run.chain(grant).chain(chores).chain(&state.beside);
        !self.mutated(Mutant::TellsOldRole)
            && (stray || steps.any(|step| step.changes_role() && step.status != StepStatus::Finished))
    }

    /// Whether a call of before may still change the role of the database: until it is over nothing is promoted or
    /// deleted.
    pub(super) fn awaits_role_call(&self, step: &StepRun) -> bool {
        let waits = step.step.gated || step.step.done == Done::DatabasePrimary;
        waits
            && !matches!(step.status, StepStatus::InFlight { .. })
            && self.state.beside.iter().any(StepRun::is_role_call)
            && !self.mutated(Mutant::OverlapsRoleCalls)
    }

    /// Whether a call that outlived its step may still change the role of the database: until it is over no look at the
    /// database counts.
    pub(super) fn has_call_of_before(&self) -> bool {
        self.state.beside.iter().any(StepRun::is_call_of_before) && !self.mutated(Mutant::OverlapsRoleCalls)
    }

    /// A call of before has ended, and may have undone what was seen until now: the database is looked at again, and a
    /// fence asked for again.
    pub(super) fn look_again(&mut self, now: Mono) {
        if self.mutated(Mutant::OverlapsRoleCalls) {
            return;
        }
        let state = &mut self.state;
        let run = state.run.iter_mut().map(|run| &mut run.lane);
        let lanes = run.chain(state.grant.iter_mut().filter_map(|grant| grant.fence.as_mut()));
        let current = lanes.filter_map(|lane| lane.steps.get_mut(lane.cursor));
        for step in current.chain(&mut state.beside).chain(&mut state.chores.steps) {
            if !step.waits_for_role() || step.started.is_none() {
                continue;
            }
            step.started = Some(now.plus(1));
            if step.step.done == Done::DatabaseFenced && matches!(step.status, StepStatus::Observing { .. }) {
                step.status = StepStatus::Pending;
            }
            self.changed = true;
        }
    }

    /// Whether a consented failback has to see once more that the other site is read-only: it waits for us no longer
    /// than a person there wants, and this agent may have been dead meanwhile.
    pub(super) fn awaits_lender(&self, step: &StepRun, run: Option<&Run>, now: Mono) -> bool {
        let lent =
            run.is_some_and(|run| run.transition == Transition::ActivePassive && run.catch_up_lsn.is_some());
        let waits = lent
            && step.step.done == Done::DatabasePrimary
            && !matches!(step.status, StepStatus::InFlight { .. })
            && !self.mutated(Mutant::LenderUnseen);
        waits && self.peer_status_now(now).is_none_or(|status| status.writable != Some(false))
    }
}
