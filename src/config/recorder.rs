//! Settings of the recorder of events.

use std::path::PathBuf;

use super::Reader;

/// File into which every event and what followed is recorded, for `replay`; unset = nothing is recorded.
pub const RECORD_EVENTS: &str = "RECORD_EVENTS";
/// Bytes after which the recording ends (default 64 MiB).
pub const RECORD_EVENTS_BYTES: &str = "RECORD_EVENTS_BYTES";

/// Where and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderSettings {
    /// The file.
    pub path: PathBuf,
    /// Its bound in bytes.
    pub bytes: u64,
}

/// Reads the section; `None` = nothing is recorded.
pub fn read(reader: &mut Reader<'_>) -> Option<RecorderSettings> {
    let bytes = reader.integer(RECORD_EVENTS_BYTES, 64 << 20, 64 << 10, 1 << 40);
    Some(RecorderSettings { path: PathBuf::from(reader.text(RECORD_EVENTS)?), bytes })
}
