//! One simulated site: its objects, its database, its pipelines, what is broken there and what it was asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::activity::Activity;
use super::database::{Database, Surroundings};
use super::faults::{Fault, Faults};
use super::peer_view::{SiteFacts, SourceFacts};
use super::pipelines::Pipelines;
use super::settings::{APPLICATION, CLUSTER_STATE, DATABASE, DATABASE_ENV, WorldSettings};
use super::store::{Store, text};
use super::workloads::Workloads;
use crate::model::{Side, Wall};

/// A site.
#[derive(Debug)]
pub struct Site {
    /// Which one.
    pub side: Side,
    /// Its Kubernetes objects.
    pub store: Store,
    /// Its database.
    pub database: Database,
    /// Its controllers.
    pub workloads: Workloads,
    /// Its pipelines.
    pub pipelines: Pipelines,
    /// What is broken.
    pub faults: Faults,
    /// What it was asked for.
    pub activity: Activity,
    /// The maintenance portal's state.
    pub maintenance: bool,
    /// Counts up when open watches must end; even the ones that are silent.
    pub watch_epoch: u64,
    /// Whether the last end of watches is told as 410.
    pub watch_gone: bool,
}

impl Site {
    /// An empty site.
    pub fn new(side: Side, settings: &WorldSettings) -> Self {
        Self {
            side,
            store: Store::new(settings.watch_history),
            database: Database::default(),
            workloads: Workloads::default(),
            pipelines: Pipelines::default(),
            faults: Faults::default(),
            activity: Activity::default(),
            maintenance: false,
            watch_epoch: 0,
            watch_gone: false,
        }
    }

    /// What the other site can see of this one.
    pub fn facts(&self, settings: &WorldSettings) -> SiteFacts {
        SiteFacts {
            health_ready: ready(
                &self.store,
                "deployments",
                &settings.health_namespace,
                &settings.health_name(),
            ) > 0,
            database: self.database.as_source(),
        }
    }

    /// Whether the service selector points at the application.
    pub fn serves_application(&self, settings: &WorldSettings) -> bool {
        let Some(service) = self.store.get("services", &settings.namespace, APPLICATION) else {
            return false;
        };
        let selector = &service["spec"]["selector"];
        selector["app.kubernetes.io/name"] == APPLICATION && selector["app"].is_null()
    }

    /// One step: controllers, database, pipelines. `source` is the other site's database, where it can be reached.
    pub fn advance(&mut self, now: Wall, settings: &WorldSettings, source: Option<&SourceFacts>) {
        self.store.set_now(now);
        let running: BTreeSet<u32> = self
            .database
            .members
            .iter()
            .filter(|(_, member)| member.state == super::database::MemberState::Running)
            .map(|(ordinal, _)| *ordinal)
            .collect();
        self.workloads.advance(&mut self.store, now.0, settings, &running);
        self.advance_database(now.0, settings, source);
        self.pipelines.advance(
            &mut self.store,
            now,
            settings,
            self.side,
            self.faults.on(Fault::PipelineHang),
        );
    }

    fn advance_database(&mut self, now_ms: u64, settings: &WorldSettings, source: Option<&SourceFacts>) {
        let namespace = &settings.namespace;
        self.database.config = self.store.get("configmaps", namespace, CLUSTER_STATE).map(|state| {
            let config = text(state, "/metadata/annotations/config");
            serde_json::from_str(&config).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
        });
        let before = self.database.config.clone();
        let around = Surroundings {
            now_ms,
            pods: self.workloads.live_ordinals(namespace, DATABASE),
            claims: claims(&self.store, namespace),
            standby_env: standby_env(&self.store, namespace),
            source,
            source_host: settings.database_host(self.side.other()),
            no_leader: self.faults.on(Fault::PatroniNoLeader),
            dead: self.faults.on(Fault::DatabaseDown),
            delays: settings.delays,
        };
        self.database.advance(&around);
        if self.database.config != before {
            self.write_config(settings);
        }
    }

    /// Writes the dynamic configuration where Patroni keeps it.
    pub fn write_config(&mut self, settings: &WorldSettings) {
        let Some(config) = &self.database.config else { return };
        let initialize = self.database.leader_data().map_or_else(String::new, |data| data.system.to_string());
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": CLUSTER_STATE, "namespace": settings.namespace,
                "labels": {"application": "spilo", "cluster-name": DATABASE},
                "annotations": {"config": config.to_string(), "initialize": initialize},
            },
        });
        self.store.put("configmaps", object);
    }

    /// The situation for a person (`GET /lab/state`).
    pub fn describe(&self, settings: &WorldSettings) -> Value {
        let record = self.store.get("configmaps", &settings.health_namespace, &settings.record_name());
        let members: BTreeMap<String, Value> = self
            .database
            .members
            .iter()
            .map(|(ordinal, member)| {
                let data = self.database.volumes.get(ordinal);
                let shown = json!({
                    "state": format!("{:?}", member.state), "read_only": member.recovering,
                    "streaming": member.streaming, "leader": self.database.leader == Some(*ordinal),
                    "timeline": data.map(|data| data.timeline), "lsn": data.map(|data| data.lsn),
                    "rows": data.map(|data| data.rows.len()),
                });
                (format!("{DATABASE}-{ordinal}"), shown)
            })
            .collect();
        let health = settings.health_name();
        json!({
            "site": settings.site_name(self.side), "side": self.side,
            "record": record.map(|record| record["data"].clone()),
            "service": if self.serves_application(settings) { "application" } else { "maintenance page" },
            "maintenance": self.maintenance,
            "health_ready": ready(&self.store, "deployments", &settings.health_namespace, &health),
            "application_ready": ready(&self.store, "statefulsets", &settings.namespace, APPLICATION),
            "database": {
                "writable": self.database.writable(), "config": self.database.config, "members": members,
                "volumes": claims(&self.store, &settings.namespace), "writable_intervals": self.database.intervals,
            },
            "faults": self.faults.names(), "pipelines": self.pipelines.mode.describe(),
            "facts": self.facts(settings),
        })
    }
}

/// Ready pods of a workload.
pub fn ready(store: &Store, plural: &'static str, namespace: &str, name: &str) -> u64 {
    store
        .get(plural, namespace, name)
        .and_then(|object| object["status"]["readyReplicas"].as_u64())
        .unwrap_or_default()
}

/// Ordinals of the database volume claims that are there (a claim that is being deleted still is).
pub fn claims(store: &Store, namespace: &str) -> BTreeSet<u32> {
    let prefix = format!("storage-volume-{DATABASE}-");
    store
        .list("persistentvolumeclaims", Some(namespace))
        .into_iter()
        .filter_map(|(key, _)| key.2.strip_prefix(&prefix)?.parse().ok())
        .collect()
}

fn standby_env(store: &Store, namespace: &str) -> Option<(String, u16)> {
    let env = store.get("configmaps", namespace, DATABASE_ENV)?;
    let host = text(env, "/data/STANDBY_HOST");
    let port = text(env, "/data/STANDBY_PORT").parse().unwrap_or(5432);
    (!host.is_empty()).then_some((host, port))
}
