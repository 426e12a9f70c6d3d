//! Consent: asked for before data is deleted or the service is taken back, answered by the site that would bear it.
//!
//! ```text
//! asking site                                   answering site
//!   confirm_happy_to_proceed {R, item} ───────▶  in phase R, nothing under way, database as R implies?
//!   (the request is cleared from the record)     FENCE_OLD_PRIMARY and a failback: database made read-only first
//!   ◀──────── yes_happy_to_proceed {item, facts}   or  no_happy_to_proceed {item, reason} (new agents only)
//!   nonce outstanding, not expired, generation not stale, phase still allows it ──▶ run
//! ```
//!
//! The item is opaque to the answering site and comes back unchanged; ours carries a nonce that is used once.

use super::Engine;
use super::lanes::Progress;
use super::mutant::Mutant;
use super::refusal::Refusal;
use super::runs::Start;
use super::state::{Ask, Grant, Lane, Origin, Request};
use crate::model::{
    ConsentTag, Mono, Now, PeerLink, PeerMessage, PeerStatus, Phase, RecordSeen, RecordTransition, Side,
    Transition, Wall,
};
use crate::plan::blocks::record_as;
use crate::plan::transitions;

/// How long a site that made its database read-only waits for the peer's order before it looks for a way back.
const GRANT_MS: u64 = 120_000;

impl Engine {
    /// Asks the peer for its consent and clears the request from the record, as the predecessor does.
    pub(super) fn ask_peer(&mut self, phase: Phase, request: &Request, now: Now) {
        let RecordSeen::Present(record) = &self.state.record else { return };
        self.state.last_nonce += 1;
        let tag = ConsentTag {
            nonce: format!("{}-{}", self.policy.instance, self.state.last_nonce),
            generation: self.next_generation(),
            expires: Wall(now.wall.0 + self.policy.consent_ms),
            transition: request.transition.wire().to_owned(),
            site: self.policy.site.0.clone(),
        };
        let item = tag.item(&record.data);
        let required_state = self.required(request.transition, phase).wire().to_owned();
        let message = self.enqueue(PeerMessage::Confirm { required_state, item }, now);
        self.state.ask = Some(Ask {
            transition: request.transition,
            origin: request.origin,
            nonce: tag.nonce,
            generation: tag.generation,
            until: now.mono.plus(self.policy.consent_ms),
            expires: tag.expires,
            message,
            accept_data_loss: request.accept_data_loss.clone(),
        });
        self.push_step(record_as("clear-request", Some(phase), Some(String::new()), None));
    }

    /// Gives up a request for consent whose time is over.
    pub(super) fn expire_ask(&mut self, now: Now) {
        let lasts = self.mutated(Mutant::ConsentNeverExpires);
        let Some(ask) = self.state.ask.take_if(|ask| now.mono >= ask.until && !lasts) else { return };
        self.drop_message(ask.message);
        self.refuse_ask(&ask, &Refusal::ConsentTimedOut, now);
    }

    fn refuse_ask(&mut self, ask: &Ask, refusal: &Refusal, now: Now) {
        self.refuse(ask.transition.wire(), ask.origin, refusal, now);
        if let Some(phase) = self.state.phase() {
            let text = format!("{}: {}", refusal.name(), refusal.why());
            self.state.annotated = true;
            // An order of the peer that has come meanwhile stays in the record.
            let transition = self.state.request.is_none().then(String::new);
            self.push_step(record_as("note-refusal", Some(phase), transition, Some(text)));
        }
        self.changed = true;
    }

    /// The peer says yes.
    pub(super) fn consent_came(&mut self, item: &str, evidence: Option<PeerStatus>, now: Now) {
        if let Err(refusal) = self.use_consent(item, evidence, now) {
            self.refuse("yes_happy_to_proceed", Origin::Peer, &refusal, now);
        }
    }

    fn use_consent(&mut self, item: &str, evidence: Option<PeerStatus>, now: Now) -> Result<(), Refusal> {
        let tag = ConsentTag::from_item(item).ok_or(Refusal::ConsentNotAsked)?;
        let any = self.mutated(Mutant::AnyNonce);
        let asked = self.state.ask.as_ref().is_some_and(|ask| ask.nonce == tag.nonce || any);
        if !asked {
            let ours = tag.nonce.starts_with(&format!("{}-", self.policy.instance));
            return Err(if ours { Refusal::ConsentExpired } else { Refusal::ConsentNotAsked });
        }
        // From here on the nonce is spent, whatever follows.
        let ask = self.state.ask.take().ok_or(Refusal::ConsentNotAsked)?;
        if self.mutated(Mutant::ConsentKept) {
            self.state.ask = Some(ask.clone());
        }
        self.drop_message(ask.message);
        let result = self.start_consented(&ask, &tag, evidence, now);
        if let Err(refusal) = &result {
            self.refuse_ask(&ask, refusal, now);
        }
        Ok(())
    }

