//! Tekton of a site: the event listener, and pipeline runs that progress and scale the application.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::settings::{APPLICATION, WorldSettings};
use super::store::{Store, text, uuid};
use crate::model::{Side, Wall};

/// How runs end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// They succeed.
    #[default]
    Normal,
    /// This many more fail, then they succeed.
    FailThenSucceed(u64),
    /// They fail.
    AlwaysFail,
    /// They run until they are cancelled.
    Hang,
}

impl Mode {
    /// The mode of `PUT /tekton/mode/<name>`.
    pub fn from_name(name: &str, fail_count: u64) -> Option<Self> {
        match name {
            "normal" => Some(Self::Normal),
            "fail-then-succeed" => Some(Self::FailThenSucceed(fail_count)),
            "always-fail" => Some(Self::AlwaysFail),
            "hang" => Some(Self::Hang),
            _ => None,
        }
    }

    /// The known names.
    pub const NAMES: [&'static str; 4] = ["normal", "fail-then-succeed", "always-fail", "hang"];

    /// Name and count for people.
    pub fn describe(self) -> String {
        match self {
            Self::Normal => "normal".to_owned(),
            Self::FailThenSucceed(left) => format!("fail-then-succeed, {left} more fail"),
            Self::AlwaysFail => "always-fail".to_owned(),
            Self::Hang => "hang".to_owned(),
        }
    }
}

#[derive(Debug)]
struct Run {
    name: String,
    created_ms: u64,
    fails: bool,
    hangs: bool,
}

/// The runs that have not ended, and how new ones will.
#[derive(Debug, Default)]
pub struct Pipelines {
    /// How new runs end.
    pub mode: Mode,
    runs: Vec<Run>,
}

/// Runs that are under way at one time; more are refused.
const RUN_LIMIT: usize = 100;

impl Pipelines {
    /// Forgets every run.
    pub fn clear(&mut self, store: &mut Store) {
        self.runs.clear();
        for (key, _) in store.list("pipelineruns", None) {
            store.purge(key.0, &key.1, &key.2);
        }
    }

    /// A POST to the event listener; `fails` and `hangs` come from faults.
    pub fn listen(
        &mut self,
        store: &mut Store,
        now: Wall,
        settings: &WorldSettings,
        headers: &HeaderMap,
        body: &[u8],
        fails: bool,
    ) -> (StatusCode, Value) {
        if let Err((status, why)) = check_event(settings, headers, body) {
            return (status, json!({"error": why}));
        }
        if self.runs.len() >= RUN_LIMIT {
            return (StatusCode::TOO_MANY_REQUESTS, json!({"error": "too many runs are under way"}));
        }
        let fails = fails
            || match &mut self.mode {
                Mode::AlwaysFail => true,
                Mode::FailThenSucceed(left) if *left > 0 => {
                    *left -= 1;
                    true
                }
                _ => false,
            };
        let event_id = uuid();
        let name = format!("switchover-{}", &event_id[..8]);
        let mut run = json!({
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
            "metadata": {
                "name": name, "namespace": settings.tekton_namespace,
                "labels": {"triggers.tekton.dev/triggers-eventid": event_id, "triggers.tekton.dev/trigger": "lab"},
            },
            "spec": {
                "pipelineRef": {"name": "switchover"},
                "params": [{"name": "release-namespace", "value": settings.namespace}],
            },
        });
        run["status"] =
            status("Unknown", "Started", "Not all Tasks in the Pipeline have finished executing", now);
        store.put("pipelineruns", run);
        self.runs.push(Run { name, created_ms: now.0, fails, hangs: self.mode == Mode::Hang });
        let answer = json!({
            "eventListener": "switchover", "namespace": settings.tekton_namespace,
            "eventListenerUID": "7d6f6a1e-1b58-4c8f-9d76-0a3f5f0f7c11", "eventID": event_id,
        });
        (StatusCode::ACCEPTED, answer)
    }

