//! Settings of the DNS watch: which name, whose answers, how many must agree, and which addresses mean which site.
//!
//! Never contacts a resolver. Read by `adapters::resolver` and by the rules that judge the answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::Reader;

/// The name that the global load balancer answers for. Required with `dns_watch`.
pub const GSLB_DOMAIN: &str = "GSLB_DOMAIN";
/// A service that answers a GET with a list as `getaddrinfo` gives it; asked instead of the system's resolvers, and
/// beside those of `DNS_RESOLVERS`.
pub const DNS_SERVICE_URL: &str = "DNS_SERVICE_URL";
/// Resolvers to ask, as `ip` or `ip:port`; unset = those of `/etc/resolv.conf`.
pub const DNS_RESOLVERS: &str = "DNS_RESOLVERS";
/// Which addresses are looked up: `ipv4` (default), `ipv6` or `both`.
pub const DNS_FAMILY: &str = "DNS_FAMILY";
/// Seconds one resolver may take for one look-up.
pub const DNS_TIMEOUT_SECONDS: &str = "DNS_TIMEOUT_SECONDS";
/// Seconds between rounds.
pub const DNS_POLL_SECONDS: &str = "DNS_POLL_SECONDS";
/// Resolvers that must give the same answer; unset = more than half of them.
pub const DNS_QUORUM: &str = "DNS_QUORUM";
/// Rounds in a row that must agree before an odd answer counts.
pub const DNS_AGREE_SAMPLES: &str = "DNS_AGREE_SAMPLES";
/// Seconds that an odd answer must have lasted before it counts.
pub const DNS_AGREE_SECONDS: &str = "DNS_AGREE_SECONDS";
/// A name that always has an address, looked up to tell a broken network of ours from a changed answer.
pub const DNS_SELF_TEST_NAME: &str = "DNS_SELF_TEST_NAME";
/// Addresses of the active site. Required with `dns_watch`.
pub const ACTIVE_IP: &str = "ACTIVE_IP";
/// Addresses of the passive site. Required with `dns_watch`.
pub const PASSIVE_IP: &str = "PASSIVE_IP";

/// Which addresses are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsFamily {
    /// A records.
    Ipv4,
    /// AAAA records.
    Ipv6,
    /// Both; one family that could not be looked up makes the whole answer unknown.
    Both,
}

/// Settings of the DNS watch.
#[derive(Debug, Clone)]
pub struct DnsSettings {
    /// Name to look up, without a trailing dot; empty where `dns_watch` is off.
    pub domain: String,
    /// See [`DNS_SERVICE_URL`].
    pub service_url: Option<String>,
    /// Resolvers to ask; `None` = the system's.
    pub resolvers: Option<Vec<SocketAddr>>,
    /// Records to look up.
    pub family: DnsFamily,
    /// Milliseconds for one look-up at one resolver.
    pub timeout_ms: u64,
    /// Milliseconds between rounds.
    pub poll_ms: u64,
    /// Resolvers that must agree; 0 = more than half of those asked (what `rules::dns::quorum` takes).
    pub quorum: usize,
    /// Agreeing rounds that make an odd answer count.
    pub agree_samples: u32,
    /// Milliseconds that it must have lasted beside that.
    pub agree_ms: u64,
    /// Name of the self-test.
    pub self_test: Option<String>,
    /// Addresses of the active site.
    pub active: BTreeSet<IpAddr>,
    /// Addresses of the passive site.
    pub passive: BTreeSet<IpAddr>,
}

impl DnsSettings {
    /// Whether a single resolver or service is configured, so that nobody outvotes it.
    pub fn asks_one_only(&self) -> bool {
        let service = usize::from(self.service_url.is_some());
        self.resolvers.as_ref().map_or(service, |list| list.len() + service) == 1
    }
}

