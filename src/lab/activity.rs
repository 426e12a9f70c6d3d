//! The list of changes that a site was asked for, in order of arrival, for `GET /activity`.

use std::collections::VecDeque;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

/// Entries that are kept; the oldest leave first.
pub const ACTIVITY_LIMIT: usize = 10_000;

static ISO_UTC: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$").expect("the pattern is constant")
});

#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    path: String,
    method: String,
    body: Value,
    status: Option<u16>,
}

/// The list.
#[derive(Debug, Default)]
pub struct Activity {
    entries: VecDeque<Entry>,
    next: u64,
}

impl Activity {
    /// Notes a request on arrival and gives its number.
    pub fn arrived(&mut self, method: &str, path: &str, body: &[u8]) -> u64 {
        let body = match body {
            [] => Value::Null,
            bytes => serde_json::from_slice(bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned())),
        };
        self.push(path.to_owned(), method.to_owned(), mask(body))
    }

    /// Notes what was done to the world by hand (`PHASE_CHANGE/...`, `INITIATE/...`, `LIFT/...`).
    pub fn noted(&mut self, what: String) {
        self.push(what, String::new(), Value::Null);
    }

    /// Notes how a request was answered.
    pub fn answered(&mut self, number: u64, status: u16) {
        if let Some(entry) = self.entries.iter_mut().rev().find(|entry| entry.number == number) {
            entry.status = Some(status);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The list as `GET /activity` shows it.
    pub fn to_json(&self) -> Value {
        self.entries
            .iter()
            .map(|entry| {
                let mut shown = json!({"path": entry.path, "method": entry.method, "body": entry.body});
                if let Some(status) = entry.status {
                    shown["status"] = json!(status);
                }
                shown
            })
            .collect()
    }

    fn push(&mut self, path: String, method: String, body: Value) -> u64 {
        let number = self.next;
        self.next += 1;
        if self.entries.len() == ACTIVITY_LIMIT {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { number, path, method, body, status: None });
        number
    }
}

/// Replaces strings that look like a moment in UTC, so that two runs compare equal.
fn mask(value: Value) -> Value {
    match value {
        Value::String(text) if ISO_UTC.is_match(&text) => Value::String("2020-01-01T00:00:00".to_owned()),
        Value::Array(items) => items.into_iter().map(mask).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, mask(value))).collect(),
        other => other,
    }
}
