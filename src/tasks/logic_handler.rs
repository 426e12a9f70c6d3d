//! `logic_handler`: the loop around the engine.
//!
//! ```text
//!            bus ──▶ engine.handle(event, now) ──▶ Report ──▶ notes (log, metrics, journal, desk, timeline)
//!  deadline ─┘                                └──▶ Perform ─▶ journal intent ─▶ Hands ─▶ ActionDone ─▶ bus
//! ```
//!
//! Owns: the only engine of the agent and the order "intent in the journal, then the act, then the outcome". Never
//! decides. Actions that must not happen twice go through [`once`]. A task that was restarted after a panic goes on
//! from the state after the last whole event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::Level;

use super::clock::Clock;
use super::diary::{Diary, Page};
use super::executor::Hands;
use super::kill_switch::KillSwitch;
use super::meters::Meters;
use super::recorder::Recorder;
use super::{Ctx, Exit, once};
use crate::config::faults::KillPoint;
use crate::http::OperatorDesk;
use crate::model::{Action, Command, Detail, Event, Mono, Note, OutboxId, Outcome, PeerStatus, RecordSeen};
use crate::rules::Engine;
use crate::rules::policy::Policy;
use crate::rules::state::State;
use crate::telemetry::Metrics;
use crate::telemetry::log::note_line;

/// A deadline that has passed already is looked at again after this.
const LEAST_WAIT: Duration = Duration::from_millis(20);
/// Heartbeats want a fresh status even when nothing happens.
pub const STATUS_EVERY: Duration = Duration::from_millis(500);
/// How long an agent that stops waits for calls under way; their outcomes are looked up after the next start.
const DRAIN: Duration = Duration::from_secs(5);

/// What others see of the engine, as it changes.
pub struct Windows {
    /// `/status`.
    pub snapshot: watch::Sender<serde_json::Value>,
    /// What the peer is told.
    pub status: watch::Sender<PeerStatus>,
    /// Highest message number handled per peer process.
    pub handled: watch::Sender<BTreeMap<String, OutboxId>>,
    /// The record's keys.
    pub record: watch::Sender<Option<BTreeMap<String, String>>>,
    /// Whether this site should hold the witness's lease.
    pub wants_lease: watch::Sender<Option<bool>>,
    /// Every note, for a timeline; slow listeners miss some.
    pub notes: broadcast::Sender<Note>,
}

/// What the task needs, kept across its restarts.
pub struct Logic {
    /// Settings of the engine.
    pub policy: Policy,
    /// Receiving end of the bus.
    pub events: Mutex<mpsc::Receiver<Event>>,
    /// The state after the last whole event.
    pub saved: Mutex<State>,
    /// Time.
    pub clock: Clock,
    /// Adapters.
    pub hands: Arc<Hands>,
    /// Journal.
    pub diary: Arc<Diary>,
    /// Events as they come, where they are recorded.
    pub recorder: Recorder,
    /// The agent's own death, where a test wants it.
    pub kill: KillSwitch,
    /// Windows for others.
    pub windows: Windows,
    /// Where operators wait for answers.
    pub desk: OperatorDesk,
    /// Metrics.
    pub metrics: Metrics,
    /// How often the windows are renewed when nothing happens: [`STATUS_EVERY`].
    pub status_every: Duration,
}

/// Runs the loop until the agent stops.
pub async fn run(ctx: Ctx, logic: Arc<Logic>) -> Exit {
    let mut events = logic.events.lock().await;
    let state = logic.saved.lock().await.clone();
    let mut engine = Engine::restore(logic.policy.clone(), state);
    logic.recorder.begin(&engine);
    let calls = TaskTracker::new();
    let mut meters = Meters::new(logic.metrics.clone(), &logic.policy);
    loop {
        let deadline = engine.next_deadline().map(|(at, _)| at).unwrap_or(Mono(u64::MAX >> 1));
        let wake = logic.clock.instant(deadline, LEAST_WAIT);
        let event = tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => break,
            event = events.recv() => match event {
                Some(event) => event,
                None => return Exit::Failed("the bus was closed".to_owned()),
            },
            () = tokio::time::sleep_until(wake) => Event::Tick,
            () = tokio::time::sleep(logic.status_every) => {
                logic.publish(&engine);
                continue;
            }
        };
        meters.event(&event);
        logic.metrics.set_bus_depth(ctx.bus.depth());
        step(&ctx, &logic, &mut engine, &mut meters, &calls, event).await;
    }
    calls.close();
    if tokio::time::timeout(DRAIN, calls.wait()).await.is_err() {
        tracing::warn!(
            calls = calls.len(),
            "calls were still under way at the end; their outcomes are unknown"
        );
    }
    Exit::Cancelled
}

