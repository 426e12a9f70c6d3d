//! The object store behind a site's Kubernetes API: one version counter, objects, a bounded history for watches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::model::Wall;

/// Plural of the kind, namespace, name.
pub type Key = (&'static str, String, String);

/// A change as a watch tells it.
#[derive(Debug, Clone)]
pub struct Change {
    /// Version of the store after it.
    pub version: u64,
    /// Whose.
    pub key: Key,
    /// The object before; `None` = it is new.
    pub before: Option<Arc<Value>>,
    /// The object after; `None` = it is gone.
    pub after: Option<Arc<Value>>,
}

/// The asked version is no longer in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted;

/// The store.
#[derive(Debug)]
pub struct Store {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    oldest: u64,
    limit: usize,
    now: Wall,
    signal: watch::Sender<u64>,
}

impl Store {
    /// An empty store that remembers `limit` changes.
    pub fn new(limit: usize) -> Self {
        // Versions of a real API server never begin at 1 for user objects, and 0 has a meaning of its own.
        let (signal, _) = watch::channel(100);
        Self {
            version: 100,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            oldest: 100,
            limit,
            now: Wall(0),
            signal,
        }
    }

    /// Sets the clock for creation and deletion times.
    pub fn set_now(&mut self, now: Wall) {
        self.now = now;
    }

    /// The version after the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The oldest version that a watch can begin at.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Told the version after each change (and after [`Store::poke`]).
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.signal.subscribe()
    }

    /// Wakes the watches without a change.
    pub fn poke(&self) {
        self.signal.send_replace(self.version);
    }

    /// Forgets the history, as a compaction of etcd does.
    pub fn compact(&mut self) {
        self.history.clear();
        self.oldest = self.version;
    }

    /// One object.
    pub fn get(&self, plural: &'static str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&(plural, namespace.to_owned(), name.to_owned()))
    }

    /// The objects of a kind, in all namespaces or one.
    pub fn list(&self, plural: &'static str, namespace: Option<&str>) -> Vec<(Key, Arc<Value>)> {
        self.objects
            .iter()
            .filter(|(key, _)| key.0 == plural && namespace.is_none_or(|wanted| key.1 == wanted))
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect()
    }

    /// Adds an object or replaces it, keeping what the server owns. An equal object changes nothing.
    pub fn put(&mut self, plural: &'static str, mut object: Value) -> Arc<Value> {
        let key = (plural, text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        let before = self.objects.get(&key).cloned();
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        match &before {
            Some(old) => {
                for owned in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
                    object["metadata"][owned] = old["metadata"][owned].clone();
                }
                if **old == object {
                    return Arc::clone(old);
                }
                if old["spec"] != object["spec"] && !object["spec"].is_null() {
                    let generation = old["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
                    object["metadata"]["generation"] = json!(generation);
                }
            }
            None => {
                object["metadata"]["uid"] = json!(uuid());
                object["metadata"]["creationTimestamp"] = json!(self.now.to_iso());
                object["metadata"]["generation"] = json!(1);
            }
        }
        if finalized(&object) {
            return self.remove_key(key).unwrap_or_else(|| Arc::new(object));
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let after = Arc::new(object);
        self.objects.insert(key.clone(), Arc::clone(&after));
        self.note(Change { version: self.version, key, before, after: Some(Arc::clone(&after)) });
        after
    }

    /// Changes an object in place; `None` = there is none.
    pub fn edit(
        &mut self,
        plural: &'static str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Option<Arc<Value>> {
        let mut object = (**self.get(plural, namespace, name)?).clone();
        change(&mut object);
        Some(self.put(plural, object))
    }

    /// Deletes an object: at once, or when its finalizers are gone. Gives the object as it was or is now.
    pub fn delete(&mut self, plural: &'static str, namespace: &str, name: &str) -> Option<Deleted> {
        let object = self.get(plural, namespace, name)?;
        let waits = object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if !waits {
            let key = (plural, namespace.to_owned(), name.to_owned());
            return self.remove_key(key).map(Deleted::Gone);
        }
        let at = self.now.to_iso();
        self.edit(plural, namespace, name, |object| {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = json!(at);
            }
        })
        .map(Deleted::Terminating)
    }

    /// Removes an object whatever its finalizers say.
    pub fn purge(&mut self, plural: &'static str, namespace: &str, name: &str) {
        self.remove_key((plural, namespace.to_owned(), name.to_owned()));
    }

    /// The changes after a version.
    pub fn since(&self, version: u64) -> Result<Vec<Change>, Compacted> {
        if version < self.oldest {
            return Err(Compacted);
        }
        Ok(self.history.iter().filter(|change| change.version > version).cloned().collect())
    }

    fn remove_key(&mut self, key: Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(&key)?;
        self.version += 1;
        self.note(Change { version: self.version, key, before: Some(Arc::clone(&before)), after: None });
        Some(before)
    }

    fn note(&mut self, change: Change) {
        if self.history.len() >= self.limit.max(1)
            && let Some(dropped) = self.history.pop_front()
        {
            self.oldest = dropped.version;
        }
        self.history.push_back(change);
        self.signal.send_replace(self.version);
    }
}

/// What a deletion led to.
#[derive(Debug)]
pub enum Deleted {
    /// The object is gone; this was it.
    Gone(Arc<Value>),
    /// It waits for its finalizers.
    Terminating(Arc<Value>),
}

fn finalized(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
        && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
}

/// A string inside an object, empty where there is none.
pub fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A random UUID (RFC 9562 version 4).
pub fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
