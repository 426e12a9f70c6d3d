//! The journal over its whole life: written, cut, altered, shared, out of space, rotated, kept in a ConfigMap.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its builders too")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use serde_json::json;
use switchover_agent::config::journal::{JournalBackend, JournalSettings, OnDamage};
use switchover_agent::journal::{
    ConfigMapStore, Disk, Entry, EntryKind, Journal, JournalError, RealDisk, Recovered, StoreError,
    StoredMap, configmap, file,
};
use switchover_agent::model::{ActionId, Detail, Effect, Generation, Outcome};

fn settings(dir: &Path) -> JournalSettings {
    JournalSettings {
        backend: JournalBackend::File(dir.to_owned()),
        on_damage: OnDamage::Halt,
        file_bytes: 1 << 20,
        files: 4,
    }
}

fn entry(n: u64) -> Entry {
    let kind = match n % 3 {
        0 => EntryKind::State { checkpoint: json!({"n": n, "phase": "active-passive"}) },
        1 => EntryKind::Intent {
            step: "health-down".into(),
            action_id: ActionId(n),
            effect: Effect::ScaleHealth { replicas: 0 },
        },
        _ => EntryKind::Outcome {
            step: "health-down".into(),
            action_id: ActionId(n),
            outcome: Outcome::Done(Detail::Nothing),
        },
    };
    Entry { wall_ms: 1_000 + n, generation: Generation(n / 3), kind }
}

fn open(settings: &JournalSettings) -> Result<(Journal, Recovered), JournalError> {
    file::open(settings, Box::new(RealDisk))
}

async fn write(settings: &JournalSettings, numbers: impl Iterator<Item = u64>) {
    let (mut journal, recovered) = open(settings).unwrap();
    assert_eq!(recovered.damage, None);
    for n in numbers {
        journal.append(entry(n)).await.unwrap();
    }
}

fn journal_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|found| found.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_was_appended_is_read_back_in_order_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    write(&settings(dir.path()), 1..8).await;
    write(&settings(dir.path()), 8..12).await;
    let (_journal, recovered) = open(&settings(dir.path())).unwrap();
    let found: Vec<Entry> = recovered.entries.iter().map(|recorded| recorded.entry.clone()).collect();
    assert_eq!(found, (1..12).map(entry).collect::<Vec<_>>());
    assert_eq!(recovered.checkpoint(), Some((Generation(3), &json!({"n": 9, "phase": "active-passive"}))));
    assert_eq!((recovered.torn, recovered.damage), (None, None));
}

#[tokio::test]
async fn every_edit_deletion_and_swap_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    write(&settings(dir.path()), 1..15).await;
    let path = journal_files(dir.path()).remove(0);
    let good = fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = good.split_inclusive(|b| *b == b'\n').collect();
    let line_of = |at: usize| good[..at].iter().filter(|b| **b == b'\n').count() + 1;
    let damage = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let (journal, recovered) = open(&settings(dir.path())).unwrap();
        assert!(journal.status().degraded || recovered.damage.is_none());
        match recovered.damage {
            Some(JournalError::Altered { line, .. }) => Some(line),
            Some(other) => panic!("{other}"),
            None => None,
        }
    };
    let mut edits = 0;
    for at in 0..good.len() {
        for bit in [0, 2, 5, 7] {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert_eq!(damage(&bad), Some(line_of(at)), "byte {at}, bit {bit}");
            edits += 1;
        }
    }
    assert!(edits >= 10_000, "{edits}");
    for gone in 0..lines.len() {
        let mut bad = lines.clone();
        bad.remove(gone);
        let want = if gone + 1 == lines.len() { gone } else { gone + 1 };
        assert_eq!(damage(&bad.concat()), Some(want), "line {} deleted", gone + 1);
        for other in gone + 1..lines.len() {
            let mut bad = lines.clone();
            bad.swap(gone, other);
            assert_eq!(damage(&bad.concat()), Some(gone + 1), "lines {} and {}", gone + 1, other + 1);
        }
    }
    assert_eq!(damage(&good), None);
}

