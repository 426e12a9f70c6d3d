//! The canonical form of a part: one representative for all parts that behave alike.
//!
//! Moments become relative to now, commands are numbered in order, versions of the record become "the present one" or
//! "an older one", and what decides nothing (texts for people, steps behind the cursor) is emptied. docs/verify.md
//! lists every merge with its reason; a test replays random walks with and without it and compares.

use super::part::{BASE_MS, Letter, Part};
use crate::model::{
    ActionId, Command, ConsentTag, Effect, Mono, PeerMessage, RecordSeen, RecordWrite, Wall, WitnessSample,
};
use crate::plan::Failure;
use crate::plan::limits::GATE_MS;
use crate::rules::pipeline::Stage;
use crate::rules::policy::Policy;
use crate::rules::state::{Lane, State, StepRun, StepStatus};

/// Moments below this are marks ("never", "at once"), not moments.
const FLOOR_MS: u64 = BASE_MS / 2;
/// Tries above this wait no longer than this many.
const MOST_TRIES: u32 = 7;
/// Pause and attempts of an outbox entry end to grow here.
const MOST_SENDS: u32 = 6;
/// A step that has looked at the world for this long asks again.
const OBSERVED_MS: u64 = 15_000;
/// A pipeline run that is being cancelled for this long counts as failed.
const CANCEL_MS: u64 = 60_000;
/// An action that no call answers any more.
const LOST_ACTION: ActionId = ActionId(u64::MAX);
/// Consents that expired longer ago than this are equal: no clock jumps so far.
const EXPIRED_MS: u64 = 130_000;

/// How far everything moves so that now is [`BASE_MS`].
struct Shift {
    by: u64,
}

impl Shift {
    fn mono(&self, moment: &mut Mono) {
        if moment.0 >= FLOOR_MS {
            moment.0 -= self.by;
        }
    }

    /// A moment that is waited for: whenever it was, it has come.
    fn awaited(&self, moment: &mut Mono) {
        self.aged(moment, 0);
    }

    /// A moment whose age matters only up to a limit.
    fn aged(&self, moment: &mut Mono, most_ms: u64) {
        self.mono(moment);
        moment.0 = moment.0.max(BASE_MS - most_ms);
    }

    fn wall(&self, moment: &mut Wall) {
        let least = super::pair::EPOCH_MS - EXPIRED_MS;
        moment.0 = moment.0.saturating_sub(self.by).max(least);
    }

    /// The tag inside a consent request carries a moment.
    fn item(&self, item: &mut String) {
        let Some(mut tag) = ConsentTag::from_item(item) else { return };
        self.wall(&mut tag.expires);
        // The record's data beside it is for a predecessor; nothing of ours reads it.
        *item = tag.item(&std::collections::BTreeMap::new());
    }

    fn message(&self, message: &mut PeerMessage) {
        match message {
            PeerMessage::Confirm { item, .. }
            | PeerMessage::Yes { item, .. }
            | PeerMessage::No { item, .. } => self.item(item),
            PeerMessage::Dns { .. } | PeerMessage::TransitionTo { .. } | PeerMessage::Unknown { .. } => {}
        }
        if let PeerMessage::No { reason, .. } = message {
            reason.clear();
        }
    }
}

/// Brings a part to its canonical form at a moment; afterwards it stands at [`BASE_MS`].
pub fn canonical(part: &mut Part, policy: &Policy, now: Mono) {
    let shift = Shift { by: now.0 - BASE_MS };
    number_actions(part);
    let version = part.site.version.to_string();
    state(&mut part.state, policy, &shift, &version);
    for command in &mut part.calls {
        call(command, &shift, &version);
    }
    part.site.version = PRESENT;
    if let Some((_, at)) = &mut part.site.database.becoming {
        shift.mono(at);
    }
    if let Some((_, message)) = &mut part.copy {
        shift.message(message);
    }
}

const PRESENT: u64 = 2;

/// The form in which a version of the record matters: the present one, or an older one.
fn relative(version: &mut Option<String>, present: &str) {
    if let Some(text) = version {
        *text = if text == present { "2" } else { "1" }.to_owned();
    }
}

fn call(command: &mut Command, shift: &Shift, version: &str) {
    match &mut command.effect {
        Effect::WriteRecord(RecordWrite { timestamp, expect, annotation, .. }) => {
            timestamp.clear();
            relative(expect, version);
            if let Some(text) = annotation {
                text.truncate(1);
            }
        }
        Effect::SendPeer { message, .. } => shift.message(message),
        _ => {}
    }
}

/// A letter as its receiver's part would hold it.
pub fn letter(letter: &mut Letter, now: Mono) {
    Shift { by: now.0 - BASE_MS }.message(&mut letter.1);
}

fn number_actions(part: &mut Part) {
    let mut numbers = std::collections::BTreeMap::new();
    for (index, command) in part.calls.iter_mut().enumerate() {
        let number = ActionId(index as u64 + 1);
        numbers.insert(command.id, number);
        command.id = number;
    }
    let renumber = |id: &mut ActionId| *id = numbers.get(id).copied().unwrap_or(LOST_ACTION);
    part.state.last_action = ActionId(part.calls.len() as u64);
    for lane in lanes(&mut part.state) {
        for step in &mut lane.steps {
            if let StepStatus::InFlight { action, .. } = &mut step.status {
                renumber(action);
            }
        }
    }
    for step in &mut part.state.beside {
        if let StepStatus::InFlight { action, .. } = &mut step.status {
            renumber(action);
        }
    }
    for entry in &mut part.state.outbox {
        entry.in_flight.as_mut().into_iter().for_each(renumber);
    }
}

