//! Raw requests: one call, one time limit, one size limit, one verdict.
//!
//! Owns the common headers and the reading of answers. Every other file of this adapter and other users of the API
//! (journal, geo sync, Lease) go through here. Never retries.

use std::fmt::Write as _;
use std::time::Duration;

use ::kube::client::Body;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::watch::version_of;
use super::{Kube, KubeError};

/// Bytes of a single object's answer that are taken; etcd stores at most 1.5 MiB per object.
const OBJECT_LIMIT: usize = 8 << 20;
/// Bytes of a list that are taken: some hundred PipelineRuns of 20 KiB.
const LIST_LIMIT: usize = 32 << 20;

/// Pages of a list that are read at most.
const PAGES: usize = 1_000;

/// How a patch is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/strategic-merge-patch+json`: built-in kinds.
    Strategic,
    /// `application/merge-patch+json` (RFC 7396): custom resources.
    Merge,
    /// `application/json-patch+json` (RFC 6902).
    Json,
}

impl PatchKind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Json => "application/json-patch+json",
        }
    }
}

/// Percent-encodes a query value or a path segment (RFC 3986: all but the unreserved characters).
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
        out
    })
}

/// A call before it is sent.
struct Call<'a> {
    method: Method,
    /// Path and query, both encoded.
    target: &'a str,
    content_type: &'static str,
    body: Option<&'a Value>,
}

impl Call<'_> {
    /// Method and path, for errors and logs; the query would only add noise.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.target.split('?').next().unwrap_or_default())
    }

    /// Whether answers may hold secrets.
    fn is_secret(&self) -> bool {
        let path = self.target.split('?').next().unwrap_or_default();
        path.split('/').any(|part| matches!(part, "secrets" | "tokenreviews"))
    }

    fn request(&self) -> Result<Request<Body>, KubeError> {
        let body = match self.body {
            Some(value) => Body::from(value.to_string().into_bytes()),
            None => Body::empty(),
        };
        Request::builder()
            .method(self.method.clone())
            .uri(self.target)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, self.content_type)
            .body(body)
            .map_err(|error| KubeError::Malformed { call: self.name(), reason: error.to_string() })
    }
}

impl Kube {
    /// `GET` of one object or of anything that is answered with JSON. `target` is path and query, encoded.
    ///
    /// # Errors
    /// Any [`KubeError`] but the named ones of lists and waits; [`KubeError::is_not_found`] tells a missing object.
    pub async fn get_json(&self, target: &str) -> Result<Value, KubeError> {
        self.read(target, OBJECT_LIMIT).await
    }

    /// `GET` of a collection, optionally narrowed by a label selector. The answer is passed on as it is: some
    /// servers leave out `metadata`; see [`items`] for its objects.
    ///
    /// # Errors
    /// As [`Kube::get_json`].
    pub async fn list(&self, path: &str, selector: Option<&str>) -> Result<Value, KubeError> {
        let target = match selector {
            Some(selector) => format!("{path}?labelSelector={}", encode(selector)),
            None => path.to_owned(),
        };
        self.read(&target, LIST_LIMIT).await
    }

    /// The objects of a whole collection and the version to watch from, read page by page (`limit`, `continue`) where
    /// `page` says how many objects one has. A page that cannot be read makes the whole list unread.
    ///
    /// # Errors
    /// As [`Kube::list`]; [`KubeError::Gone`] where the list must be begun anew.
    pub async fn list_pages(
        &self,
        path: &str,
        selector: Option<&str>,
        page: Option<u32>,
    ) -> Result<(Vec<Value>, Option<String>), KubeError> {
        let malformed =
            |reason: &str| KubeError::Malformed { call: format!("GET {path}"), reason: reason.to_owned() };
        let mut query = Vec::new();
        query.extend(selector.map(|selector| format!("labelSelector={}", encode(selector))));
        query.extend(page.map(|size| format!("limit={size}")));
        let (mut objects, mut version, mut token) = (Vec::new(), None, None::<String>);
        for _ in 0..PAGES {
            let mut query = query.clone();
            query.extend(token.as_ref().map(|token| format!("continue={}", encode(token))));
            let separator = if query.is_empty() { "" } else { "?" };
            let target = format!("{path}{separator}{}", query.join("&"));
            let mut list = self.read(&target, LIST_LIMIT).await?;
            items(&list).ok_or_else(|| malformed("the answer is not a list"))?;
            version = version.or_else(|| version_of(&list));
            if let Some(Value::Array(more)) = list.get_mut("items").map(Value::take) {
                objects.extend(more);
            }
            let next = list.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default();
            if next.is_empty() {
                return Ok((objects, version));
            }
            if token.as_deref() == Some(next) {
                return Err(malformed("the list does not go on"));
            }
            token = Some(next.to_owned());
        }
        Err(malformed("the list has too many pages"))
    }

