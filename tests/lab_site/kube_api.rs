//! The Kubernetes API through kube::Client, its watcher and raw requests.

use futures_util::{StreamExt, TryStreamExt};
use http::StatusCode;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use serde_json::json;
use switchover_agent::lab::WorldSettings;
use switchover_agent::model::Side;

use crate::*;

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
    assert_eq!(client.list_core_api_resources("v1").await.unwrap().resources.len(), 6);
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
