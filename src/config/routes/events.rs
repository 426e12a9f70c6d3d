//! Settings of the events of route steering and of their files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Reader;

/// Name of the logger in lines of the log file (default `HEALTH_CHECK_DAEMON`).
pub const LOGGER_NAME: &str = "LOGGER_NAME";
/// File with lines for people (default `/var/log/radius_healthcheck_daemon.log`); empty = none.
pub const LOG_FILE: &str = "LOG_FILE";
/// Size in bytes at which both files are rotated, 1024 to 1073741824 (default 10485760).
pub const LOG_MAX_BYTES: &str = "LOG_MAX_BYTES";
/// Rotated files that are kept, 1 to 100 (default 5).
pub const LOG_BACKUP_COUNT: &str = "LOG_BACKUP_COUNT";
/// Hours after which both files are rotated whatever their size, 1 to 8760; not set = only by size.
pub const LOG_ROTATE_HOURS: &str = "LOG_ROTATE_HOURS";
/// Whether events also go to Cloud Logging.
pub const ENABLE_GCP_LOGGING: &str = "ENABLE_GCP_LOGGING";
/// Whether the console shows events as JSON, and only those.
pub const ENABLE_STRUCTURED_CONSOLE: &str = "ENABLE_STRUCTURED_CONSOLE";
/// Whether events go to a file (default `true`).
pub const ENABLE_STRUCTURED_FILE: &str = "ENABLE_STRUCTURED_FILE";
/// That file (default `/var/log/radius_healthcheck_daemon_structured.json`).
pub const STRUCTURED_LOG_FILE: &str = "STRUCTURED_LOG_FILE";
/// `lines` (default, one event per line) or `array` (a JSON array, as the predecessor wrote).
pub const STRUCTURED_LOG_FORMAT: &str = "STRUCTURED_LOG_FORMAT";

/// Shape of the structured file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFormat {
    /// One event per line.
    Lines,
    /// One JSON array.
    Array,
}

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSettings {
    /// Name of the logger.
    pub logger: String,
    /// File for people.
    pub log_file: Option<PathBuf>,
    /// File for programs.
    pub event_file: Option<PathBuf>,
    /// Its shape.
    pub format: EventFormat,
    /// Size at which files are rotated.
    pub max_bytes: u64,
    /// Age at which files are rotated.
    pub max_age: Option<Duration>,
    /// Rotated files that are kept.
    pub backups: u32,
    /// The console shows events as JSON.
    pub console: bool,
    /// Events go to Cloud Logging.
    pub cloud: bool,
}

/// Reads the section.
pub(super) fn read(reader: &mut Reader<'_>) -> EventSettings {
    let format = match reader.text(STRUCTURED_LOG_FORMAT).as_deref() {
        None | Some("lines") => EventFormat::Lines,
        Some("array") => EventFormat::Array,
        Some(other) => {
            let other = other.to_owned();
            reader.problem(STRUCTURED_LOG_FORMAT, Some(&other), "lines or array");
            EventFormat::Lines
        }
    };
    let event_file = reader.flag(ENABLE_STRUCTURED_FILE, true).then(|| {
        PathBuf::from(
            reader.text_or(STRUCTURED_LOG_FILE, "/var/log/radius_healthcheck_daemon_structured.json"),
        )
    });
    if let Some(folder) = event_file.as_deref().and_then(Path::parent).filter(|it| !it.as_os_str().is_empty())
        && let Err(error) = std::fs::create_dir_all(folder)
    {
        let path = folder.display().to_string();
        reader.problem(STRUCTURED_LOG_FILE, Some(&path), format!("a folder that can be made ({error})"));
    }
    let log_file = match reader.text(LOG_FILE) {
        None if reader.present(LOG_FILE) => None,
        text => Some(PathBuf::from(text.as_deref().unwrap_or("/var/log/radius_healthcheck_daemon.log"))),
    };
    EventSettings {
        logger: reader.text_or(LOGGER_NAME, "HEALTH_CHECK_DAEMON").to_uppercase(),
        log_file,
        event_file,
        format,
        max_bytes: reader.integer(LOG_MAX_BYTES, 10_485_760, 1024, 1_073_741_824),
        max_age: reader
            .text(LOG_ROTATE_HOURS)
            .is_some()
            .then(|| Duration::from_secs(3600 * reader.integer(LOG_ROTATE_HOURS, 24, 1, 8760))),
        backups: reader.integer(LOG_BACKUP_COUNT, 5, 1, 100) as u32,
        console: reader.flag(ENABLE_STRUCTURED_CONSOLE, false),
        cloud: reader.flag(ENABLE_GCP_LOGGING, false),
    }
}
