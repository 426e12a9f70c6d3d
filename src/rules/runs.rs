//! Runs: from an accepted transition to the settled pair.

use super::Engine;
use super::lanes::Progress;
use super::mutant::Mutant;
use super::pipeline::{Pipeline, Verdict};
use super::state::{Halt, Lane, Origin, Run, StepRun};
use super::table::Rule;
use crate::model::{
    Detail, Effect, Generation, Note, Now, PeerMessage, Phase, RecordSeen, RecordTransition, Side, Transition,
};
use crate::plan::{self, Facts, Failure, Step, transitions};

/// Name of the chore that tries the pipeline again.
pub(super) const START_AGAIN: &str = "start-pipeline-again";
/// Rule id of a rebuild that goes on after a restart.
pub const REBUILD_RESUMED: &str = "rebuild-resumed";

/// What a run starts with.
pub(super) struct Start {
    pub(super) transition: Transition,
    pub(super) origin: Origin,
    pub(super) generation: Generation,
    pub(super) consented: bool,
    pub(super) accept_data_loss: Option<String>,
    pub(super) catch_up_lsn: Option<u64>,
}

impl Engine {
    /// What a plan made now would depend on.
    pub fn facts(&self, origin: Origin, catch_up: bool, now: Now) -> Facts {
        Facts {
            side: self.policy.side,
            ordered_by_peer: origin == Origin::Peer,
            automatic: origin == Origin::Automation && !self.mutated(Mutant::AssumesFenced),
            // A fence on its way is not seen yet, whatever asked for it.
            database_is_primary: self.database_is_sound_primary(now.mono)
                && !self.state.grant.as_ref().is_some_and(|grant| grant.fenced),
            database_is_standby: self.database_is_sound_standby(now.mono) && !self.is_changing_role(),
            database_is_stopped: self.state.database_stopped,
            catch_up,
            promote_first: self.policy.promote_first,
            fence: self.policy.fence_old_primary,
            portal: self.policy.portal,
            tekton: self.policy.pipeline.is_some(),
            routes: self.policy.routes,
            peer_lease_ms: self.policy.peer_lease_ms(),
            witness: self.policy.safety.witness,
            health_replicas: self.policy.health_replicas,
            database_replicas: self.policy.database_replicas,
            application_replicas: self.policy.application_replicas,
        }
    }

