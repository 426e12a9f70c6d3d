//! One call of the Compute API: token, limit, status, JSON, and what the onlooker is told.
//!
//! Never repeats a call, with one exception: a 401 throws the token away, and the call is made once more with a new
//! one, because a token may be revoked before it expires.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::{Compute, GcpError};
use crate::adapters::attempts::Told;
use crate::adapters::http_client::HttpError;
use crate::adapters::wire::{Got, Sent};

impl Compute {
    pub(super) async fn get(
        &self,
        path: &str,
        operation: &'static str,
        limit: Duration,
    ) -> Result<Value, GcpError> {
        self.request(Method::GET, path, None, operation, limit).await
    }

    /// `path` begins with a slash, below the endpoint, and may have a query. `limit` bounds each request.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        operation: &'static str,
        limit: Duration,
    ) -> Result<Value, GcpError> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let mut second = false;
        loop {
            let token = self.inner.credentials.token().await.map_err(GcpError::Credentials)?;
            let url = format!("{}{path}", self.inner.settings.endpoint);
            let sent = Sent::new(method.clone(), url).bearer(token.expose());
            let sent = match body {
                Some(body) => sent.json(body),
                None => sent,
            };
            let began = Instant::now();
            let result = self.inner.wire.send(sent, &what, limit).await;
            self.tell(operation, &result, began.elapsed());
            let got = result.map_err(GcpError::Http)?;
            if got.status == 401 && !second {
                second = true;
                self.inner.credentials.forget(&token).await;
                continue;
            }
            return read(&what, &got);
        }
    }

    fn tell(&self, operation: &'static str, result: &Result<Got, HttpError>, took: Duration) {
        let code = code_of(result);
        self.inner.attempts.tell(Told::Call { api: "compute", operation, code, took });
    }
}

/// The word for how a call ended.
pub(in crate::adapters) fn code_of(result: &Result<Got, HttpError>) -> String {
    match result {
        Ok(got) => got.status.to_string(),
        Err(HttpError::Timeout { .. }) => "timeout".to_owned(),
        Err(HttpError::TooLarge { .. } | HttpError::Malformed { .. }) => "malformed".to_owned(),
        Err(_) => "no-answer".to_owned(),
    }
}

fn read(what: &str, got: &Got) -> Result<Value, GcpError> {
    if !(200..300).contains(&got.status) {
        return Err(GcpError::refused(what, got));
    }
    match got.json() {
        Some(value @ Value::Object(_)) => Ok(value),
        Some(_) => Err(GcpError::malformed(what, "the answer is no JSON object")),
        None => Err(GcpError::malformed(what, "the answer is not JSON")),
    }
}
