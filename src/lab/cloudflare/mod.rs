//! A simulated Cloudflare account with one zone, as strict as the real one about load balancing.
//!
//! Owns required fields, ranges, uniqueness, references (412), full replacement by `PUT` and merging by `PATCH`.
//! [`Account::handle`] is a pure step, so that a test can walk every order of calls; [`server`] puts it behind HTTP
//! with failures and a hook between any two calls. Knows nothing of who calls.

pub mod rules;
pub mod server;

use serde_json::{Value, json};

pub use server::{Fault, Server};

/// Account identifier.
pub const ACCOUNT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Zone identifier.
pub const ZONE: &str = "00000000000000000000000000000001";
/// Token that is accepted.
pub const TOKEN: &str = "lab-cloudflare-token";

/// An answer: status and envelope.
pub type Reply = (u16, Value);

/// The account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Name of the zone.
    pub zone: String,
    /// Pools in the order of their creation.
    pub pools: Vec<Value>,
    /// Load balancers.
    pub balancers: Vec<Value>,
    /// Monitors.
    pub monitors: Vec<Value>,
    /// DNS records: name, proxied.
    pub records: Vec<(String, bool)>,
    /// Objects on a page of a list.
    pub page_size: usize,
    made: u64,
}

impl Account {
    /// An empty account with a zone.
    pub fn new(zone: &str) -> Self {
        Self {
            zone: zone.to_owned(),
            pools: Vec::new(),
            balancers: Vec::new(),
            monitors: Vec::new(),
            records: Vec::new(),
            page_size: 1000,
            made: 0,
        }
    }

    /// What is in it, without moments and counters: equal texts mean that nobody can tell the accounts apart.
    pub fn fingerprint(&self) -> String {
        let strip = |list: &[Value]| -> Vec<Value> {
            let mut list = list.to_vec();
            for object in &mut list {
                if let Some(fields) = object.as_object_mut() {
                    fields.remove("modified_on");
                }
            }
            list
        };
        json!([strip(&self.pools), strip(&self.balancers)]).to_string()
    }

    /// A pool by name.
    pub fn pool(&self, name: &str) -> Option<&Value> {
        self.pools.iter().find(|pool| pool["name"] == name)
    }

