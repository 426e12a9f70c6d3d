//! One side of the checked world: an engine that ships, its site, its calls under way, and one thing that happens to it.
//!
//! [`Part::step`] is the only place where the checker runs the engine. It has no clock: the moment is passed in. What
//! the two sides do to each other (letters, heartbeats, replication) is put together in [`super::model`].

pub use super::given::{Answer, Given, Letter, Past, requests};
use super::pair::{EPOCH_MS, policy};
use super::site::Site;
use crate::model::{
    Action, ActionId, Command, Detail, DnsSample, Effect, Event, FailureKind, Mono, Now, Outcome,
    PipelineRunSeen, ResolverAnswer, RunEvent, Side, Wall, WitnessSample,
};
use crate::rules::Engine;
use crate::rules::mutant::Mutant;
use crate::rules::policy::{Automation, Policy};
use crate::rules::state::{State, StepStatus};

/// The moment at which every canonical part stands.
pub const BASE_MS: u64 = 1 << 50;

/// What a search is about: the settings of both engines, and the fault seeded into them, if any.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Settings by side.
    pub policies: [Policy; 2],
    /// A fault in the rules that the search must find.
    pub mutant: Option<Mutant>,
}

impl Setting {
    /// The settings that the checker uses in a mode: fencing and promote-first on, two members, no portal, short waits.
    pub fn new(automation: Automation, witness: bool) -> Self {
        let policies = Side::ALL.map(|side| {
            let mut settings = policy(side);
            settings.automation = automation;
            (settings.fence_old_primary, settings.promote_first) = (true, true);
            (settings.portal, settings.database_replicas) = (false, 2);
            settings.dns.agree_samples = 1;
            settings.safety.witness = witness;
            settings
        });
        Self { policies, mutant: None }
    }

    /// The engine of a part.
    pub fn engine(&self, part: &Part) -> Engine {
        let mut policy = self.policies[part.side as usize].clone();
        policy.instance = part.instance();
        let engine = Engine::restore(policy, part.state.clone());
        match self.mutant {
            Some(mutant) => engine.with_mutant(mutant),
            None => engine,
        }
    }
}

/// One side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Part {
    /// Which one.
    pub side: Side,
    /// What its engine knows.
    pub state: State,
    /// The site.
    pub site: Site,
    /// Calls under way, oldest first.
    pub calls: Vec<Command>,
    /// The first of them stays under way while time goes on.
    pub late: bool,
    /// A letter that will arrive once more.
    pub copy: Option<Letter>,
    /// Milliseconds by which its wall clock is ahead.
    pub skew_ms: i64,
    /// Starts of the agent after the first.
    pub starts: u8,
    /// Pipeline runs whose end was told.
    pub ended: u32,
    /// What its resolvers answer.
    pub resolves: Answer,
    /// Milliseconds for which its agent has been dead; `None` = it lives.
    pub dead_ms: Option<u64>,
    /// What the invariants remember.
    pub past: Past,
}

fn failed() -> Outcome {
    Outcome::Failed { kind: FailureKind::Transient, reason: "no answer".to_owned() }
}

impl Part {
    /// A side on a normal day whose agent has seen nothing yet.
    pub fn new(side: Side, setting: &Setting) -> Self {
        let engine = Engine::new(setting.policies[side as usize].clone());
        let mut site = Site::new(side);
        (site.database.replicas, site.database.volumes) = (2, 2);
        Self {
            side,
            state: engine.state().clone(),
            site,
            calls: Vec::new(),
            late: false,
            copy: None,
            skew_ms: 0,
            starts: 0,
            ended: 0,
            resolves: Answer::Active,
            dead_ms: None,
            past: Past::default(),
        }
    }

    /// Name of the running process.
    pub fn instance(&self) -> String {
        format!("{}-{}", self.side, self.starts)
    }

    /// Both clocks of this side.
    pub fn clock(&self, now: Mono) -> Now {
        let wall = (EPOCH_MS + (now.0 - BASE_MS)).saturating_add_signed(self.skew_ms);
        Now { mono: now, wall: Wall(wall) }
    }