#[tokio::test]
async fn a_last_line_torn_by_a_crash_is_set_aside_and_the_journal_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    write(&settings(dir.path()), 1..4).await;
    let path = journal_files(dir.path()).remove(0);
    let (before, head) = (fs::read(&path).unwrap(), fs::read(dir.path().join("head")).unwrap());
    write(&settings(dir.path()), 4..5).await;
    let whole = fs::read(&path).unwrap();
    for cut in before.len() + 1..whole.len() {
        // the crash came before `head` was written
        fs::write(&path, &whole[..cut]).unwrap();
        fs::write(dir.path().join("head"), &head).unwrap();
        let (mut journal, recovered) = open(&settings(dir.path())).unwrap();
        assert_eq!(recovered.damage, None, "cut at {cut}");
        let torn = recovered.torn.unwrap();
        assert_eq!(fs::read(&torn.moved_to).unwrap(), &whole[before.len()..cut]);
        assert_eq!(recovered.entries.len(), 3);
        journal.append(entry(4)).await.unwrap();
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[tokio::test]
async fn a_journal_that_lost_its_whole_end_is_not_taken_for_a_shorter_one() {
    let dir = tempfile::tempdir().unwrap();
    write(&settings(dir.path()), 1..6).await;
    let path = journal_files(dir.path()).remove(0);
    fs::write(&path, b"").unwrap();
    assert!(matches!(open(&settings(dir.path())).unwrap().1.damage, Some(JournalError::Altered { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(open(&settings(dir.path())).unwrap().1.damage, Some(JournalError::Altered { .. })));
}

#[tokio::test]
async fn two_agents_cannot_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = open(&settings(dir.path())).unwrap();
    assert!(matches!(open(&settings(dir.path())), Err(JournalError::Locked(_))));
    drop(first);
    assert!(open(&settings(dir.path())).is_ok());
}

#[tokio::test]
async fn a_damaged_journal_stays_untouched_or_is_set_aside_as_the_setting_says() {
    let dir = tempfile::tempdir().unwrap();
    write(&settings(dir.path()), 1..6).await;
    let path = journal_files(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (mut journal, _) = open(&settings(dir.path())).unwrap();
    journal.append(entry(6)).await.unwrap();
    assert!(journal.status().degraded);
    drop(journal);
    assert_eq!(fs::read(&path).unwrap(), bytes, "evidence is kept");

    let go_on = JournalSettings { on_damage: OnDamage::Continue, ..settings(dir.path()) };
    let (mut journal, recovered) = open(&go_on).unwrap();
    assert!(recovered.damage.is_some());
    journal.append(entry(7)).await.unwrap();
    drop(journal);
    assert_eq!(fs::read(path.with_extension("jsonl.damaged")).unwrap(), bytes);
    let (_journal, recovered) = open(&settings(dir.path())).unwrap();
    assert_eq!(recovered.damage, None);
    assert!(matches!(recovered.entries[0].entry.kind, EntryKind::SetAside { .. }));
    assert_eq!(recovered.entries[1].entry, entry(7));
}

/// A disk that writes half of what it is given and then says that it is full.
struct FullDisk(Arc<AtomicBool>);

impl Disk for FullDisk {
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        RealDisk.append(file, bytes)
    }
}

#[tokio::test]
async fn entries_wait_while_the_disk_is_full_and_the_loss_of_the_oldest_is_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let (mut journal, _) = file::open(&settings(dir.path()), Box::new(FullDisk(Arc::clone(&full)))).unwrap();
    journal.append(entry(1)).await.unwrap();
    full.store(true, Ordering::SeqCst);
    assert!(matches!(journal.append(entry(2)).await, Err(JournalError::Write { .. })));
    assert!(journal.status().degraded);
    assert_eq!(journal.status().buffered, 1);
    assert!(journal.append_all((3..1005).map(entry).collect()).await.is_err());
    assert_eq!((journal.status().buffered, journal.status().lost), (1000, 3));
    full.store(false, Ordering::SeqCst);
    journal.append(entry(1005)).await.unwrap();
    let status = journal.status();
    assert_eq!((status.degraded, status.buffered, status.lost), (false, 0, 4));
    drop(journal);
    let (_journal, recovered) = open(&settings(dir.path())).unwrap();
    assert_eq!(recovered.damage, None);
    assert_eq!(recovered.entries[1].entry.kind, EntryKind::Lost { entries: 4 });
    assert_eq!(recovered.entries[2].entry, entry(6));
    assert_eq!(recovered.entries.last().unwrap().entry, entry(1005));
}

#[tokio::test]
async fn the_chain_runs_through_rotated_files_and_the_checkpoint_is_never_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let small = JournalSettings { file_bytes: 2000, files: 3, ..settings(dir.path()) };
    let (mut journal, _) = open(&small).unwrap();
    journal.append(entry(3)).await.unwrap();
    for n in 0..200 {
        journal.append(entry(3 * n + 1)).await.unwrap();
    }
    drop(journal);
    let files = journal_files(dir.path());
    assert_eq!(files.len(), 3);
    let (_journal, recovered) = open(&small).unwrap();
    assert_eq!(recovered.damage, None);
    assert!(recovered.entries[0].seq > 1);
    assert_eq!(recovered.checkpoint().unwrap().1["n"], 3);
    drop(_journal);
    fs::remove_file(&files[1]).unwrap();
    assert!(open(&small).unwrap().1.damage.is_some());
}

/// `data` and the resource version.
type Object = (BTreeMap<String, String>, u64);

/// A ConfigMap in memory with the API server's habits; `lose` makes a write that works look like a failure.
#[derive(Clone, Default)]
struct FakeMap {
    object: Arc<Mutex<Option<Object>>>,
    lose: Arc<AtomicBool>,
    down: Arc<AtomicBool>,
}

impl ConfigMapStore for FakeMap {
    fn get(&self) -> BoxFuture<'_, Result<Option<StoredMap>, StoreError>> {
        Box::pin(async {
            let object = self.object.lock().unwrap().clone();
            Ok(object.map(|(data, version)| StoredMap { data, resource_version: Some(version.to_string()) }))
        })
    }

    fn put(
        &self,
        data: BTreeMap<String, String>,
        expect: Option<String>,
    ) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        Box::pin(async move {
            if self.down.load(Ordering::SeqCst) {
                return Err(StoreError::Failed("connection refused".into()));
            }
            let mut object = self.object.lock().unwrap();
            if object.as_ref().map(|(_, version)| version.to_string()) != expect {
                return Err(StoreError::Conflict);
            }
            let version = object.as_ref().map_or(1, |(_, version)| version + 1);
            *object = Some((data, version));
            if self.lose.swap(false, Ordering::SeqCst) {
                return Err(StoreError::Failed("connection reset".into()));
            }
            Ok(Some(version.to_string()))
        })
    }
}

