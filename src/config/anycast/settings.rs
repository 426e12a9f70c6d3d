//! Settings of the anycast task that come from the environment: where its file and its control socket are.

use std::path::PathBuf;

use crate::config::Reader;

/// Path of the anycast configuration file (as the Python predecessor calls it).
pub const CONFIG: &str = "CONFIG";

/// Path of the anycast configuration file (as the Go predecessor calls it); `CONFIG` wins.
pub const CONFIG_PATH: &str = "CONFIG_PATH";

/// Path of the control socket; the file's `control_socket` wins.
pub const ANYCAST_CONTROL_SOCKET: &str = "ANYCAST_CONTROL_SOCKET";

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnycastSettings {
    /// The file, where one is named.
    pub file: Option<PathBuf>,
    /// The control socket, where one is named.
    pub control_socket: Option<PathBuf>,
}

/// Reads the section.
pub fn read(reader: &mut Reader<'_>) -> AnycastSettings {
    let file = reader.text(CONFIG).or_else(|| reader.text(CONFIG_PATH));
    AnycastSettings {
        file: file.map(PathBuf::from),
        control_socket: reader.text(ANYCAST_CONTROL_SOCKET).map(PathBuf::from),
    }
}
