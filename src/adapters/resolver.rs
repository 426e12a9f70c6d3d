//! Asks several resolvers for the GSLB name, each on its own, and says what each answered.
//!
//! Owns the look-ups and the own-network self-test. Never judges: agreement and meaning are `rules::dns`. Nothing is
//! cached, no hosts file is read, no search list is tried, so each round is what the resolvers say now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::{join, join_all};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use reqwest::Client;
use serde_json::Value;

use super::http_client::{self, HttpError};
use crate::config::dns::{DnsFamily, DnsSettings};
use crate::model::{DnsSample, ResolverAnswer};

/// Name of the look-up service among the resolvers of a sample.
pub const LOOKUP_SERVICE: &str = "lookup-service";

/// Why the resolvers could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// A name that DNS cannot hold.
    #[error("the name {name:?} cannot be looked up: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The system's resolvers cannot be read.
    #[error("resolvers of the system (/etc/resolv.conf): {0}")]
    System(String),
    /// A resolver's client could not be made.
    #[error("client of resolver {address}: {reason}")]
    Client {
        /// Its address.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The look-up service's client could not be made.
    #[error("look-up service: {0}")]
    Service(HttpError),
}

/// All resolvers that are asked in a round.
#[derive(Clone)]
pub struct Resolvers {
    servers: Vec<(String, TokioResolver)>,
    service: Option<(Client, String)>,
    name: Name,
    self_test: Option<Name>,
    family: DnsFamily,
    timeout: Duration,
    poll: Duration,
    quorum: usize,
}

impl Resolvers {
    /// Sets up one client per resolver. Contacts nobody.
    pub fn new(settings: &DnsSettings) -> Result<Self, ResolverError> {
        let timeout = Duration::from_millis(settings.timeout_ms);
        let addresses = match (&settings.resolvers, &settings.service_url) {
            (Some(list), _) => list.clone(),
            (None, Some(_)) => Vec::new(),
            (None, None) => system_resolvers()?,
        };
        let servers = addresses
            .into_iter()
            .map(|address| Ok((address.to_string(), server(address, timeout)?)))
            .collect::<Result<Vec<_>, ResolverError>>()?;
        let service = match &settings.service_url {
            Some(url) => {
                Some((http_client::client(url, timeout).map_err(ResolverError::Service)?, url.clone()))
            }
            None => None,
        };
        Ok(Self {
            servers,
            service,
            name: absolute(&settings.domain)?,
            self_test: settings.self_test.as_deref().map(absolute).transpose()?,
            family: settings.family,
            timeout,
            poll: Duration::from_millis(settings.poll_ms),
            quorum: settings.quorum,
        })
    }

    /// Time between rounds.
    pub fn poll_interval(&self) -> Duration {
        self.poll
    }

    /// Answers that must agree; 0 = more than half.
    pub fn quorum(&self) -> usize {
        self.quorum
    }

    /// How many resolvers are asked.
    pub fn count(&self) -> usize {
        self.servers.len() + usize::from(self.service.is_some())
    }

    /// One round: every resolver is asked at the same time, each within its time-out. Never fails: what went wrong is
    /// in the answers. The self-test is looked up only where some resolver gave no address.
    pub async fn look_up(&self) -> DnsSample {
        let (mut answers, service) = join(self.ask_all(&self.name), self.ask_service()).await;
        answers.extend(service.map(|answer| (LOOKUP_SERVICE.to_owned(), answer)));
        let odd = answers.values().any(|answer| !matches!(answer, ResolverAnswer::Addresses(_)));
        let self_test = match &self.self_test {
            Some(name) if odd => Some(self.passes_self_test(name).await),
            Some(_) => Some(true),
            None => None,
        };
        DnsSample { answers, self_test }
    }

    /// Whether more than half of the resolvers can look up the self-test name.
    async fn passes_self_test(&self, name: &Name) -> bool {
        let answers = self.ask_all(name).await;
        let good = answers.values().filter(|answer| matches!(answer, ResolverAnswer::Addresses(_))).count();
        good > answers.len() / 2
    }

