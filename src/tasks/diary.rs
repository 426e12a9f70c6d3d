//! What `logic_handler` writes into the journal, and what an agent takes from it when it starts.
//!
//! Owns: the order of entries of one event (outcome, facts, checkpoint, intents) in one write. A write that fails
//! degrades loudly and never stops a failover.

use tokio::sync::Mutex;

use crate::config::journal::OnDamage;
use crate::journal::{Entry, EntryKind, Journal, JournalStatus, Recovered};
use crate::model::{Action, ActionId, Command, Generation, Mono, Note, Now, Outcome, Wall};
use crate::rules::policy::Policy;
use crate::rules::state::State;

/// The engine's state as the journal keeps it, with the moment by both clocks.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Checkpoint {
    mono: Mono,
    wall: Wall,
    state: State,
}

/// The journal with what was last written about the state.
pub struct Diary {
    journal: Mutex<Inner>,
}

struct Inner {
    journal: Journal,
    last: Option<State>,
}

/// Everything that one event gave, for one write.
pub struct Page {
    now: Now,
    generation: Generation,
    entries: Vec<EntryKind>,
}

impl Page {
    /// An empty page.
    pub fn new(now: Now) -> Self {
        Self { now, generation: Generation::default(), entries: Vec::new() }
    }

    /// An action ended.
    pub fn outcome(&mut self, action_id: ActionId, outcome: &Outcome) {
        let outcome = outcome.clone();
        self.entries.push(EntryKind::Outcome { step: String::new(), action_id, outcome });
    }

    /// What the engine said: facts and intents.
    pub fn actions(&mut self, actions: &[Action]) {
        for action in actions {
            self.entries.push(match action {
                Action::Report(note) if is_chatter(note) => continue,
                Action::Report(note) => EntryKind::Fact { fact: note.clone() },
                Action::Perform(Command { id, step, effect, .. }) => {
                    EntryKind::Intent { step: step.clone(), action_id: *id, effect: effect.clone() }
                }
            });
        }
    }
}

/// Notes that come with every poll of a troubled sensor would fill the journal and prove nothing.
fn is_chatter(note: &Note) -> bool {
    matches!(note, Note::DnsOdd { .. } | Note::PatroniChanged { .. } | Note::Answer { .. })
}

impl Diary {
    /// A diary in an open journal.
    pub fn new(journal: Journal) -> Self {
        Self { journal: Mutex::new(Inner { journal, last: None }) }
    }

    /// Writes a page, with a checkpoint where what must survive has changed. Gives the journal's condition.
    pub async fn write(&self, mut page: Page, state: &State) -> JournalStatus {
        let mut inner = self.journal.lock().await;
        page.generation = state.generation;
        let durable = state.durable();
        if inner.last.as_ref() != Some(&durable) {
            let checkpoint = Checkpoint { mono: page.now.mono, wall: page.now.wall, state: durable.clone() };
            if let Ok(checkpoint) = serde_json::to_value(&checkpoint) {
                page.entries.push(EntryKind::State { checkpoint });
            }
            inner.last = Some(durable);
        }
        if page.entries.is_empty() {
            return inner.journal.status();
        }
        let entry = |kind| Entry { wall_ms: page.now.wall.0, generation: page.generation, kind };
        let entries = page.entries.into_iter().map(entry).collect();
        if let Err(error) = inner.journal.append_all(entries).await {
            tracing::error!(%error, "the journal could not be written; going on without it");
        }
        inner.journal.status()
    }
}

/// The state to go on from, and the monotonic count at which to go on: the old one plus the time that has passed.
pub fn recover(recovered: &Recovered, wall: Wall) -> Option<(State, Mono)> {
    let (_, value) = recovered.checkpoint()?;
    let checkpoint: Checkpoint = serde_json::from_value(value.clone()).ok()?;
    let away = wall.0.saturating_sub(checkpoint.wall.0);
    let mono = checkpoint.mono.plus(away);
    Some((checkpoint.state.after_restart(mono), mono))
}

/// The state that an agent starts with, and its monotonic count: what the journal holds, or nothing yet.
pub fn first_state(
    policy: &Policy,
    recovered: &Recovered,
    on_damage: OnDamage,
    wall: Wall,
) -> (State, Mono) {
    let fresh = || (State::new(policy.dns.agree_samples, policy.dns.agree_ms), Mono(0));
    let usable = recovered.damage.is_none().then(|| recover(recovered, wall)).flatten();
    let (mut state, mono) = usable.unwrap_or_else(fresh);
    if let Some(damage) = recovered.damage.as_ref().filter(|_| on_damage == OnDamage::Halt) {
        state.safe_halt = Some(damage.to_string());
    }
    (state, mono)
}
