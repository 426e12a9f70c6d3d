//! The HTTP interface over a real socket: what everybody sees, what only an operator may do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its builders too")]

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use switchover_agent::bus::Bus;
use switchover_agent::config::{Reader, Secret};
use switchover_agent::http::{self, Auth, HttpState, OperatorDesk, Ready, TokenReviewer};
use switchover_agent::journal::{Journal, RealDisk};
use switchover_agent::model::{Event, OperatorRequest, Transition};
use switchover_agent::tasks::TaskName;
use switchover_agent::tasks::diary::Diary;
use switchover_agent::tasks::supervisor::{Heartbeat, TaskState, TaskStatus, TaskTable};
use switchover_agent::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "correct horse battery staple";

struct Agent {
    base: String,
    events: mpsc::Receiver<Event>,
    desk: OperatorDesk,
    snapshot: watch::Sender<Value>,
    tasks: watch::Sender<TaskTable>,
    record: watch::Sender<Option<BTreeMap<String, String>>>,
    ready: Arc<Ready>,
    cancel: CancellationToken,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// A diary with a journal in memory.
async fn diary() -> Arc<Diary> {
    let env = BTreeMap::from([("JOURNAL".to_owned(), "memory".to_owned())]);
    let settings = switchover_agent::config::journal::read(&mut Reader::new(&env), false);
    let (journal, _) = Journal::open(&settings, None, Box::new(RealDisk)).await.unwrap();
    Arc::new(Diary::new(journal, None))
}

async fn agent(auth: Auth) -> Agent {
    agent_with(auth, Ready::new(true)).await
}

async fn agent_with(auth: Auth, ready: Ready) -> Agent {
    let (bus, events) = Bus::new();
    let registry = Arc::new(prometheus::Registry::new());
    let metrics = Metrics::new(&registry);
    metrics.set_release("000000-dev");
    let (snapshot, tasks, record) =
        (watch::Sender::new(json!({})), watch::Sender::new(TaskTable::new()), watch::Sender::new(None));
    let (desk, ready) = (OperatorDesk::new(bus), Arc::new(ready));
    let state = HttpState {
        snapshot: snapshot.subscribe(),
        tasks: tasks.subscribe(),
        registry,
        metrics,
        operator: desk.clone(),
        auth,
        record: record.subscribe(),
        ready: Arc::clone(&ready),
        diary: diary().await,
    };
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let cancel = CancellationToken::new();
    let server = tokio::spawn(http::serve(listener, state, cancel.clone()));
    Agent { base, events, desk, snapshot, tasks, record, ready, cancel, server }
}

fn token() -> Auth {
    Auth::Token(Secret::new(TOKEN))
}

fn client() -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn get(agent: &Agent, path: &str) -> (u16, String) {
    let response = client().get(format!("{}{path}", agent.base)).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn send(agent: &Agent, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = client().request(method, format!("{}{path}", agent.base)).body(body.to_owned());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
}

fn status(name: TaskName, state: TaskState, error: Option<&str>) -> (TaskName, TaskStatus) {
    let last_error = error.map(str::to_owned);
    (name, TaskStatus { name, state, since: 1, restarts: 0, last_error, heartbeat: None })
}

/// Answers every request of the engine's queue and remembers it.
fn engine(agent: &mut Agent, accepted: bool, message: &'static str) -> mpsc::Receiver<OperatorRequest> {
    let (_, empty) = mpsc::channel(1);
    let mut events = std::mem::replace(&mut agent.events, empty);
    let desk = agent.desk.clone();
    let (seen, requests) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Operator { ticket, request, .. } = event {
                seen.send(request).await.unwrap();
                desk.answer(ticket, accepted, message);
            }
        }
    });
    requests
}

#[tokio::test]
async fn health_tells_which_task_is_down() {
    let agent = agent(token()).await;
    agent.tasks.send_modify(|table| table.extend([status(TaskName::LogicHandler, TaskState::Running, None)]));
    let (code, body) = get(&agent, "/health").await;
    assert_eq!(code, 200);
    assert!(body.starts_with("{\"status\":\"up\""), "{body}");
    let head = client().head(format!("{}/health", agent.base)).send().await.unwrap();
    assert_eq!(head.status(), 200);
    agent.tasks.send_modify(|table| {
        table.extend([status(TaskName::DnsWatch, TaskState::BackingOff, Some("no resolver"))]);
    });
    let (code, body) = get(&agent, "/health").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &body["status"]), (503, &json!("down")));
    assert_eq!(
        body["down"],
        json!([{"task": "dns_watch", "state": "backing-off", "last_error": "no resolver"}])
    );
}

#[tokio::test]
async fn a_task_whose_pulse_is_silent_shows_as_stalled() {
    let agent = agent(token()).await;
    let pulse = Heartbeat::new(std::time::Duration::ZERO);
    let (name, mut running) = status(TaskName::LogicHandler, TaskState::Running, None);
    running.heartbeat = Some(pulse);
    agent.tasks.send_modify(|table| table.extend([(name, running)]));
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let (code, body) = get(&agent, "/health").await;
    assert_eq!(code, 503);
    assert!(body.contains("\"state\":\"stalled\""), "{body}");
}