    /// A pool by name, to change it behind everybody's back.
    pub fn pool_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.pools.iter_mut().find(|pool| pool["name"] == name)
    }

    /// Names of a load balancer's default pools.
    pub fn default_pools(&self, hostname: &str) -> Vec<String> {
        let balancer = self.balancers.iter().find(|balancer| balancer["name"] == hostname);
        let ids = balancer.and_then(|b| b["default_pools"].as_array()).cloned().unwrap_or_default();
        let name = |id: &Value| {
            let pool = self.pools.iter().find(|pool| pool["id"] == *id)?;
            pool["name"].as_str().map(str::to_owned)
        };
        ids.iter().map(|id| name(id).unwrap_or_else(|| "(gone)".to_owned())).collect()
    }

    /// Answers a call. `target` is path and query below `/client/v4`.
    pub fn handle(&mut self, method: &str, target: &str, body: Option<&Value>) -> Reply {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["accounts", ACCOUNT, "load_balancers", "pools", rest @ ..] => {
                self.pools_call(method, rest, query, body)
            }
            ["accounts", ACCOUNT, "load_balancers", "monitors"] => self.monitors_call(method, query, body),
            ["zones", ZONE, "load_balancers", rest @ ..] => self.balancers_call(method, rest, query, body),
            ["zones", ZONE] if method == "GET" => ok(&json!({"id": ZONE, "name": self.zone})),
            ["zones", ZONE, "dns_records"] if method == "GET" => self.records_call(query),
            _ => refusal(404, 7003, "could not route the request"),
        }
    }

    fn pools_call(&mut self, method: &str, rest: &[&str], query: &str, body: Option<&Value>) -> Reply {
        match (method, rest) {
            ("GET", []) => page(&self.pools, query, self.page_size),
            ("POST", []) => {
                let pool = rules::defaulted_pool(body.unwrap_or(&Value::Null));
                match self.checked_pool(&pool, None) {
                    Ok(()) => {
                        let pool = self.stamp(pool, "p");
                        self.pools.push(pool.clone());
                        ok(&pool)
                    }
                    Err(reply) => reply,
                }
            }
            (_, [id, rest @ ..]) => {
                let Some(index) = self.pools.iter().position(|pool| pool["id"] == **id) else {
                    return refusal(404, 1001, "pool not found");
                };
                self.one_pool(method, index, rest, body)
            }
            _ => refusal(405, 10405, "method not allowed"),
        }
    }

    fn one_pool(&mut self, method: &str, index: usize, rest: &[&str], body: Option<&Value>) -> Reply {
        let body = body.unwrap_or(&Value::Null);
        let id = self.pools[index]["id"].clone();
        let pool = match (method, rest) {
            ("GET", []) => return ok(&self.pools[index]),
            ("GET", ["references"]) => return ok(&Value::Array(self.references(&id))),
            ("DELETE", []) => {
                if !self.references(&id).is_empty() {
                    return refusal(412, 1005, "pool is in use by a load balancer");
                }
                self.pools.remove(index);
                return ok(&json!({ "id": id }));
            }
            ("PUT", []) => rules::defaulted_pool(body),
            ("PATCH", []) => rules::merged(&self.pools[index], body),
            _ => return refusal(405, 10405, "method not allowed"),
        };
        if let Err(reply) = self.checked_pool(&pool, Some(&id)) {
            return reply;
        }
        let pool = self.touch(pool, &id);
        self.pools[index] = pool.clone();
        ok(&pool)
    }

    fn checked_pool(&self, pool: &Value, id: Option<&Value>) -> Result<(), Reply> {
        let others = || self.pools.iter().filter(|other| Some(&other["id"]) != id);
        rules::check_pool(pool).map_err(|reason| refusal(400, 1002, &reason))?;
        if others().any(|other| other["name"] == pool["name"]) {
            return Err(refusal(400, 1003, "pool name is not unique"));
        }
        let monitor = &pool["monitor"];
        if monitor.as_str().is_some_and(|m| !m.is_empty() && self.monitors.iter().all(|x| x["id"] != m)) {
            return Err(refusal(400, 1002, "monitor: validation failed: unknown monitor"));
        }
        Ok(())
    }

    fn balancers_call(&mut self, method: &str, rest: &[&str], query: &str, body: Option<&Value>) -> Reply {
        let given = body.unwrap_or(&Value::Null);
        match (method, rest) {
            ("GET", []) => page(&self.balancers, query, self.page_size),
            ("POST", []) => {
                let balancer = rules::defaulted_balancer(given);
                match self.checked_balancer(&balancer, None) {
                    Ok(()) => {
                        let balancer = self.stamp(balancer, "b");
                        self.balancers.push(balancer.clone());
                        ok(&balancer)
                    }
                    Err(reply) => reply,
                }
            }
            (_, [id]) => {
                let Some(index) = self.balancers.iter().position(|b| b["id"] == **id) else {
                    return refusal(404, 1001, "load balancer not found");
                };
                let id = self.balancers[index]["id"].clone();
                let balancer = match method {
                    "GET" => return ok(&self.balancers[index]),
                    "DELETE" => {
                        self.balancers.remove(index);
                        return ok(&json!({ "id": id }));
                    }
                    "PUT" => rules::defaulted_balancer(given),
                    "PATCH" => rules::merged(&self.balancers[index], given),
                    _ => return refusal(405, 10405, "method not allowed"),
                };
                if let Err(reply) = self.checked_balancer(&balancer, Some(&id)) {
                    return reply;
                }
                let balancer = self.touch(balancer, &id);
                self.balancers[index] = balancer.clone();
                ok(&balancer)
            }
            _ => refusal(405, 10405, "method not allowed"),
        }
    }

    fn checked_balancer(&self, balancer: &Value, id: Option<&Value>) -> Result<(), Reply> {
        rules::check_balancer(balancer, &self.zone).map_err(|reason| refusal(400, 1002, &reason))?;
        let others = || self.balancers.iter().filter(|other| Some(&other["id"]) != id);
        if others().any(|other| other["name"] == balancer["name"]) {
            return Err(refusal(400, 1003, "load balancer name is not unique"));
        }
        let unknown = rules::pools_of(balancer)
            .into_iter()
            .find(|(_, pool)| self.pools.iter().all(|known| known["id"] != pool.as_str()));
        match unknown {
            Some((place, pool)) => {
                Err(refusal(400, 1002, &format!("{place}: validation failed: unknown pool {pool}")))
            }
            None => Ok(()),
        }
    }

    fn references(&self, pool: &Value) -> Vec<Value> {
        let uses = |balancer: &&Value| rules::pools_of(balancer).iter().any(|(_, id)| pool == id.as_str());
        let line = |balancer: &Value| {
            json!({"reference_type": "referrer", "resource_type": "load_balancer",
                "resource_id": balancer["id"], "resource_name": balancer["name"]})
        };
        self.balancers.iter().filter(uses).map(line).collect()
    }

    fn monitors_call(&mut self, method: &str, query: &str, body: Option<&Value>) -> Reply {
        match method {
            "GET" => page(&self.monitors, query, self.page_size),
            "POST" => {
                let monitor = body.cloned().unwrap_or_default();
                if let Err(reason) = rules::check_monitor(&monitor) {
                    return refusal(400, 1002, &reason);
                }
                let monitor = self.stamp(monitor, "m");
                self.monitors.push(monitor.clone());
                ok(&monitor)
            }
            _ => refusal(405, 10405, "method not allowed"),
        }
    }

    fn records_call(&self, query: &str) -> Reply {
        let name = query.split('&').find_map(|pair| pair.strip_prefix("name="));
        let wanted = self.records.iter().filter(|(record, _)| name.is_none_or(|name| name == record));
        ok(&wanted.map(|(name, proxied)| json!({"name": name, "proxied": proxied})).collect())
    }

    /// Gives a new object its identifier: made from its name, so that orders of creation give equal accounts.
    fn stamp(&mut self, object: Value, kind: &str) -> Value {
        let text = format!("{kind}/{}/{}", object["name"], object["description"].as_str().unwrap_or(""));
        let hash = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
        });
        self.touch(object, &json!(format!("{hash:032x}")))
    }

    fn touch(&mut self, mut object: Value, id: &Value) -> Value {
        self.made += 1;
        object["id"] = id.clone();
        object["modified_on"] = json!(format!("2026-01-01T00:00:00.{:06}Z", self.made));
        object
    }
}

/// A good answer.
fn ok(result: &Value) -> Reply {
    (200, json!({"success": true, "errors": [], "messages": [], "result": result}))
}

/// A refusal.
pub fn refusal(status: u16, code: u32, message: &str) -> Reply {
    let errors = json!([{"code": code, "message": message}]);
    (status, json!({"success": false, "errors": errors, "messages": [], "result": null}))
}

fn page(list: &[Value], query: &str, size: usize) -> Reply {
    let number = |name: &str| {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<usize>().ok())
    };
    let page = number("page").unwrap_or(1).max(1);
    let items: Vec<Value> = list.iter().skip((page - 1) * size).take(size).cloned().collect();
    let (status, mut reply) = ok(&Value::Array(items));
    reply["result_info"] = json!({
        "page": page, "per_page": size, "total_count": list.len(),
        "total_pages": list.len().div_ceil(size).max(1),
    });
    (status, reply)
}