/// Reads the section. `dns_watch` = the task is on, so the name and both sites' addresses are required.
pub fn read(reader: &mut Reader<'_>, dns_watch: bool) -> DnsSettings {
    let service_url = reader.http_url(DNS_SERVICE_URL);
    let resolvers = resolvers(reader);
    let self_test = reader.text(DNS_SELF_TEST_NAME).map(|name| name.trim_end_matches('.').to_owned());
    if let (Some(name), Some(_), None) = (&self_test, &service_url, &resolvers) {
        let want = format!("only with resolvers in {DNS_RESOLVERS}: {DNS_SERVICE_URL} cannot look it up");
        reader.problem(DNS_SELF_TEST_NAME, Some(name), want);
    }
    let asked = resolvers.as_ref().map(|list| list.len() + usize::from(service_url.is_some()));
    let (active, passive) = addresses(reader, dns_watch);
    DnsSettings {
        domain: domain(reader, dns_watch),
        family: family(reader),
        timeout_ms: reader.seconds(DNS_TIMEOUT_SECONDS, 2000, 0.1, 60.0),
        poll_ms: reader.seconds(DNS_POLL_SECONDS, 5000, 0.1, 3600.0),
        quorum: quorum(reader, asked.or(service_url.as_ref().map(|_| 1))),
        agree_samples: u32::try_from(reader.integer(DNS_AGREE_SAMPLES, 3, 1, 1000)).unwrap_or(3),
        agree_ms: reader.seconds(DNS_AGREE_SECONDS, 0, 0.0, 86_400.0),
        service_url,
        resolvers,
        self_test,
        active,
        passive,
    }
}

fn domain(reader: &mut Reader<'_>, dns_watch: bool) -> String {
    let want = "the name that the global load balancer answers for, needed by dns_watch";
    let text = if dns_watch { reader.required(GSLB_DOMAIN, want) } else { reader.text_or(GSLB_DOMAIN, "") };
    text.trim_end_matches('.').to_owned()
}

fn family(reader: &mut Reader<'_>) -> DnsFamily {
    match reader.text_or(DNS_FAMILY, "ipv4").to_ascii_lowercase().as_str() {
        "ipv4" => DnsFamily::Ipv4,
        "ipv6" => DnsFamily::Ipv6,
        "both" => DnsFamily::Both,
        other => {
            reader.problem(DNS_FAMILY, Some(other), "ipv4, ipv6 or both");
            DnsFamily::Ipv4
        }
    }
}

/// The quorum, checked against the number of sources where that is known before start.
fn quorum(reader: &mut Reader<'_>, asked: Option<usize>) -> usize {
    let Some(value) = reader.parsed::<usize>(DNS_QUORUM, "a number of resolvers, 1 or more") else {
        return 0;
    };
    let most = asked.unwrap_or(usize::MAX);
    if value == 0 || value > most {
        let want = match asked {
            Some(count) => format!("from 1 to the {count} that are asked"),
            None => "a number of resolvers, 1 or more".to_owned(),
        };
        reader.problem(DNS_QUORUM, Some(&value.to_string()), want);
        return 0;
    }
    value
}

fn resolvers(reader: &mut Reader<'_>) -> Option<Vec<SocketAddr>> {
    let entries = reader.list(DNS_RESOLVERS)?;
    let mut found = Vec::new();
    for entry in &entries {
        match resolver_address(entry) {
            Some(address) if found.contains(&address) => {
                reader.problem(DNS_RESOLVERS, Some(entry), "each resolver once: it has one vote");
            }
            Some(address) => found.push(address),
            None => reader.problem(
                DNS_RESOLVERS,
                Some(entry),
                "an address such as 192.0.2.53 or [2001:db8::53]:53",
            ),
        }
    }
    if entries.is_empty() {
        reader.problem(DNS_RESOLVERS, Some(","), "at least one resolver, or not set for the system's");
    }
    Some(found)
}

/// `ip`, `ip:port`, `[ip6]` or `[ip6]:port`.
fn resolver_address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, 53)),
        Err(_) => text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0),
    }
}

fn addresses(reader: &mut Reader<'_>, dns_watch: bool) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
    let active = address_list(reader, ACTIVE_IP, "active", dns_watch);
    let passive = address_list(reader, PASSIVE_IP, "passive", dns_watch);
    if let Some(shared) = active.intersection(&passive).next() {
        let want = format!("addresses that {ACTIVE_IP} does not have");
        reader.problem(PASSIVE_IP, Some(&shared.to_string()), want);
    }
    (active, passive)
}

