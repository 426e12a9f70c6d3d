//! An announcer that only remembers: for tests, dry runs and the lab.
//!
//! Owns: the set it was given and the calls it saw, shared with whoever holds a [`Recording`]. Never: touches a
//! network. Sits beside the real announcers, behind the same trait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{AnnounceError, Announcer, Changes, PrefixKey, RouteAttributes, Shutdown};

/// Calls kept in memory; older ones are dropped.
const CALLS_KEPT: usize = 4096;

/// One call that changed something, or the end.
#[derive(Debug, Clone)]
pub enum Call {
    /// A `set` that changed the announced routes.
    Set {
        /// When it ended.
        at: Instant,
        /// What it changed.
        changes: Changes,
    },
    /// A `set` that was told to fail.
    Failed,
    /// The end.
    Shutdown(Shutdown),
}

#[derive(Debug, Default)]
struct Memory {
    routes: BTreeMap<PrefixKey, RouteAttributes>,
    calls: VecDeque<Call>,
    sets: u64,
    fail_next: u32,
    hang_next: bool,
}

/// The view from outside on what a [`Recorder`] holds. Clones see the same memory.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    memory: Arc<Mutex<Memory>>,
}

impl Recording {
    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is announced now.
    pub fn routes(&self) -> BTreeMap<PrefixKey, RouteAttributes> {
        self.with(|memory| memory.routes.clone())
    }

    /// Prefixes announced now, as text, in order.
    pub fn prefixes(&self) -> Vec<String> {
        self.with(|memory| memory.routes.keys().map(ToString::to_string).collect())
    }

    /// The calls that changed something, oldest first (the last 4096).
    pub fn calls(&self) -> Vec<Call> {
        self.with(|memory| memory.calls.iter().cloned().collect())
    }

    /// How many times `set` was called.
    pub fn sets(&self) -> u64 {
        self.with(|memory| memory.sets)
    }

    /// Lets the next `count` calls of `set` fail.
    pub fn fail_next(&self, count: u32) {
        self.with(|memory| memory.fail_next = count);
    }

    /// Lets the next call of `set` never end.
    pub fn hang_next(&self) {
        self.with(|memory| memory.hang_next = true);
    }

    /// Puts a route there as a crashed process would have left it.
    pub fn leave_behind(&self, key: PrefixKey) {
        self.with(|memory| memory.routes.insert(key, RouteAttributes::default()));
    }

    /// Loses every route, as a router that was restarted does.
    pub fn forget_routes(&self) {
        self.with(|memory| memory.routes.clear());
    }
}

impl Memory {
    fn note(&mut self, call: Call) {
        if self.calls.len() == CALLS_KEPT {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    fn set(&mut self, desired: &BTreeMap<PrefixKey, RouteAttributes>) -> Result<Changes, AnnounceError> {
        self.sets += 1;
        if self.fail_next > 0 {
            self.fail_next -= 1;
            self.note(Call::Failed);
            return Err(AnnounceError::transient("recorder", "set the routes", "it was told to fail"));
        }
        let mut changes = Changes::default();
        for (key, attributes) in desired {
            match self.routes.get(key) {
                None => changes.announced.insert(key.clone()),
                Some(held) if held != attributes => changes.updated.insert(key.clone()),
                Some(_) => continue,
            };
        }
        changes.withdrawn = self.routes.keys().filter(|key| !desired.contains_key(key)).cloned().collect();
        self.routes.clone_from(desired);
        if !changes.is_empty() {
            self.note(Call::Set { at: Instant::now(), changes: changes.clone() });
        }
        Ok(changes)
    }
}

/// The announcer itself.
#[derive(Debug, Default)]
pub struct Recorder {
    recording: Recording,
}

impl Recorder {
    /// A recorder that holds nothing, and the view on it.
    pub fn new() -> (Self, Recording) {
        let recorder = Self::default();
        let recording = recorder.recording.clone();
        (recorder, recording)
    }
}

impl Announcer for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }

    fn set<'a>(
        &'a mut self,
        desired: &'a BTreeMap<PrefixKey, RouteAttributes>,
    ) -> Pin<Box<dyn Future<Output = Result<Changes, AnnounceError>> + Send + 'a>> {
        let hangs = self.recording.with(|memory| {
            memory.sets += u64::from(memory.hang_next);
            std::mem::take(&mut memory.hang_next)
        });
        if hangs {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(self.recording.with(|memory| memory.set(desired))))
    }

    fn current<'a>(
        &'a mut self,
    ) -> Pin<Box<dyn Future<Output = Result<BTreeSet<PrefixKey>, AnnounceError>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(self.recording.routes().into_keys().collect())))
    }

    fn shutdown<'a>(&'a mut self, how: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.recording.with(|memory| {
            if matches!(how, Shutdown::Withdraw { .. }) {
                memory.routes.clear();
            }
            memory.note(Call::Shutdown(how));
        });
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(prefixes: &[&str]) -> BTreeMap<PrefixKey, RouteAttributes> {
        prefixes
            .iter()
            .map(|text| (PrefixKey { prefix: text.parse().unwrap(), vrf: None }, RouteAttributes::default()))
            .collect()
    }

    #[tokio::test]
    async fn setting_the_same_twice_changes_once() {
        let (mut recorder, recording) = Recorder::new();
        let first = recorder.set(&wanted(&["10.0.0.1/32", "2001:db8::/64"])).await.unwrap();
        assert_eq!(first.announced.len(), 2);
        assert!(recorder.set(&wanted(&["10.0.0.1/32", "2001:db8::/64"])).await.unwrap().is_empty());
        let third = recorder.set(&wanted(&["10.0.0.1/32"])).await.unwrap();
        assert_eq!(third.withdrawn.len(), 1);
        assert_eq!(recording.prefixes(), ["10.0.0.1/32"]);
        assert_eq!(recorder.current().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_failed_set_changes_nothing() {
        let (mut recorder, recording) = Recorder::new();
        recording.fail_next(1);
        assert!(recorder.set(&wanted(&["10.0.0.1/32"])).await.is_err());
        assert!(recording.prefixes().is_empty());
        assert!(recorder.set(&wanted(&["10.0.0.1/32"])).await.is_ok());
    }
}
