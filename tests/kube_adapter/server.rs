//! The scripted API server: answers by method and path, remembers what it was asked.

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
use switchover_agent::adapters::kube::Kube;
use switchover_agent::config::{Reader, kube};

/// Last resort against a test that would hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One scripted answer.
#[derive(Clone)]
pub enum Answer {
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
pub struct Seen {
    pub line: String,
    pub content_type: String,
    pub authorization: String,
    pub body: String,
}

#[derive(Default)]
struct Script {
    /// Answers by `METHOD /path`; watches are `WATCH /path`. The last answer of a queue stays.
    answers: BTreeMap<String, VecDeque<Answer>>,
    seen: Vec<Seen>,
}

#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<Script>>);

impl Server {
    pub fn on(&self, key: &str, answers: impl IntoIterator<Item = Answer>) {
        self.0.lock().unwrap().answers.entry(key.to_owned()).or_default().extend(answers);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().seen.clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    /// Requests other than GET, as `METHOD path body`.
    pub fn writes(&self) -> Vec<String> {
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
pub async fn pair(prefix: &str, more: &[(&str, &str)]) -> (Server, Kube) {
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
    let settings = kube::read(&mut reader, "dev", true);
    assert_eq!(reader.into_problems(), []);
    (server, Kube::connect(settings, &prometheus::Registry::new()).await.unwrap())
}

pub const SERVICES: &str = "/api/v1/namespaces/apps/services";
pub const SETS: &str = "/apis/apps/v1/namespaces/apps/statefulsets";
pub const MAPS: &str = "/api/v1/namespaces/health/configmaps";
pub const RUNS: &str = "/apis/tekton.dev/v1beta1/namespaces/tools/pipelineruns";

/// A complete list at a version.
pub fn list(version: &str, items: Vec<Value>) -> Answer {
    Answer::Json(200, json!({"metadata": {"resourceVersion": version}, "items": items}))
}
