//! Two mirrored instances and one cloud in memory: ten thousand random histories of health, sessions and lost answers.

use switchover_agent::model::{Mono, RoutePin, Side};
use switchover_agent::rules::route_health::actuate::{Both, Budget, Seen, Write, plan};
use switchover_agent::rules::route_health::{Core, Health, Inputs, Priority, RoutePolicy};

const HISTORIES: u64 = 10_000;
const POLLS: u64 = 70;
const BUDGET: u32 = 16;
/// Polls after which a world that stands still has been followed: windows, verification, dwell time, and the other
/// instance's turn.
const FOLLOWED: u64 = 14;

/// A generator of its own, so that a history is its number for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Truth {
    healthy: [bool; 2],
    up: [bool; 2],
}

/// One region's instance with what it can write. Index 0 of a prefix pair is region A's prefix.
struct Instance {
    policy: RoutePolicy,
    core: Core,
    budget: Budget,
    lists: [bool; 2],
    priority: Priority,
    writes: Vec<Mono>,
}

impl Instance {
    fn new(region: usize, policy: &RoutePolicy) -> Self {
        let mut lists = [false; 2];
        lists[region] = true;
        Self {
            policy: policy.clone(),
            core: Core::default(),
            budget: Budget::default(),
            lists,
            priority: Priority::Primary,
            writes: Vec::new(),
        }
    }
}

struct Pair {
    truth: Truth,
    instances: [Instance; 2],
    now: Mono,
}

impl Pair {
    fn new(policy: &RoutePolicy) -> Self {
        let truth = Truth { healthy: [true; 2], up: [true; 2] };
        Self { truth, instances: [0, 1].map(|region| Instance::new(region, policy)), now: Mono(1_000_000) }
    }

    /// One cycle of an instance; `lost` inputs (bits local, remote, bgp) are not answered.
    fn cycle(&mut self, own: usize, lost: u64) {
        let other = 1 - own;
        let sample =
            |bit: u64, value: bool| if lost & bit == 0 { Health::from(value) } else { Health::Unknown };
        let raw = Inputs {
            local: sample(1, self.truth.healthy[own]),
            remote: sample(2, self.truth.healthy[other]),
            bgp: sample(4, self.truth.up[other]),
        };
        let peer_lists = self.instances[other].lists;
        let announced = |prefix: usize| (lost & 4 == 0).then(|| self.truth.up[other] && peer_lists[prefix]);
        let peer = Both { primary: announced(own), secondary: announced(other) };
        let now = self.now;
        let it = &mut self.instances[own];
        let decision = it.core.step(&it.policy, raw, now);
        let Some(wanted) = it.policy.desired(Some(RoutePin::Health), &decision) else { return };
        let seen = Seen {
            router: Some(Both { primary: it.lists[own], secondary: it.lists[other] }),
            peer,
            priorities_to_change: Some(usize::from(it.priority != wanted.priority)),
        };
        for write in plan(&it.policy, wanted, RoutePin::Health, &seen, &mut it.budget, now).writes {
            it.budget.note(now);
            it.writes.push(now);
            match write {
                Write::Router { list } => (it.lists[own], it.lists[other]) = (list.primary, list.secondary),
                Write::Cloudflare { priority } => it.priority = priority,
            }
        }
    }

    /// Both instances, half an interval apart.
    fn poll(&mut self, lost: [u64; 2]) {
        for own in [0, 1] {
            self.cycle(own, lost[own]);
            self.now = self.now.plus(30_000);
        }
    }

    fn listed(&self, prefix: usize) -> bool {
        self.instances.iter().any(|it| it.lists[prefix])
    }

    /// Whether somebody who works answers for the prefix.
    fn served(&self, prefix: usize) -> bool {
        (0..2).any(|region| {
            self.truth.healthy[region] && self.truth.up[region] && self.instances[region].lists[prefix]
        })
    }