    async fn ask_all(&self, name: &Name) -> BTreeMap<String, ResolverAnswer> {
        let asked = self.servers.iter().map(|(label, resolver)| async move {
            (label.clone(), ask(resolver, name, self.family, self.timeout).await)
        });
        join_all(asked).await.into_iter().collect()
    }

    async fn ask_service(&self) -> Option<ResolverAnswer> {
        let (client, url) = self.service.as_ref()?;
        let answer = http_client::call(client.get(url).header("Accept", "application/json"), "GET").await;
        Some(match answer.and_then(http_client::Answer::success).and_then(|answer| answer.json()) {
            Ok(json) => from_getaddrinfo(&json, self.family),
            Err(error) => ResolverAnswer::Unknown(error.to_string()),
        })
    }
}

/// A name as written in DNS, so that no search list is tried.
fn absolute(name: &str) -> Result<Name, ResolverError> {
    let dotted = format!("{}.", name.trim_end_matches('.'));
    match Name::from_str(&dotted) {
        Ok(parsed) if !parsed.is_root() => Ok(parsed),
        Ok(_) => Err(ResolverError::Name { name: name.to_owned(), reason: "it is empty".to_owned() }),
        Err(error) => Err(ResolverError::Name { name: name.to_owned(), reason: error.to_string() }),
    }
}

fn system_resolvers() -> Result<Vec<SocketAddr>, ResolverError> {
    let (config, _) =
        system_conf::read_system_conf().map_err(|error| ResolverError::System(error.to_string()))?;
    let mut found = Vec::new();
    for server in config.name_servers() {
        let address = SocketAddr::new(server.ip, 53);
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}

fn server(address: SocketAddr, timeout: Duration) -> Result<TokioResolver, ResolverError> {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    udp.port = address.port();
    tcp.port = address.port();
    let name_server = NameServerConfig::new(address.ip(), true, vec![udp, tcp]);
    let config = ResolverConfig::from_name_servers(vec![name_server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options(timeout);
    builder.build().map_err(|error| ResolverError::Client { address, reason: error.to_string() })
}

fn options(timeout: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    // Two tries within the time-out: one lost datagram is not worth an Unknown.
    options.timeout = timeout / 2;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.try_tcp_on_error = false;
    options
}

/// What one resolver says. With both families, the answer is known only where both are.
async fn ask(resolver: &TokioResolver, name: &Name, family: DnsFamily, timeout: Duration) -> ResolverAnswer {
    let look_up = async |kind| match tokio::time::timeout(timeout, resolver.lookup(name.clone(), kind)).await
    {
        Ok(Ok(lookup)) => from_records(lookup.answers().iter().map(|record| &record.data)),
        Ok(Err(error)) => from_error(&error),
        Err(_) => ResolverAnswer::Unknown("timed out".to_owned()),
    };
    match family {
        DnsFamily::Ipv4 => look_up(RecordType::A).await,
        DnsFamily::Ipv6 => look_up(RecordType::AAAA).await,
        DnsFamily::Both => {
            let (four, six) = join(look_up(RecordType::A), look_up(RecordType::AAAA)).await;
            both(four, six)
        }
    }
}

fn from_records<'a>(records: impl Iterator<Item = &'a RData>) -> ResolverAnswer {
    let addresses: BTreeSet<IpAddr> = records.filter_map(RData::ip_addr).collect();
    if addresses.is_empty() { ResolverAnswer::NoAddress } else { ResolverAnswer::Addresses(addresses) }
}

/// "No such name" and "no such record" are answers; everything else is not. A referral is a resolver that does not
/// resolve, so it is not an answer either.
fn from_error(error: &NetError) -> ResolverAnswer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => ResolverAnswer::NoAddress,
            ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                ResolverAnswer::Unknown("a referral, no answer".to_owned())
            }
            ResponseCode::NoError => ResolverAnswer::NoAddress,
            other => ResolverAnswer::Unknown(format!("response code {other}")),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            ResolverAnswer::Unknown(format!("response code {code}"))
        }
        NetError::Timeout => ResolverAnswer::Unknown("timed out".to_owned()),
        other => ResolverAnswer::Unknown(other.to_string()),
    }
}

