//! Load balancing of Cloudflare: pools, load balancers, and the few reads of a zone.
//!
//! Owns paths and bodies. Changes are `PATCH`es with just the fields that differ: `PUT` would reset what it does not
//! name. Decides nothing.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Cloudflare, CloudflareError, malformed};
use crate::rules::geo::names::POOL_PREFIX;
use crate::rules::geo::{
    Answer, Balancer, BalancerChange, Call, CallFailure, Origin, Pool, PoolChange, Steps,
};

/// Where pools and load balancers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Account identifier.
    pub account: String,
    /// Zone identifier.
    pub zone: String,
}

impl Cloudflare {
    /// Performs a call of a pass. Lists are read to their last page; reads are repeated while that may help.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn perform(&self, place: &Place, call: &Call) -> Result<Answer, CallFailure> {
        let request = request_of(place, call);
        let value = match call {
            Call::ListPools | Call::ListBalancers | Call::References(_) => {
                self.list(&request.path, request.object).await.map(Value::Array)
            }
            Call::GetPool(_) | Call::GetBalancer(_) => self.get(&request.path, request.object).await,
            _ => self.write(request.method, &request.path, request.body.as_ref(), request.object).await,
        };
        value.and_then(|value| answer_of(call, &value)).map_err(CallFailure::from)
    }

    /// The name of the zone.
    ///
    /// # Errors
    /// As the API answers; forbidden where the token has no right to read zones.
    pub async fn zone_name(&self, zone: &str) -> Result<String, CloudflareError> {
        let value = self.get(&format!("/zones/{zone}"), "zone").await?;
        text(&value, "name", "zone")
    }

    /// Whether the name is a proxied record of the zone, so that an origin of that name would be a loop.
    ///
    /// # Errors
    /// As [`Cloudflare::zone_name`].
    pub async fn is_proxied(&self, zone: &str, name: &str) -> Result<bool, CloudflareError> {
        let list = self.list(&format!("/zones/{zone}/dns_records?name={name}"), "record").await?;
        Ok(list.iter().any(|record| record["proxied"] == json!(true)))
    }
}

impl From<CloudflareError> for CallFailure {
    fn from(error: CloudflareError) -> Self {
        Self {
            kind: error.kind(),
            missing: error.is_missing(),
            taken: error.is_taken(),
            forbidden: error.is_forbidden(),
            reason: error.to_string(),
        }
    }
}

/// A call as the wire has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path below the base address.
    pub path: String,
    /// Body.
    pub body: Option<Value>,
    /// Kind of object, for metrics.
    pub object: &'static str,
}

/// How a call is spelt.
pub fn request_of(place: &Place, call: &Call) -> Request {
    let pools = format!("/accounts/{}/load_balancers/pools", place.account);
    let balancers = format!("/zones/{}/load_balancers", place.zone);
    let (method, path, body) = match call {
        Call::ListPools => (Method::GET, pools, None),
        Call::ListBalancers => (Method::GET, balancers, None),
        Call::References(id) => (Method::GET, format!("{pools}/{id}/references"), None),
        Call::GetPool(id) => (Method::GET, format!("{pools}/{id}"), None),
        Call::GetBalancer(id) => (Method::GET, format!("{balancers}/{id}"), None),
        Call::DeletePool(id) => (Method::DELETE, format!("{pools}/{id}"), None),
        Call::CreatePool(pool) => (Method::POST, pools, Some(write_pool(pool))),
        Call::PatchPool(id, change) => {
            (Method::PATCH, format!("{pools}/{id}"), Some(write_pool_change(change)))
        }
        Call::CreateBalancer(new) => (Method::POST, balancers, Some(write_balancer(new))),
        Call::PatchBalancer(id, change) => {
            (Method::PATCH, format!("{balancers}/{id}"), Some(write_balancer_change(change)))
        }
    };
    let object = if path.contains("/pools") { "pool" } else { "balancer" };
    Request { method, path, body, object }
}

/// What the `result` of a call's answer means.
///
/// # Errors
/// Where it is not what the API promises; nothing is ever filled in.
pub fn answer_of(call: &Call, value: &Value) -> Result<Answer, CloudflareError> {
    let list = || value.as_array().ok_or_else(|| malformed("list", "the result is not a list"));
    match call {
        Call::ListPools => list()?.iter().map(read_listed_pool).collect::<Result<_, _>>().map(Answer::Pools),
        Call::ListBalancers => {
            list()?.iter().map(read_balancer).collect::<Result<_, _>>().map(Answer::Balancers)
        }
        Call::References(_) => Ok(Answer::References(list()?.iter().map(reference).collect())),
        Call::DeletePool(_) => Ok(Answer::Deleted),
        Call::GetPool(_) | Call::CreatePool(_) | Call::PatchPool(..) => read_pool(value).map(Answer::Pool),
        Call::GetBalancer(_) | Call::CreateBalancer(_) | Call::PatchBalancer(..) => {
            read_balancer(value).map(Answer::Balancer)
        }
    }
}

pub(super) fn text(value: &Value, field: &str, what: &str) -> Result<String, CloudflareError> {
    let found = value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    found.map(str::to_owned).ok_or_else(|| malformed(what, &format!("no {field} in the answer")))
}

fn steps(value: Option<&Value>, scale: f64) -> Option<Steps> {
    value.and_then(Value::as_f64).map(|number| (number * scale).round() as Steps)
}

fn number(steps: Steps, scale: f64) -> Value {
    json!(steps as f64 / scale)
}

