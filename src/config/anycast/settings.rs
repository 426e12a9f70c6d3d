//! Settings of the anycast task that come from the environment: where its file and its control socket are. And the
//! way from them to the file itself, which also is the lowest layer of all other settings (its `env` table).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Anycast, LoadError, environment, parse, read_text};
use crate::config::Reader;

/// Path of the anycast configuration file (as the Python predecessor calls it).
pub const CONFIG: &str = "CONFIG";

/// Path of the anycast configuration file (as the Go predecessor calls it); `CONFIG` wins.
pub const CONFIG_PATH: &str = "CONFIG_PATH";

/// Path of the control socket; the file's `control_socket` wins.
pub const ANYCAST_CONTROL_SOCKET: &str = "ANYCAST_CONTROL_SOCKET";

/// Where the predecessors looked for their files when nothing was said.
const USUAL: [&str; 2] = ["/etc/anycastd/config.toml", "/config.yaml"];

/// The section.
#[derive(Debug, Clone, PartialEq)]
pub struct AnycastSettings {
    /// The file.
    pub file: PathBuf,
    /// What it says.
    pub config: Anycast,
    /// The control socket, where one is named in the environment.
    pub control_socket: Option<PathBuf>,
}

/// A file as it was found: what it says of the rest of the agent, and of anycast.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its `env` table.
    pub environment: BTreeMap<String, String>,
    /// Its services; `None` = it has nothing but an `env` table.
    pub anycast: Option<Result<Anycast, LoadError>>,
}

impl Source {
    /// Reads the file that the settings name; `None` where they name none.
    pub fn find(reader: &Reader<'_>) -> Option<Self> {
        let path = reader.text(CONFIG).or_else(|| reader.text(CONFIG_PATH))?;
        Some(Self::read(Path::new(&path)))
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Self {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => return Self::broken(path, error),
        };
        match environment(&text) {
            Ok((environment, has_anycast)) => {
                let anycast = (has_anycast || environment.is_empty()).then(|| parse(&text));
                Self { path: path.to_owned(), environment, anycast }
            }
            // What is wrong with the services is worth knowing at the same time.
            Err(LoadError::Invalid(mut problems)) => {
                problems.extend(parse(&text).err().map(|error| error.problems(path)).unwrap_or_default());
                Self::broken(path, LoadError::Invalid(problems))
            }
            Err(error) => Self::broken(path, error),
        }
    }

    /// The file that a predecessor would have read without being told.
    pub fn usual() -> Self {
        let found = USUAL.iter().map(Path::new).find(|path| path.exists());
        Self::read(found.unwrap_or(Path::new(USUAL[0])))
    }

    fn broken(path: &Path, error: LoadError) -> Self {
        Self { path: path.to_owned(), environment: BTreeMap::new(), anycast: Some(Err(error)) }
    }
}

/// Reads the section out of the file that was found.
///
/// # Errors
/// What is wrong with the file.
pub fn read(reader: &mut Reader<'_>, source: Source) -> Result<Option<AnycastSettings>, LoadError> {
    let control_socket = reader.text(ANYCAST_CONTROL_SOCKET).map(PathBuf::from);
    match source.anycast {
        Some(config) => Ok(Some(AnycastSettings { file: source.path, config: config?, control_socket })),
        None => Ok(None),
    }
}
