//! Turns a [`Delta`] into UPDATE messages, one at a time, each as full as the limit of 4096 bytes allows.
//!
//! Pure. Withdrawals come first: they are the urgent ones. Never makes an UPDATE without a prefix, which would read
//! as End-of-RIB (RFC 4724 §2); [`end_of_rib`] makes that one on purpose.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::IpNet;

use super::attributes::{AttributeError, Encoded, SessionView};
use super::table::Delta;
use crate::announce::RouteAttributes;
use crate::config::bgp::Family;

/// Largest message sent, whatever was negotiated: every receiver can take it (RFC 4271 §4.1).
pub const MAX_MESSAGE: usize = 4096;

/// Header, and the two length fields of an UPDATE.
const FIXED: usize = 19 + 2 + 2;

/// Flags, type, extended length of an MP attribute.
const MP_HEADER: usize = 4;

const UPDATE: u8 = 2;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
/// Optional, extended length.
const MP_FLAGS: u8 = 0x90;
const UNICAST: u8 = 1;

/// A difference on its way out.
#[derive(Debug)]
pub struct Packer {
    withdraw: std::vec::IntoIter<IpNet>,
    waiting: std::vec::IntoIter<(RouteAttributes, Vec<IpNet>)>,
    group: Option<Group>,
    /// Prefixes that could not be said, with why, since the last look.
    refused: Vec<(Vec<IpNet>, AttributeError)>,
}

/// Prefixes of one family that share attributes.
#[derive(Debug)]
struct Group {
    encoded: Encoded,
    family: Family,
    prefixes: std::iter::Peekable<std::vec::IntoIter<IpNet>>,
    /// The other family of the same attributes.
    rest: Option<(RouteAttributes, Vec<IpNet>)>,
}

/// The family of a prefix.
pub fn family_of(prefix: &IpNet) -> Family {
    if prefix.addr().is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

fn nlri_len(prefix: &IpNet) -> usize {
    1 + usize::from(prefix.prefix_len()).div_ceil(8)
}

fn put_nlri(out: &mut BytesMut, prefix: &IpNet) {
    out.put_u8(prefix.prefix_len());
    let bytes = usize::from(prefix.prefix_len()).div_ceil(8);
    match prefix.network() {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()[..bytes]),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()[..bytes]),
    }
}

fn afi(family: Family) -> u16 {
    match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 2,
    }
}