    /// What happens when something is given, and what the engine says.
    pub fn step(&mut self, setting: &Setting, given: &Given, now: Mono) -> Vec<Action> {
        match given {
            Given::Carry(index, answered) => self.carry(setting, *index, *answered, now),
            Given::Fail(index) => self.end_call(setting, *index, failed(), now),
            Given::Hang(index, applied) => {
                let command = self.take_call(*index);
                if *applied {
                    self.apply(&command, now);
                }
                Vec::new()
            }
            Given::Delivered(index, true) => {
                let outcome = Outcome::Done(Detail::PeerAnswered { acknowledged: true });
                self.end_call(setting, *index, outcome, now)
            }
            Given::Delivered(index, false) => self.end_call(setting, *index, failed(), now),
            Given::Hear((id, message)) => {
                let event =
                    Event::PeerMessage { id: id.clone(), message: message.clone(), authenticated: true };
                self.feed(setting, [event], now)
            }
            Given::HearCopy => match self.copy.take() {
                Some(letter) => self.step(setting, &Given::Hear(letter), now),
                None => Vec::new(),
            },
            Given::Crash(applied) => {
                self.crash(setting, *applied, now);
                Vec::new()
            }
            Given::Start => self.start(setting, now),
            Given::Observe => self.observe(setting, now),
            Given::Witness(holder) => {
                let answered = |holder| WitnessSample::Answered { holder, asked: now };
                let sample = holder.map_or(WitnessSample::Unknown("no answer".to_owned()), answered);
                self.feed(setting, [Event::Witness(sample)], now)
            }
            Given::Status(status) => {
                let up = Event::PeerLink { up: true, reason: String::new() };
                let answered = Event::PeerAnswered { asked: now };
                self.feed(setting, [answered, up, Event::PeerStatus(status.clone())], now)
            }
            Given::Lost => self.feed(setting, [Event::PeerLink { up: false, reason: String::new() }], now),
            Given::Tick => self.feed(setting, [Event::Tick], now),
            Given::Dns(answer) => self.resolve(setting, *answer, now),
            Given::Ask(index) => {
                let Some(request) = requests().into_iter().nth(usize::from(*index)) else {
                    return Vec::new();
                };
                let ask = Event::Operator { ticket: 1, who: "operator".to_owned(), request };
                self.feed(setting, [ask], now)
            }
            Given::Pass(ms) => {
                self.pass(setting, *ms, now);
                Vec::new()
            }
            Given::Follow(..)
            | Given::Write
            | Given::FailRun
            | Given::Skew(_)
            | Given::Keep(_)
            | Given::Delay(_) => {
                self.change(given);
                Vec::new()
            }
        }
    }

    /// What changes the site or its surroundings and tells the engine nothing.
    fn change(&mut self, given: &Given) {
        match given {
            Given::Keep(letter) => self.copy = Some(letter.clone()),
            Given::Delay(index) => {
                self.calls[..=usize::from(*index)].rotate_right(1);
                self.late = true;
            }
            Given::Follow(timeline, lsn) => {
                let database = &mut self.site.database;
                (database.timeline, database.lsn) = (*timeline, *lsn);
            }
            Given::Write => self.site.database.lsn += 10,
            Given::FailRun => self.site.failing_runs = 1,
            Given::Skew(ms) => self.skew_ms = *ms,
            _ => {}
        }
    }

    fn pass(&mut self, setting: &Setting, ms: u64, now: Mono) {
        self.site.advance(now);
        let slot_ms = (setting.policies[self.side as usize].safety.lease_ms / 2).max(1);
        // Whole slots only: absences of more than three are equal, and the phase of the clock is left out.
        self.dead_ms = self.dead_ms.map(|dead| (dead + ms).min(slot_ms * 4));
    }

    fn feed<const N: usize>(&mut self, setting: &Setting, events: [Event; N], now: Mono) -> Vec<Action> {
        let clock = self.clock(now);
        let mut engine = setting.engine(self);
        let said: Vec<Action> = events.into_iter().flat_map(|event| engine.handle(event, clock)).collect();
        self.state = engine.state().clone();
        self.calls.extend(said.iter().filter_map(|action| match action {
            Action::Perform(command) => Some(command.clone()),
            Action::Report(_) => None,
        }));
        said
    }

    fn take_call(&mut self, index: u8) -> Command {
        self.late &= index != 0;
        self.calls.remove(usize::from(index))
    }

    fn apply(&mut self, command: &Command, now: Mono) -> Outcome {
        let outcome = self.site.apply(&command.effect, now);
        self.site.asked.clear();
        outcome
    }

