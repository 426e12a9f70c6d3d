//! The small world that the checker explores: two shipped engines, two sites, a network, faults within a budget.
//!
//! Nothing of the rules is copied: a [`Move`] feeds the engine that ships and carries out what it asks for. Time moves
//! only to the next deadline. A fingerprint takes moments relative to now, so that equal situations at different times
//! are one state.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::pair::{EPOCH_MS, policy};
use super::site::{Role, Site};
use crate::model::{
    Action, Command, Detail, DnsSample, Effect, Event, FailureKind, Mono, Now, OperatorRequest, Outcome,
    PeerLink, PeerMessage, PipelineRunSeen, ResolverAnswer, RunEvent, Side, Transition, Wall,
};
use crate::rules::Engine;

/// Start of virtual time: large, so that a moment is told from any other number in a fingerprint.
const BASE_MS: u64 = 1 << 50;
/// Step of time where no deadline is nearer.
const STEP_MS: u64 = 1_000;

/// What may happen besides the normal course, and how often on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Failed, lost, repeated or late calls and messages, crashes, cuts, lying resolvers.
    pub faults: u8,
    /// Requests of an operator.
    pub requests: u8,
    /// Advances of time.
    pub ticks: u16,
    /// Whether `FENCE_OLD_PRIMARY` and `PROMOTE_FIRST` are on.
    pub fenced: bool,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// A call is carried out and answered.
    Carry(Side, u8),
    /// A call fails and does nothing.
    Fail(Side, u8),
    /// A call is carried out (a message delivered), but its answer is lost.
    LoseAnswer(Side, u8),
    /// A message is acknowledged now and delivered once more, late.
    KeepCopy(Side, u8),
    /// A late copy of a message arrives at this side.
    DeliverCopy(Side),
    /// The agent dies and comes back with its journal.
    Crash(Side),
    /// The way from this side to the other is cut.
    Cut(Side),
    /// Both ways work again.
    Heal,
    /// Every resolver names the passive site at this side.
    DnsPassive(Side),
    /// No resolver answers at this side.
    DnsUnknown(Side),
    /// An operator asks.
    Ask(Side, Transition),
    /// Time goes on to the next deadline; everybody looks again.
    Time,
}

/// One site with its engine and its calls under way.
#[derive(Debug, Clone)]
pub struct Part {
    /// The engine that ships.
    pub engine: Engine,
    /// The site.
    pub site: Site,
    /// Calls under way.
    pub calls: Vec<Command>,
    /// Whether the way to the other side is cut.
    pub cut: bool,
    /// A message that will arrive here once more.
    pub copy: Option<(Option<(String, crate::model::OutboxId)>, PeerMessage)>,
    /// Pipeline runs whose end was told.
    ended: u32,
}

/// A state of the model.
#[derive(Debug, Clone)]
pub struct World {
    /// Both sides.
    pub parts: [Arc<Part>; 2],
    /// Virtual time.
    pub now: Mono,
    /// What is left.
    pub left: Bounds,
    /// Whether the network was ever cut on this path.
    pub was_cut: bool,
}

/// What an engine said and asked for during one move.
pub type Said = Vec<(Side, Action)>;

struct Relative {
    inner: DefaultHasher,
    now: u64,
    wall: u64,
}

impl Hasher for Relative {
    fn finish(&self) -> u64 {
        self.inner.finish()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.inner.write(bytes);
    }
    fn write_u64(&mut self, value: u64) {
        let moment = if value >= BASE_MS {
            value.wrapping_sub(self.now)
        } else if value >= EPOCH_MS {
            value.wrapping_sub(self.wall)
        } else {
            value
        };
        self.inner.write_u64(moment);
    }
}

impl World {
    /// A normal day with fencing, within bounds.
    pub fn new(bounds: Bounds) -> Self {
        let part = |side: Side| {
            let mut settings = policy(side);
            (settings.fence_old_primary, settings.promote_first) = (bounds.fenced, bounds.fenced);
            settings.dns.agree_samples = 1;
            Arc::new(Part {
                engine: Engine::new(settings),
                site: Site::new(side),
                calls: Vec::new(),
                cut: false,
                copy: None,
                ended: 0,
            })
        };
        let parts = [part(Side::Active), part(Side::Passive)];
        let mut world = Self { parts, now: Mono(BASE_MS), left: bounds, was_cut: false };
        world.look(&mut Vec::new());
        world.look(&mut Vec::new());
        world
    }

    /// One side.
    pub fn part(&self, side: Side) -> &Part {
        &self.parts[side as usize]
    }

    fn part_mut(&mut self, side: Side) -> &mut Part {
        Arc::make_mut(&mut self.parts[side as usize])
    }

