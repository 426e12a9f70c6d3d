//! Automation: when the agent itself asks for a transition.
//!
//! Level-triggered: it looks at what lasts, on every event, so that a first reaction that failed is repeated. One
//! answer of one resolver moves nothing; an error is no answer.

use super::Engine;
use super::dns::{DnsKind, Verdict, kind, quorum};
use super::mutant::Mutant;
use super::policy::Automation;
use super::refusal::Refusal;
use super::state::{Origin, Request};
use crate::model::{DnsSample, Note, Now, PeerMessage, Phase, RecordSeen, RecordTransition, Transition};

impl Engine {
    /// Takes in a round of look-ups.
    pub(super) fn dns_seen(&mut self, sample: &DnsSample, now: Now) {
        let need = if self.mutated(Mutant::OneResolverDecides) { 1 } else { self.policy.dns.quorum };
        let answer = quorum(sample, need);
        let seen = match kind(&answer, &self.policy.dns.active, &self.policy.dns.passive) {
            DnsKind::Unknown if self.mutated(Mutant::UnknownDnsIsMoved) => DnsKind::Passive,
            seen => seen,
        };
        let result = answer.to_string();
        if self.state.dns_result.as_ref() != Some(&result) {
            self.state.dns_result = Some(result.clone());
            let word = match seen {
                DnsKind::Active => "active",
                DnsKind::Passive => "passive",
                DnsKind::Both | DnsKind::Other | DnsKind::None | DnsKind::Unknown => "other",
            };
            self.report(Note::DnsChanged { result: result.clone(), kind: word.to_owned() });
            self.enqueue(PeerMessage::Dns { result: result.clone() }, now);
        }
        match self.state.damping.feed(seen, now.mono) {
            Verdict::Steady => self.state.automation.traffic_moved &= seen != DnsKind::Active,
            Verdict::Healed => {
                self.state.automation.traffic_moved = false;
                self.report(Note::DnsHealed);
            }
            Verdict::Odd { seen, need } => self.report(Note::DnsOdd { result, seen, need }),
            Verdict::Lasting(kind) => self.state.automation.traffic_moved = kind == DnsKind::Passive,
        }
        self.state.automation.disarmed &= self.state.damping.holds() != Some(DnsKind::Active);
    }

    pub(super) fn automation_may_act(&self) -> Result<(), Refusal> {
        match self.policy.automation {
            Automation::Advise if self.mutated(Mutant::AdviceActs) => Ok(()),
            Automation::Off | Automation::Advise => Err(Refusal::AutomationOff),
            Automation::Witnessed
                if self.state.automation.unacknowledged && !self.mutated(Mutant::Unacknowledged) =>
            {
                Err(Refusal::NotAcknowledged)
            }
            Automation::Witnessed => Ok(()),
        }
    }

    /// Asks for a failover where traffic has lastingly moved and nothing else is under way.
    pub(super) fn automate(&mut self, now: Now) {
        let disarmed = self.state.automation.disarmed && !self.mutated(Mutant::Rearmed);
        if !self.state.automation.traffic_moved || disarmed || self.state.held {
            self.state.automation.last_refusal = None;
            return;
        }
        let RecordSeen::Present(record) = &self.state.record else { return };
        let Some(phase) = record.known_phase() else { return };
        let busy = record.transition != RecordTransition::Empty
            || self.state.run.is_some()
            || self.state.request.is_some()
            || self.state.ask.is_some();
        let paused = self
            .state
            .automation
            .last_begun
            .is_some_and(|begun| now.mono.since(begun) < self.policy.automation_pause_ms);
        // In these phases traffic belongs at the passive site, or is on its way back.
        let expected = match phase {
            Phase::GolddrPrimary
            | Phase::GoldStandby
            | Phase::GoldStandbyPartial
            | Phase::ActivePassivePartial => true,
            Phase::ActivePassive | Phase::Independent | Phase::GolddrMaintenance => false,
        };
        if busy || paused || expected {
            return;
        }
        match self.permit(phase, Transition::GolddrPrimary, Origin::Automation, now) {
            Ok(_) => {
                self.state.automation.last_begun = Some(now.mono);
                self.put_request(Request {
                    transition: Transition::GolddrPrimary,
                    origin: Origin::Automation,
                    generation: None,
                    accept_data_loss: None,
                });
            }
            Err(refusal) if self.state.automation.last_refusal.as_deref() != Some(refusal.name()) => {
                self.state.automation.last_refusal = Some(refusal.name().to_owned());
                self.refuse(Transition::GolddrPrimary.wire(), Origin::Automation, &refusal, now);
            }
            Err(_) => {}
        }
    }
}
