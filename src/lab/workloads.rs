//! The controllers of a site: pods and status of Deployments and StatefulSets, and the volume claims.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::settings::{DATABASE, WorldSettings};
use super::store::{Key, Store};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    namespace: String,
    owner: (&'static str, String),
    ordinal: u32,
    ready_at: u64,
    gone_at: Option<u64>,
}

/// The pods of a site, by name, and which specs the controllers have seen.
#[derive(Debug, Default)]
pub struct Workloads {
    pods: BTreeMap<String, Pod>,
    seen: BTreeMap<Key, (u64, u64)>,
}

/// Pods that one workload may have: a wish for more is kept at this many.
const POD_LIMIT: u64 = 20;

impl Workloads {
    /// Ordinals of the pods of a StatefulSet that are not being deleted.
    pub fn live_ordinals(&self, namespace: &str, name: &str) -> BTreeSet<u32> {
        self.pods
            .values()
            .filter(|pod| pod.namespace == namespace && pod.owner == ("statefulsets", name.to_owned()))
            .filter(|pod| pod.gone_at.is_none())
            .map(|pod| pod.ordinal)
            .collect()
    }

    /// Makes every workload settled: pods as the specs say, ready now.
    pub fn settle(&mut self, store: &mut Store, now_ms: u64, settings: &WorldSettings) {
        for name in std::mem::take(&mut self.pods).into_values() {
            store.purge("pods", &name.namespace, &pod_name(&name.owner.1, name.ordinal));
        }
        self.seen.clear();
        let instant = WorldSettings { delays: super::Delays::none(), ..settings.clone() };
        let all = (0..settings.database_replicas).collect();
        self.advance(store, now_ms, &instant, &all);
        self.advance(store, now_ms, &instant, &all);
    }

    /// One step. `running` are the ordinals of the database members that run.
    pub fn advance(
        &mut self,
        store: &mut Store,
        now_ms: u64,
        settings: &WorldSettings,
        running: &BTreeSet<u32>,
    ) {
        for plural in ["deployments", "statefulsets"] {
            for (key, object) in store.list(plural, None) {
                self.reconcile(store, &key, &object, now_ms, settings, running);
            }
        }
        self.forget_orphans(store);
        release_claims(store, self);
    }

    fn reconcile(
        &mut self,
        store: &mut Store,
        key: &Key,
        object: &Value,
        now_ms: u64,
        settings: &WorldSettings,
        running: &BTreeSet<u32>,
    ) {
        let generation = object["metadata"]["generation"].as_u64().unwrap_or(1);
        let (seen, since) = *self
            .seen
            .entry(key.clone())
            .and_modify(|known| {
                if known.0 != generation {
                    *known = (generation, now_ms);
                }
            })
            .or_insert((generation, now_ms));
        if seen == generation && now_ms >= since + settings.delays.controller_ms {
            let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1).min(POD_LIMIT);
            self.scale(store, key, object, wanted, now_ms, settings);
            self.write_status(store, key, object, now_ms, generation, running);
        }
    }

    fn scale(
        &mut self,
        store: &mut Store,
        key: &Key,
        object: &Value,
        wanted: u64,
        now_ms: u64,
        settings: &WorldSettings,
    ) {
        for ordinal in 0..u32::try_from(wanted).unwrap_or(0) {
            let name = pod_name(&key.2, ordinal);
            let Entry::Vacant(place) = self.pods.entry(format!("{}/{name}", key.1)) else {
                // A pod that still ends keeps its name; its successor waits.
                continue;
            };
            if key.0 == "statefulsets" && !claim(store, object, key, ordinal) {
                continue;
            }
            store.put("pods", pod_object(object, key, ordinal));
            place.insert(Pod {
                namespace: key.1.clone(),
                owner: (key.0, key.2.clone()),
                ordinal,
                ready_at: now_ms + settings.delays.pod_start_ms,
                gone_at: None,
            });
        }
        let gone_at = now_ms + settings.delays.pod_stop_ms;
        for pod in self.pods.values_mut().filter(|pod| owned(pod, key)) {
            if u64::from(pod.ordinal) >= wanted && pod.gone_at.is_none() {
                pod.gone_at = Some(gone_at);
            }
        }
    }

    fn write_status(
        &mut self,
        store: &mut Store,
        key: &Key,
        object: &Value,
        now_ms: u64,
        generation: u64,
        running: &BTreeSet<u32>,
    ) {
        let is_ready = |pod: &Pod| {
            let up = pod.ready_at <= now_ms && pod.gone_at.is_none();
            up && (key.2 != DATABASE || running.contains(&pod.ordinal))
        };
        let gone: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| owned(pod, key) && pod.gone_at.is_some_and(|at| at <= now_ms))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.pods.remove(&name);
            store.purge("pods", &key.1, name.rsplit('/').next().unwrap_or_default());
        }
        let (mut there, mut ready) = (0u64, 0u64);
        for pod in self.pods.values().filter(|pod| owned(pod, key)) {
            there += 1;
            ready += u64::from(is_ready(pod));
            write_pod(store, &key.1, &pod_name(&key.2, pod.ordinal), is_ready(pod), pod.gone_at.is_some());
        }
        let mut status = json!({"observedGeneration": generation});
        // A real StatefulSet always tells its replicas, a Deployment only where there are some.
        if there > 0 || key.0 == "statefulsets" {
            status["replicas"] = json!(there);
        }
        if ready > 0 {
            status["readyReplicas"] = json!(ready);
            status["availableReplicas"] = json!(ready);
        }
        if there > 0 {
            status["updatedReplicas"] = json!(there);
        }
        if object["status"] != status {
            store.edit(key.0, &key.1, &key.2, |object| object["status"] = status);
        }
    }

    /// Pods whose workload or whose object was deleted.
    fn forget_orphans(&mut self, store: &mut Store) {
        let mut ended = Vec::new();
        for (name, pod) in &self.pods {
            let pod_name = pod_name(&pod.owner.1, pod.ordinal);
            let orphan = store.get(pod.owner.0, &pod.namespace, &pod.owner.1).is_none();
            if orphan || store.get("pods", &pod.namespace, &pod_name).is_none() {
                ended.push((name.clone(), pod.namespace.clone(), pod_name));
            }
        }
        for (name, namespace, pod) in ended {
            self.pods.remove(&name);
            store.purge("pods", &namespace, &pod);
        }
        self.seen.retain(|key, _| store.get(key.0, &key.1, &key.2).is_some());
    }
}

