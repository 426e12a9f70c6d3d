//! The rules of the speaker's settings that their types do not hold: bounds, and what excludes what.
//!
//! Pure. Every broken rule becomes one [`Problem`]; all are found, never just the first.

use super::{NeighbourSettings, SpeakerSettings};
use crate::bgp::Community;
use crate::config::Problem;

const ASN_WANTED: &str = "an AS number from 1 to 4294967294, neither 23456 nor 65535";

/// Whether a number may be an AS of ours or a neighbour's (RFC 7607, RFC 6793 §9, RFC 7300).
fn valid_asn(asn: u32) -> bool {
    !matches!(asn, 0 | 23456 | 65535 | u32::MAX)
}

/// Whether a text can be the name of a Linux interface or VRF, and so is safe in a command.
pub fn valid_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !matches!(name, "." | "..")
}

/// Collects the broken rules of one section.
struct Rules<'a> {
    at: String,
    problems: &'a mut Vec<Problem>,
}

impl Rules<'_> {
    fn check(&mut self, good: bool, key: &str, value: impl ToString, want: &str) {
        if !good {
            let setting = format!("{}.{key}", self.at);
            self.problems.push(Problem { setting, value: Some(value.to_string()), want: want.to_owned() });
        }
    }

    fn optional<T: ToString + Copy>(
        &mut self,
        good: impl Fn(T) -> bool,
        key: &str,
        value: Option<T>,
        want: &str,
    ) {
        if let Some(value) = value {
            self.check(good(value), key, value, want);
        }
    }
}

impl SpeakerSettings {
    /// Checks every rule that the types do not hold; `at` names the section in the problems.
    pub fn validate(&self, at: &str, problems: &mut Vec<Problem>) {
        let mut rules = Rules { at: at.to_owned(), problems };
        let id = self.router_id;
        rules.check(!id.is_unspecified(), "router_id", id, "a non-zero IPv4 address (RFC 6286)");
        rules.check(valid_asn(self.local_asn), "local_asn", self.local_asn, ASN_WANTED);
        rules.check(!self.neighbours.is_empty(), "neighbours", "[]", "at least one neighbour");
        for (index, neighbour) in self.neighbours.iter().enumerate() {
            rules.at = format!("{at}.neighbours[{index}]");
            let first = self.neighbours.iter().position(|other| other.address == neighbour.address);
            rules.check(first == Some(index), "address", neighbour.address, "an address used once");
            if let Some(source) = neighbour.local_address.or(self.local_address) {
                let fits = source.is_ipv4() == neighbour.address.is_ipv4();
                rules.check(
                    fits,
                    "local_address",
                    source,
                    "an address of the same family as the neighbour's",
                );
            }
            neighbour.session_rules(&mut rules, self.local_asn);
            neighbour.timer_rules(&mut rules);
            neighbour.path_rules(&mut rules);
            neighbour.route_rules(&mut rules, self.local_asn);
        }
    }
}

impl NeighbourSettings {
    fn session_rules(&self, rules: &mut Rules<'_>, local_asn: u32) {
        rules.check(valid_asn(self.remote_asn), "remote_asn", self.remote_asn, ASN_WANTED);
        rules.check(!self.address.is_unspecified(), "address", self.address, "the neighbour's address");
        rules.check(self.port != 0, "port", self.port, "a port from 1 to 65535");
        rules.check(!self.families.is_empty(), "families", "[]", "ipv4, ipv6 or both");
        let seconds = "1 to 4095 seconds (RFC 4724)";
        rules.optional(
            |s| (1..=4095).contains(&s),
            "graceful_restart_secs",
            self.graceful_restart_secs,
            seconds,
        );
        let external = self.role.is_none() || self.remote_asn != local_asn;
        rules.check(external, "role", format!("{:?}", self.role), "only towards eBGP neighbours (RFC 9234)");
        if let Some(bfd) = &self.bfd {
            let interval = |ms: u32| (10..=60_000).contains(&ms);
            rules.check(interval(bfd.transmit_ms), "bfd.transmit_ms", bfd.transmit_ms, "10 to 60000 ms");
            rules.check(interval(bfd.receive_ms), "bfd.receive_ms", bfd.receive_ms, "10 to 60000 ms");
            rules.check(bfd.multiplier >= 1, "bfd.multiplier", bfd.multiplier, "1 to 255");
        }
    }

    fn timer_rules(&self, rules: &mut Rules<'_>) {
        let hold = self.hold_time;
        rules.check(hold == 0 || hold >= 3, "hold_time", hold, "0, or 3 to 65535 seconds (RFC 4271 §4.2)");
        let fits = |k: u16| k >= 1 && (hold == 0 || k <= hold / 3);
        rules.optional(fits, "keepalive", self.keepalive, "1 second up to a third of hold_time");
        let longer = |s: u32| s == 0 || s > u32::from(hold);
        rules.optional(
            longer,
            "send_hold_time",
            self.send_hold_time,
            "0, or more than hold_time (RFC 9687 §4.4)",
        );
        let bounded = |ms: u64| (100..=600_000).contains(&ms);
        let limit = self.connect_timeout_ms;
        rules.check(bounded(limit), "connect_timeout_ms", limit, "100 to 600000 milliseconds");
        let (min, max) = (self.retry_min_ms, self.retry_max_ms);
        rules.check(bounded(min) && min <= max, "retry_min_ms", min, "100 milliseconds up to retry_max_ms");
        rules.check(max <= 600_000, "retry_max_ms", max, "at most 600000 milliseconds");
    }

