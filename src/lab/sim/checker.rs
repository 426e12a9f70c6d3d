//! Judges a history: what must never happen, and what is only counted.
//!
//! Knows what the world saw and what people asked for; the agents' words count only where the promise is about words
//! (a named halt, a transition that was begun). Never looks into an agent.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Fact, History};
use super::nemesis::Kind;
use super::plan::{DAMPING_MS, Plan, Scenario};
use crate::model::{Note, Side, Transition};
use crate::rules::policy::Automation;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: u64,
    /// Its place in the history.
    pub index: usize,
    /// Name of the promise.
    pub promise: &'static str,
    /// What happened.
    pub what: String,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Judgement {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Transitions that were begun, by rule.
    pub transitions: BTreeMap<String, u64>,
    /// Milliseconds with two writable databases that the design does not promise away, by cause.
    pub assumed_ms: BTreeMap<&'static str, u64>,
    /// Milliseconds with two writable databases that it does.
    pub split_ms: u64,
    /// Acknowledged writes missing at a promotion, by kind of move, where there were any.
    pub missing: BTreeMap<&'static str, u64>,
    /// Promotions by kind of move.
    pub promotions: BTreeMap<&'static str, u64>,
    /// From the last mending to order (or a named halt), in milliseconds.
    pub convergence: Vec<u64>,
    /// From the moved traffic to the begun failover, in milliseconds, where automation was free to act.
    pub reaction: Vec<u64>,
    /// From the moved traffic to a database that takes writes where the clients are, in milliseconds.
    pub outage: Vec<u64>,
}

/// Before a promotion, how far back a reason for it may lie: the longest way from an order to the promoted database.
const CAUSE_MS: u64 = 30 * 60_000;
/// How far back the other site must have been out of reach for the promoting one to have had to assume.
const REACH_MS: u64 = 180_000;
/// How long two primaries may last once the sites can talk again.
const END_MS: u64 = 300_000;

struct Judge<'a> {
    plan: &'a Plan,
    found: Judgement,
    writable: [bool; 2],
    both: Option<Both>,
    line_on: bool,
    line_changed: u64,
    last_break: Option<u64>,
    traffic: Option<Side>,
    moved: Option<u64>,
    moved_long: Option<u64>,
    asked: Vec<Ask>,
    outage: Option<Outage>,
    returned: [Option<u64>; 2],
    faults: Vec<(Kind, Side, u64)>,
    mended: Option<u64>,
    free: Freedom,
}

/// Two writable databases.
struct Both {
    since: u64,
    cause: Option<&'static str>,
}

struct Ask {
    at: u64,
    transition: Transition,
    connected: bool,
}

struct Outage {
    at: u64,
    eligible: bool,
    begun: bool,
}

/// Whether automation is free to act.
#[derive(Default)]
struct Freedom {
    unacknowledged: bool,
    running: BTreeSet<Side>,
    away: bool,
}

/// Judges what happened.
pub fn judge(plan: &Plan, history: &History) -> Judgement {
    let mut judge = Judge {
        plan,
        found: Judgement::default(),
        writable: [false; 2],
        both: None,
        line_on: false,
        line_changed: 0,
        last_break: None,
        traffic: None,
        moved: None,
        moved_long: None,
        asked: Vec::new(),
        outage: None,
        returned: [None; 2],
        faults: Vec::new(),
        mended: None,
        free: Freedom::default(),
    };
    let mut end = 0;
    for (index, (at, fact)) in history.facts.iter().enumerate() {
        judge.take(index, *at, fact);
        end = *at;
    }
    judge.close_both(history.facts.len().saturating_sub(1), end, None);
    judge.found
}