    fn carry(&mut self, setting: &Setting, index: u8, answered: bool, now: Mono) -> Vec<Action> {
        let command = self.take_call(index);
        let outcome = self.apply(&command, now);
        let known = answered && matches!(outcome, Outcome::Done(_)) && self.awaits(command.id);
        if known && command.effect.is_once_only() {
            let generation = self.state.run.as_ref().map_or(self.state.generation, |run| run.generation);
            self.past.once.push((generation, command.effect.to_string()));
        }
        let outcome = if answered { outcome } else { failed() };
        let done = Event::ActionDone { id: command.id, outcome };
        let mut said = self.feed(setting, [done], now);
        if matches!(command.effect, Effect::WriteRecord(_)) {
            let seen = Event::Record(self.site.record_seen());
            said.extend(self.feed(setting, [seen], now));
        }
        said
    }

    /// Whether the engine still waits for the outcome of a command.
    fn awaits(&self, id: ActionId) -> bool {
        self.awaits_until(id).is_some()
    }

    /// Until when the engine waits for the outcome of a command; `None` = it does not.
    pub(super) fn awaits_until(&self, id: ActionId) -> Option<Mono> {
        let state = &self.state;
        let fence = state.grant.iter().filter_map(|grant| grant.fence.as_ref());
        let lanes = state.run.iter().map(|run| &run.lane).chain(&state.followup).chain([&state.chores]);
        let mut steps = lanes.chain(fence).flat_map(|lane| &lane.steps).chain(&state.beside);
        steps.find_map(|step| match step.status {
            StepStatus::InFlight { action, until } if action == id => Some(until),
            _ => None,
        })
    }

    fn end_call(&mut self, setting: &Setting, index: u8, outcome: Outcome, now: Mono) -> Vec<Action> {
        let id = self.take_call(index).id;
        self.feed(setting, [Event::ActionDone { id, outcome }], now)
    }

    /// The agent dies: what comes back is what the journal holds, in a process of another name.
    fn crash(&mut self, setting: &Setting, applied: Option<u8>, now: Mono) {
        if let Some(command) = applied.and_then(|index| self.calls.get(usize::from(index)).cloned()) {
            self.apply(&command, now);
        }
        self.calls.clear();
        self.late = false;
        self.starts += 1;
        self.dead_ms = Some(0);
        self.state = self.state.durable().after_restart(now);
        match setting.mutant {
            Some(Mutant::ForgetsJournal) => {
                let fresh = Engine::new(setting.policies[self.side as usize].clone());
                self.state = fresh.state().clone();
            }
            Some(mutant) => mutant.spoil_restart(&mut self.state),
            None => {}
        }
    }

    fn start(&mut self, setting: &Setting, now: Mono) -> Vec<Action> {
        let slot_ms = (setting.policies[self.side as usize].safety.lease_ms / 2).max(1);
        let dead = self.dead_ms.take().unwrap_or_default();
        let slot = self.clock(now).wall.0 / slot_ms;
        self.state.lease.alive_slot = Some(slot - dead / slot_ms);
        self.observe(setting, now)
    }

    fn resolve(&mut self, setting: &Setting, answer: Answer, now: Mono) -> Vec<Action> {
        self.resolves = answer;
        let one = |last: u8| ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, last])].into());
        let silent = || ResolverAnswer::Unknown("time-out".to_owned());
        let answers = (0..3).map(|index| {
            let said = match answer {
                Answer::Active => one(1),
                Answer::Passive => one(2),
                Answer::OneLies if index == 0 => one(2),
                Answer::OneLies | Answer::Silence => silent(),
            };
            (format!("resolver-{index}"), said)
        });
        let answers = answers.collect();
        self.feed(setting, [Event::Dns(DnsSample { answers, self_test: None })], now)
    }

    fn observe(&mut self, setting: &Setting, now: Mono) -> Vec<Action> {
        let record = Event::Record(self.site.record_seen());
        let patroni = Event::Patroni(self.site.patroni_seen());
        let mut said = self.feed(setting, [record, patroni], now);
        said.extend(self.resolve(setting, self.resolves, now));
        if self.site.runs > self.ended {
            self.ended = self.site.runs;
            let succeeded = self.site.failing_runs == 0;
            self.site.failing_runs = 0;
            let run = PipelineRunSeen {
                kind: RunEvent::Modified,
                name: format!("run-{}", self.ended),
                event_id: Some(format!("{}-{}", self.side, self.ended)),
                release: Some("sso".to_owned()),
                reason: Some(if succeeded { "Completed" } else { "Failed" }.to_owned()),
                succeeded: Some(succeeded),
                created: Some(self.clock(now).wall.0),
            };
            said.extend(self.feed(setting, [Event::PipelineRun(run)], now));
        }
        said
    }
}