    fn path_rules(&self, rules: &mut Rules<'_>) {
        let length = self.password.as_ref().map(|p| p.expose().len());
        rules.check(
            length.is_none_or(|n| (1..=80).contains(&n)),
            "password",
            "***",
            "1 to 80 bytes (RFC 2385)",
        );
        rules.optional(
            |h| (1..=254).contains(&h),
            "ttl_security_hops",
            self.ttl_security_hops,
            "1 to 254 hops",
        );
        let alone = self.ttl_security_hops.is_none();
        let want = "2 to 255, and not together with ttl_security_hops";
        rules.optional(|ttl: u8| ttl >= 2 && alone, "multihop_ttl", self.multihop_ttl, want);
        if let Some(name) = &self.interface {
            let want = "an interface name: 1 to 15 of a-z A-Z 0-9 . _ -";
            rules.check(valid_interface(name), "interface", name, want);
        }
    }

    fn route_rules(&self, rules: &mut Rules<'_>, local_asn: u32) {
        rules.check(self.as_path_prepend <= 32, "as_path_prepend", self.as_path_prepend, "at most 32");
        for community in &self.communities {
            let good = community.parse::<Community>().is_ok();
            rules.check(good, "communities", community, Community::WANTED);
        }
        let internal = self.remote_asn == local_asn;
        rules.optional(|_| internal, "local_pref", self.local_pref, "only towards iBGP neighbours");
    }
}

#[cfg(test)]
mod tests {
    use crate::config::bgp::{Family, SpeakerSettings};

    fn problems(text: &str) -> Vec<String> {
        let settings: SpeakerSettings = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        settings.validate("bgp", &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    const SMALL: &str = "router_id = '10.0.0.1'\nlocal_asn = 65001\n[[neighbours]]\naddress = '10.0.0.2'\nremote_asn = 65002\n";

    #[test]
    fn the_smallest_section_is_whole() {
        assert_eq!(problems(SMALL), Vec::<String>::new());
        let settings: SpeakerSettings = toml::from_str(SMALL).unwrap();
        let neighbour = &settings.neighbours[0];
        assert_eq!((neighbour.port, neighbour.hold_time, neighbour.graceful_restart_secs), (179, 30, None));
        assert_eq!(neighbour.families, [Family::Ipv4, Family::Ipv6]);
    }

    #[test]
    fn every_broken_rule_is_named_at_once_and_the_key_never_shows() {
        let text = format!(
            "{SMALL}hold_time = 2\nkeepalive = 9\nretry_min_ms = 5\npassword = ''\nttl_security_hops = 1\n\
             multihop_ttl = 5\ninterface = 'a b'\ncommunities = ['x']\nlocal_pref = 5\nas_path_prepend = 99\n\
             local_address = '2001:db8::1'\ngraceful_restart_secs = 5000\n"
        );
        let found = problems(&text);
        let keys = [
            "local_address",
            "graceful_restart_secs",
            "hold_time",
            "keepalive",
            "retry_min_ms",
            "password",
            "multihop_ttl",
            "interface",
            "as_path_prepend",
            "communities",
            "local_pref",
        ];
        let want: Vec<String> = keys.iter().map(|key| format!("bgp.neighbours[0].{key}=")).collect();
        assert_eq!(found.len(), want.len(), "{found:#?}");
        for (problem, start) in found.iter().zip(want) {
            assert!(problem.starts_with(&start), "{problem} does not start with {start}");
        }
        let keyed: SpeakerSettings = toml::from_str(&format!("{SMALL}password = 'hunter2'\n")).unwrap();
        assert!(!format!("{keyed:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&keyed).unwrap().contains("hunter2"));
    }

    #[test]
    fn reserved_as_numbers_and_doubled_addresses_are_refused() {
        for asn in [0_u32, 23456, 65535, u32::MAX] {
            let found = problems(&SMALL.replace("65002", &asn.to_string()));
            assert!(found[0].contains("remote_asn"), "{asn}: {found:?}");
        }
        let twice = format!("{SMALL}[[neighbours]]\naddress = '10.0.0.2'\nremote_asn = 65002\n");
        assert_eq!(problems(&twice), ["bgp.neighbours[1].address=\"10.0.0.2\": an address used once"]);
        assert!(toml::from_str::<SpeakerSettings>(&format!("{SMALL}multihope_ttl = 3\n")).is_err());
    }
}
