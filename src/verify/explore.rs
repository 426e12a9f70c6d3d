//! Breadth-first search over [`World`]: every order of everything that may happen, each state once, until nothing new is
//! found.
//!
//! A state behind the search costs its own 16 bytes in the set of those seen, and 8 for its parent and the move between;
//! a violation is told by playing the moves again from the start. A worker that panics is a violation, with its trace.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::model::{Acted, Bounds, Move, World};
use super::pair_rules::{self, DEMOTED_MS};
use super::rule::Rule;
use super::store::{Op, QuickBuild, Store, lock};
use crate::model::{Action, Note, Side};

const SHARDS: usize = 256;
/// Worlds that a worker takes at once.
const BATCH: usize = 512;
/// Moves within which a world without faults and requests must come to rest.
const REST_MOVES: usize = 600;
/// How many of them a trace shows.
const TOLD_MOVES: usize = 60;

/// Where a search stops before it closes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// States.
    pub states: usize,
    /// Time.
    pub time: Duration,
    /// Threads.
    pub workers: usize,
}

/// What a search found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Distinct states.
    pub states: usize,
    /// Moves looked at.
    pub moves: u64,
    /// Longest shortest path.
    pub depth: usize,
    /// Time it took.
    pub took: Duration,
    /// Distinct conditions of one side, and steps of one side computed by its engine.
    pub parts: (usize, usize),
    /// Worlds from which the way to rest was walked.
    pub walked: usize,
    /// Longest time for which both databases were read-only on such a way.
    pub demoted_ms: u64,
    /// Whether every reachable state within the bounds was visited.
    pub closed: bool,
    /// How often the premise of each invariant held, in the order of [`Rule::ALL`].
    pub exercised: Vec<u64>,
    /// What the engines reached anywhere, and how often: a search that reaches nothing proves nothing.
    pub reached: BTreeMap<String, u64>,
    /// The invariant that was broken, and the shortest way there in words.
    pub violation: Option<(String, Vec<String>)>,
}

#[derive(Default)]
struct Shard {
    seen: HashSet<World, QuickBuild>,
    came: Vec<(u32, Move)>,
}

struct Search<'a> {
    store: &'a Store,
    start: World,
    shards: Vec<Mutex<Shard>>,
    /// Worlds without anything left, and how long both sites are read-only from there to rest.
    calm: Vec<Mutex<HashMap<World, u32, QuickBuild>>>,
    stop: AtomicBool,
}

/// What is wrong, where, and after which further move.
struct Bad {
    what: String,
    at: u32,
    step: Option<Move>,
}

#[derive(Default)]
struct Slice {
    next: Vec<(World, u32)>,
    moves: u64,
    exercised: [u64; 32],
    judged: Vec<u64>,
    demoted: u64,
    bad: Option<Bad>,
}

fn shard_of(world: &World) -> usize {
    (QuickBuild::default().hash_one(world) >> 56) as usize % SHARDS
}

