//! Lists, whole or in pages (`limit`, `continue`), as a real API server gives them.
//!
//! A token names the version at which the list was begun and the last object told. It is too old (410) once that
//! version is out of the history. Objects are those of now; whoever watches from the list's version sees the rest.

use http::StatusCode;
use serde_json::{Value, json};

use super::paths::{Kind, api_version};
use super::status::Refusal;
use super::verbs::{Result, selector};
use crate::lab::faults::Fault;
use crate::lab::http::{Answer, Request, json_answer};
use crate::lab::site::Site;

/// Answers a list.
pub(super) fn list(
    site: &Site,
    kind: &Kind,
    version: &str,
    namespace: Option<&str>,
    request: &Request,
) -> Result<Answer> {
    let selector = selector(request)?;
    let limit = match request.parameter("limit") {
        Some(text) => text.parse::<usize>().map_err(|_| Refusal::bad_request("limit is not a number"))?,
        None => 0,
    };
    let (begun, after) = match request.parameter("continue").filter(|token| !token.is_empty()) {
        Some(token) => go_on(site, &token)?,
        None => (site.store.version(), String::new()),
    };
    let mut rest = site
        .store
        .list(kind.plural, namespace)
        .into_iter()
        .filter(|(_, object)| selector.matches(object))
        .map(|(key, object)| (format!("{}/{}", key.1, key.2), object))
        .filter(|(place, _)| after.is_empty() || *place > after);
    let size = if limit == 0 { usize::MAX } else { limit };
    let page: Vec<_> = rest.by_ref().take(size).collect();
    let left = rest.count();
    let mut metadata = json!({"resourceVersion": begun.to_string()});
    if let Some((last, _)) = page.last().filter(|_| left > 0) {
        metadata["continue"] = json!(format!("{begun}:{last}"));
        metadata["remainingItemCount"] = json!(left);
    }
    let items: Vec<Value> = page.iter().map(|(_, object)| without_kind(object)).collect();
    let body = json!({
        "kind": format!("{}List", kind.kind), "apiVersion": api_version(kind.group, version),
        "metadata": metadata, "items": items,
    });
    Ok(json_answer(StatusCode::OK, &body))
}

/// Version and last object of a token.
fn go_on(site: &Site, token: &str) -> Result<(u64, String)> {
    let parts = token.split_once(':').and_then(|(version, last)| Some((version.parse().ok()?, last)));
    let (version, last): (u64, &str) =
        parts.ok_or_else(|| Refusal::bad_request("continue key is not valid"))?;
    let oldest = if site.faults.on(Fault::Watch410) { site.store.version() } else { site.store.oldest() };
    if version < oldest {
        return Err(Refusal::expired(version, oldest));
    }
    Ok((version, last.to_owned()))
}

/// Items of a list don't repeat the list's kind.
fn without_kind(object: &Value) -> Value {
    let mut item = object.clone();
    if let Value::Object(map) = &mut item {
        map.shift_remove("apiVersion");
        map.shift_remove("kind");
    }
    item
}
