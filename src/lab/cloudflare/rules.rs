//! What the simulated account refuses, and how replacement and merging work.
//!
//! Pure functions over JSON. Follows the API reference of Cloudflare load balancing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::rules::geo::address::{is_host_name, is_public};

/// Fields of a pool that may be given.
const POOL_FIELDS: [&str; 17] = [
    "id",
    "name",
    "description",
    "enabled",
    "origins",
    "latitude",
    "longitude",
    "monitor",
    "monitor_group",
    "minimum_origins",
    "check_regions",
    "origin_steering",
    "load_shedding",
    "notification_email",
    "notification_filter",
    "modified_on",
    "networks",
];

/// A pool as it is made by `POST` and `PUT`: what is not named has its default.
pub fn defaulted_pool(body: &Value) -> Value {
    let mut pool = body.clone();
    if let Some(fields) = pool.as_object_mut() {
        for (field, value) in [
            ("description", json!("")),
            ("enabled", json!(true)),
            ("monitor", json!("")),
            ("minimum_origins", json!(1)),
            ("notification_email", json!("")),
        ] {
            fields.entry(field).or_insert(value);
        }
    }
    fill_origins(&mut pool);
    pool
}

/// A load balancer as it is made by `POST` and `PUT`.
pub fn defaulted_balancer(body: &Value) -> Value {
    let mut balancer = body.clone();
    if let Some(fields) = balancer.as_object_mut() {
        for (field, value) in [
            ("description", json!("")),
            ("enabled", json!(true)),
            ("proxied", json!(false)),
            ("steering_policy", json!("off")),
            ("session_affinity", json!("none")),
            ("region_pools", json!({})),
            ("country_pools", json!({})),
            ("pop_pools", json!({})),
            ("rules", json!([])),
        ] {
            fields.entry(field).or_insert(value);
        }
    }
    balancer
}

/// An object after a `PATCH`: named properties are overwritten whole, the others stay.
pub fn merged(current: &Value, change: &Value) -> Value {
    let mut object = current.clone();
    for (field, value) in change.as_object().into_iter().flatten() {
        object[field] = value.clone();
    }
    fill_origins(&mut object);
    object
}

fn fill_origins(pool: &mut Value) {
    for origin in pool.get_mut("origins").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(fields) = origin.as_object_mut() {
            fields.entry("enabled").or_insert(json!(true));
            fields.entry("weight").or_insert(json!(1));
        }
    }
}

/// Why a pool is refused.
pub fn check_pool(pool: &Value) -> Result<(), String> {
    let fields = pool.as_object().ok_or("body: validation failed: not an object")?;
    if let Some(unknown) = fields.keys().find(|field| !POOL_FIELDS.contains(&field.as_str())) {
        return Err(format!("{unknown}: validation failed: unknown field"));
    }
    let name = pool["name"].as_str().unwrap_or_default();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
        return Err("name: validation failed: letters, digits, - and _ only".to_owned());
    }
    for (field, limit) in [("latitude", 90.0), ("longitude", 180.0)] {
        if pool[field].as_f64().is_some_and(|value: f64| value.abs() > limit) {
            return Err(format!("{field}: validation failed: out of range"));
        }
    }
    if pool["latitude"].is_null() != pool["longitude"].is_null() {
        return Err("latitude: validation failed: needs longitude".to_owned());
    }
    let origins = pool["origins"].as_array().filter(|list| !list.is_empty());
    let origins = origins.ok_or("origins: validation failed: required")?;
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for origin in origins {
        check_origin(origin)?;
        if !names.insert(origin["name"].as_str()) || !addresses.insert(origin["address"].as_str()) {
            return Err("origins: validation failed: names and addresses must be unique".to_owned());
        }
    }
    Ok(())
}

fn check_origin(origin: &Value) -> Result<(), String> {
    let name = origin["name"].as_str().unwrap_or_default();
    let address = origin["address"].as_str().unwrap_or_default();
    if name.is_empty() || address.is_empty() {
        return Err("origins: validation failed: name and address are required".to_owned());
    }
    match address.parse::<IpAddr>() {
        Ok(ip) if !is_public(ip) && origin["virtual_network_id"].is_null() => {
            return Err("origins.address: validation failed: private address".to_owned());
        }
        Ok(_) => {}
        Err(_) if is_host_name(&address.to_ascii_lowercase()) => {}
        Err(_) => return Err("origins.address: validation failed: neither address nor name".to_owned()),
    }
    let weight = origin["weight"].as_f64().unwrap_or(-1.0);
    let steps = weight * 100.0;
    if !(0.0..=1.0).contains(&weight) || (steps - steps.round()).abs() > 1e-6 {
        return Err("origins.weight: validation failed: 0 to 1 in steps of 0.01".to_owned());
    }
    Ok(())
}

/// Why a load balancer is refused.
pub fn check_balancer(balancer: &Value, zone: &str) -> Result<(), String> {
    let name = balancer["name"].as_str().unwrap_or_default();
    let inside = name == zone || name.strip_suffix(zone).is_some_and(|head| head.ends_with('.'));
    if !inside {
        return Err("name: validation failed: not in the zone".to_owned());
    }
    if balancer["default_pools"].as_array().is_none_or(Vec::is_empty) {
        return Err("default_pools: validation failed: required".to_owned());
    }
    let ids: Vec<&Value> = balancer["default_pools"].as_array().into_iter().flatten().collect();
    if ids.iter().map(|id| id.to_string()).collect::<BTreeSet<_>>().len() != ids.len() {
        return Err("default_pools: validation failed: duplicate".to_owned());
    }
    if balancer["fallback_pool"].as_str().is_none_or(str::is_empty) {
        return Err("fallback_pool: validation failed: required".to_owned());
    }
    let known = ["off", "geo", "random", "dynamic_latency", "proximity", "least_outstanding_requests", ""];
    if !known.contains(&balancer["steering_policy"].as_str().unwrap_or_default()) {
        return Err("steering_policy: validation failed".to_owned());
    }
    Ok(())
}

/// Why a monitor is refused.
pub fn check_monitor(monitor: &Value) -> Result<(), String> {
    match monitor["type"].as_str() {
        Some("http" | "https") if monitor["expected_codes"].as_str().is_none_or(str::is_empty) => {
            Err("expected_codes: validation failed: required".to_owned())
        }
        Some("tcp") if monitor["port"].is_null() => Err("port: validation failed: required".to_owned()),
        Some("http" | "https" | "tcp" | "udp_icmp" | "icmp_ping" | "smtp") => Ok(()),
        _ => Err("type: validation failed".to_owned()),
    }
}

/// The pools that a load balancer names, with the place of each.
pub fn pools_of(balancer: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut note = |place: &str, value: &Value| {
        if let Some(id) = value.as_str() {
            found.push((place.to_owned(), id.to_owned()));
        }
    };
    note("fallback_pool", &balancer["fallback_pool"]);
    for id in balancer["default_pools"].as_array().into_iter().flatten() {
        note("default_pools", id);
    }
    for place in ["region_pools", "country_pools", "pop_pools"] {
        for (_, list) in balancer[place].as_object().into_iter().flatten() {
            for id in list.as_array().into_iter().flatten() {
                note(place, id);
            }
        }
    }
    for rule in balancer["rules"].as_array().into_iter().flatten() {
        for id in rule.pointer("/overrides/default_pools").and_then(Value::as_array).into_iter().flatten() {
            note("rules", id);
        }
    }
    found
}
