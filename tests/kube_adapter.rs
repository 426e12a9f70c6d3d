//! The Kubernetes adapter against a scripted API server: exact requests, verdicts, waits and watches.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::StreamExt;
use serde_json::{Value, json};
use switchover_agent::adapters::kube::watch::list_then_watch;
use switchover_agent::adapters::kube::{Change, Kube, KubeError, WatchTarget};
use switchover_agent::bus::Bus;
use switchover_agent::config::{Reader, kube};
use switchover_agent::model::{Detail, Event, FailureKind, RecordSeen, RecordWrite, RunEvent};
use switchover_agent::tasks::{Ctx, Exit, kube_watch, tekton_watch};
use tokio_util::sync::CancellationToken;

/// Last resort against a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// One scripted answer.
#[derive(Clone)]
enum Answer {
    Json(u16, Value),
    Text(u16, String),
    /// Lines of a watch, then a clean end.
    Lines(Vec<Value>),
    /// Lines of a watch, then silence.
    LinesThenSilence(Vec<Value>),
    /// No answer at all.
    Hang,
}

/// A request as it came in.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    content_type: String,
    authorization: String,
    body: String,
}

#[derive(Default)]
struct Script {
    /// Answers by `METHOD /path`; watches are `WATCH /path`. The last answer of a queue stays.
    answers: BTreeMap<String, VecDeque<Answer>>,
    seen: Vec<Seen>,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Script>>);

impl Server {
    fn on(&self, key: &str, answers: impl IntoIterator<Item = Answer>) {
        self.0.lock().unwrap().answers.entry(key.to_owned()).or_default().extend(answers);
    }

    fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().seen.clone()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    /// Requests other than GET, as `METHOD path body`.
    fn writes(&self) -> Vec<String> {
        let seen = self.seen();
        let writes = seen.iter().filter(|seen| !seen.line.starts_with("GET"));
        writes.map(|seen| format!("{} {}", seen.line, seen.body).trim_end().to_owned()).collect()
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let header = |name: &str| {
        parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    let watch = parts.uri.query().is_some_and(|query| query.contains("watch=true"));
    let method = if watch { "WATCH" } else { parts.method.as_str() };
    let key = format!("{method} {}", parts.uri.path());
    let next = {
        let mut script = server.0.lock().unwrap();
        script.seen.push(Seen {
            line: format!("{} {}", parts.method, parts.uri),
            content_type: header("content-type"),
            authorization: header("authorization"),
            body: String::from_utf8(body.to_vec()).unwrap(),
        });
        match script.answers.get_mut(&key) {
            Some(queue) if queue.len() > 1 => queue.pop_front().unwrap(),
            Some(queue) => queue.front().cloned().unwrap(),
            None if method == "GET" || method == "WATCH" => Answer::Json(404, json!({"reason": "NotFound"})),
            None => Answer::Text(204, String::new()),
        }
    };
    let respond = |status: u16, body: Body| Response::builder().status(status).body(body).unwrap();
    let chunks = |lines: &[Value]| {
        let lines: Vec<Result<Bytes, Infallible>> =
            lines.iter().map(|line| Ok(Bytes::from(format!("{line}\n")))).collect();
        futures_util::stream::iter(lines)
    };
    match next {
        Answer::Json(status, value) => respond(status, Body::from(value.to_string())),
        Answer::Text(status, text) => respond(status, Body::from(text)),
        Answer::Lines(lines) => respond(200, Body::from_stream(chunks(&lines))),
        Answer::LinesThenSilence(lines) => {
            let silence = futures_util::stream::pending::<Result<Bytes, Infallible>>();
            respond(200, Body::from_stream(chunks(&lines).chain(silence)))
        }
        Answer::Hang => std::future::pending().await,
    }
}

/// A server and a client of it; further settings as pairs. `prefix` precedes every path.
async fn pair(prefix: &str, more: &[(&str, &str)]) -> (Server, Kube) {
    let server = Server::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{prefix}", listener.local_addr().unwrap());
    let app = Router::new().fallback(answer).with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let base = [
        ("KUBE_NAMESPACE", "apps"),
        ("KUBE_HEALTH_NAMESPACE", "health"),
        ("KUBE_TEKTON_NAMESPACE", "tools"),
        ("TERRAFORM_TFVARS", "tfvars"),
        ("TEKTON_API_VERSION", "v1beta1"),
        ("KUBE_API_URL", url.as_str()),
    ];
    let env: BTreeMap<String, String> =
        base.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut reader = Reader::new(&env);
    let settings = kube::read(&mut reader, "dev");
    assert_eq!(reader.into_problems(), []);
    (server, Kube::connect(settings, &prometheus::Registry::new()).await.unwrap())
}

const SERVICES: &str = "/api/v1/namespaces/apps/services";
const SETS: &str = "/apis/apps/v1/namespaces/apps/statefulsets";
const MAPS: &str = "/api/v1/namespaces/health/configmaps";
const RUNS: &str = "/apis/tekton.dev/v1beta1/namespaces/tools/pipelineruns";

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

fn config_map(version: &str, transition: &str) -> Value {
    json!({"metadata": {"name": "switchover-state-dev", "resourceVersion": version},
           "data": {"last_stable_state": "active-passive", "transition": transition}})
}

fn maps() -> WatchTarget {
    WatchTarget { name: "maps", path: MAPS.to_owned(), selector: Some("a=b".to_owned()) }
}

/// The next changes of a watch, each as a short text.
async fn texts(changes: &mut tokio::sync::mpsc::Receiver<Change>, count: usize) -> Vec<String> {
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap_or("-").to_owned();
    let mut texts = Vec::new();
    for _ in 0..count {
        let change = tokio::time::timeout(PATIENCE, changes.recv()).await.expect("a change in time").unwrap();
        texts.push(match change {
            Change::Listed(objects) => format!("listed {}", objects.len()),
            Change::Added(object) => format!("added {}", version(&object)),
            Change::Modified(object) => format!("modified {}", version(&object)),
            Change::Deleted(object) => format!("deleted {}", version(&object)),
            Change::Lost(_) => "lost".to_owned(),
        });
    }
    texts
}

fn list(version: &str, items: Vec<Value>) -> Answer {
    Answer::Json(200, json!({"metadata": {"resourceVersion": version}, "items": items}))
}

fn event(kind: &str, version: &str) -> Value {
    json!({"type": kind, "object": config_map(version, "")})
}

#[tokio::test]
async fn a_watch_resumes_after_a_clean_end_and_relists_after_410() {
    let (server, kube) = pair("", &[]).await;
    let lists = [list("5", vec![]), list("20", vec![config_map("19", "")]), list("30", vec![])];
    server.on(&format!("GET {MAPS}"), lists);
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}});
    let bookmark = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}});
    let watches = [
        Answer::Lines(vec![event("ADDED", "6"), bookmark]),
        Answer::Lines(vec![json!({"type": "NOVELTY"}), gone]),
        Answer::Json(410, json!({"code": 410})),
        Answer::LinesThenSilence(vec![event("DELETED", "31")]),
    ];
    server.on(&format!("WATCH {MAPS}"), watches);
    let mut changes = list_then_watch(&kube, maps());
    assert_eq!(texts(&mut changes, 5).await, ["listed 0", "added 6", "listed 1", "listed 0", "deleted 31"]);
    let lines = server.lines();
    assert_eq!(lines[0], format!("GET {MAPS}?labelSelector=a%3Db"));
    assert!(lines[1].ends_with("&resourceVersion=5"), "{lines:?}");
    assert!(lines[2].ends_with("&resourceVersion=9"), "{lines:?}");
    assert!(lines[4].ends_with("&resourceVersion=20"), "{lines:?}");
    assert!(lines[1].contains("allowWatchBookmarks=true&timeoutSeconds=300"), "{lines:?}");
}

