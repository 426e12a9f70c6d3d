//! The selected ingresses as the watch tells them.
//!
//! Owns the reading of Ingress objects. Tells whether anything that matters changed, so that the rest of a busy
//! object's life starts nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::adapters::kube::Change;
use crate::rules::geo::select::{CLUSTER_LABELS, Ingress};

/// Ingresses by namespace and name.
#[derive(Debug, Default)]
pub struct Ingresses {
    known: BTreeMap<(String, String), Ingress>,
    listed: bool,
}

impl Ingresses {
    /// Whether there was a whole list once: before that, nothing is known to be missing.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Ingress> {
        self.known.values()
    }

    /// One of them.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Ingress> {
        self.known.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Takes a change; gives whether it matters.
    pub fn take(&mut self, change: Change) -> bool {
        match change {
            Change::Listed(objects) => {
                let new: BTreeMap<_, _> = objects.iter().map(read).map(|i| (key(&i), i)).collect();
                let first = !std::mem::replace(&mut self.listed, true);
                let changed = new != self.known;
                self.known = new;
                first || changed
            }
            Change::Added(object) | Change::Modified(object) => {
                let ingress = read(&object);
                let old = self.known.insert(key(&ingress), ingress.clone());
                old.as_ref() != Some(&ingress)
            }
            Change::Deleted(object) => self.known.remove(&key(&read(&object))).is_some(),
            Change::Lost(_) => false,
        }
    }
}

fn key(ingress: &Ingress) -> (String, String) {
    (ingress.namespace.clone(), ingress.name.clone())
}

fn read(object: &Value) -> Ingress {
    let meta = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let label = |name: &&str| {
        let value = object["metadata"]["labels"][*name].as_str()?;
        (!value.is_empty()).then(|| value.to_owned())
    };
    let entries = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    let addresses = entries.into_iter().flatten().flat_map(|entry| {
        ["ip", "hostname"].map(|field| entry[field].as_str().unwrap_or_default().to_owned())
    });
    Ingress {
        namespace: meta("namespace"),
        name: meta("name"),
        uid: meta("uid"),
        cluster: CLUSTER_LABELS.iter().find_map(label),
        deleting: object["metadata"]["deletionTimestamp"].is_string(),
        addresses: addresses.filter(|text| !text.is_empty()).collect(),
    }
}
