//! The hash chain: how an entry becomes a line and how a line proves that nothing before it was changed.
//!
//! A line is `{"seq":N,"prev":"<hash of the line before>", ...entry..., "hash":"<own hash>"}`. The own hash is the
//! first 16 bytes of SHA-256 over every byte of the line before `,"hash":`, which holds `prev`, so a changed,
//! missing or exchanged line breaks its own hash, its number or its successor's `prev`. Pure: no I/O.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Entry, JournalError, Recorded};

/// `prev` of the first line of a journal.
pub const GENESIS: &str = "00000000000000000000000000000000";
/// Bytes of `,"hash":"` + 32 digits + `"}`.
const SEAL_BYTES: usize = 9 + 32 + 2;

/// The newest line: its number and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of the newest line; 0 = no line yet.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    seq: u64,
    prev: &'a str,
    #[serde(flatten)]
    entry: &'a Entry,
}

#[derive(Deserialize)]
struct ReadBody {
    seq: u64,
    prev: String,
    #[serde(flatten)]
    entry: Entry,
}

/// First 16 bytes of the SHA-256 of a text, in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..16])
}

/// The line of an entry (without line break) and the head after it.
///
/// # Errors
/// [`JournalError::Encode`] where the entry has no JSON form.
pub fn seal(head: &Head, entry: &Entry) -> Result<(String, Head), JournalError> {
    let seq = head.seq + 1;
    let mut line = serde_json::to_string(&Body { seq, prev: &head.hash, entry })
        .map_err(|error| JournalError::Encode(error.to_string()))?;
    line.pop();
    let hash = digest(line.as_bytes());
    line.push_str(",\"hash\":\"");
    line.push_str(&hash);
    line.push_str("\"}");
    Ok((line, Head { seq, hash }))
}

/// Checks one line by itself. `Err` says what is wrong with it.
///
/// # Errors
/// What a person should look at.
pub fn open_line(line: &[u8]) -> Result<Recorded, String> {
    let cut = line.len().checked_sub(SEAL_BYTES).ok_or("the line is too short")?;
    let (body, end) = line.split_at(cut);
    let hash = digest(body);
    if end != format!(",\"hash\":\"{hash}\"}}").as_bytes() {
        return Err("the line does not match its hash".to_owned());
    }
    let mut text = body.to_vec();
    text.push(b'}');
    let read: ReadBody =
        serde_json::from_slice(&text).map_err(|error| format!("the line has no known form ({error})"))?;
    Ok(Recorded { seq: read.seq, prev: read.prev, hash, entry: read.entry })
}

/// Checks that a line follows the head. `anchor` is true for the oldest line kept, whose predecessor is gone.
///
/// # Errors
/// What a person should look at.
pub fn follows(head: &Head, recorded: &Recorded, anchor: bool) -> Result<(), String> {
    if recorded.seq != head.seq + 1 {
        return Err(format!("entry {} stands where entry {} belongs", recorded.seq, head.seq + 1));
    }
    if !anchor && recorded.prev != head.hash {
        return Err("the line does not continue the line before it".to_owned());
    }
    Ok(())
}