    /// `PATCH`. The status code is the verdict; the answer is `Null` where there is none or it cannot be read.
    ///
    /// # Errors
    /// Any answer but 2xx, no answer, no answer in time.
    pub async fn patch(&self, target: &str, kind: PatchKind, body: &Value) -> Result<Value, KubeError> {
        self.write(Call {
            method: Method::PATCH,
            target,
            content_type: kind.content_type(),
            body: Some(body),
        })
        .await
    }

    /// `POST` of a new object to its collection; an existing one is a conflict.
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn create(&self, target: &str, body: &Value) -> Result<Value, KubeError> {
        let content_type = "application/json";
        self.write(Call { method: Method::POST, target, content_type, body: Some(body) }).await
    }

    /// `PUT` of a whole object; with `metadata.resourceVersion` in it, a change by somebody else is a conflict.
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn replace(&self, target: &str, body: &Value) -> Result<Value, KubeError> {
        let content_type = "application/json";
        self.write(Call { method: Method::PUT, target, content_type, body: Some(body) }).await
    }

    /// `DELETE` without a body. `false` = it was already gone.
    ///
    /// # Errors
    /// As [`Kube::patch`], 404 excepted.
    pub async fn delete(&self, target: &str) -> Result<bool, KubeError> {
        let call = Call { method: Method::DELETE, target, content_type: "application/json", body: None };
        match self.write(call).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `DELETE` with DeleteOptions. `false` = it was already gone; a precondition that does not hold is a conflict.
    ///
    /// # Errors
    /// As [`Kube::patch`], 404 excepted.
    pub async fn delete_with(&self, target: &str, options: &Value) -> Result<bool, KubeError> {
        let call =
            Call { method: Method::DELETE, target, content_type: "application/json", body: Some(options) };
        match self.write(call).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The ConfigMap as the API server gives it, `None` where there is none.
    ///
    /// # Errors
    /// As [`Kube::get_json`], 404 excepted.
    pub async fn get_config_map(&self, namespace: &str, name: &str) -> Result<Option<Value>, KubeError> {
        match self.get_json(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}")).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a ConfigMap; an existing one is a conflict.
    ///
    /// # Errors
    /// As [`Kube::create`].
    pub async fn create_config_map(&self, namespace: &str, body: &Value) -> Result<Value, KubeError> {
        self.create(&format!("/api/v1/namespaces/{namespace}/configmaps"), body).await
    }

    /// Replaces a ConfigMap; keep `metadata.resourceVersion` in the body to refuse a concurrent change.
    ///
    /// # Errors
    /// As [`Kube::replace`].
    pub async fn replace_config_map(
        &self,
        namespace: &str,
        name: &str,
        body: &Value,
    ) -> Result<Value, KubeError> {
        self.replace(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}"), body).await
    }

    /// Asks the API server whose token this is (TokenReview). `None` = it is nobody's.
    ///
    /// # Errors
    /// As [`Kube::create`]; an answer without a verdict is malformed, never a yes.
    pub async fn review_token(&self, token: &str) -> Result<Option<String>, KubeError> {
        let target = "/apis/authentication.k8s.io/v1/tokenreviews";
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
        });
        let answer = self.create(target, &body).await?;
        let malformed =
            |reason: &str| KubeError::Malformed { call: format!("POST {target}"), reason: reason.to_owned() };
        let status = answer.get("status").ok_or_else(|| malformed("no status"))?;
        if status.get("authenticated").and_then(Value::as_bool) != Some(true) {
            return Ok(None);
        }
        let user = status.pointer("/user/username").and_then(Value::as_str).filter(|user| !user.is_empty());
        user.map(|user| Some(user.to_owned())).ok_or_else(|| malformed("authenticated without a user"))
    }

    /// Opens a streaming `GET`; the time limit covers the answer's head only.
    pub(super) async fn open(&self, target: &str) -> Result<Response<Body>, KubeError> {
        let call = Call { method: Method::GET, target, content_type: "application/json", body: None };
        self.limited(&call, self.send_checked(&call)).await
    }

    async fn read(&self, target: &str, limit: usize) -> Result<Value, KubeError> {
        let call = Call { method: Method::GET, target, content_type: "application/json", body: None };
        let work = async {
            let response = self.send_checked(&call).await?;
            let bytes = collect(response.into_body(), limit, &call).await?;
            serde_json::from_slice(&bytes).map_err(|error| KubeError::Malformed {
                call: call.name(),
                // serde_json's error may quote the text, so only its place is told.
                reason: format!("not JSON at line {} column {}", error.line(), error.column()),
            })
        };
        self.limited(&call, work).await
    }

    async fn write(&self, call: Call<'_>) -> Result<Value, KubeError> {
        let response = self.limited(&call, self.send_checked(&call)).await?;
        // The head said yes: whatever becomes of the body, the change is made.
        let body = self.limited(&call, collect(response.into_body(), OBJECT_LIMIT, &call)).await;
        Ok(body.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::Null))
    }

