//! The lease to serve: a site that has lost everybody who would know stops serving before anybody takes over.
//!
//! ```text
//! active site                                   passive site
//!   heartbeat answered, witness renewed           peer heard
//!   │ lease                                       │ lease + grace
//!   ▼                                             ▼
//!   database read-only, health 0                  takes over (the witness's lease first, where there is one)
//! ```
//!
//! A renewal counts from when the question was *sent*, silence from when the last word *came*, so the two counts
//! start in the safe order whatever the network does. Owns: fencing of this site by itself, the way back, the fenced
//! start of a site that was out, and the alarm when neither site takes writes. Never: decides to take over.

use serde::{Deserialize, Serialize};

use super::Engine;
use super::policy::Automation;
use super::refusal::Refusal;
use super::state::{Origin, StepRun, StepStatus};
use crate::model::{
    Effect, LeaseHolder, Mono, Now, PeerLink, PeerStatus, Phase, Side, Transition, WitnessSample,
};
use crate::plan::blocks::become_primary;
use crate::plan::{Failure, Step, Work, transitions};

/// Name of the chore that lets a fenced database take writes again.
const UNFENCE: &str = "unfence-database";

/// Why a site has fenced itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FenceReason {
    /// Neither peer nor witness has answered for the lease.
    Lapsed,
    /// The agent was away for longer than the lease; the other site may have taken over meanwhile.
    WasOut,
}

/// What is remembered about the lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseMemory {
    /// When this process took its first input.
    pub boot: Option<Mono>,
    /// When the heartbeat or renewal that was last answered had been sent.
    pub renewed: Option<Mono>,
    /// Since when the site has fenced itself, and why. Survives a restart.
    pub fenced: Option<(Mono, FenceReason)>,
    /// A person lets the site serve without contact; ends with the next contact. Survives a restart.
    pub waived: bool,
    /// Wall-clock slot of half a lease in which the agent was last alive. Survives a restart.
    pub alive_slot: Option<u64>,
    /// The agent was away for longer than the lease before this process.
    pub was_out: bool,
    /// The other site's lease and the grace are over.
    pub peer_lapsed: bool,
    /// Since when neither site takes writes.
    pub both_demoted: Option<Mono>,
    /// People were told of that.
    pub both_demoted_told: bool,
    /// The passive site is detached, or has consented to a failback: the active one owes no lease, the passive one counts
    /// on none. Survives a restart.
    pub released: bool,
}

impl LeaseMemory {
    /// What survives a restart.
    pub(super) fn durable(&self) -> Self {
        Self {
            fenced: self.fenced,
            waived: self.waived,
            alive_slot: self.alive_slot,
            released: self.released,
            ..Self::default()
        }
    }
}

impl Engine {
    fn fences_itself(&self) -> bool {
        self.policy.automation == Automation::SelfFencing
    }

    /// Notes that the peer or the witness knew this site to live at `sent`.
    pub(super) fn lease_renewed(&mut self, sent: Mono) {
        let lease = &mut self.state.lease;
        lease.renewed = lease.renewed.max(Some(sent));
        lease.waived = false;
    }

    /// Looks after the lease; called on every event.
    pub(super) fn keep_lease(&mut self, now: Now) {
        self.note_alive(now);
        self.watch_both_demoted(now);
        self.note_release(None);
        let silent = self.state.peer.link != PeerLink::Up && !self.state.lease.released;
        self.state.lease.peer_lapsed = silent && self.peer_lapse().is_some_and(|at| now.mono >= at);
        let home = self.owes_lease();
        if self.policy.side != Side::Active || home.is_none() || self.state.run.is_some() {
            return;
        }
        if home == Some(false) {
            self.state.lease.fenced = None;
            return;
        }
        match self.state.lease.fenced {
            // Hearing the peer is not being heard: without a lease it would be fenced again at once.
            Some(_) if self.may_serve_again(now) && self.must_fence(now.mono).is_none() => {
                self.serve_again(now);
            }
            Some(_) => self.stay_fenced(now),
            None => {
                if let Some(reason) = self.must_fence(now.mono) {
                    self.fence_itself(reason, now);
                }
            }
        }
    }

    /// Whether the active site serves on a lease; `None` = its phase is not known.
    fn owes_lease(&self) -> Option<bool> {
        self.state.phase().map(|phase| match phase {
            Phase::ActivePassive => true,
            Phase::GolddrMaintenance => !self.state.lease.released,
            _ => false,
        })
    }

    /// Follows who may count on the lease while the passive site is detached. The active site owes it until the
    /// passive one was heard to be detached, and the passive one counts on it again only once both were heard at home:
    /// so whatever is lost in between, nobody counts on a lease that is not owed.
    pub(super) fn note_release(&mut self, heard: Option<&PeerStatus>) {
        let (home, away) = (Phase::ActivePassive, Phase::GolddrMaintenance);
        let (own, peer) = (self.state.phase(), heard.map(|status| status.phase.as_str()));
        let told = |phase: Phase| peer == Some(phase.wire());
        let lease = &mut self.state.lease;
        match self.policy.side {
            Side::Active if own == Some(away) => {
                lease.released = told(away) || lease.released && peer.is_none();
            }
            Side::Active => lease.released &= own.is_none(),
            Side::Passive if own == Some(away) || told(away) => lease.released = true,
            Side::Passive => lease.released &= !(own == Some(home) && told(home)),
        }
    }

