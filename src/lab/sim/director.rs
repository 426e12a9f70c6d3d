//! Runs a plan: lets the world turn, breaks and mends what the schedule says, watches for order, lets the person act.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::agent::SimAgent;
use super::disk::SimDisk;
use super::history::Fact;
use super::link::Doors;
use super::nemesis::{MENDED_MS, Strike, schedule};
use super::order::{in_order, serving};
use super::person::{Person, Wish};
use super::plan::{EPISODE_MS, Plan, Scenario};
use super::strike::{self, Aftermath};
use super::world::Shared;
use crate::model::{OperatorRequest, Side};

/// How long the pair may take to come to rest after the last fault, or to say what a person must look at.
pub const BOUND_MS: u64 = 15 * 60_000;
/// How often order is looked for meanwhile.
const WATCH_MS: u64 = 5_000;
/// How often the person looks.
const LOOK_MS: u64 = 60_000;
/// When the person begins to tidy up, counted from the mending.
const PERSON_MS: u64 = 120_000;

#[derive(Debug, Clone, Copy)]
enum Act {
    Strike(Strike),
    Mend(Strike),
    Start(Side),
    Mended,
    Watch { since: u64 },
    Look { until: u64 },
    Close,
}

/// A simulation under way.
pub struct Director {
    shared: Shared,
    agents: [SimAgent; 2],
    acts: BTreeMap<(u64, u64), Act>,
    sequence: u64,
    person: Person,
}

impl Director {
    /// Both agents on a normal day, their journals in a folder.
    pub fn new(plan: Plan, folder: &Path) -> Self {
        let shared = Shared::new(plan);
        let doors = Doors::default();
        let agent = |side: Side| {
            let disk = SimDisk::new(folder.join(side.to_string()));
            SimAgent::new(shared.clone(), side, doors.clone(), disk)
        };
        let agents = Side::ALL.map(agent);
        let mut director =
            Self { shared, agents, acts: BTreeMap::new(), sequence: 0, person: Person::default() };
        for strike in schedule(&director.shared.plan) {
            director.at(strike.at, Act::Strike(strike));
            director.at(strike.until, Act::Mend(strike));
        }
        for episode in 0..director.shared.plan.episodes {
            director.at(episode * EPISODE_MS + MENDED_MS + 1, Act::Mended);
            director.at((episode + 1) * EPISODE_MS - 1, Act::Close);
        }
        director
    }

    fn at(&mut self, ms: u64, act: Act) {
        self.sequence += 1;
        self.acts.insert((ms, self.sequence), act);
    }

    /// Runs to the end.
    pub async fn run(&mut self) {
        if self.shared.plan.scenario == Scenario::Sensors {
            self.shared.lock().sensor_loss = 50;
        }
        let turning = tokio::spawn(self.shared.clone().turn());
        for agent in &mut self.agents {
            agent.start();
        }
        while let Some(((at, _), act)) = self.acts.pop_first() {
            let moment = self.shared.start() + Duration::from_millis(at);
            tokio::time::sleep_until(moment).await;
            self.perform(at, act);
        }
        for agent in &mut self.agents {
            agent.crash();
        }
        turning.abort();
    }

    fn perform(&mut self, now: u64, act: Act) {
        match act {
            Act::Strike(strike) => match strike::begin(&strike, &self.shared, &mut self.agents) {
                Aftermath::Nothing => {}
                Aftermath::Ask(transition) => {
                    let request = OperatorRequest::Transition { transition, accept_data_loss: None };
                    self.ask((strike.side, request));
                }
            },
            Act::Mend(strike) => {
                if strike::end(&strike, &self.shared, &mut self.agents) {
                    self.start(strike.side, now);
                }
                self.agents.iter().for_each(SimAgent::note_awake);
            }
            Act::Start(side) => self.start(side, now),
            Act::Mended => {
                for side in Side::ALL {
                    self.start(side, now);
                }
                self.shared.lock().note(Fact::Mended);
                self.at(now + WATCH_MS, Act::Watch { since: now });
                let until = now - MENDED_MS - 1 + EPISODE_MS - 2 * LOOK_MS;
                self.at(now + PERSON_MS, Act::Look { until });
            }
            Act::Watch { since } => self.watch(since, now),
            Act::Look { until } => self.look(now, until),
            Act::Close => self.close(),
        }
    }

    fn start(&mut self, side: Side, now: u64) {
        let agent = &mut self.agents[side as usize];
        let out = self.shared.lock().look(side).broken.database;
        if !agent.runs() && !out && !agent.start() {
            self.at(now + 1_000, Act::Start(side));
        }
    }

    /// Order, or a word about what is not in order: one of them must come within the bound.
    fn watch(&mut self, since: u64, now: u64) {
        let mut world = self.shared.lock();
        match in_order(&world) {
            Ok(phase) => world.note(Fact::Settled { phase: phase.to_string() }),
            Err(_) if self.person.knows_of_halt(&world) => {
                world.note(Fact::Settled { phase: "a named halt".to_owned() });
            }
            Err(what) if now >= since + BOUND_MS => world.note(Fact::Silent { what }),
            Err(_) => {
                drop(world);
                self.at(now + WATCH_MS, Act::Watch { since });
            }
        }
    }

    fn look(&mut self, now: u64, until: u64) {
        let wish = self.person.look(&self.shared.lock());
        if let Some(wish) = wish {
            self.ask(wish);
        }
        if now + LOOK_MS < until {
            self.at(now + LOOK_MS, Act::Look { until });
        }
    }

    /// The end of an episode: everything should be in order, and acknowledged writes where clients are served.
    fn close(&mut self) {
        let mut world = self.shared.lock();
        match in_order(&world) {
            Ok(phase) => world.settle_rows(serving(phase)),
            Err(what) => world.note(Fact::Silent { what: format!("at the end of the episode: {what}") }),
        }
    }

    fn ask(&mut self, (side, request): Wish) {
        let words = format!("{request:?}");
        let transition = match &request {
            OperatorRequest::Transition { transition, .. } => Some(*transition),
            _ => None,
        };
        {
            let mut world = self.shared.lock();
            let connected = world.is_connected();
            world.note(Fact::Asked { side, transition, words, connected });
            if request == OperatorRequest::Abort && !world.look(side).recorded().1.is_empty() {
                // What stands in the record by mistake is taken out by hand.
                let mistaken = world.look(side).recorded().1.parse::<crate::model::Transition>().is_err();
                if mistaken {
                    world.site(side).edit_record("transition", "");
                    world.touch();
                }
            }
        }
        if let Some(desk) = self.agents[side as usize].desk() {
            tokio::spawn(async move {
                // A refusal is in the notes; an agent that does not answer is asked again at the next look.
                let _ = desk.ask("the person on call", request).await;
            });
        }
    }

    /// What is left when it is over: the history, and for each side the journal's size and fingerprint.
    pub fn into_result(self) -> (super::history::History, [(u64, String); 2], Vec<String>) {
        let history = std::mem::take(&mut self.shared.lock().history);
        let damage = self.agents.iter().filter_map(|agent| agent.damaged.clone()).collect();
        (history, [0, 1].map(|side: usize| self.agents[side].disk.fingerprint()), damage)
    }
}
