//! Reading a run of lines and finding the first that is not as it was written. Pure: bytes in, findings out.

use super::chain::{Head, follows, open_line};
use super::{JournalError, Recorded};

/// What a run of lines holds.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Good entries, up to the damage.
    pub entries: Vec<Recorded>,
    /// The first line that is not as it was written.
    pub damage: Option<JournalError>,
    /// Where the bytes after the last line break begin.
    pub end_of_lines: usize,
    /// The newest good line.
    pub head: Head,
}

/// The head that an oldest kept line follows, for a journal whose older lines were dropped on purpose.
pub(super) fn before(first: &Recorded) -> Head {
    Head { seq: first.seq.saturating_sub(1), hash: first.prev.clone() }
}

/// Reads all whole lines of `bytes`, which follow `head`. With `anchor` the first line's `prev` is believed.
pub(super) fn lines(place: &str, bytes: &[u8], head: &Head, anchor: bool) -> Scanned {
    let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let mut scanned = Scanned { end_of_lines: end, head: head.clone(), ..Scanned::default() };
    let whole = bytes.get(..end.saturating_sub(1)).unwrap_or_default();
    if end == 0 {
        return scanned;
    }
    for (index, line) in whole.split(|b| *b == b'\n').enumerate() {
        let checked = open_line(line).and_then(|recorded| {
            follows(&scanned.head, &recorded, anchor && index == 0)?;
            Ok(recorded)
        });
        match checked {
            Ok(recorded) => {
                scanned.head = Head { seq: recorded.seq, hash: recorded.hash.clone() };
                scanned.entries.push(recorded);
            }
            Err(what) => {
                scanned.damage =
                    Some(JournalError::Altered { place: place.to_owned(), line: index + 1, what });
                break;
            }
        }
    }
    scanned
}
