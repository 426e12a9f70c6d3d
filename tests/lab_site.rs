//! The simulated sites of the lab: as strict as real ones, and breakable on request.

#![allow(clippy::unwrap_used)] // a helper that fails here is a failed test

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use serde_json::{Value, json};
use switchover_agent::lab::faults::Fault;
use switchover_agent::lab::names::{View, view};
use switchover_agent::lab::{Delays, SiteHandle, World, WorldSettings, cut};
use switchover_agent::model::Side;
use tokio::net::TcpListener;

const RECORD: &str = "/k8s/api/v1/namespaces/health-dev/configmaps/switchover-state-dev";
const DATABASE: &str = "/k8s/apis/apps/v1/namespaces/sso-dev/statefulsets/patroni-spilo";
const CLAIMS: &str = "/k8s/api/v1/namespaces/sso-dev/persistentvolumeclaims";

struct Lab {
    world: World,
    gold: SiteHandle,
    golddr: SiteHandle,
    http: reqwest::Client,
}

fn quick() -> WorldSettings {
    let delays = Delays {
        controller_ms: 5,
        pod_start_ms: 10,
        pod_stop_ms: 30,
        clone_ms: 10,
        promote_ms: 60,
        demote_ms: 30,
        follow_ms: 20,
        rewind_ms: 20,
        run_start_ms: 10,
        run_ms: 30,
    };
    WorldSettings { delays, ..WorldSettings::default() }
}

async fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

impl Lab {
    async fn start(settings: WorldSettings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let world = World::new(settings);
        let gold = world.serve(Side::Active, loopback().await).unwrap();
        let golddr = world.serve(Side::Passive, loopback().await).unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { world, gold, golddr, http }
    }

    fn url(&self, side: Side, path: &str) -> String {
        let site = if side == Side::Active { &self.gold } else { &self.golddr };
        format!("{}{path}", site.url())
    }

    async fn get(&self, side: Side, path: &str) -> (StatusCode, Value) {
        read(self.http.get(self.url(side, path)).send().await.unwrap()).await
    }

    async fn put(&self, side: Side, path: &str) -> StatusCode {
        self.http.put(self.url(side, path)).send().await.unwrap().status()
    }

    async fn delete(&self, side: Side, path: &str) -> (StatusCode, Value) {
        read(self.http.delete(self.url(side, path)).send().await.unwrap()).await
    }

    async fn patch(&self, side: Side, path: &str, kind: &str, body: &str) -> (StatusCode, Value) {
        let request =
            self.http.patch(self.url(side, path)).header("content-type", kind).body(body.to_owned());
        read(request.send().await.unwrap()).await
    }

    async fn merge(&self, side: Side, path: &str, body: Value) -> (StatusCode, Value) {
        self.patch(side, path, "application/merge-patch+json", &body.to_string()).await
    }

    async fn trigger(&self, side: Side) -> Value {
        let request = self.http.post(self.url(side, "/tekton")).header("X-GitHub-Event", "push").body("{}");
        let (status, body) = read(request.send().await.unwrap()).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        body
    }

