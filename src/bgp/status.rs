//! What can be seen of a neighbour from outside: state, counters, the last NOTIFICATION.
//!
//! Plain data, published by the neighbour's task through a `watch` channel; whoever shows it reads a snapshot.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::codec::Notice;
use super::fsm::Negotiated;
use super::packing::family_of;
use super::table::Table;

/// Session state (RFC 4271 §8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum NeighbourState {
    /// Nothing is tried: between attempts.
    #[default]
    Idle,
    /// TCP is being connected.
    Connect,
    /// The last attempt to connect failed; the next one waits.
    Active,
    /// Our OPEN is sent.
    OpenSent,
    /// The neighbour's OPEN is accepted.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl NeighbourState {
    /// The name that router software shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        }
    }
}

/// Messages of one direction since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageCounts {
    /// OPENs.
    pub open: u64,
    /// UPDATEs.
    pub update: u64,
    /// NOTIFICATIONs.
    pub notification: u64,
    /// KEEPALIVEs.
    pub keepalive: u64,
    /// ROUTE-REFRESHes, marks included.
    pub refresh: u64,
}

impl MessageCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.open + self.update + self.notification + self.keepalive + self.refresh
    }

    /// Counts a whole message by its type octet.
    pub(super) fn count(&mut self, message: &[u8]) {
        match message.get(18) {
            Some(1) => self.open += 1,
            Some(2) => self.update += 1,
            Some(3) => self.notification += 1,
            Some(4) => self.keepalive += 1,
            Some(5) => self.refresh += 1,
            _ => {}
        }
    }
}

/// A neighbour, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NeighbourStatus {
    /// Name from the settings.
    pub name: String,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its AS.
    pub remote_asn: u32,
    /// Whether it is in our AS.
    pub ibgp: bool,
    /// Session state.
    pub state: NeighbourState,
    /// Unix time in milliseconds when the session came up; `None` while it is down.
    pub established_at_ms: Option<u64>,
    /// What the OPENs settled, while the session is up.
    pub negotiated: Option<Negotiated>,
    /// Our address on the last connection.
    pub local_address: Option<IpAddr>,
    /// Messages received.
    pub received: MessageCounts,
    /// Messages handed to TCP.
    pub sent: MessageCounts,
    /// Prefixes in received UPDATEs: announced, withdrawn. All of them were ignored.
    pub received_prefixes: (u64, u64),
    /// Prefixes in UPDATEs of ours that took them back.
    pub withdrawn_prefixes: u64,
    /// Whether a TCP-MD5 key is set.
    pub password_set: bool,
    /// Code and subcode of the last NOTIFICATION, and whether it was ours.
    pub last_notification: Option<(u8, u8, bool)>,
    /// Received UPDATEs with an error that RFC 7606 lets us live with.
    pub malformed_updates: u64,
    /// Wanted prefixes that this neighbour cannot be told of: no usable next hop, or an attribute that cannot be said.
    pub refused: Arc<BTreeSet<IpNet>>,
    /// The last NOTIFICATION that came in.
    pub notification_received: Option<Notice>,
    /// The last NOTIFICATION that went out.
    pub notification_sent: Option<Notice>,
    /// Why the last attempt or session ended.
    pub last_error: Option<String>,
    /// Sessions that came up.
    pub established_count: u64,
    /// Sessions that died within 30 s.
    pub flaps: u64,
    /// The wanted table that this neighbour has got whole; `None` while the session is down.
    pub table: Option<Arc<Table>>,
}

impl NeighbourStatus {
    /// Whether the session is up and the neighbour has got this generation of the wanted routes, or a newer one.
    pub fn has(&self, generation: u64) -> bool {
        self.table.as_ref().is_some_and(|table| table.generation() >= generation)
    }

    /// How many prefixes the neighbour has from us.
    pub fn advertised_count(&self) -> usize {
        let (Some(table), Some(negotiated)) = (&self.table, &self.negotiated) else { return 0 };
        table.prefixes().filter(|p| negotiated.families.contains(&family_of(p))).count()
    }

    /// Prefixes that the neighbour has from us.
    pub fn advertised(&self) -> BTreeSet<IpNet> {
        let (Some(table), Some(negotiated)) = (&self.table, &self.negotiated) else { return BTreeSet::new() };
        table.prefixes().filter(|p| negotiated.families.contains(&family_of(p))).collect()
    }
}
