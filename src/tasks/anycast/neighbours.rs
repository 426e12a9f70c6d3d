//! Metrics of BGP neighbours under the Go predecessor's names, and the same told right beside them.
//!
//! Owns names and labels; what a neighbour's state is comes in as plain data from whoever runs the speaker.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{GaugeVec, Opts, Registry};

use super::metrics::replace;

/// Messages of one direction since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Messages {
    /// OPENs.
    pub open: u64,
    /// UPDATEs.
    pub update: u64,
    /// NOTIFICATIONs.
    pub notification: u64,
    /// KEEPALIVEs.
    pub keepalive: u64,
    /// ROUTE-REFRESHes.
    pub refresh: u64,
    /// Prefixes withdrawn in UPDATEs.
    pub withdrawn_prefixes: u64,
}

/// One neighbour at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Neighbour {
    /// Its address.
    pub address: String,
    /// Whether it is in another AS.
    pub external: bool,
    /// 1 idle, 2 connect, 3 active, 4 opensent, 5 openconfirm, 6 established.
    pub session_state: u8,
    /// Sessions that ended within 30 seconds.
    pub flaps: u64,
    /// Received messages.
    pub received: Messages,
    /// Sent messages.
    pub sent: Messages,
    /// Whether a TCP-MD5 key is set.
    pub password_set: bool,
    /// Prefixes that it was sent and not sent the withdrawal of.
    pub advertised_prefixes: u64,
    /// When the session was established, in seconds since 1970.
    pub established_at: Option<f64>,
    /// Last NOTIFICATION: code, subcode, and `sent` or `received`.
    pub last_notification: Option<(u8, u8, &'static str)>,
}

/// Names that the predecessor has, in the order of its documentation.
const NAMES: [&str; 24] = [
    "peer_admin_state",
    "peer_session_state",
    "peer_type",
    "peer_flops_count",
    "peer_out_queue_count",
    "peer_send_community_flag",
    "peer_remove_private_flag",
    "peer_password_set_flag",
    "received_messages_total",
    "received_messages_notification",
    "received_messages_update",
    "received_messages_open",
    "received_messages_keepalive",
    "received_messages_refresh",
    "received_messages_withdraw_update",
    "received_messages_withdraw_prefix",
    "sent_messages_total",
    "sent_messages_notification",
    "sent_messages_update",
    "sent_messages_open",
    "sent_messages_keepalive",
    "sent_messages_refresh",
    "sent_messages_withdraw_update",
    "sent_messages_withdraw_prefix",
];

/// The gauges.
#[derive(Clone)]
pub struct NeighbourMetrics {
    count: GaugeVec,
    predecessor: Vec<GaugeVec>,
    advertised: GaugeVec,
    established: GaugeVec,
    last_notification: GaugeVec,
    shown: Arc<Mutex<Vec<Neighbour>>>,
}

impl NeighbourMetrics {
    /// Registers all of them; doing it again replaces them.
    ///
    /// # Errors
    /// A clash with a metric of another shape.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = GaugeVec::new(Opts::new(format!("anycastd_{name}"), help), labels)?;
            replace(registry, &gauge)?;
            Ok::<GaugeVec, prometheus::Error>(gauge)
        };
        let labels = ["router_id", "peer"];
        let of_peer = |name: &&str| gauge(&format!("gobgp_{name}"), "As the predecessor has it.", &labels);
        let notification = ["router_id", "peer", "code", "subcode", "direction"];
        Ok(Self {
            count: gauge("gobgp_peer_count", "Configured neighbours.", &["router_id"])?,
            predecessor: NAMES.iter().map(of_peer).collect::<Result<_, _>>()?,
            advertised: gauge("advertised_prefixes", "Prefixes that the neighbour holds from us.", &labels)?,
            established: gauge("session_established_timestamp_seconds", "Since when, since 1970.", &labels)?,
            last_notification: gauge("last_notification", "1 for the last NOTIFICATION.", &notification)?,
            shown: Arc::default(),
        })
    }

    /// Takes over the state of all neighbours. Only series that are over are removed, so that no scrape finds a gap.
    pub fn set(&self, router_id: &str, neighbours: &[Neighbour]) {
        self.count.with_label_values(&[router_id]).set(neighbours.len() as f64);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for old in shown.iter() {
            let new = neighbours.iter().find(|new| new.address == old.address);
            self.forget(router_id, old, new);
        }
        *shown = neighbours.to_vec();
        drop(shown);
        for neighbour in neighbours {
            let labels = [router_id, neighbour.address.as_str()];
            for (gauge, value) in self.predecessor.iter().zip(values(neighbour)) {
                gauge.with_label_values(&labels).set(value);
            }
            self.advertised.with_label_values(&labels).set(neighbour.advertised_prefixes as f64);
            if let Some(at) = neighbour.established_at {
                self.established.with_label_values(&labels).set(at);
            }
            if let Some((code, subcode, direction)) = neighbour.last_notification {
                let (code, subcode) = (code.to_string(), subcode.to_string());
                let labels = [router_id, neighbour.address.as_str(), &code, &subcode, direction];
                self.last_notification.with_label_values(&labels).set(1.0);
            }
        }
    }
}

impl NeighbourMetrics {
    /// Removes the series of a neighbour that its new state does not have.
    fn forget(&self, router_id: &str, old: &Neighbour, new: Option<&Neighbour>) {
        let labels = [router_id, old.address.as_str()];
        // A series that was never set can't be removed, which is just as well.
        if new.is_none() {
            for gauge in self.predecessor.iter().chain([&self.advertised]) {
                let _ = gauge.remove_label_values(&labels);
            }
        }
        if new.is_none_or(|new| new.established_at.is_none()) {
            let _ = self.established.remove_label_values(&labels);
        }
        let replaced = new.is_none_or(|new| new.last_notification != old.last_notification);
        if let Some((code, subcode, direction)) = old.last_notification.filter(|_| replaced) {
            let (code, subcode) = (code.to_string(), subcode.to_string());
            let labels = [router_id, old.address.as_str(), &code, &subcode, direction];
            let _ = self.last_notification.remove_label_values(&labels);
        }
    }
}

/// Values in the order of [`NAMES`]. What the predecessor never filled in is told right here.
fn values(neighbour: &Neighbour) -> [f64; 24] {
    let flag = |on: bool| f64::from(u8::from(on));
    let (received, sent) = (&neighbour.received, &neighbour.sent);
    let total = |m: &Messages| (m.open + m.update + m.notification + m.keepalive + m.refresh) as f64;
    [
        0.0,
        f64::from(neighbour.session_state),
        flag(neighbour.external),
        neighbour.flaps as f64,
        0.0,
        0.0,
        0.0,
        flag(neighbour.password_set),
        total(received),
        received.notification as f64,
        received.update as f64,
        received.open as f64,
        received.keepalive as f64,
        received.refresh as f64,
        received.withdrawn_prefixes as f64,
        received.withdrawn_prefixes as f64,
        total(sent),
        sent.notification as f64,
        sent.update as f64,
        sent.open as f64,
        sent.keepalive as f64,
        sent.refresh as f64,
        0.0,
        sent.withdrawn_prefixes as f64,
    ]
}
