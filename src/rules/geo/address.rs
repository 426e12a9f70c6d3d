//! Addresses of ingresses: their one spelling, and which of them must never be published.
//!
//! Pure. Follows the special-purpose registries of RFC 6890. Used by [`super::select`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

impl Cidr {
    /// Whether the address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.length);
                u32::from(network).checked_shr(shift) == u32::from(address).checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.length);
                u128::from(network).checked_shr(shift) == u128::from(address).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (network, length) = text.split_once('/').ok_or("no / in the range")?;
        let network: IpAddr = network.parse().map_err(|_| "no IP address before the /")?;
        let limit = if network.is_ipv4() { 32 } else { 128 };
        let length: u8 = length.parse().map_err(|_| "no number after the /")?;
        if length > limit {
            return Err(format!("the length is at most {limit}"));
        }
        Ok(Self { network, length })
    }
}

/// Why an address is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refused {
    /// Neither an IP address nor a host name.
    Malformed,
    /// Not reachable from the Internet, and no virtual network is configured.
    Private,
    /// Not in the allowed ranges.
    NotAllowed,
    /// It leads back to the load balancer.
    Loop,
}

impl Refused {
    /// The word in metrics and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed-address",
            Self::Private => "private-address",
            Self::NotAllowed => "address-not-allowed",
            Self::Loop => "loop",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The one spelling of an address: an IP address as its type writes it, a host name in lower case without the dot.
pub fn canonical(text: &str) -> Result<String, Refused> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(unmapped(address).to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if is_host_name(&name) { Ok(name) } else { Err(Refused::Malformed) }
}

/// Whether the text is a host name of at least two labels (RFC 1123) and no mistyped IPv4 address.
pub fn is_host_name(name: &str) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    let numeric_top = name.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && name.contains('.') && !numeric_top && name.split('.').all(label)
}

/// Whether the canonical address can be reached from the Internet; a host name is taken to be.
pub fn is_public(address: IpAddr) -> bool {
    match unmapped(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    // RFC 6598 shared space and RFC 1122 "this network" have no stable method of their own. Documentation ranges
    // are let through: Cloudflare refuses what it cannot reach, and examples use them.
    let shared = a == 100 && (64..128).contains(&b);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || shared)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    let unique_local = first & 0xfe00 == 0xfc00;
    let link_local = first & 0xffc0 == 0xfe80;
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || unique_local
        || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for (text, want) in [
            (" 203.0.113.5 ", "203.0.113.5"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("::ffff:203.0.113.5", "203.0.113.5"),
            ("LB.Cloud.Test.", "lb.cloud.test"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(want));
        }
        for text in ["", "localhost", "203.0.113", "a..b", "http://x.test", "-a.test", "1.2.3.4.5"] {
            assert_eq!(canonical(text), Err(Refused::Malformed), "{text}");
        }
    }

    #[test]
    fn special_ranges_are_not_public() {
        for text in [
            "10.0.0.5",
            "172.31.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["203.0.113.5", "100.128.0.1", "172.32.0.1", "2001:db8::1"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn ranges_contain_what_they_should() {
        let range: Cidr = "203.0.113.0/24".parse().unwrap();
        assert!(range.contains("203.0.113.9".parse().unwrap()));
        assert!(!range.contains("203.0.114.9".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!(!"::/0".parse::<Cidr>().unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!("2001:db8::1/128".parse::<Cidr>().unwrap().contains("2001:db8::1".parse().unwrap()));
        for text in ["203.0.113.0", "203.0.113.0/33", "x/8", "::/129"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
