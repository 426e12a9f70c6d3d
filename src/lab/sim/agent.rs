//! A simulated agent: the shipped loop with engine, bus, journal, executor and peer protocol, between simulated
//! watchers and hands. It can be crashed, started again and stopped for a while.

use std::sync::Arc;

use tokio::sync::{Mutex, broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::disk::SimDisk;
use super::gate::{Gate, Gated};
use super::history::Fact;
use super::link::{Door, Doors, End};
use super::senses;
use super::stage::Stage;
use super::world::{EPOCH, Shared};
use crate::agent::memory::{Memory, take_up};
use crate::agent::windows;
use crate::bus::Bus;
use crate::config::journal::OnDamage;
use crate::http::OperatorDesk;
use crate::model::{Note, Side};
use crate::peer::delivery::Courier;
use crate::tasks::clock::{Clock, SimulatedWall};
use crate::tasks::executor::Hands;
use crate::tasks::kill_switch::KillSwitch;
use crate::tasks::logic_handler::{self, Logic};
use crate::tasks::peer_client::{self, Beat};
use crate::tasks::recorder::Recorder;
use crate::tasks::{Ctx, Exit};
use crate::telemetry::Metrics;

/// The agent of a site through all its lives.
pub struct SimAgent {
    shared: Shared,
    side: Side,
    doors: Doors,
    /// Its journal's disk.
    pub disk: SimDisk,
    /// Its wall clock.
    pub wall: SimulatedWall,
    gate: Arc<Gate>,
    lives: u32,
    tasks: Vec<JoinHandle<()>>,
    desk: Option<OperatorDesk>,
    /// An entry of its journal was found damaged; a torn last line is not.
    pub damaged: Option<String>,
}

impl SimAgent {
    /// An agent that does not run yet.
    pub fn new(shared: Shared, side: Side, doors: Doors, disk: SimDisk) -> Self {
        let gate = Arc::new(Gate::new(shared.start()));
        let wall = SimulatedWall::new(shared.start(), EPOCH);
        Self { shared, side, doors, disk, wall, gate, lives: 0, tasks: Vec::new(), desk: None, damaged: None }
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.desk.is_some()
    }

    /// Where a person asks it.
    pub fn desk(&self) -> Option<OperatorDesk> {
        self.desk.clone()
    }

    /// Starts it. `false` = its journal could not be opened; a supervisor would try again.
    pub fn start(&mut self) -> bool {
        let Ok((journal, recovered)) = self.disk.open() else { return false };
        self.lives += 1;
        if let Some(damage) = &recovered.damage {
            self.damaged = Some(damage.to_string());
        }
        let pace = self.shared.plan.pace;
        let policy = self.shared.plan.policy(self.side, format!("{}-{}", self.side, self.lives));
        let Memory { diary, state, mono } =
            take_up(journal, recovered, &policy, OnDamage::Halt, self.wall.now());
        let registry = Arc::new(prometheus::Registry::new());
        let metrics = Metrics::new(&registry);
        let clock = Clock::simulated(mono, self.wall.clone());
        let (bus, events) = Bus::new();
        let bus = bus.with_clock(clock.clone());
        let desk = OperatorDesk::new(bus.clone());
        let (windows, views) = windows();
        drop(views.snapshot);
        let notes = windows.notes.subscribe();
        let (courier, queue) = Courier::new(pace.forward);
        let stage = Stage { shared: self.shared.clone(), side: self.side, gate: self.gate.clone() };
        let hands = Hands { courier: Some(courier), simulated: Some(Arc::new(stage)), ..Hands::default() };
        let own = Door {
            instance: policy.instance.clone(),
            bus: bus.clone(),
            status: views.status,
            handled: views.handled,
            gate: self.gate.clone(),
        };
        let logic = Arc::new(Logic {
            policy,
            events: Mutex::new(events),
            saved: Mutex::new(state),
            clock,
            hands: Arc::new(hands),
            diary: Arc::new(diary),
            recorder: Recorder::default(),
            kill: KillSwitch::default(),
            windows,
            desk: desk.clone(),
            metrics,
            status_every: std::time::Duration::from_millis(pace.ping / 2),
        });
        let ctx = Ctx { cancel: CancellationToken::new(), bus: bus.clone(), registry };
        self.doors.set(self.side, Some(own.clone()));
        let end = End { shared: self.shared.clone(), side: self.side, doors: self.doors.clone(), own };
        self.spawn_logic(ctx, logic);
        self.spawn_senses(&bus);
        if self.shared.plan.witness {
            self.spawn(senses::witness(self.shared.clone(), self.side, bus.clone(), views.wants_lease));
        }
        let (beat, beats) = watch::channel(Beat::default());
        let loss = std::time::Duration::from_millis(pace.loss);
        self.spawn(end.clone().heartbeat(beat));
        self.spawn(async move { peer_client::judge(&bus, beats, loss).await });
        self.spawn(end.forward(queue));
        self.tasks.push(tokio::spawn(listen(self.shared.clone(), self.side, notes)));
        self.desk = Some(desk);
        self.awake(true);
        true
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(Gated::new(self.gate.clone(), task)));
    }

    fn spawn_logic(&mut self, ctx: Ctx, logic: Arc<Logic>) {
        let (shared, side) = (self.shared.clone(), self.side);
        let inner = Gated::new(self.gate.clone(), logic_handler::run(ctx, logic));
        let life = tokio::spawn(inner);
        let abort = life.abort_handle();
        self.tasks.push(tokio::spawn(async move {
            let _ends_with_us = AbortOnDrop(abort);
            let how = match life.await {
                Ok(Exit::Cancelled | Exit::Finished) => return,
                Ok(Exit::Failed(why)) => why,
                Err(error) if error.is_cancelled() => return,
                Err(error) => error.to_string(),
            };
            shared.lock().note(Fact::Died { side, how });
        }));
    }

    fn spawn_senses(&mut self, bus: &Bus) {
        let (shared, side) = (self.shared.clone(), self.side);
        self.spawn(senses::record(shared.clone(), side, bus.clone()));
        self.spawn(senses::runs(shared.clone(), side, bus.clone()));
        self.spawn(senses::patroni(shared.clone(), side, bus.clone()));
        self.spawn(senses::dns(shared, side, bus.clone()));
    }

    /// `kill -9`: calls that are on their way arrive, answers find nobody.
    pub fn crash(&mut self) {
        self.doors.set(self.side, None);
        self.desk = None;
        self.tasks.drain(..).for_each(|task| task.abort());
        self.awake(false);
    }

    /// SIGSTOP for so long.
    pub fn stall(&mut self, ms: u64) {
        let until = self.shared.now() + ms;
        self.gate.close_until(until);
        if self.runs() {
            self.awake(false);
        }
    }

    /// Says whether it is awake, where that may have changed.
    pub fn note_awake(&self) {
        let open = futures_util::FutureExt::now_or_never(self.gate.pass()).is_some();
        self.awake(self.runs() && open);
    }

    fn awake(&self, on: bool) {
        let mut world = self.shared.lock();
        let side = self.side;
        if std::mem::replace(&mut world.awake[side as usize], on) != on {
            world.note(Fact::Agent { side, on });
            world.touch();
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes down what an agent tells people.
async fn listen(shared: Shared, side: Side, mut notes: broadcast::Receiver<Note>) {
    while let Ok(note) = notes.recv().await {
        let worth = !matches!(
            note,
            Note::DnsOdd { .. } | Note::DnsHealed | Note::DnsChanged { .. } | Note::PatroniChanged { .. }
        );
        if !worth {
            continue;
        }
        let mut world = shared.lock();
        if matches!(note, Note::TransitionStarted { .. }) {
            world.site(side).begin_transition();
        }
        world.note(Fact::Told { side, note: Box::new(note) });
    }
}
