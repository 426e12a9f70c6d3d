//! Automation: when the agent itself asks for a transition.
//!
//! Level-triggered: it looks at what lasts, on every event, so that a first reaction that failed is repeated. One
//! answer of one resolver moves nothing; an error is no answer; what the observers say together is
//! [`super::sensors::judge`].

use serde::{Deserialize, Serialize};

use super::Engine;
use super::database::{Role, is_writable, role};
use super::dns::{Answer, DnsKind, Verdict, agreeing, kind, quorum};
use super::policy::Automation;
use super::refusal::Refusal;
use super::sensors::{Ground, Judgement, Sense, Senses, judge, sense, sense_of_kind};
use super::state::{Origin, Request};
use crate::model::{
    DnsSample, LeaseHolder, Mono, Note, Now, PatroniSample, PeerLink, PeerMessage, Phase, RecordSeen,
    RecordTransition, Side, Transition, WitnessSample,
};
use crate::plan;

/// What automation remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AutomationMemory {
    /// When it last began something.
    pub last_begun: Option<Mono>,
    /// A failover that it began has completed and nobody has acknowledged it.
    pub unacknowledged: bool,
    /// Traffic has lastingly moved to the passive site.
    pub traffic_moved: bool,
    /// The site came back to `active-passive` and traffic has not been seen at the active site since: the old answer
    /// is no news.
    pub disarmed: bool,
    /// The last reason why it did nothing, so that it is said once.
    pub last_refusal: Option<String>,
}

impl Engine {
    /// Takes in a round of look-ups.
    pub(super) fn dns_seen(&mut self, sample: &DnsSample, now: Now) {
        let answer = quorum(sample, self.policy.dns.quorum);
        let seen = kind(&answer, &self.policy.dns.active, &self.policy.dns.passive);
        if seen != DnsKind::Unknown {
            let need = sample.answers.len().min(2);
            self.state.sensors.gslb = Some((agreeing(sample, &answer) >= need, now.mono));
        }
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
        if !self.policy.automation.acts_alone() {
            return Err(Refusal::AutomationOff);
        }
        if self.state.automation.unacknowledged { Err(Refusal::NotAcknowledged) } else { Ok(()) }
    }

    /// What a result as told by an agent means.
    pub(super) fn kind_of_result(&self, result: &str) -> Option<DnsKind> {
        let answer = match result {
            "" => return None,
            "none" => Answer::None,
            text => match text.parse() {
                Ok(address) => Answer::Addresses([address].into()),
                Err(_) => Answer::Unknown(text.to_owned()),
            },
        };
        Some(kind(&answer, &self.policy.dns.active, &self.policy.dns.passive))
    }

    /// The value of every sensor now.
    pub fn senses(&self, now: Mono) -> Senses {
        let (memory, stale) = (&self.state.sensors, self.policy.safety.stale_ms);
        let (gslb, resolvers_agree) = self.sense_gslb(now);
        let up = self.state.peer.link == PeerLink::Up;
        let heard = memory.peer_heard.is_some();
        Senses {
            gslb,
            resolvers_agree,
            peer: match self.state.peer.link {
                PeerLink::Up => Sense::Good,
                PeerLink::Down => Sense::Bad,
                PeerLink::Unknown if heard => Sense::Stale,
                PeerLink::Unknown => Sense::Unknown,
            },
            // A predecessor tells changes only, so what it told holds for as long as it answers.
            peer_view: match memory.peer_view {
                None => Sense::Unknown,
                Some((kind, _)) if up => sense_of_kind(kind),
                Some(_) => Sense::Stale,
            },
            witness: self.sense_witness(now),
            application: sense(memory.application, stale, now),
            patroni: self.sense_patroni(now),
            cloud: sense(memory.cloud, stale, now),
            lapsed: self.state.lease.peer_lapsed,
        }
    }

    fn sense_gslb(&self, now: Mono) -> (Sense, bool) {
        let Some((agree, at)) = self.state.sensors.gslb else { return (Sense::Unknown, false) };
        let memory = &self.state.automation;
        let value = match self.state.damping.holds() {
            _ if now.since(at) > self.policy.safety.stale_ms => Sense::Stale,
            _ if memory.traffic_moved && !memory.disarmed => Sense::Bad,
            Some(DnsKind::Active) => Sense::Good,
            _ => Sense::Unknown,
        };
        (value, agree)
    }

