//! One site's decision on a virtual clock, with a router and Cloudflare that are two lines of memory.

use switchover_agent::model::{Mono, RoutePin, Side};
use switchover_agent::rules::route_health::actuate::{Both, Budget, Plan, Seen, Write, plan};
use switchover_agent::rules::route_health::{Core, Decision, Health, Inputs, Priority, RoutePolicy};

/// `T`, `F` or `U` for each of local, remote, bgp.
pub fn inputs(text: &str) -> Inputs {
    let mut words = text.chars().map(|word| match word {
        'T' => Health::Healthy,
        'F' => Health::Unhealthy,
        'U' => Health::Unknown,
        other => panic!("{other}: not T, F or U"),
    });
    let mut next = || words.next().unwrap();
    Inputs { local: next(), remote: next(), bgp: next() }
}

pub struct Rig {
    pub policy: RoutePolicy,
    pub core: Core,
    pub budget: Budget,
    pub now: Mono,
    pub pin: RoutePin,
    pub router: Both<bool>,
    pub priority: Priority,
    pub peer: Both<Option<bool>>,
    pub writes: Vec<Write>,
}

/// One poll.
pub struct Poll {
    pub decision: Decision,
    pub plan: Plan,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(RoutePolicy::new(Side::Active))
    }

    pub fn with(policy: RoutePolicy) -> Self {
        Self {
            policy,
            core: Core::default(),
            budget: Budget::default(),
            now: Mono(1_000_000),
            pin: RoutePin::Health,
            router: Both { primary: true, secondary: false },
            priority: Priority::Primary,
            peer: Both { primary: Some(true), secondary: Some(true) },
            writes: Vec::new(),
        }
    }

    /// A rig whose windows are full of good samples and whose state is 1.
    pub fn settled() -> Self {
        let mut rig = Self::new();
        rig.polls("TTT", 5);
        assert_eq!(rig.active(), 1);
        rig
    }

    pub fn active(&self) -> u8 {
        self.core.active.map_or(0, |active| active.state.code())
    }

    /// One cycle; then time goes on by the interval.
    pub fn poll(&mut self, text: &str) -> Poll {
        let decision = self.core.step(&self.policy, inputs(text), self.now);
        let mut made = Plan::default();
        if let Some(wanted) = self.policy.desired(Some(self.pin), &decision) {
            let seen = Seen {
                router: Some(self.router),
                peer: self.peer,
                priorities_to_change: Some(usize::from(self.priority != wanted.priority)),
            };
            made = plan(&self.policy, wanted, self.pin, &seen, &mut self.budget, self.now);
        }
        for write in &made.writes {
            self.budget.note(self.now);
            match write {
                Write::Router { list } => self.router = *list,
                Write::Cloudflare { priority } => self.priority = *priority,
            }
            self.writes.push(write.clone());
        }
        self.now = self.now.plus(self.policy.interval_ms);
        Poll { decision, plan: made }
    }

    pub fn polls(&mut self, text: &str, times: usize) {
        for _ in 0..times {
            self.poll(text);
        }
    }
}
