//! A lab on free ports with what the tests ask of it: wait, put, read, count.

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};
use switchover_agent::lab::agents::{Lab, LabSettings, TOKEN, start_agent};
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;
use tokio::time::Instant;

/// Last resort; on an idle machine everything here takes seconds.
const LIMIT: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

pub const BOTH: [Side; 2] = Side::ALL;

pub struct Stage {
    pub lab: Lab,
    pub client: reqwest::Client,
}

impl Stage {
    /// A lab whose agents have seen their sites and each other on a normal day.
    pub async fn up() -> Self {
        Self::up_with(LabSettings::on_free_ports()).await
    }

    pub async fn up_with(settings: LabSettings) -> Self {
        let stage = Self::bare(settings).await;
        stage.know_each_other().await;
        stage
    }

    /// A lab whose agents have just been started.
    pub async fn bare(settings: LabSettings) -> Self {
        let lab = Lab::start(settings).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { lab, client }
    }

    /// Waits until both agents know phase, database and each other.
    pub async fn know_each_other(&self) {
        for side in BOTH {
            self.until(&format!("the {side} agent to see its site and its peer"), || {
                let shown = self.shown(side);
                let writable = |at: &Value| at["writable"].is_boolean() && at["timeline"].is_u64();
                !shown["phase"].as_str().unwrap_or("").is_empty()
                    && shown["peer_link"] == "up"
                    && writable(&shown["database"])
                    && writable(&shown["peer"])
                    && shown["dns"].is_string()
            })
            .await;
        }
    }

    /// What `/status` shows.
    pub fn shown(&self, side: Side) -> Value {
        self.lab.agent(side).snapshot.borrow().clone()
    }

    pub fn phase(&self, side: Side) -> String {
        self.shown(side)["phase"].as_str().unwrap_or("").to_owned()
    }

    /// What the simulated site is like.
    pub fn world(&self, side: Side) -> Value {
        self.lab.world.describe(side)
    }

    pub fn writable(&self, side: Side) -> bool {
        self.world(side)["database"]["writable"] == true
    }

