//! Metrics of the geo load balancer, under the prefix `switchover_geo_`.
//!
//! Owns names and labels. Registering again after a restart of the task takes the earlier ones' place.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::rules::geo::pass::Report;
use crate::rules::geo::select::Selected;

/// The metrics.
pub struct GeoMetrics {
    /// Passes, by result.
    pub passes: IntCounterVec,
    /// Ingresses that match the selector.
    pub selected: IntGauge,
    /// Whether this replica is the one that works.
    pub leader: IntGauge,
    /// Whether the ingresses are seen: after an outage of the API server, 0 until they are listed again.
    pub visible: IntGauge,
    seconds: Histogram,
    ignored: IntGaugeVec,
    origins: IntGaugeVec,
    balancer_pools: IntGauge,
    repaired: IntCounterVec,
    conflicts: IntCounter,
    problems: IntGaugeVec,
    last_success: IntGauge,
}

impl GeoMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// Where the registry refuses a name.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("switchover_geo_{name}"), help), labels)
        };
        let gauge = |name: &str, help: &str| IntGauge::new(format!("switchover_geo_{name}"), help);
        let gauges = |name: &str, help: &str, label: &str| {
            IntGaugeVec::new(Opts::new(format!("switchover_geo_{name}"), help), &[label])
        };
        let metrics = Self {
            passes: counters("reconcile_total", "Passes over pools and load balancer", &["result"])?,
            seconds: Histogram::with_opts(
                HistogramOpts::new("switchover_geo_reconcile_seconds", "Duration of a pass")
                    .buckets(vec![0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
            )?,
            selected: gauge("ingresses_selected", "Ingresses that match the selector")?,
            leader: gauge("leader", "Whether this replica is the one that works")?,
            visible: gauge("ingresses_visible", "Whether the ingresses are seen right now")?,
            problems: gauges("problems", "What a person should look at, as of the last look", "kind")?,
            ignored: gauges("ingresses_ignored", "Ingresses or addresses that are left out", "reason")?,
            origins: gauges("pool_origins", "Origins of an own pool", "pool")?,
            balancer_pools: gauge("lb_pools", "Pools of the load balancer")?,
            repaired: counters("drift_repaired_total", "Changes made at Cloudflare", &["kind"])?,
            conflicts: IntCounter::new(
                "switchover_geo_conflict_total",
                "Pools that others write too, by pass",
            )?,
            last_success: gauge("last_success_timestamp", "Unix time of the last good pass")?,
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
            Box::new(self.passes.clone()),
            Box::new(self.seconds.clone()),
            Box::new(self.selected.clone()),
            Box::new(self.leader.clone()),
            Box::new(self.visible.clone()),
            Box::new(self.problems.clone()),
            Box::new(self.ignored.clone()),
            Box::new(self.origins.clone()),
            Box::new(self.balancer_pools.clone()),
            Box::new(self.repaired.clone()),
            Box::new(self.conflicts.clone()),
            Box::new(self.last_success.clone()),
        ]
    }

    /// Counts what was left out.
    pub fn count_ignored(&self, selected: &Selected) {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for (_, _, why) in &selected.ignored {
            *counts.entry(why.as_str()).or_default() += 1;
        }
        self.ignored.reset();
        for (reason, count) in counts {
            self.ignored.with_label_values(&[reason]).set(count);
        }
    }

    /// Takes a pass's report; `truce` = enforcement is held back.
    pub fn observe(&self, report: &Report, truce: bool, took: Duration, rounds: u8) {
        let result = match (report.is_good(), report.writes.is_empty(), report.failures.is_empty()) {
            (true, true, _) => "unchanged",
            (true, false, _) => "changed",
            (false, _, true) => "unsettled",
            (false, _, false) => "failed",
        };
        self.passes.with_label_values(&[result]).inc();
        self.seconds.observe(took.as_secs_f64());
        for kind in &report.writes {
            self.repaired.with_label_values(&[*kind]).inc();
        }
        self.conflicts.inc_by((report.conflicts.len() + report.foreign.len()) as u64);
        tracing::debug!(result, rounds, "geo pass ended");
        if report.failures.is_empty() {
            self.origins.reset();
            for (pool, count) in &report.origins {
                self.origins.with_label_values(&[pool.as_str()]).set(*count as i64);
            }
            self.balancer_pools.set(report.balancer_pools as i64);
        }
        for (kind, count) in [
            ("conflict", report.conflicts.len()),
            ("foreign", report.foreign.len()),
            ("last-pool", report.last.len()),
            ("blocked", report.blocked.len()),
            ("no-address", report.orphans.len()),
            ("no-monitor", report.unmonitored.len()),
            ("enforcement", usize::from(truce)),
        ] {
            self.problems.with_label_values(&[kind]).set(count as i64);
        }
        if report.is_good() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_success.set(now.as_secs() as i64);
        }
    }
}
