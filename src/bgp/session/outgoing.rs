//! The outgoing half of a session: turns the difference between what the neighbour has and what is wanted into bytes.
//!
//! Owns the order of things: the first table with End-of-RIB, then changes, then replays that a route refresh asked
//! for. Never makes more than [`OUT_LIMIT`] bytes ahead of the socket.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use tracing::{info, warn};

use super::{Sending, Session};
use crate::bgp::attributes::AttributeError;
use crate::bgp::codec::refresh_mark;
use crate::bgp::packing::{Packer, end_of_rib, family_of};
use crate::bgp::table::{Delta, Table};
use tokio::time::Instant;

/// Bytes made ahead of the socket: sixteen full messages, enough to keep TCP busy.
pub(super) const OUT_LIMIT: usize = 64 * 1024;

impl Session<'_> {
    /// Makes messages while there is room for them.
    pub(super) fn fill(&mut self, wanted: &Arc<Table>) {
        if self.negotiated.is_none() || self.closing.is_some() {
            return;
        }
        while self.out.len() < OUT_LIMIT {
            let Some(sending) = &mut self.sending else {
                if self.begin(wanted) {
                    continue;
                }
                break;
            };
            if let Some(message) = sending.packer.next(&self.view) {
                self.push(&message);
                continue;
            }
            self.finish();
        }
        if self.out.is_empty() {
            self.flushed();
        }
    }

    /// Starts on what is to be said next; false = nothing.
    fn begin(&mut self, wanted: &Arc<Table>) -> bool {
        let Some(negotiated) = &self.negotiated else { return false };
        let families = negotiated.families.clone();
        let first = !std::mem::replace(&mut self.greeted, true);
        if first || wanted.generation() > self.sent.generation() {
            let delta = wanted.since(&self.sent, |p| families.contains(&family_of(p)));
            let tail = if first { families.iter().map(|f| end_of_rib(*f)).collect() } else { Vec::new() };
            let withdrawn = delta.withdraw.len() as u64;
            self.status.send_modify(|status| status.withdrawn_prefixes += withdrawn);
            self.sending =
                Some(Sending { packer: Packer::new(delta), tail, target: Some(Arc::clone(wanted)) });
            return true;
        }
        let Some(family) = self.replay.pop_first() else { return false };
        if !families.contains(&family) {
            return true;
        }
        let delta = self.sent.since(&Table::default(), |p| family_of(p) == family);
        let mut tail = Vec::new();
        if negotiated.enhanced_refresh {
            self.push(&refresh_mark(family, false));
            tail.push(refresh_mark(family, true));
        }
        info!(neighbour = %self.neighbour.label(), ?family, "route refresh: saying everything again");
        self.sending = Some(Sending { packer: Packer::new(delta), tail, target: None });
        true
    }

    fn finish(&mut self) {
        let Some(mut sending) = self.sending.take() else { return };
        for message in &sending.tail {
            self.push(message);
        }
        let refused = sending.packer.take_refused();
        if let Some(target) = sending.target {
            if !refused.is_empty() && self.leave_out(&target, &refused) {
                return;
            }
            let left_out = Arc::new(std::mem::take(&mut self.left_out));
            let table = if left_out.is_empty() { target } else { Arc::new(target.without(&left_out)) };
            self.status.send_modify(|status| status.refused = left_out);
            self.sent = Arc::clone(&table);
            self.unflushed = Some(table);
        }
    }

    /// Takes note of routes that cannot be said. The neighbour may still have a former form of some of them: that has to
    /// go, and true means that its withdrawal goes out first.
    fn leave_out(&mut self, target: &Arc<Table>, refused: &[(Vec<IpNet>, AttributeError)]) -> bool {
        let known = Arc::clone(&self.status.borrow().refused);
        for (prefixes, error) in refused {
            // Tried again with every change; told once.
            let news = prefixes.iter().filter(|prefix| !known.contains(*prefix)).count();
            if news > 0 {
                warn!(neighbour = %self.neighbour.label(), prefixes = news, %error, "routes left out");
            }
            self.left_out.extend(prefixes.iter().copied());
        }
        let stale: Vec<IpNet> =
            self.sent.prefixes().filter(|prefix| self.left_out.contains(prefix)).collect();
        if stale.is_empty() {
            return false;
        }
        let gone: BTreeSet<IpNet> = stale.iter().copied().collect();
        self.sent = Arc::new(self.sent.without(&gone));
        self.status.send_modify(|status| status.withdrawn_prefixes += gone.len() as u64);
        let packer = Packer::new(Delta { withdraw: stale, announce: Vec::new() });
        self.sending = Some(Sending { packer, tail: Vec::new(), target: Some(Arc::clone(target)) });
        true
    }

    pub(super) fn push(&mut self, message: &[u8]) {
        if self.out.is_empty() {
            self.progress = Instant::now();
        }
        self.out.extend_from_slice(message);
        self.status.send_modify(|status| status.sent.count(message));
    }

    pub(super) fn wrote(&mut self) {
        self.progress = Instant::now();
        if self.out.is_empty() && self.sending.is_none() {
            self.flushed();
        }
    }

    /// Everything said so far is with the kernel.
    fn flushed(&mut self) {
        if let Some(table) = self.unflushed.take() {
            self.status.send_modify(|status| status.table = Some(table));
        }
    }
}
