//! Values of the search, each kept once and known by its number; a quick hash for keys of our own making.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

const SHARDS: usize = 64;
const CHUNK: usize = 4096;
const CHUNKS: usize = 4096;

/// A quick hash for keys of our own making; nobody chooses them to collide.
#[derive(Default)]
pub struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0_u8; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

/// Builds [`Quick`].
pub type QuickBuild = BuildHasherDefault<Quick>;

/// The lock's content, whatever happened to another thread.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers by the hash of their value. Values that share one are few, and kept aside.
#[derive(Default)]
struct Index {
    first: HashMap<u64, u32, QuickBuild>,
    more: HashMap<u64, Vec<u32>, QuickBuild>,
}

impl Index {
    fn of(&self, mark: u64) -> impl Iterator<Item = u32> {
        self.first.get(&mark).into_iter().chain(self.more.get(&mark).into_iter().flatten()).copied()
    }

    fn add(&mut self, mark: u64, id: u32) {
        match self.first.entry(mark) {
            Entry::Vacant(free) => {
                free.insert(id);
            }
            Entry::Occupied(_) => self.more.entry(mark).or_default().push(id),
        }
    }
}

/// Values that were seen, each once, with a number.
pub struct Table<T> {
    chunks: Vec<OnceLock<Box<[OnceLock<T>]>>>,
    index: Vec<Mutex<Index>>,
    next: AtomicU32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            index: (0..SHARDS).map(|_| Mutex::default()).collect(),
            next: AtomicU32::new(0),
        }
    }
}

impl<T> Table<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.next.load(Ordering::Relaxed) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slot(&self, id: u32) -> &OnceLock<T> {
        let id = id as usize;
        let chunk = self.chunks[id / CHUNK].get_or_init(|| (0..CHUNK).map(|_| OnceLock::new()).collect());
        &chunk[id % CHUNK]
    }

    /// The value of a number.
    ///
    /// # Panics
    /// On a number that this table never gave.
    pub fn get(&self, id: u32) -> &T {
        self.slot(id).get().expect("numbers come from this table")
    }

    /// The number of a value; `make` completes it where it is new.
    pub(super) fn number<K: Hash>(
        &self,
        key: &K,
        same: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> u32 {
        let mark = QuickBuild::default().hash_one(key);
        let mut shard = lock(&self.index[(mark >> 58) as usize % SHARDS]);
        if let Some(id) = shard.of(mark).find(|id| same(self.get(*id))) {
            return id;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        assert!((id as usize) < CHUNK * CHUNKS, "the checker's table of parts is full");
        let _ = self.slot(id).set(make());
        shard.add(mark, id);
        id
    }
}

impl<T: Hash + Eq + Clone> Table<T> {
    /// The number of a value.
    pub(super) fn intern(&self, value: T) -> u32 {
        self.number(&value, |known| *known == value, || value.clone())
    }
}
