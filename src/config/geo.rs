//! Settings of the geo load balancer: what is published where, under the names that the predecessor had.
//!
//! Owns names, defaults and validation. Contacts nothing. Read by the task `geo_sync`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Reader, Secret};
use crate::adapters::cloudflare::CloudflareSettings;
use crate::adapters::cloudflare::load_balancing::Place;
use crate::adapters::cloudflare::monitors::MonitorSpec;
use crate::rules::geo::address::{Cidr, is_host_name};
use crate::rules::geo::names::PLACES;
use crate::rules::geo::{GeoPolicy, OnEmpty, Steps};

/// Cloudflare API token (or `CF_API_TOKEN_FILE`): "Load Balancing: Monitors and Pools Write" of the account and
/// "Load Balancers Write" of the zone.
pub const API_TOKEN: &str = "CF_API_TOKEN";
/// Account identifier, 32 hexadecimal digits.
pub const ACCOUNT_ID: &str = "CF_ACCOUNT_ID";
/// Zone identifier, 32 hexadecimal digits.
pub const ZONE_ID: &str = "CF_ZONE_ID";
/// `eu`, `us_east`, `us_west` or `asia`; with coordinates set, any slug.
pub const LOCATION: &str = "GEO_LOCATION";
/// Latitude of a custom site, in degrees.
pub const LATITUDE: &str = "GEO_LATITUDE";
/// Longitude of a custom site, in degrees.
pub const LONGITUDE: &str = "GEO_LONGITUDE";
/// Name of the load balancer.
pub const LB_HOSTNAME: &str = "CF_LB_HOSTNAME";
/// Weight of an origin, 0 (drain) to 1; 1 to 100 of older configurations is divided by 100.
pub const ORIGIN_WEIGHT: &str = "CF_ORIGIN_WEIGHT";
/// Which ingresses are published.
pub const LABEL_SELECTOR: &str = "LABEL_SELECTOR";
/// Base address of the Cloudflare API.
pub const API_BASE: &str = "CF_API_BASE";
/// Whether a new load balancer is proxied by Cloudflare.
pub const PROXIED: &str = "CF_PROXIED";
/// Time to live in seconds of an unproxied load balancer.
pub const TTL: &str = "CF_TTL";
/// Steering policy of a new load balancer.
pub const STEERING_POLICY: &str = "CF_STEERING_POLICY";
/// Identifier of the pool for when all others are down.
pub const FALLBACK_POOL: &str = "CF_FALLBACK_POOL";
/// Whether weights, header, monitor, proxying and steering are set back when somebody changed them.
pub const ENFORCE: &str = "CF_ENFORCE";
/// Identifier of an existing monitor for our pools.
pub const MONITOR: &str = "CF_MONITOR";
/// Type of a monitor that is made: `https`, `http` or `tcp`; not set = none is made.
pub const MONITOR_TYPE: &str = "CF_MONITOR_TYPE";
/// Path that the monitor asks for.
pub const MONITOR_PATH: &str = "CF_MONITOR_PATH";
/// Port of the monitor; `tcp` needs one.
pub const MONITOR_PORT: &str = "CF_MONITOR_PORT";
/// Status codes that the monitor takes for health.
pub const MONITOR_EXPECTED_CODES: &str = "CF_MONITOR_EXPECTED_CODES";
/// Seconds between probes of the monitor.
pub const MONITOR_INTERVAL: &str = "CF_MONITOR_INTERVAL";
/// `Host` header towards the origins.
pub const HOST_HEADER: &str = "CF_HOST_HEADER";
/// Virtual network of the origins, which allows private addresses.
pub const VIRTUAL_NETWORK: &str = "CF_VIRTUAL_NETWORK_ID";
/// Calls of the API in five minutes; the limit of a token is 1200, shared by all clusters that use it.
pub const RATE_BUDGET: &str = "CF_RATE_BUDGET";
/// `disable`, `delete` or `keep`: what becomes of a pool without addresses.
pub const ON_EMPTY: &str = "ON_EMPTY";
/// Seconds that a pool must have been without addresses before that.
pub const EMPTY_GRACE: &str = "EMPTY_GRACE_SECONDS";
/// Seconds between two comparisons with Cloudflare, give or take a tenth.
pub const RESYNC: &str = "RESYNC_SECONDS";
/// Seconds that changes are gathered before they are published.
pub const DEBOUNCE: &str = "GEO_DEBOUNCE_SECONDS";
/// Seconds between a change and the look at what became of it (up to three times as long).
pub const VERIFY: &str = "GEO_VERIFY_SECONDS";
/// Whether changes are only computed and logged.
pub const DRY_RUN: &str = "DRY_RUN";
/// Cluster of ingresses without a cluster label.
pub const CLUSTER_NAME: &str = "CLUSTER_NAME";
/// Cluster names that may be published, separated by commas; default: all.
pub const CLUSTERS: &str = "GEO_ALLOWED_CLUSTERS";
/// Namespaces whose ingresses are published, separated by commas; default: all.
pub const NAMESPACE: &str = "NAMESPACE";
/// Address ranges that may be published, separated by commas; default: all public ones.
pub const ALLOWED_CIDRS: &str = "GEO_ALLOWED_CIDRS";
/// Whether several clusters share one pool on purpose; then origins are only added.
pub const SHARED_POOL: &str = "SHARED_POOL";
/// Who writes our pools; default: the identifier of the namespace `kube-system`, which stays for a cluster's life.
pub const OWNER: &str = "GEO_OWNER";
/// The section.
#[derive(Debug, Clone, PartialEq)]
pub struct GeoSettings {
    /// What the core is told; `owner` is empty where it comes from the cluster, `monitor` where it is made.
    pub policy: GeoPolicy,
    /// Account and zone.
    pub place: Place,
    /// The API.
    pub cloudflare: CloudflareSettings,
    /// Label selector of the ingresses.
    pub selector: String,
    /// A monitor to make.
    pub monitor: Option<MonitorSpec>,
    /// Time between two comparisons.
    pub resync: Duration,
    /// Time that changes are gathered.
    pub debounce: Duration,
    /// Shortest wait before a verification; the longest is three times that.
    pub verify: Duration,
    /// Time without addresses before a pool is taken out of service.
    pub grace: Duration,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// The Lease; `None` = no election.
    pub lease: Option<super::lease::LeaseSettings>,
    /// First and longest wait of the watch, before jitter.
    pub watch_backoff: (Duration, Duration),
    /// Seed of all jitter; `None` = from the system.
    pub seed: Option<u64>,
    /// Sentences for the log: what works and is dangerous.
    pub warnings: Vec<String>,
}

