//! Single calls: what is sent, how answers are judged, how long they may take.

use serde_json::{Value, json};
use switchover_agent::adapters::kube::KubeError;
use switchover_agent::adapters::kube::once::Standing;
use switchover_agent::model::{Detail, FailureKind, RecordWrite};

use crate::server::{Answer, MAPS, PATIENCE, SERVICES, SETS, list, pair};

#[tokio::test]
async fn every_effect_is_spelt_exactly_as_the_predecessor_spells_it() {
    let (server, kube) = pair("", &[]).await;
    let services = json!({"items": [{"metadata": {"name": "kc"}}]});
    server.on(&format!("GET {SERVICES}"), [Answer::Json(200, services)]);
    let at = "2026-01-02T03:04:05.000006Z";
    kube.set_recovery_vars(true, false).await.unwrap();
    kube.scale_health(0).await.unwrap();
    kube.set_pdb_min_available(0).await.unwrap();
    kube.restart_maintenance_page(at).await.unwrap();
    kube.restart_gateway(at).await.unwrap();
    kube.route_service(true).await.unwrap();
    kube.route_service(false).await.unwrap();
    kube.set_standby_source("10.0.0.1", "5432").await.unwrap();
    kube.delete_volume(2).await.unwrap();
    kube.delete_cluster_state().await.unwrap();
    kube.start_application().await.unwrap();
    kube.cancel_run("run-1").await.unwrap();
    let expected = [
        r#"PATCH /api/v1/namespaces/tools/secrets/tfvars {"stringData":{"in_recovery":"true","in_maintenance":"false"}}"#,
        r#"PATCH /apis/apps/v1/namespaces/health/deployments/bcgov-health-api-dev-generic-api/scale {"spec":{"replicas":0}}"#,
        r#"PATCH /apis/policy/v1/namespaces/health/poddisruptionbudgets/bcgov-health-api-dev-generic-api-pdb {"spec":{"minAvailable":0}}"#,
        r#"PATCH /apis/apps/v1/namespaces/apps/deployments/keycloak-maintenance-redirect-generic-api?pretty=true {"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-01-02T03:04:05.000006Z"}}}}}"#,
        r#"PATCH /apis/apps/v1/namespaces/apps/deployments/konghc-kong?pretty=true {"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-01-02T03:04:05.000006Z"}}}}}"#,
        r#"PATCH /api/v1/namespaces/apps/services/kc {"spec":{"selector":{"app":"keycloak-maintenance-page","app.kubernetes.io/instance":null,"app.kubernetes.io/name":null}}}"#,
        r#"PATCH /api/v1/namespaces/apps/services/kc {"spec":{"selector":{"app":null,"app.kubernetes.io/instance":"keycloak","app.kubernetes.io/name":"keycloak"}}}"#,
        r#"PATCH /api/v1/namespaces/apps/configmaps/patroni-spilo-env-vars {"data":{"STANDBY_HOST":"10.0.0.1","STANDBY_PORT":"5432"}}"#,
        "DELETE /api/v1/namespaces/apps/persistentvolumeclaims/storage-volume-patroni-spilo-2",
        "DELETE /api/v1/namespaces/apps/configmaps/patroni-spilo-config",
        r#"PATCH /apis/apps/v1/namespaces/apps/statefulsets/keycloak/scale {"spec":{"replicas":1}}"#,
        r#"PATCH /apis/tekton.dev/v1beta1/namespaces/tools/pipelineruns/run-1 {"spec":{"status":"CancelledRunFinally"}}"#,
    ];
    assert_eq!(server.writes(), expected);
    for seen in server.seen() {
        let want = match seen.line.as_str() {
            line if line.contains("pipelineruns") => "application/merge-patch+json",
            line if line.starts_with("PATCH") => "application/strategic-merge-patch+json",
            _ => "application/json",
        };
        assert_eq!(seen.content_type, want, "{}", seen.line);
    }
}

#[tokio::test]
async fn what_is_already_gone_counts_as_deleted() {
    let (server, kube) = pair("", &[]).await;
    let pvc = "DELETE /api/v1/namespaces/apps/persistentvolumeclaims/storage-volume-patroni-spilo-0";
    server.on(pvc, [Answer::Json(404, json!({"reason": "NotFound"}))]);
    assert_eq!(kube.delete_volume(0).await.unwrap(), Detail::AlreadySo);
    assert_eq!(kube.delete_volume(1).await.unwrap(), Detail::Nothing);
}