    /// Whether the active site holds the lease, in the eyes of the witness.
    fn sense_witness(&self, now: Mono) -> Sense {
        let Some((sample, at)) = &self.state.sensors.witness else { return Sense::Unknown };
        let active_holds = match (sample, self.policy.side) {
            (WitnessSample::Answered { holder: LeaseHolder::Us, .. }, side) => side == Side::Active,
            (WitnessSample::Answered { holder: LeaseHolder::Peer, .. }, side) => side == Side::Passive,
            (WitnessSample::Answered { holder: LeaseHolder::Nobody, .. } | WitnessSample::Unknown(_), _) => {
                false
            }
        };
        match now.since(*at) > self.policy.safety.stale_ms {
            true => Sense::Stale,
            false if active_holds => Sense::Good,
            false => Sense::Bad,
        }
    }

    fn sense_patroni(&self, now: Mono) -> Sense {
        let Some((sample, at)) = &self.state.patroni else { return Sense::Unknown };
        if now.since(*at) > self.policy.fresh_ms || matches!(sample, PatroniSample::Unknown(_)) {
            return Sense::Stale;
        }
        match (role(sample), self.policy.side) {
            (Role::Unknown, _) => Sense::Stale,
            (Role::Primary, Side::Active) if is_writable(sample) == Some(false) => Sense::Bad,
            (Role::Primary, _) | (Role::Standby, Side::Passive) => Sense::Good,
            (Role::Standby, Side::Active) | (Role::Neither, _) => Sense::Bad,
        }
    }

    /// Asks for a failover where the observers agree on it and nothing else is under way.
    pub(super) fn automate(&mut self, now: Now) {
        let at_rest = Judgement::Rest;
        let judged = if self.state.held { at_rest } else { self.judge_now(now.mono) };
        if judged == at_rest {
            self.state.automation.last_refusal = None;
            return;
        }
        let Some(phase) = self.free_to_move(now.mono) else { return };
        let ground = match judged {
            Judgement::Move(ground) => ground,
            Judgement::Hold(doubt) => return self.refuse_automation(&Refusal::Doubtful(doubt), now),
            Judgement::Rest => return,
        };
        match self.permit(phase, Transition::GolddrPrimary, Origin::Automation, now) {
            Ok(_) => {
                self.state.automation.last_begun = Some(now.mono);
                self.remark("warning", format!("failing over: {}", ground.words()));
                self.put_request(Request {
                    transition: Transition::GolddrPrimary,
                    origin: Origin::Automation,
                    generation: None,
                    accept_data_loss: None,
                });
            }
            Err(refusal) => {
                if self.policy.automation == Automation::Advise {
                    self.advise(ground, now);
                }
                self.refuse_automation(&refusal, now);
            }
        }
    }

    /// What the sensors ask for now. Without automation or with advice only, they are judged as in `witnessed`.
    fn judge_now(&self, now: Mono) -> Judgement {
        let mode = match self.policy.automation {
            Automation::SelfFencing => Automation::SelfFencing,
            Automation::Off | Automation::Advise | Automation::Witnessed => Automation::Witnessed,
        };
        judge(mode, self.policy.side, self.policy.safety.witness, &self.senses(now))
    }

    /// The phase, where automation could begin something in it at this moment.
    fn free_to_move(&self, now: Mono) -> Option<Phase> {
        let RecordSeen::Present(record) = &self.state.record else { return None };
        let phase = record.known_phase()?;
        let busy = record.transition != RecordTransition::Empty
            || self.state.run.is_some()
            || self.state.request.is_some()
            || self.state.ask.is_some();
        let begun = self.state.automation.last_begun;
        let paused = begun.is_some_and(|begun| now.since(begun) < self.policy.automation_pause_ms);
        // In these phases traffic belongs at the passive site, or is on its way back.
        let expected = match phase {
            Phase::GolddrPrimary
            | Phase::GoldStandby
            | Phase::GoldStandbyPartial
            | Phase::ActivePassivePartial => true,
            Phase::ActivePassive | Phase::Independent | Phase::GolddrMaintenance => false,
        };
        (!busy && !paused && !expected).then_some(phase)
    }

    /// Tells people what would be done, once per cause.
    fn advise(&mut self, ground: Ground, now: Now) {
        if self.state.automation.last_refusal.is_some() {
            return;
        }
        let facts = self.facts(Origin::Operator, false, now);
        let steps = plan::build(Transition::GolddrPrimary, &facts);
        self.report(Note::Advised {
            transition: Transition::GolddrPrimary.wire().to_owned(),
            why: ground.words().to_owned(),
            steps: steps.into_iter().map(|step| step.name).collect(),
        });
    }

    fn refuse_automation(&mut self, refusal: &Refusal, now: Now) {
        if self.state.automation.last_refusal.as_deref() != Some(refusal.name()) {
            self.state.automation.last_refusal = Some(refusal.name().to_owned());
            self.refuse(Transition::GolddrPrimary.wire(), Origin::Automation, refusal, now);
        }
    }
}
