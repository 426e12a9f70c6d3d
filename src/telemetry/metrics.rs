//! Metrics of the engine and the supervisor, under the predecessor's names and under correct new ones beside them.
//!
//! Owns the names, labels and the text form. Never decides anything. The predecessor printed floats (`1.0`), and
//! scripts look for the text `release="..."} 0.0`, so [`render`] does the same; labels are in alphabetical order,
//! as the predecessor's were, which leaves `release` last where a script looks for it.

use std::sync::{Arc, RwLock};

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder,
};

use crate::journal::JournalStatus;
use crate::model::{
    Event, MemberRole, Note, PatroniSample, Phase, RecordPhase, RecordSeen, RecordTransition, RunEvent,
};

/// HELP text that the predecessor's multiprocess mode gives to every metric.
const OLD_HELP: &str = "Multiprocess metric";

/// Upper bounds of the step histogram in seconds: an API call, a restart, a scale, a rebuild.
const STEP_SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// All metrics of one agent; clones share the same values.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    pid: String,
    release: RwLock<String>,
    // the predecessor's
    logic_total: CounterVec,
    logic_gauge: GaugeVec,
    pipeline_total: CounterVec,
    failed_total: CounterVec,
    transition: GaugeVec,
    maintenance: GaugeVec,
    patroni: GaugeVec,
    peer: GaugeVec,
    // ours
    phase: GaugeVec,
    in_progress: Gauge,
    step_seconds: HistogramVec,
    refusals: CounterVec,
    settled: Gauge,
    generation: Gauge,
    task_restarts: CounterVec,
    task_up: GaugeVec,
    journal_degraded: Gauge,
    journal_buffered: Gauge,
    journal_lost: Gauge,
    bus_depth: Gauge,
    auth_failures: CounterVec,
    guards: super::guards::GuardMetrics,
}

/// Registers a collector; where one of that name is registered already (an agent started twice in one process on
/// one registry) the new one takes its place.
fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    if registry.register(Box::new(collector.clone())).is_err()
        && (registry.unregister(Box::new(collector.clone())).is_err()
            || registry.register(Box::new(collector.clone())).is_err())
    {
        tracing::error!("metric not registered: another part of the agent uses its name with other labels");
    }
    collector
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> CounterVec {
    register(registry, CounterVec::new(Opts::new(name, help), labels).expect("name and labels are constants"))
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(registry, GaugeVec::new(Opts::new(name, help), labels).expect("name and labels are constants"))
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::new(name, help).expect("the name is a constant"))
}

impl Metrics {
    /// Registers everything in the agent's registry.
    pub fn new(registry: &Registry) -> Self {
        let summary = prometheus::Histogram::with_opts(HistogramOpts::new(
            "switchover_request_processing_seconds",
            "Time of HTTP requests; kept for dashboards of the predecessor, which never filled it",
        ))
        .expect("name and buckets are constants");
        register(registry, summary);
        let steps = HistogramOpts::new(
            "switchover_step_seconds",
            "Time from the first try of a step until it is done",
        )
        .buckets(STEP_SECONDS.to_vec());
        let inner = Inner {
            pid: std::process::id().to_string(),
            release: RwLock::new(String::new()),
            guards: super::guards::GuardMetrics::new(registry),
            logic_total: counters(registry, "switchover_logic_total", OLD_HELP, &["resource", "state"]),
            logic_gauge: gauges(registry, "switchover_logic_gauge", OLD_HELP, &["pid", "resource"]),
            pipeline_total: counters(registry, "switchover_pipeline_total", OLD_HELP, &["release", "state"]),
            failed_total: counters(registry, "switchover_transition_failed_total", OLD_HELP, &["release"]),
            transition: gauges(registry, "switchover_transition", OLD_HELP, &["pid", "release"]),
            maintenance: gauges(registry, "switchover_maintenance", OLD_HELP, &["pid"]),
            patroni: gauges(registry, "switchover_patroni", OLD_HELP, &["pid", "state"]),
            peer: gauges(registry, "switchover_peer", OLD_HELP, &["pid", "state"]),
            phase: gauges(registry, "switchover_phase", "1 for the phase in the record, else 0", &["phase"]),
            in_progress: gauge(registry, "switchover_transition_in_progress", "1 while a transition runs"),
            step_seconds: register(
                registry,
                HistogramVec::new(steps, &["step"]).expect("name and labels are constants"),
            ),
            refusals: counters(registry, "switchover_refusals_total", "Refusals by name", &["refusal"]),
            settled: gauge(
                registry,
                "switchover_settled",
                "1 when everything that the last transition asked for has happened",
            ),
            generation: gauge(registry, "switchover_generation", "Fencing number of the last transition"),
            task_restarts: counters(
                registry,
                "switchover_task_restarts_total",
                "Restarts of a task",
                &["task"],
            ),
            task_up: gauges(registry, "switchover_task_up", "1 while the task runs", &["task"]),
            journal_degraded: gauge(
                registry,
                "switchover_journal_degraded",
                "1 while the journal cannot be written",
            ),
            journal_buffered: gauge(
                registry,
                "switchover_journal_buffered",
                "Journal entries that wait in memory",
            ),
            journal_lost: gauge(
                registry,
                "switchover_journal_lost",
                "Journal entries that were never written",
            ),
            bus_depth: gauge(registry, "switchover_bus_depth", "Events that wait for the engine"),
            auth_failures: counters(
                registry,
                "switchover_http_auth_failures_total",
                "Refused side effects",
                &["reason"],
            ),
        };
        inner.maintenance.with_label_values(&[inner.pid.as_str()]).set(0.0);
        for phase in Phase::ALL {
            inner.phase.with_label_values(&[phase.wire()]).set(0.0);
        }
        Self { inner: Arc::new(inner) }
    }