    fn start_consented(
        &mut self,
        ask: &Ask,
        tag: &ConsentTag,
        evidence: Option<PeerStatus>,
        now: Now,
    ) -> Result<(), Refusal> {
        let late = now.mono >= ask.until || now.wall > ask.expires;
        if late && !self.mutated(Mutant::ConsentNeverExpires) {
            return Err(Refusal::ConsentExpired);
        }
        let old = ask.generation <= self.state.generation || tag.generation != ask.generation;
        if old && !self.mutated(Mutant::ConsentForAnyGeneration) {
            return Err(Refusal::StaleGeneration);
        }
        if let Some(run) = &self.state.run {
            return Err(Refusal::TransitionInProgress(run.transition.wire().to_owned()));
        }
        let phase = self.state.phase().ok_or(Refusal::RecordUnknown)?;
        let asked_from = if self.mutated(Mutant::ConsentForAnyPhase) { Phase::GolddrPrimary } else { phase };
        let rule = if self.proves_alive(ask.transition, evidence.as_ref()) {
            self.permit_consented(asked_from, ask.transition, ask.origin, now)?
        } else {
            self.permit(asked_from, ask.transition, ask.origin, now)?
        };
        let catch_up_lsn = evidence.as_ref().and_then(|facts| match facts.writable {
            Some(false) => facts.lsn,
            _ => None,
        });
        if let Some(facts) = &evidence {
            self.state.peer.status = Some((facts.clone(), now.mono));
        }
        if ask.transition == Transition::TestPingPong {
            self.remark("info", "the peer consents to test-ping-pong; nothing else follows".to_owned());
            self.changed = true;
            return Ok(());
        }
        let start = Start {
            transition: ask.transition,
            origin: ask.origin,
            generation: ask.generation,
            consented: true,
            accept_data_loss: ask.accept_data_loss.clone(),
            catch_up_lsn: catch_up_lsn.filter(|_| !self.wants_maintenance(ask.transition)),
        };
        self.check_start(phase, &start, evidence.as_ref(), now)?;
        self.start_run(rule, phase, start, now);
        Ok(())
    }

    /// Whether a yes may stand in for heartbeats that are not answered (yet, where the peer was started again). Where
    /// the plan relies on the peer's fence it must show that, because a lost peer counts as fenced in some modes.
    fn proves_alive(&self, transition: Transition, evidence: Option<&PeerStatus>) -> bool {
        let relies_on_fence = self.policy.fence_old_primary && !self.wants_maintenance(transition);
        !relies_on_fence || evidence.is_some_and(|facts| facts.writable == Some(false))
    }

    /// Nothing is begun whose destruction gate is closed already. What came with the yes is as fresh as it; the gate of
    /// each step asks for heartbeats again.
    fn check_start(
        &self,
        phase: Phase,
        start: &Start,
        evidence: Option<&PeerStatus>,
        now: Now,
    ) -> Result<(), Refusal> {
        if !self.wants_maintenance(start.transition) || self.database_is_sound_standby(now.mono) {
            return Ok(());
        }
        let status = evidence.or(self.peer_status_now(now.mono));
        self.gate_on(status, &self.trial_run(phase, start, now), true, now)
    }

    /// Whether the peer may be promoting on our word at this moment: it is in sight, or the consent can still be used.
    pub(super) fn is_lent(&self, now: Mono) -> bool {
        self.state.grant.as_ref().is_some_and(|grant| {
            let usable = now.plus(GRANT_MS) < grant.until.plus(self.policy.consent_ms);
            grant.fenced && (usable || self.state.peer.link == PeerLink::Up)
        })
    }

    /// The peer says no.
    pub(super) fn refusal_came(&mut self, item: &str, reason: String, now: Now) {
        let Some(tag) = ConsentTag::from_item(item) else { return };
        if self.mutated(Mutant::VetoIgnored) {
            return self.consent_came(item, None, now);
        }
        if let Some(ask) = self.state.ask.take_if(|ask| ask.nonce == tag.nonce) {
            self.drop_message(ask.message);
            self.refuse_ask(&ask, &Refusal::PeerRefused(reason), now);
        }
    }

    /// The peer asks for our consent.
    pub(super) fn consent_asked(&mut self, required_state: &str, item: String, now: Now) {
        let tag = ConsentTag::from_item(&item);
        if let Err(refusal) = self.may_consent(required_state, tag.as_ref(), now) {
            self.refuse("confirm_happy_to_proceed", Origin::Peer, &refusal, now);
            if tag.is_some() {
                // A predecessor waits for a yes only; a new agent wants to know why not.
                let reason = format!("{}: {}", refusal.name(), refusal.why());
                self.enqueue(PeerMessage::No { item, reason }, now);
            }
            return;
        }
        let failback = required_state != Phase::GolddrPrimary.wire();
        let fence = (self.policy.fence_old_primary
            && !self.mutated(Mutant::GrantsUnfenced)
            && failback
            && tag.is_some()
            && self.database_facts(now.mono).0 == Some(true))
        .then(|| Lane::new(transitions::build_fence()));
        let fenced = fence.is_some();
        self.state.grant = Some(Grant {
            generation: tag.map(|tag| tag.generation),
            item,
            until: now.mono.plus(GRANT_MS),
            fence,
            given: false,
            fenced,
        });
        self.changed = true;
    }

