//! Counters and gauges of the peer link. Owns their names; decides nothing.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, Opts, Registry};

/// What the peer link counts. Cloned freely; all clones count into the same registry.
#[derive(Debug, Clone)]
pub struct PeerMetrics {
    /// `switchover_peer_connections_total{direction,result}`.
    pub connections: IntCounterVec,
    /// `switchover_peer_frames_total{event}`.
    pub frames: IntCounterVec,
    /// `switchover_peer_refused_handshakes_total{reason}`.
    pub refused: IntCounterVec,
    /// `switchover_peer_certificate_reloads_total{result}`.
    pub reloads: IntCounterVec,
    /// `switchover_peer_statuses_dropped_total`: statuses of unauthenticated connections, or with a full bus.
    pub statuses_dropped: IntCounter,
    /// `switchover_certificate_expiry_timestamp_seconds{file}`.
    pub expiry: GaugeVec,
}

impl PeerMetrics {
    /// Registers everything. A second registration in the same registry counts into the void instead of failing,
    /// so one agent makes these once and hands out clones.
    pub fn register(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("names and labels are literals")
        };
        let metrics = Self {
            connections: counter(
                "switchover_peer_connections_total",
                "Connections of the peer link by direction and result",
                &["direction", "result"],
            ),
            frames: counter(
                "switchover_peer_frames_total",
                "Frames received from the peer by event",
                &["event"],
            ),
            refused: counter(
                "switchover_peer_refused_handshakes_total",
                "Incoming connections refused before the first frame, by reason",
                &["reason"],
            ),
            reloads: counter(
                "switchover_peer_certificate_reloads_total",
                "Changes of the certificate files by result",
                &["result"],
            ),
            statuses_dropped: IntCounter::new(
                "switchover_peer_statuses_dropped_total",
                "Statuses of the peer that were not believed or did not fit",
            )
            .expect("the name is a literal"),
            expiry: GaugeVec::new(
                Opts::new(
                    "switchover_certificate_expiry_timestamp_seconds",
                    "End of validity of a certificate file, seconds since 1970",
                ),
                &["file"],
            )
            .expect("names and labels are literals"),
        };
        let all: [Box<dyn prometheus::core::Collector>; 6] = [
            Box::new(metrics.connections.clone()),
            Box::new(metrics.frames.clone()),
            Box::new(metrics.refused.clone()),
            Box::new(metrics.reloads.clone()),
            Box::new(metrics.statuses_dropped.clone()),
            Box::new(metrics.expiry.clone()),
        ];
        for collector in all {
            if let Err(error) = registry.register(collector) {
                tracing::debug!(%error, "peer metrics are registered already");
            }
        }
        metrics
    }
}
