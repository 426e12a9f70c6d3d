//! Health of a region's backends: all pages of its regional backend services, and `getHealth` of each backend group.
//!
//! Owns paging and bounded parallelism inside the cycle's deadline. A group that could not be asked is unanswered with
//! its reason; it never counts as sick here. What the answers amount to is decided above.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Compute, GcpError, escape};

/// Most pages of a list; a page has up to 500 entries.
const PAGE_LIMIT: usize = 200;

/// Which services are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendScope {
    /// Project of the services.
    pub project: String,
    /// Their region.
    pub region: String,
    /// A filter expression of the API, such as `name eq "edge-.*"`; `None` = all services of the region.
    pub filter: Option<String>,
}

/// What a region's services answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionAnswer {
    /// Services by name, each once.
    pub services: Vec<ServiceAnswer>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAnswer {
    /// Its name.
    pub name: String,
    /// Its backend groups, in the API's order. Empty where it has none.
    pub groups: Vec<GroupAnswer>,
}

/// A backend group of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupAnswer {
    /// URL of the group.
    pub group: String,
    /// Takes no traffic (`capacityScaler: 0`): not asked, without instances.
    pub drained: bool,
    /// Takes traffic only when the others cannot (`failover: true`).
    pub failover: bool,
    /// The instances; empty where the answer has none (an empty group, no forwarding rule, serverless).
    pub health: Result<Vec<InstanceHealth>, GcpError>,
}

/// An instance of a group. Where the answer lists it several times (ports, forwarding rules), it is as bad as the worst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceHealth {
    /// URL of the instance, or `address:port` of an endpoint that has none.
    pub name: String,
    /// `HEALTHY`, `UNHEALTHY`, another word, or empty where the answer has no word.
    pub state: String,
}

/// A group to ask for: service, group, number of its place.
struct Question {
    service: usize,
    group: usize,
    name: String,
    url: String,
}

impl Compute {
    /// Lists the scope's services and asks for the health of every group that takes traffic.
    ///
    /// Reads are repeated as `health_retry` says, all inside `deadline`; groups whose turn does not come before it are
    /// unanswered. One breaker per region: a list that fails, or groups that all fail, count as its failure.
    ///
    /// # Errors
    /// Where the list cannot be read completely.
    pub async fn backend_health(
        &self,
        scope: &BackendScope,
        deadline: Instant,
    ) -> Result<RegionAnswer, GcpError> {
        let attempts = &self.inner.attempts;
        let target = format!("gcp_health_check/{}", scope.region);
        attempts
            .admit(&target)
            .map_err(|wait| GcpError::Blocked { target: target.clone(), retry_in: wait })?;
        let result = self.region(scope, &target, deadline).await;
        let well = result.as_ref().is_ok_and(|region| {
            let mut asked = region.services.iter().flat_map(|s| &s.groups).filter(|g| !g.drained).peekable();
            asked.peek().is_none() || asked.any(|group| group.health.is_ok())
        });
        attempts.settle(&target, well);
        result
    }

    async fn region(
        &self,
        scope: &BackendScope,
        target: &str,
        deadline: Instant,
    ) -> Result<RegionAnswer, GcpError> {
        let inner = &self.inner;
        let operation = "regionBackendServices.list";
        let attempt = |_| self.services(scope);
        let list = inner
            .attempts
            .chain((target, operation), &inner.settings.health_retry, deadline, attempt)
            .await?;
        let mut region = RegionAnswer { services: list.into_values().collect() };
        let questions: Vec<Question> = questions(&region);
        let answers = futures_util::stream::iter(questions)
            .map(|question| async {
                let answer = self.group_health(scope, target, &question, deadline).await;
                (question, answer)
            })
            .buffer_unordered(inner.settings.parallel.max(1));
        let answers: Vec<_> = answers.collect().await;
        for (question, answer) in answers {
            region.services[question.service].groups[question.group].health = answer;
        }
        Ok(region)
    }

    async fn group_health(
        &self,
        scope: &BackendScope,
        target: &str,
        question: &Question,
        deadline: Instant,
    ) -> Result<Vec<InstanceHealth>, GcpError> {
        let operation = "regionBackendServices.getHealth";
        let settings = &self.inner.settings;
        let path = format!(
            "/projects/{}/regions/{}/backendServices/{}/getHealth",
            escape(&scope.project),
            escape(&scope.region),
            escape(&question.name)
        );
        let body = json!({ "group": question.url });
        let attempt = |_| async {
            let limit = settings.health_timeout;
            let answer = self.request(Method::POST, &path, Some(&body), operation, limit).await?;
            read_health(&format!("POST {path}"), &answer)
        };
        self.inner.attempts.chain((target, operation), &settings.health_retry, deadline, attempt).await
    }