    /// The state as one number, moments relative to now; what is only for people (refusals told) is left out.
    pub fn fingerprint(&self) -> u64 {
        let wall = self.clock().wall.0;
        let mut hasher = Relative { inner: DefaultHasher::new(), now: self.now.0, wall };
        for part in &self.parts {
            let state = part.engine.state();
            (&state.generation, &state.record, &state.damping, &state.patroni, &state.peer, &state.handled)
                .hash(&mut hasher);
            (&state.outbox, &state.last_message, &state.request, &state.ask, &state.grant, &state.run)
                .hash(&mut hasher);
            (&state.followup, &state.chores, &state.beside, &state.pipeline, &state.automation)
                .hash(&mut hasher);
            (state.settled, &state.unsettled, state.held, state.annotated, state.last_nonce)
                .hash(&mut hasher);
            (&part.site, &part.calls, part.cut, &part.copy, part.ended).hash(&mut hasher);
        }
        (self.left, self.was_cut).hash(&mut hasher);
        hasher.finish()
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: Wall(EPOCH_MS + (self.now.0 - BASE_MS)) }
    }

    /// Everything that may happen now.
    pub fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        let faulty = self.left.faults > 0;
        for side in Side::ALL {
            let part = self.part(side);
            for index in 0..u8::try_from(part.calls.len()).unwrap_or(u8::MAX) {
                moves.push(Move::Carry(side, index));
                if faulty {
                    moves.extend([Move::Fail(side, index), Move::LoseAnswer(side, index)]);
                    if matches!(part.calls[usize::from(index)].effect, Effect::SendPeer { .. }) {
                        moves.push(Move::KeepCopy(side, index));
                    }
                }
            }
            if part.copy.is_some() {
                moves.push(Move::DeliverCopy(side));
            }
            if faulty {
                moves.extend([Move::Crash(side), Move::DnsPassive(side), Move::DnsUnknown(side)]);
                if !part.cut {
                    moves.push(Move::Cut(side));
                }
            }
        }
        if self.left.requests > 0 {
            let asked = [Transition::GolddrPrimary, Transition::GoldStandby, Transition::ActivePassive];
            moves.extend(asked.map(|transition| Move::Ask(Side::Active, transition)));
        }
        if self.parts.iter().any(|part| part.cut) {
            moves.push(Move::Heal);
        }
        let idle = self.parts.iter().all(|part| part.calls.is_empty());
        if self.left.ticks > 0 && idle {
            moves.push(Move::Time);
        }
        moves
    }

    /// The state after a move, and what the engines said.
    pub fn after(&self, step: Move) -> (Self, Said) {
        let mut world = self.clone();
        let mut said = Vec::new();
        world.play(step, &mut said);
        (world, said)
    }

    fn play(&mut self, step: Move, said: &mut Said) {
        match step {
            Move::Carry(side, index) => self.carry(side, index, true, said),
            Move::LoseAnswer(side, index) => {
                self.left.faults -= 1;
                self.carry(side, index, false, said);
            }
            Move::Fail(side, index) => {
                self.left.faults -= 1;
                let id = self.part_mut(side).calls.remove(usize::from(index)).id;
                self.feed(side, Event::ActionDone { id, outcome: failed() }, said);
            }
            Move::KeepCopy(side, index) => {
                self.left.faults -= 1;
                if let Effect::SendPeer { id, message } =
                    self.part(side).calls[usize::from(index)].effect.clone()
                {
                    let id = Some((self.part(side).engine.policy().instance.clone(), id));
                    self.part_mut(side.other()).copy = Some((id, message));
                }
                self.carry(side, index, true, said);
            }
            Move::DeliverCopy(side) => {
                if let Some((id, message)) = self.part_mut(side).copy.take() {
                    self.feed(side, Event::PeerMessage { id, message, authenticated: true }, said);
                }
            }
            Move::Crash(side) => self.crash(side, said),
            Move::Cut(side) => {
                self.left.faults -= 1;
                self.was_cut = true;
                self.part_mut(side).cut = true;
            }
            Move::Heal => Side::ALL.into_iter().for_each(|side| self.part_mut(side).cut = false),
            Move::DnsPassive(side) => {
                let passive = ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, 2])].into());
                self.resolve(side, &passive, said);
            }
            Move::DnsUnknown(side) => {
                self.resolve(side, &ResolverAnswer::Unknown("time-out".to_owned()), said);
            }
            Move::Ask(side, transition) => {
                self.left.requests -= 1;
                let request = OperatorRequest::Transition { transition, accept_data_loss: None };
                self.feed(side, Event::Operator { ticket: 1, who: "operator".to_owned(), request }, said);
            }
            Move::Time => self.pass_time(said),
        }
    }

    fn resolve(&mut self, side: Side, answer: &ResolverAnswer, said: &mut Said) {
        self.left.faults -= 1;
        let answers = (0..3).map(|index| (format!("resolver-{index}"), answer.clone())).collect();
        self.feed(side, Event::Dns(DnsSample { answers, self_test: None }), said);
    }

    fn crash(&mut self, side: Side, said: &mut Said) {
        self.left.faults -= 1;
        let now = self.now;
        let part = self.part_mut(side);
        let saved = part.engine.state().durable().after_restart(now);
        part.engine = Engine::restore(part.engine.policy().clone(), saved);
        part.calls.clear();
        self.observe(side, said);
    }

    fn feed(&mut self, side: Side, event: Event, said: &mut Said) {
        let now = self.clock();
        let part = self.part_mut(side);
        for action in part.engine.handle(event, now) {
            if let Action::Perform(command) = &action {
                part.calls.push(command.clone());
            }
            said.push((side, action));
        }
    }

    fn carry(&mut self, side: Side, index: u8, answered: bool, said: &mut Said) {
        let command = self.part_mut(side).calls.remove(usize::from(index));
        let mut outcome = match &command.effect {
            Effect::SendPeer { .. } if self.part(side).cut => failed(),
            Effect::SendPeer { id, message } => {
                let id = Some((self.part(side).engine.policy().instance.clone(), *id));
                let event = Event::PeerMessage { id, message: message.clone(), authenticated: true };
                self.feed(side.other(), event, said);
                let deaf = self.part(side.other()).cut;
                if deaf { failed() } else { Outcome::Done(Detail::PeerAnswered { acknowledged: true }) }
            }
            effect => {
                let now = self.now;
                let part = self.part_mut(side);
                let outcome = part.site.apply(effect, now);
                part.site.asked.clear();
                outcome
            }
        };
        if !answered {
            outcome = failed();
        }
        self.feed(side, Event::ActionDone { id: command.id, outcome }, said);
        if matches!(command.effect, Effect::WriteRecord(_)) {
            let seen = self.part(side).site.record_seen();
            self.feed(side, Event::Record(seen), said);
        }
    }

    fn pass_time(&mut self, said: &mut Said) {
        self.left.ticks -= 1;
        let deadlines = self.parts.iter().filter_map(|part| part.engine.next_deadline());
        let next = deadlines.map(|(at, _)| at).filter(|at| *at > self.now).min();
        self.now = next.map_or(self.now.plus(STEP_MS), |at| at.min(self.now.plus(STEP_MS)));
        let now = self.now;
        for side in Side::ALL {
            self.part_mut(side).site.advance(now);
        }
        self.follow();
        self.look(said);
    }

    /// A standby holds what its source has written.
    fn follow(&mut self) {
        for side in Side::ALL {
            let source = self.part(side.other()).site.database.clone();
            let database = &mut self.part_mut(side).site.database;
            let follows = database.role == Role::Standby && database.replicas > 0;
            if follows && source.replicas > 0 && source.timeline >= database.timeline {
                (database.timeline, database.lsn) = (source.timeline, database.lsn.max(source.lsn));
            }
        }
    }

    fn look(&mut self, said: &mut Said) {
        for side in Side::ALL {
            self.observe(side, said);
        }
        for side in Side::ALL {
            let up = !self.part(side).cut && !self.part(side.other()).cut;
            if up {
                let status = self.part(side.other()).engine.peer_status(self.now);
                self.feed(side, Event::PeerStatus(status), said);
            }
            if up != (self.part(side).engine.state().peer.link == PeerLink::Up) {
                self.feed(side, Event::PeerLink { up, reason: String::new() }, said);
            }
        }
    }

    fn observe(&mut self, side: Side, said: &mut Said) {
        let seen = self.part(side).site.record_seen();
        self.feed(side, Event::Record(seen), said);
        let patroni = self.part(side).site.patroni_seen();
        self.feed(side, Event::Patroni(patroni), said);
        let (started, wall) = (self.part(side).site.runs, self.clock().wall.0);
        if started > self.part(side).ended {
            self.part_mut(side).ended = started;
            let run = PipelineRunSeen {
                kind: RunEvent::Modified,
                name: format!("run-{started}"),
                event_id: Some(format!("{side}-{started}")),
                release: Some("sso".to_owned()),
                reason: Some("Completed".to_owned()),
                succeeded: Some(true),
                created: Some(wall),
            };
            self.feed(side, Event::PipelineRun(run), said);
        }
    }
}

fn failed() -> Outcome {
    Outcome::Failed { kind: FailureKind::Transient, reason: "no answer".to_owned() }
}
