//! What is known about both databases, and the gate in front of everything that destroys data.
//!
//! A fact counts only while it is fresh; an old fact is unknown, and nothing irreversible follows from unknown.

use super::Engine;
use super::database::{Role, concerns, follows, is_writable, role};
use super::mutant::Mutant;
use super::policy::{Automation, DestructionGate};
use super::refusal::Refusal;
use super::state::{Origin, Run, StepRun};
use crate::model::{Effect, Generation, Mono, Now, PatroniSample, PatroniView, PeerLink, PeerStatus, Phase};
use crate::plan::{Done, Work};

impl Run {
    /// Whether this run is yet to stop the local database, so that what is seen of it is the copy that would go.
    pub(super) fn is_to_stop_database(&self) -> bool {
        let stop = Work::Do(Effect::ScaleDatabase { replicas: 0 });
        self.lane.steps.iter().skip(self.lane.cursor).any(|step| step.step.work == stop)
    }
}

/// Whether a primary takes writes and will go on: its configuration may have been told to stand by a moment ago.
fn stays_primary(sample: &PatroniSample, view: &PatroniView) -> bool {
    is_writable(sample) != Some(false) && !view.standby_configured
}

impl Engine {
    /// The last look at Patroni, where it is fresh, and when it was.
    fn patroni_now(&self, now: Mono) -> Option<(&PatroniSample, Mono)> {
        let (sample, at) = self.state.patroni.as_ref()?;
        (now.since(*at) <= self.policy.fresh_ms).then_some((sample, *at))
    }

    fn patroni_view_since(&self, since: Mono, now: Mono) -> Option<(&PatroniSample, &PatroniView)> {
        let (sample, at) = self.patroni_now(now)?;
        match sample {
            PatroniSample::Seen(view) if at >= since => Some((sample, view)),
            PatroniSample::Seen(_) | PatroniSample::Unknown(_) => None,
        }
    }

    pub(super) fn is_primary_since(&self, since: Mono, timeline_before: Option<u64>, now: Mono) -> bool {
        self.patroni_view_since(since, now).is_some_and(|(sample, view)| {
            // `/cluster` repeats the configuration before PostgreSQL has followed; a new timeline proves it, or the
            // server's own word: one that was promoted before its fence took effect stays on its timeline.
            let promoted = match (timeline_before, view.timeline) {
                _ if view.in_recovery == Some(false) => true,
                (Some(before), Some(after)) => after > before,
                _ => true,
            };
            let replays = view.in_recovery == Some(true);
            role(sample) == Role::Primary && stays_primary(sample, view) && promoted && !replays
        })
    }

    pub(super) fn is_standby_since(&self, since: Mono, now: Mono) -> bool {
        if self.mutated(Mutant::StandbyUnobserved) {
            return true;
        }
        self.patroni_view_since(since, now).is_some_and(|(sample, view)| {
            // After our own rebuild a configuration that tells no host is that of the pods that we pointed there.
            view.standby_host.is_none() && role(sample) == Role::Standby && concerns(view).is_empty()
                || self.is_healthy_standby(sample, view)
        })
    }

    fn is_healthy_standby(&self, sample: &PatroniSample, view: &PatroniView) -> bool {
        let follows_peer = match &self.policy.database_peer {
            Some(host) => follows(view, host) != Some(false),
            None => true,
        };
        role(sample) == Role::Standby && concerns(view).is_empty() && follows_peer
    }

    pub(super) fn is_fenced_since(&self, since: Mono, now: Mono) -> bool {
        self.patroni_view_since(since, now).is_some_and(|(sample, view)| match is_writable(sample) {
            // After the role words have changed, writes are still taken until PostgreSQL itself is in recovery.
            Some(writable) => !writable && view.in_recovery != Some(false),
            None => view.standby_configured && role(sample) == Role::Standby,
        })
    }

