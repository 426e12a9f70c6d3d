//! What outlives a restart: the decision's memory in `STATE_FILE`, and a lock beside it, so that two copies on one
//! machine never fight over one region.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::model::{Mono, RoutePin, Wall};
use crate::rules::route_health::Core;
use crate::rules::route_health::actuate::Budget;
use crate::tasks::clock::wall_now;

/// Version of the file's form.
const FORMAT: u32 = 1;

/// The file's contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    format: u32,
    /// When it was written, by the wall clock.
    wall: Wall,
    /// The same moment by the count that the rest is in.
    mono: Mono,
    /// Windows, candidate, applied state.
    pub core: Core,
    /// The last hour's writes.
    pub budget: Budget,
    /// Who owned the routes.
    pub pin: Option<RoutePin>,
    /// Whether the other router has ever told what it announces.
    pub peer_tells: bool,
}

impl Saved {
    /// Something to keep.
    pub fn new(mono: Mono, core: Core, budget: Budget, pin: Option<RoutePin>, peer_tells: bool) -> Self {
        Self { format: FORMAT, wall: wall_now(), mono, core, budget, pin, peer_tells }
    }

    /// The count at which the clock goes on: what has passed since is part of every age.
    pub fn mono_now(&self) -> Mono {
        self.mono.plus(wall_now().0.saturating_sub(self.wall.0))
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process steers this region.
    #[error("{0} is locked: another process steers these routes")]
    Locked(PathBuf),
    /// The file system says no.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        error: std::io::Error,
    },
}

/// The file with its lock.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// Takes the lock.
    ///
    /// # Errors
    /// Where another process has it, or the folder cannot be written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock_path = with_ending(path, ".lock");
        let io = |error| StoreError::Io { path: lock_path.clone(), error };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let file = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(_) => Err(StoreError::Locked(lock_path)),
        }
    }

    /// What the last process left; `None` where there is nothing that can be used.
    pub fn load(&self) -> Option<Saved> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "STATE_FILE cannot be read: starting afresh");
                return None;
            }
        };
        match serde_json::from_str::<Saved>(&text) {
            Ok(saved) if saved.format == FORMAT => Some(saved),
            Ok(saved) => {
                tracing::warn!(format = saved.format, "STATE_FILE is of another version: starting afresh");
                None
            }
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "STATE_FILE is damaged: starting afresh");
                None
            }
        }
    }

    /// Writes beside the file and moves it there, so that it is whole at every moment.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn save(&self, saved: &Saved) -> Result<(), StoreError> {
        let beside = with_ending(&self.path, ".new");
        let written = || -> std::io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(&serde_json::to_vec(saved)?)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)
        };
        written().map_err(|error| StoreError::Io { path: self.path.clone(), error })
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_comes_back_and_only_one_process_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/state.json");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.load(), None);
        let saved = Saved::new(Mono(7), Core::default(), Budget::default(), Some(RoutePin::Passive), true);
        store.save(&saved).unwrap();
        assert_eq!(store.load(), Some(saved.clone()));
        assert!(saved.mono_now() >= Mono(7));
        assert!(matches!(Store::open(&path), Err(StoreError::Locked(_))));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(store.load(), None, "a damaged file is as good as none");
        drop(store);
        assert!(Store::open(&path).is_ok());
    }
}
