//! The route decision of two mirrored sites, searched exhaustively: every order of cycles, failures, lost answers and
//! pins, with the core and the actuation that ship.
//!
//! Owns a small world: two regions, two routers, two pins. Windows of one sample and no dwell
//! time make every poll a detection, so that the search closes; what windows add is in the golden table. A cycle reads
//! and writes in one move: what the other site does between a read and a write is not in here.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::{Mono, RoutePin, Side};
use crate::rules::route_health::actuate::{Both, Budget, Seen, Write, plan};
use crate::rules::route_health::{Core, Health, Inputs, RoutePolicy, WithdrawGuard, pinned_outcome};

/// What must hold in every state and over every move: name and meaning.
pub const INVARIANTS: [(&str, &str); 4] = [
    (
        "no-prefix-abandoned",
        "every prefix is listed by at least one router, whatever fails and whoever is pinned",
    ),
    (
        "unknown-changes-nothing",
        "a cycle that could not see an input writes nothing while health owns the routes",
    ),
    (
        "pin-beats-health",
        "a pinned site announces nothing that the pin does not, once the other site has the routes",
    ),
    (
        "withdrawals-follow",
        "a prefix is taken back only while the other router announces it with a session up",
    ),
];

/// One state of the world.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    healthy: [bool; 2],
    up: [bool; 2],
    pins: [RoutePin; 2],
    cores: [Core; 2],
    /// By site and prefix (0 = the active site's prefix).
    lists: [[bool; 2]; 2],
}

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Fails(usize),
    LosesSessions(usize),
    Pins(usize),
    /// A site's cycle; the bits of inputs that were not answered; whether its router refuses the write.
    Cycle(usize, u8, bool),
}

/// What the search found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// Moves between them.
    pub moves: usize,
    /// Whether nothing was left to look at.
    pub closed: bool,
    /// Time it took.
    pub took: Duration,
    /// The first violation: invariant and the moves that lead to it.
    pub violation: Option<(&'static str, Vec<String>)>,
}

fn policy(side: Side, verification: u32) -> RoutePolicy {
    RoutePolicy {
        window: 1,
        threshold: 1,
        bgp_window: 1,
        bgp_threshold: 1,
        verification: [1, verification, verification, verification, verification, verification],
        dwell_ms: 0,
        guard: WithdrawGuard::Strict,
        ..RoutePolicy::new(side)
    }
}

impl World {
    fn first() -> Self {
        Self {
            healthy: [true; 2],
            up: [true; 2],
            pins: [RoutePin::Health; 2],
            cores: [Core::default(), Core::default()],
            lists: [[true, false], [false, true]],
        }
    }

    fn moves() -> Vec<Move> {
        let mut moves = Vec::new();
        for site in 0..2 {
            moves.extend([Move::Fails(site), Move::LosesSessions(site), Move::Pins(site)]);
            for lost in [0, 1, 2, 4, 7] {
                moves.push(Move::Cycle(site, lost, false));
            }
            moves.push(Move::Cycle(site, 0, true));
        }
        moves
    }