fn both(four: ResolverAnswer, six: ResolverAnswer) -> ResolverAnswer {
    use ResolverAnswer::{Addresses, NoAddress, Unknown};
    match (four, six) {
        (Unknown(why), _) => Unknown(format!("A: {why}")),
        (_, Unknown(why)) => Unknown(format!("AAAA: {why}")),
        (Addresses(four), Addresses(six)) => Addresses(four.into_iter().chain(six).collect()),
        (Addresses(found), NoAddress) | (NoAddress, Addresses(found)) => Addresses(found),
        (NoAddress, NoAddress) => NoAddress,
    }
}

/// The address at `[4][0]` of every entry of a list as `getaddrinfo` gives it.
///
/// An empty list is what the predecessor calls an error, so it is unknown: nothing moves on it. One malformed entry
/// makes the whole list unknown, since half an answer would look like a changed one.
fn from_getaddrinfo(json: &Value, family: DnsFamily) -> ResolverAnswer {
    let Some(entries) = json.as_array() else {
        return ResolverAnswer::Unknown("not a list".to_owned());
    };
    if entries.is_empty() {
        return ResolverAnswer::Unknown("empty list".to_owned());
    }
    let mut addresses = BTreeSet::new();
    for entry in entries {
        let Some(ip) = entry.pointer("/4/0").and_then(Value::as_str).and_then(|ip| ip.parse::<IpAddr>().ok())
        else {
            return ResolverAnswer::Unknown("an entry without an address at [4][0]".to_owned());
        };
        addresses.insert(ip);
    }
    addresses.retain(|ip| match family {
        DnsFamily::Ipv4 => ip.is_ipv4(),
        DnsFamily::Ipv6 => ip.is_ipv6(),
        DnsFamily::Both => true,
    });
    if addresses.is_empty() { ResolverAnswer::NoAddress } else { ResolverAnswer::Addresses(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_getaddrinfo_list_gives_all_its_addresses_or_none() {
        let entry = |ip: &str| json!([2, 1, 6, "", [ip, 0]]);
        let parse = |json: Value| from_getaddrinfo(&json, DnsFamily::Ipv4);
        let two = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!(
            parse(json!([entry("192.0.2.2"), entry("192.0.2.1"), entry("192.0.2.1"), entry("2001:db8::1")])),
            ResolverAnswer::Addresses(BTreeSet::from(two))
        );
        assert_eq!(parse(json!([entry("2001:db8::1")])), ResolverAnswer::NoAddress);
        for bad in [
            json!([]),
            json!({}),
            json!(null),
            json!([[]]),
            json!([entry("x")]),
            json!([entry("192.0.2.1"), 3]),
        ] {
            assert!(matches!(parse(bad.clone()), ResolverAnswer::Unknown(_)), "{bad}");
        }
    }

    #[test]
    fn half_an_answer_is_unknown() {
        let found = ResolverAnswer::Addresses(BTreeSet::from(["192.0.2.1".parse().unwrap()]));
        let unknown = || ResolverAnswer::Unknown("timed out".to_owned());
        assert_eq!(both(found.clone(), ResolverAnswer::NoAddress), found);
        assert_eq!(both(ResolverAnswer::NoAddress, ResolverAnswer::NoAddress), ResolverAnswer::NoAddress);
        assert!(matches!(both(found.clone(), unknown()), ResolverAnswer::Unknown(_)));
        assert!(matches!(both(unknown(), found), ResolverAnswer::Unknown(_)));
    }

    #[test]
    fn a_name_is_always_absolute() {
        assert_eq!(absolute("www.dr.test").unwrap().to_string(), "www.dr.test.");
        assert_eq!(absolute("www.dr.test.").unwrap().to_string(), "www.dr.test.");
        assert!(absolute("").is_err());
        assert!(absolute(&"a".repeat(64)).is_err());
    }
}
