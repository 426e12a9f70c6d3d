//! Lanes: steps driven one after the other until the world shows what each wanted.
//!
//! One function drives every step ([`Engine::drive`]); the lanes differ only in what a failure means. A run halts, a
//! chore is dropped and comes again from the level trigger, a step beside the plan is reported and given up.

use super::Engine;
use super::mutant::Mutant;
use super::refusal::Refusal;
use super::requests::RECORD_REQUEST;
use super::runs::START_AGAIN;
use super::state::{GateClosed, Lane, Run, StepRun, StepStatus};
use crate::model::{
    Effect, FailureKind, Mono, Note, Now, PeerMessage, RecordPhase, RecordSeen, RecordTransition, RecordWrite,
};
use crate::plan::limits::GATE_MS;
use crate::plan::{Done, Failure, Step, Work};

/// First pause after a failed try; it doubles up to [`BACKOFF_MAX_MS`].
const BACKOFF_MS: u64 = 500;
const BACKOFF_MAX_MS: u64 = 10_000;
/// Added to a call's own limit before the engine stops waiting for its outcome.
const OUTCOME_GRACE_MS: u64 = 5_000;
/// How long the engine waits for the world to show an answered call before it asks for it again.
const OBSERVE_AGAIN_MS: u64 = 15_000;

/// Where a step stands after it was driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    Done(&'static str),
    Beside,
    Failed(String),
}

impl StepRun {
    /// Notes a failed try and plans the next one.
    pub(super) fn fail(&mut self, kind: FailureKind, reason: &str, now: Mono) {
        let doubled = BACKOFF_MS << self.attempt.saturating_sub(1).min(5);
        let pause = match kind {
            FailureKind::Conflict => BACKOFF_MS,
            FailureKind::Transient => doubled.min(BACKOFF_MAX_MS),
            FailureKind::Permanent => BACKOFF_MAX_MS,
        };
        self.last_error = Some(reason.to_owned());
        self.status = StepStatus::Backoff { until: now.plus(pause) };
    }
}

fn is_at_rest(status: &StepStatus) -> bool {
    matches!(status, StepStatus::Pending | StepStatus::Backoff { .. })
}

impl Engine {
    /// Drives one step as far as it goes now. `run` is the transition that it belongs to, if any.
    pub(super) fn drive(&mut self, step: &mut StepRun, run: Option<&mut Run>, now: Now) -> Progress {
        let started = *step.started.get_or_insert(now.mono);
        let run = match run {
            Some(run) if step.step.gated && is_at_rest(&step.status) => {
                if let Err(refusal) = self.step_gate(run, now) {
                    // The clock of a gated step starts when its gate opens.
                    step.started = None;
                    return self.at_closed_gate(run, &refusal, now);
                }
                run.gate_closed = None;
                Some(&*run)
            }
            other => other.map(|run| &*run),
        };
        if self.has_ended(step, run, started, now.mono) {
            step.status = StepStatus::Finished;
            return Progress::Done(if step.attempt == 0 { "already-so" } else { "done" });
        }
        let waited = now.mono.since(started);
        if waited >= step.step.limit_ms && !matches!(step.status, StepStatus::InFlight { .. }) {
            let reason = step.last_error.clone().unwrap_or_else(|| format!("not seen: {}", step.step.done));
            return Progress::Failed(reason);
        }
        let waits = self.looks_first(step, run, started, now.mono)
            || self.awaits_role_call(step)
            || self.awaits_lender(step, run, now.mono);
        if !waits {
            self.push_on(step, run, now);
        }
        if matches!(step.status, StepStatus::Finished) {
            return Progress::Done("done");
        }
        match step.step.on_failure {
            Failure::Beside { patience_ms } if waited >= patience_ms => Progress::Beside,
            Failure::Beside { .. } | Failure::Halt | Failure::Proceed => Progress::Waiting,
        }
    }

