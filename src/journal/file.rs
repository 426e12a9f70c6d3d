//! The journal in files: `journal-<number of its first entry>.jsonl` in one directory, beside `head` and `lock`.
//!
//! Owns the directory while the agent runs (an exclusive lock). One thread of its own does all file I/O, so that a
//! hanging disk never blocks the agent longer than [`APPEND_LIMIT`]. A batch is one write and one fdatasync; `head`
//! then names the oldest and the newest entry, which is how a journal that lost its end is told from a shorter one.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::chain::{self, Head};
use super::dir::{self, HEAD_BYTES, head_record, list, read_dir, read_head};
use super::{Entry, EntryKind, Journal, JournalError, JournalStatus, RING, Recovered};
use crate::config::journal::{JournalBackend, JournalSettings, OnDamage};

/// Longest time an append waits for the disk; after that the entry waits in memory.
pub const APPEND_LIMIT: Duration = Duration::from_secs(2);
/// How often waiting entries are tried again when nothing new comes.
const RETRY: Duration = Duration::from_secs(1);

/// The calls that can fail for want of space; the simulator and the tests put a full disk here.
pub trait Disk: Send + Sync {
    /// Writes all bytes at the end of the file and makes them durable.
    ///
    /// # Errors
    /// As the operating system says; some of the bytes may have been written.
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()>;

    /// How long a write takes now; only a simulated disk is slow on purpose.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)?;
        file.sync_data()
    }
}

type Job = (Vec<Entry>, oneshot::Sender<Result<(), JournalError>>);

/// Handle to the thread that owns the directory. Dropping it lets the thread finish what waits and end.
pub struct FileJournal {
    place: String,
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    status: Arc<Mutex<JournalStatus>>,
}

impl FileJournal {
    pub(super) async fn append(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        let count = entries.len() as u64;
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send((entries, reply)).is_ok());
        if !sent {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.degraded = true;
            status.lost += count;
            return Err(JournalError::Full(self.place.clone()));
        }
        match tokio::time::timeout(APPEND_LIMIT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(JournalError::Full(self.place.clone())),
            Err(_) => {
                self.status.lock().unwrap_or_else(PoisonError::into_inner).degraded = true;
                Err(JournalError::Slow(self.place.clone()))
            }
        }
    }

    pub(super) fn dir(&self) -> PathBuf {
        PathBuf::from(&self.place)
    }

    pub(super) fn status(&self) -> JournalStatus {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.jobs = None;
        // The lock is free when the thread has ended. A disk that hangs must not keep the agent from ending.
        if let Some(thread) = self.thread.take() {
            let end = std::time::Instant::now() + APPEND_LIMIT;
            while !thread.is_finished() && std::time::Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Reads a journal directory without touching it. While its owner writes, the end may be unfinished: [`Recovered::torn`]
/// then names it and nothing was moved. Blocking.
///
/// # Errors
/// [`JournalError::Open`] where it cannot be read.
pub fn look(dir: &Path) -> Result<Recovered, JournalError> {
    dir::look(dir)
        .map_err(|error| JournalError::Open { place: dir.display().to_string(), reason: error.to_string() })
}

/// Keeps every other agent out of the directory.
fn lock(dir: &Path) -> Result<nix::fcntl::Flock<File>, JournalError> {
    let place = dir.display().to_string();
    let failed = |error: io::Error| JournalError::Open { place: place.clone(), reason: error.to_string() };
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(failed)?;
    match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(JournalError::Locked(place)),
        Err((_, errno)) => Err(failed(errno.into())),
    }
}

/// Opens the directory, checks every line, moves a torn last line aside. Blocking.
///
/// # Errors
/// [`JournalError::Locked`], [`JournalError::Open`].
pub fn open(settings: &JournalSettings, disk: Box<dyn Disk>) -> Result<(Journal, Recovered), JournalError> {
    let (writer, recovered) = match prepare(settings, disk)? {
        (Some(writer), recovered) => (writer, recovered),
        (None, recovered) => return Ok((Journal::stand_in(), recovered)),
    };
    let place = writer.dir.display().to_string();
    let status = Arc::new(Mutex::new(JournalStatus::default()));
    // as many jobs may wait as entries: a hanging disk costs bounded memory
    let (jobs, queue) = mpsc::sync_channel(RING);
    let shared = Arc::clone(&status);
    let thread = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.run(&queue, &shared))
        .map_err(|error| JournalError::Open { place: place.clone(), reason: error.to_string() })?;
    Ok((Journal::File(FileJournal { place, jobs: Some(jobs), thread: Some(thread), status }), recovered))
}