#[tokio::test]
async fn a_silent_watch_is_torn_down_and_the_list_read_again() {
    let (server, kube) = pair("", &[("KUBE_WATCH_STALL_SECONDS", "0.2")]).await;
    server.on(&format!("GET {MAPS}"), [list("5", vec![]), list("6", vec![config_map("6", "")])]);
    server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![])]);
    let mut changes = list_then_watch(&kube, maps());
    assert_eq!(texts(&mut changes, 2).await, ["listed 0", "listed 1"]);
}

#[tokio::test]
async fn a_server_that_closes_at_once_is_not_hammered() {
    let (server, kube) = pair("", &[]).await;
    server.on(&format!("GET {MAPS}"), [list("5", vec![])]);
    server.on(&format!("WATCH {MAPS}"), [Answer::Lines(vec![event("MODIFIED", "6")])]);
    let mut changes = list_then_watch(&kube, maps());
    let began = std::time::Instant::now();
    texts(&mut changes, 5).await;
    // Waits of 0.2, 0.4 and 0.8 s lie between the four watches.
    assert!(began.elapsed() >= Duration::from_millis(1390), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_sloppy_list_falls_back_to_a_watch_from_the_start() {
    for answer in [
        Answer::Json(200, json!({"items": []})),
        Answer::LinesThenSilence(vec![event("ADDED", "1")]),
        Answer::Text(200, "nonsense".into()),
    ] {
        let (server, kube) = pair("", &[("KUBE_TIMEOUT_SECONDS", "1")]).await;
        server.on(&format!("GET {MAPS}"), [answer]);
        server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![event("ADDED", "7")])]);
        let mut changes = list_then_watch(&kube, maps());
        loop {
            let text = texts(&mut changes, 1).await.remove(0);
            if text == "added 7" {
                break;
            }
            assert_eq!(text, "listed 0");
        }
        assert!(!server.lines().last().unwrap().contains("resourceVersion"), "{:?}", server.lines());
    }
}

