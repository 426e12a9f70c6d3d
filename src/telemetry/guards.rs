//! Metrics of the guards: what each sensor says, whether this site has fenced itself, how far the standby is behind.

use prometheus::{Gauge, GaugeVec, Registry};

use super::metrics::{gauge, gauges};
use crate::rules::sensors::{Sense, Senses};
use crate::rules::snapshot::Snapshot;

/// The figures.
pub(super) struct GuardMetrics {
    sensor: GaugeVec,
    self_fenced: Gauge,
    lag_bytes: Gauge,
}

impl GuardMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            sensor: gauges(
                registry,
                "switchover_sensor",
                "1 for what the sensor says of the active site (good, bad, unknown, stale), else 0",
                &["sensor", "state"],
            ),
            self_fenced: gauge(
                registry,
                "switchover_self_fenced",
                "1 while this site has stopped serving by itself",
            ),
            lag_bytes: gauge(
                registry,
                "switchover_lag_bytes",
                "Bytes that the standby is behind, -1 = unknown",
            ),
        }
    }

    pub(super) fn observe(&self, snapshot: &Snapshot) {
        let senses = &snapshot.sensors;
        for (name, sense) in named(senses) {
            for (value, state) in [
                (Sense::Good, "good"),
                (Sense::Bad, "bad"),
                (Sense::Unknown, "unknown"),
                (Sense::Stale, "stale"),
            ] {
                self.sensor.with_label_values(&[name, state]).set(f64::from(u8::from(sense == value)));
            }
        }
        self.self_fenced.set(f64::from(u8::from(snapshot.self_fenced.is_some())));
        self.lag_bytes.set(snapshot.lag_bytes.map_or(-1.0, |bytes| bytes as f64));
    }
}

fn named(senses: &Senses) -> [(&'static str, Sense); 7] {
    [
        ("gslb", senses.gslb),
        ("peer", senses.peer),
        ("peer_view", senses.peer_view),
        ("witness", senses.witness),
        ("application", senses.application),
        ("patroni", senses.patroni),
        ("cloud", senses.cloud),
    ]
}
