//! The journal: every intent before the act, every outcome after it, as one line of JSON each in a hash chain.
//!
//! Owns the form of the entries and three places to keep them: memory, files, a ConfigMap. Never decides what an
//! entry means; the agent reads them at start and resumes. A journal that cannot be written is degraded, not
//! blocking: entries wait in a bounded ring and are written when that is possible again. Used by `logic_handler`.
//!
//! The chain proves accidental damage and careless edits. Who can rewrite every file can also rewrite the chain.

pub mod broken_disk;
pub mod chain;
pub mod configmap;
mod dir;
pub mod file;
pub mod inline;
mod scan;
pub mod story;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config::journal::{JournalBackend, JournalSettings};
use crate::model::{ActionId, Aim, Effect, Generation, Note, Outcome};
use chain::Head;
pub use configmap::{ConfigMapJournal, ConfigMapStore, StoreError, StoredMap};
pub use file::{Disk, FileJournal, RealDisk};

/// Entries that wait while the journal cannot be written: several whole transitions. The oldest is given up when
/// it is full, and the loss is itself an entry.
pub const RING: usize = 1000;

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum EntryKind {
    /// About to ask for an effect.
    Intent {
        /// Step that asks.
        step: String,
        /// Number of the action.
        action_id: ActionId,
        /// The effect.
        effect: Effect,
    },
    /// What a once-only action is aimed at, as the world was just before it.
    Aim {
        /// Step that asks.
        step: String,
        /// Number of the action.
        action_id: ActionId,
        /// The facts.
        aim: Aim,
    },
    /// The action ended.
    Outcome {
        /// Step that asked.
        step: String,
        /// Number of the action.
        action_id: ActionId,
        /// How it ended.
        outcome: Outcome,
    },
    /// A fact for people.
    Fact {
        /// The note.
        fact: Note,
    },
    /// All that the engine needs to go on after a restart.
    State {
        /// The engine's own form.
        checkpoint: serde_json::Value,
    },
    /// Entries were given up because the journal could not be written for too long.
    Lost {
        /// How many.
        entries: u64,
    },
    /// A damaged journal was set aside here.
    SetAside {
        /// What was wrong with it.
        damage: String,
    },
}

/// An entry as the caller gives it; its number comes from the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
    /// Generation of the transition it belongs to.
    pub generation: Generation,
    /// What happened.
    #[serde(flatten)]
    pub kind: EntryKind,
}

/// An entry as found in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Number; the first is 1.
    pub seq: u64,
    /// Hash of the entry before.
    pub prev: String,
    /// Own hash.
    pub hash: String,
    /// The entry.
    pub entry: Entry,
}

/// A last line that a crash left unfinished; it was moved to a side file and never took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// Where the bytes are now.
    pub moved_to: PathBuf,
    /// How many bytes.
    pub bytes: usize,
}

/// What a journal held when it was opened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recovered {
    /// Entries in order; up to the damage where there is one.
    pub entries: Vec<Recorded>,
    /// The unfinished last line, where there was one.
    pub torn: Option<Torn>,
    /// What is wrong with the journal; with `JOURNAL_ON_DAMAGE=halt` the agent must start in a safe halt.
    pub damage: Option<JournalError>,
}

impl Recovered {
    /// The newest checkpoint and its generation.
    pub fn checkpoint(&self) -> Option<(Generation, &serde_json::Value)> {
        self.entries.iter().rev().find_map(|recorded| match &recorded.entry.kind {
            EntryKind::State { checkpoint } => Some((recorded.entry.generation, checkpoint)),
            _ => None,
        })
    }
}

/// How the journal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalStatus {
    /// The last write failed, or the journal is damaged.
    pub degraded: bool,
    /// Entries that wait in memory.
    pub buffered: usize,
    /// Entries that were given up.
    pub lost: u64,
}

/// Why the journal could not be opened or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Somebody changed it.
    #[error("journal {place} altered at line {line}: {what}")]
    Altered {
        /// File or ConfigMap key.
        place: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// Another agent has it open.
    #[error("journal {0} is in use by another process")]
    Locked(String),
    /// Reading or creating it failed.
    #[error("opening journal {place}: {reason}")]
    Open {
        /// Directory, file or ConfigMap.
        place: String,
        /// What went wrong.
        reason: String,
    },
    /// The entry waits in memory; writing failed.
    #[error("writing journal {place}: {reason}; the entry waits in memory")]
    Write {
        /// File or ConfigMap.
        place: String,
        /// What went wrong.
        reason: String,
    },
    /// The entry waits; the write has not ended within the bound.
    #[error("writing journal {0} takes longer than the bound; the entry waits in memory")]
    Slow(String),
    /// Too many entries wait; this one was given up.
    #[error("journal {0}: too many entries wait, one was given up")]
    Full(String),
    /// Somebody else writes to the same ConfigMap.
    #[error("journal {0} was written by somebody else; entries wait in memory")]
    Foreign(String),
    /// The entry has no JSON form.
    #[error("encoding a journal entry: {0}")]
    Encode(String),
}

