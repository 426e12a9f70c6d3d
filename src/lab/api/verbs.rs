//! Get, list, create, replace, patch and delete, and the scale subresource.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::list;
use super::patch::{PatchError, PatchKind, apply};
use super::paths::{Kind, Target, api_version};
use super::review::review;
use super::rules;
use super::scale::{change_scale, scale_of};
use super::selector::Selector;
use super::status::Refusal;
use super::watch;
use crate::lab::faults::Fault;
use crate::lab::http::{Answer, Request, json_answer};
use crate::lab::settings::WorldSettings;
use crate::lab::site::Site;
use crate::lab::store::{Deleted, text};
use crate::lab::world::World;
use crate::model::Side;

pub(super) type Result<T> = std::result::Result<T, Refusal>;

/// One object's address in a request.
pub(super) struct Place<'a> {
    pub(super) kind: &'static Kind,
    pub(super) version: &'static str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// Does what a request asks for.
pub fn answer(
    world: &World,
    side: Side,
    cancel: &CancellationToken,
    target: &Target,
    request: &Request,
) -> Result<Answer> {
    let Target::Objects { kind, version, namespace, name, scale } = target else {
        return review(world.settings(), request);
    };
    let on_site = |act: &mut dyn FnMut(&mut Site) -> Result<Answer>| {
        world.with(side, |site, now| {
            site.store.set_now(now);
            act(site)
        })
    };
    let gone = || Err(Refusal::no_such_path());
    let namespace = namespace.as_deref();
    let (Some(namespace), Some(name)) = (namespace, name.as_deref()) else {
        return match (&request.method, namespace) {
            (&Method::GET, _) if is_true(request.parameter("watch").as_deref()) => {
                watch::open(world, side, cancel, kind, version, namespace, request)
            }
            (&Method::GET, _) => {
                on_site(&mut |site| list::list(site, kind, version, namespace, request)).unwrap_or_else(gone)
            }
            (&Method::POST, Some(namespace)) if kind.writable => {
                let settings = world.settings();
                on_site(&mut |site| create(site, settings, kind, version, namespace, request))
                    .unwrap_or_else(gone)
            }
            _ => Err(Refusal::method_not_allowed()),
        };
    };
    let place = Place { kind, version, namespace, name };
    on_site(&mut |site| one(site, &place, *scale, request)).unwrap_or_else(gone)
}

fn is_true(text: Option<&str>) -> bool {
    matches!(text, Some("true" | "True" | "1"))
}

fn one(site: &mut Site, place: &Place<'_>, scale: bool, request: &Request) -> Result<Answer> {
    if matches!(request.method, Method::PUT | Method::PATCH) && !place.kind.writable {
        return Err(Refusal::method_not_allowed());
    }
    match (&request.method, scale) {
        (&Method::GET, false) => Ok(json_answer(StatusCode::OK, &shown(place, &found(site, place)?))),
        (&Method::GET, true) => Ok(json_answer(StatusCode::OK, &scale_of(&found(site, place)?))),
        (&Method::PUT, false) => replace(site, place, request),
        (&Method::PATCH, false) => patch(site, place, request),
        (&Method::PUT | &Method::PATCH, true) => change_scale(site, place, request),
        (&Method::DELETE, false) => delete(site, place, request),
        _ => Err(Refusal::method_not_allowed()),
    }
}

pub(super) fn found(site: &Site, place: &Place<'_>) -> Result<Value> {
    let object = site.store.get(place.kind.plural, place.namespace, place.name);
    object.map(|object| (**object).clone()).ok_or_else(|| Refusal::not_found(place.kind, place.name))
}

/// An object in the version that was asked for.
pub fn in_version(kind: &Kind, version: &str, object: &Value) -> Value {
    let mut shown = object.clone();
    shown["apiVersion"] = json!(api_version(kind.group, version));
    shown["kind"] = json!(kind.kind);
    shown
}

fn shown(place: &Place<'_>, object: &Value) -> Value {
    in_version(place.kind, place.version, object)
}

/// The selectors of a request.
pub fn selector(request: &Request) -> Result<Selector> {
    let (labels, fields) = (request.parameter("labelSelector"), request.parameter("fieldSelector"));
    Selector::parse(labels.as_deref(), fields.as_deref()).map_err(Refusal::bad_request)
}

