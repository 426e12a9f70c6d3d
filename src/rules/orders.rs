//! The peer's orders: heard once, obeyed in the order of their generations, never lost to a bad moment.
//!
//! An order goes into the record like any other request ([`super::requests`]). Owns: which orders are repetitions, which
//! wait, which give way to a later generation, and the fence that comes before the record where the service is given up.

use super::Engine;
use super::mutant::Mutant;
use super::policy::Automation;
use super::refusal::Refusal;
use super::state::{Origin, Request, Run};
use crate::model::{Generation, Now, RecordPhase, RecordSeen, Side, Transition};
use crate::plan::blocks::{fence_database, record_as};
use crate::plan::{Failure, Step, limits};

impl Engine {
    /// The peer orders a transition.
    pub(super) fn order_from_peer(
        &mut self,
        state: &str,
        generation: Option<Generation>,
        accept_data_loss: Option<String>,
        authenticated: bool,
        now: Now,
    ) {
        let Ok(transition) = state.parse::<Transition>() else {
            return self.refuse(state, Origin::Peer, &Refusal::UnknownTransition(state.to_owned()), now);
        };
        self.supersede_order(generation);
        if self.is_repetition(transition, generation) {
            return self.note_generation(generation);
        }
        let request = Request { transition, origin: Origin::Peer, generation, accept_data_loss };
        if self.order_must_wait(generation) && !self.mutated(Mutant::ForgetsEarlyOrders) {
            // It was acknowledged and will not come again, so it must not be lost to a bad moment.
            self.remark(
                "warning",
                format!("the peer's order {transition} waits: this site is busy or unread"),
            );
            self.state.waiting_order = Some((request, authenticated));
            return;
        }
        self.obey_order(request, authenticated, now);
    }

    /// An order that has not begun yet gives way to one of a newer generation, whatever becomes of that one.
    fn supersede_order(&mut self, newer: Option<Generation>) {
        let older = |request: &mut Request| {
            request.origin == Origin::Peer && request.generation.is_some() && request.generation < newer
        };
        self.state.waiting_order.take_if(|(request, _)| older(request));
        if self.state.request.take_if(older).is_some() {
            self.push_step(record_as("clear-superseded-order", None, Some(String::new()), None));
        }
    }

    /// What the peer has begun or was promised; a run that begins here takes a later number.
    pub(super) fn note_generation(&mut self, heard: Option<Generation>) {
        self.state.generation = self.state.generation.max(heard.unwrap_or_default());
    }

    /// Whether an order cannot be judged yet: the record was not read since the start, or another transition runs.
    fn order_must_wait(&self, generation: Option<Generation>) -> bool {
        let unread = match &self.state.record {
            RecordSeen::Unknown(_) => true,
            RecordSeen::Present(record) => record.phase == RecordPhase::Empty,
            RecordSeen::Missing => false,
        };
        unread || self.run_goes_on(generation).is_some()
    }

    /// The run that an order has to wait for. One that stands before a closed gate gives way to a later generation: the
    /// order may be what closed it.
    fn run_goes_on(&self, ordered: Option<Generation>) -> Option<&Run> {
        let gives_way = |run: &Run| run.gate_closed.is_some() && ordered > Some(run.generation);
        self.state.run.as_ref().filter(|run| run.halted.is_none() && !gives_way(run))
    }

    /// Judges the order that had to wait.
    pub(super) fn take_waiting_order(&mut self, now: Now) {
        let ordered = self.state.waiting_order.as_ref().and_then(|(request, _)| request.generation);
        if self.order_must_wait(ordered) {
            return;
        }
        let Some((request, authenticated)) = self.state.waiting_order.take() else { return };
        self.changed = true;
        if !self.is_repetition(request.transition, request.generation) {
            self.obey_order(request, authenticated, now);
        }
    }

    fn obey_order(&mut self, request: Request, authenticated: bool, now: Now) {
        let transition = request.transition;
        if let Err(refusal) = self.judge_order(&request, authenticated, now) {
            return self.refuse(transition.wire(), Origin::Peer, &refusal, now);
        }
        self.state.waiting_order = None;
        self.state.grant = None;
        if let Some(run) = self.state.run.take() {
            let text = format!("the {} that stood still is given up for {transition}", run.transition);
            self.remark("warning", text);
        }
        self.note_generation(request.generation);
        self.fence_for_order(transition, now);
        self.put_request(request);
    }

    /// The peer is about to take the service: a record that cannot be written must not keep our database writable. One
    /// that fenced itself may be on its way back although it is still seen read-only.
    fn fence_for_order(&mut self, transition: Transition, now: Now) {
        let gives_up = transition == Transition::GolddrPrimary && self.policy.side == Side::Active;
        let stays_read_only = match self.policy.automation {
            Automation::SelfFencing => self.database_is_sound_standby(now.mono),
            Automation::Off | Automation::Advise | Automation::Witnessed => {
                self.database_facts(now.mono).0 == Some(false) && !self.is_unfencing()
            }
        };
        if gives_up && self.policy.fence_old_primary && !stays_read_only {
            self.fence_beside(Step { limit_ms: limits::BESIDE_MS, ..fence_database(Failure::Proceed) });
        }
    }

    fn is_repetition(&self, transition: Transition, generation: Option<Generation>) -> bool {
        let running = self.state.run.as_ref().is_some_and(|run| run.transition == transition);
        let requested = self.state.request.as_ref().is_some_and(|request| request.transition == transition);
        let reached = transition.target().is_some() && transition.target() == self.state.phase();
        let newer = generation.is_some_and(|generation| generation > self.state.generation);
        running || requested || (reached && !(newer && self.state.run.is_some()))
    }

    fn judge_order(&self, request: &Request, authenticated: bool, now: Now) -> Result<(), Refusal> {
        let (transition, generation) = (request.transition, request.generation);
        let old = generation.is_some_and(|generation| generation < self.state.generation);
        if old && !self.mutated(Mutant::ObeysOldOrders) {
            return Err(Refusal::StaleGeneration);
        }
        let (_, phase) = self.read_record()?;
        if let Some(run) = self.run_goes_on(generation) {
            return Err(Refusal::TransitionInProgress(run.transition.wire().to_owned()));
        }
        if !authenticated {
            // Only for the weeks of a migration: what an operator could not ask for is not obeyed either.
            self.permit(phase, transition, Origin::Operator, now)?;
        }
        self.permit(phase, transition, Origin::Peer, now)?;
        self.check_rebuild_can_pass(request, now)
    }
}
