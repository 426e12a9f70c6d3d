//! Static routes of Cloudflare Magic Transit: which ones are ours, and giving them a priority.
//!
//! Owns selection by description, the smallest correct write and its check. A write echoes the whole writable route,
//! scope and weight included: the bulk form resets what it does not name. Decides nothing. Every attempt begins with a
//! fresh list, so a write whose answer was lost is not made twice.

mod error;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::Registry;
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::attempts::{Attempts, RetryPolicy, Told};
use super::cloudflare::{Cloudflare, CloudflareError, CloudflareSettings};
use super::http_client::HttpError;
use super::wire::Wire;
use crate::config::Secret;
pub use error::MagicError;

/// Cloudflare's own address of the API.
pub const CLOUDFLARE: &str = "https://api.cloudflare.com/client/v4";
/// Name of the breaker.
const TARGET: &str = "cloudflare_routes";
/// Fields of a route that can be written, besides the four that must be: id, prefix, nexthop, priority.
const OPTIONAL: [&str; 3] = ["description", "weight", "scope"];

/// How the API is used.
#[derive(Debug, Clone)]
pub struct MagicSettings {
    /// Base address, without a trailing slash (`CLOUDFLARE_API_BASE`).
    pub base: String,
    /// API token.
    pub token: Secret,
    /// Account identifier.
    pub account: String,
    /// What a route's description must contain to be ours; case matters. Never empty.
    pub filter: String,
    /// Limit of a read (`CLOUDFLARE_API_TIMEOUT`).
    pub read_timeout: Duration,
    /// Limit of a write (`CLOUDFLARE_BULK_TIMEOUT`).
    pub write_timeout: Duration,
    /// Attempts of a list or of a list with its write.
    pub retry: RetryPolicy,
    /// Calls in five minutes; the token's limit is 1200 for all its users.
    pub budget: u32,
}