    /// All pages. Half a list is an error: a page that changes the filter's result under way begins anew.
    async fn services(&self, scope: &BackendScope) -> Result<BTreeMap<String, ServiceAnswer>, GcpError> {
        let base =
            format!("/projects/{}/regions/{}/backendServices", escape(&scope.project), escape(&scope.region));
        let what = format!("GET {base}");
        let (mut services, mut token) = (BTreeMap::new(), None::<String>);
        let mut seen = BTreeSet::new();
        for _ in 0..PAGE_LIMIT {
            let path = format!("{base}?{}", query(scope.filter.as_deref(), token.as_deref()));
            let limit = self.inner.settings.api_timeout;
            let page = self.get(&path, "regionBackendServices.list", limit).await?;
            match page.get("items") {
                None | Some(Value::Null) => {}
                Some(Value::Array(items)) => {
                    for item in items {
                        let service = read_service(&what, item)?;
                        services.insert(service.name.clone(), service);
                    }
                }
                Some(_) => return Err(GcpError::malformed(&what, "items is no list")),
            }
            token = page.get("nextPageToken").and_then(Value::as_str).map(str::to_owned);
            match &token {
                None => return Ok(services),
                Some(token) if token.is_empty() => return Ok(services),
                Some(token) if !seen.insert(token.clone()) => {
                    return Err(GcpError::malformed(&what, "the pages go in a circle"));
                }
                Some(_) => {}
            }
        }
        Err(GcpError::malformed(&what, "too many pages"))
    }
}

fn query(filter: Option<&str>, token: Option<&str>) -> String {
    let mut url = Url::parse("http://query/?maxResults=500").expect("the address is constant");
    {
        let mut pairs = url.query_pairs_mut();
        if let Some(filter) = filter {
            pairs.append_pair("filter", filter);
        }
        if let Some(token) = token {
            pairs.append_pair("pageToken", token);
        }
    }
    url.query().unwrap_or_default().to_owned()
}

fn questions(region: &RegionAnswer) -> Vec<Question> {
    let mut questions = Vec::new();
    for (service, answer) in region.services.iter().enumerate() {
        for (group, backend) in answer.groups.iter().enumerate().filter(|(_, group)| !group.drained) {
            let (name, url) = (answer.name.clone(), backend.group.clone());
            questions.push(Question { service, group, name, url });
        }
    }
    questions
}

fn read_service(what: &str, item: &Value) -> Result<ServiceAnswer, GcpError> {
    let name = item.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| GcpError::malformed(what, "a service without a name"))?;
    let mut groups = Vec::new();
    for backend in item.get("backends").and_then(Value::as_array).into_iter().flatten() {
        let group = backend.get("group").and_then(Value::as_str);
        let group = group.ok_or_else(|| GcpError::malformed(what, "a backend without a group"))?;
        groups.push(GroupAnswer {
            group: group.to_owned(),
            drained: backend.get("capacityScaler").and_then(Value::as_f64) == Some(0.0),
            failover: backend.get("failover").and_then(Value::as_bool) == Some(true),
            health: Ok(Vec::new()),
        });
    }
    Ok(ServiceAnswer { name: name.to_owned(), groups })
}

fn read_health(what: &str, answer: &Value) -> Result<Vec<InstanceHealth>, GcpError> {
    let entries = match answer.get("healthStatus") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(GcpError::malformed(what, "healthStatus is no list")),
    };
    let mut instances: Vec<InstanceHealth> = Vec::new();
    for entry in entries {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        let name = match text("instance") {
            "" => format!("{}:{}", text("ipAddress"), entry.get("port").and_then(Value::as_u64).unwrap_or(0)),
            instance => instance.to_owned(),
        };
        let state = text("healthState").to_owned();
        match instances.iter_mut().find(|known| known.name == name) {
            None => instances.push(InstanceHealth { name, state }),
            Some(known) if known.state == "HEALTHY" => known.state = state,
            Some(_) => {}
        }
    }
    Ok(instances)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_as_bad_as_its_worst_port() {
        let answer = json!({"healthStatus": [
            {"instance": "i/a", "port": 80, "healthState": "HEALTHY"},
            {"instance": "i/a", "port": 443, "healthState": "UNHEALTHY"},
            {"instance": "i/a", "port": 8080, "healthState": "HEALTHY"},
            {"ipAddress": "10.0.0.7", "port": 53},
        ]});
        let instances = read_health("x", &answer).unwrap();
        let seen: Vec<_> = instances.iter().map(|i| (i.name.as_str(), i.state.as_str())).collect();
        assert_eq!(seen, [("i/a", "UNHEALTHY"), ("10.0.0.7:53", "")]);
    }

    #[test]
    fn an_answer_without_status_has_no_instances() {
        let answer = json!({"kind": "compute#backendServiceGroupHealth"});
        assert_eq!(read_health("x", &answer), Ok(Vec::new()));
        assert!(read_health("x", &json!({"healthStatus": "HEALTHY"})).is_err());
    }

    #[test]
    fn a_filter_is_escaped() {
        let text = query(Some("name eq \"a&b.*\""), Some("t=1"));
        assert_eq!(text, "maxResults=500&filter=name+eq+%22a%26b.*%22&pageToken=t%3D1");
    }
}