    fn note_alive(&mut self, now: Now) {
        let safety = &self.policy.safety;
        let slot_ms = (safety.lease_ms / 2).max(1);
        let counts = self.policy.automation == Automation::SelfFencing || safety.boot_fence;
        let lease_ms = safety.lease_ms;
        let lease = &mut self.state.lease;
        if lease.boot.is_none() {
            lease.boot = Some(now.mono);
            let away = |slot: u64| now.wall.0.saturating_sub((slot + 1) * slot_ms);
            lease.was_out = counts && lease.alive_slot.is_some_and(|slot| away(slot) >= lease_ms);
        }
        if counts {
            lease.alive_slot = Some(now.wall.0 / slot_ms);
        }
    }

    /// From when on the lease counts: the last renewal, or the start of the process with a little patience.
    fn lease_end(&self) -> Option<Mono> {
        let safety = &self.policy.safety;
        let lease = &self.state.lease;
        let after_boot = lease.boot.map(|boot| boot.plus(safety.boot_grace_ms.min(safety.lease_ms)));
        lease.renewed.map(|at| at.plus(safety.lease_ms)).max(after_boot)
    }

    fn must_fence(&self, now: Mono) -> Option<FenceReason> {
        let lease = &self.state.lease;
        if lease.waived {
            return None;
        }
        if lease.was_out && lease.renewed.is_none() && self.state.peer.status.is_some() {
            return Some(FenceReason::WasOut);
        }
        let lapsed = self.fences_itself() && self.lease_end().is_some_and(|end| now >= end);
        lapsed.then_some(FenceReason::Lapsed)
    }

    fn fence_itself(&mut self, reason: FenceReason, now: Now) {
        self.state.lease.fenced = Some((now.mono, reason));
        let refusal = Refusal::NoLease(match reason {
            FenceReason::Lapsed => "neither the peer nor a witness has answered for the lease".to_owned(),
            FenceReason::WasOut => {
                "this site was out and does not know what the peer did meanwhile".to_owned()
            }
        });
        self.refuse("serve", Origin::Automation, &refusal, now);
        self.push_self_fence(now);
    }

    fn push_self_fence(&mut self, now: Now) {
        let facts = self.facts(Origin::Automation, false, now);
        let mut steps = transitions::build_self_fence(&facts).into_iter();
        steps.next().into_iter().for_each(|fence| self.fence_beside(fence));
        for step in steps {
            self.push_step(step);
        }
        self.changed = true;
    }

    /// Other chores may wait for a slow API server for longer than the grace: the database is let go beside them, and
    /// nothing that was to make it writable again comes after it.
    pub(super) fn fence_beside(&mut self, fence: Step) {
        self.forget_unfence();
        self.state.beside.push(StepRun::new(fence));
        self.changed = true;
    }

    /// Whether the peer has ordered this site to give up the service, which its record may not show yet.
    pub(super) fn is_ordered_away(&self) -> bool {
        let waiting = self.state.waiting_order.as_ref().map(|(request, _)| request);
        let mut orders = self.state.request.iter().chain(waiting);
        orders.any(|order| order.origin == Origin::Peer && order.transition == Transition::GolddrPrimary)
    }

    /// Level-triggered: a fence that was not carried out is asked for again.
    fn stay_fenced(&mut self, now: Now) {
        let idle = self.state.chores.steps.is_empty() && self.state.beside.is_empty();
        if idle && self.database_facts(now.mono).0 == Some(true) {
            self.push_self_fence(now);
        }
    }

    /// Whether it is known that nobody has taken over.
    fn may_serve_again(&self, now: Now) -> bool {
        if self.is_ordered_away() {
            return false;
        }
        if self.state.lease.waived {
            return true;
        }
        match self.peer_status_now(now.mono) {
            Some(status) => self.peer_has_not_moved(status),
            None => self.policy.safety.witness && self.holds_witness_lease(now.mono),
        }
    }

    fn peer_has_not_moved(&self, status: &PeerStatus) -> bool {
        // Detached it takes writes of its own, by intent.
        let away = Phase::GolddrMaintenance;
        let detached = status.phase == away.wire() && self.state.phase() == Some(away);
        detached && status.transition.is_empty()
            || status.phase == Phase::ActivePassive.wire()
                && status.transition.is_empty()
                && status.writable != Some(true)
                && status.generation <= self.state.generation
    }

    fn serve_again(&mut self, now: Now) {
        self.state.lease.fenced = None;
        self.state.lease.was_out = false;
        self.remark("warning", "the other site has not taken over; this site serves again".to_owned());
        self.state.beside.retain(|run| run.step.work != Work::Do(Effect::FenceDatabase));
        self.push_unfence();
        let facts = self.facts(Origin::Automation, false, now);
        for step in transitions::build_rollback(&facts) {
            self.push_step(step);
        }
    }

