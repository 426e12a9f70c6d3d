//! A simulated Google Compute: projects, regions, backend services with their health, Cloud Routers, operations, tokens.
//!
//! As strict as the real one: unknown fields and parameters, wrong methods, regions and projects, tokens without the
//! scope, permissions, page tokens, quotas, advertise modes, a router that is being changed. A change is accepted, takes
//! effect when its operation ends, and shows in the sessions later still. [`Cloud`] is a pure step with the time passed
//! in; [`super::front`] puts it behind HTTP or a function, with failures and a hook between any two calls.

mod api;
mod build;
mod filter;
mod health;
mod operations;
mod routers;
mod rules;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::front::{Front, Reply, Simulated};
use super::http::Request;
use crate::adapters::attempts::Attempts;
use crate::adapters::gcp::{Compute, CredentialSource, Credentials, GcpSettings};
use crate::config::Secret;
use crate::model::Mono;
pub use tokens::{METADATA_PATH, SUBJECT_TOKEN, Tokens};

/// The address of a lab cloud that is reached without sockets.
pub const LAB_BASE: &str = "http://localhost";
/// Path of the API below a base.
pub const API_PATH: &str = "/compute/v1";

/// How the next operations go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationStyle {
    /// Looks at an operation that find it unfinished.
    pub polls: u32,
    /// Milliseconds after which it is finished even if nobody looks.
    pub at_latest_ms: u64,
    /// Code and message of its error: nothing is changed then.
    pub error: Option<(String, String)>,
}

/// The cloud.
#[derive(Debug, Clone)]
pub struct Cloud {
    /// Projects by name.
    pub projects: BTreeMap<String, Project>,
    /// Tokens and who gets them.
    pub tokens: Tokens,
    /// Permissions that the caller lacks, such as `compute.routers.update`.
    pub denied: BTreeSet<String>,
    /// Calls in a minute before the quota is used up.
    pub quota_per_minute: Option<u32>,
    /// Entries of a page where the caller asks for more.
    pub page_size: usize,
    /// How operations that begin from now on go.
    pub operation: OperationStyle,
    /// Milliseconds from the end of an operation until the sessions announce accordingly.
    pub propagation_ms: u64,
    quota_used: (u64, u32),
    pages: BTreeMap<String, (String, usize)>,
    made: u64,
}

/// A project.
#[derive(Debug, Clone, Default)]
pub struct Project {
    /// Its regions by name.
    pub regions: BTreeMap<String, Region>,
}

/// A region.
#[derive(Debug, Clone, Default)]
pub struct Region {
    /// Backend services by name.
    pub services: BTreeMap<String, Service>,
    /// Routers by name.
    pub routers: BTreeMap<String, Router>,
    /// Operations by name.
    pub operations: BTreeMap<String, Operation>,
}

/// A backend service.
#[derive(Debug, Clone)]
pub struct Service {
    /// The resource as it is listed.
    pub resource: Value,
    /// Health by URL of the group.
    pub health: BTreeMap<String, GroupHealth>,
}

/// What `getHealth` says about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupHealth {
    /// Instances with their state; an empty state is left out of the entry.
    Instances(Vec<(String, String)>),
    /// An answer without `healthStatus`.
    Nothing,
    /// A refusal with this status and reason.
    Refused(u16, String),
}

/// A router.
#[derive(Debug, Clone)]
pub struct Router {
    /// The resource.
    pub resource: Value,
    /// Status of each peer's session: `UP`, `DOWN`, `UNKNOWN`, or empty for an entry without the field.
    pub sessions: BTreeMap<String, String>,
    /// The operation that changes it now.
    pub running: Option<String>,
    /// What the sessions announce, since when; the last one that has begun is true.
    announced: Vec<(Mono, Value)>,
}

/// An operation.
#[derive(Debug, Clone)]
pub struct Operation {
    router: String,
    patch: Value,
    request_id: Option<String>,
    polls_left: u32,
    at_latest: Mono,
    error: Option<(String, String)>,
    done: bool,
}

impl Simulated for Cloud {
    fn handle(&mut self, request: &Request, now: Mono) -> Reply {
        self.settle(now);
        self.answer(request, now)
    }

    fn refusal(&self, status: u16, reason: &str) -> Reply {
        refusal(status, reason, "scripted failure")
    }

    fn is_write(&self, request: &Request) -> bool {
        request.method == http::Method::PATCH
    }

    fn operation(&self, request: &Request) -> &'static str {
        api::operation(request)
    }
}

/// A client of a lab cloud without sockets, with the lab's own service-account key.
pub fn connect(cloud: &Front<Cloud>, settings: GcpSettings, attempts: Attempts) -> Compute {
    let settings = GcpSettings { endpoint: format!("{LAB_BASE}{API_PATH}"), ..settings };
    let content = Secret::new(Tokens::key_file(LAB_BASE).to_string());
    let source = CredentialSource::Json { content, token_endpoint: None };
    let credentials = Credentials::new(source, cloud.wire(), attempts.clone());
    Compute::new(settings, cloud.wire(), credentials, attempts)
}

/// A refusal in the API's words.
pub fn refusal(status: u16, reason: &str, message: &str) -> Reply {
    let word = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let errors = json!([{"message": message, "domain": "global", "reason": reason}]);
    Reply::json(
        status,
        &json!({"error": {"code": status, "message": message, "errors": errors, "status": word}}),
    )
}
