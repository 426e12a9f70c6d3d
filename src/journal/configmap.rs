//! The journal in a ConfigMap: the newest lines as one data key, beside a key that names the newest entry.
//!
//! Every write demands the resource version that was read, so two writers cannot overwrite each other. Knows
//! nothing of the Kubernetes client: that is behind [`ConfigMapStore`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::chain::{self, Head};
use super::{Entry, EntryKind, Journal, JournalError, JournalStatus, RING, Recovered, scan};
use crate::config::journal::OnDamage;

/// Bytes of lines that are kept; a ConfigMap may hold 1 MiB in all.
pub const MAX_BYTES: usize = 900 * 1024;
/// Longest time an append waits for the API server; after that the entry waits in memory.
pub const APPEND_LIMIT: Duration = Duration::from_secs(2);
/// Key of the lines.
pub const LINES_KEY: &str = "journal.jsonl";
/// Key of the newest entry's number and hash.
pub const HEAD_KEY: &str = "head";
/// Key of the end of a damaged journal that was set aside, and how much of it is kept.
const DAMAGED_KEY: &str = "damaged";
const DAMAGED_BYTES: usize = 64 * 1024;
const PLACE: &str = "configmap";

/// A ConfigMap as read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredMap {
    /// `data`.
    pub data: BTreeMap<String, String>,
    /// `metadata.resourceVersion`, where the server gives one.
    pub resource_version: Option<String>,
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// 409: the resource version is no longer that one, or the object exists already.
    #[error("somebody else changed the journal ConfigMap")]
    Conflict,
    /// Anything else, in one line without secrets.
    #[error("{0}")]
    Failed(String),
}

/// The one ConfigMap of the journal.
pub trait ConfigMapStore: Send + Sync {
    /// Reads it; `None` where the API server says that there is none.
    fn get(&self) -> BoxFuture<'_, Result<Option<StoredMap>, StoreError>>;

    /// Replaces `data`, demanding `expect` as the resource version; without one the object is created. Returns the
    /// new resource version.
    fn put(
        &self,
        data: BTreeMap<String, String>,
        expect: Option<String>,
    ) -> BoxFuture<'_, Result<Option<String>, StoreError>>;
}

/// An open journal in a ConfigMap.
pub struct ConfigMapJournal {
    store: Box<dyn ConfigMapStore>,
    version: Option<String>,
    /// Lines with their heads; the newest `waiting` ones are not known to be stored.
    lines: VecDeque<(String, Head)>,
    bytes: usize,
    head: Head,
    waiting: usize,
    lost: u64,
    degraded: bool,
    damaged: Option<String>,
    last_state: Option<(u64, Entry)>,
}

/// Reads the ConfigMap and checks it.
///
/// # Errors
/// [`JournalError::Open`] where it cannot be read.
pub async fn open(
    store: Box<dyn ConfigMapStore>,
    on_damage: OnDamage,
) -> Result<(Journal, Recovered), JournalError> {
    let failed = |reason: String| JournalError::Open { place: PLACE.to_owned(), reason };
    let stored = match tokio::time::timeout(APPEND_LIMIT * 5, store.get()).await {
        Ok(Ok(stored)) => stored,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed("no answer within the bound".to_owned())),
    };
    let (data, version) = stored.map_or_else(Default::default, |map| (map.data, map.resource_version));
    let mut recovered = read(&data);
    let mut journal = ConfigMapJournal {
        store,
        version,
        lines: VecDeque::new(),
        bytes: 0,
        head: Head::default(),
        waiting: 0,
        lost: 0,
        degraded: false,
        damaged: data.get(DAMAGED_KEY).cloned(),
        last_state: None,
    };
    if let Some(damage) = recovered.damage.clone() {
        if on_damage == OnDamage::Halt {
            return Ok((Journal::stand_in(), recovered));
        }
        let text = data.get(LINES_KEY).map(String::as_str).unwrap_or_default();
        let from = (text.len().saturating_sub(DAMAGED_BYTES)..=text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or_default();
        journal.damaged = Some(text[from..].to_owned());
        let last = recovered.entries.last().map(|recorded| &recorded.entry);
        let (wall_ms, generation) = last.map_or((0, Default::default()), |e| (e.wall_ms, e.generation));
        journal.push(&Entry {
            wall_ms,
            generation,
            kind: EntryKind::SetAside { damage: damage.to_string() },
        })?;
        journal.waiting = 1;
    } else {
        let text = data.get(LINES_KEY).map(String::as_str).unwrap_or_default();
        for (line, recorded) in text.lines().zip(&recovered.entries) {
            journal.bytes += line.len() + 1;
            journal.head = Head { seq: recorded.seq, hash: recorded.hash.clone() };
            journal.lines.push_back((line.to_owned(), journal.head.clone()));
            if matches!(recorded.entry.kind, EntryKind::State { .. }) {
                journal.last_state = Some((recorded.seq, recorded.entry.clone()));
            }
        }
    }
    recovered.torn = None;
    Ok((Journal::ConfigMap(Box::new(journal)), recovered))
}

