//! A simulated Cloudflare account with Magic Transit static routes, as strict as the real one.
//!
//! Owns the four required fields, ranges, identifiers, and that a write replaces the whole route: a scope, weight or
//! description that is not named is gone. [`super::front`] puts it behind HTTP or a function.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::front::{Front, Reply, Simulated};
use super::http::Request;
use crate::adapters::attempts::Attempts;
use crate::adapters::cloudflare_routes::{MagicError, MagicRoutes, MagicSettings};
use crate::config::Secret;
use crate::model::Mono;

/// Account identifier.
pub const ACCOUNT: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Token that is accepted.
pub const TOKEN: &str = "lab-magic-token";
/// Path of the API below a base.
pub const API_PATH: &str = "/client/v4";
/// Fields of a route that a write may name.
const WRITABLE: [&str; 7] = ["id", "prefix", "nexthop", "priority", "description", "weight", "scope"];
/// Calls in a window, and milliseconds of a window.
const LIMIT: (u32, u64) = (1200, 300_000);

/// The account.
#[derive(Debug, Clone)]
pub struct MagicAccount {
    /// Routes in the order of their creation.
    pub routes: Vec<Value>,
    /// Whether the token belongs to a user: `tokens/verify` of the account does not know it then.
    pub user_token: bool,
    /// Whether the token may only read.
    pub read_only: bool,
    /// Entries on a page; `None` = all on one page without `result_info`, as the API does today.
    pub page_size: Option<usize>,
    /// Writes are answered well and not made: somebody else wins every time.
    pub deaf: bool,
    window: (u64, u32),
    changed: u64,
}

impl Default for MagicAccount {
    fn default() -> Self {
        Self::new()
    }
}

impl MagicAccount {
    /// An account without routes.
    pub fn new() -> Self {
        Self {
            routes: Vec::new(),
            user_token: false,
            read_only: false,
            page_size: None,
            deaf: false,
            window: (0, 0),
            changed: 0,
        }
    }

    /// Adds a route and gives its identifier.
    pub fn add(&mut self, prefix: &str, nexthop: &str, priority: i64, description: Option<&str>) -> String {
        let id = format!("{:032x}", self.routes.len() + 1);
        let mut route = json!({"id": id, "prefix": prefix, "nexthop": nexthop, "priority": priority, "weight": null,
            "created_on": "2026-01-01T00:00:00Z", "modified_on": "2026-01-01T00:00:00Z"});
        route["description"] = description.map_or(Value::Null, |text| json!(text));
        self.routes.push(route);
        id
    }

    /// Priority of a route.
    pub fn priority(&self, id: &str) -> Option<i64> {
        self.routes.iter().find(|route| route["id"] == id)?["priority"].as_i64()
    }

    /// Priorities of the routes whose description contains a text, each once.
    pub fn priorities(&self, filter: &str) -> BTreeSet<i64> {
        let ours = self
            .routes
            .iter()
            .filter(|route| route["description"].as_str().is_some_and(|d| d.contains(filter)));
        ours.filter_map(|route| route["priority"].as_i64()).collect()
    }

