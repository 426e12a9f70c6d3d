//! Requests for transitions: from the record, the peer's orders and automation, into a run or a named refusal.
//!
//! Every request goes through the record, so that people see it there: whoever asks, the record is written first and
//! what it then shows is acted on.

use super::Engine;
use super::mutant::Mutant;

use super::refusal::Refusal;
use super::runs::Start;
use super::state::{Origin, Request, StepRun};
use super::table::{Guard, Rule, Trigger, decide, required_phase};
use crate::model::{
    Effect, Generation, Now, PeerLink, Phase, Record, RecordPhase, RecordSeen, RecordTransition, Transition,
};
use crate::plan::blocks::record_as;
use crate::plan::{Done, Failure, Step, Undo, Work, limits};

/// Name of the chore that writes a request into the record.
pub(super) const RECORD_REQUEST: &str = "record-request";

impl Engine {
    pub(super) fn push_step(&mut self, step: Step) {
        self.supersede_beside(std::slice::from_ref(&step));
        self.state.chores.steps.push(StepRun::new(step));
        self.changed = true;
    }

    /// A single effect outside of any plan.
    pub(super) fn push_chore(&mut self, name: &str, effect: Effect) {
        self.push_step(Step {
            name: name.to_owned(),
            work: Work::Do(effect),
            done: Done::Answered,
            limit_ms: limits::WRITE_MS,
            on_failure: Failure::Proceed,
            undo: Undo::Needless,
            gated: false,
        });
    }

    fn chores_write_record(&self) -> bool {
        self.state.chores.steps.iter().any(|run| matches!(run.step.work, Work::Record { .. }))
    }

    /// Reads what the record asks for and acts on it.
    pub(super) fn intake(&mut self, now: Now) {
        let RecordSeen::Present(record) = &self.state.record else { return };
        let (phase, transition) = (record.phase.clone(), record.transition.clone());
        if self.chores_write_record() {
            return;
        }
        let phase = match phase {
            RecordPhase::Known(phase) => phase,
            RecordPhase::Empty => {
                self.push_step(record_as("record-independent", Some(Phase::Independent), None, None));
                return;
            }
            RecordPhase::Unknown(text) => {
                return self.refuse_once(&Refusal::RecordPhaseUnknown(text), now);
            }
        };
        match transition {
            RecordTransition::Empty => {
                if self.state.run.is_none() {
                    self.state.refused = None;
                    self.intake_idle(phase, now);
                }
            }
            RecordTransition::Unknown(text) => self.refuse_once(&Refusal::UnknownTransition(text), now),
            RecordTransition::Known(transition) => self.intake_known(phase, transition, now),
        }
    }

    fn intake_idle(&mut self, phase: Phase, now: Now) {
        let idle = self.state.ask.is_none() && self.state.request.is_none();
        let partial = matches!(phase, Phase::GoldStandbyPartial | Phase::ActivePassivePartial);
        if idle && partial && !self.state.held && self.state.safe_halt.is_none() {
            self.resume_partial(phase, now);
        }
    }

    fn intake_known(&mut self, phase: Phase, transition: Transition, now: Now) {
        let busy = self.state.run.is_some() && !self.mutated(Mutant::RunsOverRun);
        if busy || self.state.ask.is_some() {
            // Edits of the record during a run are judged when they are observed.
            return;
        }
        if transition.target() == Some(phase) {
            self.state.request = None;
            return self.push_step(record_as("clear-transition", None, Some(String::new()), None));
        }
        let request = self.state.request.take().filter(|request| request.transition == transition);
        let request = request.unwrap_or(Request {
            transition,
            origin: Origin::Record,
            generation: None,
            accept_data_loss: None,
        });
        if let Err(refusal) = self.begin_request(phase, &request, now) {
            self.refuse(transition.wire(), request.origin, &refusal, now);
            let text = format!("{}: {}", refusal.name(), refusal.why());
            self.state.annotated = true;
            self.push_step(record_as("clear-refused-request", Some(phase), Some(String::new()), Some(text)));
        }
    }

    fn begin_request(&mut self, phase: Phase, request: &Request, now: Now) -> Result<(), Refusal> {
        let rule = self.permit(phase, request.transition, request.origin, now)?;
        let loss = request.accept_data_loss.as_ref();
        if matches!(request.origin, Origin::Record | Origin::Operator) {
            self.check_planned_move(phase, request.transition, loss, now)?;
        }
        if rule.guards.contains(&Guard::PeerConsents) {
            self.ask_peer(phase, request, now);
            return Ok(());
        }
        self.check_rebuild_can_pass(request, now)?;
        let generation = request.generation.unwrap_or_else(|| self.next_generation());
        let start = Start {
            transition: request.transition,
            origin: request.origin,
            generation,
            consented: false,
            accept_data_loss: request.accept_data_loss.clone(),
            catch_up_lsn: None,
        };
        self.start_run(rule, phase, start, now);
        Ok(())
    }

    /// The generation after every one that either site is known to have used.
    pub(super) fn next_generation(&self) -> Generation {
        let peers = self.state.peer.status.as_ref().map(|(status, _)| status.generation).unwrap_or_default();
        if self.mutated(Mutant::GenerationOwnOnly) {
            return self.state.generation.next();
        }
        self.state.generation.max(peers).next()
    }

