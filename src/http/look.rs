//! Requests that change nothing: probes, metrics, status, the record, open to everybody who reaches the port; and the
//! journal, which is not.

use std::any::Any;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::HttpState;
use crate::journal::story;
use crate::tasks::supervisor::TaskStatus;
use crate::telemetry::metrics::render;

/// A task as `/health` shows it: its status, with `stalled` in place of `running` where its pulse is silent.
fn shown(status: &TaskStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or(Value::Null);
    if status.stalled()
        && let Some(state) = value.get_mut("state")
    {
        *state = Value::from("stalled");
    }
    value
}

pub(super) async fn health(State(state): State<HttpState>) -> Response {
    let tasks = state.tasks.borrow().clone();
    let mut all = serde_json::Map::new();
    let mut down = Vec::new();
    for (name, status) in &tasks {
        let value = shown(status);
        if !status.works() {
            down.push(
                json!({"task": name.as_str(), "state": value.get("state"), "last_error": status.last_error}),
            );
        }
        all.insert(name.as_str().to_owned(), value);
    }
    if down.is_empty() {
        Json(json!({"status": "up", "tasks": all})).into_response()
    } else {
        let body = json!({"status": "down", "down": down, "tasks": all});
        (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
    }
}

pub(super) async fn ready(State(state): State<HttpState>) -> Response {
    let geo = state.ready.geo.as_ref().map(|geo| geo.is_ready());
    let why = if state.ready.stopping.load(Ordering::Relaxed) {
        Some("the agent stops")
    } else if state.ready.needs_record.load(Ordering::Relaxed) && state.record.borrow().is_none() {
        Some("the record was not read yet")
    } else if state.ready.needs_geo && geo == Some(false) {
        Some("the ingresses were not listed or Cloudflare was not read yet")
    } else {
        None
    };
    let mut body = json!({"ready": why.is_none()});
    if let Some(why) = why {
        body["detail"] = json!(why);
    }
    if let Some(geo) = geo {
        body["geo_sync"] = json!(geo);
    }
    let status = if why.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

pub(super) async fn metrics(State(state): State<HttpState>) -> Response {
    match render(&state.registry) {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be shown");
            detail(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be shown")
        }
    }
}

pub(super) async fn status(State(state): State<HttpState>) -> Json<Value> {
    Json(state.snapshot.borrow().clone())
}

pub(super) async fn configmap(State(state): State<HttpState>) -> Response {
    match &*state.record.borrow() {
        Some(data) => {
            let phase = data.get("last_stable_state").map(String::as_str).unwrap_or_default();
            Json(json!({"data": data, "other": phase})).into_response()
        }
        None => detail(StatusCode::SERVICE_UNAVAILABLE, "the record was not read yet"),
    }
}

/// What `/history` takes.
#[derive(serde::Deserialize)]
pub(super) struct HistoryQuery {
    #[serde(default = "newest")]
    limit: usize,
}

/// Entries that are shown where nobody says how many.
fn newest() -> usize {
    200
}

/// The journal for people. It names people and their reasons, so it needs the token.
pub(super) async fn history(
    State(state): State<HttpState>,
    Query(query): Query<HistoryQuery>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = state.auth.check(&headers, "/history", &state.metrics).await {
        return *refusal;
    }
    match state.diary.look().await {
        Ok(recovered) => {
            let mut text = story::tell(&recovered, query.limit).join("\n");
            text.push('\n');
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
        Err(error) => detail(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

pub(super) async fn not_found() -> Response {
    detail(StatusCode::NOT_FOUND, "Not Found")
}

/// An error in the predecessor's shape.
pub(super) fn detail(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({"detail": text}))).into_response()
}

/// The answer to a request whose handler panicked; the panic itself is in the log.
pub(super) fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("http handler panicked");
    detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
}
