//! The stories of the database: promotion, fencing, divergence, rebuild.

use http::StatusCode;
use serde_json::{Value, json};
use switchover_agent::lab::{PatroniVersion, WorldSettings};
use switchover_agent::model::Side;

use crate::*;

#[tokio::test]
async fn a_promotion_shows_in_the_configuration_before_the_database_accepts_writes() {
    let lab = Lab::start(quick()).await;
    let (_, cluster) = lab.get(Side::Passive, "/patroni/cluster").await;
    assert_eq!(cluster["members"][0]["role"], "standby_leader");
    assert_eq!(cluster["members"][0]["state"], "streaming");
    let (status, _) = lab.get(Side::Passive, "/patroni/primary").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let (status, config) =
        lab.merge(Side::Passive, "/patroni/config", json!({"standby_cluster": null})).await;
    assert_eq!((status.as_u16(), config.get("standby_cluster")), (200, None));
    let (_, cluster) = lab.get(Side::Passive, "/patroni/cluster").await;
    assert_eq!(cluster["members"][0]["role"], "leader");
    assert_eq!(cluster["members"][0]["timeline"], 1);
    let primary = lab.until(Side::Passive, "/patroni/primary", "promoted", |status, _| status == 200).await;
    assert_eq!((&primary["timeline"], &primary["role"]), (&json!(2), &json!("primary")));
    assert_eq!(lab.world.writable_intervals(Side::Passive).len(), 1);

    for body in ["", "{}", "[1]", "{"] {
        let (status, text) = lab.patch(Side::Passive, "/patroni/config", "application/json", body).await;
        assert_eq!(status.as_u16(), 400, "{body}");
        assert!(text.as_str().unwrap().starts_with("<!DOCTYPE HTML>"));
    }
}

#[tokio::test]
async fn fencing_ends_writing_and_a_failover_in_order_loses_no_row() {
    let lab = Lab::start(WorldSettings { writer_interval_ms: Some(10), ..quick() }).await;
    eventually("rows are written", || lab.world.acknowledged_rows() > 5).await;
    let fence = json!({"standby_cluster": {"create_replica_methods": ["basebackup"]}});
    lab.merge(Side::Active, "/patroni/config", fence).await;
    let fenced = || lab.world.writable_intervals(Side::Active).last().unwrap().end_ms.is_some();
    eventually("gold refuses writes", fenced).await;
    let (status, _) = lab.get(Side::Active, "/patroni/standby-leader").await;
    assert_eq!(status, StatusCode::OK);
    lab.merge(Side::Passive, "/patroni/config", json!({"standby_cluster": null})).await;
    lab.until(Side::Passive, "/patroni/primary", "promoted", |status, _| status == 200).await;
    assert_eq!(lab.world.lost_rows(), Vec::<u64>::new());
    let (gold, golddr) =
        (lab.world.writable_intervals(Side::Active), lab.world.writable_intervals(Side::Passive));
    assert!(gold[0].end_ms.unwrap() <= golddr[0].start_ms, "{gold:?} {golddr:?}");
}

#[tokio::test]
async fn rows_that_replication_never_carried_are_counted_as_lost() {
    let lab = Lab::start(WorldSettings { writer_interval_ms: Some(10), ..quick() }).await;
    lab.put(Side::Active, "/initiate/replication_cut").await;
    let before = lab.world.acknowledged_rows();
    eventually("more rows", || lab.world.acknowledged_rows() > before + 5).await;
    lab.put(Side::Active, "/initiate/database_down").await;
    lab.merge(Side::Passive, "/patroni/config", json!({"standby_cluster": null})).await;
    lab.until(Side::Passive, "/patroni/primary", "promoted", |status, _| status == 200).await;
    assert!(!lab.world.lost_rows().is_empty());
}