    /// Waits; a test that waits in vain says what both agents show.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds() {
            if Instant::now() >= deadline {
                panic!(
                    "waited {LIMIT:?} for {what}\n{}\n{}",
                    self.report(Side::Active),
                    self.report(Side::Passive)
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub async fn until_async<F: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> F) {
        let deadline = Instant::now() + LIMIT;
        while !holds().await {
            if Instant::now() >= deadline {
                panic!(
                    "waited {LIMIT:?} for {what}\n{}\n{}",
                    self.report(Side::Active),
                    self.report(Side::Passive)
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn report(&self, side: Side) -> String {
        if self.lab.agents.len() <= side as usize {
            return format!("{side}: no agent");
        }
        let asked = self.lab.world.activity(side);
        let lines: Vec<String> =
            asked.as_array().unwrap().iter().map(|entry| format!("    {entry}")).collect();
        format!("{side}: {}\n  was asked:\n{}", self.shown(side), lines.join("\n"))
    }

    /// Waits until a site is in a phase and everything that belongs to it has happened.
    pub async fn settled_at(&self, side: Side, phase: &str) {
        self.until(&format!("the {side} site to settle in {phase}"), || {
            let shown = self.shown(side);
            shown["phase"] == phase
                && shown["transition"] == ""
                && shown["settled"] == true
                && shown["run"].is_null()
                && shown["beside"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
    }

    pub async fn settled(&self, phase: &str) {
        for side in BOTH {
            self.settled_at(side, phase).await;
        }
    }

    /// `PUT` on the control of a simulated site.
    pub async fn put_site(&self, side: Side, path: &str) {
        let url = format!("{}{path}", self.lab.site_url(side));
        let answer = self.client.put(&url).send().await.unwrap();
        assert!(answer.status().is_success(), "PUT {url}: {}", answer.status());
    }

    /// A person's request at an agent: status and body.
    pub async fn ask(&self, side: Side, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.client.put(self.agent_url(side, path)).bearer_auth(TOKEN);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    pub fn agent_url(&self, side: Side, path: &str) -> String {
        format!("http://{}{path}", self.lab.agent(side).http)
    }

    /// `GET` on an agent: status and body.
    pub async fn get(&self, side: Side, path: &str) -> (u16, String) {
        let answer = self.client.get(self.agent_url(side, path)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// A person edits the record with `kubectl`.
    pub async fn edit_record(&self, side: Side, data: Value) {
        let url = format!("{}{}", self.lab.site_url(side), self.record_path());
        let request = self.client.patch(url).header("content-type", "application/merge-patch+json");
        let answer = request.body(json!({ "data": data }).to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// The record as the API server shows it.
    pub async fn record(&self, side: Side) -> Value {
        let url = format!("{}{}", self.lab.site_url(side), self.record_path());
        self.client.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// Somebody else's pipeline run, not yet over, with the release's name where `released`.
    pub async fn foreign_run(&self, side: Side, name: &str, released: bool) {
        let world = self.lab.world.settings();
        let release = json!([{"name": "release-namespace", "value": world.namespace}]);
        let run = json!({
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
            "metadata": {"name": name, "namespace": world.tekton_namespace},
            "spec": {"params": if released { release } else { json!([]) }},
        });
        let url = self.runs_url(side);
        let request = self.client.post(url).header("content-type", "application/json").body(run.to_string());
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap());
    }

    /// That run succeeds.
    pub async fn finish_run(&self, side: Side, name: &str) {
        let body = json!({"status": {"conditions": [
            {"type": "Succeeded", "status": "True", "reason": "Completed"}
        ]}});
        let request = self.client.patch(format!("{}/{name}", self.runs_url(side)));
        let request = request.header("content-type", "application/merge-patch+json").body(body.to_string());
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap());
    }

    fn runs_url(&self, side: Side) -> String {
        let namespace = &self.lab.world.settings().tekton_namespace;
        format!("{}/k8s/apis/tekton.dev/v1/namespaces/{namespace}/pipelineruns", self.lab.site_url(side))
    }

    /// Ends the agent of a side and starts it again with its settings; its memory is gone.
    pub async fn restart(&mut self, side: Side) {
        let old = self.lab.agents.remove(side as usize);
        let address = old.http;
        old.stop().await;
        let new = start_agent(&self.lab.env[side as usize], address).await.unwrap();
        self.lab.agents.insert(side as usize, new);
    }

    /// Starts the passive agent where it was taken away.
    pub async fn start_passive(&mut self) {
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let agent = start_agent(&self.lab.env[Side::Passive as usize], any).await.unwrap();
        self.lab.agents.push(agent);
    }

    /// Path of the record at the simulated API server.
    pub fn record_path(&self) -> String {
        let world = self.lab.world.settings();
        format!("/k8s/api/v1/namespaces/{}/configmaps/{}", world.health_namespace, world.record_name())
    }

    /// Whatever a site has been asked for, over HTTP, as `METHOD path` and the body's text with the version masked.
    pub async fn activity(&self, side: Side) -> Vec<Asked> {
        let url = format!("{}/activity", self.lab.site_url(side));
        let list: Vec<Value> = self.client.get(url).send().await.unwrap().json().await.unwrap();
        list.iter().map(Asked::from_entry).collect()
    }

    pub async fn forget_activity(&self, side: Side) {
        let url = format!("{}/activity", self.lab.site_url(side));
        assert!(self.client.delete(url).send().await.unwrap().status().is_success());
    }

    pub fn initiate(&self, side: Side, fault: Fault) {
        self.lab.world.initiate(side, fault, None);
    }

    pub fn lift(&self, side: Side, fault: Fault) {
        self.lab.world.lift(side, fault);
    }

    /// Names of the refusals that an agent has shown.
    pub fn refusals(&self, side: Side) -> Vec<String> {
        let shown = self.shown(side);
        let list = shown["refusals"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|entry| entry[1]["refusal"].as_str().map(str::to_owned)).collect()
    }

    /// The sum of a metric's series whose labels hold all of these texts.
    pub fn metric(&self, side: Side, name: &str, labels: &[&str]) -> f64 {
        let text = switchover_agent::telemetry::metrics::render(&self.lab.agent(side).registry).unwrap();
        text.lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits for this many further rounds of DNS look-ups at a site.
    pub async fn dns_rounds(&self, side: Side, rounds: u32) {
        let before = self.metric(side, "switchover_dns_total", &[]);
        self.until(&format!("{rounds} rounds of DNS"), || {
            self.metric(side, "switchover_dns_total", &[]) >= before + f64::from(rounds)
        })
        .await;
    }

    /// Waits for this many further looks at Patroni of a site.
    pub async fn database_looks(&self, side: Side, looks: u32) {
        let name = "switchover_logic_total";
        let before = self.metric(side, name, &["resource=\"logic\"", "state=\"info\""]);
        self.until("further events", || {
            self.metric(side, name, &["resource=\"logic\"", "state=\"info\""]) >= before + f64::from(looks)
        })
        .await;
    }
}

/// A change that a site was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub line: String,
    pub body: String,
}

impl Asked {
    fn from_entry(entry: &Value) -> Self {
        let path = entry["path"].as_str().unwrap();
        let line = format!("{} {path}", entry["method"].as_str().unwrap()).trim().to_owned();
        let mut body = entry["body"].clone();
        if let Some(version) = body.pointer_mut("/metadata/resourceVersion") {
            *version = "VERSION".into();
        }
        if let Some(uid) = body.pointer_mut("/preconditions/uid") {
            *uid = "UID".into();
        }
        Self { line, body: if body.is_null() { String::new() } else { body.to_string() } }
    }

    pub fn is_control(&self) -> bool {
        ["PHASE_CHANGE/", "INITIATE/", "LIFT/"].iter().any(|word| self.line.starts_with(word))
    }
}

/// What an agent has asked of its site; the control's and people's own changes are left out.
pub async fn asked_by_agent(stage: &Stage, side: Side) -> Vec<Asked> {
    let by_hand = |asked: &Asked| {
        asked.is_control()
            || (asked.body.starts_with("{\"data\":") && !asked.body.contains("\"maintenance\":null"))
    };
    stage.activity(side).await.into_iter().filter(|asked| !by_hand(asked)).collect()
}
