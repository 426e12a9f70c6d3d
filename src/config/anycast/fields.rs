//! Reading a tree of values table by table, remembering every problem with its path.
//!
//! Owns: what a type is, which keys a table may have, and what an unknown key was probably meant to be. Never: knows
//! what a key is for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::duration;
use crate::config::Problem;

/// Every problem found so far.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// All of them, in the order they were met.
    pub fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// What a bare number means where a duration is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Seconds.
    Seconds,
    /// Nothing: the Go predecessor took it for nanoseconds, which nobody meant.
    Refused,
}

/// One table. Keys are compared without regard to case, as the Go predecessor does.
pub struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    asked: RefCell<BTreeSet<&'static str>>,
    problems: &'a Problems,
    numbers: Numbers,
}

impl<'a> Fields<'a> {
    /// The outermost table.
    pub fn root(map: &'a Map<String, Value>, problems: &'a Problems, numbers: Numbers) -> Self {
        Self { path: String::new(), map, asked: RefCell::default(), problems, numbers }
    }

    /// What a bare number means here.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// The path of a key.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The path of this table.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Remembers a problem with a key.
    pub fn problem(&self, key: &str, value: Option<&dyn Display>, want: impl Into<String>) {
        let setting = if key.is_empty() { self.path.clone() } else { self.path_of(key) };
        let value = value.map(ToString::to_string);
        self.problems.0.borrow_mut().push(Problem { setting, value, want: want.into() });
    }

    /// Names of all keys as written.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.keys().map(String::as_str)
    }

    /// A value by its key; null counts as absent.
    pub fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key);
        let found = self.map.get(key).or_else(|| {
            self.map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
        });
        found.filter(|value| !value.is_null())
    }

    /// Whether the key is there.
    pub fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// A text.
    pub fn text(&self, key: &'static str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.problem(key, Some(other), "a text is wanted");
                None
            }
        }
    }

    /// A text that must be there and not be empty.
    pub fn required(&self, key: &'static str, want: &str) -> String {
        if !self.has(key) {
            self.problem(key, None, want);
            return String::new();
        }
        let text = self.text(key).unwrap_or_default();
        if text.is_empty() && self.get(key).is_some_and(Value::is_string) {
            self.problem(key, Some(&""), want);
        }
        text
    }

    /// A text that parses.
    pub fn parsed<T: FromStr>(&self, key: &'static str, want: &str) -> Option<T> {
        let text = self.text(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem(key, Some(&text), want);
        }
        parsed
    }

    /// True or false, or the default.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        match self.get(key) {
            None => default,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                self.problem(key, Some(other), "true or false");
                default
            }
        }
    }

    /// A whole number within bounds, both included.
    pub fn integer(&self, key: &'static str, min: u64, max: u64) -> Option<u64> {
        let value = self.get(key)?;
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.problem(key, Some(value), format!("a whole number from {min} to {max}"));
        }
        number
    }

    /// A number within bounds, both included.
    pub fn number(&self, key: &'static str, min: f64, max: f64) -> Option<f64> {
        let value = self.get(key)?;
        let number = value.as_f64().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.problem(key, Some(value), format!("a number from {min} to {max}"));
        }
        number
    }

    /// A duration.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        let value = self.get(key)?;
        match duration::read(value, self.numbers) {
            Ok(duration) => Some(duration),
            Err(want) => {
                self.problem(key, Some(value), want);
                None
            }
        }
    }

    /// A duration, or a problem where it is missing.
    pub fn required_duration(&self, key: &'static str) -> Duration {
        if !self.has(key) {
            self.problem(key, None, "a duration such as \"5s\" is wanted");
        }
        let duration = self.duration(key);
        if duration.is_some_and(|duration| duration.is_zero()) {
            self.problem(key, self.get(key).map(|v| v as &dyn Display), "a duration above zero is wanted");
        }
        duration.unwrap_or(Duration::from_secs(1))
    }

    /// A list, empty where it is missing.
    pub fn list(&self, key: &'static str) -> &'a [Value] {
        match self.get(key) {
            None => &[],
            Some(Value::Array(list)) => list,
            Some(other) => {
                self.problem(key, Some(other), "a list is wanted");
                &[]
            }
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &'static str) -> Vec<String> {
        self.list(key)
            .iter()
            .enumerate()
            .filter_map(|(index, value)| {
                let text = value.as_str().map(str::to_owned);
                if text.is_none() {
                    self.problem(&format!("{key}[{index}]"), Some(value), "a text is wanted");
                }
                text
            })
            .collect()
    }

    /// A list of texts that parse.
    pub fn parsed_list<T: FromStr>(&self, key: &'static str, want: &str) -> Vec<T> {
        let parse = |text: String| {
            let parsed = text.parse().ok();
            if parsed.is_none() {
                self.problem(key, Some(&text), want);
            }
            parsed
        };
        self.texts(key).into_iter().filter_map(parse).collect()
    }

    /// Texts by name.
    pub fn text_map(&self, key: &'static str) -> Vec<(String, String)> {
        let Some(table) = self.table(key) else { return Vec::new() };
        let text = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Some((name.clone(), text.clone())),
            other => {
                table.problem(name, Some(other), "a text is wanted");
                None
            }
        };
        table.map.iter().filter_map(text).collect()
    }

    /// A table within this one.
    pub fn table(&self, key: &'static str) -> Option<Fields<'a>> {
        let value = self.get(key)?;
        self.enter(key, value)
    }

    /// A table that was found in a list or under a free name.
    pub fn enter(&self, key: &str, value: &'a Value) -> Option<Fields<'a>> {
        match value {
            Value::Object(map) => Some(Fields {
                path: self.path_of(key),
                map,
                asked: RefCell::default(),
                problems: self.problems,
                numbers: self.numbers,
            }),
            other => {
                self.problem(key, Some(other), "a table is wanted");
                None
            }
        }
    }

    /// A value under a free name.
    pub fn free(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Everything that was never asked for is a problem; call it when the table is read.
    pub fn finish(&self) {
        for (key, hint) in self.unknown() {
            // The value may be a secret under a misspelt name.
            self.problem(&key, Some(&"..."), hint);
        }
    }

    /// Keys that were never asked for, each with a hint.
    pub fn unknown(&self) -> Vec<(String, String)> {
        let asked = self.asked.borrow();
        let unknown =
            self.map.keys().filter(|key| !asked.iter().any(|known| known.eq_ignore_ascii_case(key)));
        unknown.map(|key| (key.clone(), hint(key, &asked))).collect()
    }
}

fn hint(key: &str, known: &BTreeSet<&'static str>) -> String {
    let lower = key.to_ascii_lowercase();
    let nearest = known.iter().map(|name| (distance(&lower, name), *name)).min();
    match nearest {
        Some((away, name)) if away <= 1 + key.chars().count().div_ceil(4) => {
            format!("this key is not known; did you mean {name}?")
        }
        _ => format!(
            "this key is not known; known here: {}",
            known.iter().copied().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