fn address_list(reader: &mut Reader<'_>, name: &str, site: &str, dns_watch: bool) -> BTreeSet<IpAddr> {
    let Some(entries) = reader.list(name).filter(|entries| !entries.is_empty()) else {
        if dns_watch {
            reader.problem(
                name,
                None,
                format!("the address or addresses of the {site} site, needed by dns_watch"),
            );
        }
        return BTreeSet::new();
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        match entry.parse::<IpAddr>() {
            Ok(ip) => {
                found.insert(ip);
            }
            Err(_) => reader.problem(name, Some(&entry), "an IP address, or a comma list of them"),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_from(pairs: &[(&str, &str)], dns_watch: bool) -> (DnsSettings, Vec<String>) {
        let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut reader = Reader::new(&map);
        let settings = read(&mut reader, dns_watch);
        (settings, reader.into_problems().into_iter().map(|problem| problem.setting).collect())
    }

    const GOOD: [(&str, &str); 3] =
        [(GSLB_DOMAIN, "www.dr.test."), (ACTIVE_IP, "192.0.2.1, 2001:db8::1"), (PASSIVE_IP, "192.0.2.2")];

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let (settings, problems) = read_from(&GOOD, true);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(settings.domain, "www.dr.test");
        assert_eq!((settings.poll_ms, settings.timeout_ms, settings.quorum), (5000, 2000, 0));
        assert_eq!((settings.agree_samples, settings.agree_ms, settings.family), (3, 0, DnsFamily::Ipv4));
        assert_eq!((settings.active.len(), settings.passive.len()), (2, 1));
        assert!(settings.resolvers.is_none());
    }

    #[test]
    fn dns_watch_requires_the_name_and_both_sites() {
        assert_eq!(read_from(&[], false).1, Vec::<String>::new());
        assert_eq!(read_from(&[], true).1, [ACTIVE_IP, PASSIVE_IP, GSLB_DOMAIN]);
        assert_eq!(
            read_from(&[(GSLB_DOMAIN, "x"), (ACTIVE_IP, ","), (PASSIVE_IP, "192.0.2.2")], true).1,
            [ACTIVE_IP]
        );
    }

    #[test]
    fn contradictions_are_named() {
        let with = |pairs: &[(&str, &str)]| {
            let mut all = GOOD.to_vec();
            all.retain(|(name, _)| pairs.iter().all(|(other, _)| other != name));
            all.extend_from_slice(pairs);
            read_from(&all, true).1
        };
        assert_eq!(with(&[(PASSIVE_IP, "192.0.2.2,192.0.2.1")]), [PASSIVE_IP]);
        assert_eq!(with(&[(ACTIVE_IP, "gold")]), [ACTIVE_IP]);
        assert_eq!(with(&[(DNS_RESOLVERS, "192.0.2.53,192.0.2.53:53")]), [DNS_RESOLVERS]);
        assert_eq!(with(&[(DNS_RESOLVERS, "ns.example.org")]), [DNS_RESOLVERS]);
        assert_eq!(with(&[(DNS_RESOLVERS, "192.0.2.53"), (DNS_QUORUM, "2")]), [DNS_QUORUM]);
        assert_eq!(with(&[(DNS_QUORUM, "0")]), [DNS_QUORUM]);
        assert_eq!(with(&[(DNS_QUORUM, "most")]), [DNS_QUORUM]);
        assert_eq!(with(&[(DNS_FAMILY, "ipx")]), [DNS_FAMILY]);
        assert_eq!(with(&[(DNS_SERVICE_URL, "ftp://x")]), [DNS_SERVICE_URL]);
        assert_eq!(with(&[(DNS_SERVICE_URL, "http://x"), (DNS_SELF_TEST_NAME, "y")]), [DNS_SELF_TEST_NAME]);
        assert_eq!(with(&[(DNS_AGREE_SAMPLES, "0")]), [DNS_AGREE_SAMPLES]);
    }

    #[test]
    fn resolvers_are_written_as_people_write_them() {
        let (settings, problems) = read_from(
            &[(DNS_RESOLVERS, "192.0.2.53, 192.0.2.54:5353,2001:db8::53,[2001:db8::54],[2001:db8::55]:54")],
            false,
        );
        assert_eq!(problems, Vec::<String>::new());
        let shown: Vec<String> = settings.resolvers.unwrap().iter().map(ToString::to_string).collect();
        let want = [
            "192.0.2.53:53",
            "192.0.2.54:5353",
            "[2001:db8::53]:53",
            "[2001:db8::54]:53",
            "[2001:db8::55]:54",
        ];
        assert_eq!(shown, want);
    }
}
