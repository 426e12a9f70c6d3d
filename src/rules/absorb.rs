//! Taking inputs in: every event changes the state here and nowhere else; what follows from the new state is decided
//! afterwards.

use super::Engine;
use super::database::{Role, concerns, role};
use super::dns::DnsKind;
use super::mutant::Mutant;
use super::state::StepStatus;
use crate::model::{
    ActionId, Effect, Event, FailureKind, LeaseHolder, Mono, Note, Now, OutboxId, Outcome, PatroniSample,
    PeerLink, PeerMessage, PeerStatus, Phase, RecordSeen, SensorName, WitnessSample,
};
use crate::plan::{Done, Work};

/// Peer processes whose message numbers are remembered; a peer that restarts more often than this is broken anyway.
const INSTANCES_KEPT: usize = 8;

impl Engine {
    pub(super) fn absorb(&mut self, event: Event, now: Now) {
        match event {
            Event::Dns(sample) => self.dns_seen(&sample, now),
            Event::Record(seen) => self.record_seen(seen, now),
            Event::Patroni(sample) => self.patroni_seen(sample, now),
            Event::PipelineRun(run) => {
                if let Some(policy) = self.policy.pipeline.clone() {
                    let release = self.policy.release.clone();
                    let verdict = self.state.pipeline.seen(&run, &release, &policy, now);
                    self.act_on(verdict, now);
                }
            }
            Event::PeerLink { up, reason } => self.link_changed(up, reason),
            Event::PeerAnswered { asked } => {
                self.state.sensors.peer_heard = Some(now.mono);
                self.lease_renewed(asked.min(now.mono));
            }
            Event::Witness(sample) => self.witness_seen(sample, now),
            Event::Sensor { name, reading } => {
                let memory = match name {
                    SensorName::Application => &mut self.state.sensors.application,
                    SensorName::Cloud => &mut self.state.sensors.cloud,
                };
                *memory = Some((reading, now.mono));
            }
            Event::PeerStatus(status) => self.status_came(status, now),
            Event::PeerMessage { id, message, authenticated } => {
                self.state.sensors.peer_heard = Some(now.mono);
                if self.is_new_message(id) {
                    self.message_came(message, authenticated, now);
                }
            }
            Event::Operator { ticket, who, request } => self.operator_asks(ticket, &who, request, now),
            Event::ActionDone { id, outcome } => self.action_ended(id, &outcome, now),
            Event::Tick => {}
        }
    }

    fn record_seen(&mut self, seen: RecordSeen, now: Now) {
        if self.state.record == seen {
            return;
        }
        match &seen {
            RecordSeen::Missing => {
                self.state.record = seen;
                self.refuse_once(&super::refusal::Refusal::RecordMissing, now);
            }
            RecordSeen::Unknown(why) => {
                self.remark("warning", format!("the record cannot be read: {why}"));
                // What was read last stays known for showing; a failed look changes no decision by itself.
                if !matches!(self.state.record, RecordSeen::Present(_)) {
                    self.state.record = seen;
                }
            }
            RecordSeen::Present(record) => {
                let (before, after) = (self.state.phase(), record.known_phase());
                let home = Some(Phase::ActivePassive);
                if before.is_some() && before != home && after == home {
                    self.state.automation.disarmed =
                        self.state.damping.holds() != Some(DnsKind::Active) && !self.mutated(Mutant::Rearmed);
                }
                self.state.record = seen;
            }
        }
        self.check_record_of_run(now);
    }

    fn patroni_seen(&mut self, sample: PatroniSample, now: Now) {
        let word = match role(&sample) {
            Role::Primary => "primary",
            Role::Standby => "standby",
            Role::Neither => "none",
            Role::Unknown => "unknown",
        };
        let concerns = match &sample {
            PatroniSample::Seen(view) => concerns(view),
            PatroniSample::Unknown(why) => vec![why.clone()],
        };
        let told = (word.to_owned(), concerns);
        if self.state.patroni_told.as_ref() != Some(&told) {
            self.report(Note::PatroniChanged { role: told.0.clone(), concerns: told.1.clone() });
            self.state.patroni_told = Some(told);
        }
        let (timeline, lsn) = match &sample {
            PatroniSample::Seen(view) => (view.timeline, view.lsn),
            PatroniSample::Unknown(_) => (None, None),
        };
        if let Some(run) = self.state.run.as_mut().filter(|run| !run.has_stopped_database()) {
            run.local_lsn = run.local_lsn.max(lsn);
            if run.is_to_stop_database() {
                // The run may have begun before the first look at the database.
                run.timeline_before = run.timeline_before.or(timeline);
            }
        }
        self.state.patroni = Some((sample, now.mono));
        self.measure_lag(now);
    }

