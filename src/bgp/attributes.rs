//! One route's attributes as one neighbour gets them: the path attribute bytes of an UPDATE.
//!
//! Pure. Owns the rules of what is said to whom (RFC 4271 §5, RFC 4760, RFC 8950, RFC 8326); never knows prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustbgpd_wire::attribute::encode_path_attributes;
use rustbgpd_wire::{AsPath, AsPathSegment, ExtendedCommunity, LargeCommunity, Origin, PathAttribute};

use super::community::{Community, GRACEFUL_SHUTDOWN};
use crate::announce::RouteAttributes;
use crate::config::bgp::{Family, NeighbourSettings, Role};

/// LOCAL_PREF of iBGP routes that name none.
const DEFAULT_LOCAL_PREF: u32 = 100;

/// Attribute bytes that leave room for MP_REACH_NLRI with at least one IPv6 prefix.
const MAX_ATTRIBUTES: usize = 4000;

/// Longest AS_PATH that one segment holds (RFC 4271 §4.3).
const MAX_SEGMENT: usize = 255;

/// What an established session knows that shapes its UPDATEs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Our AS.
    pub local_asn: u32,
    /// Whether the neighbour is in our AS.
    pub ibgp: bool,
    /// Whether both sides speak four-octet AS numbers (RFC 6793).
    pub four_octet_as: bool,
    /// Families that both sides offered.
    pub families: Vec<Family>,
    /// Whether IPv4 routes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Our address on this session.
    pub local_address: IpAddr,
    /// The neighbour's own overrides and additions.
    pub settings: NeighbourSettings,
}

/// Attributes ready for the wire, apart from MP_REACH_NLRI, which also holds the prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Path attributes in ascending order of type.
    pub bytes: Vec<u8>,
    /// The next hop; `bytes` holds it exactly where the prefixes travel in the body of the UPDATE.
    pub next_hop: IpAddr,
    /// Whether prefixes travel in MP_REACH_NLRI.
    pub multiprotocol: bool,
}

/// A route cannot be said to this neighbour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Neither the route, nor the neighbour's settings, nor the session's address gives a next hop of the family.
    #[error("no {0:?} next hop for this session: set next_hop_v4 or next_hop_v6 of the neighbour")]
    NoNextHop(Family),
    /// A community is not one.
    #[error(transparent)]
    Community(#[from] super::community::CommunityError),
    /// The attributes leave no room for a prefix in a message of 4096 bytes.
    #[error("attributes of {0} bytes do not fit into a message: fewer communities are wanted")]
    TooLong(usize),
    /// The codec refuses the attributes.
    #[error("attributes do not encode: {0}")]
    Codec(String),
}

impl SessionView {
    fn next_hop(&self, family: Family, route: &RouteAttributes) -> Result<IpAddr, AttributeError> {
        let configured_v4 = self.settings.next_hop_v4.map(IpAddr::V4);
        let configured_v6 = self.settings.next_hop_v6.map(IpAddr::V6);
        let candidates = match family {
            Family::Ipv4 => [configured_v4, route.next_hop, Some(self.local_address), configured_v6],
            Family::Ipv6 => [configured_v6, route.next_hop, Some(self.local_address), None],
        };
        let fits = |ip: &IpAddr| match (family, ip) {
            (Family::Ipv4, IpAddr::V4(ip)) => usable_v4(*ip),
            (Family::Ipv4, IpAddr::V6(ip)) => self.extended_next_hop && usable_v6(ip),
            (Family::Ipv6, IpAddr::V6(ip)) => usable_v6(ip),
            (Family::Ipv6, IpAddr::V4(_)) => false,
        };
        candidates.into_iter().flatten().find(fits).ok_or(AttributeError::NoNextHop(family))
    }

    /// AS_PATH: empty towards our own AS, otherwise our AS once and as often again as asked.
    fn as_path(&self, prepend: u8) -> AsPath {
        let extra = usize::from(prepend) + usize::from(self.settings.as_path_prepend);
        let count = if self.ibgp { extra } else { extra + 1 };
        let segments = match count {
            0 => Vec::new(),
            n => vec![AsPathSegment::AsSequence(vec![self.local_asn; n.min(MAX_SEGMENT)])],
        };
        AsPath { segments }
    }

    /// The attributes of a route as this neighbour gets them.
    ///
    /// # Errors
    /// The route has no usable next hop here, or a community that is not one.
    pub fn encode(&self, family: Family, route: &RouteAttributes) -> Result<Encoded, AttributeError> {
        let next_hop = self.next_hop(family, route)?;
        let body_next_hop = match (family, next_hop) {
            (Family::Ipv4, IpAddr::V4(ip)) => Some(ip),
            _ => None,
        };
        let mut list = vec![
            PathAttribute::Origin(Origin::Igp),
            PathAttribute::AsPath(self.as_path(route.as_path_prepend)),
        ];
        list.extend(body_next_hop.map(PathAttribute::NextHop));
        list.extend(route.med.or(self.settings.med).map(PathAttribute::Med));
        if self.ibgp {
            let preference = route.local_pref.or(self.settings.local_pref).unwrap_or(DEFAULT_LOCAL_PREF);
            list.push(PathAttribute::LocalPref(preference));
        }
        list.extend(self.communities(route)?);
        // RFC 9234 §5: towards a customer, an equal or a client the route says that it must only go further down.
        if matches!(self.settings.role, Some(Role::Provider | Role::Peer | Role::Rs)) {
            list.push(PathAttribute::OnlyToCustomer(self.local_asn));
        }
        let mut bytes = Vec::new();
        encode_path_attributes(&list, &mut bytes, self.four_octet_as, false)
            .map_err(|error| AttributeError::Codec(error.to_string()))?;
        if bytes.len() > MAX_ATTRIBUTES {
            return Err(AttributeError::TooLong(bytes.len()));
        }
        Ok(Encoded { bytes, next_hop, multiprotocol: body_next_hop.is_none() })
    }

    fn communities(&self, route: &RouteAttributes) -> Result<Vec<PathAttribute>, AttributeError> {
        let (mut standard, mut extended, mut large) = (Vec::new(), Vec::new(), Vec::new());
        for text in route.communities.iter().chain(&self.settings.communities) {
            match text.parse()? {
                Community::Standard(raw) => standard.push(raw),
                Community::Extended(raw) => extended.push(ExtendedCommunity::new(raw)),
                Community::Large(a, b, c) => large.push(LargeCommunity::new(a, b, c)),
            }
        }
        if route.graceful_shutdown {
            standard.push(GRACEFUL_SHUTDOWN);
        }
        // Sorted and without repetition: RFC 8092 §5 asks it of large communities, and equal sets then share bytes.
        standard.sort_unstable();
        standard.dedup();
        extended.sort_unstable_by_key(|e| e.as_u64());
        extended.dedup();
        large.sort_unstable_by_key(|l: &LargeCommunity| (l.global_admin, l.local_data1, l.local_data2));
        large.dedup();
        let mut list = Vec::new();
        if !standard.is_empty() {
            list.push(PathAttribute::Communities(standard));
        }
        if !extended.is_empty() {
            list.push(PathAttribute::ExtendedCommunities(extended));
        }
        if !large.is_empty() {
            list.push(PathAttribute::LargeCommunities(large));
        }
        Ok(list)
    }
}

/// Whether an address can be a next hop: what receivers reject as a semantic error (RFC 4271 §6.3).
fn usable_v4(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
}

fn usable_v6(ip: &Ipv6Addr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip.to_ipv4_mapped().is_none()
}
