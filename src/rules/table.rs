//! The table of rules: which trigger starts which plan, from where, at which side, under which guards, and why.
//!
//! [`decide`] gives a rule or a named refusal for every (phase, trigger, side); a test walks them all.

use super::refusal::Refusal;
use crate::model::{Phase, Side, Transition};

/// What can start a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// The record or an operator asks.
    Asked(Transition),
    /// The peer orders.
    Ordered(Transition),
    /// The global load balancer has moved the traffic to the passive site.
    TrafficMoved,
}

impl Trigger {
    /// Every trigger, in a fixed order.
    pub fn all() -> Vec<Self> {
        let asked = Transition::ALL.into_iter().map(Self::Asked);
        let ordered = Transition::ALL.into_iter().map(Self::Ordered);
        asked.chain(ordered).chain([Self::TrafficMoved]).collect()
    }

    /// The transition that it would start.
    pub fn transition(self) -> Transition {
        match self {
            Self::Asked(transition) | Self::Ordered(transition) => transition,
            Self::TrafficMoved => Transition::GolddrPrimary,
        }
    }
}

/// A condition beyond the phase, checked before the plan begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// The peer's agent is not known to be lost.
    PeerNotLost,
    /// The peer consents while it is in the phase that the transition demands.
    PeerConsents,
    /// Both sites agree who holds the data: the local database is a primary.
    DatabaseIsPrimary,
    /// Automation may act and its last failover was acknowledged.
    AutomationMayAct,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name in logs, journal and documents.
    pub id: &'static str,
    /// Phases from which it may start.
    pub from: &'static [Phase],
    /// What starts it.
    pub on: Trigger,
    /// Where it applies; `None` = both sides.
    pub side: Option<Side>,
    /// Conditions.
    pub guards: &'static [Guard],
    /// Why the rule exists.
    pub why: &'static str,
}

const ANY: &[Phase] = &Phase::ALL;
const GOLD_STANDBY_FROM: &[Phase] = &[Phase::GolddrPrimary];
const ACTIVE_PASSIVE_FROM: &[Phase] = &[Phase::GolddrMaintenance, Phase::GoldStandby];
const BOOTSTRAP_FROM: &[Phase] = &[Phase::Independent];
const FROM_HOME: &[Phase] = &[Phase::ActivePassive];

use Guard::{AutomationMayAct, DatabaseIsPrimary, PeerConsents, PeerNotLost};
use Side::{Active, Passive};
use Trigger::{Asked, Ordered, TrafficMoved};

/// All rules. The first row that fits wins; rows of one trigger stand together.
pub const RULES: &[Rule] = &[
    Rule {
        id: "failover-by-traffic",
        from: FROM_HOME,
        on: TrafficMoved,
        side: None,
        guards: &[AutomationMayAct],
        why: "the global load balancer answers with the passive site, so the service must follow",
    },
    Rule {
        id: "failover-asked",
        from: ANY,
        on: Asked(Transition::GolddrPrimary),
        side: None,
        guards: &[],
        why: "a person wants the service at the passive site; it must work with the peer dead",
    },
    Rule {
        id: "failover-ordered",
        from: ANY,
        on: Ordered(Transition::GolddrPrimary),
        side: None,
        guards: &[],
        why: "the peer fails over; both sites must follow",
    },
    Rule {
        id: "rebuild-active-asked",
        from: GOLD_STANDBY_FROM,
        on: Asked(Transition::GoldStandby),
        side: Some(Active),
        guards: &[PeerNotLost, PeerConsents],
        why: "the old active site becomes a standby; its data is deleted, so the peer must hold it",
    },
    Rule {
        id: "rebuild-active-noted",
        from: GOLD_STANDBY_FROM,
        on: Asked(Transition::GoldStandby),
        side: Some(Passive),
        guards: &[PeerNotLost],
        why: "the passive site only notes that the active one stands by",
    },
    Rule {
        id: "rebuild-active-followed",
        from: GOLD_STANDBY_FROM,
        on: Ordered(Transition::GoldStandby),
        side: Some(Passive),
        guards: &[],
        why: "the active site has begun to stand by and says so",
    },
    Rule {
        id: "failback-asked",
        from: ACTIVE_PASSIVE_FROM,
        on: Asked(Transition::ActivePassive),
        side: Some(Active),
        guards: &[PeerNotLost, PeerConsents],
        why: "the active site takes the service back; the peer must be ready to stand by",
    },
    Rule {
        id: "bootstrap-asked",
        from: BOOTSTRAP_FROM,
        on: Asked(Transition::ActivePassive),
        side: Some(Active),
        guards: &[PeerNotLost, DatabaseIsPrimary, PeerConsents],
        why: "the first pairing: both sites are independent and agree that the active one holds the data",
    },
    Rule {
        id: "standby-asked",
        from: &[Phase::Independent, Phase::GolddrMaintenance, Phase::GoldStandby],
        on: Asked(Transition::ActivePassive),
        side: Some(Passive),
        guards: &[PeerNotLost],
        why: "the passive site stands by again; its gate needs the active site verified as primary",
    },
    Rule {
        id: "standby-ordered",
        from: &[Phase::Independent, Phase::GolddrMaintenance, Phase::GoldStandby],
        on: Ordered(Transition::ActivePassive),
        side: Some(Passive),
        guards: &[],
        why: "the active site has taken the service and orders the passive one to stand by",
    },
    Rule {
        id: "failback-forced",
        from: ANY,
        on: Asked(Transition::ActivePassiveForce),
        side: Some(Active),
        guards: &[],
        why: "a person takes the service back without the peer; dangerous, and therefore explicit",
    },
    Rule {
        id: "standby-forced",
        from: ANY,
        on: Ordered(Transition::ActivePassiveForce),
        side: Some(Passive),
        guards: &[],
        why: "the active site was forced to primary; two primaries must not stay",
    },
    Rule {
        id: "maintenance-asked",
        from: FROM_HOME,
        on: Asked(Transition::GolddrMaintenance),
        side: None,
        guards: &[PeerNotLost],
        why: "the passive site is detached for maintenance; each site is asked for itself",
    },
    Rule {
        id: "maintenance-ordered",
        from: FROM_HOME,
        on: Ordered(Transition::GolddrMaintenance),
        side: None,
        guards: &[],
        why: "the peer detaches the passive site for maintenance",
    },
    Rule {
        id: "test-ping-pong",
        from: ANY,
        on: Asked(Transition::TestPingPong),
        side: None,
        guards: &[PeerConsents],
        why: "a rehearsal of the consent, without consequences",
    },
];