    fn most_writes_in_an_hour(&self) -> usize {
        let all = self.instances.iter().map(|it| &it.writes);
        all.flat_map(|writes| {
            writes.iter().map(move |end| {
                writes.iter().filter(|at| **at <= *end && end.since(**at) < 3_600_000).count()
            })
        })
        .max()
        .unwrap_or(0)
    }

    fn total_writes(&self) -> usize {
        self.instances.iter().map(|it| it.writes.len()).sum()
    }
}

fn policy() -> RoutePolicy {
    RoutePolicy { writes_per_hour: Some(BUDGET), ..RoutePolicy::new(Side::Active) }
}

fn history(number: u64) {
    let mut dice = Dice(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut pair = Pair::new(&policy());
    let (mut still, changes_until) = (0, POLLS - FOLLOWED);
    for poll in 0..POLLS {
        let before = pair.truth;
        if poll < changes_until && dice.roll(6) == 0 {
            match dice.roll(4) {
                0 => pair.truth.healthy[0] ^= true,
                1 => pair.truth.healthy[1] ^= true,
                2 => pair.truth.up[0] ^= true,
                _ => pair.truth.up[1] ^= true,
            }
        }
        let mut lost = [0; 2];
        if poll < changes_until && dice.roll(5) == 0 {
            lost[dice.roll(2) as usize] = 1 + dice.roll(7);
        }
        pair.poll(lost);
        still = if before == pair.truth && lost == [0; 2] { still + 1 } else { 0 };
        for prefix in 0..2 {
            assert!(pair.listed(prefix), "history {number}, poll {poll}: nobody lists prefix {prefix}");
            let able = (0..2).any(|region| pair.truth.healthy[region] && pair.truth.up[region]);
            assert!(
                !able || still < FOLLOWED - 1 || pair.served(prefix),
                "history {number}, poll {poll}: prefix {prefix} is unserved while a region works"
            );
        }
    }
    let most = pair.most_writes_in_an_hour();
    assert!(most <= BUDGET as usize, "history {number}: {most} writes in an hour");
}

#[test]
fn ten_thousand_histories_leave_no_prefix_unserved_and_stay_within_the_budget() {
    for number in 1..=HISTORIES {
        history(number);
    }
}

/// `half` polls good, `half` polls bad, until 1,000 flips are over: writes of both instances.
fn flapping(policy: &RoutePolicy, half: u64, flap: impl Fn(&mut Truth, bool)) -> (usize, usize) {
    let mut pair = Pair::new(policy);
    for _ in 0..10 {
        pair.poll([0, 0]);
    }
    for flip in 0..1000 {
        flap(&mut pair.truth, flip % 2 == 0);
        for _ in 0..half {
            pair.poll([0, 0]);
            assert!(pair.listed(0) && pair.listed(1));
        }
    }
    (pair.total_writes(), pair.most_writes_in_an_hour())
}

#[test]
fn a_thousand_flips_move_nothing() {
    let unlimited = RoutePolicy::new(Side::Active);
    let health = |truth: &mut Truth, bad: bool| truth.healthy[0] = !bad;
    let sessions = |truth: &mut Truth, bad: bool| truth.up[1] = !bad;
    let both = |truth: &mut Truth, bad: bool| truth.healthy = [bad, !bad];
    assert_eq!(flapping(&unlimited, 1, health).0, 0);
    assert_eq!(flapping(&unlimited, 1, sessions).0, 0);
    assert_eq!(flapping(&unlimited, 1, both).0, 0);
    let asymmetric = RoutePolicy { asymmetric: true, ..unlimited };
    for half in [1, 2] {
        assert_eq!(flapping(&asymmetric, half, health).0, 0, "{half} polls each way");
    }
}

#[test]
fn a_flap_slow_enough_to_be_followed_is_bounded_by_the_budget() {
    let (all, most) = flapping(&policy(), 4, |truth, bad| truth.healthy[0] = !bad);
    assert!(all > 0, "four polls each way are a real change");
    assert!(most <= BUDGET as usize, "{most} writes in an hour");
}
