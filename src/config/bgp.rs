//! Settings of the BGP speaker and of BFD: plain data with defaults and bounds.
//!
//! Owns the names and rules of one neighbour's settings; the file formats that embed them own theirs. Never contacts
//! anything. Both spellings, `neighbour` and `neighbor`, are left to the embedding format.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Deserializer, Serialize};

use super::Secret;

mod rules;

pub use rules::valid_interface;

/// Everything that the speaker needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeakerSettings {
    /// BGP identifier (RFC 6286): non-zero, unique in the AS.
    pub router_id: Ipv4Addr,
    /// Our AS number, 1 to 4294967294.
    pub local_asn: u32,
    /// TCP source address of sessions that name none.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// The neighbours, each with an address of its own.
    pub neighbours: Vec<NeighbourSettings>,
}

/// One BGP neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourSettings {
    /// Name in logs and metrics; the address where it is empty.
    #[serde(default)]
    pub name: String,
    /// Address to connect to.
    pub address: IpAddr,
    /// TCP port to connect to.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The neighbour's AS number; equal to ours = iBGP.
    pub remote_asn: u32,
    /// TCP source address; also the next hop of routes that name none.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// Interface that the connection is bound to (SO_BINDTODEVICE): also the way into a VRF.
    #[serde(default)]
    pub interface: Option<String>,
    /// Address families offered. Default: both.
    #[serde(default = "default_families")]
    pub families: Vec<Family>,
    /// Hold time in seconds: 0, or 3 to 65535. The neighbour's lower value wins (RFC 4271 §4.2).
    #[serde(default = "default_hold_time")]
    pub hold_time: u16,
    /// Seconds between KEEPALIVEs; `None` = a third of the negotiated hold time, which is also the upper limit.
    #[serde(default)]
    pub keepalive: Option<u16>,
    /// Seconds without a byte accepted by the neighbour before the session is dropped (RFC 9687); `None` = twice the
    /// hold time, at least 480; 0 = never.
    #[serde(default)]
    pub send_hold_time: Option<u32>,
    /// Milliseconds that a connection attempt may take.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout_ms: u64,
    /// Milliseconds before the first new attempt; doubles with every failure.
    #[serde(default = "default_retry_min")]
    pub retry_min_ms: u64,
    /// Upper limit of the wait between attempts, in milliseconds.
    #[serde(default = "default_retry_max")]
    pub retry_max_ms: u64,
    /// TCP-MD5 key (RFC 2385), 1 to 80 bytes.
    #[serde(default, deserialize_with = "secret", skip_serializing)]
    pub password: Option<Secret>,
    /// GTSM (RFC 5082): the neighbour is at most this many hops away, 1 to 254. Excludes `multihop_ttl`.
    #[serde(default)]
    pub ttl_security_hops: Option<u8>,
    /// TTL of our packets to an eBGP neighbour that is not on a connected network, 2 to 255.
    #[serde(default)]
    pub multihop_ttl: Option<u8>,
    /// Next hop of IPv4 routes to this neighbour, whatever the routes say.
    #[serde(default)]
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Next hop of IPv6 routes to this neighbour, whatever the routes say.
    #[serde(default)]
    pub next_hop_v6: Option<std::net::Ipv6Addr>,
    /// MED of routes that have none.
    #[serde(default)]
    pub med: Option<u32>,
    /// LOCAL_PREF of routes that have none (iBGP only); `None` = 100.
    #[serde(default)]
    pub local_pref: Option<u32>,
    /// Communities added to every route to this neighbour.
    #[serde(default)]
    pub communities: Vec<String>,
    /// Prepends added to every route to this neighbour, 0 to 32.
    #[serde(default)]
    pub as_path_prepend: u8,
    /// Graceful restart (RFC 4724), off unless asked for: with it the neighbour keeps our routes for this many
    /// seconds (1 to 4095) after we vanish, which is what a health-driven announcer normally does not want.
    #[serde(default)]
    pub graceful_restart_secs: Option<u16>,
    /// BFD session beside the BGP session (RFC 5882).
    #[serde(default)]
    pub bfd: Option<BfdSettings>,
    /// Our role towards an eBGP neighbour (RFC 9234); a neighbour with a role that does not fit is refused.
    #[serde(default)]
    pub role: Option<Role>,
}

/// A BGP role (RFC 9234 §4): what we are to the neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It is our customer.
    Provider,
    /// We are its route server.
    Rs,
    /// It is our route server.
    RsClient,
    /// It is our provider.
    Customer,
    /// Equals.
    Peer,
}

/// An address family, unicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

/// A BFD session (RFC 5880), asynchronous mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BfdSettings {
    /// Desired Min TX Interval in milliseconds, 10 to 60000.
    #[serde(default = "default_bfd_interval")]
    pub transmit_ms: u32,
    /// Required Min RX Interval in milliseconds, 10 to 60000.
    #[serde(default = "default_bfd_interval")]
    pub receive_ms: u32,
    /// Detection multiplier, 1 to 255.
    #[serde(default = "default_bfd_multiplier")]
    pub multiplier: u8,
    /// Multi-hop (RFC 5883, port 4784) instead of single hop (RFC 5881, port 3784).
    #[serde(default)]
    pub multihop: bool,
}

impl Default for BfdSettings {
    fn default() -> Self {
        Self {
            transmit_ms: default_bfd_interval(),
            receive_ms: default_bfd_interval(),
            multiplier: default_bfd_multiplier(),
            multihop: false,
        }
    }
}

fn default_port() -> u16 {
    179
}

fn default_families() -> Vec<Family> {
    vec![Family::Ipv4, Family::Ipv6]
}

/// Thirty seconds: a third of the usual 90, which users of every predecessor call too slow, and still three
/// keepalives ten seconds apart.
fn default_hold_time() -> u16 {
    30
}

fn default_connect_timeout() -> u64 {
    5_000
}

fn default_retry_min() -> u64 {
    1_000
}

fn default_retry_max() -> u64 {
    15_000
}

fn default_bfd_interval() -> u32 {
    300
}

fn default_bfd_multiplier() -> u8 {
    3
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
}

impl NeighbourSettings {
    /// A neighbour with every default.
    pub fn new(address: IpAddr, remote_asn: u32) -> Self {
        Self {
            name: String::new(),
            address,
            port: default_port(),
            remote_asn,
            local_address: None,
            interface: None,
            families: default_families(),
            hold_time: default_hold_time(),
            keepalive: None,
            send_hold_time: None,
            connect_timeout_ms: default_connect_timeout(),
            retry_min_ms: default_retry_min(),
            retry_max_ms: default_retry_max(),
            password: None,
            ttl_security_hops: None,
            multihop_ttl: None,
            next_hop_v4: None,
            next_hop_v6: None,
            med: None,
            local_pref: None,
            communities: Vec::new(),
            as_path_prepend: 0,
            graceful_restart_secs: None,
            bfd: None,
            role: None,
        }
    }

    /// The name to show.
    pub fn label(&self) -> String {
        if self.name.is_empty() { self.address.to_string() } else { self.name.clone() }
    }
}
