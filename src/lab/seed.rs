//! The objects and the database of a site in the situations that the phases begin with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::dynamic_config::new_config;
use super::settings::{APPLICATION, DATABASE, DATABASE_ENV, GATEWAY, MAINTENANCE_PAGE, WorldSettings};
use super::site::Site;
use super::volume::Data;
use super::workloads::claim_object;
use crate::model::{Phase, Side, Wall};

/// System identifier of the database that both sites have copies of.
const SYSTEM: u64 = 7_710_466_291_348_795_138;

/// Puts a site into the settled situation of a phase, with `transition` empty. Phases without a situation of
/// their own count as `active-passive`.
pub fn settle(site: &mut Site, phase: Phase, now: Wall, settings: &WorldSettings) {
    let golddr_serves = matches!(phase, Phase::GolddrPrimary | Phase::GoldStandby);
    let serves = (site.side == Side::Passive) == golddr_serves;
    site.store.set_now(now);
    site.pipelines.clear(&mut site.store);
    site.maintenance = !serves && golddr_serves;
    for (plural, object) in objects(site.side, phase, serves, settings) {
        site.store.put(plural, object);
    }
    put_record(site, phase, now, settings);
    for (key, claim) in site.store.list("persistentvolumeclaims", Some(&settings.namespace)) {
        if !claim["metadata"]["deletionTimestamp"].is_null() {
            site.store.purge(key.0, &key.1, &key.2);
        }
    }
    for ordinal in 0..settings.database_replicas {
        let name = format!("storage-volume-{DATABASE}-{ordinal}");
        site.store.put("persistentvolumeclaims", claim_object(&settings.namespace, &name));
    }
    let mut data = Data::fresh(SYSTEM);
    if golddr_serves && !(site.side == Side::Active && phase == Phase::GolddrPrimary) {
        data.switches.push((1, data.lsn));
        data.timeline = 2;
        data.lsn += 64;
    }
    let config = match (serves, phase) {
        (true, _) => new_config(None),
        // The site that was left is fenced: read-only, following nobody, its data kept.
        (false, Phase::GolddrPrimary) => {
            let mut config = new_config(None);
            config["standby_cluster"] = json!({"create_replica_methods": ["basebackup_fast_xlog"]});
            config
        }
        (false, _) => new_config(Some(&source_of(site.side, settings))),
    };
    site.database.settle(settings.database_replicas, data, config);
    site.write_config(settings);
    site.workloads.settle(&mut site.store, now.0, settings);
}

fn source_of(side: Side, settings: &WorldSettings) -> (String, u16) {
    (settings.database_host(side.other()).to_owned(), settings.database_port)
}

fn put_record(site: &mut Site, phase: Phase, now: Wall, settings: &WorldSettings) {
    site.store.put(
        "configmaps",
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": settings.record_name(), "namespace": settings.health_namespace,
                "labels": {"app": "switchover", "name": "switchover-config", "env": settings.environment},
            },
            "data": {
                "last_stable_state": phase.wire(), "last_stable_state_ts": now.to_iso(), "transition": "",
            },
        }),
    );
}

/// Writes a transition into the record.
pub fn ask(site: &mut Site, transition: &str, settings: &WorldSettings) {
    let name = settings.record_name();
    site.store.edit("configmaps", &settings.health_namespace, &name, |record| {
        record["data"]["transition"] = json!(transition);
    });
}

fn objects(side: Side, phase: Phase, serves: bool, settings: &WorldSettings) -> Vec<(&'static str, Value)> {
    let (ns, health_ns) = (&settings.namespace, &settings.health_namespace);
    let golddr_serves = matches!(phase, Phase::GolddrPrimary | Phase::GoldStandby);
    let health = if serves || !golddr_serves { 2 } else { 0 };
    let follows = !serves && phase != Phase::GolddrPrimary;
    let (host, port) = if follows {
        let (host, port) = source_of(side, settings);
        (host, port.to_string())
    } else {
        (String::new(), String::new())
    };
    let in_recovery = BASE64.encode(if golddr_serves { "true" } else { "false" });
    let application = if serves { settings.application_replicas } else { 0 };
    vec![
        ("deployments", deployment(health_ns, &settings.health_name(), health)),
        ("deployments", deployment(ns, GATEWAY, 1)),
        ("deployments", deployment(ns, MAINTENANCE_PAGE, 1)),
        ("statefulsets", stateful_set(ns, DATABASE, settings.database_replicas, Some("storage-volume"))),
        ("statefulsets", stateful_set(ns, APPLICATION, application, None)),
        ("services", service(ns, serves)),
        (
            "poddisruptionbudgets",
            json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": format!("{}-pdb", settings.health_name()), "namespace": health_ns},
                "spec": {
                    "minAvailable": u32::from(health > 0),
                    "selector": {"matchLabels": {"app": settings.health_name()}},
                },
            }),
        ),
        (
            "configmaps",
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": DATABASE_ENV, "namespace": ns},
                "data": {"STANDBY_HOST": host, "STANDBY_PORT": port},
            }),
        ),
        (
            "secrets",
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": settings.tfvars_secret, "namespace": settings.tekton_namespace},
                "data": {"in_recovery": in_recovery, "in_maintenance": BASE64.encode("false")},
            }),
        ),
    ]
}

fn workload(kind: &str, namespace: &str, name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "lab"}]},
            },
        },
    })
}

fn deployment(namespace: &str, name: &str, replicas: u32) -> Value {
    workload("Deployment", namespace, name, replicas)
}

fn stateful_set(namespace: &str, name: &str, replicas: u32, volume: Option<&str>) -> Value {
    let mut set = workload("StatefulSet", namespace, name, replicas);
    set["spec"]["serviceName"] = json!(name);
    set["spec"]["podManagementPolicy"] = json!("Parallel");
    if let Some(volume) = volume {
        set["spec"]["volumeClaimTemplates"] = json!([{
            "metadata": {"name": volume},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }]);
    }
    set
}

fn service(namespace: &str, to_application: bool) -> Value {
    let selector = if to_application {
        json!({"app.kubernetes.io/instance": APPLICATION, "app.kubernetes.io/name": APPLICATION})
    } else {
        json!({"app": "keycloak-maintenance-page"})
    };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": APPLICATION, "namespace": namespace,
            "labels": {"app.kubernetes.io/component": "http", "app.kubernetes.io/instance": APPLICATION},
        },
        "spec": {
            "selector": selector,
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            "type": "ClusterIP",
        },
    })
}