    /// The next state, or the invariant that the move breaks.
    fn after(&self, happens: Move, policies: &[RoutePolicy; 2]) -> Result<Self, &'static str> {
        let mut next = self.clone();
        match happens {
            Move::Fails(site) => next.healthy[site] ^= true,
            Move::LosesSessions(site) => next.up[site] ^= true,
            Move::Pins(site) => {
                next.pins[site] = match next.pins[site] {
                    RoutePin::Health => RoutePin::Passive,
                    RoutePin::Passive => RoutePin::Health,
                };
            }
            Move::Cycle(site, lost, refused) => next.cycle(site, lost, refused, &policies[site])?,
        }
        for prefix in 0..2 {
            if !next.lists.iter().any(|list| list[prefix]) {
                return Err(INVARIANTS[0].0);
            }
        }
        Ok(next)
    }

    fn cycle(
        &mut self,
        own: usize,
        lost: u8,
        refused: bool,
        policy: &RoutePolicy,
    ) -> Result<(), &'static str> {
        let other = 1 - own;
        let sample = |bit: u8, good: bool| if lost & bit == 0 { Health::from(good) } else { Health::Unknown };
        let raw = Inputs {
            local: sample(1, self.healthy[own]),
            remote: sample(2, self.healthy[other]),
            bgp: sample(4, self.up[other]),
        };
        let listed = self.lists[other].map(|listed| listed && self.up[other]);
        let told = |prefix: usize| (lost & 4 == 0).then_some(listed[prefix]);
        let peer = Both { primary: told(own), secondary: told(other) };
        let before = self.lists[own];
        let decision = self.cores[own].step(policy, raw, Mono(0));
        self.cores[own] = timeless(self.cores[own].clone());
        let pin = self.pins[own];
        let Some(wanted) = policy.desired(Some(pin), &decision) else { return Ok(()) };
        let seen = Seen {
            router: Some(Both { primary: before[own], secondary: before[other] }),
            peer,
            priorities_to_change: Some(0),
        };
        let made = plan(policy, wanted, pin, &seen, &mut Budget::default(), Mono(0));
        for write in &made.writes {
            match write {
                Write::Router { .. } if refused => {}
                Write::Router { list } => {
                    (self.lists[own][own], self.lists[own][other]) = (list.primary, list.secondary);
                }
                Write::Cloudflare { .. } => {}
            }
        }
        if pin == RoutePin::Health && !raw.all_known() && !made.writes.is_empty() {
            return Err(INVARIANTS[1].0);
        }
        let after = self.lists[own];
        if (0..2).any(|prefix| before[prefix] && !after[prefix] && !listed[prefix]) {
            return Err(INVARIANTS[3].0);
        }
        if pin == RoutePin::Passive && !refused {
            let pinned = pinned_outcome(policy.side);
            let wants = [(own, pinned.primary), (other, pinned.secondary)];
            let kept = |prefix: usize| before[prefix] && told(prefix) != Some(true);
            if wants.iter().any(|(prefix, want)| after[*prefix] != *want && !kept(*prefix)) {
                return Err(INVARIANTS[2].0);
            }
        }
        Ok(())
    }
}

/// The core without what can't matter any more: a window of one sample only says that it is full.
fn timeless(core: Core) -> Core {
    let active = core.active.map(|mut active| {
        active.since = Mono(0);
        active
    });
    let candidate = core.candidate.map(|mut candidate| {
        candidate.count = candidate.count.min(2);
        candidate
    });
    Core {
        local: core.local.forget_samples(),
        remote: core.remote.forget_samples(),
        bgp: core.bgp.forget_samples(),
        candidate,
        active,
    }
}

/// Searches breadth first until nothing is left, or `limit` states.
/// Every state but 1 applies after `verification` detections (1 or 2).
pub fn search(verification: u32, limit: usize) -> Found {
    let began = Instant::now();
    let policies = Side::ALL.map(|side| policy(side, verification));
    let moves = World::moves();
    let first = World::first();
    let mut known: BTreeMap<World, usize> = BTreeMap::from([(first.clone(), 0)]);
    // By number: where a state came from, for the trace.
    let mut from: Vec<Option<(usize, Move)>> = vec![None];
    let mut waiting = VecDeque::from([(first, 0)]);
    let mut made = 0;
    let mut violation = None;
    'search: while let Some((world, number)) = waiting.pop_front() {
        for happens in &moves {
            made += 1;
            match world.after(*happens, &policies) {
                Ok(next) if known.contains_key(&next) => {}
                Ok(next) => {
                    let new = from.len();
                    from.push(Some((number, *happens)));
                    known.insert(next.clone(), new);
                    waiting.push_back((next, new));
                }
                Err(name) => {
                    violation = Some((name, trace(&from, number, *happens)));
                    break 'search;
                }
            }
        }
        if known.len() > limit {
            break;
        }
    }
    let closed = waiting.is_empty() && violation.is_none();
    Found { states: known.len(), moves: made, closed, took: began.elapsed(), violation }
}

fn trace(from: &[Option<(usize, Move)>], end: usize, last: Move) -> Vec<String> {
    let mut steps = vec![format!("{last:?}")];
    let mut at = end;
    while let Some(Some((before, happens))) = from.get(at) {
        steps.push(format!("{happens:?}"));
        at = *before;
    }
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_closes_and_finds_nothing() {
        let found = search(1, 1_000_000);
        assert_eq!(found.violation, None);
        assert!(found.closed, "{} states", found.states);
        assert!(found.states > 1_000);
        eprintln!("{} states, {} moves, {:?}", found.states, found.moves, found.took);
    }
}