/// What the data keys hold. Both are written in one request, so there is no torn line here.
fn read(data: &BTreeMap<String, String>) -> Recovered {
    let text = data.get(LINES_KEY).map(String::as_str).unwrap_or_default();
    let named = data.get(HEAD_KEY).map(String::as_str).unwrap_or_default();
    let before = match named.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()) {
        Some(first) => Head { seq: first.saturating_sub(1), ..Head::default() },
        None => Head::default(),
    };
    let scanned = scan::lines(PLACE, text.as_bytes(), &before, before.seq > 0);
    let line = scanned.entries.len();
    let first = scanned.entries.first().map_or(1, |recorded| recorded.seq);
    let mut damage = scanned.damage;
    if damage.is_none() && scanned.end_of_lines < text.len() {
        let what = "the text ends inside a line".to_owned();
        damage = Some(JournalError::Altered { place: PLACE.to_owned(), line: line + 1, what });
    }
    if damage.is_none() && !(text.is_empty() && named.is_empty()) && named != head_text(first, &scanned.head)
    {
        let what = format!("key `{HEAD_KEY}` says {named:?}, the lines end at entry {}", scanned.head.seq);
        damage = Some(JournalError::Altered { place: PLACE.to_owned(), line, what });
    }
    Recovered { entries: scanned.entries, torn: None, damage }
}

fn head_text(first: u64, head: &Head) -> String {
    format!("{first} {} {}", head.seq, head.hash)
}

impl ConfigMapJournal {
    pub(super) async fn look(&self) -> Result<Recovered, JournalError> {
        let stored = tokio::time::timeout(APPEND_LIMIT, self.store.get()).await;
        let reason = match stored {
            Ok(Ok(stored)) => return Ok(read(&stored.unwrap_or_default().data)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within the bound".to_owned(),
        };
        Err(JournalError::Open { place: PLACE.to_owned(), reason })
    }

    pub(super) fn status(&self) -> JournalStatus {
        JournalStatus { degraded: self.degraded, buffered: self.waiting, lost: self.lost }
    }

    pub(super) async fn append(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        if self.waiting + entries.len() > RING {
            self.degraded = true;
            self.lost += entries.len() as u64;
            // what waits may go through now; the new entries are given up either way
            let _ = self.flush().await;
            return Err(JournalError::Full(PLACE.to_owned()));
        }
        for entry in &entries {
            self.push(entry)?;
            self.waiting += 1;
        }
        let result = match tokio::time::timeout(APPEND_LIMIT, self.flush()).await {
            Ok(result) => result,
            Err(_) => Err(JournalError::Slow(PLACE.to_owned())),
        };
        self.degraded = result.is_err();
        result
    }

    /// Adds a line, and gives up the oldest ones beyond the bound; a checkpoint that would go is written anew.
    fn push(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let (line, head) = chain::seal(&self.head, entry)?;
        self.bytes += line.len() + 1;
        self.head = head.clone();
        if matches!(entry.kind, EntryKind::State { .. }) {
            self.last_state = Some((head.seq, entry.clone()));
        }
        self.lines.push_back((line, head));
        while self.bytes > MAX_BYTES && self.lines.len() > 1 {
            let Some((line, head)) = self.lines.pop_front() else { break };
            self.bytes -= line.len() + 1;
            if let Some((seq, state)) = self.last_state.clone()
                && seq == head.seq
                && line.len() < MAX_BYTES / 4
            {
                return self.push(&state);
            }
        }
        Ok(())
    }

    fn data(&self) -> BTreeMap<String, String> {
        let mut text = String::with_capacity(self.bytes);
        for (line, _) in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        let first = self.lines.front().map_or(1, |(_, head)| head.seq);
        let mut data: BTreeMap<String, String> =
            [(LINES_KEY.to_owned(), text), (HEAD_KEY.to_owned(), head_text(first, &self.head))].into();
        if let Some(damaged) = &self.damaged {
            data.insert(DAMAGED_KEY.to_owned(), damaged.clone());
        }
        data
    }

    /// Writes all lines; a conflict is looked at once, since a write of ours whose answer was lost is one too.
    async fn flush(&mut self) -> Result<(), JournalError> {
        let write =
            |error: StoreError| JournalError::Write { place: PLACE.to_owned(), reason: error.to_string() };
        for attempt in 0..2 {
            match self.store.put(self.data(), self.version.clone()).await {
                Ok(version) => {
                    self.version = version;
                    self.waiting = 0;
                    return Ok(());
                }
                Err(StoreError::Conflict) if attempt == 0 => {
                    let stored = self.store.get().await.map_err(write)?;
                    let Some(stored) = stored else {
                        self.version = None;
                        continue;
                    };
                    let found = read(&stored.data);
                    let ours = found.damage.is_none()
                        && found.entries.last().is_none_or(|last| {
                            self.lines.iter().any(|(_, head)| head.seq == last.seq && head.hash == last.hash)
                        });
                    if !ours {
                        return Err(JournalError::Foreign(PLACE.to_owned()));
                    }
                    self.version = stored.resource_version;
                }
                Err(error) => return Err(write(error)),
            }
        }
        Err(JournalError::Foreign(PLACE.to_owned()))
    }
}
