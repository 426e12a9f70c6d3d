//! From the states of services to the wanted routes: announce, announce worse, hold or withdraw, each with its reason.
//!
//! Owns: what a state means for a route, shared prefixes, fail-open. Never: knows how a route is announced; the
//! kinds of route and of attributes are the caller's. Sits between [`super::health`] and the announcers.

use std::collections::BTreeMap;

use super::health::ServiceState;

/// How services that share a prefix decide on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Sharing {
    /// Announced only while every one of them wants it.
    #[default]
    All,
    /// Announced while at least one of them wants it.
    Any,
}

/// What a service's routes carry in each state; `None` = not announced then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByState<A> {
    /// While UP or FALLING.
    pub up: A,
    /// While DOWN, RISING after a fall, or UNKNOWN.
    pub down: Option<A>,
    /// While DISABLED.
    pub disabled: Option<A>,
    /// While DRAINING, until the drain delay is over.
    pub draining: Option<A>,
    /// In place of a withdrawal that fail-open forbids.
    pub last_resort: A,
}

/// A service as far as prefixes matter.
#[derive(Debug, Clone)]
pub struct View<'a, K, A> {
    /// Its name.
    pub name: &'a str,
    /// Its state.
    pub state: ServiceState,
    /// Why it is in that state.
    pub reason: &'a str,
    /// Keeps its routes whatever its checks say (only an operator takes it out).
    pub always: bool,
    /// Whether its routes were announced in the last decision.
    pub announced: bool,
    /// Keep routes while UNKNOWN instead of taking them back.
    pub hold_unknown: bool,
    /// Whether a drain still waits for its delay.
    pub drain_waits: bool,
    /// Whether fail-open covers it.
    pub fail_open: bool,
    /// How it shares.
    pub sharing: Sharing,
    /// Its routes.
    pub routes: &'a [K],
    /// What they carry.
    pub attributes: &'a ByState<A>,
}

/// What is wanted of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<A> {
    /// What it carries; `None` = not announced.
    pub announce: Option<A>,
    /// Why, naming the service that decided.
    pub reason: String,
}

/// Fail-open: when fewer than this share of the covered services is healthy, a failure they share is likelier than
/// that all of them died; those that were announced stay announced with their last-resort attributes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FailOpen {
    /// Percent of covered services that must be healthy; 0 = fail-open is off.
    pub min_healthy_percent: f64,
}

impl FailOpen {
    /// Whether it is in force, given the states of the covered services.
    pub fn in_force<'a>(&self, covered: impl Iterator<Item = &'a ServiceState>) -> bool {
        let (mut total, mut healthy) = (0_u32, 0_u32);
        for state in covered {
            // A service that a person took out says nothing about health.
            if matches!(state, ServiceState::Disabled | ServiceState::Draining | ServiceState::Init) {
                continue;
            }
            total += 1;
            healthy += u32::from(matches!(state, ServiceState::Up | ServiceState::Falling));
        }
        total > 0 && f64::from(healthy) * 100.0 < self.min_healthy_percent * f64::from(total)
    }
}

/// What one service wants of its routes now. `fail_open` = it is in force.
pub fn wish<K, A: Clone>(view: &View<'_, K, A>, fail_open: bool) -> Decision<A> {
    let by_state = view.attributes;
    let open = fail_open && view.fail_open && view.announced;
    let (announce, why) = match view.state {
        ServiceState::Disabled => (by_state.disabled.clone(), "disabled"),
        ServiceState::Draining if view.drain_waits => {
            (by_state.draining.clone(), "draining, still announced")
        }
        ServiceState::Draining => (None, "drained"),
        _ if view.always => (Some(by_state.up.clone()), "always announced"),
        ServiceState::Up => (Some(by_state.up.clone()), "up"),
        ServiceState::Falling => (Some(by_state.up.clone()), "fails, not often enough to fall"),
        ServiceState::Unknown if view.hold_unknown && view.announced => {
            (Some(by_state.up.clone()), "unknown, held")
        }
        _ if open => (Some(by_state.last_resort.clone()), "fail-open: too few services are healthy"),
        ServiceState::Unknown => (by_state.down.clone(), "unknown"),
        ServiceState::Down => (by_state.down.clone(), "down"),
        ServiceState::Rising => {
            (by_state.down.clone().filter(|_| view.announced), "passes, not often enough to rise")
        }
        ServiceState::Init => (None, "no verdict yet"),
    };
    let reason = if view.reason.is_empty() {
        format!("service {} {why}", view.name)
    } else {
        format!("service {} {why}: {}", view.name, view.reason)
    };
    Decision { announce, reason }
}

/// What is wanted of every route of these services.
///
/// A route that several services share follows the one that wants least (any of them wants [`Sharing::All`]) or
/// the one that wants most (all of them say [`Sharing::Any`]). `rank` orders attributes, the better one higher.
pub fn decide<K: Ord + Clone, A: Clone>(
    views: &[View<'_, K, A>],
    fail_open: bool,
    rank: impl Fn(&A) -> i64,
) -> BTreeMap<K, Decision<A>> {
    let mut wanted: BTreeMap<K, Votes<A>> = BTreeMap::new();
    for view in views {
        let decision = wish(view, fail_open);
        let worth = decision.announce.as_ref().map_or(i64::MIN, &rank);
        let vote = (worth, decision);
        for route in view.routes {
            match wanted.get_mut(route) {
                None => {
                    let votes = Votes { sharing: view.sharing, least: vote.clone(), most: vote.clone() };
                    wanted.insert(route.clone(), votes);
                }
                Some(votes) => {
                    votes.sharing = votes.sharing.min(view.sharing);
                    if worth < votes.least.0 {
                        votes.least = vote.clone();
                    }
                    if worth > votes.most.0 {
                        votes.most = vote.clone();
                    }
                }
            }
        }
    }
    wanted
        .into_iter()
        .map(|(route, votes)| match votes.sharing {
            Sharing::All => (route, votes.least.1),
            Sharing::Any => (route, votes.most.1),
        })
        .collect()
}

/// What the services that share a route want, with the worth of it.
struct Votes<A> {
    sharing: Sharing,
    least: (i64, Decision<A>),
    most: (i64, Decision<A>),
}

#[cfg(test)]
#[path = "prefixes_tests.rs"]
mod tests;