    /// Names the release (`KUBE_NAMESPACE`) until a pipeline run names another, and shows its series at zero.
    pub fn set_release(&self, release: &str) {
        self.transition(release).set(0.0);
        self.inner.failed_total.with_label_values(&[release]).inc_by(0.0);
        *self.inner.release.write().unwrap_or_else(std::sync::PoisonError::into_inner) = release.to_owned();
    }

    /// Whether automation may act, as the predecessor's `automation` gauge shows it.
    pub fn set_automation(&self, on: bool) {
        self.logic_gauge("automation").set(number(on));
    }

    /// Whether the maintenance page is on.
    pub fn set_maintenance(&self, on: bool) {
        self.inner.maintenance.with_label_values(&[self.inner.pid.as_str()]).set(number(on));
    }

    /// Events that wait for the engine.
    pub fn set_bus_depth(&self, depth: usize) {
        self.inner.bus_depth.set(depth as f64);
    }

    /// How the journal does.
    pub fn set_journal(&self, status: &JournalStatus) {
        self.inner.journal_degraded.set(number(status.degraded));
        self.inner.journal_buffered.set(status.buffered as f64);
        self.inner.journal_lost.set(status.lost as f64);
    }

    /// Time that a step took, in seconds.
    pub fn observe_step(&self, step: &str, seconds: f64) {
        self.inner.step_seconds.with_label_values(&[step]).observe(seconds);
    }

    /// Whether a task runs.
    pub fn set_task_up(&self, task: &str, up: bool) {
        self.inner.task_up.with_label_values(&[task]).set(number(up));
        self.inner.task_restarts.with_label_values(&[task]).inc_by(0.0);
    }

    /// A task is started again.
    pub fn count_task_restart(&self, task: &str) {
        self.inner.task_restarts.with_label_values(&[task]).inc();
    }

    /// A request with a side effect was turned away; `reason` is one of few constants.
    pub fn count_auth_failure(&self, reason: &str) {
        self.inner.auth_failures.with_label_values(&[reason]).inc();
    }

    /// Updates what the engine's snapshot shows of the guards.
    pub fn observe_guards(&self, snapshot: &crate::rules::snapshot::Snapshot) {
        self.inner.guards.observe(snapshot);
    }

    /// Updates what follows from an input of the engine.
    pub fn observe_event(&self, event: &Event) {
        self.logic("logic", "info");
        match event {
            Event::Record(RecordSeen::Present(record)) => {
                let asked = match &record.transition {
                    RecordTransition::Empty => "",
                    RecordTransition::Known(transition) => transition.wire(),
                    RecordTransition::Unknown(_) => "unknown",
                };
                self.logic("switchover_state", asked);
                for phase in Phase::ALL {
                    let is = record.phase == RecordPhase::Known(phase);
                    self.inner.phase.with_label_values(&[phase.wire()]).set(number(is));
                }
            }
            Event::Patroni(sample) => self.observe_patroni(sample),
            Event::PeerLink { up, .. } => {
                self.logic("peer", if *up { "ok" } else { "error" });
                self.logic_gauge("peer").set(number(*up));
                self.inner.peer.with_label_values(&[self.inner.pid.as_str(), "active"]).set(number(*up));
            }
            Event::PipelineRun(run) => {
                if run.kind != RunEvent::Deleted
                    && let Some(release) = run.release.as_deref().filter(|release| !release.is_empty())
                {
                    self.learn_release(release);
                }
            }
            Event::Record(RecordSeen::Missing | RecordSeen::Unknown(_))
            | Event::PeerStatus(_)
            | Event::PeerAnswered { .. }
            | Event::Witness(_)
            | Event::Sensor { .. }
            | Event::PeerMessage { .. }
            | Event::Operator { .. }
            | Event::ActionDone { .. }
            | Event::Dns(_)
            | Event::Tick => {}
        }
    }