/// Reads the section.
pub fn read(reader: &mut Reader<'_>) -> GeoSettings {
    let mut warnings = Vec::new();
    let token = reader.secret(API_TOKEN).filter(|token| !token.is_empty());
    if token.is_none() {
        reader.problem(API_TOKEN, None, "a Cloudflare API token");
    }
    let place = Place { account: hex32(reader, ACCOUNT_ID), zone: hex32(reader, ZONE_ID) };
    let base = reader.http_url(API_BASE).unwrap_or_else(|| "https://api.cloudflare.com/client/v4".to_owned());
    let mut cloudflare = CloudflareSettings::new(base, token.unwrap_or_default());
    cloudflare.budget = reader.integer(RATE_BUDGET, 300, 10, 1200) as u32;
    let selector = reader.text_or(LABEL_SELECTOR, "dns.external/geo-route=true");
    if !super::kube::is_selector(&selector) {
        reader.problem(LABEL_SELECTOR, Some(&selector), "a label selector such as app=web,geo=true");
    }
    let policy = policy(reader, &mut warnings);
    let monitor = monitor(reader, &policy);
    if policy.monitor.is_none() && monitor.is_none() {
        warnings.push(format!(
            "neither {MONITOR} nor {MONITOR_TYPE} is set: without a monitor no pool ever counts as down"
        ));
    }
    GeoSettings {
        place,
        cloudflare,
        selector,
        monitor,
        resync: seconds(reader, RESYNC, 300.0, 1.0, 86_400.0),
        debounce: seconds(reader, DEBOUNCE, 1.5, 0.0, 60.0),
        verify: seconds(reader, VERIFY, 1.0, 0.0, 30.0),
        grace: seconds(reader, EMPTY_GRACE, 300.0, 0.0, 86_400.0),
        dry_run: reader.flag(DRY_RUN, false),
        lease: super::lease::read_geo(reader),
        watch_backoff: (Duration::from_secs(1), Duration::from_secs(60)),
        seed: None,
        warnings,
        policy,
    }
}

