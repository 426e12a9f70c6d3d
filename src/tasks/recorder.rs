//! The recorder: every event with the actions that followed, in a file that `replay` re-runs (`RECORD_EVENTS`).
//!
//! Owns the form of the file: a line with settings and state of the engine, then a line per event. Bounded; a file that
//! is full or cannot be written ends the recording with a word in the log and nothing else. Events hold no secrets:
//! credentials never reach the engine.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config::recorder::RecorderSettings;
use crate::model::{Action, Event, Now};
use crate::rules::Engine;
use crate::rules::policy::Policy;
use crate::rules::state::State;

/// Form of the file.
const VERSION: u32 = 1;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "line")]
enum Line {
    /// An engine begins (or begins again after a restart of its task).
    Begin { version: u32, policy: Box<Policy>, state: Box<State> },
    /// An event and what followed.
    Event { now: Now, event: Box<Event>, actions: Vec<Action> },
}

/// An open recording; without a setting it records nothing.
#[derive(Debug, Default)]
pub struct Recorder {
    file: Mutex<Option<Tape>>,
}

#[derive(Debug)]
struct Tape {
    file: File,
    path: PathBuf,
    left: u64,
}

impl Recorder {
    /// Opens the file; a recording that is there goes on after its last whole line.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(settings: Option<&RecorderSettings>) -> std::io::Result<Self> {
        let Some(settings) = settings else { return Ok(Self::default()) };
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(false).write(true).mode(0o600).open(&settings.path)?;
        let written = std::fs::read(&settings.path)?;
        let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        let left = settings.bytes.saturating_sub(whole);
        Ok(Self { file: Mutex::new(Some(Tape { file, path: settings.path.clone(), left })) })
    }

    /// An engine begins.
    pub fn begin(&self, engine: &Engine) {
        self.write(|| Line::Begin {
            version: VERSION,
            policy: Box::new(engine.policy().clone()),
            state: Box::new(engine.state().clone()),
        });
    }

    /// Whether events are recorded.
    pub fn is_on(&self) -> bool {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// An event was handled.
    pub fn event(&self, now: Now, event: Event, actions: &[Action]) {
        self.write(|| Line::Event { now, event: Box::new(event), actions: actions.to_vec() });
    }

    fn write(&self, line: impl FnOnce() -> Line) {
        let mut open = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tape) = open.as_mut() else { return };
        let Ok(mut text) = serde_json::to_vec(&line()) else { return };
        text.push(b'\n');
        let path = tape.path.display().to_string();
        if text.len() as u64 > tape.left {
            tracing::warn!(path, "the recording of events is full and ends here");
            *open = None;
            return;
        }
        tape.left -= text.len() as u64;
        if let Err(error) = tape.file.write_all(&text) {
            tracing::warn!(path, %error, "events are no longer recorded");
            *open = None;
        }
    }
}

/// What a replay showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Events that were run again.
    pub events: u64,
    /// Actions that they gave.
    pub actions: u64,
    /// Starts of an engine.
    pub begins: u64,
}

/// Why a replay ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("reading {path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A line is not of the recording's form.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The engine did something else than then.
    #[error(
        "line {line}: the engine differs\n  event:    {event}\n  recorded: {recorded}\n  now:      {now}"
    )]
    Differs {
        /// Counted from 1.
        line: u64,
        /// The event.
        event: String,
        /// The actions then.
        recorded: String,
        /// The actions now.
        now: String,
    },
}

/// Runs a recording through the engine of this binary and compares every action.
///
/// # Errors
/// The first line that cannot be used or that differs.
pub fn replay(path: &Path) -> Result<Replayed, ReplayError> {
    let failed = |error: std::io::Error| ReplayError::Read {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    let reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut engine: Option<Engine> = None;
    let mut replayed = Replayed { events: 0, actions: 0, begins: 0 };
    for (index, text) in reader.lines().enumerate() {
        let (line, text) = (index as u64 + 1, text.map_err(failed)?);
        let bad = |reason: String| ReplayError::Line { line, reason };
        match serde_json::from_str(&text).map_err(|error| bad(error.to_string()))? {
            Line::Begin { version: VERSION, policy, state } => {
                replayed.begins += 1;
                engine = Some(Engine::restore(*policy, *state));
            }
            Line::Begin { version, .. } => return Err(bad(format!("version {version}, {VERSION} is known"))),
            Line::Event { now, event, actions } => {
                let engine = engine.as_mut().ok_or_else(|| bad("an event before any engine".to_owned()))?;
                let shown = format!("{event:?}");
                let given = engine.handle(*event, now);
                if given != actions {
                    let (recorded, now) = (format!("{actions:?}"), format!("{given:?}"));
                    return Err(ReplayError::Differs { line, event: shown, recorded, now });
                }
                replayed.events += 1;
                replayed.actions += given.len() as u64;
            }
        }
    }
    Ok(replayed)
}