    fn answer(&mut self, request: &Request, now: Mono) -> Result<Reply, Reply> {
        if request.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return Err(refusal(403, 10000, "Authentication error"));
        }
        self.spend(now)?;
        let path = request.path.strip_prefix(API_PATH).unwrap_or_default();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["accounts", ACCOUNT, "tokens", "verify"]) if self.user_token => {
                Err(refusal(401, 1000, "Invalid API Token"))
            }
            ("GET", ["accounts", ACCOUNT, "tokens", "verify"]) => {
                Ok(ok(&json!({"id": "t", "status": "active"})))
            }
            ("GET", ["accounts", ACCOUNT, "magic", "routes"]) => Ok(self.list(request)),
            ("PUT", ["accounts", ACCOUNT, "magic", "routes"]) => {
                let body = self.writable(request)?;
                self.put_all(&body)
            }
            ("PUT", ["accounts", ACCOUNT, "magic", "routes", id]) => {
                let body = self.writable(request)?;
                self.put_one(id, &body)
            }
            (_, ["accounts", ACCOUNT, "magic", "routes", ..]) => {
                Err(refusal(405, 10405, "Method not allowed for this authentication scheme"))
            }
            (_, ["accounts", ..]) => Err(refusal(403, 10000, "Authentication error")),
            _ => Err(refusal(
                404,
                7003,
                "Could not route the request, perhaps your object identifier is invalid?",
            )),
        }
    }

    fn list(&self, request: &Request) -> Reply {
        let Some(size) = self.page_size else { return ok(&json!({ "routes": self.routes })) };
        let page = request.parameter("page").and_then(|text| text.parse::<usize>().ok()).unwrap_or(1).max(1);
        let routes: Vec<&Value> = self.routes.iter().skip((page - 1) * size).take(size).collect();
        let mut envelope = envelope(&json!({ "routes": routes }));
        envelope["result_info"] = json!({"page": page, "per_page": size, "total_count": self.routes.len(),
            "total_pages": self.routes.len().div_ceil(size).max(1)});
        Reply::json(200, &envelope)
    }

    fn writable(&self, request: &Request) -> Result<Value, Reply> {
        if self.read_only {
            return Err(refusal(403, 10000, "Authentication error"));
        }
        if !request.header("content-type").unwrap_or_default().starts_with("application/json") {
            return Err(refusal(400, 6003, "Invalid request headers"));
        }
        match serde_json::from_slice(&request.body) {
            Ok(body @ Value::Object(_)) => Ok(body),
            _ => Err(refusal(400, 9207, "Request body is invalid.")),
        }
    }

    /// All or nothing.
    fn put_all(&mut self, body: &Value) -> Result<Reply, Reply> {
        let only_routes = body.as_object().is_some_and(|fields| fields.len() == 1);
        let Some(entries) = body["routes"].as_array().filter(|list| only_routes && !list.is_empty()) else {
            return Err(refusal(400, 1001, "routes: required, and nothing else"));
        };
        let mut ids = BTreeSet::new();
        for entry in entries {
            let id = entry["id"].as_str().unwrap_or_default();
            self.check(id, entry)?;
            if !ids.insert(id) {
                return Err(refusal(400, 1002, "routes: the same id twice"));
            }
        }
        let modified: Vec<Value> = entries.iter().map(|entry| self.replace(entry)).collect();
        Ok(ok(&json!({"modified": true, "modified_routes": modified})))
    }

    fn put_one(&mut self, id: &str, body: &Value) -> Result<Reply, Reply> {
        let mut entry = body.clone();
        entry["id"] = json!(id);
        self.check(id, &entry)?;
        let modified = self.replace(&entry);
        Ok(ok(&json!({"modified": true, "modified_route": modified})))
    }

    fn check(&self, id: &str, entry: &Value) -> Result<(), Reply> {
        let invalid = |field: &str| refusal(400, 1002, &format!("{field}: validation failed"));
        let fields = entry.as_object().ok_or_else(|| invalid("routes"))?;
        if let Some(name) = fields.keys().find(|name| !WRITABLE.contains(&name.as_str())) {
            return Err(refusal(400, 1004, &format!("{name}: unknown or read-only field")));
        }
        let known = self.routes.iter().find(|route| route["id"] == id);
        if known.is_none() {
            return Err(refusal(404, 1001, "route not found"));
        }
        let prefix: Option<IpNet> = entry["prefix"].as_str().and_then(|text| text.parse().ok());
        prefix.filter(|net| *net == net.trunc()).ok_or_else(|| invalid("prefix"))?;
        let hop: Option<std::net::IpAddr> = entry["nexthop"].as_str().and_then(|text| text.parse().ok());
        hop.ok_or_else(|| invalid("nexthop"))?;
        entry["priority"]
            .as_i64()
            .filter(|n| (0..=i64::from(i32::MAX)).contains(n))
            .ok_or_else(|| invalid("priority"))?;
        let weight = &entry["weight"];
        if !weight.is_null() && !weight.as_i64().is_some_and(|n| (1..=256).contains(&n)) {
            return Err(invalid("weight"));
        }
        let scope = &entry["scope"];
        let scope_fields = scope.as_object().is_some_and(|scope| {
            scope.iter().all(|(name, list)| {
                ["colo_names", "colo_regions"].contains(&name.as_str()) && list.is_array()
            })
        });
        if !scope.is_null() && !scope_fields {
            return Err(invalid("scope"));
        }
        Ok(())
    }

    /// Replaces a route whole: what the entry does not name is gone.
    fn replace(&mut self, entry: &Value) -> Value {
        self.changed += 1;
        let stamp = format!("2026-01-01T00:00:00.{:06}Z", self.changed);
        let Some(route) = self.routes.iter_mut().find(|route| route["id"] == entry["id"]) else {
            return Value::Null;
        };
        let mut next = Map::new();
        for field in WRITABLE {
            next.insert(field.to_owned(), entry[field].clone());
        }
        if next["scope"].is_null() {
            next.shift_remove("scope");
        }
        next.insert("created_on".to_owned(), route["created_on"].clone());
        next.insert("modified_on".to_owned(), json!(stamp));
        if !self.deaf {
            *route = Value::Object(next);
        }
        route.clone()
    }

    fn spend(&mut self, now: Mono) -> Result<(), Reply> {
        let window = now.0 / LIMIT.1;
        if self.window.0 != window {
            self.window = (window, 0);
        }
        self.window.1 += 1;
        if self.window.1 <= LIMIT.0 {
            return Ok(());
        }
        let mut reply = refusal(429, 971, "Please wait and consider throttling your request speed");
        reply.headers.push(("retry-after", ((window + 1) * LIMIT.1 - now.0).div_ceil(1000).to_string()));
        Err(reply)
    }
}

