//! Two agents as processes of their own in front of a simulated world in this one.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use switchover_agent::adapters::http_client;
use switchover_agent::journal::{Recorded, chain};
use switchover_agent::lab::agents::{Lab, LabSettings, TOKEN, free_port};
use switchover_agent::lab::settings::Delays;
use switchover_agent::model::{Phase, Side};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::cases::{JournalKind, Scenario};
use crate::routes::Routes;

/// Between two looks at an agent.
const LOOK: Duration = Duration::from_millis(60);
/// How long an agent may take to know its site and its peer.
const READY: Duration = Duration::from_secs(180);
/// Last resort of a wait.
const LAST_RESORT: Duration = Duration::from_secs(240);

/// Settings that make a lab quick; everything else is as in production.
const QUICK: [(&str, &str); 9] = [
    ("PATRONI_POLL_SECONDS", "0.25"),
    ("DNS_POLL_SECONDS", "0.5"),
    ("PEER_PING_SECONDS", "0.2"),
    ("TEKTON_SETTLE_SECONDS", "0.5"),
    // A machine that stands still for half a minute is not what is tried here.
    ("CONSENT_TIMEOUT_SECONDS", "110"),
    ("LOG_LEVEL", "info"),
    ("LOG_FORMAT", "text"),
    ("FAULT_INJECTION", "true"),
    ("HTTP_LISTEN", ""),
];

const DELAYS: Delays = Delays {
    controller_ms: 10,
    pod_start_ms: 20,
    pod_stop_ms: 20,
    clone_ms: 40,
    promote_ms: 60,
    demote_ms: 40,
    follow_ms: 40,
    rewind_ms: 40,
    run_start_ms: 20,
    run_ms: 60,
};

/// A lab with its agents.
pub struct Rig {
    pub lab: Lab,
    /// The clouds, where routes are steered.
    pub routes: Option<Routes>,
    from: Phase,
    agents: [Option<Child>; 2],
    ports: [u16; 2],
    client: reqwest::Client,
    /// For what must arrive, however busy the machine is.
    patient: reqwest::Client,
    /// Token of the operators.
    pub token: &'static str,
}

impl Rig {
    /// A world in the phase in which the scenario begins, without agents.
    pub async fn lay(scenario: &Scenario, journal: JournalKind) -> Self {
        let mut settings = LabSettings::on_free_ports();
        settings.world.delays = DELAYS;
        for (name, value) in QUICK.iter().chain(scenario.env) {
            settings = settings.with(name, value);
        }
        let mut lab = Lab::without_agents(&settings).await.unwrap();
        lab.world.settle(scenario.from);
        let routes = if scenario.routes { Some(Routes::lay(&mut lab).await) } else { None };
        let ports = [free_port().await.unwrap(), free_port().await.unwrap()];
        for side in Side::ALL {
            let kept = match journal {
                JournalKind::File => format!("file:{}", journal_dir(&lab.dir, side).display()),
                JournalKind::ConfigMap => "configmap".to_owned(),
            };
            let env = &mut lab.env[side as usize];
            env.insert("JOURNAL".to_owned(), kept);
            env.insert("HTTP_LISTEN".to_owned(), format!("127.0.0.1:{}", ports[side as usize]));
        }
        let client = http_client::client("http://127.0.0.1", Duration::from_secs(5)).unwrap();
        let patient = http_client::client("http://127.0.0.1", LAST_RESORT).unwrap();
        Self { lab, routes, from: scenario.from, agents: [None, None], ports, client, patient, token: TOKEN }
    }