    fn at_closed_gate(&mut self, run: &mut Run, refusal: &Refusal, now: Now) -> Progress {
        let (name, why) = (refusal.name().to_owned(), refusal.why());
        let told = run.gate_closed.as_ref();
        if told.is_none_or(|told| told.refusal != name) {
            self.remark("warning", format!("the destruction gate is closed: {why}"));
        }
        let since = told.map_or(now.mono, |told| told.since);
        run.gate_closed = Some(GateClosed { since, refusal: name, why: why.clone() });
        if now.mono.since(since) >= GATE_MS { Progress::Failed(why) } else { Progress::Waiting }
    }

    fn has_ended(&self, step: &StepRun, run: Option<&Run>, started: Mono, now: Mono) -> bool {
        match step.status {
            StepStatus::Finished => true,
            StepStatus::InFlight { .. } => false,
            // What the record's annotation says is not observed, so it counts only once it was written.
            StepStatus::Pending | StepStatus::Backoff { .. } if writes_annotation(&step.step.work) => false,
            StepStatus::Pending | StepStatus::Backoff { .. } => self.world_shows(step, run, started, now),
            // What was seen before the call was answered may be the world before its effect.
            StepStatus::Observing { since } => self.world_shows(step, run, since.plus(1).max(started), now),
        }
    }

    /// Whether this process has not looked yet at the database that the step changes.
    fn has_not_looked(&self, step: &StepRun) -> bool {
        step.step.done == Done::DatabasePrimary && self.state.patroni.is_none()
    }

    /// Whether a look that is newer than the step is waited for before anything is asked: what the plan counted as
    /// done may have been undone by a call of before, and what a person lets go on may have been done by its own.
    fn looks_first(&self, step: &StepRun, run: Option<&Run>, started: Mono, now: Mono) -> bool {
        let counted = step.attempt == 0 && run.is_some_and(|run| run.facts.database_is_primary);
        let resumed = step.attempt > 0 && step.status == StepStatus::Pending;
        let looked = self.state.patroni.as_ref().is_some_and(|(_, at)| *at >= started);
        let patient = now.since(started) < OBSERVE_AGAIN_MS;
        (counted || resumed) && step.step.done == Done::DatabasePrimary && !looked && patient
    }

    /// Starts, repeats or times out the step's command.
    fn push_on(&mut self, step: &mut StepRun, run: Option<&Run>, now: Now) {
        match step.status {
            StepStatus::Finished => {}
            StepStatus::InFlight { .. } if self.mutated(Mutant::OverdueWaits) => {}
            StepStatus::InFlight { until, .. } if now.mono >= until => {
                let reason = "no outcome within its limit";
                step.fail(FailureKind::Transient, reason, now.mono);
                self.report_failed_try(step.step.name.clone(), reason.to_owned());
                self.changed = true;
            }
            StepStatus::InFlight { .. } => {}
            StepStatus::Backoff { until } if now.mono < until => {}
            StepStatus::Observing { since } if now.mono.since(since) < OBSERVE_AGAIN_MS => {}
            // A promotion that may have happened before a restart is looked for before it is asked for again.
            _ if step.attempt > 0 && self.has_not_looked(step) => {}
            StepStatus::Pending | StepStatus::Backoff { .. } | StepStatus::Observing { .. } => {
                self.start_try(step, run, now);
            }
        }
    }