    /// Sends and turns every status but 2xx into an error.
    async fn send_checked(&self, call: &Call<'_>) -> Result<Response<Body>, KubeError> {
        let response = self
            .inner
            .client
            .send(call.request()?)
            .await
            .map_err(|error| KubeError::Connection { call: call.name(), reason: chain(&error) })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = collect(response.into_body(), OBJECT_LIMIT, call).await.unwrap_or_default();
        Err(KubeError::from_answer(call.name(), status, &body, call.is_secret()))
    }

    async fn limited<T>(
        &self,
        call: &Call<'_>,
        work: impl Future<Output = Result<T, KubeError>>,
    ) -> Result<T, KubeError> {
        let limit: Duration = self.inner.settings.timeout;
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(KubeError::Timeout { call: call.name(), limit_ms: limit.as_millis() }),
        }
    }
}

/// The objects of a list; `None` where the answer is not a list. `items: null` is an empty list, as Go writes it.
pub fn items(list: &Value) -> Option<&[Value]> {
    match list.get("items")? {
        Value::Array(items) => Some(items),
        Value::Null => Some(&[]),
        _ => None,
    }
}

async fn collect(mut body: Body, limit: usize, call: &Call<'_>) -> Result<Bytes, KubeError> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| KubeError::Connection { call: call.name(), reason: chain(&error) })?;
        if let Ok(data) = frame.into_data() {
            if all.len() + data.len() > limit {
                return Err(KubeError::TooLarge { call: call.name(), limit });
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

/// An error with its causes, in one line: the outermost text alone ("service error") says nothing.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_percent_encoded() {
        assert_eq!(encode("app=a,env!=b c"), "app%3Da%2Cenv%21%3Db%20c");
        assert_eq!(encode("a-b._~/ü"), "a-b._~%2F%C3%BC");
    }

    #[test]
    fn calls_that_may_carry_secrets_are_known_by_their_path() {
        let call = |target| Call { method: Method::GET, target, content_type: "", body: None };
        assert!(call("/api/v1/namespaces/a/secrets/x?pretty=true").is_secret());
        assert!(call("/apis/authentication.k8s.io/v1/tokenreviews").is_secret());
        assert!(!call("/api/v1/namespaces/a/configmaps/x?labelSelector=secrets").is_secret());
    }

    #[test]
    fn an_answer_without_items_is_not_an_empty_list() {
        assert!(items(&json!({})).is_none());
        assert!(items(&json!({"type": "ADDED"})).is_none());
        assert_eq!(items(&json!({"items": null})), Some(&[][..]));
    }
}