impl Simulated for MagicAccount {
    fn handle(&mut self, request: &Request, now: Mono) -> Reply {
        self.answer(request, now).unwrap_or_else(|reply| reply)
    }

    fn refusal(&self, status: u16, reason: &str) -> Reply {
        refusal(status, 1000, reason)
    }

    fn is_write(&self, request: &Request) -> bool {
        request.method != http::Method::GET
    }

    fn operation(&self, request: &Request) -> &'static str {
        match (request.method.as_str(), request.path.ends_with("/verify")) {
            ("GET", true) => "tokens.verify",
            ("GET", false) => "routes.list",
            ("PUT", _) => "routes.update",
            _ => "unknown",
        }
    }
}

/// A client of a lab account without sockets: the settings with the lab's address, account and token.
///
/// # Errors
/// Where the filter is empty.
pub fn connect(
    account: &Front<MagicAccount>,
    settings: MagicSettings,
    attempts: Attempts,
) -> Result<MagicRoutes, MagicError> {
    let base = format!("http://localhost{API_PATH}");
    let (token, account_id) = (Secret::new(TOKEN), ACCOUNT.to_owned());
    let settings = MagicSettings { base, token, account: account_id, ..settings };
    MagicRoutes::new(settings, account.wire(), attempts)
}

fn envelope(result: &Value) -> Value {
    json!({"success": true, "errors": [], "messages": [], "result": result})
}

fn ok(result: &Value) -> Reply {
    Reply::json(200, &envelope(result))
}

/// A refusal in the API's words.
pub fn refusal(status: u16, code: u32, message: &str) -> Reply {
    let errors = json!([{"code": code, "message": message}]);
    Reply::json(status, &json!({"success": false, "errors": errors, "messages": [], "result": null}))
}
