//! Requests with side effects: authenticated, handed to the engine, answered as it answers.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::look::detail;
use super::{DeskError, HttpState};
use crate::model::{OperatorRequest, Transition};

/// What `/phase/...` starts with.
const PREFIX: &str = "transition-to-";

/// Paths of [`action`].
pub(super) const PATHS: [&str; 12] = [
    "/maintenance/on",
    "/maintenance/off",
    "/rollback-active-down",
    "/set-primary",
    "/set-readonly",
    "/restart-kong",
    "/keycloak_start",
    "/keycloak_service_flow",
    "/keycloak_service_block",
    "/transition/resume",
    "/transition/abort",
    "/acknowledge",
];

/// The request of a path and the predecessor's body on success; `None` = 202 and our own body.
fn request_of(path: &str) -> Option<(OperatorRequest, Option<Value>)> {
    let done = || Some(json!({"done": "true"}));
    Some(match path {
        "/maintenance/on" => (OperatorRequest::Maintenance(true), Some(json!({"maintenance": true}))),
        "/maintenance/off" => (OperatorRequest::Maintenance(false), Some(json!({"maintenance": false}))),
        "/rollback-active-down" => (OperatorRequest::RollbackActiveDown, done()),
        "/set-primary" => (OperatorRequest::SetPrimary, done()),
        "/set-readonly" => (OperatorRequest::SetReadonly, done()),
        "/restart-kong" => (OperatorRequest::RestartGateway, done()),
        "/keycloak_start" => (OperatorRequest::StartApplication, done()),
        "/keycloak_service_flow" => (OperatorRequest::ServiceFlow(true), done()),
        "/keycloak_service_block" => (OperatorRequest::ServiceFlow(false), done()),
        "/transition/resume" => (OperatorRequest::Resume, None),
        "/transition/abort" => (OperatorRequest::Abort, None),
        "/acknowledge" => (OperatorRequest::Acknowledge, None),
        _ => return None,
    })
}

pub(super) async fn action(State(state): State<HttpState>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    match request_of(path) {
        Some((request, old_body)) => ask(&state, &headers, path, request, old_body).await,
        None => detail(StatusCode::NOT_FOUND, "Not Found"),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseBody {
    accept_data_loss: Option<String>,
}

pub(super) async fn phase(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(transition) = name.strip_prefix(PREFIX).and_then(|name| name.parse::<Transition>().ok()) else {
        let known: Vec<String> =
            Transition::ALL.iter().map(|known| format!("{PREFIX}{}", known.wire())).collect();
        return (StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found", "known": known}))).into_response();
    };
    let body: PhaseBody = if body.trim_ascii().is_empty() {
        PhaseBody::default()
    } else {
        match serde_json::from_slice(&body) {
            Ok(body) => body,
            Err(error) => {
                let text = format!("the body must be empty or {{\"accept_data_loss\":\"reason\"}}: {error}");
                return detail(StatusCode::BAD_REQUEST, &text);
            }
        }
    };
    if body.accept_data_loss.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
        return detail(StatusCode::BAD_REQUEST, "accept_data_loss needs a reason");
    }
    let request = OperatorRequest::Transition { transition, accept_data_loss: body.accept_data_loss };
    ask(&state, &headers, uri.path(), request, None).await
}

async fn ask(
    state: &HttpState,
    headers: &HeaderMap,
    path: &str,
    request: OperatorRequest,
    old_body: Option<Value>,
) -> Response {
    let who = match state.auth.check(headers, path, &state.metrics).await {
        Ok(who) => who,
        Err(response) => return *response,
    };
    tracing::info!(path, %who, "operator request");
    match state.operator.ask(&who, request).await {
        Ok(answer) if answer.accepted => match old_body {
            Some(body) => Json(body).into_response(),
            None => (StatusCode::ACCEPTED, Json(json!({"accepted": true, "message": answer.message})))
                .into_response(),
        },
        Ok(answer) => {
            let body = json!({"accepted": false, "refusal": answer.message});
            (StatusCode::CONFLICT, Json(body)).into_response()
        }
        Err(error) => {
            let status = match error {
                DeskError::NoAnswer => StatusCode::GATEWAY_TIMEOUT,
                DeskError::EngineGone | DeskError::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            };
            detail(status, &error.to_string())
        }
    }
}

/// 405 in the predecessor's words; for a path with a side effect it names the right verb.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    let acts = request_of(path).is_some() || path.starts_with("/phase/");
    let (allow, body) = if acts {
        let hint = format!("{path} has a side effect: use PUT (or POST) with a bearer token, not {method}");
        ("PUT,POST", json!({"detail": "Method Not Allowed", "use": "PUT", "hint": hint}))
    } else {
        ("GET,HEAD", json!({"detail": "Method Not Allowed"}))
    };
    let mut response = (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}