    fn kube(&self, side: Side) -> kube::Client {
        let uri = self.url(side, "/k8s").parse().unwrap();
        let mut config = kube::Config::new(uri);
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    async fn until(
        &self,
        side: Side,
        path: &str,
        what: &str,
        good: impl Fn(StatusCode, &Value) -> bool,
    ) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            // Where no database pod listens the connection itself fails; the wait goes on.
            let (status, body) = match self.http.get(self.url(side, path)).send().await {
                Ok(response) => read(response).await,
                Err(error) => (StatusCode::BAD_GATEWAY, json!(error.to_string())),
            };
            if good(status, &body) {
                return body;
            }
            assert!(Instant::now() < end, "{what}: still {status} {body}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn read(response: reqwest::Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn eventually(what: &str, good: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !good() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn kube_client_lists_watches_and_loses_a_conflict() {
    let lab = Lab::start(quick()).await;
    let api: Api<ConfigMap> = Api::namespaced(lab.kube(Side::Active), "health-dev");
    let selected = "app=switchover,name in (switchover-config),env=dev";
    let list = api.list(&ListParams::default().labels(selected)).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let mut record = list.items[0].clone();
    assert_eq!(record.data.as_ref().unwrap()["last_stable_state"], "active-passive");

    let mut events = watcher(api.clone(), watcher::Config::default().labels("app=switchover")).boxed();
    let patch = json!({"data": {"transition": "golddr-primary"}});
    loop {
        match events.try_next().await.unwrap().unwrap() {
            watcher::Event::InitDone => {
                api.patch("switchover-state-dev", &PatchParams::default(), &Patch::Merge(&patch))
                    .await
                    .unwrap();
            }
            watcher::Event::Apply(seen) => {
                assert_eq!(seen.data.unwrap()["transition"], "golddr-primary");
                break;
            }
            _ => {}
        }
    }
    record.data.get_or_insert_default().insert("transition".to_owned(), "late".to_owned());
    let error = api.replace("switchover-state-dev", &PostParams::default(), &record).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 409), "{error:?}");
    let stale =
        json!({"metadata": {"resourceVersion": record.metadata.resource_version}, "data": {"a": "b"}});
    let error = api.patch("switchover-state-dev", &PatchParams::default(), &Patch::Merge(&stale)).await;
    assert!(matches!(error.unwrap_err(), kube::Error::Api(status) if status.code == 409));
}

#[tokio::test]
async fn a_watch_begins_at_its_version_ends_with_a_bookmark_and_is_gone_when_too_old() {
    let lab = Lab::start(WorldSettings { watch_history: 20, ..quick() }).await;
    let api: Api<ConfigMap> = Api::namespaced(lab.kube(Side::Active), "health-dev");
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    lab.merge(Side::Active, RECORD, json!({"data": {"note": "one"}})).await;
    let params = WatchParams::default().timeout(1);
    let mut stream = api.watch(&params, &version).await.unwrap().boxed();
    let first = stream.try_next().await.unwrap().unwrap();
    assert!(matches!(first, WatchEvent::Modified(_)), "{first:?}");
    let mut last = None;
    while let Some(event) = stream.try_next().await.unwrap() {
        last = Some(event);
    }
    assert!(matches!(last, Some(WatchEvent::Bookmark(_))), "{last:?}");

    for number in 0..30 {
        lab.merge(Side::Active, RECORD, json!({"data": {"note": number.to_string()}})).await;
    }
    let path = format!("/k8s/api/v1/configmaps?watch=true&resourceVersion={version}");
    let (status, body) = lab.get(Side::Active, &path).await;
    assert_eq!((status.as_u16(), body["reason"].as_str()), (410, Some("Expired")));
}

