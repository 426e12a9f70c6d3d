//! Operations: a change that was accepted, followed to its end.
//!
//! An accepted change is no success; `DONE` with an error is a failure. A look that fails for the moment is repeated
//! until the deadline: the operation goes on meanwhile.

use serde_json::Value;
use tokio::time::Instant;

use super::error::shorten;
use super::routers::RouterPlace;
use super::{Compute, GcpError, escape};
use crate::model::FailureKind;

impl Compute {
    /// Follows the operation that a change of a router was answered with.
    pub(super) async fn finish_operation(
        &self,
        place: &RouterPlace,
        mut operation: Value,
        deadline: Instant,
    ) -> Result<(), GcpError> {
        let what = format!("PATCH router {}", place.name);
        let Some(name) = operation.get("name").and_then(Value::as_str).map(str::to_owned) else {
            return Err(GcpError::malformed(&what, "the answer is no operation: it has no name"));
        };
        let path = format!(
            "/projects/{}/regions/{}/operations/{}",
            escape(&place.project),
            escape(&place.region),
            escape(&name)
        );
        let settings = &self.inner.settings;
        let mut wait = settings.poll;
        while operation.get("status").and_then(Value::as_str) != Some("DONE") {
            let late = || GcpError::OperationLate { what: what.clone(), operation: name.clone() };
            // A little is kept for the read-back.
            if Instant::now() + wait >= deadline || !self.inner.attempts.sleep(wait).await {
                return Err(late());
            }
            wait = (wait * 2).min(settings.poll * 10);
            match self.get(&path, "regionOperations.get", settings.api_timeout).await {
                Ok(now) => operation = now,
                Err(error) if error.kind() == FailureKind::Permanent => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, operation = %name, "an operation could not be looked at")
                }
            }
        }
        judge(&what, &name, &operation)
    }
}

/// Whether an operation that is done did what was asked.
fn judge(what: &str, name: &str, operation: &Value) -> Result<(), GcpError> {
    let first = operation.pointer("/error/errors/0");
    let status = operation.get("httpErrorStatusCode").and_then(Value::as_u64);
    if operation.get("error").is_none_or(Value::is_null) && status.is_none_or(|status| status < 400) {
        if let Some(warning) = operation.pointer("/warnings/0/message").and_then(Value::as_str) {
            tracing::warn!(operation = %name, warning = %shorten(warning), "{what}: done with a warning");
        }
        return Ok(());
    }
    let text = |field: &str| first.and_then(|e| e.get(field)).and_then(Value::as_str).map(shorten);
    let code = text("code").or_else(|| status.map(|status| status.to_string()));
    Err(GcpError::Operation {
        what: what.to_owned(),
        operation: name.to_owned(),
        code: code.unwrap_or_else(|| "-".to_owned()),
        message: text("message").unwrap_or_else(|| "-".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn done_with_an_error_is_a_failure() {
        let good =
            json!({"name": "op", "status": "DONE", "warnings": [{"code": "X", "message": "mind the gap"}]});
        assert_eq!(judge("PATCH r", "op", &good), Ok(()));
        let bad = json!({"name": "op", "status": "DONE", "httpErrorStatusCode": 400,
            "error": {"errors": [{"code": "INVALID_USAGE", "message": "no\nway"}]}});
        let error = judge("PATCH r", "op", &bad).unwrap_err();
        assert_eq!(error.to_string(), "GCP: PATCH r: operation op failed: INVALID_USAGE: no way");
        assert!(judge("PATCH r", "op", &json!({"httpErrorStatusCode": 503})).is_err(), "without a body too");
    }
}
