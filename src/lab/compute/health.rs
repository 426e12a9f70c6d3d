//! Listing backend services by page, and `getHealth` of a group.

use serde_json::{Value, json};

use super::{Cloud, GroupHealth, filter, refusal};
use crate::lab::front::Reply;
use crate::lab::http::Request;

/// Most entries of a page.
const MAX_RESULTS: usize = 500;

impl Cloud {
    /// `regionBackendServices.list`. A page token is good for the very question that it was given to.
    pub(super) fn list_services(
        &mut self,
        request: &Request,
        project: &str,
        region: &str,
    ) -> Result<Reply, Reply> {
        let invalid = |message: &str| refusal(400, "invalid", message);
        let asked = match request.parameter("maxResults") {
            None => MAX_RESULTS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| *number <= MAX_RESULTS)
                .ok_or_else(|| invalid("Invalid value for field 'maxResults': must be 0 to 500"))?,
        };
        let text = request.parameter("filter").unwrap_or_default();
        let wanted = filter::parse(&text).map_err(|reason| invalid(&reason))?;
        let question = format!("{project}/{region}?{asked}&{text}");
        let start = match request.parameter("pageToken") {
            None => 0,
            Some(token) => match self.pages.get(&token) {
                Some((of, start)) if *of == question => *start,
                _ => return Err(invalid("Invalid value for field 'pageToken'")),
            },
        };
        let services = &self.region_mut(project, region).services;
        let found: Vec<Value> =
            services.values().filter(|s| wanted.passes(&s.resource)).map(|s| s.resource.clone()).collect();
        let size = if asked == 0 { self.page_size } else { self.page_size.min(asked) }.max(1);
        let page: Vec<Value> = found.iter().skip(start).take(size).cloned().collect();
        let mut answer = json!({
            "kind": "compute#backendServiceList", "id": format!("projects/{project}/regions/{region}/backendServices"),
        });
        if !page.is_empty() {
            answer["items"] = Value::Array(page);
        }
        if start + size < found.len() {
            self.made += 1;
            let token = format!("page=={}/{}", self.made, start + size);
            self.pages.insert(token.clone(), (question, start + size));
            answer["nextPageToken"] = json!(token);
        }
        Ok(Reply::json(200, &answer))
    }

    /// `regionBackendServices.getHealth`.
    pub(super) fn get_health(
        &mut self,
        project: &str,
        region: &str,
        service: &str,
        body: &Value,
    ) -> Result<Reply, Reply> {
        let fields = body.as_object().into_iter().flatten();
        for (name, _) in fields {
            if !["group", "annotations", "kind"].contains(&name.as_str()) {
                let message =
                    format!("Invalid JSON payload received. Unknown name \"{name}\": Cannot find field.");
                return Err(refusal(400, "badRequest", &message));
            }
        }
        let Some(found) = self.region_mut(project, region).services.get(service) else {
            let message = format!("The resource 'backendServices/{service}' was not found");
            return Err(refusal(404, "notFound", &message));
        };
        let group = body["group"].as_str().unwrap_or_default();
        if group.is_empty() {
            return Err(refusal(400, "required", "Required field 'group' not specified"));
        }
        let mut backends = found.resource["backends"].as_array().into_iter().flatten();
        if !backends.any(|backend| backend["group"] == group) {
            let message = format!("Invalid value for field 'group': '{group}' is no backend of the service");
            return Err(refusal(400, "invalid", &message));
        }
        let mut answer = json!({"kind": "compute#backendServiceGroupHealth"});
        match found.health.get(group) {
            Some(GroupHealth::Refused(status, reason)) => {
                return Err(refusal(*status, reason, "the group's health cannot be had"));
            }
            Some(GroupHealth::Instances(instances)) if !instances.is_empty() => {
                answer["healthStatus"] = instances.iter().map(entry).collect();
            }
            _ => {}
        }
        Ok(Reply::json(200, &answer))
    }
}

fn entry((instance, state): &(String, String)) -> Value {
    let mut entry = json!({"instance": instance, "ipAddress": "10.0.0.1", "port": 80});
    if !state.is_empty() {
        entry["healthState"] = json!(state);
    }
    entry
}