    /// The rule for a request and its guards, except the peer's consent.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn permit(
        &self,
        phase: Phase,
        transition: Transition,
        origin: Origin,
        now: Now,
    ) -> Result<&'static Rule, Refusal> {
        self.permit_but(phase, transition, origin, None, now)
    }

    /// The same for a request to which the peer has just said yes: that proves it alive, also where it was started
    /// again and its heartbeats are not answered yet.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn permit_consented(
        &self,
        phase: Phase,
        transition: Transition,
        origin: Origin,
        now: Now,
    ) -> Result<&'static Rule, Refusal> {
        self.permit_but(phase, transition, origin, Some(Guard::PeerNotLost), now)
    }

    fn permit_but(
        &self,
        phase: Phase,
        transition: Transition,
        origin: Origin,
        met: Option<Guard>,
        now: Now,
    ) -> Result<&'static Rule, Refusal> {
        if let Some(what) = &self.state.safe_halt {
            return Err(Refusal::JournalDamaged(what.clone()));
        }
        let trigger = match origin {
            Origin::Record | Origin::Operator => Trigger::Asked(transition),
            Origin::Peer => Trigger::Ordered(transition),
            Origin::Automation => Trigger::TrafficMoved,
        };
        let rule = match decide(phase, trigger, self.policy.side) {
            // The active site may be ordered by the peer to do what a person may ask of it.
            Err(Refusal::NotAtThisSide) if origin == Origin::Peer => {
                decide(phase, Trigger::Asked(transition), self.policy.side)?
            }
            other => other?,
        };
        for guard in rule.guards.iter().filter(|guard| Some(**guard) != met) {
            self.check_guard(*guard, now)?;
        }
        if transition == Transition::GolddrMaintenance && self.state.lease.fenced.is_some() {
            // Detaching the other site means that this one serves.
            let why = "this site has fenced itself and cannot stay alone".to_owned();
            return Err(Refusal::NoLease(why));
        }
        if origin != Origin::Peer && self.is_lent(now.mono) {
            return Err(Refusal::TransitionInProgress("a failback that this site consented to".to_owned()));
        }
        let waits_for_order =
            !matches!(transition, Transition::GolddrPrimary | Transition::ActivePassiveForce)
                && origin != Origin::Peer
                && self.state.outbox.iter().any(super::state::Outgoing::is_order);
        if waits_for_order {
            let what = "the order of the last one has not reached the other site".to_owned();
            return Err(Refusal::TransitionInProgress(what));
        }
        Ok(rule)
    }

    fn check_guard(&self, guard: Guard, now: Now) -> Result<(), Refusal> {
        match guard {
            Guard::PeerNotLost if self.state.peer.link == PeerLink::Down => Err(Refusal::PeerLost),
            Guard::PeerNotLost | Guard::PeerConsents => Ok(()),
            Guard::DatabaseIsPrimary => match self.database_facts(now.mono) {
                (Some(true), ..) | (None, Some(false), ..) => Ok(()),
                (Some(false), ..) => Err(Refusal::DatabaseNotPrimary),
                (None, ..) => Err(Refusal::DatabaseUnknown),
            },
            Guard::AutomationMayAct => self.automation_may_act(),
        }
    }

    /// A rebuild whose gate can never open is refused before anything is touched: a predecessor peer sends no facts.
    pub(super) fn check_rebuild_can_pass(&self, request: &Request, now: Now) -> Result<(), Refusal> {
        let rebuilds =
            self.wants_maintenance(request.transition) && !self.database_is_sound_standby(now.mono);
        let strict = self.policy.gate == super::policy::DestructionGate::Strict;
        let silent = self.state.peer.status.is_none();
        if rebuilds && strict && silent && request.accept_data_loss.is_none() {
            let what =
                "its agent reports no facts; DESTRUCTION_GATE=consent is for a predecessor peer".to_owned();
            return Err(Refusal::PeerNotVerified(what));
        }
        Ok(())
    }

    /// Says a refusal that leaves the record as it is, once per text.
    pub(super) fn refuse_once(&mut self, refusal: &Refusal, now: Now) {
        let text = refusal.why();
        if self.state.refused.as_ref() != Some(&text) {
            self.refuse("record", Origin::Record, refusal, now);
            self.state.refused = Some(text);
        }
    }

    /// Puts a request into the record, from where [`Engine::intake`] takes it.
    pub(super) fn put_request(&mut self, request: Request) {
        let transition = request.transition.wire().to_owned();
        self.state.request = Some(request);
        self.push_step(record_as(RECORD_REQUEST, None, Some(transition), None));
    }

    /// What becomes of a request that could not be written into the record in time; `true` = it is tried again.
    /// The peer's order was acknowledged and is never forgotten; whoever else asked is told no and may ask again.
    pub(super) fn keeps_request(&mut self, now: Now) -> bool {
        let forgets = self.mutated(Mutant::ForgetsUnwrittenOrders);
        let taken = self.state.request.take_if(|request| request.origin != Origin::Peer || forgets);
        let Some(request) = taken else {
            return self.state.request.is_some();
        };
        self.refuse(request.transition.wire(), request.origin, &Refusal::RecordUnknown, now);
        false
    }

    /// The record as last seen, and its phase.
    ///
    /// # Errors
    /// There is none, it was not read, or its phase is no known one.
    pub(super) fn read_record(&self) -> Result<(&Record, Phase), Refusal> {
        let record = match &self.state.record {
            RecordSeen::Present(record) => record,
            RecordSeen::Missing => return Err(Refusal::RecordMissing),
            RecordSeen::Unknown(_) => return Err(Refusal::RecordUnknown),
        };
        let unknown = || Refusal::RecordPhaseUnknown(format!("{:?}", record.phase));
        Ok((record, record.known_phase().ok_or_else(unknown)?))
    }

    /// Phase that the peer must be in for a transition from our phase.
    pub(super) fn required(&self, transition: Transition, phase: Phase) -> Phase {
        required_phase(transition, phase)
    }
}