pub(super) fn body(request: &Request) -> Result<Value> {
    let sent = request.header("content-type").unwrap_or("application/json");
    if !sent.starts_with("application/json") {
        return Err(Refusal::media_type(sent));
    }
    match serde_json::from_slice::<Value>(&request.body) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(Refusal::bad_request("the body is not a JSON object")),
        Err(error) => Err(Refusal::bad_request(format!("the body is not JSON: {error}"))),
    }
}

pub(super) fn dry(request: &Request) -> bool {
    request.parameter("dryRun").as_deref() == Some("All")
}

/// Checks type and place of a whole object that was sent, and fills in what may be left out.
fn adopt(place: &Place<'_>, object: &mut Value) -> Result<()> {
    let wanted = api_version(place.kind.group, place.version);
    for (key, wanted) in [("apiVersion", wanted.as_str()), ("kind", place.kind.kind)] {
        match object[key].as_str() {
            Some(sent) if sent == wanted => {}
            Some(sent) => {
                return Err(Refusal::bad_request(format!(
                    "{key} in the body is {sent:?}, in the URL {wanted:?}"
                )));
            }
            None => object[key] = json!(wanted),
        }
    }
    if !object["metadata"].is_object() {
        return Err(Refusal::bad_request("metadata must be an object"));
    }
    match object["metadata"]["namespace"].as_str() {
        Some(sent) if sent != place.namespace => {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            Err(Refusal::bad_request(why))
        }
        _ => {
            object["metadata"]["namespace"] = json!(place.namespace);
            Ok(())
        }
    }
}

fn create(
    site: &mut Site,
    settings: &WorldSettings,
    kind: &'static Kind,
    version: &'static str,
    namespace: &str,
    request: &Request,
) -> Result<Answer> {
    let known = [&settings.namespace, &settings.health_namespace, &settings.tekton_namespace];
    if known.iter().all(|known| *known != namespace) {
        return Err(Refusal::no_namespace(namespace));
    }
    let mut object = body(request)?;
    adopt(&Place { kind, version, namespace, name: "" }, &mut object)?;
    if let (None, Some(prefix)) =
        (object["metadata"]["name"].as_str(), object["metadata"]["generateName"].as_str())
    {
        object["metadata"]["name"] = json!(format!("{prefix}{:05x}", rand::random::<u32>() & 0xf_ffff));
    }
    if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
        return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let name = text(&object, "/metadata/name");
    let place = Place { kind, version, namespace, name: &name };
    rules::check(kind, &object).map_err(|problem| problem.refusal(kind, &name, false))?;
    if site.store.get(kind.plural, namespace, &name).is_some() {
        return Err(Refusal::already_exists(kind, &name));
    }
    encode_secret(kind, &mut object);
    if kind.plural == "persistentvolumeclaims" {
        object["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
    }
    if dry(request) {
        return Ok(json_answer(StatusCode::CREATED, &shown(&place, &object)));
    }
    let stored = site.store.put(kind.plural, object);
    Ok(json_answer(StatusCode::CREATED, &shown(&place, &stored)))
}

/// `stringData` is only a way of writing: the server keeps base64.
fn encode_secret(kind: &Kind, object: &mut Value) {
    if kind.plural != "secrets" {
        return;
    }
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|map| map.shift_remove("stringData"))
    else {
        return;
    };
    if !object["data"].is_object() {
        object["data"] = json!({});
    }
    for (key, value) in plain {
        object["data"][key] = json!(BASE64.encode(value.as_str().unwrap_or_default()));
    }
}

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Refuses a version that is not the stored one.
pub(super) fn expect_version(place: &Place<'_>, stored: &Value, sent: &Value) -> Result<()> {
    match sent["metadata"]["resourceVersion"].as_str() {
        None | Some("") => Ok(()),
        Some(sent) if stored["metadata"]["resourceVersion"] == sent => Ok(()),
        Some(_) => Err(Refusal::conflict(place.kind, place.name, MODIFIED)),
    }
}

fn replace(site: &mut Site, place: &Place<'_>, request: &Request) -> Result<Answer> {
    let mut object = body(request)?;
    adopt(place, &mut object)?;
    let stored = found(site, place)?;
    expect_version(place, &stored, &object)?;
    if object["status"].is_null() && !stored["status"].is_null() {
        object["status"] = stored["status"].clone();
    }
    store(site, place, &stored, object, request, false)
}

