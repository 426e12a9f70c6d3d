//! Operations: begun by a change, finished by looks or by time; only then is the change made.

use serde_json::{Value, json};

use super::{Cloud, Operation, refusal, rules};
use crate::lab::front::Reply;
use crate::model::Mono;

impl Cloud {
    /// Finishes what is due.
    pub(super) fn settle(&mut self, now: Mono) {
        let propagation = self.propagation_ms;
        for region in self.projects.values_mut().flat_map(|project| project.regions.values_mut()) {
            let due = region.operations.iter_mut().filter(|(_, op)| !op.done);
            for (_, operation) in due.filter(|(_, op)| op.polls_left == 0 || now >= op.at_latest) {
                operation.done = true;
                let Some(router) = region.routers.get_mut(&operation.router) else { continue };
                router.running = None;
                if operation.error.is_none() {
                    router.resource = rules::merged(&router.resource, &operation.patch);
                    router.announce_from(now.plus(propagation));
                }
            }
        }
    }

    /// Begins an operation that changes a router.
    pub(super) fn begin_operation(
        &mut self,
        (project, region, router): (&str, &str, &str),
        patch: Value,
        request_id: Option<String>,
        now: Mono,
    ) -> Reply {
        self.made += 1;
        let name = format!("operation-{:06}", self.made);
        let operation = Operation {
            router: router.to_owned(),
            patch,
            request_id,
            // The answer to the change itself never says DONE, so at least one look is needed.
            polls_left: self.operation.polls.max(1),
            at_latest: now.plus(self.operation.at_latest_ms),
            error: self.operation.error.clone(),
            done: false,
        };
        let answer = describe(&name, region, &operation, "PENDING");
        let place = self.region_mut(project, region);
        if let Some(router) = place.routers.get_mut(router) {
            router.running = Some(name.clone());
        }
        place.operations.insert(name, operation);
        Reply::json(200, &answer)
    }

    /// The operation that a request identifier already began.
    pub(super) fn repeated(
        &mut self,
        (project, region, router): (&str, &str, &str),
        patch: &Value,
        request_id: Option<&String>,
    ) -> Result<Option<Reply>, Reply> {
        let operations = &self.region_mut(project, region).operations;
        let found =
            operations.iter().find(|(_, op)| request_id.is_some() && op.request_id.as_ref() == request_id);
        match found {
            None => Ok(None),
            Some((name, operation)) if operation.patch == *patch && operation.router == router => {
                let status = if operation.done { "DONE" } else { "RUNNING" };
                Ok(Some(Reply::json(200, &describe(name, region, operation, status))))
            }
            Some(_) => Err(refusal(400, "invalid", "The requestId was used for another request")),
        }
    }

    /// `regionOperations.get`.
    pub(super) fn look_at_operation(
        &mut self,
        project: &str,
        region: &str,
        name: &str,
        now: Mono,
    ) -> Result<Reply, Reply> {
        let missing = || refusal(404, "notFound", &format!("The resource 'operations/{name}' was not found"));
        let operation = self.region_mut(project, region).operations.get_mut(name).ok_or_else(missing)?;
        let status = if operation.done {
            "DONE"
        } else {
            operation.polls_left = operation.polls_left.saturating_sub(1);
            "RUNNING"
        };
        let answer = describe(name, region, operation, status);
        self.settle(now);
        Ok(Reply::json(200, &answer))
    }
}

fn describe(name: &str, region: &str, operation: &Operation, status: &str) -> Value {
    let mut answer = json!({
        "kind": "compute#operation", "name": name, "operationType": "patch", "region": region,
        "targetLink": format!("regions/{region}/routers/{}", operation.router), "status": status,
        "progress": if status == "DONE" { 100 } else { 0 },
    });
    if let (true, Some((code, message))) = (status == "DONE", &operation.error) {
        answer["error"] = json!({"errors": [{"code": code, "message": message}]});
        answer["httpErrorStatusCode"] = json!(400);
        answer["httpErrorMessage"] = json!("BAD REQUEST");
    }
    answer
}