#[tokio::test]
async fn only_the_servers_own_word_says_that_an_object_is_gone() {
    let (server, kube) = pair("", &[]).await;
    let target = kube.volume_path(0);
    let ending = json!({"metadata": {"uid": "u-1", "deletionTimestamp": "2026-01-02T03:04:05Z"}});
    let answers = [
        Answer::Json(200, json!({"metadata": {"uid": "u-1"}})),
        Answer::Json(200, ending),
        Answer::Json(404, json!({"reason": "NotFound"})),
        Answer::Json(404, json!({"detail": "Not Found"})),
        Answer::Json(403, json!({"reason": "Forbidden"})),
        Answer::Json(200, json!({"metadata": {}})),
        Answer::Json(503, json!({})),
    ];
    server.on(&format!("GET {target}"), answers);
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(match kube.standing(&target).await.unwrap() {
            Standing::There(uid) => uid,
            Standing::Nameless(_) => "nameless".to_owned(),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["u-1", "Ending", "Gone", "nameless", "nameless", "nameless"]);
    assert_eq!(kube.standing(&target).await.unwrap_err().kind(), FailureKind::Transient);
}

#[tokio::test]
async fn an_object_is_deleted_by_its_uid_and_another_one_is_a_conflict() {
    let (server, kube) = pair("", &[]).await;
    let target = kube.cluster_state_path();
    let answers = [Answer::Json(200, json!({})), Answer::Json(409, json!({"reason": "Conflict"}))];
    server.on(&format!("DELETE {target}"), answers);
    assert_eq!(kube.delete_exactly(&target, Some("u-1")).await.unwrap(), Detail::Nothing);
    let options = r#"{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u-1"}}"#;
    assert_eq!(server.writes(), [format!("DELETE {target} {options}")]);
    let error = kube.delete_exactly(&target, Some("u-1")).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Conflict);
}

#[tokio::test]
async fn no_matching_service_is_a_named_error_and_nothing_is_written() {
    let (server, kube) = pair("", &[]).await;
    server.on(&format!("GET {SERVICES}"), [Answer::Json(200, json!({"items": []}))]);
    assert!(matches!(kube.route_service(true).await, Err(KubeError::NoMatch { .. })));
    assert_eq!(server.writes(), [""; 0]);
}

#[tokio::test]
async fn a_hostile_run_name_never_becomes_a_path() {
    let (server, kube) = pair("", &[]).await;
    assert!(matches!(kube.cancel_run("../../secrets/x").await, Err(KubeError::BadName(_))));
    assert_eq!(server.lines(), [""; 0]);
}

#[tokio::test]
async fn a_path_prefix_and_a_token_reach_the_server() {
    let (server, kube) = pair("/k8s", &[("KUBE_API_TOKEN", "t0ken")]).await;
    kube.scale_deployment("a", "b", 2).await.unwrap();
    let seen = server.seen().remove(0);
    assert_eq!(seen.line, "PATCH /k8s/apis/apps/v1/namespaces/a/deployments/b/scale");
    assert_eq!(seen.authorization, "Bearer t0ken");
}

#[tokio::test]
async fn a_write_is_judged_by_its_status_and_never_repeated() {
    let (server, kube) = pair("", &[]).await;
    let answers = [
        Answer::Text(200, "not json".into()),
        Answer::Text(503, String::new()),
        Answer::Json(409, json!({"reason": "Conflict", "message": "changed"})),
        Answer::Json(403, json!({"reason": "Forbidden", "message": "no"})),
    ];
    server.on("PATCH /apis/apps/v1/namespaces/a/deployments/b/scale", answers);
    kube.scale_deployment("a", "b", 1).await.unwrap();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(kube.scale_deployment("a", "b", 1).await.unwrap_err().kind());
    }
    assert_eq!(kinds, [FailureKind::Transient, FailureKind::Conflict, FailureKind::Permanent]);
    assert_eq!(server.lines().len(), 4);
}