    /// One step: runs begin, end, and move the application.
    pub fn advance(
        &mut self,
        store: &mut Store,
        now: Wall,
        settings: &WorldSettings,
        side: Side,
        hang: bool,
    ) {
        let namespace = &settings.tekton_namespace;
        let mut left = Vec::new();
        for run in std::mem::take(&mut self.runs) {
            let Some(object) = store.get("pipelineruns", namespace, &run.name).cloned() else { continue };
            let started_ms = run.created_ms + settings.delays.run_start_ms;
            let wish = text(&object, "/spec/status");
            let ending = if matches!(wish.as_str(), "Cancelled" | "CancelledRunFinally" | "StoppedRunFinally")
            {
                Some(("False", "Cancelled", format!("PipelineRun {:?} was cancelled", run.name)))
            } else if run.hangs || hang || now.0 < started_ms + settings.delays.run_ms {
                None
            } else if run.fails {
                Some((
                    "False",
                    "Failed",
                    "Tasks Completed: 1 (Failed: 1, Cancelled 0), Skipped: 1".to_owned(),
                ))
            } else {
                Some((
                    "True",
                    "Succeeded",
                    "Tasks Completed: 2 (Failed: 0, Cancelled 0), Skipped: 0".to_owned(),
                ))
            };
            if let Some((word, reason, message)) = ending {
                write_status(store, namespace, &run.name, status(word, reason, &message, now));
                if word == "True" {
                    deploy(store, settings, side);
                }
                continue;
            }
            if now.0 >= started_ms && reason(&object) == "Started" {
                let message = "Tasks Completed: 0 (Failed: 0, Cancelled 0), Incomplete: 2, Skipped: 0";
                write_status(store, namespace, &run.name, status("Unknown", "Running", message, now));
            }
            left.push(run);
        }
        self.runs = left;
    }
}

fn status(word: &str, reason: &str, message: &str, now: Wall) -> Value {
    let mut status = json!({
        "conditions": [{
            "type": "Succeeded", "status": word, "reason": reason, "message": message,
            "lastTransitionTime": now.to_iso(),
        }],
        "startTime": now.to_iso(),
    });
    if word != "Unknown" {
        status["completionTime"] = json!(now.to_iso());
    }
    status
}

fn write_status(store: &mut Store, namespace: &str, name: &str, mut status: Value) {
    store.edit("pipelineruns", namespace, name, |run| {
        let started = run["status"]["startTime"].clone();
        if started.is_string() {
            status["startTime"] = started;
        }
        run["status"] = status;
    });
}

fn reason(run: &Value) -> String {
    text(run, "/status/conditions/0/reason")
}

/// What the real pipeline does: it applies the Terraform variables, which start or stop the application.
fn deploy(store: &mut Store, settings: &WorldSettings, side: Side) {
    let Some(secret) = store.get("secrets", &settings.tekton_namespace, &settings.tfvars_secret) else {
        return;
    };
    let encoded = text(secret, "/data/in_recovery");
    let in_recovery = BASE64.decode(encoded).is_ok_and(|bytes| bytes == b"true");
    let runs_here = in_recovery == (side == Side::Passive);
    let replicas = if runs_here { settings.application_replicas } else { 0 };
    store.edit("statefulsets", &settings.namespace, APPLICATION, |set| {
        set["spec"]["replicas"] = json!(replicas)
    });
}

fn check_event(
    settings: &WorldSettings,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), (StatusCode, &'static str)> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut signed = false;
    if let Some(secret) = &settings.hmac_secret {
        if let Some(sent) = header("X-Hub-Signature-256") {
            signed = true;
            let mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes());
            check_signature(mac.ok(), sent.strip_prefix("sha256="), body)?;
        }
        if let Some(sent) = header("X-Hub-Signature") {
            signed = true;
            let mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes());
            check_signature(mac.ok(), sent.strip_prefix("sha1="), body)?;
        }
        if !signed {
            return Err((StatusCode::UNAUTHORIZED, "no X-Hub-Signature-256 and no X-Hub-Signature"));
        }
    }
    if header("X-GitHub-Event") != Some("push") {
        return Err((StatusCode::FORBIDDEN, "X-GitHub-Event is not push"));
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(_)) => Ok(()),
        _ => Err((StatusCode::BAD_REQUEST, "the body is not a JSON object")),
    }
}

fn check_signature<M: Mac>(
    mac: Option<M>,
    sent: Option<&str>,
    body: &[u8],
) -> Result<(), (StatusCode, &'static str)> {
    let refused = (StatusCode::FORBIDDEN, "the signature does not match the body");
    let (Some(mut mac), Some(sent)) = (mac, sent.and_then(|text| hex::decode(text).ok())) else {
        return Err(refused);
    };
    mac.update(body);
    mac.verify_slice(&sent).map_err(|_| refused)
}
