//! The content of a database volume: position, timeline, rows, and how it fits another site's.

use std::sync::Arc;

use serde_json::Value;

use super::peer_view::SourceFacts;

/// Bytes that one row adds to the position.
const ROW_BYTES: u64 = 168;
/// Position of a database that has just been made.
const FIRST_LSN: u64 = 0x300_0000;

/// Content of a volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    /// System identifier.
    pub system: u64,
    /// Timeline.
    pub timeline: u32,
    /// Position in bytes.
    pub lsn: u64,
    /// Numbers of the rows that are in it.
    pub rows: Arc<Vec<u64>>,
    /// Earlier timelines and where they ended.
    pub switches: Vec<(u32, u64)>,
    /// The dynamic configuration that Patroni keeps beside the data.
    pub dynamic: Value,
}

impl Data {
    /// A database as `initdb` makes it.
    pub fn fresh(system: u64) -> Self {
        Self {
            system,
            timeline: 1,
            lsn: FIRST_LSN,
            rows: Arc::default(),
            switches: Vec::new(),
            dynamic: Value::Null,
        }
    }

    /// A copy of what the other site has.
    pub fn copy_of(source: &SourceFacts) -> Self {
        Self {
            system: source.system,
            timeline: source.timeline,
            lsn: source.lsn,
            rows: Arc::clone(&source.rows),
            switches: source.switches.clone(),
            dynamic: Value::Null,
        }
    }

    /// Begins a new timeline.
    pub fn promote(&mut self) {
        self.switches.push((self.timeline, self.lsn));
        self.timeline += 1;
        self.lsn += 64;
    }

    /// Adds a row.
    pub fn append(&mut self, row: u64) {
        Arc::make_mut(&mut self.rows).push(row);
        self.lsn += ROW_BYTES;
    }
}

/// How our data and a source's go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// What we have is a beginning of what the source has.
    Same,
    /// We have more on the same timeline: nothing comes until the source has caught up.
    Ahead,
    /// We have what the source never had.
    Diverged,
}

/// Compares our data with a source's.
pub fn fit(ours: &Data, source: &SourceFacts) -> Fit {
    match ours.timeline.cmp(&source.timeline) {
        std::cmp::Ordering::Equal if ours.lsn <= source.lsn && ours.switches == source.switches => Fit::Same,
        std::cmp::Ordering::Equal if ours.switches == source.switches => Fit::Ahead,
        std::cmp::Ordering::Less => {
            match source.switches.iter().find(|(timeline, _)| *timeline == ours.timeline) {
                Some((_, end)) if ours.lsn <= *end => Fit::Same,
                _ => Fit::Diverged,
            }
        }
        _ => Fit::Diverged,
    }
}