    fn link_changed(&mut self, up: bool, reason: String) {
        let link = if up { PeerLink::Up } else { PeerLink::Down };
        if self.state.peer.link != link {
            self.state.peer.link = link;
            self.report(Note::PeerLink { up, reason });
        }
        if let (false, Some((_, at))) = (up, &mut self.state.peer.status) {
            // What was said before a silence is no news after it, however short it was.
            *at = Mono(0);
        }
        if up {
            // Waiting messages go now, not after their pause.
            for entry in &mut self.state.outbox {
                entry.not_before = Mono(0);
            }
        }
    }

    fn witness_seen(&mut self, sample: WitnessSample, now: Now) {
        let held = matches!(sample, WitnessSample::Answered { holder: LeaseHolder::Us, .. });
        match sample {
            WitnessSample::Answered { asked, .. } if held => {
                self.lease_renewed(asked.min(now.mono));
                self.state.sensors.witness = Some((sample, now.mono));
            }
            WitnessSample::Answered { .. } => self.state.sensors.witness = Some((sample, now.mono)),
            // What it said last stays, and grows old.
            WitnessSample::Unknown(_) => {}
        }
    }

    fn status_came(&mut self, status: PeerStatus, now: Now) {
        self.state.sensors.peer_heard = Some(now.mono);
        if let Some(kind) = self.kind_of_result(&status.dns) {
            self.state.sensors.peer_view = Some((kind, now.mono));
        }
        let older = self.state.peer.status.as_ref().is_some_and(|(known, _)| {
            known.instance == status.instance && known.generation > status.generation
        });
        if !older {
            self.note_release(Some(&status));
            self.state.peer.status = Some((status, now.mono));
            self.measure_lag(now);
        }
    }

    /// Whether a message is heard for the first time; a predecessor numbers none.
    fn is_new_message(&mut self, id: Option<(String, OutboxId)>) -> bool {
        let Some((instance, id)) = id else { return true };
        let heard = self.state.handled.get(&instance).is_some_and(|last| id <= *last);
        if heard && !self.mutated(Mutant::HearsTwice) {
            return false;
        }
        if self.state.handled.len() >= INSTANCES_KEPT && !self.state.handled.contains_key(&instance) {
            self.state.handled.pop_first();
        }
        self.state.handled.insert(instance, id);
        true
    }

    fn message_came(&mut self, message: PeerMessage, authenticated: bool, now: Now) {
        match message {
            PeerMessage::Dns { result } => {
                if let Some(kind) = self.kind_of_result(&result) {
                    self.state.sensors.peer_view = Some((kind, now.mono));
                }
            }
            PeerMessage::TransitionTo { state, generation, accept_data_loss } => {
                self.order_from_peer(&state, generation, accept_data_loss, authenticated, now);
            }
            PeerMessage::Confirm { required_state, item } => self.consent_asked(&required_state, item, now),
            PeerMessage::Yes { item, evidence } => self.consent_came(&item, evidence, now),
            PeerMessage::No { item, reason } => self.refusal_came(&item, reason, now),
            PeerMessage::Unknown { event } => {
                self.remark("warning", format!("the peer sent an unknown event {event:?}; ignored"));
            }
        }
    }

    fn action_ended(&mut self, id: ActionId, outcome: &Outcome, now: Now) {
        if self.delivery_ended(id, outcome, now) {
            return;
        }
        let again = self.mutated(Mutant::RepeatsDone);
        let unobserved = (self.mutated(Mutant::PromotionUnobserved), self.mutated(Mutant::FenceUnobserved));
        let always = self.mutated(Mutant::FailureIsDone);
        let Some(step) = self.state.step_in_flight(id) else { return };
        let effect = match &step.step.work {
            Work::Do(effect) => Some(effect.clone()),
            Work::Record { .. } | Work::Tell(_) | Work::Order(_) | Work::Wait => None,
        };
        match outcome {
            Outcome::Done(detail) => {
                step.status = match step.step.done {
                    Done::Answered if !again => StepStatus::Finished,
                    Done::DatabasePrimary if unobserved.0 => StepStatus::Finished,
                    Done::DatabaseFenced if unobserved.1 => StepStatus::Finished,
                    _ => StepStatus::Observing { since: now.mono },
                };
                self.note_success(effect.as_ref(), detail, now);
            }
            Outcome::Failed { .. } if always => step.status = StepStatus::Finished,
            Outcome::Failed { kind, reason } => {
                step.fail(*kind, reason, now.mono);
                if *kind == FailureKind::Permanent && effect == Some(Effect::TriggerPipeline) {
                    // Started but not identifiable, or refused: asking again could start it twice.
                    step.step.limit_ms = 0;
                }
                let name = step.step.name.clone();
                self.report_failed_try(name, reason.clone());
            }
        }
        self.changed = true;
    }
}