    /// Starts an agent, with settings of its own beside the lab's.
    pub fn start(&mut self, side: Side, extra: &[(&str, &str)]) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(side)).unwrap();
        let built = env!("CARGO_BIN_EXE_switchover-agent").into();
        let child = Command::new(std::env::var_os("KILL_AGENT").unwrap_or(built))
            .arg("run")
            .env_clear()
            .envs(&self.lab.env[side as usize])
            .envs(extra.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.agents[side as usize] = Some(child);
    }

    /// How the agent ended, where it has.
    pub fn ended(&mut self, side: Side) -> Option<ExitStatus> {
        self.agents[side as usize].as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// What the agent has said so far.
    pub fn log(&self, side: Side) -> PathBuf {
        self.lab.dir.join(format!("{side}.log"))
    }

    /// What `/status` shows; `None` = it does not answer, or has nothing to show yet.
    pub async fn status(&self, side: Side) -> Option<Value> {
        let answer = self.client.get(self.agent_url(side, "/status")).send().await.ok()?;
        answer.json::<Value>().await.ok().filter(Value::is_object)
    }

    /// Asks an agent for something, as an operator: status and body.
    pub async fn ask(&self, side: Side, path: &str) -> (u16, String) {
        let request = self.client.put(self.agent_url(side, path)).bearer_auth(self.token);
        match request.send().await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(error) => (0, error.to_string()),
        }
    }

    pub fn agent_url(&self, side: Side, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[side as usize])
    }

    /// `kill -9`, and its end awaited.
    pub async fn kill(&mut self, side: Side) {
        if let Some(mut child) = self.agents[side as usize].take() {
            child.kill().await.unwrap();
        }
    }

    /// Waits until an agent shows something; in vain, it says what it shows and has said.
    pub async fn until(&self, side: Side, what: &str, holds: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let shown = self.status(side).await;
            if shown.as_ref().is_some_and(&holds) {
                return;
            }
            if begun.elapsed() > LAST_RESORT {
                let log = std::fs::read_to_string(self.log(side)).unwrap_or_default();
                panic!("waited {LAST_RESORT:?} for {what} at {side}\n{}\n{log}", shown.unwrap_or_default());
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until an agent has read its record, so that it acts; how long that took.
    pub async fn until_acting(&self, side: Side) -> Result<Duration, String> {
        let begun = Instant::now();
        while begun.elapsed() < READY {
            let known = self.status(side).await.is_some_and(|shown| {
                shown["phase"]
                    .as_str()
                    .is_some_and(|phase| !phase.is_empty() && !phase.starts_with("unknown"))
            });
            if known {
                return Ok(begun.elapsed());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Err(format!("the {side} agent does not act"))
    }

    /// Waits until both agents know their sites and each other.
    pub async fn until_acquainted(&self) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < READY {
            if self.are_acquainted().await {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err("the agents do not find each other".to_owned())
    }

    /// Whether both agents know their sites and each other.
    pub async fn are_acquainted(&self) -> bool {
        let mut ready = self.routes.as_ref().is_none_or(|routes| routes.are_as_in(self.from));
        for side in Side::ALL {
            ready &= self.status(side).await.is_some_and(|shown| {
                shown["peer_link"] == "up"
                    && shown["phase"]
                        .as_str()
                        .is_some_and(|phase| phase.contains('-') || phase == "independent")
                    && shown["database"]["writable"].is_boolean()
                    && shown["peer"]["writable"].is_boolean()
                    && shown["dns"].is_string()
            });
        }
        ready
    }

    /// A person writes a transition into the record of a site.
    pub async fn order(&self, side: Side, transition: &str) -> Result<(), String> {
        let url = format!("{}{}", self.lab.site_url(side), self.record_path());
        let request = self.patient.patch(url).header("content-type", "application/merge-patch+json");
        let body = json!({"data": {"transition": transition}}).to_string();
        let answer = request.body(body).send().await.map_err(|error| error.to_string())?;
        answer.error_for_status().map(drop).map_err(|error| error.to_string())
    }

    fn record_path(&self) -> String {
        let world = self.lab.world.settings();
        format!("/k8s/api/v1/namespaces/{}/configmaps/{}", world.health_namespace, world.record_name())
    }

    /// What a site has come to: everything that a transition moves, without what differs from run to run.
    pub async fn end_state(&self, side: Side) -> Value {
        let world = self.lab.world.describe(side);
        let settings = self.lab.world.settings();
        let members: Vec<Value> = world["database"]["members"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, member)| {
                json!([name, member["state"], member["read_only"], member["streaming"], member["timeline"]])
            })
            .collect();
        let objects = [
            format!("api/v1/namespaces/{}/secrets/{}", settings.tekton_namespace, settings.tfvars_secret),
            format!("api/v1/namespaces/{}/configmaps/patroni-spilo-env-vars", settings.namespace),
        ];
        let mut data = Vec::new();
        for object in objects {
            data.push(self.object(side, &object).await["data"].clone());
        }
        let budget = format!(
            "apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}-pdb",
            settings.health_namespace,
            settings.health_name()
        );
        json!({
            "phase": world["record"]["last_stable_state"], "transition": world["record"]["transition"],
            "service": world["service"], "maintenance": world["maintenance"],
            "health": world["health_ready"], "application": world["application_ready"],
            "budget": self.object(side, &budget).await["spec"]["minAvailable"],
            "writable": world["database"]["writable"], "standby": world["database"]["config"]["standby_cluster"],
            "members": members, "volumes": world["database"]["volumes"], "vars": data[0], "env": data[1],
            "routes": self.routes.as_ref().map(Routes::end_state),
        })
    }

    async fn object(&self, side: Side, path: &str) -> Value {
        let url = format!("{}/k8s/{path}", self.lab.site_url(side));
        match self.patient.get(url).send().await {
            Ok(answer) => answer.json().await.unwrap_or(Value::Null),
            Err(_) => Value::Null,
        }
    }

    /// How often each once-only effect has happened at a site, by the site's own list.
    pub fn once_effects(&self, side: Side) -> std::collections::BTreeMap<String, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for entry in self.lab.world.activity(side).as_array().into_iter().flatten() {
            let (method, path) =
                (entry["method"].as_str().unwrap_or(""), entry["path"].as_str().unwrap_or(""));
            let done = entry["status"].as_u64().is_none_or(|status| status < 300);
            let promotes = path == "/patroni/config" && entry["body"]["standby_cluster"].is_null();
            let once = method == "DELETE" || method == "POST" && path == "/tekton" || promotes;
            if done && once && !path.contains("switchover-journal") {
                *counts
                    .entry(format!("{method} {}", path.rsplit('/').next().unwrap_or(path)))
                    .or_insert(0) += 1;
            }
        }
        counts
    }

    /// Ends both agents as a person would not: at once.
    pub async fn stop(&mut self) {
        for child in self.agents.iter_mut().flatten() {
            let _ = child.kill().await;
        }
    }

    /// The journal of an agent that kept it in files.
    pub fn journal(&self, side: Side) -> Vec<Recorded> {
        read_journal(&journal_dir(&self.lab.dir, side))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::env::var_os("KILL_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.lab.dir);
        }
    }
}

/// Where an agent of a rig keeps its journal.
pub fn journal_dir(dir: &Path, side: Side) -> PathBuf {
    dir.join(format!("journal-{side}"))
}

/// Every entry of a journal in files.
pub fn read_journal(dir: &Path) -> Vec<Recorded> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    let text: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    text.iter().flat_map(|text| text.lines()).map(|line| chain::open_line(line.as_bytes()).unwrap()).collect()
}
