//! What the world needs to know of a part to go on: calls, role, deadlines, what it tells the other side.

use super::part::{Answer, Letter, Part, Setting, requests};
use super::site::Role;
use crate::model::{
    Effect, Mono, OperatorRequest, PatroniSample, PeerLink, PeerStatus, RecordSeen, Side, Transition,
};
use crate::rules::policy::Automation;

/// Numbers for letters and heartbeats.
pub trait Names {
    /// The number of a letter.
    fn letter(&self, letter: &Letter) -> u32;
    /// The number of what a heartbeat tells.
    fn status(&self, status: &PeerStatus) -> u32;
}

/// A call under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// A message, by its number.
    Letter(u32),
    /// Data is deleted; whether a person has accepted a loss.
    Delete {
        /// `accept-data-loss` was given for the run.
        accepted: bool,
    },
    /// The database is promoted.
    Promote,
    /// Anything else at the site.
    Plain,
}

/// What is seen of a part from outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Face {
    /// What it tells with a heartbeat.
    pub status: u32,
    /// What it last heard; `None` = nothing.
    pub knows: Option<u32>,
    /// Its link.
    pub link: PeerLink,
    /// Whether its database takes writes.
    pub writable: bool,
    /// Role of its database.
    pub role: Role,
    /// Whether it will take writes by itself soon.
    pub promoting: bool,
    /// Pods of its database.
    pub replicas: u32,
    /// Timeline.
    pub timeline: u64,
    /// Position.
    pub lsn: u64,
    /// Milliseconds to the next deadline of the engine or change of the site.
    pub wakes: Option<u32>,
    /// Whether a look at its own site would tell it something new.
    pub news: bool,
    /// Calls under way.
    pub calls: Vec<Call>,
    /// Milliseconds for which the first of them may stay under way yet, where it is late.
    pub late: Option<u32>,
    /// Whether a second copy is on its way to it.
    pub copy: bool,
    /// Requests that an operator may usefully make, as bits of [`requests`].
    pub asks: u16,
    /// Whether a pipeline run is under way at the site.
    pub runs_pipeline: bool,
    /// Who promotes here, and under which eyes: see [`Promoter`].
    pub promoter: Promoter,
    /// Phase of the record, as wire text position in `Phase::ALL`; 255 = unknown.
    pub phase: u8,
    /// How a rest of this side is judged.
    pub rest: Rest,
    /// Milliseconds ahead by the wall.
    pub skew_ms: i64,
    /// What its resolvers answer.
    pub resolves: Answer,
    /// Whether it fences itself when it is alone.
    pub self_fencing: bool,
    /// Whether it has decided to fence itself.
    pub fencing: bool,
    /// Whether the run under way stopped waiting for the old primary to be fenced.
    pub waited_out: bool,
    /// Whether it should hold the witness's lease.
    pub wants_lease: Option<bool>,
}

/// Who is behind a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Promoter {
    /// No run, or a run that does not promote.
    Nobody,
    /// Automation.
    Automation,
    /// A person, by an ordinary transition.
    Person,
    /// A person, by force, or to detach the passive site for maintenance: two databases take writes by intent.
    Force,
    /// A consented failback.
    Consent,
}

/// What stands at a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rest {
    /// A run goes on (not halted).
    pub runs: bool,
    /// A halt stands.
    pub halted: bool,
    /// A person aborted.
    pub held: bool,
    /// Chores, followup, ask, request, waiting order, or messages are left.
    pub busy: bool,
    /// A consent was given, the database was made read-only for it, and the peer's side is not clear.
    pub stranded: bool,
    /// Everything that the last transition asked for has happened.
    pub settled: bool,
    /// A pipeline was given up.
    pub gave_up: bool,
    /// The record names a transition.
    pub asked: bool,
    /// A named refusal or a data loss accepted stands since the last run.
    pub refused: bool,
}