async fn open_map(store: &FakeMap) -> (Journal, Recovered) {
    configmap::open(Box::new(store.clone()), OnDamage::Halt).await.unwrap()
}

#[tokio::test]
async fn a_configmap_journal_survives_lost_answers_foreign_labels_and_an_api_server_that_is_down() {
    let store = FakeMap::default();
    let (mut journal, _) = open_map(&store).await;
    journal.append(entry(1)).await.unwrap();
    store.lose.store(true, Ordering::SeqCst);
    assert!(journal.append(entry(2)).await.is_err());
    journal.append(entry(4)).await.unwrap();
    // somebody labels the object: another version, the same data
    store.object.lock().unwrap().as_mut().unwrap().1 += 10;
    journal.append(entry(5)).await.unwrap();
    store.down.store(true, Ordering::SeqCst);
    assert!(journal.append(entry(7)).await.is_err());
    assert_eq!((journal.status().degraded, journal.status().buffered), (true, 1));
    store.down.store(false, Ordering::SeqCst);
    journal.append(entry(8)).await.unwrap();
    assert!(!journal.status().degraded);
    let (_, recovered) = open_map(&store).await;
    assert_eq!(recovered.damage, None);
    let found: Vec<Entry> = recovered.entries.into_iter().map(|recorded| recorded.entry).collect();
    assert_eq!(found, [1, 2, 4, 5, 7, 8].map(entry));
}

#[tokio::test]
async fn two_writers_of_one_configmap_notice_each_other_and_neither_overwrites() {
    let store = FakeMap::default();
    let (mut first, _) = open_map(&store).await;
    first.append(entry(1)).await.unwrap();
    let (mut second, _) = open_map(&store).await;
    second.append(entry(2)).await.unwrap();
    assert_eq!(first.append(entry(4)).await, Err(JournalError::Foreign("configmap".into())));
    let (_, recovered) = open_map(&store).await;
    assert_eq!(recovered.entries.last().unwrap().entry, entry(2));
}

#[tokio::test]
async fn a_configmap_stays_below_its_bound_keeps_the_checkpoint_and_shows_edits() {
    let store = FakeMap::default();
    let (mut journal, _) = open_map(&store).await;
    journal.append(entry(3)).await.unwrap();
    for _ in 0..12 {
        let batch = (0..500).map(|n| entry(3 * n + 1)).collect();
        journal.append_all(batch).await.unwrap();
    }
    let data = store.object.lock().unwrap().clone().unwrap().0;
    assert!(data[configmap::LINES_KEY].len() <= configmap::MAX_BYTES);
    let (_, recovered) = open_map(&store).await;
    assert_eq!(recovered.damage, None);
    assert!(recovered.entries[0].seq > 1, "the bound was reached");
    assert_eq!(recovered.checkpoint().unwrap().1["n"], 3);
    for (key, from, to) in [
        (configmap::LINES_KEY, "health-down", "health-DOWN"),
        (configmap::HEAD_KEY, "0", "1"),
        (configmap::LINES_KEY, "\n", ""),
    ] {
        let mut bad = data.clone();
        let text = bad[key].replacen(from, to, 1);
        bad.insert(key.to_owned(), text);
        store.object.lock().unwrap().as_mut().unwrap().0 = bad;
        let (_, recovered) = open_map(&store).await;
        assert!(recovered.damage.is_some(), "{key}: {from:?}");
    }
}

#[tokio::test]
async fn a_memory_journal_is_found_again_by_a_simulated_restart() {
    let memory = switchover_agent::journal::MemoryJournal::default();
    let mut journal = Journal::Memory(memory.clone());
    for n in 1..5 {
        journal.append(entry(n)).await.unwrap();
    }
    let recovered = memory.recover();
    assert_eq!(recovered.damage, None);
    assert_eq!(recovered.entries.len(), 4);
}
