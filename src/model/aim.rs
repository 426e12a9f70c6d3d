//! What an action that must not happen twice is aimed at, as it was found in the world just before it.
//!
//! The journal keeps it from before the call until its success: whoever repeats the action after a lost answer, a
//! time-out or a crash compares it with the world first. Plain data; the look itself is `tasks::once`.

use serde::{Deserialize, Serialize};

/// The facts of one once-only action.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// This very object is to be deleted; another one of its name is a new one and stays.
    Object {
        /// `metadata.uid`.
        uid: String,
    },
    /// The object could not be identified: it may not be read, or it has no uid.
    Nameless,
    /// The database, which follows somebody or nobody and takes no writes.
    Standby,
    /// A pipeline run that is not there yet.
    Run {
        /// Our id of the request, sent as `X-GitHub-Delivery`.
        delivery: String,
        /// When it was asked for, by our wall clock, in milliseconds since 1970.
        asked_ms: u64,
        /// The runs that were there, where they could be listed.
        before: Option<RunsBefore>,
    },
}

/// The newest runs of the namespace before ours, by the API server's own clock, which counts seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunsBefore {
    /// Creation of the newest, in milliseconds since 1970; 0 = there was none.
    pub newest_ms: u64,
    /// Names of all that were created in that second.
    pub names: Vec<String>,
}

impl RunsBefore {
    /// The newest of some runs, given as name and creation.
    pub fn of<'a>(runs: impl Iterator<Item = (&'a str, Option<u64>)>) -> Self {
        let mut before = Self::default();
        for (name, created) in runs {
            let created = created.unwrap_or_default();
            if created > before.newest_ms {
                before = Self { newest_ms: created, names: Vec::new() };
            }
            if created == before.newest_ms {
                before.names.push(name.to_owned());
            }
        }
        before
    }

    /// Whether a run came after these.
    pub fn precede(&self, name: &str, created: Option<u64>) -> bool {
        let created = created.unwrap_or_default();
        created > self.newest_ms || created == self.newest_ms && !self.names.iter().any(|known| known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_second_are_told_apart_by_name() {
        let runs = [("old", Some(1_000)), ("a", Some(5_000)), ("b", Some(5_000)), ("undated", None)];
        let before = RunsBefore::of(runs.into_iter());
        assert_eq!(before.names, ["a", "b"]);
        assert!(!before.precede("a", Some(5_000)) && !before.precede("old", Some(1_000)));
        assert!(before.precede("c", Some(5_000)) && before.precede("d", Some(6_000)));
        assert!(RunsBefore::of(std::iter::empty()).precede("first", Some(1)));
    }
}
