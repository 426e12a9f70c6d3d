//! Which call is which, and what every call is checked for: token, scope, quota, permission, parameters.

use http::Method;
use serde_json::{Value, json};

use super::{API_PATH, Cloud, refusal};
use crate::lab::front::Reply;
use crate::lab::http::Request;
use crate::model::Mono;

/// Refusal of a call that is not one of the API's: Google's front answers these without JSON.
fn unknown_url() -> Reply {
    Reply {
        status: 404,
        headers: Vec::new(),
        kind: "text/html; charset=UTF-8",
        body: "<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>".to_owned(),
    }
}

/// The parts of a path below the API's, decoded; `None` for any other path.
fn parts(request: &Request) -> Option<Vec<&str>> {
    let rest = request.path.strip_prefix(API_PATH)?.strip_prefix('/')?;
    Some(rest.split('/').collect())
}

/// Name of a call's operation.
pub(super) fn operation(request: &Request) -> &'static str {
    let Some(parts) = parts(request) else { return "token" };
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["projects", _]) => "projects.get",
        ("GET", ["projects", _, "regions", _]) => "regions.get",
        ("GET", [.., "backendServices"]) => "regionBackendServices.list",
        ("POST", [.., "backendServices", _, "getHealth"]) => "regionBackendServices.getHealth",
        ("GET", [.., "routers", _]) => "routers.get",
        ("GET", [.., "routers", _, "getRouterStatus"]) => "routers.getRouterStatus",
        ("PATCH", [.., "routers", _]) => "routers.patch",
        ("GET", [.., "operations", _]) => "regionOperations.get",
        _ => "unknown",
    }
}

impl Cloud {
    pub(super) fn answer(&mut self, request: &Request, now: Mono) -> Reply {
        let Some(parts) = parts(request) else {
            return self.token_call(request, now).unwrap_or_else(unknown_url);
        };
        if let Err(reply) = self.tokens.check(request, now) {
            return reply;
        }
        if let Err(reply) = self.spend(now) {
            return reply;
        }
        let result = match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["projects", project]) => {
                self.permitted("compute.projects.get", request, &[]).and_then(|()| self.project(project))
            }
            ("GET", ["projects", project, "regions", region]) => {
                let checked = self.permitted("compute.regions.get", request, &[]);
                checked.and_then(|()| self.in_region(project, region)).map(|()| {
                    Reply::json(200, &json!({"kind": "compute#region", "name": region, "status": "UP"}))
                })
            }
            (_, ["projects", project, "regions", region, rest @ ..]) => self
                .in_region(project, region)
                .and_then(|()| self.regional(request, project, region, rest, now)),
            _ => Ok(unknown_url()),
        };
        result.unwrap_or_else(|reply| reply)
    }

    fn regional(
        &mut self,
        request: &Request,
        project: &str,
        region: &str,
        rest: &[&str],
        now: Mono,
    ) -> Result<Reply, Reply> {
        match (request.method.as_str(), rest) {
            ("GET", ["backendServices"]) => {
                let known = ["maxResults", "pageToken", "filter", "orderBy", "returnPartialSuccess"];
                self.permitted("compute.regionBackendServices.list", request, &known)?;
                self.list_services(request, project, region)
            }
            ("POST", ["backendServices", service, "getHealth"]) => {
                self.permitted("compute.regionBackendServices.get", request, &[])?;
                let body = json_body(request)?;
                self.get_health(project, region, service, &body)
            }
            ("GET", ["routers", router]) => {
                self.permitted("compute.routers.get", request, &[])?;
                Ok(Reply::json(200, &self.router_in(project, region, router)?.resource))
            }
            ("GET", ["routers", router, "getRouterStatus"]) => {
                self.permitted("compute.routers.get", request, &[])?;
                self.router_status(project, region, router, now)
            }
            ("PATCH", ["routers", router]) => {
                self.permitted("compute.routers.update", request, &["requestId"])?;
                let body = json_body(request)?;
                let request_id = request.parameter("requestId");
                self.patch_router((project, region, router), body, request_id, now)
            }
            ("GET", ["operations", operation]) => {
                self.permitted("compute.regionOperations.get", request, &[])?;
                self.look_at_operation(project, region, operation, now)
            }
            _ => Ok(unknown_url()),
        }
    }

    fn project(&self, project: &str) -> Result<Reply, Reply> {
        if self.projects.contains_key(project) {
            return Ok(Reply::json(200, &json!({"kind": "compute#project", "name": project})));
        }
        Err(refusal(404, "notFound", &format!("The resource 'projects/{project}' was not found")))
    }

    fn in_region(&self, project: &str, region: &str) -> Result<(), Reply> {
        self.project(project)?;
        if self.projects.get(project).is_some_and(|found| found.regions.contains_key(region)) {
            return Ok(());
        }
        let message = format!("The resource 'projects/{project}/regions/{region}' was not found");
        Err(refusal(404, "notFound", &message))
    }

    /// A permission, and that the query has no parameter that the call does not know, and none twice.
    fn permitted(&self, permission: &str, request: &Request, known: &[&str]) -> Result<(), Reply> {
        let mut names: Vec<&str> = Vec::new();
        for pair in request.query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap_or_default();
            if !known.contains(&name) || names.contains(&name) {
                let message = format!("Invalid query parameter \"{name}\": cannot find field.");
                return Err(refusal(400, "badRequest", &message));
            }
            names.push(name);
        }
        if self.denied.contains(permission) {
            let message = format!("Required '{permission}' permission");
            return Err(refusal(403, "forbidden", &message));
        }
        Ok(())
    }

    /// Counts a call against the quota, whose window begins anew on every full minute.
    fn spend(&mut self, now: Mono) -> Result<(), Reply> {
        let minute = now.0 / 60_000;
        if self.quota_used.0 != minute {
            self.quota_used = (minute, 0);
        }
        self.quota_used.1 += 1;
        match self.quota_per_minute {
            Some(limit) if self.quota_used.1 > limit => {
                let message = "Quota exceeded for quota metric 'Read requests' per minute";
                Err(refusal(403, "rateLimitExceeded", message))
            }
            _ => Ok(()),
        }
    }
}

/// A body that is a JSON object and says so.
fn json_body(request: &Request) -> Result<Value, Reply> {
    let kind = request.header("content-type").unwrap_or_default();
    if request.method != Method::GET && !kind.starts_with("application/json") {
        return Err(refusal(400, "parseError", "This API does not support parsing form-encoded input."));
    }
    match serde_json::from_slice(&request.body) {
        Ok(body @ Value::Object(_)) => Ok(body),
        _ => Err(refusal(400, "parseError", "Parse Error")),
    }
}