/// A journal in memory. Clones share the lines, so a simulated restart finds them again.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal {
    lines: Arc<Mutex<Vec<String>>>,
    degraded: bool,
}

/// Lines that a memory journal keeps; the older half goes when it is full.
const MEMORY_LINES: usize = 20_000;

impl MemoryJournal {
    /// The lines as they would stand in a file.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it holds.
    pub fn recover(&self) -> Recovered {
        let lines = self.lines();
        let mut text = lines.join("\n").into_bytes();
        if !text.is_empty() {
            text.push(b'\n');
        }
        let first = text.split(|b| *b == b'\n').next().and_then(|line| chain::open_line(line).ok());
        let scanned =
            scan::lines("memory", &text, &first.map_or_else(Head::default, |r| scan::before(&r)), true);
        Recovered { entries: scanned.entries, torn: None, damage: scanned.damage }
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut head = match lines.last() {
            None => Head::default(),
            Some(line) => chain::open_line(line.as_bytes())
                .map(|r| Head { seq: r.seq, hash: r.hash })
                .map_err(|what| JournalError::Altered { place: "memory".into(), line: lines.len(), what })?,
        };
        for entry in entries {
            let (line, next) = chain::seal(&head, entry)?;
            lines.push(line);
            head = next;
        }
        if lines.len() > MEMORY_LINES {
            lines.drain(..MEMORY_LINES / 2);
        }
        Ok(())
    }
}

/// An open journal.
pub enum Journal {
    /// In memory only.
    Memory(MemoryJournal),
    /// In files.
    File(FileJournal),
    /// In files, written by the caller itself: virtual time knows no threads.
    Inline(Box<inline::InlineJournal>),
    /// In a ConfigMap.
    ConfigMap(Box<ConfigMapJournal>),
}

impl Journal {
    /// Opens the journal that the settings name and reads it. `store` is needed for the ConfigMap backend, `disk` for
    /// files.
    ///
    /// A damaged journal is not an error here: it is in [`Recovered::damage`]. With `JOURNAL_ON_DAMAGE=halt` it
    /// stays untouched and the returned journal is a degraded one in memory; with `continue` it is set aside.
    ///
    /// # Errors
    /// [`JournalError::Locked`], [`JournalError::Open`].
    pub async fn open(
        settings: &JournalSettings,
        store: Option<Box<dyn ConfigMapStore>>,
        disk: Box<dyn Disk>,
    ) -> Result<(Self, Recovered), JournalError> {
        match &settings.backend {
            JournalBackend::Memory => Ok((Self::Memory(MemoryJournal::default()), Recovered::default())),
            JournalBackend::File(_) => {
                let settings = settings.clone();
                tokio::task::spawn_blocking(move || file::open(&settings, disk)).await.map_err(|error| {
                    JournalError::Open { place: "files".into(), reason: error.to_string() }
                })?
            }
            JournalBackend::ConfigMap => {
                let store = store.ok_or_else(|| JournalError::Open {
                    place: "configmap".into(),
                    reason: "no Kubernetes client".into(),
                })?;
                configmap::open(store, settings.on_damage).await
            }
        }
    }

    /// Appends one entry and returns when it is durable.
    ///
    /// # Errors
    /// The entry waits in memory (`Write`, `Slow`, `Foreign`) or was given up (`Full`, `Encode`). None of them may
    /// stop a failover.
    pub async fn append(&mut self, entry: Entry) -> Result<(), JournalError> {
        self.append_all(vec![entry]).await
    }

    /// Appends entries as one write.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub async fn append_all(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        match self {
            Self::Memory(memory) => memory.append(&entries),
            Self::File(file) => file.append(entries).await,
            Self::Inline(file) => file.append(entries).await,
            Self::ConfigMap(map) => map.append(entries).await,
        }
    }

    /// How the journal does now.
    pub fn status(&self) -> JournalStatus {
        match self {
            Self::Memory(memory) => JournalStatus { degraded: memory.degraded, ..JournalStatus::default() },
            Self::File(file) => file.status(),
            Self::Inline(file) => file.status(),
            Self::ConfigMap(map) => map.status(),
        }
    }

    /// What it holds now, checked as at a start, for people; nothing is touched.
    ///
    /// # Errors
    /// [`JournalError::Open`] where it cannot be read.
    pub async fn look(&self) -> Result<Recovered, JournalError> {
        match self {
            Self::Memory(memory) => Ok(memory.recover()),
            Self::File(file) => {
                let dir = file.dir();
                let failed = |error: tokio::task::JoinError| JournalError::Open {
                    place: "files".into(),
                    reason: error.to_string(),
                };
                tokio::task::spawn_blocking(move || file::look(&dir)).await.map_err(failed)?
            }
            Self::Inline(file) => file::look(file.dir()),
            Self::ConfigMap(map) => map.look().await,
        }
    }

    /// A journal in memory that counts as degraded, for a damaged journal that must stay as it is.
    fn stand_in() -> Self {
        Self::Memory(MemoryJournal { degraded: true, ..MemoryJournal::default() })
    }
}
