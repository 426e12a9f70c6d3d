//! The journal in files without a thread of its own: for virtual time, where nothing may happen beside the clock.
//!
//! The same writer as [`super::file`]; what differs is who calls it. Entries that wait after a failed write are tried
//! again with the next entry, not every second.

use std::io;
use std::path::Path;

use super::file::{APPEND_LIMIT, Disk, Writer, prepare};
use super::{Entry, Journal, JournalError, JournalStatus, Recovered};
use crate::config::journal::JournalSettings;

/// The open directory; dropping it forgets what waits, as a crash does.
pub struct InlineJournal {
    writer: Writer,
    status: JournalStatus,
}

impl InlineJournal {
    pub(super) async fn append(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        let place = self.writer.dir.display().to_string();
        let delay = self.writer.disk.delay();
        self.writer.enqueue(entries);
        let result = if delay >= APPEND_LIMIT {
            tokio::time::sleep(APPEND_LIMIT).await;
            Err(JournalError::Slow(place))
        } else {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let failed = |error: io::Error| JournalError::Write { place, reason: error.to_string() };
            self.writer.flush().map_err(failed)
        };
        let (buffered, lost) = (self.writer.ring.len(), self.writer.lost);
        self.status = JournalStatus { degraded: result.is_err(), buffered, lost };
        result
    }

    pub(super) fn dir(&self) -> &Path {
        &self.writer.dir
    }

    pub(super) fn status(&self) -> JournalStatus {
        self.status
    }
}

/// Opens the directory as [`super::file::open`] does, to be written by the caller itself.
///
/// # Errors
/// [`JournalError::Locked`], [`JournalError::Open`].
pub fn open(settings: &JournalSettings, disk: Box<dyn Disk>) -> Result<(Journal, Recovered), JournalError> {
    let (writer, recovered) = match prepare(settings, disk)? {
        (Some(writer), recovered) => (writer, recovered),
        (None, recovered) => return Ok((Journal::stand_in(), recovered)),
    };
    let inline = InlineJournal { writer, status: JournalStatus::default() };
    Ok((Journal::Inline(Box::new(inline)), recovered))
}