#[tokio::test]
async fn patches_merge_and_bad_ones_are_refused_by_name() {
    let lab = Lab::start(quick()).await;
    let side = Side::Active;
    let strategic = "application/strategic-merge-patch+json";
    let (status, body) = lab.patch(side, RECORD, strategic, r#"{"data":{"maintenance":null,"x":"1"}}"#).await;
    assert_eq!((status.as_u16(), &body["data"]["x"]), (200, &json!("1")));
    let json_patch = r#"[{"op":"test","path":"/data/x","value":"1"},{"op":"remove","path":"/data/x"}]"#;
    let (status, body) = lab.patch(side, RECORD, "application/json-patch+json", json_patch).await;
    assert_eq!((status.as_u16(), body["data"].get("x")), (200, None));
    let (status, _) = lab.patch(side, RECORD, "application/json-patch+json", json_patch).await;
    assert_eq!(status.as_u16(), 422);

    let scale = format!("{DATABASE}/scale");
    for (path, kind, body, wanted) in [
        (RECORD, "application/json", "{}", 415),
        (RECORD, "application/apply-patch+yaml", "{}", 415),
        (RECORD, strategic, "{", 400),
        (RECORD, strategic, "[]", 400),
        (RECORD, strategic, r#"{"data":{"x":1}}"#, 422),
        (RECORD, strategic, r#"{"metadata":{"labels":{"x":true}}}"#, 422),
        (RECORD, strategic, r#"{"metadata":"x"}"#, 422),
        (scale.as_str(), strategic, r#"{"spec":{"replicas":-1}}"#, 422),
        (scale.as_str(), strategic, r#"{"spec":{"replicas":"2"}}"#, 422),
        ("/k8s/api/v1/namespaces/health-dev/configmaps/none", strategic, "{}", 404),
        ("/k8s/apis/nobody/v1/things", strategic, "{}", 404),
        ("/k8s/api/v1/namespaces/sso-dev/pods/patroni-spilo-0", strategic, "{}", 405),
    ] {
        let (status, answer) = lab.patch(side, path, kind, body).await;
        assert_eq!(status.as_u16(), wanted, "{path} {kind} {body}: {answer}");
        assert_eq!(answer["kind"], "Status", "{path} {body}");
        assert_eq!(answer["code"], wanted, "{path} {body}");
    }
    let (status, _) = lab.get(side, "/k8s/api/v1/configmaps?labelSelector=a%20b%20c").await;
    assert_eq!(status.as_u16(), 400);
}

#[tokio::test]
async fn create_and_delete_check_names_types_and_preconditions() {
    let lab = Lab::start(quick()).await;
    let url = lab.url(Side::Active, "/k8s/api/v1/namespaces/health-dev/configmaps");
    for (body, wanted) in [
        (json!({"metadata": {"name": "Upper"}}), 422),
        (json!({"metadata": {"name": "a"}, "data": {"x": 1}}), 400),
        (json!({"metadata": {"name": "a"}, "kind": "Secret"}), 400),
        (json!({"metadata": {"name": "a"}, "data": {"x": "1"}}), 201),
        (json!({"metadata": {"name": "a"}}), 409),
        (json!([1]), 400),
    ] {
        let (status, answer) = read(lab.http.post(&url).json(&body).send().await.unwrap()).await;
        assert_eq!(status.as_u16(), wanted, "{body}: {answer}");
    }
    let api: Api<ConfigMap> = Api::namespaced(lab.kube(Side::Active), "health-dev");
    let wrong = DeleteParams {
        preconditions: Some(kube::api::Preconditions { resource_version: Some("1".to_owned()), uid: None }),
        ..DeleteParams::default()
    };
    assert!(
        matches!(api.delete("a", &wrong).await.unwrap_err(), kube::Error::Api(status) if status.code == 409)
    );
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn discovery_knows_both_versions_of_pipeline_runs() {
    let lab = Lab::start(quick()).await;
    let client = lab.kube(Side::Active);
    let groups = client.list_api_groups().await.unwrap();
    let tekton = groups.groups.iter().find(|group| group.name == "tekton.dev").unwrap();
    assert_eq!(tekton.versions.len(), 2);
    let resources = client.list_api_group_resources("tekton.dev/v1beta1").await.unwrap();
    assert_eq!(resources.resources[0].name, "pipelineruns");
    assert_eq!(client.list_core_api_resources("v1").await.unwrap().resources.len(), 5);
    assert_eq!(lab.get(Side::Active, "/k8s/readyz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_api_demands_its_token_and_reviews_operators_tokens() {
    let settings = WorldSettings {
        api_token: Some("agent".to_owned()),
        operator_tokens: [("op".to_owned(), "alice".to_owned())].into(),
        ..quick()
    };
    let lab = Lab::start(settings).await;
    assert_eq!(lab.get(Side::Active, RECORD).await.0, StatusCode::UNAUTHORIZED);
    let url = lab.url(Side::Active, "/k8s/apis/authentication.k8s.io/v1/tokenreviews");
    for (token, good) in [("op", true), ("agent", false)] {
        let review = json!({"spec": {"token": token}});
        let request = lab.http.post(&url).bearer_auth("agent").json(&review);
        let (status, body) = read(request.send().await.unwrap()).await;
        assert_eq!((status.as_u16(), &body["status"]["authenticated"]), (201, &json!(good)));
    }
}

#[tokio::test]
async fn scaling_shows_its_progress_and_ready_pods_vanish_first() {
    let lab = Lab::start(quick()).await;
    let api: Api<StatefulSet> = Api::namespaced(lab.kube(Side::Active), "sso-dev");
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let scale = format!("{DATABASE}/scale");
    let (_, body) = lab.merge(Side::Active, &scale, json!({"spec": {"replicas": 0}})).await;
    assert_eq!(body["spec"], json!({}), "a scale to 0 has no replicas in its spec");
    assert_eq!(body["status"]["replicas"], 3);
    let params = WatchParams::default().fields("metadata.name=patroni-spilo").timeout(20);
    let mut stream = api.watch(&params, &version).await.unwrap().boxed();
    let mut seen = Vec::new();
    while let Some(event) = stream.try_next().await.unwrap() {
        if let WatchEvent::Modified(set) = event {
            let status = set.status.unwrap();
            seen.push((status.replicas, status.ready_replicas));
            if status.replicas == 0 {
                break;
            }
        }
    }
    assert!(seen.contains(&(3, None)), "{seen:?}");
    assert_eq!(seen.last(), Some(&(0, None)));
    let refused = lab.http.get(lab.url(Side::Active, "/patroni/cluster")).send().await;
    assert!(refused.is_err(), "without pods nobody listens");
}

#[tokio::test]
async fn a_claim_in_use_waits_for_its_pod_and_a_new_pod_gets_a_new_empty_one() {
    let lab = Lab::start(quick()).await;
    let side = Side::Active;
    let api: Api<PersistentVolumeClaim> = Api::namespaced(lab.kube(side), "sso-dev");
    let name = "storage-volume-patroni-spilo-2";
    let old = api.get(name).await.unwrap().metadata.uid;
    let deleted = api.delete(name, &DeleteParams::default()).await.unwrap();
    assert!(deleted.left().unwrap().metadata.deletion_timestamp.is_some());
    lab.until(side, &format!("{CLAIMS}/{name}"), "claim waits", |status, _| status == 200).await;
    lab.merge(side, &format!("{DATABASE}/scale"), json!({"spec": {"replicas": 2}})).await;
    lab.until(side, &format!("{CLAIMS}/{name}"), "claim goes", |status, _| status == 404).await;
    lab.merge(side, &format!("{DATABASE}/scale"), json!({"spec": {"replicas": 3}})).await;
    lab.until(side, DATABASE, "ready again", |_, set| set["status"]["readyReplicas"] == 3).await;
    assert_ne!(api.get(name).await.unwrap().metadata.uid, old);
}

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
async fn a_pipeline_run_progresses_and_moves_the_application() {
    let lab = Lab::start(quick()).await;
    let secret = "/k8s/api/v1/namespaces/tekton-dev/secrets/sso-dev-tfvars";
    let (_, body) = lab.merge(Side::Passive, secret, json!({"stringData": {"in_recovery": "true"}})).await;
    assert_eq!(body["data"]["in_recovery"], "dHJ1ZQ==");
    let started = lab.trigger(Side::Passive).await;
    let runs = "/k8s/apis/tekton.dev/v1beta1/namespaces/tekton-dev/pipelineruns";
    let list = lab
        .until(Side::Passive, runs, "succeeded", |_, list| {
            list["items"][0]["status"]["conditions"][0]["status"] == "True"
        })
        .await;
    let run = &list["items"][0];
    assert_eq!(run["metadata"]["labels"]["triggers.tekton.dev/triggers-eventid"], started["eventID"]);
    assert_eq!(run["spec"]["params"][0], json!({"name": "release-namespace", "value": "sso-dev"}));
    let keycloak = "/k8s/apis/apps/v1/namespaces/sso-dev/statefulsets/keycloak";
    lab.until(Side::Passive, keycloak, "keycloak runs", |_, set| set["status"]["readyReplicas"] == 2).await;
}

#[tokio::test]
async fn pipeline_modes_fail_hang_and_can_be_cancelled() {
    let lab = Lab::start(quick()).await;
    let side = Side::Active;
    let runs = "/k8s/apis/tekton.dev/v1/namespaces/tekton-dev/pipelineruns";
    let reasons = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        let reason = |run: &Value| run["status"]["conditions"][0]["reason"].as_str().unwrap().to_owned();
        let mut reasons: Vec<String> = items.map(reason).collect();
        reasons.sort();
        reasons
    };
    assert_eq!(lab.put(side, "/tekton/mode/fail-then-succeed?fail_count=1").await, StatusCode::NO_CONTENT);
    lab.trigger(side).await;
    lab.trigger(side).await;
    lab.until(side, runs, "one of each", |_, list| reasons(list) == ["Failed", "Succeeded"]).await;
    assert_eq!(lab.put(side, "/tekton/mode/hang").await, StatusCode::NO_CONTENT);
    lab.trigger(side).await;
    let list = lab.until(side, runs, "hangs", |_, list| reasons(list).contains(&"Running".to_owned())).await;
    let mut hung = list["items"].as_array().unwrap().iter();
    let hung = hung.find(|run| run["status"]["conditions"][0]["reason"] == "Running").unwrap();
    let path = format!("{runs}/{}", hung["metadata"]["name"].as_str().unwrap());
    lab.merge(side, &path, json!({"spec": {"status": "CancelledRunFinally"}})).await;
    lab.until(side, &path, "cancelled", |_, run| run["status"]["conditions"][0]["reason"] == "Cancelled")
        .await;
    assert_eq!(lab.put(side, "/tekton/mode/sideways").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_listener_checks_event_and_signatures() {
    let lab = Lab::start(WorldSettings { hmac_secret: Some("key".to_owned()), ..quick() }).await;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"key").unwrap();
    mac.update(b"{}");
    let good = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    for (event, signature, wanted) in [
        ("push", None, 401),
        ("push", Some("sha256=00"), 403),
        ("ping", Some(good.as_str()), 403),
        ("push", Some(good.as_str()), 202),
    ] {
        let mut request = lab.http.post(lab.url(Side::Active, "/tekton")).body("{}");
        request = request.header("X-GitHub-Event", event);
        if let Some(signature) = signature {
            request = request.header("X-Hub-Signature-256", signature);
        }
        assert_eq!(request.send().await.unwrap().status().as_u16(), wanted, "{event} {signature:?}");
    }
}

#[tokio::test]
async fn activity_keeps_arrival_order_key_order_and_masks_time() {
    let lab = Lab::start(quick()).await;
    let side = Side::Active;
    lab.put(side, "/phase/transition-to-golddr-primary").await;
    lab.put(side, "/initiate/portal_down?count=1").await;
    lab.put(side, "/maintenance/maintenance/true").await;
    lab.put(side, "/maintenance/maintenance/true").await;
    let body = r#"{"data":{"z":"2026-01-02T03:04:05Z","a":"x","maintenance":null}}"#;
    lab.patch(side, &format!("{RECORD}?pretty=true"), "application/merge-patch+json", body).await;
    let (_, list) = lab.get(side, "/activity").await;
    let shown: Vec<(String, String)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry["status"].to_string()))
        .collect();
    let wanted = [
        ("PHASE_CHANGE/transition-to-golddr-primary", "null"),
        ("INITIATE/portal_down", "null"),
        ("/maintenance/maintenance/true", "500"),
        ("/maintenance/maintenance/true", "200"),
        (&format!("{RECORD}?pretty=true"), "200"),
    ];
    assert_eq!(shown, wanted.map(|(path, status)| (path.to_owned(), status.to_owned())));
    assert_eq!(
        list[4]["body"].to_string(),
        r#"{"data":{"z":"2020-01-01T00:00:00","a":"x","maintenance":null}}"#
    );
    lab.delete(side, "/activity").await;
    assert_eq!(lab.get(side, "/activity").await.1, json!([]));
}

#[tokio::test]
async fn unknown_phases_and_faults_are_answered_with_the_known_ones() {
    let lab = Lab::start(quick()).await;
    for path in ["/phase/silver", "/initiate/rain", "/lift/rain"] {
        let (status, body) = read(lab.http.put(lab.url(Side::Active, path)).send().await.unwrap()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(body["known"].as_array().unwrap().len() >= 4, "{body}");
    }
}

async fn ask(server: SocketAddr, name: &str) -> Result<Vec<Ipv4Addr>, String> {
    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    let mut servers = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut servers.connections {
        connection.port = server.port();
    }
    let config = ResolverConfig::from_parts(None, vec![], vec![servers]);
    let mut builder =
        hickory_resolver::TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.options_mut().attempts = 1;
    builder.options_mut().timeout = Duration::from_millis(500);
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let answer = resolver.ipv4_lookup(format!("{name}.")).await.map_err(|error| error.to_string())?;
    Ok(answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            hickory_resolver::proto::rr::RData::A(address) => Some(address.0),
            _ => None,
        })
        .collect())
}

#[tokio::test]
async fn dns_follows_the_health_deployments_and_its_faults() {
    let lab = Lab::start(quick()).await;
    let (world, side) = (&lab.world, Side::Passive);
    let liar = world.serve_dns(side, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let honest = world.serve_dns(side, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (active, passive) = (world.settings().active_ip, world.settings().passive_ip);
    let gslb = "sso.lab.test";
    assert_eq!(ask(honest.address(), gslb).await, Ok(vec![active]));
    world.initiate(side, Fault::DnsOneResolverLies, None);
    assert_eq!(ask(liar.address(), gslb).await, Ok(vec![passive]));
    assert_eq!(ask(honest.address(), gslb).await, Ok(vec![active]));
    world.lift(side, Fault::DnsOneResolverLies);
    assert_eq!(ask(liar.address(), gslb).await, Ok(vec![active]));
    for (fault, self_test_works) in
        [(Fault::DnsLookupError, true), (Fault::DnsServfail, false), (Fault::DnsTimeout, false)]
    {
        world.initiate(side, fault, None);
        assert!(ask(honest.address(), gslb).await.is_err(), "{fault:?}");
        assert_eq!(ask(honest.address(), "self-test.lab.test").await.is_ok(), self_test_works, "{fault:?}");
        assert_eq!(view(world, Side::Active, None), View::Addresses(vec![active]));
        world.lift(side, fault);
        assert_eq!(ask(honest.address(), gslb).await, Ok(vec![active]), "{fault:?} lifted");
    }
    let health = "/k8s/apis/apps/v1/namespaces/health-dev/deployments/bcgov-health-api-dev-generic-api/scale";
    lab.merge(Side::Active, health, json!({"spec": {"replicas": 0}})).await;
    eventually("the balancer moves", || view(world, side, None) == View::Addresses(vec![passive])).await;
    assert_eq!(ask(honest.address(), gslb).await, Ok(vec![passive]));
    let (_, list) = lab.get(side, "/dns").await;
    assert_eq!(list[0][4][0], passive.to_string());
    lab.put(side, "/initiate/dns_lookup_error").await;
    assert_eq!(lab.get(side, "/dns").await.1, json!([]));
}

#[tokio::test]
async fn faults_of_the_api_and_of_patroni_bite_and_are_lifted() {
    let lab = Lab::start(quick()).await;
    let side = Side::Active;
    let short = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(400)).build().unwrap();
    for (fault, path) in [
        ("api_down", RECORD),
        ("api_refused", RECORD),
        ("api_hang", RECORD),
        ("api_slow", RECORD),
        ("patroni_down", "/patroni/cluster"),
        ("patroni_no_leader", "/patroni/leader"),
        ("database_down", "/patroni/primary"),
        ("portal_down", "/maintenance/maintenance"),
    ] {
        assert_eq!(lab.put(side, &format!("/initiate/{fault}")).await, StatusCode::NO_CONTENT);
        let end = Instant::now() + Duration::from_secs(20);
        while short.get(lab.url(side, path)).send().await.is_ok_and(|answer| answer.status() == 200) {
            assert!(Instant::now() < end, "{fault} does not bite");
        }
        assert_eq!(lab.put(side, "/lift/all").await, StatusCode::NO_CONTENT);
        let end = Instant::now() + Duration::from_secs(20);
        while !lab.http.get(lab.url(side, path)).send().await.is_ok_and(|answer| answer.status() == 200) {
            assert!(Instant::now() < end, "{fault} is not lifted");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let service = "/k8s/api/v1/namespaces/sso-dev/services/keycloak";
    lab.put(side, "/initiate/service_patch_500?count=1").await;
    assert_eq!(lab.merge(side, service, json!({})).await.0.as_u16(), 500);
    assert_eq!(lab.merge(side, service, json!({})).await.0.as_u16(), 200);
}

#[tokio::test]
async fn faults_of_watches_break_open_streams() {
    let lab = Lab::start(quick()).await;
    let api: Api<ConfigMap> = Api::namespaced(lab.kube(Side::Active), "health-dev");
    let open = || async {
        let mut stream = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
        stream
    };
    let mut stream = open().await;
    lab.world.initiate(Side::Active, Fault::Watch410, None);
    let event = stream.try_next().await.unwrap();
    assert!(matches!(&event, Some(WatchEvent::Error(status)) if status.code == 410), "{event:?}");
    lab.world.lift(Side::Active, Fault::Watch410);

    let mut stream = open().await;
    lab.world.initiate(Side::Active, Fault::WatchClose, None);
    assert!(stream.try_next().await.unwrap().is_none());
    lab.world.lift(Side::Active, Fault::WatchClose);

    let mut stream = open().await;
    lab.world.initiate(Side::Active, Fault::WatchStall, None);
    lab.merge(Side::Active, RECORD, json!({"data": {"note": "unseen"}})).await;
    let silent = tokio::time::timeout(Duration::from_millis(200), stream.try_next()).await;
    assert!(silent.is_err(), "{silent:?}");
    lab.world.lift(Side::Active, Fault::WatchStall);
    assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Modified(_))));
}

#[tokio::test]
async fn a_partition_silences_the_line_between_the_agents_until_it_is_lifted() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let lab = Lab::start(quick()).await;
    let far = loopback().await;
    let line = cut::Line::open(loopback().await, far.local_addr().unwrap(), Some(lab.world.clone())).unwrap();
    let mut near = tokio::net::TcpStream::connect(line.address()).await.unwrap();
    let (mut far_end, _) = far.accept().await.unwrap();
    near.write_all(b"a").await.unwrap();
    assert_eq!(far_end.read_u8().await.unwrap(), b'a');
    lab.put(Side::Passive, "/initiate/peer_partition").await;
    assert!(lab.world.partitioned());
    near.write_all(b"b").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), far_end.read_u8()).await.is_err());
    lab.put(Side::Passive, "/lift/peer_partition").await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), far_end.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty(), "what was swallowed never comes: {rest:?}");
    let mut near = tokio::net::TcpStream::connect(line.address()).await.unwrap();
    let (mut far_end, _) = far.accept().await.unwrap();
    near.write_all(b"c").await.unwrap();
    assert_eq!(far_end.read_u8().await.unwrap(), b'c');
}

#[tokio::test]
async fn two_sites_in_two_worlds_see_each_other_over_http() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (first, second) = (loopback().await, loopback().await);
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let gold = World::single(quick(), Side::Active, url(&second));
    let golddr = World::single(quick(), Side::Passive, url(&first));
    assert_eq!(view(&golddr, Side::Passive, None), View::Empty, "nobody has seen gold yet");
    let _gold_site = gold.serve(Side::Active, first).unwrap();
    let _golddr_site = golddr.serve(Side::Passive, second).unwrap();
    let active = View::Addresses(vec![golddr.settings().active_ip]);
    eventually("golddr sees gold", || view(&golddr, Side::Passive, None) == active).await;
    assert!(gold.serve(Side::Passive, loopback().await).is_err());
}