#[tokio::test]
async fn ready_follows_the_record_and_the_stop() {
    let agent = agent(token()).await;
    assert_eq!(get(&agent, "/ready").await.0, 503);
    assert_eq!(get(&agent, "/configmap").await.0, 503);
    let data: BTreeMap<String, String> =
        [("last_stable_state".to_owned(), "active-passive".to_owned())].into();
    agent.record.send_replace(Some(data));
    assert_eq!(get(&agent, "/ready").await.0, 200);
    let (code, body) = get(&agent, "/configmap").await;
    assert_eq!(code, 200);
    assert_eq!(body, r#"{"data":{"last_stable_state":"active-passive"},"other":"active-passive"}"#);
    agent.ready.stop();
    assert_eq!(get(&agent, "/ready").await.0, 503);
}

#[tokio::test]
async fn metrics_and_status_are_open_and_have_their_forms() {
    let agent = agent(token()).await;
    agent.snapshot.send_replace(json!({"phase": "gold-standby"}));
    assert_eq!(get(&agent, "/status").await, (200, r#"{"phase":"gold-standby"}"#.to_owned()));
    let response = client().get(format!("{}/metrics", agent.base)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with("switchover_transition{")).unwrap();
    assert!(line.contains("release=\"000000-dev\"} 0.0"), "{line}");
}

#[tokio::test]
async fn unknown_paths_and_wrong_verbs_answer_in_the_old_words() {
    let agent = agent(token()).await;
    assert_eq!(get(&agent, "/nothing").await, (404, r#"{"detail":"Not Found"}"#.to_owned()));
    let (code, body) = send(&agent, "PUT", "/health", Some(TOKEN), "").await;
    assert_eq!((code, body), (405, json!({"detail": "Method Not Allowed"})));
    for path in
        ["/set-primary", "/set-readonly", "/restart-kong", "/keycloak_start", "/keycloak_service_flow"]
    {
        let response = client().get(format!("{}{path}", agent.base)).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"PUT,POST".parse().unwrap())
        );
        let body: Value = response.json().await.unwrap();
        assert_eq!((&body["detail"], &body["use"]), (&json!("Method Not Allowed"), &json!("PUT")), "{path}");
    }
    let (code, body) = send(&agent, "PUT", "/phase/transition-to-silver", Some(TOKEN), "").await;
    assert_eq!(code, 404);
    assert_eq!(body["known"].as_array().unwrap().len(), Transition::ALL.len());
}

#[tokio::test]
async fn every_side_effect_needs_the_token() {
    let mut agent = agent(token()).await;
    for path in
        ["/phase/transition-to-golddr-primary", "/set-primary", "/maintenance/on", "/transition/abort"]
    {
        for wrong in
            [None, Some("correct horse battery stapl"), Some("correct horse battery staple!"), Some("x")]
        {
            assert_eq!(send(&agent, "PUT", path, wrong, "").await.0, 401, "{path} {wrong:?}");
        }
    }
    let response = client().put(format!("{}/set-primary", agent.base)).send().await.unwrap();
    assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    assert!(agent.events.try_recv().is_err(), "nothing reached the engine");
    let text = get(&agent, "/metrics").await.1;
    assert!(text.contains("switchover_http_auth_failures_total{reason=\"wrong-token\"} 12.0"), "{text}");
}

#[tokio::test]
async fn without_a_credential_configured_every_side_effect_is_off_and_says_how_to_turn_it_on() {
    let mut agent = agent(Auth::Nobody).await;
    let (code, body) = send(&agent, "POST", "/set-primary", Some("anything"), "").await;
    assert_eq!(code, 403);
    assert!(body["detail"].as_str().unwrap().contains("API_TOKEN_FILE"), "{body}");
    assert!(agent.events.try_recv().is_err());
}

#[tokio::test]
async fn accepted_actions_answer_as_the_predecessor_did() {
    let mut agent = agent(token()).await;
    let mut requests = engine(&mut agent, true, "begins now");
    for (path, code, body, request) in [
        ("/maintenance/on", 200, json!({"maintenance": true}), OperatorRequest::Maintenance(true)),
        ("/maintenance/off", 200, json!({"maintenance": false}), OperatorRequest::Maintenance(false)),
        ("/rollback-active-down", 200, json!({"done": "true"}), OperatorRequest::RollbackActiveDown),
        ("/set-primary", 200, json!({"done": "true"}), OperatorRequest::SetPrimary),
        ("/set-readonly", 200, json!({"done": "true"}), OperatorRequest::SetReadonly),
        ("/restart-kong", 200, json!({"done": "true"}), OperatorRequest::RestartGateway),
        ("/keycloak_start", 200, json!({"done": "true"}), OperatorRequest::StartApplication),
        ("/keycloak_service_flow", 200, json!({"done": "true"}), OperatorRequest::ServiceFlow(true)),
        ("/keycloak_service_block", 200, json!({"done": "true"}), OperatorRequest::ServiceFlow(false)),
        (
            "/transition/resume",
            202,
            json!({"accepted": true, "message": "begins now"}),
            OperatorRequest::Resume,
        ),
        (
            "/transition/abort",
            202,
            json!({"accepted": true, "message": "begins now"}),
            OperatorRequest::Abort,
        ),
        (
            "/acknowledge",
            202,
            json!({"accepted": true, "message": "begins now"}),
            OperatorRequest::Acknowledge,
        ),
    ] {
        assert_eq!(send(&agent, "PUT", path, Some(TOKEN), "").await, (code, body), "{path}");
        assert_eq!(requests.recv().await, Some(request), "{path}");
    }
    for transition in Transition::ALL {
        let path = format!("/phase/transition-to-{transition}");
        let (code, body) =
            send(&agent, "POST", &path, Some(TOKEN), r#"{"accept_data_loss":"gold burnt"}"#).await;
        assert_eq!((code, &body["accepted"]), (202, &json!(true)));
        let accept_data_loss = Some("gold burnt".to_owned());
        assert_eq!(requests.recv().await, Some(OperatorRequest::Transition { transition, accept_data_loss }));
    }
}

#[tokio::test]
async fn a_refusal_keeps_its_name_and_a_malformed_body_is_explained() {
    let mut agent = agent(token()).await;
    let _requests = engine(&mut agent, false, "peer-lost");
    let path = "/phase/transition-to-gold-standby";
    let (code, body) = send(&agent, "PUT", path, Some(TOKEN), "").await;
    assert_eq!((code, body), (409, json!({"accepted": false, "refusal": "peer-lost"})));
    for bad in ["{", "[]", r#"{"accept-data-loss":"x"}"#, r#"{"accept_data_loss":" "}"#] {
        assert_eq!(send(&agent, "PUT", path, Some(TOKEN), bad).await.0, 400, "{bad}");
    }
    let large = "x".repeat(http::BODY_LIMIT + 1);
    assert_eq!(send(&agent, "PUT", path, Some(TOKEN), &large).await.0, 413);
}

#[tokio::test]
async fn an_engine_that_is_gone_is_503_and_one_that_is_silent_is_504() {
    let mut agent = agent(token()).await;
    let (code, _) = send(&agent, "PUT", "/set-primary", Some(TOKEN), "").await;
    assert_eq!(code, 504);
    agent.events.close();
    let (code, _) = send(&agent, "PUT", "/set-primary", Some(TOKEN), "").await;
    assert_eq!(code, 503);
}

struct Reviewer;

impl TokenReviewer for Reviewer {
    fn review<'a>(&'a self, token: &'a Secret) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(async move {
            match token.expose() {
                "alice" | "mallory" => Ok(Some(token.expose().to_owned())),
                "down" => Err("connection refused".to_owned()),
                _ => Ok(None),
            }
        })
    }
}

#[tokio::test]
async fn token_review_lets_only_the_named_users_through() {
    let auth = Auth::Review { reviewer: Arc::new(Reviewer), allowed_users: vec!["alice".into()] };
    let mut agent = agent(auth).await;
    let _requests = engine(&mut agent, true, "done");
    for (token, code) in [("alice", 200), ("mallory", 403), ("nobody", 401), ("down", 503)] {
        assert_eq!(send(&agent, "PUT", "/set-primary", Some(token), "").await.0, code, "{token}");
    }
}

#[tokio::test]
async fn garbage_on_the_port_disturbs_nobody_and_the_stop_is_bounded() {
    let agent = agent(token()).await;
    let address = agent.base.trim_start_matches("http://").to_owned();
    let mut garbage = tokio::net::TcpStream::connect(&address).await.unwrap();
    garbage.write_all(b"\x16\x03\x01 not http\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    garbage.read_to_end(&mut answer).await.ok();
    // a client that never finishes its request must not keep the agent from ending
    let mut slow = tokio::net::TcpStream::connect(&address).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    assert_eq!(get(&agent, "/health").await.0, 200);
    agent.cancel.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), agent.server).await;
    assert!(ended.unwrap().unwrap().is_ok());
    assert!(agent.ready.stopping.load(std::sync::atomic::Ordering::Relaxed));
}

#[tokio::test]
async fn an_address_in_use_is_named_in_the_error() {
    let first = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = http::bind(first.local_addr().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("HTTP_LISTEN=127.0.0.1:"), "{error}");
}

/// Beside the engine a load balancer's trouble is shown and holds nothing back: the peer link needs the Service.
#[tokio::test]
async fn geo_sync_holds_back_readiness_only_where_it_is_alone() {
    for (alone, status) in [(true, 503), (false, 200)] {
        let health = Arc::new(switchover_agent::tasks::geo_sync::GeoHealth::default());
        let agent = agent_with(token(), Ready::new(false).with_geo(Some(health), alone)).await;
        let (answered, body) = get(&agent, "/ready").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((answered, &body["ready"], &body["geo_sync"]), (status, &json!(!alone), &json!(false)));
    }
}
