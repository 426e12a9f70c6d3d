//! A strict subset of the Kubernetes API over the site's store.
//!
//! [`paths`] reads URLs, [`verbs`] does what they ask for, [`watch`] streams, [`patch`] merges, [`rules`] refuses
//! what a real API server refuses, [`status`] spells the refusals, [`discovery`] lists what there is.

pub mod discovery;
mod list;
pub mod patch;
pub mod paths;
mod review;
pub mod rules;
mod scale;
pub mod selector;
pub mod status;
pub mod verbs;
pub mod watch;

use http::{Method, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::http::{Answer, Request, json_answer, text_answer};
use super::world::World;
use crate::model::Side;
use paths::Target;
use status::Refusal;

/// Answers a request under `/k8s`.
pub fn answer(world: &World, side: Side, cancel: &CancellationToken, request: &Request) -> Answer {
    if let Some(token) = &world.settings().api_token {
        let wanted = format!("Bearer {token}");
        if request.header("authorization") != Some(wanted.as_str()) {
            return Refusal::unauthorized().answer();
        }
    }
    let path = request.rest("/k8s").trim_end_matches('/');
    if matches!(path, "/readyz" | "/livez" | "/healthz") {
        return text_answer(StatusCode::OK, "text/plain; charset=utf-8", "ok".to_owned());
    }
    if request.method == Method::GET {
        if path == "/version" {
            let version =
                json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0-lab", "platform": "lab"});
            return json_answer(StatusCode::OK, &version);
        }
        if let Some(document) = discovery::document(path) {
            return json_answer(StatusCode::OK, &document);
        }
    }
    let result = match Target::parse(path) {
        Some(target) => verbs::answer(world, side, cancel, &target, request),
        None => Err(Refusal::no_such_path()),
    };
    result.unwrap_or_else(Refusal::answer)
}