fn policy(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> GeoPolicy {
    let (geo, latitude, longitude) = place(reader);
    let hostname = reader.required(LB_HOSTNAME, "the load balancer's name, such as app.example.org");
    let hostname = hostname.trim_end_matches('.').to_ascii_lowercase();
    if !hostname.is_empty() && !is_host_name(&hostname) {
        reader.problem(LB_HOSTNAME, Some(&hostname), "a fully qualified host name");
    }
    let set = |list: Option<Vec<String>>| list.map(BTreeSet::from_iter);
    GeoPolicy {
        hostname,
        geo,
        latitude,
        longitude,
        weight: weight(reader, warnings),
        owner: owner(reader),
        cluster_name: cluster_name(reader),
        namespaces: set(reader.list(NAMESPACE)),
        clusters: set(reader.list(CLUSTERS)),
        allowed: ranges(reader),
        virtual_network: plain(reader, VIRTUAL_NETWORK),
        host_header: host_header(reader),
        monitor: plain(reader, MONITOR),
        old_monitors: BTreeSet::new(),
        proxied: reader.flag(PROXIED, true),
        ttl: reader.integer(TTL, 30, 10, 86_400) as u32,
        steering: steering(reader),
        fallback_pool: plain(reader, FALLBACK_POOL),
        enforce: reader.flag(ENFORCE, false),
        on_empty: on_empty(reader),
        shared_pool: reader.flag(SHARED_POOL, false),
    }
}

fn seconds(reader: &mut Reader<'_>, name: &str, default: f64, min: f64, max: f64) -> Duration {
    Duration::from_millis(reader.seconds(name, (default * 1000.0) as u64, min, max))
}

fn hex32(reader: &mut Reader<'_>, name: &str) -> String {
    let want = "an identifier of 32 hexadecimal digits";
    let text = reader.required(name, want);
    if !text.is_empty() && (text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit())) {
        reader.problem(name, Some(&text), want);
    }
    text
}

/// An identifier that goes into bodies as it is.
fn plain(reader: &mut Reader<'_>, name: &str) -> Option<String> {
    let text = reader.text(name)?;
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
        reader.problem(name, Some(&text), "an identifier: letters, digits, - and _");
    }
    Some(text)
}

fn host_header(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.text(HOST_HEADER)?;
    if !is_host_name(&text.to_ascii_lowercase()) {
        reader.problem(HOST_HEADER, Some(&text), "a host name");
    }
    Some(text)
}

fn cluster_name(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.text(CLUSTER_NAME)?;
    if text.len() > 63 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        let want = "a label's value: letters, digits, -, _ and ., at most 63 characters";
        reader.problem(CLUSTER_NAME, Some(&text), want);
    }
    Some(text)
}

fn owner(reader: &mut Reader<'_>) -> String {
    let text = reader.text_or(OWNER, "");
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        reader.problem(OWNER, Some(&text), "a word: letters, digits, -, _ and .");
    }
    text
}

fn place(reader: &mut Reader<'_>) -> (String, Steps, Steps) {
    let custom = reader.present(LATITUDE) || reader.present(LONGITUDE);
    let geo = reader.required(LOCATION, "eu, us_east, us_west or asia");
    if custom {
        let slug = geo.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
        if !slug {
            reader.problem(LOCATION, Some(&geo), "a slug: a-z, 0-9, - and _");
        }
        return (geo, degrees(reader, LATITUDE, 90.0), degrees(reader, LONGITUDE, 180.0));
    }
    match PLACES.iter().find(|(name, ..)| *name == geo) {
        Some((_, latitude, longitude)) => (geo, *latitude, *longitude),
        None => {
            if !geo.is_empty() {
                reader.problem(LOCATION, Some(&geo), "eu, us_east, us_west or asia (exactly so)");
            }
            (geo, 0, 0)
        }
    }
}