/// A directory that is open and checked; no writer where it is damaged and must stay as it is.
pub(super) type Prepared = (Option<Writer>, Recovered);

pub(super) fn prepare(settings: &JournalSettings, disk: Box<dyn Disk>) -> Result<Prepared, JournalError> {
    let JournalBackend::File(dir) = &settings.backend else {
        return Err(JournalError::Open {
            place: "files".into(),
            reason: "JOURNAL names no directory".into(),
        });
    };
    let place = dir.display().to_string();
    let failed = |error: io::Error| JournalError::Open { place: place.clone(), reason: error.to_string() };
    fs::create_dir_all(dir).map_err(failed)?;
    let lock = lock(dir)?;
    let mut found = read_dir(dir).map_err(failed)?;
    let mut set_aside = None;
    if let Some(damage) = &found.recovered.damage {
        if settings.on_damage == OnDamage::Halt {
            return Ok((None, found.recovered));
        }
        for (_, path) in list(dir).map_err(failed)? {
            fs::rename(&path, path.with_extension("jsonl.damaged")).map_err(failed)?;
        }
        let _ = fs::remove_file(dir.join("head"));
        set_aside = Some(EntryKind::SetAside { damage: damage.to_string() });
        found.open_file = None;
    }
    let last_state = found
        .recovered
        .entries
        .iter()
        .rev()
        .map(|recorded| &recorded.entry)
        .find(|entry| matches!(entry.kind, EntryKind::State { .. }))
        .cloned();
    let mut writer = Writer {
        dir: dir.clone(),
        disk,
        _lock: lock,
        file: None,
        good_bytes: 0,
        dirty: false,
        head: found.head,
        first: found.first,
        bound: settings.file_bytes,
        keep: settings.files,
        ring: VecDeque::new(),
        lost: 0,
        lost_told: 0,
        last_state,
    };
    writer.reopen(found.open_file).map_err(failed)?;
    if let Some(kind) = set_aside {
        let last = found.recovered.entries.last().map(|recorded| &recorded.entry);
        let (wall_ms, generation) = last.map_or((0, Default::default()), |e| (e.wall_ms, e.generation));
        writer.ring.push_back(Entry { wall_ms, generation, kind });
    }
    Ok((Some(writer), found.recovered))
}

pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) disk: Box<dyn Disk>,
    _lock: nix::fcntl::Flock<File>,
    file: Option<File>,
    good_bytes: u64,
    /// A failed write left bytes behind that could not be cut off yet.
    dirty: bool,
    head: Head,
    first: u64,
    bound: u64,
    keep: usize,
    pub(super) ring: VecDeque<Entry>,
    pub(super) lost: u64,
    lost_told: u64,
    last_state: Option<Entry>,
}