/// The rule for a trigger at a side in a phase, or why there is none.
///
/// # Errors
/// The refusal that a person reads: already there, not from this phase, or no part for this side.
pub fn decide(phase: Phase, trigger: Trigger, side: Side) -> Result<&'static Rule, Refusal> {
    let transition = trigger.transition();
    if transition.target() == Some(phase) {
        return Err(Refusal::AlreadyThere(phase));
    }
    let here = |rule: &&Rule| rule.on == trigger && rule.side.is_none_or(|wanted| wanted == side);
    let mut rows = RULES.iter().filter(here).peekable();
    if rows.peek().is_none() {
        return Err(Refusal::NotAtThisSide);
    }
    rows.find(|rule| rule.from.contains(&phase)).ok_or(Refusal::NotFromPhase { transition, phase })
}

/// The phase in which the peer must be for its consent.
pub fn required_phase(transition: Transition, phase: Phase) -> Phase {
    match transition {
        Transition::GoldStandby => Phase::GolddrPrimary,
        Transition::TestPingPong => Phase::Independent,
        Transition::ActivePassive if phase == Phase::Independent => Phase::Independent,
        Transition::ActivePassive if phase == Phase::GolddrMaintenance => Phase::GolddrMaintenance,
        Transition::ActivePassive
        | Transition::ActivePassiveForce
        | Transition::GolddrPrimary
        | Transition::GolddrMaintenance => Phase::GoldStandby,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_phase_trigger_and_side_has_a_rule_or_a_named_refusal() {
        let mut pairs = 0;
        let mut used = BTreeSet::new();
        for phase in Phase::ALL {
            for trigger in Trigger::all() {
                for side in Side::ALL {
                    pairs += 1;
                    match decide(phase, trigger, side) {
                        Ok(rule) => {
                            assert_eq!(rule.on, trigger);
                            assert!(rule.from.contains(&phase));
                            used.insert(rule.id);
                        }
                        Err(refusal) => assert!(!refusal.name().is_empty() && !refusal.why().is_empty()),
                    }
                }
            }
        }
        assert_eq!(pairs, 7 * 13 * 2);
        let unused: Vec<&str> = RULES.iter().map(|rule| rule.id).filter(|id| !used.contains(id)).collect();
        assert!(unused.is_empty(), "rows that nothing reaches: {unused:?}");
    }

    #[test]
    fn rule_ids_are_unique() {
        let ids: BTreeSet<&str> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), RULES.len());
    }

    #[test]
    fn failover_starts_from_every_other_phase_even_partial_ones() {
        for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::GolddrPrimary) {
            for side in Side::ALL {
                assert!(decide(phase, Asked(Transition::GolddrPrimary), side).is_ok());
            }
        }
    }

    #[test]
    fn traffic_moves_nothing_except_from_the_normal_day() {
        for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::ActivePassive) {
            for side in Side::ALL {
                assert!(decide(phase, TrafficMoved, side).is_err(), "{phase} {side}");
            }
        }
    }
}