impl Judge<'_> {
    fn broken(&mut self, index: usize, at: u64, promise: &'static str, what: String) {
        self.found.violations.push(Violation { at, index, promise, what });
    }

    fn take(&mut self, index: usize, at: u64, fact: &Fact) {
        match fact {
            Fact::Writable { side, on } => self.roles(index, at, *side, *on),
            Fact::Promoted { side, missing, oldest_ms } => {
                self.promoted(index, at, *side, *missing, *oldest_ms)
            }
            Fact::Lost { rows } => {
                *self.found.missing.entry("given up in the end").or_default() += *rows as u64
            }
            Fact::Broken { kind, side, until } => {
                *self.found.faults.entry(kind.name()).or_default() += 1;
                self.faults.push((*kind, *side, *until));
            }
            Fact::Mended => self.mended = Some(at),
            Fact::Settled { .. } => self.found.convergence.extend(self.mended.take().map(|since| at - since)),
            Fact::Silent { what } => self.broken(index, at, "comes to rest or says why not", what.clone()),
            Fact::Doubled { side, words } => {
                self.broken(index, at, "once-only effects happen once", format!("{words} at {side}"));
            }
            Fact::Died { side, how } => {
                self.broken(index, at, "an agent never dies", format!("{side}: {how}"));
            }
            Fact::Line { on } => {
                if !on {
                    self.last_break = None;
                } else if at > 0 {
                    self.last_break = Some(at);
                }
                (self.line_on, self.line_changed) = (*on, at);
            }
            Fact::Traffic { to } => self.traffic(at, *to),
            Fact::Outage { side, on } => self.outage(at, *side, *on),
            Fact::Asked { transition: Some(transition), connected, .. } => {
                self.asked.push(Ask { at, transition: *transition, connected: *connected });
            }
            Fact::Told { side, note } => self.told(index, at, *side, note),
            Fact::Agent { .. } | Fact::Effect { .. } | Fact::Asked { transition: None, .. } => {}
        }
    }

    /// Whether the sites could not talk at some moment shortly before this one.
    fn was_out_of_reach(&self, at: u64) -> bool {
        let noisy = |kind: Kind| matches!(kind, Kind::Loss | Kind::Delay);
        !self.line_on
            || self.last_break.is_some_and(|mended| at < mended + REACH_MS)
            || self.faults.iter().any(|(kind, _, until)| noisy(*kind) && at < until + REACH_MS)
    }

    fn roles(&mut self, index: usize, at: u64, side: Side, on: bool) {
        let before = self.writable == [true; 2];
        self.writable[side as usize] = on;
        let after = self.writable == [true; 2];
        if after && !before {
            let back = self.returned[side as usize].is_some_and(|back| at < back + END_MS);
            let apart = self.was_out_of_reach(at);
            let asked = apart && self.asked.iter().any(|ask| !ask.connected && at < ask.at + CAUSE_MS);
            let cause = match self.plan.mode {
                _ if back => Some("a dead primary came back"),
                _ if self.recently(at, Transition::ActivePassiveForce) => Some("a person used force"),
                _ if asked => Some("a person moved it while the sites were apart"),
                Automation::SelfFencing if self.hands_tied(side.other(), at) => {
                    Some("the old primary's agent could not act")
                }
                Automation::SelfFencing => None,
                _ if apart => Some("the other site was out of reach"),
                _ => None,
            };
            self.both = Some(Both { since: at, cause });
        } else if before && !after {
            self.close_both(index, at, Some(side));
        }
        if on
            && side == Side::Passive
            && let Some(moved) = self.moved
        {
            self.found.outage.push(at - moved);
        }
    }

    /// Until when the agent of a side could not make its database read-only, as far as has been broken by now.
    fn hands_tied_until(&self, side: Side) -> u64 {
        let ties = |kind: Kind| {
            matches!(
                kind,
                Kind::Stall
                    | Kind::Crash
                    | Kind::TornCrash
                    | Kind::SiteDead
                    | Kind::PatroniGone
                    | Kind::NoLeader
                    | Kind::ApiDown
                    | Kind::DiskSlow
            )
        };
        let until = self.faults.iter().filter(|(kind, there, _)| ties(*kind) && *there == side);
        until.map(|(_, _, until)| *until).max().unwrap_or_default()
    }

    /// Whether the agent of a side could not make its database read-only shortly before this moment.
    fn hands_tied(&self, side: Side, at: u64) -> bool {
        let until = self.hands_tied_until(side);
        until > 0 && at < until + REACH_MS
    }

    fn recently(&self, at: u64, transition: Transition) -> bool {
        self.asked.iter().any(|ask| ask.transition == transition && at < ask.at + CAUSE_MS)
    }

    fn close_both(&mut self, index: usize, at: u64, read_only: Option<Side>) {
        let Some(both) = self.both.take() else { return };
        let ms = at - both.since;
        let Some(cause) = both.cause else {
            self.found.split_ms += ms;
            let what = format!("both databases took writes for {ms} ms");
            return self.broken(index, at, "never two writable sites", what);
        };
        *self.found.assumed_ms.entry(cause).or_default() += ms;
        // Nor could the one that let go in the end do so while its own agent or Patroni was out of order.
        let able = read_only.map_or(0, |side| self.hands_tied_until(side));
        let since = self.line_changed.max(both.since).max(able);
        let reachable = if self.line_on { at.saturating_sub(since) } else { 0 };
        if reachable > END_MS {
            let what = format!("two primaries for {reachable} ms after the sites could talk again");
            self.broken(index, at, "two primaries end once the sites can talk", what);
        }
    }

    fn promoted(&mut self, index: usize, at: u64, side: Side, missing: usize, oldest_ms: u64) {
        let wanted: &[Transition] = match side {
            Side::Passive => &[Transition::GolddrPrimary],
            Side::Active => &[Transition::ActivePassive, Transition::ActivePassiveForce],
        };
        let asked =
            self.asked.iter().rev().find(|ask| wanted.contains(&ask.transition) && at < ask.at + CAUSE_MS);
        let planned = asked
            .is_some_and(|ask| ask.connected && ask.transition != Transition::ActivePassiveForce)
            && !self.was_out_of_reach(at);
        let kind = match (asked.is_some(), planned) {
            (true, true) => "planned move",
            (true, false) => "move asked for while the sites were apart",
            (false, _) if side == Side::Passive => "automatic failover",
            (false, _) => "return of a primary",
        };
        *self.found.promotions.entry(kind).or_default() += 1;
        if missing > 0 {
            *self.found.missing.entry(kind).or_default() += missing as u64;
        }
        if planned && missing > 0 {
            let what = format!("{missing} acknowledged writes lost, the oldest {oldest_ms} ms before");
            self.broken(index, at, "a planned move loses nothing", what);
        }
        if kind == "automatic failover" {
            self.check_failover(index, at);
        }
    }

    fn check_failover(&mut self, index: usize, at: u64) {
        if self.plan.mode == Automation::Advise {
            let what = "a site promoted itself although agents may only advise".to_owned();
            self.broken(index, at, "nobody acts alone in advise mode", what);
        }
        let lasting = self.moved.is_some_and(|moved| at >= moved + DAMPING_MS);
        let lately = self.moved_long.is_some_and(|until| at < until + CAUSE_MS);
        let lapsed = self.plan.mode == Automation::SelfFencing && self.was_out_of_reach(at);
        if !(lasting || lately || lapsed) {
            let what = "a failover although traffic had not lastingly moved".to_owned();
            self.broken(index, at, "no false failover", what);
        }
    }

    fn traffic(&mut self, at: u64, to: Option<Side>) {
        self.traffic = to;
        match (to, self.moved) {
            (Some(Side::Passive), None) => self.moved = Some(at),
            (Some(Side::Passive), Some(_)) => {}
            (_, Some(moved)) => {
                if at >= moved + DAMPING_MS {
                    self.moved_long = Some(at);
                }
                self.moved = None;
            }
            (_, None) => {}
        }
    }

    fn outage(&mut self, at: u64, side: Side, on: bool) {
        if !on {
            self.returned[side as usize] = Some(at);
            self.outage = None;
            return;
        }
        let free = !self.free.unacknowledged && self.free.running.is_empty() && !self.free.away;
        let eligible = free && self.plan.mode == Automation::Witnessed;
        self.outage = Some(Outage { at, eligible, begun: false });
    }

    fn told(&mut self, index: usize, at: u64, side: Side, note: &Note) {
        match note {
            Note::TransitionStarted { rule, transition, .. } => {
                *self.found.transitions.entry(rule.clone()).or_default() += 1;
                self.free.running.insert(side);
                self.free.away = transition != Transition::ActivePassive.wire();
                // A person's failback acknowledges the failover before it.
                self.free.unacknowledged &= self.free.away;
                if rule == "failover-by-traffic" {
                    self.free.unacknowledged = true;
                    self.reacted(index, at);
                }
            }
            Note::TransitionDone { .. } => {
                self.free.running.remove(&side);
            }
            Note::Answer { accepted: true, message, .. } if message.contains("automation may act") => {
                self.free.unacknowledged = false;
            }
            _ => {}
        }
    }

    fn reacted(&mut self, index: usize, at: u64) {
        let Some(outage) = self.outage.as_mut().filter(|outage| outage.eligible && !outage.begun) else {
            return;
        };
        outage.begun = true;
        let took = at - outage.at;
        self.found.reaction.push(took);
        // A witness is believed until the dead site's lease has lapsed there.
        let safety = self.plan.policy(Side::Passive, String::new()).safety;
        let lease =
            if self.plan.witness { safety.lease_ms + safety.grace_ms + self.plan.pace.witness } else { 0 };
        let bound = DAMPING_MS.max(lease) + self.plan.pace.dns + 1_000;
        if self.plan.scenario == Scenario::Outages && took > bound {
            let what = format!("a real outage was acted on after {took} ms, {bound} ms allowed");
            self.broken(index, at, "real outages are acted on", what);
        }
    }
}