    pub(super) fn has_replayed(&self, target: Option<u64>, now: Mono) -> bool {
        let Some(target) = target.filter(|_| !self.mutated(Mutant::CatchUpSkipped)) else { return true };
        let (_, _, _, lsn) = self.database_facts(now);
        lsn.is_some_and(|lsn| lsn >= target)
    }

    /// Whether the old primary is out of the way of a run. Its word that it is read-only counts once it has heard of
    /// this generation: what it was before, it may be about to end.
    pub(super) fn peer_is_fenced(&self, generation: Option<Generation>, now: Mono) -> bool {
        // A site that fences itself has done so once its lease and the grace are over, and not before.
        let lost = self.state.peer.link == PeerLink::Down
            && (self.policy.automation != Automation::SelfFencing || self.state.lease.peer_lapsed);
        lost || self.mutated(Mutant::PeerAlwaysFenced)
            || self.peer_status_now(now).is_some_and(|status| {
                let obeys = generation.is_none_or(|ours| status.generation >= ours);
                status.writable == Some(false) && (obeys || self.mutated(Mutant::FenceOfBefore))
            })
    }

    /// Whether going on without this step would make a second primary beside one that is seen. Nobody's request is
    /// reason enough, unless it accepts the loss.
    pub(super) fn peer_seen_writable(&self, step: &StepRun, run: &Run, now: Now) -> bool {
        let writable = self.peer_status_now(now.mono).is_some_and(|status| status.writable == Some(true));
        step.step.done == Done::PeerFenced && run.accept_data_loss.is_none() && writable
    }

    /// What the peer last told, where it is fresh.
    pub(super) fn peer_status_now(&self, now: Mono) -> Option<&PeerStatus> {
        let (status, at) = self.state.peer.status.as_ref()?;
        // Zero marks what is old however young the process is.
        let young = *at > Mono(0) && now.since(*at) <= self.policy.fresh_ms;
        let fresh = young && self.state.peer.link != PeerLink::Down;
        (fresh || self.mutated(Mutant::TrustsStaleFacts)).then_some(status)
    }

    /// Writable, standby, timeline and position of the local database; `None` = unknown.
    pub(super) fn database_facts(&self, now: Mono) -> (Option<bool>, Option<bool>, Option<u64>, Option<u64>) {
        match self.patroni_now(now) {
            Some((sample @ PatroniSample::Seen(view), _)) => {
                let standby = match role(sample) {
                    Role::Standby => Some(true),
                    Role::Primary => Some(false),
                    Role::Neither | Role::Unknown => None,
                };
                let writable = match (is_writable(sample), view.in_recovery) {
                    (Some(false), Some(false)) => None,
                    (writable, _) => writable,
                };
                (writable, standby, view.timeline, view.lsn)
            }
            Some((PatroniSample::Unknown(_), _)) | None => (None, None, None, None),
        }
    }

    /// Whether the local database is a primary with every member healthy, as the predecessor asks before it skips.
    pub(super) fn database_is_sound_primary(&self, now: Mono) -> bool {
        match self.patroni_now(now) {
            Some((sample @ PatroniSample::Seen(view), _)) => {
                role(sample) == Role::Primary && stays_primary(sample, view) && concerns(view).is_empty()
            }
            Some((PatroniSample::Unknown(_), _)) | None => false,
        }
    }

    /// Whether the local database is a healthy standby of the peer.
    pub(super) fn database_is_sound_standby(&self, now: Mono) -> bool {
        match self.patroni_now(now) {
            Some((sample @ PatroniSample::Seen(view), _)) => self.is_healthy_standby(sample, view),
            Some((PatroniSample::Unknown(_), _)) | None => false,
        }
    }