fn owned(pod: &Pod, key: &Key) -> bool {
    pod.namespace == key.1 && pod.owner == (key.0, key.2.clone())
}

fn pod_name(owner: &str, ordinal: u32) -> String {
    format!("{owner}-{ordinal}")
}

/// Makes sure of the volume claim of a pod; `false` = the old one is still being deleted, so the pod must wait.
fn claim(store: &mut Store, owner: &Value, key: &Key, ordinal: u32) -> bool {
    let Some(template) = owner["spec"]["volumeClaimTemplates"][0]["metadata"]["name"].as_str() else {
        return true;
    };
    let name = format!("{template}-{}-{ordinal}", key.2);
    match store.get("persistentvolumeclaims", &key.1, &name) {
        Some(claim) => claim["metadata"]["deletionTimestamp"].is_null(),
        None => {
            store.put("persistentvolumeclaims", claim_object(&key.1, &name));
            true
        }
    }
}

/// A bound volume claim.
pub fn claim_object(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace, "finalizers": ["kubernetes.io/pvc-protection"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound"},
    })
}

/// Claims that are being deleted go when no pod uses them any more.
fn release_claims(store: &mut Store, workloads: &Workloads) {
    for (key, claim) in store.list("persistentvolumeclaims", None) {
        if claim["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        let used = workloads.pods.iter().any(|(name, pod)| {
            let pod_name = name.rsplit('/').next().unwrap_or_default();
            pod.namespace == key.1 && key.2.ends_with(&format!("-{pod_name}"))
        });
        if !used {
            store.edit(key.0, &key.1, &key.2, |claim| claim["metadata"]["finalizers"] = json!([]));
        }
    }
}

fn pod_object(owner: &Value, key: &Key, ordinal: u32) -> Value {
    let mut labels = owner["spec"]["template"]["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    let kind = if key.0 == "statefulsets" { "StatefulSet" } else { "Deployment" };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_name(&key.2, ordinal), "namespace": key.1, "labels": labels,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": kind, "name": key.2,
                "uid": owner["metadata"]["uid"], "controller": true,
            }],
        },
        "spec": {"containers": [{"name": "main", "image": "lab"}]},
        "status": {"phase": "Pending"},
    })
}

fn write_pod(store: &mut Store, namespace: &str, name: &str, ready: bool, ending: bool) {
    let word = if ready { "True" } else { "False" };
    let phase = if ready || ending { "Running" } else { "Pending" };
    let status = json!({"phase": phase, "conditions": [{"type": "Ready", "status": word}]});
    let same = store.get("pods", namespace, name).is_none_or(|pod| pod["status"] == status);
    if !same {
        store.edit("pods", namespace, name, |pod| pod["status"] = status);
    }
}