impl Search<'_> {
    fn add(&self, world: &World, parent: u32, step: Move) -> Option<u32> {
        let index = shard_of(world);
        let mut shard = lock(&self.shards[index]);
        shard.seen.insert(*world).then(|| {
            shard.came.push((parent, step));
            (index as u32) << 24 | (shard.came.len() as u32 - 1)
        })
    }

    fn path(&self, mut id: u32) -> Vec<Move> {
        let mut path = Vec::new();
        while id != u32::MAX {
            let (parent, step) = lock(&self.shards[(id >> 24) as usize]).came[(id & 0x00FF_FFFF) as usize];
            if parent != u32::MAX {
                path.push(step);
            }
            id = parent;
        }
        path.reverse();
        path
    }

    fn expand(&self, world: &World, id: u32, scratch: &mut (Vec<Move>, Vec<Acted>), slice: &mut Slice) {
        let (moves, acted) = scratch;
        world.moves(self.store, moves);
        for step in moves.iter().copied() {
            slice.moves += 1;
            acted.clear();
            let after = world.after(self.store, step, acted);
            let shown = pair_rules::judge(self.store, world, step, &after, acted);
            count(&mut slice.exercised, shown.exercised);
            for one in acted.iter() {
                let index = one.judged as usize;
                if slice.judged.len() <= index {
                    slice.judged.resize(index + 1, 0);
                }
                slice.judged[index] += 1;
            }
            if let Some(rule) = shown.bad {
                slice.bad = Some(Bad { what: rule.name().to_owned(), at: id, step: Some(step) });
                return;
            }
            if let Some(id) = self.add(&after, id, step) {
                slice.next.push((after, id));
            }
        }
        if world.left.faults == 0 && world.left.requests == 0 {
            match self.walk_to_rest(*world) {
                Ok(demoted) => slice.demoted = slice.demoted.max(demoted),
                Err(rule) => slice.bad = Some(Bad { what: rule.name().to_owned(), at: id, step: None }),
            }
        }
    }

    /// From a world in which nobody interferes any more to rest; every world on the way is walked once.
    fn walk_to_rest(&self, start: World) -> Result<u64, Rule> {
        let mut world = World { left: Bounds { faults: 0, requests: 0, writes: 0 }, ..start };
        let (mut way, mut acted) = (Vec::new(), Vec::new());
        let mut demoted = loop {
            if let Some(demoted) = lock(&self.calm[shard_of(&world)]).get(&world) {
                break u64::from(*demoted);
            }
            if way.len() > REST_MOVES {
                return Err(Rule::GoalReached);
            }
            acted.clear();
            let step = world.fair_move(self.store);
            let next = world.after(self.store, step, &mut acted);
            if next == world && step == Move::Time {
                way.push((world, 0));
                break 0;
            }
            way.push((world, demoted_ms(self.store, &world, &acted)));
            world = next;
        };
        for (world, ms) in way.into_iter().rev() {
            demoted += ms;
            if demoted > DEMOTED_MS {
                return Err(Rule::OneServes);
            }
            lock(&self.calm[shard_of(&world)]).insert(world, demoted as u32);
        }
        Ok(demoted)
    }

    fn work(&self, frontier: &[(World, u32)], cursor: &AtomicUsize) -> Slice {
        let mut slice = Slice::default();
        let mut scratch = (Vec::new(), Vec::new());
        loop {
            let from = cursor.fetch_add(BATCH, Ordering::Relaxed);
            if from >= frontier.len() || self.stop.load(Ordering::Relaxed) {
                return slice;
            }
            for (world, id) in &frontier[from..frontier.len().min(from + BATCH)] {
                let tried = AssertUnwindSafe(|| self.expand(world, *id, &mut scratch, &mut slice));
                if let Err(panic) = catch_unwind(tried) {
                    slice.bad =
                        Some(Bad { what: format!("panic: {}", words_of(&*panic)), at: *id, step: None });
                }
                if slice.bad.is_some() {
                    self.stop.store(true, Ordering::Relaxed);
                    return slice;
                }
            }
        }
    }
}

/// Milliseconds of this move during which neither site could take writes and nobody had been told why.
fn demoted_ms(store: &Store, world: &World, acted: &[Acted]) -> u64 {
    let faces = Side::ALL.map(|side| world.face(store, side));
    if faces.iter().any(|face| face.writable || face.rest.halted || face.rest.held) {
        return 0;
    }
    let passed = acted.iter().filter(|one| one.side == Side::Active);
    passed.map(|one| if let Op::Pass(ms) = one.op { u64::from(ms) } else { 0 }).sum()
}

