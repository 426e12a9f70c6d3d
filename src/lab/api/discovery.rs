//! The discovery documents: which groups, versions and resources there are.

use serde_json::{Value, json};

use super::paths::{KINDS, Kind, api_version};

const REVIEWS: (&str, &str) = ("authentication.k8s.io", "v1");

/// The discovery document of a path, where it is one.
pub fn document(path: &str) -> Option<Value> {
    match path {
        "/api" => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "lab:443"}],
        })),
        "/api/v1" => Some(resources("", "v1")),
        "/apis" => {
            let list: Vec<Value> =
                groups().into_iter().map(|(group, versions)| entry(group, versions)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}))
        }
        _ => {
            let rest = path.strip_prefix("/apis/")?;
            let (group, version) = match rest.split_once('/') {
                Some((group, version)) => (group, Some(version)),
                None => (rest, None),
            };
            let (_, versions) = groups().into_iter().find(|(known, _)| *known == group)?;
            match version {
                None => {
                    let mut shown = entry(group, versions);
                    shown["kind"] = json!("APIGroup");
                    shown["apiVersion"] = json!("v1");
                    Some(shown)
                }
                Some(version) => versions.contains(&version).then(|| resources(group, version)),
            }
        }
    }
}

fn groups() -> Vec<(&'static str, &'static [&'static str])> {
    let mut groups: Vec<(&'static str, &'static [&'static str])> = vec![(REVIEWS.0, &["v1"])];
    for kind in KINDS.iter().filter(|kind| !kind.group.is_empty()) {
        if groups.iter().all(|(group, _)| *group != kind.group) {
            groups.push((kind.group, kind.versions));
        }
    }
    groups
}

fn entry(group: &str, versions: &[&str]) -> Value {
    let shown = |version: &&str| json!({"groupVersion": api_version(group, version), "version": version});
    json!({
        "name": group, "versions": versions.iter().map(shown).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(shown),
    })
}

fn resources(group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    if (group, version) == REVIEWS {
        list.push(json!({
            "name": "tokenreviews", "singularName": "tokenreview", "namespaced": false, "kind": "TokenReview",
            "verbs": ["create"],
        }));
    }
    for kind in KINDS.iter().filter(|kind| kind.group == group && kind.versions.contains(&version)) {
        list.push(resource(kind));
        if kind.scales() {
            list.push(json!({
                "name": format!("{}/scale", kind.plural), "singularName": "", "namespaced": true,
                "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"],
            }));
        }
    }
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": list,
    })
}

fn resource(kind: &Kind) -> Value {
    let verbs: &[&str] = if kind.writable {
        &["create", "delete", "get", "list", "patch", "update", "watch"]
    } else {
        &["delete", "get", "list", "watch"]
    };
    json!({
        "name": kind.plural, "singularName": kind.kind.to_ascii_lowercase(), "namespaced": true,
        "kind": kind.kind, "verbs": verbs,
    })
}