    pub(super) fn start_run(&mut self, rule: &Rule, phase: Phase, start: Start, now: Now) {
        let facts = self.facts(start.origin, start.catch_up_lsn.is_some(), now);
        let steps = plan::build(start.transition, &facts);
        self.begin(rule.id, rule.why, phase, start, facts, steps, now);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one record, put together here only")]
    fn begin(
        &mut self,
        rule: &str,
        why: &str,
        from: Phase,
        start: Start,
        facts: Facts,
        steps: Vec<Step>,
        now: Now,
    ) {
        let raised = if self.mutated(Mutant::GenerationNotRaised) { Generation(0) } else { start.generation };
        let state = &mut self.state;
        state.generation = state.generation.max(raised);
        state.pipeline = Pipeline::default();
        state.followup = None;
        // Of what was left behind only a call under way is remembered: its effect may still come.
        state.beside.retain(StepRun::is_role_call);
        state.beside.iter_mut().for_each(StepRun::end_with_call);
        state.request = None;
        state.grant = None;
        state.held = false;
        state.settled = false;
        state.unsettled = Some((start.transition, start.generation));
        if start.origin != Origin::Automation && start.transition.target() == Some(Phase::ActivePassive) {
            // A person's failback is a person's acknowledgement of the failover before it.
            state.automation.unacknowledged = false;
        }
        // Neither an older order nor an older consent is meant any more.
        state.outbox.retain(|entry| !entry.is_order() && !matches!(entry.message, PeerMessage::Yes { .. }));
        let names = steps.iter().map(|step| step.name.clone()).collect();
        let trial = self.trial_run(from, &start, now);
        let lane = Lane::new(steps);
        self.state.run = Some(Run { rule: rule.to_owned(), lane, facts, ..trial });
        self.report(Note::TransitionStarted {
            rule: rule.to_owned(),
            transition: start.transition.wire().to_owned(),
            generation: start.generation,
            side: self.policy.side,
            why: why.to_owned(),
            steps: names,
        });
        if let Some(reason) = start.accept_data_loss {
            self.remark("warning", format!("data loss was accepted by a person: {reason}"));
        }
        self.changed = true;
    }

    /// Goes on with a rebuild that the record shows half done while no run is known (the agent was restarted).
    pub(super) fn resume_partial(&mut self, phase: Phase, now: Now) {
        let (transition, target) = match (phase, self.policy.side) {
            (Phase::GoldStandbyPartial, Side::Active) => (Transition::GoldStandby, Phase::GoldStandby),
            (Phase::ActivePassivePartial, Side::Passive) => (Transition::ActivePassive, Phase::ActivePassive),
            _ => return,
        };
        let facts = self.facts(Origin::Record, false, now);
        let steps = transitions::build_rest_of_rebuild(target, &facts);
        let start = Start {
            transition,
            origin: Origin::Record,
            generation: self.state.generation.next(),
            consented: true,
            accept_data_loss: None,
            catch_up_lsn: None,
        };
        let why = "the record shows a rebuild half done; the rest follows";
        self.begin(REBUILD_RESUMED, why, phase, start, facts, steps, now);
        if let Some(run) = &mut self.state.run {
            // The old copy is gone; what counts is that the first member follows the peer.
            run.local_lsn = None;
        }
    }

    pub(super) fn advance_run(&mut self, now: Now) {
        if !self.state.chores.is_finished() {
            return;
        }
        let Some(mut run) = self.state.run.take() else { return };
        if run.halted.is_none() {
            let mut lane = std::mem::take(&mut run.lane);
            self.advance_lane(&mut lane, &mut run, now);
            run.lane = lane;
        }
        if run.lane.is_finished() {
            self.finish(&run, now);
        } else {
            self.state.run = Some(run);
        }
    }

    fn advance_lane(&mut self, lane: &mut Lane, run: &mut Run, now: Now) {
        while let Some(step) = lane.steps.get_mut(lane.cursor) {
            let progress = self.drive(step, Some(run), now);
            let how = match progress {
                Progress::Waiting => return,
                Progress::Done(how) => how,
                Progress::Beside => {
                    self.set_aside(step);
                    "beside"
                }
                Progress::Failed(reason) => {
                    let stops = step.step.on_failure == Failure::Halt
                        || step.step.gated
                        || self.peer_seen_writable(step, run, now);
                    if stops && !self.mutated(Mutant::HaltPassed) {
                        let name = step.step.name.clone();
                        return self.halt(run, name, reason);
                    }
                    self.remark("error", format!("{} was not done: {reason}; going on", step.step.name));
                    "not-done"
                }
            };
            if step.step.name == "promote-database" && how == "done" {
                self.report_divergence(now);
            }
            self.report(Note::StepDone {
                transition: run.transition.wire().to_owned(),
                generation: run.generation,
                step: step.step.name.clone(),
                how: how.to_owned(),
            });
            lane.cursor += 1;
            self.changed = true;
        }
    }

    pub(super) fn halt(&mut self, run: &mut Run, step: String, reason: String) {
        if !self.mutated(Mutant::HaltUntold) {
            self.report(Note::Halted {
                transition: run.transition.wire().to_owned(),
                generation: run.generation,
                step: step.clone(),
                reason: reason.clone(),
            });
        }
        run.halted = Some(Halt { step, reason });
        self.changed = true;
    }

    /// How much the other site had written that never came here, as far as both sides' figures tell.
    fn report_divergence(&mut self, now: Now) {
        let (_, _, _, here) = self.database_facts(now.mono);
        let there = self.state.peer.status.as_ref().and_then(|(status, _)| status.lsn);
        let bytes = here.zip(there).map(|(here, there)| there.saturating_sub(here));
        let basis = "last position that the peer's agent reported, against ours at promotion".to_owned();
        self.report(Note::DivergenceReported { bytes, basis });
    }

    fn finish(&mut self, run: &Run, now: Now) {
        let automatic_failover =
            run.origin == Origin::Automation && run.transition == Transition::GolddrPrimary;
        self.state.automation.unacknowledged |= automatic_failover;
        self.state.annotated = false;
        if run.transition.target() == Some(Phase::ActivePassive) && self.policy.side == Side::Active {
            // A person brought the service home; what this site did to itself before is over.
            self.state.lease.fenced = None;
        }
        self.report(Note::TransitionDone {
            transition: run.transition.wire().to_owned(),
            generation: run.generation,
            took_ms: now.mono.since(run.started),
        });
        self.changed = true;
    }

    /// Whether maintenance is to be on once the deployment has succeeded: at a site that stands by.
    pub(super) fn wants_maintenance(&self, transition: Transition) -> bool {
        match transition {
            Transition::GoldStandby => self.policy.side == Side::Active,
            Transition::ActivePassive | Transition::ActivePassiveForce => self.policy.side == Side::Passive,
            Transition::GolddrPrimary | Transition::GolddrMaintenance | Transition::TestPingPong => false,
        }
    }

    /// Takes note of a success that has consequences of its own.
    pub(super) fn note_success(&mut self, effect: Option<&Effect>, detail: &Detail, now: Now) {
        let transition = self.state.unsettled.map(|(transition, _)| transition);
        let maintenance = transition.is_some_and(|transition| self.wants_maintenance(transition));
        match (effect, detail) {
            (Some(Effect::TriggerPipeline), Detail::PipelineStarted { event_id }) => {
                self.state.pipeline.started(event_id.clone(), maintenance, now);
            }
            (Some(Effect::ScaleDatabase { replicas: 1.. }), _) => self.state.database_stopped = false,
            (Some(Effect::ScaleApplication { .. }), _) if transition.is_some() => {
                self.state.pipeline.scaled_directly(maintenance);
                self.follow_up(now);
            }
            _ => {}
        }
    }

    fn follow_up(&mut self, now: Now) {
        let facts = self.facts(Origin::Record, false, now);
        let steps = transitions::build_followup(self.state.pipeline.maintenance, &facts);
        self.supersede_beside(&steps);
        self.state.followup = Some(Lane::new(steps));
        self.changed = true;
    }

    pub(super) fn advance_followup(&mut self, now: Now) {
        if self.state.run.is_some() {
            return;
        }
        let Some(mut lane) = self.state.followup.take() else { return };
        while let Some(step) = lane.steps.get_mut(lane.cursor) {
            match self.drive(step, None, now) {
                Progress::Waiting => break,
                Progress::Done(_) => {}
                Progress::Beside => self.set_aside(step),
                Progress::Failed(reason) => {
                    self.remark("error", format!("{} was given up: {reason}", step.step.name));
                }
            }
            lane.cursor += 1;
            self.changed = true;
        }
        if !lane.is_finished() {
            self.state.followup = Some(lane);
        }
    }

    pub(super) fn advance_pipeline(&mut self, now: Now) {
        let Some(policy) = self.policy.pipeline.clone() else { return };
        let verdict = self.state.pipeline.tick(&policy, now);
        self.act_on(verdict, now);
    }

    pub(super) fn act_on(&mut self, verdict: Verdict, now: Now) {
        let pipeline_note = |engine: &mut Self, state: String, declared_failed: bool| {
            let release = engine.state.pipeline.release.clone();
            let release = release.unwrap_or_else(|| engine.policy.release.clone());
            engine.report(Note::Pipeline { release, state, declared_failed });
            engine.changed = true;
        };
        match verdict {
            Verdict::Nothing => {}
            Verdict::Succeeded => {
                pipeline_note(self, "Succeeded".to_owned(), false);
                self.follow_up(now);
            }
            Verdict::FailedOnce(reason) => pipeline_note(self, reason, false),
            Verdict::GaveUp(reason) => pipeline_note(self, reason, true),
            Verdict::Cancel(name) => {
                pipeline_note(self, "Timeout".to_owned(), false);
                self.push_chore("cancel-pipeline-run", Effect::CancelPipelineRun { name });
            }
            Verdict::StartAgain => {
                pipeline_note(self, "Retry".to_owned(), false);
                self.push_chore(START_AGAIN, Effect::TriggerPipeline);
            }
        }
    }

    /// A further try of the pipeline could not even be started: it counts as failed, or nothing would ever follow.
    pub(super) fn retry_not_started(&mut self, reason: &str, now: Now) {
        let Some(policy) = self.policy.pipeline.clone() else { return };
        let verdict = self.state.pipeline.start_failed(reason, &policy, now);
        self.act_on(verdict, now);
    }

    /// Says once that everything has happened.
    pub(super) fn settle(&mut self) {
        let state = &self.state;
        let busy = state.run.is_some()
            || state.followup.is_some()
            || !state.beside.is_empty()
            || state.pipeline.stage != super::pipeline::Stage::Idle
                && !self.mutated(Mutant::PipelineForgotten);
        if busy || state.settled {
            return;
        }
        self.state.settled = true;
        if let Some((transition, generation)) = self.state.unsettled.take() {
            self.report(Note::Settled { transition: transition.wire().to_owned(), generation });
        }
        self.changed = true;
    }

    /// Compares an observed record with what a run under way may have written.
    pub(super) fn check_record_of_run(&mut self, now: Now) {
        let Some(mut run) = self.state.run.take() else { return };
        let edit = match &self.state.record {
            RecordSeen::Present(record) => {
                let foreign = match &record.transition {
                    RecordTransition::Empty => false,
                    RecordTransition::Known(known) => *known != run.transition,
                    RecordTransition::Unknown(_) => true,
                };
                let phase_is_ours = record.known_phase().is_some_and(|phase| run.may_show(phase));
                match (foreign, phase_is_ours) {
                    (_, false) => Some(format!("last_stable_state is {:?}", record.phase)),
                    (true, true) => Some(format!("transition is {:?}", record.transition)),
                    (false, true) => None,
                }
            }
            RecordSeen::Missing => Some("it was deleted".to_owned()),
            RecordSeen::Unknown(_) => None,
        };
        if let Some(edit) = edit
            && self.state.refused.as_ref() != Some(&edit)
        {
            let refusal = super::refusal::Refusal::RecordEdited(edit.clone());
            self.refuse(&edit, Origin::Record, &refusal, now);
            self.state.refused = Some(edit);
            // A failover goes on; a plan that would still destroy data stops for a person.
            if run.halted.is_none() && run.destroys_data_later() {
                let step = run.lane.current().map(|step| step.step.name.clone()).unwrap_or_default();
                self.halt(&mut run, step, refusal.why());
            }
        }
        self.state.run = Some(run);
    }
}