/// One whole event: decide, write the journal, tell, act.
async fn step(
    ctx: &Ctx,
    logic: &Arc<Logic>,
    engine: &mut Engine,
    meters: &mut Meters,
    calls: &TaskTracker,
    event: Event,
) {
    let now = logic.clock.now();
    let mut page = Page::new(now);
    let mut ended = None;
    if let Event::ActionDone { id, outcome } = &event {
        page.outcome(*id, outcome);
        ended = Some(*id);
    }
    let heard = logic.recorder.is_on().then(|| event.clone());
    let actions = engine.handle(event, now);
    if let Some(event) = heard {
        logic.recorder.event(now, event, &actions);
    }
    page.actions(&actions);
    logic.kill.before_write(&actions);
    let status = logic.diary.write(page, engine.state()).await;
    logic.kill.after_write(&actions, ended);
    logic.metrics.set_journal(&status);
    logic.saved.lock().await.clone_from(engine.state());
    logic.publish(engine);
    for action in actions {
        meters.action(&action, now.mono);
        match action {
            Action::Report(note) => logic.note(note),
            Action::Perform(command) => spawn_call(ctx, logic, calls, command),
        }
    }
}

fn spawn_call(ctx: &Ctx, logic: &Arc<Logic>, calls: &TaskTracker, command: Command) {
    let (bus, logic) = (ctx.bus.clone(), logic.clone());
    calls.spawn(async move {
        logic.kill.before_act(&command);
        let outcome = if command.effect.is_once_only() {
            let aimed = || logic.kill.command(KillPoint::AfterAim, &command);
            once::perform(&logic.hands, &logic.diary, &command, logic.clock.clone(), aimed).await
        } else {
            logic.hands.perform(&command, logic.clock.now().wall).await
        };
        logic.kill.command(KillPoint::AfterEffect, &command);
        let event_id = match &outcome {
            Outcome::Done(Detail::PipelineStarted { event_id }) => Some(event_id.clone()),
            _ => None,
        };
        bus.send(Event::ActionDone { id: command.id, outcome }).await;
        // Only now: what the watch tells after this look comes after the number in the bus.
        if let Some(event_id) = event_id
            && let Some(seen) = once::first_look(&logic.hands, &event_id).await
        {
            bus.send(seen).await;
        }
    });
}

impl Logic {
    fn publish(&self, engine: &Engine) {
        let now = self.clock.now();
        if self.windows.snapshot.receiver_count() > 0 {
            let snapshot = engine.snapshot(now);
            self.metrics.observe_guards(&snapshot);
            let snapshot = serde_json::to_value(snapshot).unwrap_or_default();
            self.windows.snapshot.send_replace(snapshot);
        }
        self.windows.status.send_replace(engine.peer_status(now.mono));
        let wants = engine.wants_witness_lease();
        self.windows.wants_lease.send_if_modified(|shown| std::mem::replace(shown, wants) != wants);
        self.windows.handled.send_if_modified(|handled| {
            let changed = *handled != engine.state().handled;
            if changed {
                handled.clone_from(&engine.state().handled);
            }
            changed
        });
        let record = match &engine.state().record {
            RecordSeen::Present(record) => Some(record.data.clone()),
            RecordSeen::Missing | RecordSeen::Unknown(_) => None,
        };
        self.windows.record.send_if_modified(|shown| {
            let changed = *shown != record;
            *shown = record;
            changed
        });
    }

    fn note(&self, note: Note) {
        log_note(&note);
        if let Note::Answer { ticket, accepted, message } = &note {
            self.desk.answer(*ticket, *accepted, message);
        }
        // Nobody listening is fine.
        let _ = self.windows.notes.send(note);
    }
}

fn log_note(note: &Note) {
    let (level, line) = note_line(note);
    match level {
        Level::ERROR => tracing::error!("{line}"),
        Level::WARN => tracing::warn!("{line}"),
        Level::INFO => tracing::info!("{line}"),
        _ => tracing::debug!("{line}"),
    }
}
