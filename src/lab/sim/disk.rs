//! The disk under an agent's journal: real files in a folder of their own, with writes that can fail, be slow or be
//! torn off, and a fingerprint of everything that was ever written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::config::journal::{JournalBackend, JournalSettings, OnDamage};
use crate::journal::{Disk, Journal, JournalError, Recovered, inline};

/// State of a disk, shared by the lives of one agent.
#[derive(Clone)]
pub struct SimDisk {
    folder: PathBuf,
    state: Arc<Mutex<State>>,
}

struct State {
    full: bool,
    slow_ms: u64,
    written: Sha256,
    bytes: u64,
    torn: u64,
}

impl SimDisk {
    /// An empty disk in a folder.
    pub fn new(folder: PathBuf) -> Self {
        let state = State { full: false, slow_ms: 0, written: Sha256::new(), bytes: 0, torn: 0 };
        Self { folder, state: Arc::new(Mutex::new(state)) }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether writes fail for want of space.
    pub fn set_full(&self, full: bool) {
        self.with(|state| state.full = full);
    }

    /// How long every write takes.
    pub fn set_slow(&self, ms: u64) {
        self.with(|state| state.slow_ms = ms);
    }

    /// Opens the journal on it, as an agent does when it starts.
    ///
    /// # Errors
    /// As [`inline::open`].
    pub fn open(&self) -> Result<(Journal, Recovered), JournalError> {
        let settings = JournalSettings {
            backend: JournalBackend::File(self.folder.clone()),
            on_damage: OnDamage::Halt,
            file_bytes: 1 << 20,
            files: 4,
        };
        inline::open(&settings, Box::new(self.clone()))
    }

    /// A crash in the middle of a write: the newest file ends with a part of a line.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn tear(&self) -> io::Result<()> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.folder)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
            .collect();
        files.sort();
        if let Some(newest) = files.last() {
            self.with(|state| state.torn += 1);
            let mut file = OpenOptions::new().append(true).open(newest)?;
            file.write_all(br#"{"seq":99999999,"prev":"00"#)?;
        }
        Ok(())
    }

    /// Bytes ever written and their SHA-256.
    pub fn fingerprint(&self) -> (u64, String) {
        self.with(|state| (state.bytes, hex::encode(state.written.clone().finalize())))
    }
}

impl Disk for SimDisk {
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.with(|state| {
            if state.full {
                // some of it arrives, as on a real full disk
                file.write_all(&bytes[..bytes.len() / 2])?;
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            file.write_all(bytes)?;
            state.written.update(bytes);
            state.bytes += bytes.len() as u64;
            Ok(())
        })
    }

    fn delay(&self) -> Duration {
        self.with(|state| Duration::from_millis(state.slow_ms))
    }
}