fn lanes(state: &mut State) -> impl Iterator<Item = &mut Lane> {
    let run = state.run.iter_mut().map(|run| &mut run.lane);
    let fence = state.grant.iter_mut().filter_map(|grant| grant.fence.as_mut());
    run.chain(&mut state.followup).chain([&mut state.chores]).chain(fence)
}

fn state(state: &mut State, policy: &Policy, shift: &Shift, version: &str) {
    if let RecordSeen::Present(record) = &mut state.record {
        relative(&mut record.resource_version, version);
    }
    state.refusals.clear();
    let stale = policy.fresh_ms + 1;
    if let Some((_, at)) = &mut state.patroni {
        shift.aged(at, stale);
    }
    if let Some((_, at)) = &mut state.peer.status {
        shift.aged(at, stale);
    }
    if let Some(at) = &mut state.automation.last_begun {
        shift.aged(at, policy.automation_pause_ms);
    }
    sensors(state, policy, shift);
    for entry in &mut state.outbox {
        shift.mono(&mut entry.not_before);
        if entry.not_before.0 <= BASE_MS {
            entry.not_before = Mono(0);
        }
        entry.until.iter_mut().for_each(|at| shift.awaited(at));
        entry.attempt = entry.attempt.min(MOST_SENDS);
        shift.message(&mut entry.message);
    }
    if let Some(ask) = &mut state.ask {
        shift.awaited(&mut ask.until);
        shift.wall(&mut ask.expires);
    }
    if let Some(grant) = &mut state.grant {
        shift.awaited(&mut grant.until);
        shift.item(&mut grant.item);
    }
    if let Some(run) = &mut state.run {
        // Only the report of how long it took reads it.
        run.started = Mono(BASE_MS);
        if let Some(halt) = &mut run.halted {
            halt.reason.clear();
        }
        if let Some(closed) = &mut run.gate_closed {
            shift.aged(&mut closed.since, GATE_MS);
            closed.why.clear();
        }
    }
    for lane in lanes(state) {
        let cursor = lane.cursor;
        for (index, step) in lane.steps.iter_mut().enumerate() {
            if index < cursor { finished(step) } else { under_way(step, shift) }
        }
    }
    state.beside.iter_mut().for_each(|step| under_way(step, shift));
    pipeline(state, policy, shift);
}

fn sensors(state: &mut State, policy: &Policy, shift: &Shift) {
    let safety = &policy.safety;
    let silence = safety.lease_ms + safety.grace_ms + 1;
    if let Some((_, at)) = &mut state.sensors.gslb {
        shift.aged(at, safety.stale_ms + 1);
    }
    if let Some((_, at)) = &mut state.sensors.peer_view {
        *at = Mono(BASE_MS);
    }
    if let Some(at) = &mut state.sensors.peer_heard {
        shift.aged(at, silence);
    }
    if let Some((sample, at)) = &mut state.sensors.witness {
        shift.aged(at, safety.stale_ms.max(safety.lease_ms) + 1);
        if let WitnessSample::Answered { asked, .. } = sample {
            // It has been counted into the lease already.
            *asked = Mono(BASE_MS);
        }
    }
    let lease = &mut state.lease;
    if let Some(at) = &mut lease.boot {
        shift.aged(at, silence);
    }
    if let Some(at) = &mut lease.renewed {
        shift.aged(at, safety.lease_ms + 1);
    }
    if let Some((at, _)) = &mut lease.fenced {
        // Only whether, not since when.
        *at = Mono(BASE_MS);
    }
    if let Some(at) = &mut lease.both_demoted {
        shift.aged(at, safety.both_demoted_ms);
    }
    // A living agent writes it on every event; a dead one's absence is counted by the part.
    lease.alive_slot = None;
}

/// Of a step that is behind the cursor only its work is ever looked at again.
fn finished(step: &mut StepRun) {
    (step.status, step.attempt, step.started, step.last_error) = (StepStatus::Finished, 1, None, None);
}

fn under_way(step: &mut StepRun, shift: &Shift) {
    step.last_error = None;
    step.attempt = step.attempt.min(MOST_TRIES);
    match &mut step.status {
        StepStatus::InFlight { until, .. } | StepStatus::Backoff { until } => {
            shift.awaited(until);
        }
        StepStatus::Observing { since } => shift.aged(since, OBSERVED_MS),
        StepStatus::Pending | StepStatus::Finished => {}
    }
    let patience = match step.step.on_failure {
        Failure::Beside { patience_ms } => patience_ms,
        Failure::Halt | Failure::Proceed => 0,
    };
    let longest = step.step.limit_ms.max(patience);
    step.started.iter_mut().for_each(|at| shift.aged(at, longest));
}

fn pipeline(state: &mut State, policy: &Policy, shift: &Shift) {
    let pipeline = &mut state.pipeline;
    pipeline.release = None;
    let tries = policy.pipeline.as_ref().map_or(0, |policy| policy.attempt_timeout_ms);
    let cap = policy.pipeline.as_ref().map_or(0, |policy| policy.total_cap_ms);
    match &mut pipeline.stage {
        Stage::Idle => (pipeline.first, pipeline.retries, pipeline.maintenance) = (Mono(0), 0, false),
        Stage::GivenUp { at } => {
            (pipeline.first, pipeline.retries) = (Mono(0), 0);
            shift.wall(at);
        }
        Stage::Running(tracked) => {
            shift.aged(&mut pipeline.first, cap);
            shift.aged(&mut tracked.started, tries);
            tracked.cancelling.iter_mut().for_each(|at| shift.aged(at, CANCEL_MS));
        }
        Stage::Waiting { until } => {
            shift.aged(&mut pipeline.first, cap);
            shift.awaited(until);
        }
        Stage::Starting => shift.aged(&mut pipeline.first, cap),
    }
}