    fn observe_patroni(&self, sample: &PatroniSample) {
        let (up, leader) = match sample {
            PatroniSample::Unknown(_) => (0.0, 0.0),
            PatroniSample::Seen(view) => {
                self.logic(
                    "patroni",
                    if view.standby_configured { "IsStandby=True" } else { "IsStandby=False" },
                );
                let mut leader = 0.0;
                for member in &view.members {
                    self.logic("patroni-members", &format!("{}-{}", member.name, member.state));
                    match member.role {
                        MemberRole::Leader => leader = 1.0,
                        MemberRole::StandbyLeader => leader = 2.0,
                        MemberRole::Replica | MemberRole::Other => continue,
                    }
                    self.logic("patroni-leader", &format!("{}-{}", member.name, member.role_text));
                }
                (1.0, leader)
            }
        };
        self.inner.patroni.with_label_values(&[self.inner.pid.as_str(), "active"]).set(up);
        self.logic_gauge("patroni").set(leader);
    }

    /// Updates what follows from a fact that the engine made known.
    pub fn observe_note(&self, note: &Note) {
        match note {
            Note::Refused(refusal) => {
                self.logic("logic", "warning");
                self.inner.refusals.with_label_values(&[&refusal.refusal]).inc();
            }
            Note::TransitionStarted { generation, .. } => {
                self.inner.generation.set(generation.0 as f64);
                self.inner.in_progress.set(1.0);
                self.inner.settled.set(0.0);
                self.logic_gauge("transition").set(1.0);
            }
            Note::TransitionDone { .. } => {
                self.inner.in_progress.set(0.0);
                self.logic_gauge("transition").set(0.0);
            }
            Note::StepFailed { .. } => self.logic("logic", "error"),
            Note::Halted { .. } => {
                self.logic("logic", "error");
                self.inner.in_progress.set(0.0);
                self.logic_gauge("transition").set(3.0);
            }
            Note::Settled { generation, .. } => {
                self.inner.settled.set(1.0);
                self.inner.generation.set(generation.0 as f64);
                self.logic_gauge("transition").set(0.0);
                self.transition(&self.release()).set(0.0);
            }
            Note::Pipeline { release, state, declared_failed } => {
                self.inner.pipeline_total.with_label_values(&[release.as_str(), state.as_str()]).inc();
                if *declared_failed {
                    self.inner.failed_total.with_label_values(&[release]).inc();
                    self.transition(release).set(3.0);
                    self.logic_gauge("transition").set(3.0);
                }
            }
            Note::DnsChanged { result, kind } => {
                let (state, value) = match kind.as_str() {
                    "active" => (format!("active/{result}"), 1.0),
                    "passive" => (format!("passive/{result}"), 2.0),
                    _ => (result.clone(), 0.0),
                };
                self.logic("dns", &state);
                self.logic_gauge("dns").set(value);
            }
            Note::Remark { level, .. } => match level.as_str() {
                "warning" => self.logic("logic", "warning"),
                "error" => self.logic("logic", "error"),
                _ => {}
            },
            Note::StepStarted { .. }
            | Note::StepDone { .. }
            | Note::DnsOdd { .. }
            | Note::DnsHealed
            | Note::Advised { .. }
            | Note::PeerLink { .. }
            | Note::PatroniChanged { .. }
            | Note::Answer { .. }
            | Note::DivergenceReported { .. } => {}
        }
    }

    fn logic(&self, resource: &str, state: &str) {
        self.inner.logic_total.with_label_values(&[resource, state]).inc();
    }

    fn logic_gauge(&self, resource: &str) -> Gauge {
        self.inner.logic_gauge.with_label_values(&[self.inner.pid.as_str(), resource])
    }

    fn transition(&self, release: &str) -> Gauge {
        self.inner.transition.with_label_values(&[self.inner.pid.as_str(), release])
    }

    fn release(&self) -> String {
        self.inner.release.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn learn_release(&self, release: &str) {
        let mut known = self.inner.release.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *known != release {
            release.clone_into(&mut known);
        }
    }
}

fn number(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

/// The registry in the text form that Prometheus reads (version 0.0.4), every value with a decimal point.
///
/// # Errors
/// Where a collector hands over something that the text form cannot say.
pub fn render(registry: &Registry) -> Result<String, prometheus::Error> {
    let mut bytes = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut bytes)?;
    let plain = String::from_utf8_lossy(&bytes);
    let mut text = String::with_capacity(plain.len() + plain.len() / 16);
    for line in plain.lines() {
        text.push_str(line);
        // the value is what follows the last blank; time stamps are never set
        if !line.starts_with('#')
            && line
                .rsplit(' ')
                .next()
                .is_some_and(|value| value.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
        {
            text.push_str(".0");
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
