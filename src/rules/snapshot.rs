//! What `/status` shows: the state in the words of the person who reads it, and the next moment at which the engine
//! wants to be woken.

use serde::Serialize;

use super::Engine;
use super::lanes::step_deadline;
use super::lease::FenceReason;
use super::sensors::Senses;
use super::state::{Lane, StepRun, StepStatus};
use crate::model::{
    Generation, Mono, Now, PatroniSample, PeerLink, PeerStatus, Phase, RecordSeen, RefusalNote, RoutePin,
    Side, Wall,
};

/// A step as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// Name.
    pub name: String,
    /// What it does, in words.
    pub does: String,
    /// `pending`, `running`, `retrying`, `observing`, `done`.
    pub status: &'static str,
    /// Tries so far.
    pub attempt: u32,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// A transition as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunView {
    /// Which one.
    pub transition: &'static str,
    /// Its fencing number.
    pub generation: Generation,
    /// Rule that started it.
    pub rule: String,
    /// Who asked.
    pub origin: &'static str,
    /// Milliseconds since it started.
    pub running_ms: u64,
    /// Steps.
    pub steps: Vec<StepView>,
    /// Number of steps behind it.
    pub done: usize,
    /// Why it stands still.
    pub halted: Option<String>,
    /// Why the destruction gate is closed.
    pub gate_closed: Option<String>,
}

/// The local database as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseView {
    /// `primary`, `standby`, `none`, `unknown`.
    pub role: String,
    /// Members that are not healthy.
    pub concerns: Vec<String>,
    /// Whether it takes writes.
    pub writable: Option<bool>,
    /// Timeline.
    pub timeline: Option<u64>,
    /// Position in bytes.
    pub lsn: Option<u64>,
}

/// Everything as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// This site.
    pub site: String,
    /// Its side.
    pub side: Side,
    /// `last_stable_state`, or why it is not known.
    pub phase: String,
    /// `transition` of the record.
    pub transition: String,
    /// Highest generation known.
    pub generation: Generation,
    /// Whether everything that the last transition asked for has happened.
    pub settled: bool,
    /// Why the agent stands still until a person resumes it.
    pub safe_halt: Option<String>,
    /// The transition under way.
    pub run: Option<RunView>,
    /// Steps that were left behind and are tried again.
    pub beside: Vec<StepView>,
    /// Steps outside of a transition.
    pub chores: Vec<StepView>,
    /// How far the pipeline is.
    pub pipeline: String,
    /// Whether the peer's agent answers.
    pub peer_link: PeerLink,
    /// What it last told.
    pub peer: Option<PeerStatus>,
    /// Milliseconds since then.
    pub peer_age_ms: Option<u64>,
    /// Messages waiting for the peer.
    pub outbox: usize,
    /// Waiting for the peer's consent to this transition.
    pub waiting_for_consent: Option<&'static str>,
    /// The local database.
    pub database: DatabaseView,
    /// DNS as last told.
    pub dns: Option<String>,
    /// Whether traffic has lastingly moved to the passive site.
    pub traffic_moved: bool,
    /// Whether automation waits to see traffic back at the active site after a failback.
    pub disarmed: bool,
    /// Whether an automatic failover waits for acknowledgement.
    pub unacknowledged: bool,
    /// Who owns the routes, where this agent steers them; `None` also where that is not known.
    pub route_pin: Option<RoutePin>,
    /// What every sensor says of the active site.
    pub sensors: Senses,
    /// Why this site has stopped serving by itself.
    pub self_fenced: Option<FenceReason>,
    /// Bytes that the standby is behind.
    pub lag_bytes: Option<u64>,
    /// Latest refusals.
    pub refusals: Vec<(Wall, RefusalNote)>,
    /// When the engine wants to be woken next (milliseconds from now), and why.
    pub next: Option<(u64, &'static str)>,
}

