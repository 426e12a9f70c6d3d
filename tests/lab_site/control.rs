//! Pipelines, activity, phases and the world of one site per process.

use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use serde_json::{Value, json};
use switchover_agent::lab::names::{View, view};
use switchover_agent::lab::{World, WorldSettings};
use switchover_agent::model::Side;
use tokio::net::TcpListener;

use crate::*;

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
#[tokio::test]
async fn faults_of_pipelines_bite_and_are_lifted() {
    let lab = Lab::start(quick()).await;
    let side = Side::Active;
    let runs = "/k8s/apis/tekton.dev/v1/namespaces/tekton-dev/pipelineruns";
    let has = |list: &Value, reason: &str| list.to_string().contains(&format!("\"reason\":\"{reason}\""));
    lab.put(side, "/initiate/pipeline_fail").await;
    lab.trigger(side).await;
    lab.until(side, runs, "fails", |_, list| has(list, "Failed")).await;
    lab.put(side, "/lift/all").await;
    lab.put(side, "/initiate/pipeline_hang").await;
    lab.trigger(side).await;
    lab.until(side, runs, "hangs", |_, list| has(list, "Running")).await;
    lab.put(side, "/lift/pipeline_hang").await;
    lab.until(side, runs, "goes on", |_, list| has(list, "Succeeded")).await;
    lab.put(side, "/initiate/listener_down").await;
    let request = lab.http.post(lab.url(side, "/tekton")).header("X-GitHub-Event", "push").body("{}");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_phase_puts_both_sites_back_to_a_normal_day() {
    let lab = Lab::start(WorldSettings { writer_interval_ms: Some(10), ..quick() }).await;
    eventually("rows are written", || lab.world.acknowledged_rows() > 2).await;
    lab.put(Side::Active, "/phase/transition-to-active-passive").await;
    assert_eq!(lab.world.lost_rows(), Vec::<u64>::new(), "a reset by hand loses no rows");
    let (_, state) = lab.get(Side::Active, "/lab/state").await;
    assert_eq!(state["record"]["last_stable_state"], "gold-standby");
    assert_eq!(state["record"]["transition"], "active-passive");
    assert_eq!(state["database"]["writable"], false);
    let (_, cluster) = lab.get(Side::Active, "/patroni/cluster").await;
    assert_eq!(cluster["members"][0]["role"], "standby_leader");
    assert_eq!(lab.put(Side::Passive, "/phase/active-passive").await, StatusCode::NO_CONTENT);
    for (side, service, writable) in
        [(Side::Active, "application", true), (Side::Passive, "maintenance page", false)]
    {
        let (_, state) = lab.get(side, "/lab/state").await;
        assert_eq!(state["record"]["last_stable_state"], "active-passive", "{side}");
        assert_eq!(state["record"]["transition"], "", "{side}");
        assert_eq!((&state["service"], &state["database"]["writable"]), (&json!(service), &json!(writable)));
        assert_eq!(state["health_ready"], 2, "{side}");
    }
}
