//! Metrics of services, checks and routes: the Go predecessor's names with their labels and their oddities, and beside
//! them the same facts told right.
//!
//! The predecessor's gauge `certificate_expires_in_seconds` is negative while a certificate is valid, and its checks
//! are told apart by kind only; dashboards rely on both. Names of ours carry `service` and `check` (the name).

use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, Opts, Registry};

use super::schedule::Sampled;
use crate::announce::{Changes, PrefixKey};
use crate::checks::{Facts, Sample};
use crate::config::anycast::{ConfiguredCheck, Service};
use crate::rules::health::ServiceState;

/// Registers a collector, replacing the one of a former run of the task.
///
/// # Errors
/// A clash with a metric of another shape.
pub(super) fn replace<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: &C,
) -> prometheus::Result<()> {
    match registry.register(Box::new(collector.clone())) {
        Err(prometheus::Error::AlreadyReg) => {
            registry.unregister(Box::new(collector.clone()))?;
            registry.register(Box::new(collector.clone()))
        }
        other => other,
    }
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $field:ident: $kind:ident = $name:literal [$($tag:literal),*], $help:literal;)*) => {
        /// All of them; clones share the same values.
        #[derive(Clone)]
        pub struct Metrics { $($(#[$doc])* $field: $kind,)* }

        impl Metrics {
            /// Registers all of them; doing it again replaces them.
            ///
            /// # Errors
            /// A clash with a metric of another shape.
            pub fn register(registry: &Registry) -> prometheus::Result<Self> {
                let metrics = Self {
                    $($field: $kind::new(Opts::new(concat!("anycastd_", $name), $help), &[$($tag),*])?,)*
                };
                $(replace(registry, &metrics.$field)?;)*
                metrics.up.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
                metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
                metrics.fail_open.with_label_values(&[] as &[&str]).set(0.0);
                Ok(metrics)
            }
        }
    };
}

metrics! {
    up: GaugeVec = "up" ["version"], "Whether the announcer runs.";
    service_up: GaugeVec = "service_up" ["service"], "Whether the service is healthy.";
    duration: GaugeVec = "check_duration_seconds" ["service", "check"], "Duration of the last run, retries included.";
    expires_in: GaugeVec = "certificate_expires_in_seconds" ["check", "path"], "Now minus NotAfter: negative while valid.";
    max_rtt: GaugeVec = "check_max_rtt_seconds" ["check", "host"], "Longest round trip of the last run.";
    min_rtt: GaugeVec = "check_min_rtt_seconds" ["check", "host"], "Shortest round trip of the last run.";
    avg_rtt: GaugeVec = "check_avg_rtt_seconds" ["check", "host"], "Mean round trip of the last run.";
    std_dev_rtt: GaugeVec = "check_std_dev_rtt_seconds" ["check", "host"], "Standard deviation of the round trips.";
    loss: GaugeVec = "check_loss_percent" ["check", "host"], "Echo requests without a reply.";
    sent: CounterVec = "check_packets_sent_total" ["check", "host"], "Echo requests sent.";
    received: CounterVec = "check_packets_received_total" ["check", "host"], "Echo replies received.";
    duplicates: CounterVec = "check_packets_received_duplicates_total" ["check", "host"], "Further replies to a request.";
    ntp_offset: GaugeVec = "check_last_ntp_offset_ms" ["check", "host"], "Offset of the last good answer.";
    ntp_rtt: GaugeVec = "check_last_ntp_rtt_ms" ["check", "host"], "Round trip of the last good answer.";
    ntp_sent: CounterVec = "check_ntp_packets_sent_total" ["check", "host"], "Good answers of time servers.";
    build_info: GaugeVec = "build_info" ["version"], "Version of the agent.";
    state: GaugeVec = "service_state" ["service", "state"], "1 for the state that the service is in.";
    changes: CounterVec = "state_changes_total" ["service", "to"], "Changes of state.";
    flaps: GaugeVec = "service_flaps" ["service"], "Times that the service fell since it was configured.";
    check_up: GaugeVec = "check_up" ["service", "check", "kind"], "Last sample: 1 passed, 0 failed, -1 could not be done.";
    runs: CounterVec = "check_runs_total" ["service", "check", "result"], "Runs by result.";
    run_seconds: GaugeVec = "check_last_run_seconds" ["service", "check", "kind"], "Duration of the last run by check.";
    late: CounterVec = "check_late_total" ["service", "check"], "Runs that began more than 100 ms behind their beat.";
    expiry: GaugeVec = "certificate_expiry_timestamp_seconds" ["service", "check", "target"], "NotAfter, since 1970.";
    announced: GaugeVec = "prefix_announced" ["prefix", "announcer"], "1 while the prefix is announced, 0 while it is not.";
    announcements: CounterVec = "announcements_total" ["announcer"], "Routes announced or changed.";
    withdrawals: CounterVec = "withdrawals_total" ["announcer"], "Routes withdrawn.";
    failures: CounterVec = "withdraw_failures_total" ["announcer"], "Calls of the announcer that failed; each is repeated.";
    fail_open: GaugeVec = "fail_open" [], "1 while fail-open is in force.";
}

impl Metrics {
    pub(super) fn service_state(&self, service: &str, now: ServiceState) {
        for state in ServiceState::ALL {
            let value = f64::from(u8::from(state == now));
            self.state.with_label_values(&[service, state.as_str()]).set(value);
        }
    }

    pub(super) fn service_up(&self, service: &str, state: ServiceState) {
        let up = matches!(state, ServiceState::Up | ServiceState::Falling);
        self.service_up.with_label_values(&[service]).set(f64::from(u8::from(up)));
    }

    pub(super) fn changed(&self, service: &str, from: ServiceState, to: ServiceState, flaps: u64) {
        self.state.with_label_values(&[service, from.as_str()]).set(0.0);
        self.state.with_label_values(&[service, to.as_str()]).set(1.0);
        self.changes.with_label_values(&[service, to.as_str()]).inc();
        self.flaps.with_label_values(&[service]).set(flaps as f64);
        self.service_up(service, to);
    }

    pub(super) fn sampled(&self, service: &str, configured: &ConfiguredCheck, sampled: &Sampled) {
        let (name, kind) = (configured.name.as_str(), configured.kind.as_str());
        let took = sampled.took.as_secs_f64();
        self.duration.with_label_values(&[service, kind]).set(took);
        self.run_seconds.with_label_values(&[service, name, kind]).set(took);
        let (value, result) = match sampled.report.sample {
            Sample::Pass => (1.0, "pass"),
            Sample::Fail => (0.0, "fail"),
            Sample::Unknown => (-1.0, "unknown"),
        };
        self.check_up.with_label_values(&[service, name, kind]).set(value);
        self.runs.with_label_values(&[service, name, result]).inc();
        if sampled.late.as_millis() > 100 {
            self.late.with_label_values(&[service, name]).inc();
        }
        self.facts(service, name, kind, &sampled.report.facts);
    }

    fn facts(&self, service: &str, name: &str, kind: &str, facts: &Facts) {
        match facts {
            Facts::Nothing => {}
            Facts::Certificate { path, host, not_after } => {
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let expired_for = now.as_secs_f64() - *not_after as f64;
                self.expires_in.with_label_values(&[kind, path]).set(expired_for);
                let target = if path.is_empty() { host } else { path };
                self.expiry.with_label_values(&[service, name, target]).set(*not_after as f64);
            }
            Facts::Ping(figures) => {
                let labels = [kind, figures.host.as_str()];
                self.sent.with_label_values(&labels).inc_by(figures.sent as f64);
                self.received.with_label_values(&labels).inc_by(figures.received as f64);
                self.duplicates.with_label_values(&labels).inc_by(figures.duplicates as f64);
                self.loss.with_label_values(&labels).set(figures.loss_percent);
                let [low, mean, high, deviation] = figures.rtt_secs.unwrap_or_default();
                self.min_rtt.with_label_values(&labels).set(low);
                self.avg_rtt.with_label_values(&labels).set(mean);
                self.max_rtt.with_label_values(&labels).set(high);
                self.std_dev_rtt.with_label_values(&labels).set(deviation);
            }
            Facts::Ntp { host, offset_ms, rtt_ms } => {
                let labels = [kind, host.as_str()];
                self.ntp_offset.with_label_values(&labels).set(offset_ms.trunc());
                self.ntp_rtt.with_label_values(&labels).set(rtt_ms.trunc());
                self.ntp_sent.with_label_values(&labels).inc();
            }
        }
    }

    /// Removes the series of a service that is gone.
    pub(super) fn forget(&self, service: &Service) {
        let name = service.name.as_str();
        // A series that was never set can't be removed, which is just as well.
        let _ = self.service_up.remove_label_values(&[name]);
        let _ = self.flaps.remove_label_values(&[name]);
        for state in ServiceState::ALL {
            let _ = self.state.remove_label_values(&[name, state.as_str()]);
            let _ = self.changes.remove_label_values(&[name, state.as_str()]);
        }
        for check in &service.checks {
            let _ = self.duration.remove_label_values(&[name, &check.kind]);
            let _ = self.check_up.remove_label_values(&[name, &check.name, &check.kind]);
            let _ = self.run_seconds.remove_label_values(&[name, &check.name, &check.kind]);
            let _ = self.late.remove_label_values(&[name, &check.name]);
            for result in ["pass", "fail", "unknown"] {
                let _ = self.runs.remove_label_values(&[name, &check.name, result]);
            }
        }
    }

    pub(super) fn fail_open(&self, in_force: bool) {
        self.fail_open.with_label_values(&[] as &[&str]).set(f64::from(u8::from(in_force)));
    }

    pub(super) fn announce_failed(&self, announcer: &str) {
        self.failures.with_label_values(&[announcer]).inc();
    }

    /// The result of a call of an announcer: only what changed is touched.
    pub(super) fn applied(&self, announcer: &str, changes: &Changes) {
        let announced = changes.announced.len() + changes.updated.len();
        self.announcements.with_label_values(&[announcer]).inc_by(announced as f64);
        self.withdrawals.with_label_values(&[announcer]).inc_by(changes.withdrawn.len() as f64);
        for key in &changes.announced {
            self.announced.with_label_values(&[&key.to_string(), announcer]).set(1.0);
        }
        for key in &changes.withdrawn {
            self.announced.with_label_values(&[&key.to_string(), announcer]).set(0.0);
        }
    }

    /// Whether a route that is set reaches anybody.
    pub(super) fn reaches(&self, announcer: &str, key: &PrefixKey, does: bool) {
        self.announced.with_label_values(&[&key.to_string(), announcer]).set(f64::from(u8::from(does)));
    }

    /// A route that is known and not announced yet.
    pub(super) fn known(&self, announcer: &str, key: &PrefixKey) {
        self.announced.with_label_values(&[&key.to_string(), announcer]).set(0.0);
    }
}