fn read_pool(value: &Value) -> Result<Pool, CloudflareError> {
    let origins = match value.get("origins") {
        Some(Value::Array(list)) => list.iter().map(read_origin).collect::<Result<_, _>>()?,
        // Not told is not empty: writing back an empty list would delete them all.
        _ => return Err(malformed("pool", "no origins in the answer")),
    };
    let optional = |field: &str| {
        value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    Ok(Pool {
        id: text(value, "id", "pool")?,
        name: text(value, "name", "pool")?,
        description: optional("description").unwrap_or_default(),
        enabled: value.get("enabled").and_then(Value::as_bool).unwrap_or(true),
        latitude: steps(value.get("latitude"), 10_000.0),
        longitude: steps(value.get("longitude"), 10_000.0),
        monitor: optional("monitor"),
        origins,
    })
}

/// A pool of a list. One that cannot be ours may lack its origins: they are not written, and somebody else's odd pool
/// must not stop everything.
fn read_listed_pool(value: &Value) -> Result<Pool, CloudflareError> {
    let has = |field: &str, text: &str| value[field].as_str().is_some_and(|it| it.contains(text));
    if value["origins"].is_array() || has("name", POOL_PREFIX) || has("description", "managed-by=") {
        return read_pool(value);
    }
    let mut bare = value.clone();
    bare["origins"] = json!([]);
    read_pool(&bare)
}

fn read_origin(value: &Value) -> Result<Origin, CloudflareError> {
    let known = ["name", "address", "enabled", "weight", "disabled_at"];
    let rest = value.as_object().map(|fields| {
        let unknown = fields.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        unknown.map(|(name, value)| (name.clone(), value.to_string())).collect()
    });
    Ok(Origin {
        name: text(value, "name", "origin")?,
        address: text(value, "address", "origin")?,
        enabled: value.get("enabled").and_then(Value::as_bool).unwrap_or(true),
        weight: steps(value.get("weight"), 100.0).unwrap_or(100),
        rest: rest.unwrap_or_default(),
    })
}

fn write_origin(origin: &Origin) -> Value {
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(origin.name));
    body.insert("address".to_owned(), json!(origin.address));
    body.insert("enabled".to_owned(), json!(origin.enabled));
    body.insert("weight".to_owned(), number(origin.weight, 100.0));
    for (field, text) in &origin.rest {
        body.insert(field.clone(), serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
    }
    Value::Object(body)
}

fn write_pool(pool: &Pool) -> Value {
    let mut body = json!({
        "name": pool.name,
        "description": pool.description,
        "enabled": pool.enabled,
        "origins": pool.origins.iter().map(write_origin).collect::<Vec<_>>(),
    });
    if let (Some(latitude), Some(longitude)) = (pool.latitude, pool.longitude) {
        body["latitude"] = number(latitude, 10_000.0);
        body["longitude"] = number(longitude, 10_000.0);
    }
    if let Some(monitor) = &pool.monitor {
        body["monitor"] = json!(monitor);
    }
    body
}

/// The body of a pool's `PATCH`.
pub fn write_pool_change(change: &PoolChange) -> Value {
    let mut body = json!({});
    if let Some(description) = &change.description {
        body["description"] = json!(description);
    }
    if let Some(enabled) = change.enabled {
        body["enabled"] = json!(enabled);
    }
    if let Some((latitude, longitude)) = change.coordinates {
        body["latitude"] = number(latitude, 10_000.0);
        body["longitude"] = number(longitude, 10_000.0);
    }
    if let Some(monitor) = &change.monitor {
        body["monitor"] = json!(monitor);
    }
    if let Some(origins) = &change.origins {
        body["origins"] = origins.iter().map(write_origin).collect();
    }
    body
}

fn read_balancer(value: &Value) -> Result<Balancer, CloudflareError> {
    let Some(Value::Array(pools)) = value.get("default_pools") else {
        return Err(malformed("load balancer", "no default_pools in the answer"));
    };
    let flag = |field: &str| value.get(field).and_then(Value::as_bool).unwrap_or(false);
    let optional = |field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
    Ok(Balancer {
        id: text(value, "id", "load balancer")?,
        name: text(value, "name", "load balancer")?.to_ascii_lowercase(),
        default_pools: pools.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect(),
        fallback_pool: optional("fallback_pool").filter(|id| !id.is_empty()),
        proxied: flag("proxied"),
        steering: optional("steering_policy").unwrap_or_default(),
        ttl: value.get("ttl").and_then(Value::as_u64).and_then(|ttl| u32::try_from(ttl).ok()),
    })
}

fn write_balancer(balancer: &Balancer) -> Value {
    let mut body = json!({
        "name": balancer.name,
        "default_pools": balancer.default_pools,
        "fallback_pool": balancer.fallback_pool,
        "proxied": balancer.proxied,
        "steering_policy": balancer.steering,
    });
    if let Some(ttl) = balancer.ttl {
        body["ttl"] = json!(ttl);
    }
    body
}

/// The body of the load balancer's `PATCH`.
pub fn write_balancer_change(change: &BalancerChange) -> Value {
    let mut body = json!({});
    if let Some(pools) = &change.default_pools {
        body["default_pools"] = json!(pools);
    }
    if let Some(pool) = &change.fallback_pool {
        body["fallback_pool"] = json!(pool);
    }
    if let Some(proxied) = change.proxied {
        body["proxied"] = json!(proxied);
    }
    if let Some(steering) = &change.steering {
        body["steering_policy"] = json!(steering);
    }
    if let Some(ttl) = change.ttl {
        body["ttl"] = json!(ttl);
    }
    body
}

fn reference(value: &Value) -> String {
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("?");
    format!("{} {} ({})", field("resource_type"), field("resource_name"), field("resource_id"))
}
