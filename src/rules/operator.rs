//! Operators' requests: each is answered at once with what follows or with a named refusal.

use super::Engine;
use super::mutant::Mutant;
use super::refusal::Refusal;
use super::state::{Origin, Request, StepRun};
use crate::model::{Effect, Note, Now, OperatorRequest, RecordTransition, Traffic, Transition};
use crate::plan::blocks::{Weight, maintenance_off, maintenance_on};
use crate::plan::transitions;

impl Engine {
    pub(super) fn operator_asks(&mut self, ticket: u64, who: &str, request: OperatorRequest, now: Now) {
        let name = format!("{request:?}");
        self.remark("info", format!("{who} asks for {name}"));
        let (accepted, message) = match self.judge(request, now) {
            Ok(message) => (true, message),
            Err(refusal) => {
                self.refuse(&name, Origin::Operator, &refusal, now);
                (false, format!("{}: {}", refusal.name(), refusal.why()))
            }
        };
        self.report(Note::Answer { ticket, accepted, message });
        self.changed = true;
    }

    fn judge(&mut self, request: OperatorRequest, now: Now) -> Result<String, Refusal> {
        match request {
            OperatorRequest::Transition { transition, accept_data_loss } => {
                self.judge_transition(transition, accept_data_loss, now)
            }
            OperatorRequest::Resume => self.resume(),
            OperatorRequest::Abort => self.abort(),
            OperatorRequest::Acknowledge => {
                if !std::mem::take(&mut self.state.automation.unacknowledged) {
                    return Err(Refusal::NothingToDo);
                }
                Ok("automation may act again".to_owned())
            }
            single => {
                if let Some(run) = self.state.run.as_ref().filter(|run| run.halted.is_none()) {
                    return Err(Refusal::TransitionInProgress(run.transition.wire().to_owned()));
                }
                Ok(self.do_single(single, now))
            }
        }
    }

    fn judge_transition(
        &mut self,
        transition: Transition,
        accept_data_loss: Option<String>,
        now: Now,
    ) -> Result<String, Refusal> {
        let (record, phase) = self.read_record()?;
        if let Some(run) = &self.state.run {
            if run.transition == transition && run.halted.is_some() {
                return self.resume();
            }
            if run.halted.is_none() {
                return Err(Refusal::TransitionInProgress(run.transition.wire().to_owned()));
            }
        } else if let Some(request) = &self.state.request {
            // Accepted a moment ago, the record does not show it yet.
            return Err(Refusal::TransitionInProgress(request.transition.wire().to_owned()));
        } else if record.transition != RecordTransition::Empty || self.state.ask.is_some() {
            return Err(Refusal::TransitionInProgress(format!("{:?}", record.transition)));
        }
        self.permit(phase, transition, Origin::Operator, now)?;
        self.check_planned_move(phase, transition, accept_data_loss.as_ref(), now)?;
        if let Some(run) = self.state.run.take() {
            self.remark("warning", format!("the halted {} is given up for {transition}", run.transition));
        }
        self.put_request(Request {
            transition,
            origin: Origin::Operator,
            generation: None,
            accept_data_loss,
        });
        Ok(format!("{transition} is asked for; follow it in /status"))
    }

    fn resume(&mut self) -> Result<String, Refusal> {
        self.state.held = false;
        if self.state.safe_halt.take().is_some() && self.state.run.is_none() {
            return Ok("the agent acts again".to_owned());
        }
        if self.state.lease.fenced.is_some() && self.state.run.is_none() {
            self.state.lease.waived = true;
            return Ok("this site serves again, on your word that the other one does not".to_owned());
        }
        let Some(run) = self.state.run.as_mut().filter(|run| run.halted.is_some()) else {
            return Err(Refusal::NothingToDo);
        };
        run.halted = None;
        run.gate_closed = None;
        let name = run.transition.wire();
        if self.mutant == Some(Mutant::ResumesPastStep) {
            run.lane.cursor += 1;
        }
        if let Some(step) = run.lane.steps.get_mut(run.lane.cursor) {
            // That it was tried stays known: a call that was given up may have had its effect since.
            let attempt = step.attempt.min(1);
            *step = StepRun { attempt, ..StepRun::new(step.step.clone()) };
        }
        Ok(format!("{name} goes on"))
    }

    fn abort(&mut self) -> Result<String, Refusal> {
        if let Some(ask) = self.state.ask.take() {
            self.drop_message(ask.message);
            return Ok(format!("{} is no longer asked for", ask.transition));
        }
        let Some(run) = self.state.run.take_if(|run| run.halted.is_some()) else {
            let busy = self.state.run.as_ref().map(|run| run.transition.wire().to_owned());
            return Err(busy.map_or(Refusal::NothingToDo, Refusal::TransitionInProgress));
        };
        self.state.held = true;
        self.state.unsettled = None;
        let clear = crate::plan::blocks::record_as("clear-aborted", None, Some(String::new()), None);
        self.push_step(clear);
        Ok(format!("{} is given up where it stands", run.transition))
    }

    /// Single actions of the predecessor's HTTP interface.
    fn do_single(&mut self, request: OperatorRequest, now: Now) -> String {
        match request {
            OperatorRequest::Maintenance(true) => {
                self.push_all(maintenance_on(self.policy.portal, Weight::Needed));
            }
            OperatorRequest::Maintenance(false) => {
                self.push_all(maintenance_off(self.policy.portal, Weight::Needed));
            }
            OperatorRequest::RollbackActiveDown => {
                let facts = self.facts(Origin::Operator, false, now);
                self.push_all(transitions::build_rollback(&facts));
            }
            OperatorRequest::SetPrimary => self.push_chore("promote-database", Effect::PromoteDatabase),
            OperatorRequest::SetReadonly => self.push_chore("fence-database", Effect::FenceDatabase),
            OperatorRequest::RestartGateway => self.push_chore("restart-gateway", Effect::RestartGateway),
            OperatorRequest::StartApplication => {
                self.push_chore("start-application", Effect::StartApplication);
            }
            OperatorRequest::ServiceFlow(true) => {
                self.push_chore("route-to-application", Effect::RouteService(Traffic::Application));
            }
            OperatorRequest::ServiceFlow(false) => {
                self.push_chore("route-to-maintenance-page", Effect::RouteService(Traffic::MaintenancePage));
            }
            OperatorRequest::Transition { .. }
            | OperatorRequest::Resume
            | OperatorRequest::Abort
            | OperatorRequest::Acknowledge => {}
        }
        "it is being done".to_owned()
    }

    fn push_all(&mut self, steps: Vec<crate::plan::Step>) {
        for step in steps {
            self.push_step(step);
        }
    }
}