impl MagicSettings {
    /// The usual limits.
    pub fn new(base: impl Into<String>, token: Secret, account: &str, filter: &str) -> Self {
        Self {
            base: base.into(),
            token,
            account: account.to_owned(),
            filter: filter.to_owned(),
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            retry: RetryPolicy {
                retries: 3,
                initial: Duration::from_secs(1),
                max: Duration::from_secs(60),
                total: Duration::from_secs(50),
                jitter: true,
            },
            budget: 600,
        }
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MagicRoute {
    /// Identifier.
    pub id: String,
    /// Prefix as written.
    pub prefix: String,
    /// Next hop.
    pub nexthop: String,
    /// Priority; lower wins.
    pub priority: i64,
    /// Description; empty where there is none.
    pub description: String,
    raw: Value,
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prioritised {
    /// Routes that are ours.
    pub matching: usize,
    /// Identifiers of those that were changed; empty = nothing was written.
    pub modified: Vec<String>,
}

/// A client. Cheap to clone.
#[derive(Clone)]
pub struct MagicRoutes {
    inner: Arc<Inner>,
}

struct Inner {
    api: Cloudflare,
    settings: MagicSettings,
    attempts: Attempts,
}

impl MagicRoutes {
    /// Sets the client up; contacts nothing.
    ///
    /// # Errors
    /// Where the filter is empty: it would make every route of the account ours.
    pub fn new(settings: MagicSettings, wire: Wire, attempts: Attempts) -> Result<Self, MagicError> {
        if settings.filter.is_empty() {
            return Err(MagicError::EmptyFilter);
        }
        let api = CloudflareSettings {
            timeout: settings.read_timeout.max(settings.write_timeout),
            budget: settings.budget,
            // Chains of attempts are this module's: they list again before they write again.
            attempts: 1,
            ..CloudflareSettings::new(settings.base.clone(), settings.token.clone())
        };
        // Its metrics stay here: the onlooker of the attempts is told every call.
        let api = Cloudflare::over(api, &Registry::new(), wire).map_err(MagicError::client)?;
        Ok(Self { inner: Arc::new(Inner { api, settings, attempts }) })
    }

    /// A client over the network.
    ///
    /// # Errors
    /// As [`MagicRoutes::new`], and where the HTTP clients cannot be made.
    pub fn over_network(settings: MagicSettings, attempts: Attempts) -> Result<Self, MagicError> {
        let longest = settings.read_timeout.max(settings.write_timeout);
        let wire = Wire::network(longest, 0).map_err(MagicError::client)?;
        Self::new(settings, wire, attempts)
    }

    /// Asks whether the token is active (`tokens/verify`). Advisory: it knows tokens of the account only, so a refusal
    /// proves nothing; listing is the test that counts. Asked once.
    ///
    /// # Errors
    /// As the API answers, or where the token's status is not `active`.
    pub async fn verify_token(&self) -> Result<(), MagicError> {
        let path = format!("/accounts/{}/tokens/verify", self.inner.settings.account);
        let result = self.read(&path, "tokens.verify").await?;
        match result.get("status").and_then(Value::as_str) {
            Some("active") => Ok(()),
            status => Err(MagicError::Inactive { status: status.unwrap_or("missing").to_owned() }),
        }
    }

    /// Our routes, by the whole list. Repeated as the settings say; breaker `cloudflare_routes`.
    ///
    /// # Errors
    /// As the API answers. No matching route is no error here.
    pub async fn routes(&self, deadline: Instant) -> Result<Vec<MagicRoute>, MagicError> {
        let inner = &self.inner;
        let attempt = |_| async { Ok(self.list().await?.0) };
        inner.attempts.run((TARGET, "routes.list"), &inner.settings.retry, deadline, attempt).await
    }

    /// Gives all our routes a priority: one `PUT` with just those that differ, or none where none does.
    ///
    /// # Errors
    /// Any; [`MagicError::NoMatch`] where no route is ours. After a transient one, nobody knows whether it was made.
    pub async fn prioritise(&self, priority: i64, deadline: Instant) -> Result<Prioritised, MagicError> {
        let inner = &self.inner;
        let sent = Mutex::new(Vec::<String>::new());
        let attempt = |_| self.prioritise_once(priority, &sent);
        let matching =
            inner.attempts.run((TARGET, "routes.update"), &inner.settings.retry, deadline, attempt).await?;
        Ok(Prioritised { matching, modified: sent.into_inner().unwrap_or_else(PoisonError::into_inner) })
    }

    async fn prioritise_once(&self, priority: i64, sent: &Mutex<Vec<String>>) -> Result<usize, MagicError> {
        let (routes, listed) = self.list().await?;
        if routes.is_empty() {
            return Err(MagicError::NoMatch { filter: self.inner.settings.filter.clone(), listed });
        }
        let differ: Vec<&MagicRoute> = routes.iter().filter(|route| route.priority != priority).collect();
        if differ.is_empty() {
            return Ok(routes.len());
        }
        {
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            for route in &differ {
                if !sent.contains(&route.id) {
                    sent.push(route.id.clone());
                }
            }
        }
        let body = json!({ "routes": differ.iter().map(|route| entry(route, priority)).collect::<Vec<_>>() });
        let path = self.path();
        self.not_paused("PUT magic routes")?;
        let began = Instant::now();
        let write = self.inner.api.write(Method::PUT, &path, Some(&body), "magic_routes");
        let limit = self.inner.settings.write_timeout;
        let result = bounded(limit, "PUT magic routes", write).await;
        self.tell("routes.update", &result, began.elapsed());
        let result = result.map_err(|error| self.failed(error))?;
        if !confirms(&result, &differ, priority) {
            self.check(&differ, priority).await?;
        }
        Ok(routes.len())
    }

    /// The answer of a write says nothing certain: look at the list.
    async fn check(&self, changed: &[&MagicRoute], priority: i64) -> Result<(), MagicError> {
        let (routes, _) = self.list().await?;
        let is_so = |route: &&&MagicRoute| {
            routes.iter().find(|now| now.id == route.id).is_none_or(|now| now.priority == priority)
        };
        match changed.iter().find(|route| !is_so(route)) {
            None => Ok(()),
            Some(route) => Err(MagicError::NotApplied { id: route.id.clone(), priority }),
        }
    }

    /// Our routes, and how many the account has.
    async fn list(&self) -> Result<(Vec<MagicRoute>, usize), MagicError> {
        self.not_paused("GET magic routes")?;
        let began = Instant::now();
        let path = self.path();
        let read = self.inner.api.list_at(&path, "magic_routes", "/result/routes");
        let limit = self.inner.settings.read_timeout;
        let result = bounded(limit, "GET magic routes", read).await;
        self.tell("routes.list", &result, began.elapsed());
        let list = result.map_err(|error| self.failed(error))?;
        let listed = list.len();
        let mut ours = Vec::new();
        for raw in list {
            let route = read_route(raw)?;
            if route.description.contains(&self.inner.settings.filter) {
                ours.push(route);
            }
        }
        Ok((ours, listed))
    }

    async fn read(&self, path: &str, operation: &'static str) -> Result<Value, MagicError> {
        let began = Instant::now();
        let limit = self.inner.settings.read_timeout;
        let result = bounded(limit, operation, self.inner.api.get(path, operation)).await;
        self.tell(operation, &result, began.elapsed());
        result.map_err(|error| self.failed(error))
    }

    /// A pause that an earlier 429 asked for is an error at once, not a call that times out waiting for its turn.
    fn not_paused(&self, what: &str) -> Result<(), MagicError> {
        let wait = self.inner.api.blocked_for();
        if wait.is_zero() {
            return Ok(());
        }
        let message = "not sent: an earlier answer asked to wait".to_owned();
        let error = CloudflareError::Refused { what: what.to_owned(), status: 429, code: 0, message };
        Err(MagicError::Api { error, retry_after: Some(wait) })
    }

    fn path(&self) -> String {
        format!("/accounts/{}/magic/routes", self.inner.settings.account)
    }

    fn failed(&self, error: CloudflareError) -> MagicError {
        let wait = self.inner.api.blocked_for();
        MagicError::Api { error, retry_after: (!wait.is_zero()).then_some(wait) }
    }

    fn tell<T>(&self, operation: &'static str, result: &Result<T, CloudflareError>, took: Duration) {
        let code = result.as_ref().map_or_else(CloudflareError::code, |_| "200".to_owned());
        self.inner.attempts.tell(Told::Call { api: "cloudflare", operation, code, took });
    }
}

async fn bounded<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, CloudflareError>>,
) -> Result<T, CloudflareError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(CloudflareError::Http(HttpError::Timeout { what: what.to_owned() })),
    }
}