    fn may_consent(&self, required: &str, tag: Option<&ConsentTag>, now: Now) -> Result<(), Refusal> {
        let (record, phase) = self.read_record()?;
        if phase.wire() != required && !self.mutated(Mutant::GrantsInAnyPhase) {
            return Err(Refusal::RequiredPhaseDiffers(phase.wire().to_owned()));
        }
        let busy = record.transition != RecordTransition::Empty || self.state.run.is_some();
        if busy && !self.mutated(Mutant::GrantsWhileBusy) {
            return Err(Refusal::TransitionInProgress(format!("{:?}", record.transition)));
        }
        if self.is_unfencing() {
            return Err(Refusal::TransitionInProgress("the end of a consent that was not used".to_owned()));
        }
        let old = tag.is_some_and(|tag| tag.generation <= self.state.generation);
        if old && !self.mutated(Mutant::GrantsOldGenerations) {
            return Err(Refusal::StaleGeneration);
        }
        if tag.is_some_and(|tag| tag.expires < now.wall) && !self.mutated(Mutant::GrantsLate) {
            return Err(Refusal::ConsentExpired);
        }
        self.database_allows(phase, tag, now.mono)
    }

    /// A string in the record is not a fact about the database: who lets the peer delete its data must hold it.
    fn database_allows(&self, phase: Phase, tag: Option<&ConsentTag>, now: Mono) -> Result<(), Refusal> {
        let (writable, ..) = self.database_facts(now);
        let rehearsal = tag.is_some_and(|tag| tag.transition == Transition::TestPingPong.wire());
        match (phase, writable) {
            _ if rehearsal || self.mutated(Mutant::GrantsUnseen) => Ok(()),
            (Phase::GolddrPrimary, Some(false)) => Err(Refusal::DatabaseNotPrimary),
            (Phase::GolddrPrimary, None) if self.state.patroni.is_some() => Err(Refusal::DatabaseUnknown),
            (Phase::Independent, Some(true)) => Err(Refusal::DatabaseIsPrimary),
            _ => Ok(()),
        }
    }

    /// Gives a consent once what it needs is done, and finds a way back where the peer never used it.
    pub(super) fn advance_grant(&mut self, now: Now) {
        let Some(mut grant) = self.state.grant.take() else { return };
        if self.mutated(Mutant::GrantsBeforeFence) && !grant.given {
            grant.given = true;
            let evidence = Some(self.peer_status(now.mono));
            self.enqueue(PeerMessage::Yes { item: grant.item.clone(), evidence }, now);
        }
        if let Some(mut lane) = grant.fence.take()
            && let Some(step) = lane.steps.get_mut(lane.cursor)
        {
            match self.drive(step, None, now) {
                Progress::Waiting | Progress::Beside => {
                    grant.fence = Some(lane);
                    self.state.grant = Some(grant);
                    return;
                }
                Progress::Done(_) => {}
                Progress::Failed(_) if self.mutated(Mutant::GrantsOnFailedFence) => {}
                Progress::Failed(reason) => {
                    let reason = format!("fence-failed: {reason}");
                    self.enqueue(PeerMessage::No { item: grant.item, reason }, now);
                    return;
                }
            }
        }
        if !grant.given {
            grant.given = true;
            if !self.mutated(Mutant::PromisesUncounted) {
                self.note_generation(grant.generation);
            }
            // A failback that goes on at the other site is bound by no lease.
            self.state.lease.released |= self.policy.side == Side::Passive;
            let evidence = Some(self.peer_status(now.mono));
            self.enqueue(PeerMessage::Yes { item: grant.item.clone(), evidence }, now);
        }
        if now.mono < grant.until {
            self.state.grant = Some(grant);
        } else if grant.fenced {
            self.unfence(grant, now);
        } else {
            self.changed = true;
        }
    }

    /// The peer took our consent and did nothing with it: our database takes writes again, but only where the peer is
    /// seen not to, and not to have begun.
    fn unfence(&mut self, mut grant: Grant, now: Now) {
        let unused = self.peer_status_now(now.mono).is_some_and(|status| {
            status.writable == Some(false)
                && status.transition.is_empty()
                && Some(status.generation) < grant.generation
        });
        if self.mutated(Mutant::NeverUnfences) {
            return self.changed = true;
        }
        if unused || self.mutated(Mutant::UnfencesBlindly) {
            self.remark(
                "warning",
                "the peer did not use our consent; the database takes writes again".to_owned(),
            );
            self.push_unfence();
        } else {
            // Looked at again with every event, told once.
            if !grant.item.is_empty() {
                let text = "the database is read-only for a failback that has not come; look at both sites";
                self.remark("error", text.to_owned());
                grant.item.clear();
                self.changed = true;
            }
            self.state.grant = Some(grant);
            return;
        }
        self.changed = true;
    }
}
