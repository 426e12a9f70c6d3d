//! Breadth-first search over [`World`]: every order of everything that may happen, each state once.
//!
//! Of a state that is behind it only its fingerprint, its parent's and the move between are kept (24 bytes); a violation
//! is told by playing the moves again from the start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::invariants::broken;
use super::model::{Bounds, Move, World};
use crate::model::{Action, Note, Side};

const SHARDS: usize = 64;

/// What a search found.
#[derive(Debug, Clone)]
pub struct Findings {
    /// Distinct states.
    pub states: usize,
    /// Moves looked at.
    pub moves: u64,
    /// Longest shortest path.
    pub depth: usize,
    /// Time it took.
    pub took: Duration,
    /// Whether every reachable state within the bounds was visited.
    pub closed: bool,
    /// What the engines reached anywhere, and how often: a search that reaches nothing proves nothing.
    pub reached: BTreeMap<String, u64>,
    /// The invariant that was broken, and the shortest way there in words.
    pub violation: Option<(&'static str, Vec<String>)>,
}

type Shard = Mutex<HashMap<u64, (u64, Option<Move>)>>;

struct Search {
    seen: Vec<Shard>,
}

impl Search {
    fn add(&self, mark: u64, parent: u64, step: Option<Move>) -> bool {
        let index = usize::try_from(mark % SHARDS as u64).unwrap_or(0);
        let mut shard = self.seen[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match shard.entry(mark) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert((parent, step));
                true
            }
        }
    }

    fn get(&self, mark: u64) -> Option<(u64, Option<Move>)> {
        let index = usize::try_from(mark % SHARDS as u64).unwrap_or(0);
        let shard = self.seen[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shard.get(&mark).copied()
    }

    fn path(&self, mut mark: u64) -> Vec<Move> {
        let mut path = Vec::new();
        while let Some((parent, Some(step))) = self.get(mark) {
            path.push(step);
            mark = parent;
        }
        path.reverse();
        path
    }
}

struct Slice {
    next: Vec<World>,
    moves: u64,
    reached: BTreeMap<String, u64>,
    bad: Option<(&'static str, u64, Move)>,
}

fn expand(search: &Search, frontier: &[World]) -> Slice {
    let mut slice = Slice { next: Vec::new(), moves: 0, reached: BTreeMap::new(), bad: None };
    for world in frontier {
        let mark = world.fingerprint();
        for step in world.moves() {
            slice.moves += 1;
            let (after, said) = world.after(step);
            if let Some(name) = broken(world, step, &said, &after) {
                slice.bad = Some((name, mark, step));
                return slice;
            }
            for name in said.iter().filter_map(|(side, action)| landmark(*side, action)) {
                *slice.reached.entry(name).or_default() += 1;
            }
            if search.add(after.fingerprint(), mark, Some(step)) {
                slice.next.push(after);
            }
        }
    }
    slice
}

/// Searches until nothing new is found, an invariant breaks, or a limit is reached.
pub fn explore(bounds: Bounds, most_states: usize, most_time: Duration) -> Findings {
    let began = Instant::now();
    let search = Search { seen: (0..SHARDS).map(|_| Mutex::default()).collect() };
    let start = World::new(bounds);
    search.add(start.fingerprint(), 0, None);
    let mut frontier = vec![start];
    let mut found = Findings {
        states: 1,
        moves: 0,
        depth: 0,
        took: Duration::ZERO,
        closed: true,
        reached: BTreeMap::new(),
        violation: None,
    };
    while !frontier.is_empty() {
        if found.states >= most_states || began.elapsed() >= most_time {
            found.closed = false;
            break;
        }
        let half = frontier.len().div_ceil(2);
        let slices: Vec<Slice> = std::thread::scope(|scope| {
            let workers: Vec<_> =
                frontier.chunks(half).map(|part| scope.spawn(|| expand(&search, part))).collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
        });
        frontier.clear();
        for mut slice in slices {
            found.moves += slice.moves;
            for (name, count) in std::mem::take(&mut slice.reached) {
                *found.reached.entry(name).or_default() += count;
            }
            found.states += slice.next.len();
            frontier.append(&mut slice.next);
            if let Some((name, mark, step)) = slice.bad {
                found.violation = Some((name, tell(bounds, &search.path(mark), step)));
            }
        }
        if found.violation.is_some() {
            found.closed = false;
            break;
        }
        found.depth += 1;
    }
    found.took = began.elapsed();
    found
}

fn landmark(side: Side, action: &Action) -> Option<String> {
    match action {
        Action::Perform(command) if command.effect.is_once_only() => {
            Some(format!("{side}: {}", command.effect))
        }
        Action::Report(Note::TransitionDone { transition, .. }) => Some(format!("{side}: {transition} done")),
        Action::Report(Note::Halted { transition, step, .. }) => {
            Some(format!("{side}: {transition} halted at {step}"))
        }
        Action::Perform(_) | Action::Report(_) => None,
    }
}

fn tell(bounds: Bounds, path: &[Move], last: Move) -> Vec<String> {
    let mut world = World::new(bounds);
    let mut lines = Vec::new();
    for step in path.iter().chain([&last]) {
        let (after, said) = world.after(*step);
        lines.push(format!("{step:?}"));
        lines.extend(said.iter().map(|(side, action)| word(*side, action)));
        world = after;
    }
    lines
}

/// The line of a trace for what an engine said.
fn word(side: Side, action: &Action) -> String {
    match action {
        Action::Perform(command) => format!("    {side}: {} ({})", command.effect, command.step),
        Action::Report(Note::Remark { text, .. }) => format!("    {side}: {text}"),
        Action::Report(note) => format!("    {side}: {note:?}"),
    }
}