fn read_route(raw: Value) -> Result<MagicRoute, MagicError> {
    let text = |field: &str| raw.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let priority = raw.get("priority").and_then(Value::as_i64);
    let (id, prefix, nexthop) = (text("id"), text("prefix"), text("nexthop"));
    let whole = ![&id, &prefix, &nexthop].iter().any(|text| text.is_empty());
    match priority.filter(|_| whole) {
        Some(priority) => {
            Ok(MagicRoute { id, prefix, nexthop, priority, description: text("description"), raw })
        }
        None => Err(MagicError::Malformed {
            reason: "a route without id, prefix, nexthop or priority".to_owned(),
        }),
    }
}

/// A route as it is written: everything that can be written, with another priority.
fn entry(route: &MagicRoute, priority: i64) -> Value {
    let mut entry = Map::new();
    entry.insert("id".to_owned(), json!(route.id));
    entry.insert("prefix".to_owned(), json!(route.prefix));
    entry.insert("nexthop".to_owned(), json!(route.nexthop));
    entry.insert("priority".to_owned(), json!(priority));
    for field in OPTIONAL {
        if let Some(value) = route.raw.get(field).filter(|value| !value.is_null()) {
            entry.insert(field.to_owned(), value.clone());
        }
    }
    Value::Object(entry)
}

/// Whether the answer of a write names every route with its new priority.
fn confirms(result: &Value, changed: &[&MagicRoute], priority: i64) -> bool {
    let modified = result.get("modified_routes").and_then(Value::as_array);
    let Some(modified) = modified.filter(|_| result.get("modified") == Some(&Value::Bool(true))) else {
        return false;
    };
    let is_in = |route: &&MagicRoute| {
        modified.iter().any(|now| now["id"] == route.id.as_str() && now["priority"] == priority)
    };
    changed.iter().all(is_in)
}