    fn start_try(&mut self, step: &mut StepRun, run: Option<&Run>, now: Now) {
        let effect = match &step.step.work {
            Work::Do(effect) => effect.clone(),
            Work::Record { phase, transition, annotation } => Effect::WriteRecord(RecordWrite {
                phase: phase.map(|phase| phase.wire().to_owned()),
                transition: transition.clone(),
                timestamp: now.wall.to_iso(),
                annotation: annotation.clone().or_else(|| self.state.annotated.then(String::new)),
                expect: self.record_version(),
            }),
            Work::Tell(message) => return self.tell(step, message.clone(), now),
            Work::Order(transition) => {
                let generation = run.map(|run| run.generation);
                let state = transition.wire().to_owned();
                let accept_data_loss = run.and_then(|run| run.accept_data_loss.clone());
                let order = PeerMessage::TransitionTo { state, generation, accept_data_loss };
                return self.tell(step, order, now);
            }
            Work::Wait => return,
        };
        step.attempt += 1;
        self.state.database_stopped |= effect == Effect::ScaleDatabase { replicas: 0 };
        if let Some(run) = run {
            self.report(Note::StepStarted {
                transition: run.transition.wire().to_owned(),
                generation: run.generation,
                step: step.step.name.clone(),
                attempt: step.attempt,
            });
        }
        let (action, limit_ms) = self.perform(&step.step.name, effect);
        step.status = StepStatus::InFlight { action, until: now.mono.plus(limit_ms + OUTCOME_GRACE_MS) };
        self.changed = true;
    }

    fn tell(&mut self, step: &mut StepRun, message: PeerMessage, now: Now) {
        step.attempt += 1;
        self.enqueue(message, now);
        step.status = StepStatus::Finished;
    }

    fn record_version(&self) -> Option<String> {
        match &self.state.record {
            RecordSeen::Present(record) => record.resource_version.clone(),
            RecordSeen::Missing | RecordSeen::Unknown(_) => None,
        }
    }

    /// Says that a try failed; the next one is planned already.
    pub(super) fn report_failed_try(&mut self, step: String, reason: String) {
        let run = self.state.run.as_ref();
        let transition = run.map(|run| run.transition.wire().to_owned()).unwrap_or_default();
        let generation = run.map_or(self.state.generation, |run| run.generation);
        self.report(Note::StepFailed { transition, generation, step, reason });
    }

    /// Whether the world is seen in the state that the step wants.
    fn world_shows(&self, step: &StepRun, run: Option<&Run>, started: Mono, now: Mono) -> bool {
        // Whatever the role is, it may be another one in a moment.
        if step.waits_for_role() && self.has_call_of_before() {
            return false;
        }
        match step.step.done {
            Done::Answered => false,
            Done::DatabasePrimary => {
                // A database that was a primary before needs no new timeline.
                let promoted_from = run.filter(|run| !run.facts.database_is_primary);
                self.is_primary_since(started, promoted_from.and_then(|run| run.timeline_before), now)
            }
            Done::DatabaseStandby => self.is_standby_since(started, now),
            Done::DatabaseFenced => self.is_fenced_since(started, now),
            Done::CaughtUp => self.has_replayed(run.and_then(|run| run.catch_up_lsn), now),
            Done::PeerFenced => self.peer_is_fenced(run.map(|run| run.generation), now),
            Done::WitnessHeld => self.holds_witness_lease(now),
            Done::RecordShows => self.record_shows(&step.step.work),
        }
    }

    fn record_shows(&self, work: &Work) -> bool {
        let (Work::Record { phase, transition, .. }, RecordSeen::Present(record)) =
            (work, &self.state.record)
        else {
            return false;
        };
        let phase_shown = phase.is_none_or(|phase| record.phase == RecordPhase::Known(phase));
        let transition_shown = transition.as_ref().is_none_or(|wanted| match &record.transition {
            RecordTransition::Empty => wanted.is_empty(),
            RecordTransition::Known(known) => known.wire() == wanted,
            RecordTransition::Unknown(text) => text == wanted,
        });
        phase_shown && transition_shown
    }