#[tokio::test]
async fn an_outage_is_told_once_and_its_end_by_a_list() {
    let (server, kube) = pair("", &[]).await;
    let mut answers = vec![Answer::Text(503, String::new()); 6];
    answers.push(list("5", vec![]));
    server.on(&format!("GET {MAPS}"), answers);
    server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![])]);
    let mut changes = list_then_watch(&kube, maps());
    assert_eq!(texts(&mut changes, 2).await, ["lost", "listed 0"]);
}

fn context() -> (Ctx, tokio::sync::mpsc::Receiver<Event>) {
    let (bus, events) = Bus::new();
    let registry = Arc::new(prometheus::Registry::new());
    (Ctx { cancel: CancellationToken::new(), bus, registry }, events)
}

async fn next_record(events: &mut tokio::sync::mpsc::Receiver<Event>) -> RecordSeen {
    match tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event in time") {
        Some(Event::Record(seen)) => seen,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_record_is_told_once_per_change_and_missing_only_when_deleted() {
    let (server, kube) = pair("", &[]).await;
    server.on(&format!("GET {MAPS}"), [list("5", vec![config_map("5", "")])]);
    let asked = json!({"type": "MODIFIED", "object": config_map("6", "golddr-primary")});
    let lines = vec![event("ADDED", "5"), event("ADDED", "4"), asked.clone(), asked, event("DELETED", "7")];
    server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(lines)]);
    let (ctx, mut events) = context();
    let task = tokio::spawn(kube_watch::run(ctx.clone(), kube));
    let mut versions = Vec::new();
    for _ in 0..3 {
        versions.push(match next_record(&mut events).await {
            RecordSeen::Present(record) => record.resource_version.unwrap(),
            RecordSeen::Missing => "missing".to_owned(),
            RecordSeen::Unknown(reason) => panic!("{reason}"),
        });
    }
    assert_eq!(versions, ["5", "6", "missing"]);
    ctx.cancel.cancel();
    assert_eq!(task.await.unwrap(), Exit::Cancelled);
}

#[tokio::test]
async fn the_record_is_read_again_at_an_interval_even_if_its_watch_is_silent() {
    let (server, kube) = pair("", &[("RECORD_RESYNC_SECONDS", "1")]).await;
    let lists = [list("5", vec![config_map("5", "")]), list("6", vec![config_map("6", "")])];
    server.on(&format!("GET {MAPS}"), lists);
    server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![])]);
    let (ctx, mut events) = context();
    tokio::spawn(kube_watch::run(ctx.clone(), kube));
    for version in ["5", "6", "6"] {
        let RecordSeen::Present(record) = next_record(&mut events).await else { panic!("no record") };
        assert_eq!(record.resource_version.as_deref(), Some(version));
    }
    ctx.cancel.cancel();
}

#[tokio::test]
async fn an_unreachable_record_is_unknown_and_never_missing() {
    let (server, kube) = pair("", &[]).await;
    server.on(&format!("GET {MAPS}"), [Answer::Text(500, String::new())]);
    let (ctx, mut events) = context();
    tokio::spawn(kube_watch::run(ctx.clone(), kube));
    assert!(matches!(next_record(&mut events).await, RecordSeen::Unknown(_)));
    ctx.cancel.cancel();
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

#[tokio::test]
async fn pipeline_runs_are_told_in_the_version_that_is_served() {
    let (server, kube) = pair("", &[]).await;
    let mut settings = kube.settings().clone();
    settings.tekton_version = None;
    let kube = Kube::connect(settings, &prometheus::Registry::new()).await.unwrap();
    let group = json!({"versions": [{"version": "v1beta1"}, {"version": "v1"}]});
    server.on("GET /apis/tekton.dev", [Answer::Json(404, json!({})), Answer::Json(200, group)]);
    assert_eq!(kube.pipeline_runs_path().await.unwrap(), RUNS);
    let runs = RUNS.replace("v1beta1", "v1");
    server.on(&format!("GET {runs}"), [list("3", vec![json!({"metadata": {"name": "r1"}}), json!({})])]);
    let done = json!({"type": "MODIFIED", "object": {"metadata": {"name": "r1"},
        "status": {"conditions": [{"type": "Succeeded", "status": "True", "reason": "Completed"}]}}});
    server.on(&format!("WATCH {runs}"), [Answer::LinesThenSilence(vec![done])]);
    let (ctx, mut events) = context();
    tokio::spawn(tekton_watch::run(ctx.clone(), kube));
    let mut told = Vec::new();
    for _ in 0..3 {
        match tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            Event::PipelineRun(run) => told.push((run.kind, run.name, run.succeeded)),
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        (RunEvent::Added, "r1".to_owned(), None),
        (RunEvent::Added, String::new(), None),
        (RunEvent::Modified, "r1".to_owned(), Some(true)),
    ];
    assert_eq!(told, expected);
    ctx.cancel.cancel();
}
