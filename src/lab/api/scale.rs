//! The scale subresource of Deployments and StatefulSets.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::rules;
use super::status::Refusal;
use super::verbs::{Place, Result, apply_patch, body, dry, expect_version, found, patch_kind};
use crate::lab::http::{Answer, Request, json_answer};
use crate::lab::site::Site;

/// The scale subresource of a workload; `spec.replicas` is left out at 0, as the real one does.
pub(super) fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {},
        "status": {
            "replicas": object["status"]["replicas"].as_u64().unwrap_or(0), "selector": selector.join(","),
        },
    });
    if wanted > 0 {
        scale["spec"]["replicas"] = json!(wanted);
    }
    scale
}

/// Changes the wanted replicas through a `Scale`.
pub(super) fn change_scale(site: &mut Site, place: &Place<'_>, request: &Request) -> Result<Answer> {
    let stored = found(site, place)?;
    let mut scale = scale_of(&stored);
    if request.method == Method::PUT {
        scale = body(request)?;
    } else {
        apply_patch(patch_kind(request)?, &mut scale, place, request)?;
    }
    expect_version(place, &stored, &scale)?;
    let wanted = &scale["spec"]["replicas"];
    let patched = request.method == Method::PATCH;
    rules::check_count("spec.replicas", wanted)
        .map_err(|problem| problem.refusal(place.kind, place.name, patched))?;
    let wanted = json!(wanted.as_u64().unwrap_or(0));
    if dry(request) {
        return Ok(json_answer(StatusCode::OK, &scale));
    }
    let changed = site.store.edit(place.kind.plural, place.namespace, place.name, |object| {
        object["spec"]["replicas"] = wanted;
    });
    let changed = changed.ok_or_else(|| Refusal::not_found(place.kind, place.name))?;
    Ok(json_answer(StatusCode::OK, &scale_of(&changed)))
}