    /// Drives the chores: single record writes and operators' actions, in order.
    pub(super) fn advance_chores(&mut self, now: Now) {
        let mut lane = std::mem::take(&mut self.state.chores);
        while let Some(step) = lane.steps.get_mut(lane.cursor) {
            match self.drive(step, None, now) {
                Progress::Waiting => break,
                Progress::Done(_) => {}
                Progress::Beside => {
                    let (upto, later) = lane.steps.split_at_mut(lane.cursor + 1);
                    let step = &mut upto[lane.cursor];
                    // What a later chore would undo must not come after it.
                    if later.iter().any(|later| replaces(&later.step.work, &step.step.work)) {
                        step.status = StepStatus::Finished;
                    } else {
                        self.set_aside(step);
                    }
                }
                Progress::Failed(reason) => {
                    let text = format!("{} was given up: {reason}", step.step.name);
                    self.remark("error", text);
                    if step.step.name == START_AGAIN {
                        self.retry_not_started(&reason, now);
                    }
                    if step.step.name == RECORD_REQUEST && self.keeps_request(now) {
                        *step = StepRun::new(step.step.clone());
                        continue;
                    }
                }
            }
            lane.cursor += 1;
            self.changed = true;
        }
        // Chores may have been added while the lane was driven.
        lane.steps.append(&mut self.state.chores.steps);
        self.state.chores = if lane.is_finished() { Lane::default() } else { lane };
    }

    /// Lets the plan go on while the step is tried again beside it until its limit.
    pub(super) fn set_aside(&mut self, step: &mut StepRun) {
        let mut left = step.clone();
        left.step.on_failure = Failure::Proceed;
        self.state.beside.push(left);
        // An outcome that is still to come belongs to the one that is left behind, not to its place in the plan.
        step.status = StepStatus::Finished;
    }

    /// Gives up what was left behind and would undo one of these steps if it succeeded after it.
    pub(super) fn supersede_beside(&mut self, steps: &[Step]) {
        let replaced = |old: &StepRun| steps.iter().any(|step| replaces(&step.work, &old.step.work));
        self.state.beside.retain(|old| !replaced(old));
    }

    /// Drives what the plan left behind.
    pub(super) fn advance_beside(&mut self, now: Now) {
        let mut left = std::mem::take(&mut self.state.beside);
        let outlived = left.iter().any(StepRun::is_call_of_before);
        left.retain_mut(|step| match self.drive(step, None, now) {
            Progress::Waiting | Progress::Beside => true,
            Progress::Done(_) => {
                self.remark("info", format!("{} was done after all", step.step.name));
                self.changed = true;
                false
            }
            Progress::Failed(reason) => {
                self.remark("error", format!("{} was given up: {reason}", step.step.name));
                self.changed = true;
                false
            }
        });
        self.state.beside.append(&mut left);
        if outlived && !self.state.beside.iter().any(StepRun::is_call_of_before) {
            self.look_again(now.mono);
        }
    }
}

/// Whether both change the same thing at the site, so that the later one must have the last word.
fn replaces(later: &Work, earlier: &Work) -> bool {
    match (later, earlier) {
        (Work::Do(later), Work::Do(earlier)) => {
            std::mem::discriminant(later) == std::mem::discriminant(earlier)
        }
        _ => false,
    }
}

fn writes_annotation(work: &Work) -> bool {
    matches!(work, Work::Record { annotation: Some(text), .. } if !text.is_empty())
}

/// The next moment at which a step needs to be looked at, and why. A deadline in the past means: at once.
pub(super) fn step_deadline(step: &StepRun) -> Option<(Mono, &'static str)> {
    let started = step.started?;
    let limit = started.plus(step.step.limit_ms);
    let next = match step.status {
        StepStatus::Finished => return None,
        StepStatus::InFlight { until, .. } => (until, "outcome overdue"),
        StepStatus::Backoff { until } => (until.min(limit), "next try"),
        StepStatus::Observing { since } => (since.plus(OBSERVE_AGAIN_MS).min(limit), "observe again"),
        // Only a promotion that looks first stays here longer than a moment.
        StepStatus::Pending if step.step.done == Done::DatabasePrimary => {
            (started.plus(OBSERVE_AGAIN_MS).min(limit), "look first")
        }
        StepStatus::Pending => (limit, "step limit"),
    };
    let patience = match step.step.on_failure {
        Failure::Beside { patience_ms } => Some((started.plus(patience_ms), "patience")),
        Failure::Halt | Failure::Proceed => None,
    };
    patience.into_iter().chain([next]).min_by_key(|(at, _)| *at)
}
