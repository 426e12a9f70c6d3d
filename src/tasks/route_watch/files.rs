//! Files that rotate: lines for people, one event per line, or one JSON array that is valid at every moment.
//!
//! Owns a thread of its own, so that a slow disk never slows a cycle; what does not fit its queue is counted and
//! dropped. Never decides what is written.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use crate::config::routes::EventSettings;
use crate::config::routes::events::EventFormat;

/// Lines that may wait for the disk: many cycles' worth.
const QUEUE: usize = 1024;
/// End of an array file.
const ARRAY_END: &str = "\n]\n";

/// When a file is rotated and how many old ones stay.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// At this size in bytes.
    pub max_bytes: u64,
    /// At this age; `None` = never.
    pub max_age: Option<Duration>,
    /// Rotated files `NAME.1` to `NAME.N` that are kept.
    pub backups: u32,
}

/// One file.
pub struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    format: EventFormat,
    open: Option<Open>,
}

struct Open {
    file: File,
    size: u64,
    since: SystemTime,
}

impl RotatingFile {
    /// A file that is opened with its first line.
    pub fn new(path: &Path, rotation: Rotation, format: EventFormat) -> Self {
        Self { path: path.to_owned(), rotation, format, open: None }
    }

    /// Appends a line (without its line break).
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        let added = line.len() as u64 + 2;
        let rotation = self.rotation;
        let due = self.opened()?;
        let too_big = due.size > 0 && due.size + added > rotation.max_bytes;
        let age = due.since.elapsed().unwrap_or_default();
        let too_old = due.size > 0 && rotation.max_age.is_some_and(|limit| age >= limit);
        if too_big || too_old {
            self.rotate()?;
        }
        let format = self.format;
        let open = self.opened()?;
        let written = match format {
            EventFormat::Lines => {
                let text = format!("{line}\n");
                open.file.write_all(text.as_bytes())?;
                text.len() as u64
            }
            EventFormat::Array => append_to_array(open, line)?,
        };
        open.size += written;
        Ok(())
    }

    /// Closes the file; the next line opens what then has its name.
    pub fn reopen(&mut self) {
        self.open = None;
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            // An array is written in the middle, which append mode does not allow.
            let append = self.format == EventFormat::Lines;
            let mut options = OpenOptions::new();
            options.create(true).read(true).truncate(false);
            let file = if append { options.append(true) } else { options.write(true) }.open(&self.path)?;
            let about = file.metadata()?;
            let since = about.created().or_else(|_| about.modified())?;
            self.open = Some(Open { size: about.len(), file, since });
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("the file was just opened"))
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let name = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        for number in (1..self.rotation.backups).rev() {
            if name(number).exists() {
                std::fs::rename(name(number), name(number + 1))?;
            }
        }
        std::fs::rename(&self.path, name(1))
    }
}

/// Writes an element before the closing bracket, so that the file is an array after every event.
fn append_to_array(open: &mut Open, line: &str) -> io::Result<u64> {
    if open.size == 0 {
        let text = format!("[\n{line}{ARRAY_END}");
        open.file.seek(SeekFrom::Start(0))?;
        open.file.write_all(text.as_bytes())?;
        return Ok(text.len() as u64);
    }
    let end = open.size.saturating_sub(ARRAY_END.len() as u64);
    open.file.seek(SeekFrom::Start(end))?;
    open.file.write_all(format!(",\n{line}{ARRAY_END}").as_bytes())?;
    Ok(line.len() as u64 + 2)
}

enum Order {
    Human(String),
    Event(String),
    Reopen,
    Flush(SyncSender<()>),
}

/// The way to the files; clones share the thread.
#[derive(Clone)]
pub struct Files {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Files {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(settings: &EventSettings) -> io::Result<Self> {
        let rotation =
            Rotation { max_bytes: settings.max_bytes, max_age: settings.max_age, backups: settings.backups };
        let human =
            settings.log_file.as_deref().map(|path| RotatingFile::new(path, rotation, EventFormat::Lines));
        let events =
            settings.event_file.as_deref().map(|path| RotatingFile::new(path, rotation, settings.format));
        let (orders, received) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("route-events".to_owned())
            .spawn(move || write(&received, human, events))?;
        Ok(Self { orders, lost: Arc::default() })
    }

    /// A line for people.
    pub fn human(&self, line: String) {
        self.send(Order::Human(line));
    }

    /// An event, as compact JSON.
    pub fn event(&self, json: String) {
        self.send(Order::Event(json));
    }

    /// Opens the files anew: somebody else has moved them.
    pub fn reopen(&self) {
        self.send(Order::Reopen);
    }

    /// Waits until everything so far is written, at most two seconds.
    pub fn flush(&self) {
        let (done, waits) = sync_channel(1);
        let deadline = Instant::now() + Duration::from_secs(2);
        if self.orders.try_send(Order::Flush(done)).is_ok() {
            let _ = waits.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// Lines that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn send(&self, order: Order) {
        if let Err(TrySendError::Full(_)) = self.orders.try_send(order) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(orders: &Receiver<Order>, mut human: Option<RotatingFile>, mut events: Option<RotatingFile>) {
    let mut complained = false;
    for order in orders {
        let result = match order {
            Order::Human(line) => human.as_mut().map_or(Ok(()), |file| file.append(&line)),
            Order::Event(line) => events.as_mut().map_or(Ok(()), |file| file.append(&line)),
            Order::Reopen => {
                human.iter_mut().chain(&mut events).for_each(RotatingFile::reopen);
                Ok(())
            }
            Order::Flush(done) => {
                let _ = done.send(());
                Ok(())
            }
        };
        match result {
            Ok(()) => complained = false,
            Err(error) if !complained => {
                complained = true;
                tracing::warn!(%error, "a log file of route steering cannot be written");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(max_bytes: u64) -> Rotation {
        Rotation { max_bytes, max_age: None, backups: 2 }
    }

    #[test]
    fn an_array_is_valid_after_every_event_and_over_restart_and_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.json");
        for restart in 0..3 {
            let mut file = RotatingFile::new(&path, rotation(120), EventFormat::Array);
            for event in 0..4 {
                file.append(&format!("{{\"restart\":{restart},\"event\":{event}}}")).unwrap();
                let text = std::fs::read_to_string(&path).unwrap();
                let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
                assert_eq!(all.last().unwrap()["event"], event);
            }
        }
        assert!(path.with_extension("json.1").exists() && path.with_extension("json.2").exists());
        assert!(!path.with_extension("json.3").exists(), "only so many are kept");
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = RotatingFile::new(&path, rotation(1000), EventFormat::Lines);
        file.append("one").unwrap();
        std::fs::rename(&path, folder.path().join("log.moved")).unwrap();
        file.reopen();
        file.append("two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }
}