fn cut_back(file: &mut File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    file.seek(SeekFrom::Start(bytes)).map(drop)
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Job>, status: &Mutex<JournalStatus>) {
        let place = self.dir.display().to_string();
        let mut reported = 0;
        loop {
            let job = match queue.recv_timeout(RETRY) {
                Ok(job) => Some(job),
                Err(mpsc::RecvTimeoutError::Timeout) if self.ring.is_empty() => continue,
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            let (entries, reply) = job.map_or((Vec::new(), None), |(entries, reply)| (entries, Some(reply)));
            self.enqueue(entries);
            let result = self
                .flush()
                .map_err(|error| JournalError::Write { place: place.clone(), reason: error.to_string() });
            {
                let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
                status.degraded = result.is_err();
                status.buffered = self.ring.len();
                status.lost += self.lost - reported;
                reported = self.lost;
            }
            if let Some(reply) = reply {
                let _ = reply.send(result);
            }
        }
        let _ = self.flush();
    }

    pub(super) fn enqueue(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if self.ring.len() >= RING {
                self.ring.pop_front();
                self.lost += 1;
            }
            self.ring.push_back(entry);
        }
    }

    /// Writes everything that waits; on failure the file is cut back to its last good line and all keeps waiting.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.ring.is_empty() {
            return Ok(());
        }
        if let Some(file) = self.file.as_mut().filter(|_| self.dirty) {
            cut_back(file, self.good_bytes)?;
            self.dirty = false;
        }
        if self.file.is_none() || self.good_bytes >= self.bound {
            self.rotate()?;
        }
        let mut head = self.head.clone();
        let mut text = String::new();
        let lost = self.lost - self.lost_told;
        let told = (lost > 0).then(|| {
            let next = &self.ring[0];
            Entry {
                wall_ms: next.wall_ms,
                generation: next.generation,
                kind: EntryKind::Lost { entries: lost },
            }
        });
        // a new file begins with the newest checkpoint, so that dropping old files never drops it
        let carried = self.last_state.as_ref().filter(|_| self.good_bytes == 0 && self.head.seq > 0);
        for entry in carried.into_iter().chain(told.as_ref()).chain(&self.ring) {
            let (line, next) = chain::seal(&head, entry).map_err(io::Error::other)?;
            text.push_str(&line);
            text.push('\n');
            head = next;
        }
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("no open file"))?;
        if let Err(error) = self.disk.append(file, text.as_bytes()) {
            self.dirty = cut_back(file, self.good_bytes).is_err();
            return Err(error);
        }
        self.good_bytes += text.len() as u64;
        self.head = head;
        self.lost_told = self.lost;
        for entry in self.ring.drain(..) {
            if matches!(entry.kind, EntryKind::State { .. }) {
                self.last_state = Some(entry);
            }
        }
        self.write_head()
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("journal-{:020}.jsonl", self.head.seq + 1))
    }

    fn reopen(&mut self, open_file: Option<(PathBuf, u64)>) -> io::Result<()> {
        if let Some((path, bytes)) = open_file {
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.seek(SeekFrom::Start(bytes))?;
            self.file = Some(file);
            self.good_bytes = bytes;
            // the head may be one batch behind
            return self.write_head();
        }
        self.head = Head::default();
        self.first = 1;
        self.write_head()?;
        self.rotate()
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.good_bytes == 0 && self.file.is_some() {
            return Ok(());
        }
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(self.path())?;
        File::open(&self.dir)?.sync_all()?;
        self.file = Some(file);
        self.good_bytes = 0;
        let files = list(&self.dir)?;
        if let Some(excess) = files.len().checked_sub(self.keep)
            && excess > 0
        {
            self.first = files[excess].0;
            self.write_head()?;
            for (_, path) in &files[..excess] {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Overwrites the older of the two records. Not synced: an older head is accepted after a power cut.
    fn write_head(&self) -> io::Result<()> {
        let record = head_record(self.first, &self.head);
        let path = self.dir.join("head");
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        let current = read_head(&path)?;
        let bytes = fs::read(&path)?;
        let newest_first = current.is_some_and(|(first, head)| {
            bytes.get(..HEAD_BYTES) == Some(head_record(first, &head).as_bytes())
        });
        file.seek(SeekFrom::Start(if newest_first { HEAD_BYTES as u64 } else { 0 }))?;
        file.write_all(record.as_bytes())
    }
}
