//! Reading routers and their status, and accepting or refusing a patch.

use serde_json::{Value, json};

use super::{Cloud, Router, refusal, rules};
use crate::lab::front::Reply;
use crate::model::Mono;

impl Cloud {
    pub(super) fn router_in(&self, project: &str, region: &str, router: &str) -> Result<&Router, Reply> {
        let region = self.projects.get(project).and_then(|project| project.regions.get(region));
        region.and_then(|region| region.routers.get(router)).ok_or_else(|| {
            refusal(404, "notFound", &format!("The resource 'routers/{router}' was not found"))
        })
    }

    /// `routers.getRouterStatus`. Empty lists are left out, as everywhere in this API.
    pub(super) fn router_status(
        &self,
        project: &str,
        region: &str,
        router: &str,
        now: Mono,
    ) -> Result<Reply, Reply> {
        let router = self.router_in(project, region, router)?;
        let peers: Vec<Value> =
            router.sessions.iter().map(|(peer, status)| session(router, peer, status, now)).collect();
        let mut result = json!({"network": router.resource["network"]});
        if !peers.is_empty() {
            result["bgpPeerStatus"] = Value::Array(peers);
        }
        Ok(Reply::json(200, &json!({"kind": "compute#routerStatusResponse", "result": result})))
    }

    /// `routers.patch`: checked against what the router would be, accepted, and made when the operation ends.
    pub(super) fn patch_router(
        &mut self,
        (project, region, router): (&str, &str, &str),
        patch: Value,
        request_id: Option<String>,
        now: Mono,
    ) -> Result<Reply, Reply> {
        if let Some(id) = &request_id
            && !rules::is_request_id(id)
        {
            return Err(refusal(400, "invalid", "Invalid value for field 'requestId': not a UUID"));
        }
        let current = self.router_in(project, region, router)?.clone();
        let place = (project, region, router);
        if let Some(reply) = self.repeated(place, &patch, request_id.as_ref())? {
            return Ok(reply);
        }
        rules::check_patch(&current.resource, &patch)
            .map_err(|(reason, message)| refusal(400, reason, &message))?;
        if current.running.is_some() {
            let message =
                format!("The resource 'projects/{project}/regions/{region}/routers/{router}' is not ready");
            return Err(refusal(400, "resourceNotReady", &message));
        }
        Ok(self.begin_operation(place, patch, request_id, now))
    }
}

fn session(router: &Router, peer: &str, status: &str, now: Mono) -> Value {
    let mut session = json!({"name": peer, "ipAddress": "169.254.0.1", "peerIpAddress": "169.254.0.2"});
    if status.is_empty() {
        return session;
    }
    session["status"] = json!(status);
    if status != "UP" {
        session["state"] = json!("Idle");
        session["statusReason"] = json!("STATUS_REASON_UNSPECIFIED");
        return session;
    }
    session["state"] = json!("Established");
    session["uptimeSeconds"] = json!("4711");
    session["numLearnedRoutes"] = json!(3);
    let route = |prefix: &ipnet::IpNet| json!({"kind": "compute#route", "destRange": prefix.to_string(), "priority": 100, "routeType": "BGP"});
    let routes: Vec<Value> = router.announces(peer, now).iter().map(route).collect();
    if !routes.is_empty() {
        session["advertisedRoutes"] = Value::Array(routes);
    }
    session
}