impl Engine {
    /// The state as people see it.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let state = &self.state;
        let (phase, transition) = match &state.record {
            RecordSeen::Present(record) => (
                record.data.get("last_stable_state").cloned().unwrap_or_default(),
                record.data.get("transition").cloned().unwrap_or_default(),
            ),
            RecordSeen::Missing => ("missing: there is no record".to_owned(), String::new()),
            RecordSeen::Unknown(why) => (format!("unknown: {why}"), String::new()),
        };
        Snapshot {
            site: self.policy.site.0.clone(),
            side: self.policy.side,
            phase,
            transition,
            generation: state.generation,
            settled: state.settled,
            safe_halt: state.safe_halt.clone(),
            run: self.run_view(now),
            beside: state.beside.iter().map(step_view).collect(),
            chores: state.chores.steps.iter().map(step_view).collect(),
            pipeline: format!("{:?}", state.pipeline.stage),
            peer_link: state.peer.link,
            peer: state.peer.status.as_ref().map(|(status, _)| status.clone()),
            peer_age_ms: state.peer.status.as_ref().map(|(_, at)| now.mono.since(*at)),
            outbox: state.outbox.len(),
            waiting_for_consent: state.ask.as_ref().map(|ask| ask.transition.wire()),
            database: self.database_view(now),
            dns: state.dns_result.clone(),
            traffic_moved: state.automation.traffic_moved,
            disarmed: state.automation.disarmed,
            unacknowledged: state.automation.unacknowledged,
            route_pin: self.policy.routes.then(|| self.route_pin()).flatten(),
            sensors: self.senses(now.mono),
            self_fenced: state.lease.fenced.map(|(_, reason)| reason),
            lag_bytes: self.lag_bytes(now.mono),
            refusals: state.refusals.clone(),
            next: self.next_deadline().map(|(at, why)| (at.since(now.mono), why)),
        }
    }

    fn run_view(&self, now: Now) -> Option<RunView> {
        let run = self.state.run.as_ref()?;
        Some(RunView {
            transition: run.transition.wire(),
            generation: run.generation,
            rule: run.rule.clone(),
            origin: run.origin.word(),
            running_ms: now.mono.since(run.started),
            steps: run.lane.steps.iter().map(step_view).collect(),
            done: run.lane.cursor,
            halted: run.halted.as_ref().map(|halt| format!("{}: {}", halt.step, halt.reason)),
            gate_closed: run.gate_closed.as_ref().map(|closed| closed.why.clone()),
        })
    }

    fn database_view(&self, now: Now) -> DatabaseView {
        let (writable, _, timeline, lsn) = self.database_facts(now.mono);
        let (role, concerns) =
            self.state.patroni_told.clone().unwrap_or_else(|| ("unknown".to_owned(), Vec::new()));
        DatabaseView { role, concerns, writable, timeline, lsn }
    }

    /// When time alone will change a decision, and why. The driver sends [`crate::model::Event::Tick`] then.
    pub fn next_deadline(&self) -> Option<(Mono, &'static str)> {
        let state = &self.state;
        let current = |lane: &Lane| lane.current().and_then(step_deadline);
        let run = state.run.as_ref().filter(|run| run.halted.is_none());
        let gate = run.and_then(|run| run.gate_closed.as_ref());
        let grant = state.grant.as_ref();
        let pipeline = self.policy.pipeline.as_ref().and_then(|policy| state.pipeline.deadline(policy));
        [
            run.and_then(|run| current(&run.lane)),
            gate.map(|closed| (closed.since.plus(crate::plan::limits::GATE_MS), "destruction gate")),
            state.followup.as_ref().and_then(current),
            current(&state.chores),
            grant.and_then(|grant| grant.fence.as_ref()).and_then(current),
            // Told of an unused consent, people decide.
            grant.filter(|grant| !grant.item.is_empty()).map(|grant| (grant.until, "consent given")),
            state.ask.as_ref().map(|ask| (ask.until, "consent asked for")),
            pipeline.map(|at| (at, "pipeline")),
            self.outbox_deadline(),
            self.automation_deadline(),
            self.lease_deadline(),
        ]
        .into_iter()
        .flatten()
        .chain(state.beside.iter().filter_map(step_deadline))
        .min_by_key(|(at, _)| *at)
    }

    fn automation_deadline(&self) -> Option<(Mono, &'static str)> {
        let memory = &self.state.automation;
        let waits = memory.traffic_moved
            && !memory.disarmed
            && !self.state.held
            && self.state.run.is_none()
            && self.state.phase() == Some(Phase::ActivePassive)
            && self.automation_may_act().is_ok();
        let begun = memory.last_begun.filter(|_| waits)?;
        Some((begun.plus(self.policy.automation_pause_ms), "automation may try again"))
    }

    /// Whether Patroni answered at the last look.
    pub fn patroni_answers(&self) -> bool {
        matches!(self.state.patroni, Some((PatroniSample::Seen(_), _)))
    }
}

fn step_view(run: &StepRun) -> StepView {
    StepView {
        name: run.step.name.clone(),
        does: run.step.work.to_string(),
        status: match run.status {
            StepStatus::Pending => "pending",
            StepStatus::InFlight { .. } => "running",
            StepStatus::Backoff { .. } => "retrying",
            StepStatus::Observing { .. } => "observing",
            StepStatus::Finished => "done",
        },
        attempt: run.attempt,
        last_error: run.last_error.clone(),
    }
}
