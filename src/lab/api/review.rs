//! TokenReview: whose bearer token is it?

use http::{Method, StatusCode};
use serde_json::json;

use super::status::Refusal;
use super::verbs::{Result, body};
use crate::lab::http::{Answer, Request, json_answer};
use crate::lab::settings::WorldSettings;

/// TokenReview: the lab's operator tokens are authentic, nothing else is.
pub(super) fn review(settings: &WorldSettings, request: &Request) -> Result<Answer> {
    if request.method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let mut review = body(request)?;
    let Some(token) = review["spec"]["token"].as_str() else {
        return Err(Refusal::bad_request("spec.token is required"));
    };
    let status = match settings.operator_tokens.get(token) {
        Some(user) => json!({
            "authenticated": true, "user": {"username": user, "groups": ["system:authenticated"]},
        }),
        None => json!({"authenticated": false, "error": "invalid bearer token"}),
    };
    review["apiVersion"] = json!("authentication.k8s.io/v1");
    review["kind"] = json!("TokenReview");
    review["status"] = status;
    Ok(json_answer(StatusCode::CREATED, &review))
}
