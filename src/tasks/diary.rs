//! What `logic_handler` writes into the journal, and what an agent takes from it when it starts.
//!
//! Owns: the order of entries of one event (outcome, facts, intents, checkpoint) in one write, and the aims of
//! once-only actions from before their call until their success. A write that fails degrades loudly and never stops a
//! failover.

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use crate::journal::{Entry, EntryKind, Journal, JournalError, JournalStatus, Recovered};
use crate::model::{Action, ActionId, Aim, Command, Generation, Mono, Note, Now, Outcome, Wall};
use crate::rules::state::State;

/// Aims by generation and step.
type Aims = BTreeMap<(Generation, String), Aim>;

/// An aim as a checkpoint keeps it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct KeptAim {
    generation: Generation,
    step: String,
    aim: Aim,
}

/// The engine's state as the journal keeps it, with the moment by both clocks.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Checkpoint {
    mono: Mono,
    wall: Wall,
    state: State,
    #[serde(default)]
    aims: Vec<KeptAim>,
}

/// The journal with what was last written about the state.
pub struct Diary {
    journal: Mutex<Inner>,
}

struct Inner {
    journal: Journal,
    last: Option<State>,
    /// Commands under way, with the generation in which they were asked for and their step.
    open: BTreeMap<ActionId, (Generation, String)>,
    aims: Aims,
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
    /// A diary in an open journal; `resumed` is what [`recover`] found in it.
    pub fn new(journal: Journal, resumed: Option<&Resumed>) -> Self {
        let aims = resumed.map(|resumed| resumed.aims.clone()).unwrap_or_default();
        Self { journal: Mutex::new(Inner { journal, last: None, open: BTreeMap::new(), aims }) }
    }

    /// Writes a page, with a checkpoint where what must survive has changed. Gives the journal's condition.
    pub async fn write(&self, mut page: Page, state: &State) -> JournalStatus {
        let mut inner = self.journal.lock().await;
        page.generation = state.generation;
        for entry in &mut page.entries {
            inner.follow(entry, state.generation);
        }
        inner.aims.retain(|(generation, _), _| *generation >= state.generation);
        let durable = state.durable();
        if inner.last.as_ref() != Some(&durable) {
            let kept = |((generation, step), aim): (&(Generation, String), &Aim)| KeptAim {
                generation: *generation,
                step: step.clone(),
                aim: aim.clone(),
            };
            let aims = inner.aims.iter().map(kept).collect();
            let checkpoint =
                Checkpoint { mono: page.now.mono, wall: page.now.wall, state: durable.clone(), aims };
            if let Ok(checkpoint) = serde_json::to_value(&checkpoint) {
                page.entries.push(EntryKind::State { checkpoint });
            }
            inner.last = Some(durable);
        }
        inner.append(page).await
    }

    /// What the journal holds, for people.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn look(&self) -> Result<Recovered, JournalError> {
        self.journal.lock().await.journal.look().await
    }

    /// What an earlier try of this command's step was aimed at, where its success is not known.
    pub async fn aim(&self, id: ActionId) -> Option<Aim> {
        let inner = self.journal.lock().await;
        inner.aims.get(inner.open.get(&id)?).cloned()
    }

    /// Writes down what a command is aimed at, before its call.
    pub async fn take_aim(&self, id: ActionId, aim: Aim, now: Now) {
        let mut inner = self.journal.lock().await;
        let Some((generation, step)) = inner.open.get(&id).cloned() else { return };
        let entry = EntryKind::Aim { step: step.clone(), action_id: id, aim: aim.clone() };
        inner.aims.insert((generation, step), aim);
        inner.append(Page { now, generation, entries: vec![entry] }).await;
    }

    /// Forgets the aim of a call that is known to have had no effect.
    pub async fn drop_aim(&self, id: ActionId) {
        let mut inner = self.journal.lock().await;
        if let Some(key) = inner.open.get(&id).cloned() {
            inner.aims.remove(&key);
        }
    }
}

impl Inner {
    /// Keeps count of the commands under way; an outcome gets the name of its step.
    fn follow(&mut self, entry: &mut EntryKind, generation: Generation) {
        match entry {
            EntryKind::Intent { step, action_id, .. } => {
                self.open.insert(*action_id, (generation, step.clone()));
            }
            EntryKind::Outcome { step, action_id, outcome } => {
                let Some(key) = self.open.remove(action_id) else { return };
                step.clone_from(&key.1);
                if matches!(outcome, Outcome::Done(_)) {
                    self.aims.remove(&key);
                }
            }
            EntryKind::Aim { .. }
            | EntryKind::Fact { .. }
            | EntryKind::State { .. }
            | EntryKind::Lost { .. }
            | EntryKind::SetAside { .. } => {}
        }
    }

    async fn append(&mut self, page: Page) -> JournalStatus {
        if page.entries.is_empty() {
            return self.journal.status();
        }
        let entry = |kind| Entry { wall_ms: page.now.wall.0, generation: page.generation, kind };
        let entries = page.entries.into_iter().map(entry).collect();
        if let Err(error) = self.journal.append_all(entries).await {
            tracing::error!(%error, "the journal could not be written; going on without it");
        }
        self.journal.status()
    }
}

/// What an agent goes on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// The engine's state.
    pub state: State,
    /// The monotonic count at which to go on: the old one plus the time that has passed.
    pub mono: Mono,
    /// Number of the journal's last entry.
    pub entry: u64,
    aims: Aims,
}

/// What the journal says about where to go on; `None` = it holds no usable checkpoint.
pub fn recover(recovered: &Recovered, wall: Wall) -> Option<Resumed> {
    let (_, value) = recovered.checkpoint()?;
    let checkpoint: Checkpoint = serde_json::from_value(value.clone()).ok()?;
    let away = wall.0.saturating_sub(checkpoint.wall.0);
    let mono = checkpoint.mono.plus(away);
    let kept = checkpoint.aims.into_iter().map(|kept| ((kept.generation, kept.step), kept.aim));
    let mut aims: Aims = kept.collect();
    // Aims that came after the checkpoint: their calls may have been made.
    let newest = recovered.entries.iter().rev();
    let after = newest.take_while(|recorded| !matches!(recorded.entry.kind, EntryKind::State { .. }));
    for recorded in after {
        if let EntryKind::Aim { step, aim, .. } = &recorded.entry.kind {
            aims.insert((recorded.entry.generation, step.clone()), aim.clone());
        }
    }
    let entry = recovered.entries.last().map(|recorded| recorded.seq).unwrap_or_default();
    Some(Resumed { state: checkpoint.state.after_restart(mono), mono, entry, aims })
}