    /// The gate of a step: positions are compared once the local database is stopped, because one that still takes
    /// writes runs ahead of whatever the peer last told.
    ///
    /// # Errors
    /// As [`Engine::gate`].
    pub(super) fn step_gate(&self, run: &Run, now: Now) -> Result<(), Refusal> {
        if self.mutated(Mutant::GateOpen) {
            return Ok(());
        }
        let still_writing = self.database_facts(now.mono).0 == Some(true) && !run.has_stopped_database();
        self.gate(run, !still_writing, now)
    }

    /// Whether data may be destroyed in this run now.
    ///
    /// # Errors
    /// The refusal that says which proof is missing.
    pub(super) fn gate(&self, run: &Run, compare_positions: bool, now: Now) -> Result<(), Refusal> {
        self.gate_on(self.peer_status_now(now.mono), run, compare_positions, now)
    }

    /// The same with the peer's facts given.
    ///
    /// # Errors
    /// As [`Engine::gate`].
    pub(super) fn gate_on(
        &self,
        peer: Option<&PeerStatus>,
        run: &Run,
        compare_positions: bool,
        now: Now,
    ) -> Result<(), Refusal> {
        if run.accept_data_loss.is_some() {
            return Ok(());
        }
        let by_person = matches!(run.origin, Origin::Operator | Origin::Record);
        if self.policy.gate == DestructionGate::Consent {
            return if run.consented || by_person { Ok(()) } else { Err(Refusal::ConsentNotAsked) };
        }
        let status = peer.ok_or_else(|| {
            Refusal::PeerNotVerified("no fresh facts from its agent (a predecessor sends none)".to_owned())
        })?;
        if status.writable != Some(true) && !self.mutated(Mutant::GateIgnoresRole) {
            return Err(Refusal::PeerNotVerified("its database is not seen to take writes".to_owned()));
        }
        let peer_serves = status.phase == Phase::ActivePassive.wire() && status.transition.is_empty();
        if !(run.consented || by_person && peer_serves || self.mutated(Mutant::GateIgnoresConsent)) {
            return Err(Refusal::ConsentNotAsked);
        }
        match (run.timeline_before, status.timeline) {
            _ if self.database_is_sound_standby(now.mono) || self.mutated(Mutant::GateIgnoresTimeline) => {}
            // Two promotions from one timeline diverge however far either has written.
            (Some(ours), Some(theirs)) if theirs <= ours => return Err(Refusal::Diverged { ours, theirs }),
            (Some(_), Some(_)) => {}
            // An agent that has just been started has not looked yet: what it does not know proves nothing.
            (None, _) => return Err(Refusal::DatabaseUnknown),
            (_, None) => return Err(Refusal::PeerNotVerified("it does not report a timeline".to_owned())),
        }
        let Some(ours) = run.local_lsn else {
            return if self.database_is_sound_standby(now.mono) {
                Ok(())
            } else {
                Err(Refusal::DatabaseUnknown)
            };
        };
        match status.lsn {
            Some(_) if !compare_positions || self.mutated(Mutant::GateIgnoresPosition) => Ok(()),
            Some(theirs) if theirs >= ours => Ok(()),
            Some(theirs) => Err(Refusal::PeerBehind { ours, theirs }),
            None => Err(Refusal::PeerNotVerified("it does not report a position".to_owned())),
        }
    }
}

impl Engine {
    /// A run that is not begun, to see whether its gate would open.
    pub(super) fn trial_run(&self, from: Phase, start: &super::runs::Start, now: Now) -> Run {
        let (_, _, timeline_before, local_lsn) = self.database_facts(now.mono);
        Run {
            transition: start.transition,
            generation: start.generation,
            rule: String::new(),
            origin: start.origin,
            lane: super::state::Lane::default(),
            facts: self.facts(start.origin, false, now),
            started: now.mono,
            from,
            consented: start.consented || start.origin == Origin::Peer,
            accept_data_loss: start.accept_data_loss.clone(),
            timeline_before,
            local_lsn,
            catch_up_lsn: start.catch_up_lsn,
            halted: None,
            gate_closed: None,
        }
    }
}
