//! Two engines and two sites on virtual time: the whole pair in one process, deterministic to the millisecond.
//!
//! Events wait in one ordered queue; equal moments keep the order in which they were made. A seed decides nothing
//! here: whoever drives the pair (a scenario, a random walk) makes its own choices and injects them.

use std::collections::BTreeMap;

pub use super::settings::policy;
use super::site::{Role, Site};
use super::witness::SimulatedWitness;
use crate::model::{
    Action, Command, Detail, DnsSample, Effect, Event, FailureKind, Mono, Note, Now, OperatorRequest,
    Outcome, PeerMessage, PipelineRunSeen, RecordSeen, ResolverAnswer, RunEvent, Side, Transition, Wall,
};
use crate::rules::Engine;
use crate::rules::policy::Policy;

/// Wall clock at the start of virtual time, 2026-01-01.
pub const EPOCH_MS: u64 = 1_767_225_600_000;
/// Time from a call to its answer.
pub const CALL_MS: u64 = 20;
/// Time from a change to the watch event.
pub const WATCH_MS: u64 = 10;
/// Period of polls and heartbeats.
pub const POLL_MS: u64 = 1_000;
/// Time that a pipeline run takes, and after which unanswered heartbeats mean that the peer is lost.
pub const PIPELINE_MS: u64 = 3_000;
const LOSS_MS: u64 = 3_000;

/// Something that will happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Happening {
    Event(Event),
    Apply(Command),
    Poll,
    PipelineEnd(u32),
}

/// The network between the sites, per direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cut {
    /// Nothing goes from the active to the passive site.
    pub from_active: bool,
    /// Nothing goes from the passive to the active site.
    pub from_passive: bool,
}

/// One site with its engine.
#[derive(Debug, Clone)]
pub struct Half {
    /// The engine that ships.
    pub engine: Engine,
    /// The world around it.
    pub site: Site,
    /// Everything that the engine reported.
    pub notes: Vec<(Mono, Note)>,
    /// Last answered heartbeat.
    heard: Mono,
    /// Whether the agent runs.
    pub running: bool,
    /// Calls that take longer, by the words with which they begin, in milliseconds.
    pub slow: BTreeMap<String, u64>,
}

/// The pair.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Virtual time.
    pub now: Mono,
    halves: [Half; 2],
    queue: BTreeMap<(Mono, u64), (Side, Happening)>,
    sequence: u64,
    /// The network between the sites.
    pub cut: Cut,
    /// What resolvers answer at each side; `None` = no answer. The name follows the health deployments by default.
    pub dns_override: Option<ResolverAnswer>,
    /// Whether standbys receive what their source writes.
    pub replicates: bool,
    /// The witness, where there is one.
    pub witness: Option<SimulatedWitness>,
    /// Milliseconds during which both databases took writes.
    pub split_brain_ms: u64,
    /// Milliseconds during which neither did.
    pub no_writer_ms: u64,
}

impl Pair {
    /// A pair on a normal day; `adjust` may change each site's settings.
    pub fn new(adjust: impl Fn(&mut Policy)) -> Self {
        let half = |side: Side| {
            let mut settings = policy(side);
            adjust(&mut settings);
            let engine = Engine::new(settings);
            let (site, notes, slow) = (Site::new(side), Vec::new(), BTreeMap::new());
            Half { engine, site, notes, heard: Mono(0), running: true, slow }
        };
        let mut pair = Self {
            now: Mono(0),
            halves: [half(Side::Active), half(Side::Passive)],
            queue: BTreeMap::new(),
            sequence: 0,
            cut: Cut::default(),
            dns_override: None,
            replicates: true,
            witness: None,
            split_brain_ms: 0,
            no_writer_ms: 0,
        };
        Side::ALL.into_iter().for_each(|side| {
            pair.after(0, side, Happening::Poll);
            pair.watch_record(side);
        });
        pair
    }

    /// One site with its engine.
    pub fn half(&self, side: Side) -> &Half {
        &self.halves[side as usize]
    }

    /// The same, to change it.
    pub fn half_mut(&mut self, side: Side) -> &mut Half {
        &mut self.halves[side as usize]
    }

    /// Puts an event in front of an engine now.
    pub fn inject(&mut self, side: Side, event: Event) {
        self.after(0, side, Happening::Event(event));
    }

    /// A person edits the record of a site.
    pub fn edit_record(&mut self, side: Side, key: &str, value: &str) {
        self.half_mut(side).site.edit_record(key, value);
        self.watch_record(side);
    }