#[tokio::test]
async fn gold_is_rebuilt_from_golddr_when_its_state_and_volumes_are_gone() {
    let lab = Lab::start(quick()).await;
    assert_eq!(lab.put(Side::Active, "/phase/transition-to-gold-standby").await, StatusCode::NO_CONTENT);
    let (_, record) = lab.get(Side::Active, RECORD).await;
    assert_eq!(record["data"]["last_stable_state"], "golddr-primary");
    assert_eq!(record["data"]["transition"], "gold-standby");
    let (_, record) = lab.get(Side::Passive, RECORD).await;
    assert_eq!(record["data"]["transition"], "");
    let side = Side::Active;
    let env = "/k8s/api/v1/namespaces/sso-dev/configmaps/patroni-spilo-env-vars";
    lab.merge(side, env, json!({"data": {"STANDBY_HOST": "patroni-golddr.lab", "STANDBY_PORT": "5432"}}))
        .await;
    let scale = format!("{DATABASE}/scale");
    lab.merge(side, &scale, json!({"spec": {"replicas": 0}})).await;
    lab.until(side, DATABASE, "stopped", |_, set| set["status"]["replicas"] == 0).await;
    for ordinal in 0..3 {
        lab.delete(side, &format!("{CLAIMS}/storage-volume-patroni-spilo-{ordinal}")).await;
    }
    let (status, _) =
        lab.delete(side, "/k8s/api/v1/namespaces/sso-dev/configmaps/patroni-spilo-config").await;
    assert_eq!(status, StatusCode::OK);
    lab.merge(side, &scale, json!({"spec": {"replicas": 1}})).await;
    let standby = lab.until(side, "/patroni/standby-leader", "rebuilt", |status, _| status == 200).await;
    assert_eq!(standby["timeline"], 2);
    lab.merge(side, &scale, json!({"spec": {"replicas": 3}})).await;
    lab.until(side, "/patroni/cluster", "all stream", |_, cluster| {
        let members = cluster["members"].as_array().unwrap();
        members.len() == 3 && members.iter().all(|member| member["state"] == "streaming")
    })
    .await;
    assert!(lab.world.writable_intervals(side).last().unwrap().end_ms.is_some());
}

#[tokio::test]
async fn patroni_speaks_in_the_words_of_its_version_and_guards_its_patch() {
    let settings = WorldSettings {
        patroni_version: PatroniVersion::V3,
        patroni_basic: Some(("admin".to_owned(), "secret".to_owned())),
        ..quick()
    };
    let lab = Lab::start(settings).await;
    let (_, shown) = lab.get(Side::Active, "/patroni/patroni").await;
    assert_eq!((&shown["role"], &shown["patroni"]["version"]), (&json!("master"), &json!("3.0.2")));
    let (_, cluster) = lab.get(Side::Passive, "/patroni/cluster").await;
    assert_eq!(cluster["members"][1]["state"], "running");
    let patch = json!({"ttl": 20});
    assert_eq!(lab.merge(Side::Active, "/patroni/config", patch.clone()).await.0, StatusCode::UNAUTHORIZED);
    let url = lab.url(Side::Active, "/patroni/config");
    let request = lab.http.patch(url).basic_auth("admin", Some("secret")).json(&patch);
    let (status, config) = read(request.send().await.unwrap()).await;
    assert_eq!((status, &config["ttl"]), (StatusCode::OK, &json!(20)));
}

#[tokio::test]
async fn a_diverged_primary_is_rewound_when_it_becomes_a_standby() {
    let lab = Lab::start(WorldSettings { writer_interval_ms: Some(10), ..quick() }).await;
    lab.put(Side::Passive, "/initiate/replication_cut").await;
    let before = lab.world.acknowledged_rows();
    eventually("gold writes on", || lab.world.acknowledged_rows() > before + 3).await;
    lab.merge(Side::Passive, "/patroni/config", json!({"standby_cluster": null})).await;
    lab.until(Side::Passive, "/patroni/primary", "promoted", |status, _| status == 200).await;
    let follow = json!({"standby_cluster": {"host": "patroni-golddr.lab", "port": 5432}});
    lab.merge(Side::Active, "/patroni/config", follow).await;
    lab.put(Side::Passive, "/lift/replication_cut").await;
    let streams = |_, cluster: &Value| {
        cluster["members"][0]["state"] == "streaming" && cluster["members"][0]["timeline"] == 2
    };
    lab.until(Side::Active, "/patroni/cluster", "rewound", streams).await;
    assert!(!lab.world.lost_rows().is_empty());
}
