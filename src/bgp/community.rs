//! Communities as people write them: `a:b`, `a:b:c`, `rt:a:b`, and the well-known names.
//!
//! Pure: text to bytes and back. Never knows which route carries them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// GRACEFUL_SHUTDOWN (RFC 8326): "prefer anything else, this is about to go away".
pub const GRACEFUL_SHUTDOWN: u32 = 0xFFFF_0000;

/// One community of any of the three kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997.
    Standard(u32),
    /// RFC 4360, the eight bytes on the wire.
    Extended(u64),
    /// RFC 8092.
    Large(u32, u32, u32),
}

/// A text is not a community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("community {text:?}: wanted {}", Community::WANTED)]
pub struct CommunityError {
    /// The text as given.
    pub text: String,
}

/// Well-known standard communities by the name that the registry gives them.
const WELL_KNOWN: [(&str, u32); 7] = [
    ("graceful-shutdown", GRACEFUL_SHUTDOWN),
    ("llgr-stale", 0xFFFF_0006),
    ("no-llgr", 0xFFFF_0007),
    ("blackhole", 0xFFFF_029A),
    ("no-export", 0xFFFF_FF01),
    ("no-advertise", 0xFFFF_FF02),
    ("no-export-subconfed", 0xFFFF_FF03),
];

impl Community {
    /// What a text has to look like.
    pub const WANTED: &str = "a:b (each up to 65535), a:b:c (each up to 4294967295), rt:AS:n, soo:AS:n, \
                              bandwidth:AS:bytes-per-second, or a well-known name such as no-export";
}

fn extended(kind: &str, rest: &str) -> Option<Community> {
    let (admin, value) = rest.split_once(':')?;
    if kind == "bandwidth" {
        // draft-ietf-idr-link-bandwidth: non-transitive, AS of two octets, IEEE 754 bytes per second.
        let asn: u16 = admin.parse().ok()?;
        let bytes: f32 = value.parse().ok().filter(|b: &f32| b.is_finite() && *b >= 0.0)?;
        let raw = 0x4004_0000_0000_0000 | (u64::from(asn) << 32) | u64::from(bytes.to_bits());
        return Some(Community::Extended(raw));
    }
    let subtype: u64 = match kind {
        "rt" => 0x02,
        "soo" => 0x03,
        _ => return None,
    };
    let local: u32 = value.parse().ok()?;
    let (kind_byte, body) = if let Ok(address) = admin.parse::<Ipv4Addr>() {
        (0x01_u64, (u64::from(u32::from(address)) << 16) | u64::from(u16::try_from(local).ok()?))
    } else if let Ok(asn) = admin.parse::<u16>() {
        (0x00, (u64::from(asn) << 32) | u64::from(local))
    } else {
        let asn: u32 = admin.parse().ok()?;
        (0x02, (u64::from(asn) << 16) | u64::from(u16::try_from(local).ok()?))
    };
    Some(Community::Extended((kind_byte << 56) | (subtype << 48) | body))
}

fn parse(text: &str) -> Option<Community> {
    let text = text.trim();
    if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
        return Some(Community::Standard(*value));
    }
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [kind @ ("rt" | "soo" | "bandwidth"), _, _] => extended(kind, text.split_once(':')?.1),
        [a, b] => {
            let (a, b): (u16, u16) = (a.parse().ok()?, b.parse().ok()?);
            Some(Community::Standard((u32::from(a) << 16) | u32::from(b)))
        }
        [a, b, c] => Some(Community::Large(a.parse().ok()?, b.parse().ok()?, c.parse().ok()?)),
        _ => None,
    }
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| CommunityError { text: text.to_owned() })
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(raw) => write!(f, "{}:{}", raw >> 16, raw & 0xFFFF),
            Self::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
            Self::Extended(raw) => {
                let kind = match (raw >> 48) & 0xFF {
                    0x02 => "rt",
                    0x03 => "soo",
                    _ => return write!(f, "0x{raw:016x}"),
                };
                match raw >> 56 {
                    0x00 => write!(f, "{kind}:{}:{}", (raw >> 32) & 0xFFFF, raw & 0xFFFF_FFFF),
                    0x01 => {
                        let address = Ipv4Addr::from(((raw >> 16) & 0xFFFF_FFFF) as u32);
                        write!(f, "{kind}:{address}:{}", raw & 0xFFFF)
                    }
                    0x02 => write!(f, "{kind}:{}:{}", (raw >> 16) & 0xFFFF_FFFF, raw & 0xFFFF),
                    _ => write!(f, "0x{raw:016x}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_and_shows_itself() {
        for (text, want) in [
            ("65535:0", Community::Standard(GRACEFUL_SHUTDOWN)),
            ("65001:100", Community::Standard((65001 << 16) | 100)),
            ("4200000001:7:8", Community::Large(4_200_000_001, 7, 8)),
            ("rt:65001:100", Community::Extended(0x0002_FDE9_0000_0064)),
            ("rt:10.0.0.1:5", Community::Extended(0x0102_0A00_0001_0005)),
            ("soo:4200000001:9", Community::Extended(0x0203_FA56_EA01_0009)),
        ] {
            assert_eq!(text.parse::<Community>(), Ok(want), "{text}");
            assert_eq!(want.to_string(), text);
        }
        assert_eq!("no-export".parse(), Ok(Community::Standard(0xFFFF_FF01)));
        assert_eq!("bandwidth:65001:125000000".parse(), Ok(Community::Extended(0x4004_FDE9_4CEE_6B28)));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in [
            "",
            "1",
            "65536:0",
            "1:2:3:4",
            "rt:1",
            "rt:1:x",
            "a:b",
            "bandwidth:1:nan",
            "1:-2",
            "rt:70000:70000",
        ] {
            let error = text.parse::<Community>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