    /// An operator asks for a transition.
    pub fn ask(&mut self, side: Side, transition: Transition) {
        let request = OperatorRequest::Transition { transition, accept_data_loss: None };
        self.inject(side, Event::Operator { ticket: 1, who: "operator".to_owned(), request });
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        while let Some(at) = self.next_moment(end) {
            self.count_writers(at);
            self.now = at;
            for half in &mut self.halves {
                half.site.advance(at);
            }
            if let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= at) {
                let (side, happening) = entry.remove();
                self.happen(side, happening);
            } else {
                self.tick_overdue();
            }
        }
        self.count_writers(end);
        self.now = end;
    }

    /// Runs until a condition holds; `false` where it does not within `ms`.
    pub fn run_until(&mut self, ms: u64, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.plus(ms);
        while self.now < end {
            if holds(self) {
                return true;
            }
            self.run(50);
        }
        holds(self)
    }

    fn next_moment(&self, end: Mono) -> Option<Mono> {
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let deadlines = self.halves.iter().filter(|half| half.running);
        let deadline = deadlines.filter_map(|half| half.engine.next_deadline()).map(|(at, _)| at).min();
        let roles = self.halves.iter().filter_map(|half| half.site.database.becoming).map(|(_, at)| at).min();
        // A deadline in the past is looked at a moment later, as the driver does.
        let deadline = deadline.map(|at| at.max(self.now.plus(1)));
        [queued, deadline, roles.map(|at| at.max(self.now))]
            .into_iter()
            .flatten()
            .min()
            .filter(|at| *at <= end)
    }

    fn tick_overdue(&mut self) {
        for side in Side::ALL {
            let half = self.half(side);
            let due = half.running && half.engine.next_deadline().is_some_and(|(at, _)| at <= self.now);
            if due {
                self.happen(side, Happening::Event(Event::Tick));
            }
        }
    }

    fn count_writers(&mut self, until: Mono) {
        let span = until.since(self.now);
        match self.halves.iter().filter(|half| half.site.is_writable()).count() {
            0 => self.no_writer_ms += span,
            1 => {}
            _ => self.split_brain_ms += span,
        }
    }

    fn after(&mut self, ms: u64, side: Side, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now.plus(ms), self.sequence), (side, happening));
    }

    fn watch_record(&mut self, side: Side) {
        let seen = self.half(side).site.record_seen();
        self.after(WATCH_MS, side, Happening::Event(Event::Record(seen)));
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: Wall(EPOCH_MS + self.now.0) }
    }

    fn happen(&mut self, side: Side, happening: Happening) {
        match happening {
            Happening::Event(event) if self.half(side).running => self.feed(side, event),
            Happening::Event(_) => {}
            Happening::Apply(command) => self.apply(side, &command),
            Happening::Poll => self.poll(side),
            Happening::PipelineEnd(number) => self.end_pipeline(side, number),
        }
    }

    fn feed(&mut self, side: Side, event: Event) {
        let now = self.clock();
        let actions = self.half_mut(side).engine.handle(event, now);
        for action in actions {
            match action {
                Action::Report(note) => {
                    let moment = self.now;
                    self.half_mut(side).notes.push((moment, note));
                }
                Action::Perform(command) => {
                    let words = command.effect.to_string();
                    let slow = self.half(side).slow.iter().find(|(start, _)| words.starts_with(*start));
                    self.after(slow.map_or(CALL_MS / 2, |(_, ms)| *ms), side, Happening::Apply(command));
                }
            }
        }
    }

    fn apply(&mut self, side: Side, command: &Command) {
        let outcome = match &command.effect {
            Effect::SendPeer { id, message } => self.deliver(side, *id, message.clone()),
            effect => {
                let now = self.now;
                let outcome = self.half_mut(side).site.apply(effect, now);
                self.sync_standby(side);
                if matches!(effect, Effect::WriteRecord(_)) {
                    self.watch_record(side);
                }
                if let (Effect::TriggerPipeline, Outcome::Done(_)) = (effect, &outcome) {
                    let number = self.half(side).site.runs;
                    self.after(PIPELINE_MS, side, Happening::PipelineEnd(number));
                }
                outcome
            }
        };
        let done = Event::ActionDone { id: command.id, outcome };
        self.after(CALL_MS / 2, side, Happening::Event(done));
    }

    fn is_cut(&self, from: Side) -> bool {
        let (other_runs, cut) = (self.half(from.other()).running, self.cut);
        !other_runs || if from == Side::Active { cut.from_active } else { cut.from_passive }
    }

    fn deliver(&mut self, from: Side, id: crate::model::OutboxId, message: PeerMessage) -> Outcome {
        if self.is_cut(from) {
            return Outcome::Failed {
                kind: FailureKind::Transient,
                reason: "the peer did not answer".to_owned(),
            };
        }
        let instance = self.half(from).engine.policy().instance.clone();
        let id = Some((instance, id));
        self.inject(from.other(), Event::PeerMessage { id, message, authenticated: true });
        // Where the way back is cut the message arrived but its acknowledgement does not.
        if self.is_cut(from.other()) {
            return Outcome::Failed { kind: FailureKind::Transient, reason: "no acknowledgement".to_owned() };
        }
        Outcome::Done(Detail::PeerAnswered { acknowledged: true })
    }

    /// A standby holds what its source has written.
    fn sync_standby(&mut self, changed: Side) {
        if !self.replicates {
            return;
        }
        for side in [changed, changed.other()] {
            let source = self.half(side.other()).site.database.clone();
            let database = &mut self.half_mut(side).site.database;
            let follows = database.role == Role::Standby && database.replicas > 0;
            if follows && source.replicas > 0 && source.timeline >= database.timeline {
                (database.timeline, database.lsn) = (source.timeline, database.lsn.max(source.lsn));
            }
        }
    }

    fn poll(&mut self, side: Side) {
        self.after(POLL_MS, side, Happening::Poll);
        if self.half(side).site.is_writable() {
            self.half_mut(side).site.database.lsn += 10;
        }
        self.sync_standby(side);
        let patroni = self.half(side).site.patroni_seen();
        self.inject(side, Event::Patroni(patroni));
        let dns = self.resolve();
        self.inject(side, Event::Dns(dns));
        self.watch_record(side);
        self.heartbeat(side);
        self.ask_witness(side);
    }

    fn ask_witness(&mut self, side: Side) {
        let wanted = self.half(side).engine.wants_witness_lease();
        let lasts = self.half(side).engine.policy().safety.clone();
        let (now, running) = (self.now, self.half(side).running);
        let Some(witness) = self.witness.as_mut().filter(|_| running) else { return };
        let sample = witness.look(side, wanted, lasts.lease_ms + lasts.grace_ms, now);
        self.inject(side, Event::Witness(sample));
    }

    fn heartbeat(&mut self, side: Side) {
        if self.is_cut(side) || self.is_cut(side.other()) {
            if self.now.since(self.half(side).heard) >= LOSS_MS {
                self.inject(side, Event::PeerLink { up: false, reason: "no answer".to_owned() });
            }
            return;
        }
        let now = self.now;
        self.half_mut(side).heard = now;
        let status = self.half(side.other()).engine.peer_status(now);
        let asked = self.now;
        self.inject(side, Event::PeerAnswered { asked });
        self.inject(side, Event::PeerLink { up: true, reason: String::new() });
        self.inject(side, Event::PeerStatus(status));
    }

    fn resolve(&self) -> DnsSample {
        let ip = |last: u8| ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, last])].into());
        let answer = self.dns_override.clone().unwrap_or_else(|| {
            if self.half(Side::Active).site.health > 0 {
                ip(1)
            } else if self.half(Side::Passive).site.health > 0 {
                ip(2)
            } else {
                ResolverAnswer::NoAddress
            }
        });
        let answers = (0..3).map(|index| (format!("resolver-{index}"), answer.clone())).collect();
        DnsSample { answers, self_test: None }
    }

    fn end_pipeline(&mut self, side: Side, number: u32) {
        let wall = self.clock().wall.0;
        let site = &mut self.half_mut(side).site;
        let succeeded = site.failing_runs == 0;
        site.failing_runs = site.failing_runs.saturating_sub(1);
        let run = PipelineRunSeen {
            kind: RunEvent::Modified,
            name: format!("run-{number}"),
            event_id: Some(format!("{side}-{number}")),
            release: Some("sso".to_owned()),
            reason: Some(if succeeded { "Completed" } else { "Failed" }.to_owned()),
            succeeded: Some(succeeded),
            created: Some(wall),
        };
        self.inject(side, Event::PipelineRun(run));
    }

    /// Whether both records show a phase and both engines have settled.
    pub fn is_settled_in(&self, phase: &str) -> bool {
        Side::ALL.into_iter().all(|side| {
            let half = self.half(side);
            let (shown, transition) = half.site.recorded();
            shown == phase && transition.is_empty() && half.engine.state().settled
        })
    }

    /// Whether an engine has read its record.
    pub fn has_read_record(&self, side: Side) -> bool {
        matches!(self.half(side).engine.state().record, RecordSeen::Present(_))
    }
}