fn degrees(reader: &mut Reader<'_>, name: &str, limit: f64) -> Steps {
    let want = format!("degrees from -{limit} to {limit}; both coordinates or none");
    match reader.parsed::<f64>(name, &want) {
        Some(value) if value.is_finite() && value.abs() <= limit => (value * 10_000.0).round() as Steps,
        Some(value) => {
            reader.problem(name, Some(&value.to_string()), want);
            0
        }
        None => {
            if reader.text(name).is_none() {
                reader.problem(name, None, want);
            }
            0
        }
    }
}

fn weight(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> Steps {
    let want = "a weight from 0 to 1 in steps of 0.01";
    match reader.parsed::<f64>(ORIGIN_WEIGHT, want) {
        Some(value) if (0.0..=1.0).contains(&value) => (value * 100.0).round() as Steps,
        Some(value) if value > 1.0 && value <= 100.0 => {
            warnings.push(format!("{ORIGIN_WEIGHT}={value} is taken as {}", value.round() / 100.0));
            value.round() as Steps
        }
        Some(value) => {
            reader.problem(ORIGIN_WEIGHT, Some(&value.to_string()), want);
            100
        }
        None => 100,
    }
}

fn ranges(reader: &mut Reader<'_>) -> Vec<Cidr> {
    let mut ranges = Vec::new();
    for text in reader.list(ALLOWED_CIDRS).unwrap_or_default() {
        match text.parse() {
            Ok(range) => ranges.push(range),
            Err(error) => reader.problem(ALLOWED_CIDRS, Some(&text), format!("ranges: {error}")),
        }
    }
    ranges
}

fn steering(reader: &mut Reader<'_>) -> String {
    let known = ["off", "geo", "random", "dynamic_latency", "proximity", "least_outstanding_requests"];
    let text = reader.text_or(STEERING_POLICY, "proximity");
    if !known.contains(&text.as_str()) {
        reader.problem(STEERING_POLICY, Some(&text), known.join(", "));
    }
    text
}

fn on_empty(reader: &mut Reader<'_>) -> OnEmpty {
    let text = reader.text_or(ON_EMPTY, "disable");
    match text.as_str() {
        "disable" => OnEmpty::Disable,
        "delete" => OnEmpty::Delete,
        "keep" => OnEmpty::Keep,
        _ => {
            reader.problem(ON_EMPTY, Some(&text), "disable, delete or keep");
            OnEmpty::Keep
        }
    }
}

fn monitor(reader: &mut Reader<'_>, policy: &GeoPolicy) -> Option<MonitorSpec> {
    let port = reader.integer(MONITOR_PORT, 0, 1, 65_535) as u16;
    let interval = reader.integer(MONITOR_INTERVAL, 60, 5, 3600);
    let kind = reader.text(MONITOR_TYPE)?;
    if !matches!(kind.as_str(), "http" | "https" | "tcp") {
        reader.problem(MONITOR_TYPE, Some(&kind), "https, http or tcp");
    }
    if kind == "tcp" && port == 0 {
        reader.problem(MONITOR_PORT, None, "the port that a tcp monitor connects to");
    }
    if policy.monitor.is_some() {
        reader.problem(MONITOR_TYPE, Some(&kind), format!("only one of {MONITOR} and {MONITOR_TYPE}"));
    }
    Some(MonitorSpec {
        kind,
        path: reader.text_or(MONITOR_PATH, "/"),
        port: (port != 0).then_some(port),
        expected_codes: reader.text_or(MONITOR_EXPECTED_CODES, "2xx"),
        interval,
        host: policy.host_header.clone().unwrap_or_else(|| policy.hostname.clone()),
        mark: format!("managed-by=switchover-agent lb={}", policy.hostname),
    })
}

impl Default for CloudflareSettings {
    fn default() -> Self {
        Self::new(String::new(), Secret::default())
    }
}