#[tokio::test]
async fn secrets_do_not_show_in_errors() {
    let (server, kube) = pair("", &[]).await;
    let body = json!({"reason": "Invalid", "message": "data hunter2 is bad", "data": {"x": "hunter2"}});
    server.on("PATCH /api/v1/namespaces/tools/secrets/tfvars", [Answer::Json(422, body.clone())]);
    server.on("POST /apis/authentication.k8s.io/v1/tokenreviews", [Answer::Json(422, body)]);
    for error in [
        kube.set_recovery_vars(true, true).await.unwrap_err(),
        kube.review_token("hunter2").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("422 Invalid"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn a_hanging_server_costs_one_time_limit() {
    let (server, kube) = pair("", &[("KUBE_TIMEOUT_SECONDS", "0.2")]).await;
    server.on("PATCH /apis/apps/v1/namespaces/a/deployments/b/scale", [Answer::Hang]);
    let call = kube.scale_deployment("a", "b", 1);
    let error = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap_err();
    assert!(matches!(error, KubeError::Timeout { limit_ms: 200, .. }), "{error}");
}

#[tokio::test]
async fn a_token_is_somebodys_only_where_the_server_says_so() {
    let (server, kube) = pair("", &[]).await;
    let answers = [
        Answer::Json(201, json!({"status": {"authenticated": true, "user": {"username": "ann"}}})),
        Answer::Json(201, json!({"status": {"user": {"username": "ann"}}})),
        Answer::Text(204, String::new()),
    ];
    server.on("POST /apis/authentication.k8s.io/v1/tokenreviews", answers);
    assert_eq!(kube.review_token("t").await.unwrap().as_deref(), Some("ann"));
    assert_eq!(kube.review_token("t").await.unwrap(), None);
    assert!(kube.review_token("t").await.is_err());
}

#[tokio::test]
async fn scaling_to_zero_waits_for_the_last_pod() {
    let (server, kube) = pair("", &[]).await;
    let set = |status: Value| json!({"metadata": {"name": "patroni-spilo", "resourceVersion": "5"}, "status": status});
    server.on(&format!("GET {SETS}"), [list("5", vec![set(json!({"replicas": 1}))])]);
    let event = |status| json!({"type": "MODIFIED", "object": set(status)});
    // A watch that ends is opened again, and an absent readyReplicas proves nothing.
    let watches = [
        Answer::Lines(vec![event(json!({"replicas": 1}))]),
        Answer::Lines(vec![event(json!({"replicas": 1, "readyReplicas": 0}))]),
        Answer::LinesThenSilence(vec![event(json!({"replicas": 0}))]),
    ];
    server.on(&format!("WATCH {SETS}"), watches);
    tokio::time::timeout(PATIENCE, kube.scale_database(0)).await.unwrap().unwrap();
    assert_eq!(server.lines().iter().filter(|line| line.contains("watch=true")).count(), 3);
    assert_eq!(server.writes(), [format!(r#"PATCH {SETS}/patroni-spilo/scale {{"spec":{{"replicas":0}}}}"#)]);
}

#[tokio::test]
async fn scaling_that_is_never_reached_says_what_was_seen() {
    let (server, kube) = pair("", &[("KUBE_SCALE_TIMEOUT_SECONDS", "2")]).await;
    let set = json!({"metadata": {"name": "patroni-spilo"}, "status": {"replicas": 3, "readyReplicas": 2}});
    server.on(&format!("GET {SETS}"), [Answer::Json(200, json!({"items": [set]}))]);
    server.on(&format!("WATCH {SETS}"), [Answer::LinesThenSilence(vec![])]);
    let error = tokio::time::timeout(PATIENCE, kube.scale_database(3)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("replicas 3 ready 2"), "{error}");
}

#[tokio::test]
async fn a_record_write_that_lost_the_race_is_a_conflict() {
    let (server, kube) = pair("", &[]).await;
    let conflict = Answer::Json(409, json!({"reason": "Conflict"}));
    server.on(&format!("PATCH {MAPS}/switchover-state-dev"), [conflict]);
    let write = RecordWrite {
        phase: Some("gold-standby".into()),
        transition: Some(String::new()),
        timestamp: "2026-01-02T03:04:05Z".into(),
        annotation: Some("no".into()),
        expect: Some("6".into()),
    };
    assert!(kube.write_record(&write).await.unwrap_err().is_conflict());
    let body = r#"{"data":{"last_stable_state":"gold-standby","last_stable_state_ts":"2026-01-02T03:04:05Z","transition":"","maintenance":null},"metadata":{"resourceVersion":"6","annotations":{"switchover-agent.io/last-refusal":"no"}}}"#;
    assert_eq!(server.writes(), [format!("PATCH {MAPS}/switchover-state-dev {body}")]);
}