/// An UPDATE of the three parts, with its header.
fn message(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Bytes {
    let length = FIXED + withdrawn.len() + attributes.len() + nlri.len();
    let mut out = BytesMut::with_capacity(length);
    out.put_bytes(0xFF, 16);
    out.put_u16(length as u16);
    out.put_u8(UPDATE);
    out.put_u16(withdrawn.len() as u16);
    out.put_slice(withdrawn);
    out.put_u16(attributes.len() as u16);
    out.put_slice(attributes);
    out.put_slice(nlri);
    out.freeze()
}

fn multiprotocol(kind: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(MP_HEADER + body.len());
    out.put_u8(MP_FLAGS);
    out.put_u8(kind);
    out.put_u16(body.len() as u16);
    out.put_slice(body);
    out
}

/// End-of-RIB of a family (RFC 4724 §2).
pub fn end_of_rib(family: Family) -> Bytes {
    match family {
        Family::Ipv4 => message(&[], &[], &[]),
        Family::Ipv6 => {
            let mut body = BytesMut::new();
            body.put_u16(afi(family));
            body.put_u8(UNICAST);
            // Without extended length, as the RFC's example and every implementation writes it.
            let mut attribute = BytesMut::new();
            attribute.put_slice(&[0x80, MP_UNREACH, body.len() as u8]);
            attribute.put_slice(&body);
            message(&[], &attribute, &[])
        }
    }
}

impl Packer {
    /// A packer of this difference.
    pub fn new(delta: Delta) -> Self {
        Self {
            withdraw: delta.withdraw.into_iter(),
            waiting: delta.announce.into_iter(),
            group: None,
            refused: Vec::new(),
        }
    }

    /// The next message, `None` when all has been said.
    pub fn next(&mut self, view: &SessionView) -> Option<Bytes> {
        if let Some(message) = self.next_withdrawal() {
            return Some(message);
        }
        loop {
            if let Some(group) = &mut self.group {
                if group.prefixes.peek().is_some() {
                    return Some(group.next_message());
                }
                let rest = group.rest.take();
                self.group = None;
                if let Some((attributes, prefixes)) = rest {
                    self.open(view, attributes, prefixes);
                }
                continue;
            }
            let (attributes, prefixes) = self.waiting.next()?;
            self.open(view, attributes, prefixes);
        }
    }

    /// What could not be said since the last call: which prefixes, and why.
    pub fn take_refused(&mut self) -> Vec<(Vec<IpNet>, AttributeError)> {
        std::mem::take(&mut self.refused)
    }

    fn open(&mut self, view: &SessionView, attributes: RouteAttributes, prefixes: Vec<IpNet>) {
        let family = match prefixes.first() {
            Some(prefix) => family_of(prefix),
            None => return,
        };
        let (same, other): (Vec<IpNet>, Vec<IpNet>) =
            prefixes.into_iter().partition(|p| family_of(p) == family);
        let rest = (!other.is_empty()).then(|| (attributes.clone(), other));
        match view.encode(family, &attributes) {
            Ok(encoded) => {
                let prefixes = same.into_iter().peekable();
                self.group = Some(Group { encoded, family, prefixes, rest });
            }
            Err(error) => {
                self.refused.push((same, error));
                if let Some((attributes, prefixes)) = rest {
                    self.open(view, attributes, prefixes);
                }
            }
        }
    }

    fn next_withdrawal(&mut self) -> Option<Bytes> {
        let family = family_of(self.withdraw.as_slice().first()?);
        let (mut room, mut nlri) = (MAX_MESSAGE - FIXED - MP_HEADER - 3, BytesMut::new());
        while let Some(prefix) = self.withdraw.as_slice().first() {
            if family_of(prefix) != family || nlri_len(prefix) > room {
                break;
            }
            room -= nlri_len(prefix);
            put_nlri(&mut nlri, prefix);
            self.withdraw.next();
        }
        Some(match family {
            Family::Ipv4 => message(&nlri, &[], &[]),
            Family::Ipv6 => {
                let mut body = BytesMut::with_capacity(3 + nlri.len());
                body.put_u16(afi(family));
                body.put_u8(UNICAST);
                body.put_slice(&nlri);
                message(&[], &multiprotocol(MP_UNREACH, &body), &[])
            }
        })
    }
}

impl Group {
    fn next_message(&mut self) -> Bytes {
        let mut reach = BytesMut::new();
        if self.encoded.multiprotocol {
            reach.put_u16(afi(self.family));
            reach.put_u8(UNICAST);
            match self.encoded.next_hop {
                IpAddr::V4(ip) => {
                    reach.put_u8(4);
                    reach.put_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    reach.put_u8(16);
                    reach.put_slice(&ip.octets());
                }
            }
            reach.put_u8(0);
        }
        let fixed = FIXED + self.encoded.bytes.len() + reach.len() + MP_HEADER;
        // At least one prefix per message, even where attributes fill it: the caller's limits keep them far below.
        let mut room = MAX_MESSAGE.saturating_sub(fixed);
        let mut nlri = BytesMut::new();
        while let Some(prefix) = self.prefixes.next_if(|p| nlri.is_empty() || nlri_len(p) <= room) {
            room = room.saturating_sub(nlri_len(&prefix));
            put_nlri(&mut nlri, &prefix);
        }
        if !self.encoded.multiprotocol {
            return message(&[], &self.encoded.bytes, &nlri);
        }
        reach.put_slice(&nlri);
        // MP_REACH_NLRI first (RFC 7606 §5.1): a receiver finds the prefixes even if a later attribute is broken.
        let mut attributes = multiprotocol(MP_REACH, &reach);
        attributes.put_slice(&self.encoded.bytes);
        message(&[], &attributes, &nlri[..0])
    }
}

#[cfg(test)]
mod tests;
