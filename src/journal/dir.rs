//! A journal directory as found: its files in order, its `head`, a torn last line set aside. Blocking I/O.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::chain::{self, Head};
use super::{JournalError, Recovered, Torn, scan};

/// What a directory holds.
pub(super) struct Found {
    pub recovered: Recovered,
    /// The newest entry.
    pub head: Head,
    /// Number of the oldest entry kept.
    pub first: u64,
    /// The newest file and its good bytes.
    pub open_file: Option<(PathBuf, u64)>,
}

/// Journal files with the number of their first entry, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(first) = name.strip_prefix("journal-").and_then(|rest| rest.strip_suffix(".jsonl"))
            && let Ok(first) = first.parse()
        {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Reads and checks all files; a torn last line is moved to a side file.
pub(super) fn read_dir(dir: &Path) -> io::Result<Found> {
    read(dir, true)
}

/// Reads and checks all files and touches nothing: for a look while the owner may be writing.
pub(super) fn look(dir: &Path) -> io::Result<Recovered> {
    read(dir, false).map(|found| found.recovered)
}

fn read(dir: &Path, owned: bool) -> io::Result<Found> {
    let known = read_head(&dir.join("head"))?;
    let mut files = list(dir)?;
    if let Some((first, _)) = known {
        // a rotation was interrupted after `head` had given these up
        for (_, path) in files.extract_if(.., |(start, _)| *start < first) {
            if owned {
                fs::remove_file(path)?;
            }
        }
    }
    let mut found = Found {
        recovered: Recovered::default(),
        head: Head::default(),
        first: known.as_ref().map_or(1, |(first, _)| *first),
        open_file: None,
    };
    found.head.seq = found.first - 1;
    let count = files.len();
    for (index, (start, path)) in files.into_iter().enumerate() {
        let bytes = fs::read(&path)?;
        let place = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let anchor = index == 0 && start > 1;
        let scanned = scan::lines(&place, &bytes, &found.head, anchor);
        found.head = scanned.head;
        let lines = scanned.entries.len();
        found.recovered.entries.extend(scanned.entries);
        found.recovered.damage = scanned.damage;
        let altered =
            |what: &str| JournalError::Altered { place: place.clone(), line: lines + 1, what: what.into() };
        if found.recovered.damage.is_none() && scanned.end_of_lines < bytes.len() {
            if index + 1 < count {
                found.recovered.damage = Some(altered("the file ends inside a line but is not the newest"));
            } else if known.as_ref().is_some_and(|(_, head)| head.seq > found.head.seq) {
                found.recovered.damage =
                    Some(altered("the last line is damaged, and it had been written whole"));
            } else if owned {
                found.recovered.torn =
                    Some(cut_torn(&path, &bytes, scanned.end_of_lines, found.head.seq + 1)?);
            } else {
                let bytes = bytes.len() - scanned.end_of_lines;
                found.recovered.torn = Some(Torn { moved_to: path.clone(), bytes });
            }
        }
        if found.recovered.damage.is_some() {
            return Ok(found);
        }
        found.open_file = Some((path, scanned.end_of_lines as u64));
    }
    found.recovered.damage = compare_head(dir, known.as_ref(), &found);
    Ok(found)
}

/// The head file against the lines: lines may be newer by one batch (a crash between the two writes), never older.
fn compare_head(dir: &Path, known: Option<&(u64, Head)>, found: &Found) -> Option<JournalError> {
    let lines = found.recovered.entries.len();
    let what = match known {
        // a crash can come between the first batch and the first head
        None if found.head.seq == 0 => return None,
        None => "the file `head` is missing".to_owned(),
        Some((_, head)) if head.seq > found.head.seq => {
            format!("the journal ends at entry {}, and entry {} had been written", found.head.seq, head.seq)
        }
        Some((_, head)) => {
            let same = head.seq < found.first
                || found.recovered.entries.iter().any(|r| r.seq == head.seq && r.hash == head.hash);
            if same {
                return None;
            }
            format!("entry {} is not the one that `head` names", head.seq)
        }
    };
    Some(JournalError::Altered { place: dir.display().to_string(), line: lines, what })
}

fn cut_torn(path: &Path, bytes: &[u8], at: usize, seq: u64) -> io::Result<Torn> {
    let side = path.with_extension(format!("{seq}.torn"));
    let mut file = File::create(&side)?;
    file.write_all(&bytes[at..])?;
    file.sync_all()?;
    let journal = OpenOptions::new().write(true).open(path)?;
    journal.set_len(at as u64)?;
    journal.sync_all()?;
    Ok(Torn { moved_to: side, bytes: bytes.len() - at })
}

/// Bytes of one of the two records in `head`: oldest number, newest number, its hash, check, line break.
pub(super) const HEAD_BYTES: usize = 20 + 1 + 20 + 1 + 32 + 1 + 32 + 1;

/// One record of `head`.
pub(super) fn head_record(first: u64, head: &Head) -> String {
    let text = format!("{first:020} {:020} {}", head.seq, head.hash);
    format!("{text} {}\n", chain::digest(text.as_bytes()))
}

/// The newer of the two records that is whole; a crash can damage only the one that was being written.
pub(super) fn read_head(path: &Path) -> io::Result<Option<(u64, Head)>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut best: Option<(u64, Head)> = None;
    for record in bytes.chunks(HEAD_BYTES) {
        let Ok(text) = std::str::from_utf8(record) else { continue };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [first, seq, hash, _] = fields[..] else { continue };
        let (Ok(first), Ok(seq)) = (first.parse::<u64>(), seq.parse::<u64>()) else { continue };
        let head = Head { seq, hash: hash.to_owned() };
        let newer = best.as_ref().is_none_or(|(f, h)| (h.seq, *f) < (seq, first));
        if first > 0 && head_record(first, &head) == text && newer {
            best = Some((first, head));
        }
    }
    Ok(best)
}