fn patch(site: &mut Site, place: &Place<'_>, request: &Request) -> Result<Answer> {
    let kind = patch_kind(request)?;
    if place.kind.plural == "services" && site.faults.bites(Fault::ServicePatch500) {
        return Err(Refusal::internal("etcdserver: request timed out"));
    }
    let stored = found(site, place)?;
    let mut object = stored.clone();
    apply_patch(kind, &mut object, place, request)?;
    if !object["metadata"].is_object() {
        return Err(Refusal::invalid(place.kind, place.name, "metadata", "must be an object"));
    }
    expect_version(place, &stored, &object)?;
    store(site, place, &stored, object, request, true)
}

pub(super) fn patch_kind(request: &Request) -> Result<PatchKind> {
    let sent = request.header("content-type").unwrap_or_default();
    PatchKind::of(sent).ok_or_else(|| Refusal::media_type(sent))
}

pub(super) fn apply_patch(
    kind: PatchKind,
    object: &mut Value,
    place: &Place<'_>,
    request: &Request,
) -> Result<()> {
    apply(kind, object, &request.body).map_err(|error| match error {
        PatchError::Malformed(why) => Refusal::bad_request(why),
        PatchError::Unfit(why) => Refusal::invalid(place.kind, place.name, "patch", &why),
    })
}

/// Checks a changed object and stores it.
fn store(
    site: &mut Site,
    place: &Place<'_>,
    stored: &Value,
    mut object: Value,
    request: &Request,
    patched: bool,
) -> Result<Answer> {
    let invalid = |field: &str, why: &str| Err(Refusal::invalid(place.kind, place.name, field, why));
    for owned in ["name", "namespace"] {
        if object["metadata"][owned] != stored["metadata"][owned] {
            return invalid(&format!("metadata.{owned}"), "field is immutable");
        }
    }
    let uid = &object["metadata"]["uid"];
    if !uid.is_null() && *uid != stored["metadata"]["uid"] {
        return Err(Refusal::conflict(
            place.kind,
            place.name,
            "Precondition failed: UID in precondition differs",
        ));
    }
    rules::check(place.kind, &object).map_err(|problem| problem.refusal(place.kind, place.name, patched))?;
    encode_secret(place.kind, &mut object);
    object["apiVersion"] = stored["apiVersion"].clone();
    object["kind"] = stored["kind"].clone();
    if stored["metadata"]["deletionTimestamp"] != object["metadata"]["deletionTimestamp"] {
        object["metadata"]["deletionTimestamp"] = stored["metadata"]["deletionTimestamp"].clone();
    }
    drop_null(&mut object["metadata"], "deletionTimestamp");
    if let Value::Object(map) = &mut object
        && map.get("status").is_some_and(Value::is_null)
    {
        map.shift_remove("status");
    }
    if dry(request) {
        return Ok(json_answer(StatusCode::OK, &shown(place, &object)));
    }
    let stored = site.store.put(place.kind.plural, object);
    Ok(json_answer(StatusCode::OK, &shown(place, &stored)))
}

fn drop_null(map: &mut Value, key: &str) {
    if let Value::Object(map) = map
        && map.get(key).is_some_and(Value::is_null)
    {
        map.shift_remove(key);
    }
}

fn delete(site: &mut Site, place: &Place<'_>, request: &Request) -> Result<Answer> {
    let stored = found(site, place)?;
    if !request.body.is_empty() {
        let options: Value = serde_json::from_slice(&request.body)
            .map_err(|error| Refusal::bad_request(format!("the body is not DeleteOptions: {error}")))?;
        for key in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][key];
            if wanted.is_string() && *wanted != stored["metadata"][key] {
                let why = format!("Precondition failed: {key} in precondition differs");
                return Err(Refusal::conflict(place.kind, place.name, &why));
            }
        }
    }
    if dry(request) {
        return Ok(json_answer(StatusCode::OK, &shown(place, &stored)));
    }
    match site.store.delete(place.kind.plural, place.namespace, place.name) {
        Some(Deleted::Terminating(object)) => Ok(json_answer(StatusCode::OK, &shown(place, &object))),
        Some(Deleted::Gone(object)) => {
            let mut details =
                json!({"name": place.name, "kind": place.kind.plural, "uid": object["metadata"]["uid"]});
            if !place.kind.group.is_empty() {
                details["group"] = json!(place.kind.group);
            }
            let body = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            Ok(json_answer(StatusCode::OK, &body))
        }
        None => Err(Refusal::not_found(place.kind, place.name)),
    }
}
