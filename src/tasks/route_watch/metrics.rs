//! Metrics of route steering, under the prefix `switchover_routes_`.
//!
//! Owns names and labels. Registering again after a restart of the task takes the earlier ones' place.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::rules::route_health::actuate::Both;
use crate::rules::route_health::grade::RegionGrade;
use crate::rules::route_health::{Decision, Health, Outcome};
use crate::tasks::clock::wall_now;

/// The metrics.
#[derive(Clone)]
pub struct RouteMetrics {
    /// Cycles by result.
    pub cycles: IntCounterVec,
    /// Duration of a cycle.
    pub seconds: Histogram,
    state: IntGauge,
    seen: IntGauge,
    state_since: IntGauge,
    input: IntGaugeVec,
    peers: IntGaugeVec,
    backends: IntGaugeVec,
    desired: IntGaugeVec,
    observed: IntGaugeVec,
    /// Cloudflare routes that match the filter.
    pub matching: IntGauge,
    /// Writes by target and result.
    pub writes: IntCounterVec,
    /// Wanted and refused, by why.
    pub refused: IntCounterVec,
    /// Inputs that could not be learnt, by input.
    pub blind: IntCounterVec,
    /// Failed cycles one after the other.
    pub failures_in_a_row: IntGauge,
    /// Unix time of the last good cycle.
    pub last_success: IntGauge,
    /// Whether nothing is ever written.
    pub passive: IntGauge,
    /// Whether the phase owns the routes: 1 pinned, 0 left to health, -1 not known.
    pub pinned: IntGauge,
    /// Lines of events that were dropped.
    pub lost_events: IntCounter,
}

impl RouteMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// Where the registry refuses a name.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("switchover_routes_{name}");
        let counters =
            |n: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name(n), help), labels);
        let gauge = |n: &str, help: &str| IntGauge::new(name(n), help);
        let gauges =
            |n: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name(n), help), labels);
        let metrics = Self {
            cycles: counters("cycle_total", "Cycles", &["result"])?,
            seconds: Histogram::with_opts(
                HistogramOpts::new(name("cycle_seconds"), "Duration of a cycle")
                    .buckets(vec![0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
            )?,
            state: gauge("state", "Applied state, 1 to 7 (7 = other region lost); 0 = none yet")?,
            seen: gauge("state_seen", "State that the inputs show now; 0 = hold")?,
            state_since: gauge("state_since", "Unix time at which the applied state began")?,
            input: gauges("input", "1 healthy, 0 unhealthy, -1 unknown", &["name"])?,
            peers: gauges("peers", "BGP sessions of a router", &["router", "which"])?,
            backends: gauges("backends", "Backends of a region", &["region", "which"])?,
            desired: gauges("prefix_desired", "Whether the prefix should be announced here", &["prefix"])?,
            observed: gauges("prefix_observed", "Whether the own router lists the prefix", &["prefix"])?,
            matching: gauge("cf_matching_routes", "Cloudflare routes that match the filter")?,
            writes: counters("write_total", "Changes made", &["target", "result"])?,
            refused: counters("refused_total", "Changes that were wanted and refused", &["why"])?,
            blind: counters("input_failure_total", "Questions about an input that failed", &["name"])?,
            failures_in_a_row: gauge("failed_cycles_in_a_row", "Failed cycles one after the other")?,
            last_success: gauge("last_success_timestamp", "Unix time of the last good cycle")?,
            passive: gauge("passive", "1 = routes are watched and never changed")?,
            pinned: gauge("pinned", "1 = pinned to the passive site, 0 = left to health, -1 = not known")?,
            lost_events: IntCounter::new(name("events_lost_total"), "Events that found a full queue")?,
        };
        for collector in metrics.collectors() {
            let _ = registry.unregister(collector);
        }
        for collector in metrics.collectors() {
            registry.register(collector)?;
        }
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.cycles.clone()),
            Box::new(self.seconds.clone()),
            Box::new(self.state.clone()),
            Box::new(self.seen.clone()),
            Box::new(self.state_since.clone()),
            Box::new(self.input.clone()),
            Box::new(self.peers.clone()),
            Box::new(self.backends.clone()),
            Box::new(self.desired.clone()),
            Box::new(self.observed.clone()),
            Box::new(self.matching.clone()),
            Box::new(self.writes.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.blind.clone()),
            Box::new(self.failures_in_a_row.clone()),
            Box::new(self.last_success.clone()),
            Box::new(self.passive.clone()),
            Box::new(self.pinned.clone()),
            Box::new(self.lost_events.clone()),
        ]
    }

    /// Shows a decision; `in_state_ms` is how long the applied state lasts already.
    pub fn decision(&self, decision: &Decision, in_state_ms: u64) {
        for (name, health) in [
            ("local", decision.smoothed.local),
            ("remote", decision.smoothed.remote),
            ("bgp", decision.smoothed.bgp),
        ] {
            self.input.with_label_values(&[name]).set(health.gauge());
        }
        for (name, health) in
            [("local", decision.raw.local), ("remote", decision.raw.remote), ("bgp", decision.raw.bgp)]
        {
            self.blind.with_label_values(&[name]).inc_by(u64::from(health == Health::Unknown));
        }
        self.seen.set(i64::from(decision.seen_code()));
        self.state.set(decision.active.map_or(0, |active| i64::from(active.state.code())));
        if decision.active.is_some() {
            self.state_since.set((wall_now().0.saturating_sub(in_state_ms) / 1000) as i64);
        }
    }

    /// Shows a region.
    pub fn region(&self, region: &str, grade: &RegionGrade) {
        self.backends.with_label_values(&[region, "healthy"]).set(grade.healthy as i64);
        self.backends.with_label_values(&[region, "total"]).set(grade.backends as i64);
    }

    /// Shows a router's sessions.
    pub fn sessions(&self, router: &str, up: usize, total: usize) {
        self.peers.with_label_values(&[router, "up"]).set(up as i64);
        self.peers.with_label_values(&[router, "total"]).set(total as i64);
    }

    /// Shows what is wanted and what the own router says.
    pub fn prefixes(&self, wanted: Option<Outcome>, seen: Option<Both<bool>>) {
        if let Some(wanted) = wanted {
            self.desired.with_label_values(&["primary"]).set(i64::from(wanted.primary));
            self.desired.with_label_values(&["secondary"]).set(i64::from(wanted.secondary));
        }
        if let Some(seen) = seen {
            self.observed.with_label_values(&["primary"]).set(i64::from(seen.primary));
            self.observed.with_label_values(&["secondary"]).set(i64::from(seen.secondary));
        }
    }
}