impl Face {
    /// What is seen of a part at a moment.
    pub fn of(setting: &Setting, part: &Part, now: Mono, names: &dyn Names) -> Self {
        let engine = setting.engine(part);
        let (state, database) = (&part.state, &part.site.database);
        let deadline = engine.next_deadline().map(|(at, _)| at);
        let wakes = [deadline, database.becoming.map(|(_, at)| at)];
        let wakes = wakes.into_iter().flatten().filter(|at| *at > now).min();
        let patroni = state.patroni.as_ref().map(|(sample, _)| sample);
        let record_news = match (&state.record, part.site.record_seen()) {
            (RecordSeen::Present(known), RecordSeen::Present(seen)) => {
                known.data != seen.data || known.resource_version != seen.resource_version
            }
            (known, seen) => *known != seen,
        };
        let patroni_news = patroni != Some(&part.site.patroni_seen())
            && !matches!((patroni, part.site.patroni_seen()), (None, PatroniSample::Unknown(_)));
        Self {
            status: names.status(&engine.peer_status(now)),
            knows: state.peer.status.as_ref().map(|(status, _)| names.status(status)),
            link: state.peer.link,
            writable: part.site.is_writable(),
            role: database.role,
            promoting: matches!(database.becoming, Some((Role::Primary, _))),
            replicas: database.replicas,
            timeline: database.timeline,
            lsn: database.lsn,
            wakes: wakes.map(|at| u32::try_from(at.since(now)).unwrap_or(u32::MAX)),
            news: record_news || patroni_news || part.site.runs > part.ended,
            calls: calls(part, names),
            late: part.late.then(|| patience(part, now)),
            copy: part.copy.is_some(),
            asks: asks(part),
            runs_pipeline: part.site.runs > part.ended && part.site.failing_runs == 0,
            promoter: promoter(part),
            phase: phase(part),
            rest: rest(part),
            skew_ms: part.skew_ms,
            resolves: part.resolves,
            self_fencing: engine.policy().automation == Automation::SelfFencing,
            fencing: state.lease.fenced.is_some(),
            waited_out: part.past.waited_out,
            wants_lease: engine.wants_witness_lease(),
        }
    }
}

fn phase(part: &Part) -> u8 {
    let shown = part.site.recorded().0;
    let found = crate::model::Phase::ALL.iter().position(|phase| phase.wire() == shown);
    found.map_or(255, |index| index as u8)
}

fn calls(part: &Part, names: &dyn Names) -> Vec<Call> {
    let accepted = part.state.run.as_ref().is_some_and(|run| run.accept_data_loss.is_some());
    let face = |command: &crate::model::Command| match &command.effect {
        Effect::SendPeer { id, message } => {
            Call::Letter(names.letter(&(Some((part.instance(), *id)), message.clone())))
        }
        Effect::PromoteDatabase => Call::Promote,
        effect if effect.is_destructive() => Call::Delete { accepted },
        _ => Call::Plain,
    };
    part.calls.iter().map(face).collect()
}

/// How long the engine still waits for the first call. An executor answers before that, whatever became of the call.
fn patience(part: &Part, now: Mono) -> u32 {
    let until = part.calls.first().and_then(|command| part.awaits_until(command.id));
    until.map_or(0, |until| u32::try_from(until.since(now)).unwrap_or(u32::MAX))
}

fn promoter(part: &Part) -> Promoter {
    use crate::rules::state::Origin;
    let Some(run) = &part.state.run else { return Promoter::Nobody };
    match (run.transition, run.origin) {
        (Transition::ActivePassiveForce | Transition::GolddrMaintenance, _) => Promoter::Force,
        (Transition::ActivePassive, _) => Promoter::Consent,
        (Transition::GolddrPrimary, Origin::Automation) => Promoter::Automation,
        (Transition::GolddrPrimary, _) => Promoter::Person,
        _ => Promoter::Nobody,
    }
}

fn rest(part: &Part) -> Rest {
    let state = &part.state;
    let halted = state.run.as_ref().is_some_and(|run| run.halted.is_some()) || state.safe_halt.is_some();
    let waits = state.ask.is_some() || state.request.is_some() || state.waiting_order.is_some();
    Rest {
        runs: state.run.as_ref().is_some_and(|run| run.halted.is_none()),
        halted,
        held: state.held,
        busy: waits
            || !state.chores.is_finished()
            || state.followup.is_some()
            || !state.beside.is_empty()
            || !state.outbox.is_empty(),
        stranded: state.grant.as_ref().is_some_and(|grant| grant.fenced),
        settled: state.settled,
        gave_up: matches!(state.pipeline.stage, crate::rules::pipeline::Stage::GivenUp { .. }),
        asked: !part.site.recorded().1.is_empty(),
        refused: state.refused.is_some() || part.past.refused,
    }
}

/// Requests that could change something: resume, abort and acknowledge only where there is something to act on.
fn asks(part: &Part) -> u16 {
    let state = &part.state;
    let halted = state.run.as_ref().is_some_and(|run| run.halted.is_some());
    let mut bits = 0;
    for (index, request) in requests().iter().enumerate() {
        let useful = match request {
            OperatorRequest::Transition { transition, .. } => {
                part.side == Side::Active
                    || matches!(transition, Transition::GolddrPrimary | Transition::GolddrMaintenance)
            }
            OperatorRequest::Resume => halted || state.held || state.safe_halt.is_some(),
            OperatorRequest::Abort => halted || state.ask.is_some(),
            OperatorRequest::Acknowledge => state.automation.unacknowledged,
            _ => false,
        };
        bits |= u16::from(useful) << index;
    }
    bits
}