    /// Lets the database take writes again; over once it is seen to.
    pub(super) fn push_unfence(&mut self) {
        let promotion = become_primary(true).into_iter().map(|step| Step {
            name: UNFENCE.to_owned(),
            on_failure: Failure::Proceed,
            ..step
        });
        promotion.for_each(|step| self.push_step(step));
    }

    /// Whether the database is about to take writes again.
    pub(super) fn is_unfencing(&self) -> bool {
        let mut chores = self.state.chores.steps.iter().skip(self.state.chores.cursor);
        chores.any(|run| run.step.name == UNFENCE && run.status != StepStatus::Finished)
    }

    /// A fence comes: nothing that was to make the database writable again is asked for after it.
    pub(super) fn forget_unfence(&mut self) {
        let state = &mut self.state;
        for run in state.chores.steps.iter_mut().filter(|run| run.step.name == UNFENCE) {
            if run.is_role_call() {
                let mut call = run.clone();
                call.end_with_call();
                state.beside.push(call);
            }
            run.status = StepStatus::Finished;
        }
    }

    /// Whether the witness lately gave this site its lease.
    pub(super) fn holds_witness_lease(&self, now: Mono) -> bool {
        self.witness_now(now) == Some(LeaseHolder::Us)
    }

    /// Holder of the witness's lease as far as a fresh answer tells.
    pub(super) fn witness_now(&self, now: Mono) -> Option<LeaseHolder> {
        let (sample, at) = self.state.sensors.witness.as_ref()?;
        match sample {
            WitnessSample::Answered { holder, .. } if now.since(*at) <= self.policy.safety.lease_ms => {
                Some(*holder)
            }
            WitnessSample::Answered { .. } | WitnessSample::Unknown(_) => None,
        }
    }

    /// Whether this site should hold the witness's lease: it serves, or is taking over. `None` while the record is
    /// unread: then the lease is neither taken nor given back.
    pub fn wants_witness_lease(&self) -> Option<bool> {
        let phase = self.state.phase()?;
        let moving = self.state.run.as_ref().map(|run| run.transition);
        Some(match (self.policy.side, phase, moving) {
            (Side::Active, Phase::ActivePassive, moving) => moving != Some(Transition::GolddrPrimary),
            (Side::Active, _, moving) => moving.is_some_and(|it| it.target() == Some(Phase::ActivePassive)),
            (Side::Passive, _, Some(Transition::GolddrPrimary)) => true,
            (Side::Passive, Phase::GolddrPrimary | Phase::GoldStandby, moving) => moving.is_none(),
            (Side::Passive, _, _) => false,
        })
    }

    /// From when on the active site has stopped serving by its own rule, as far as this (passive) site can count.
    fn peer_lapse(&self) -> Option<Mono> {
        let since = self.state.sensors.peer_heard.max(self.state.lease.boot)?;
        Some(since.plus(self.policy.safety.lease_ms + self.policy.safety.grace_ms))
    }

    fn watch_both_demoted(&mut self, now: Now) {
        let here = self.database_facts(now.mono).0;
        let there = self.peer_status_now(now.mono).and_then(|status| status.writable);
        match (here, there) {
            (Some(false), Some(false)) => {
                self.state.lease.both_demoted.get_or_insert(now.mono);
            }
            (Some(true), _) | (_, Some(true)) => {
                self.state.lease.both_demoted = None;
                self.state.lease.both_demoted_told = false;
            }
            // Unknown neither starts nor ends it.
            _ => {}
        }
        let Some(since) = self.state.lease.both_demoted else { return };
        let over = now.mono.since(since) >= self.policy.safety.both_demoted_ms;
        if over && !self.state.lease.both_demoted_told {
            self.state.lease.both_demoted_told = true;
            self.refuse("serve", Origin::Automation, &Refusal::BothDemoted, now);
        }
    }

    /// When time alone changes something here.
    pub(super) fn lease_deadline(&self) -> Option<(Mono, &'static str)> {
        let lease = &self.state.lease;
        let owed = match self.policy.side {
            Side::Active => self.owes_lease() == Some(true),
            Side::Passive => self.state.phase() == Some(Phase::ActivePassive) && !lease.released,
        };
        let at_home = owed && self.state.run.is_none();
        let own = match self.policy.side {
            _ if !at_home || !self.fences_itself() => None,
            Side::Active if lease.fenced.is_none() && !lease.waived => self.lease_end(),
            Side::Passive if self.state.peer.link != PeerLink::Up && !lease.peer_lapsed => self.peer_lapse(),
            Side::Active | Side::Passive => None,
        };
        let both = lease.both_demoted.filter(|_| !lease.both_demoted_told);
        let both = both.map(|since| since.plus(self.policy.safety.both_demoted_ms));
        [own.map(|at| (at, "lease")), both.map(|at| (at, "neither site takes writes"))]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}