fn count(counts: &mut [u64; 32], mut bits: u32) {
    while bits != 0 {
        counts[bits.trailing_zeros() as usize] += 1;
        bits &= bits - 1;
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words")
}

/// Searches from a world until nothing new is found, an invariant breaks, or a limit is reached.
pub fn explore(store: &Store, start: World, limits: Limits) -> Findings {
    let began = Instant::now();
    let search = Search {
        store,
        start,
        shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        calm: (0..SHARDS).map(|_| Mutex::default()).collect(),
        stop: AtomicBool::new(false),
    };
    let mut frontier: Vec<(World, u32)> =
        search.add(&start, u32::MAX, Move::Time).map(|id| (start, id)).into_iter().collect();
    let mut found = Findings { states: 1, closed: true, ..Findings::default() };
    let (mut exercised, mut judged) = ([0; 32], Vec::new());
    while !frontier.is_empty() {
        if found.states >= limits.states || began.elapsed() >= limits.time {
            found.closed = false;
            break;
        }
        let cursor = AtomicUsize::new(0);
        let slices: Vec<Slice> = std::thread::scope(|scope| {
            let work = || search.work(&frontier, &cursor);
            let workers: Vec<_> = (0..limits.workers.max(1)).map(|_| scope.spawn(work)).collect();
            let lost = |_| {
                let bad = Some(Bad { what: "panic: a worker died".to_owned(), at: u32::MAX, step: None });
                Slice { bad, ..Slice::default() }
            };
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(lost)).collect()
        });
        frontier.clear();
        for mut slice in slices {
            found.moves += slice.moves;
            found.demoted_ms = found.demoted_ms.max(slice.demoted);
            found.states += slice.next.len();
            frontier.append(&mut slice.next);
            exercised.iter_mut().zip(slice.exercised).for_each(|(sum, more)| *sum += more);
            judged.resize(slice.judged.len().max(judged.len()), 0);
            judged.iter_mut().zip(slice.judged).for_each(|(sum, more): (&mut u64, u64)| *sum += more);
            if let (Some(bad), None) = (slice.bad, &found.violation) {
                found.violation = Some((bad.what.clone(), search.tell(&bad)));
            }
        }
        if found.violation.is_some() {
            found.closed = false;
            break;
        }
        found.depth += 1;
    }
    (found.took, found.parts) = (began.elapsed(), store.sizes());
    found.walked = search.calm.iter().map(|calm| lock(calm).len()).sum();
    sum_up(store, &mut found, exercised, &judged);
    found
}

fn sum_up(store: &Store, found: &mut Findings, mut exercised: [u64; 32], judged: &[u64]) {
    for (id, times) in judged.iter().enumerate().filter(|(_, times)| **times > 0) {
        let one = store.judged(id as u32);
        for (rule, sum) in exercised.iter_mut().enumerate() {
            *sum += times * u64::from(one.exercised >> rule & 1);
        }
        for name in &one.landmarks {
            *found.reached.entry(name.clone()).or_default() += times;
        }
    }
    found.exercised = exercised[..Rule::ALL.len()].to_vec();
}

impl Search<'_> {
    fn tell(&self, bad: &Bad) -> Vec<String> {
        let (mut world, mut lines) = (self.start, Vec::new());
        for step in self.path(bad.at).into_iter().chain(bad.step) {
            self.tell_move(&mut world, step, &mut lines);
        }
        if bad.step.is_none() && !bad.what.starts_with("panic") {
            lines.push("from here nobody interferes:".to_owned());
            for _ in 0..TOLD_MOVES {
                let step = world.fair_move(self.store);
                self.tell_move(&mut world, step, &mut lines);
            }
        }
        for side in Side::ALL {
            let face = world.face(self.store, side);
            let site = self.store.whole(world.parts[side as usize]).site;
            lines.push(format!(
                "  = {side}: {:?}, database {:?} at {} on timeline {}, {:?}",
                site.recorded(),
                face.role,
                face.lsn,
                face.timeline,
                face.rest
            ));
        }
        lines
    }

    fn tell_move(&self, world: &mut World, step: Move, lines: &mut Vec<String>) {
        let mut acted = Vec::new();
        *world = world.after(self.store, step, &mut acted);
        lines.push(format!("{step:?}"));
        for one in acted {
            let said = self.store.explain(one.before, one.op);
            lines.extend(said.iter().map(|action| word(one.side, action)));
        }
    }
}

/// The line of a trace for what an engine said.
fn word(side: Side, action: &Action) -> String {
    match action {
        Action::Perform(command) => format!("    {side}: {} ({})", command.effect, command.step),
        Action::Report(Note::Remark { text, .. }) => format!("    {side}: {text}"),
        Action::Report(note) => format!("    {side}: {note:?}"),
    }
}
