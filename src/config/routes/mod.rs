//! Settings of route steering, under the names that the predecessor had; ours are beside them.
//!
//! Owns names, defaults and validation. Contacts nothing; a folder for the structured log is made, as before. Read by
//! the task `route_watch`.

pub mod clouds;
pub mod decision;
pub mod events;

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Reader;
use crate::model::Side;
use crate::rules::route_health::RoutePolicy;
pub use clouds::{CloudflareRoutes, GcpPlaces, RouterPlace};
pub use events::EventSettings;

/// Prefix that this region's router announces on a normal day.
pub const PRIMARY_PREFIX: &str = "PRIMARY_PREFIX";
/// The other region's prefix, announced here when that region cannot.
pub const SECONDARY_PREFIX: &str = "SECONDARY_PREFIX";
/// An address; checked and not used.
pub const PRIMARY_INTERNAL_IP: &str = "PRIMARY_INTERNAL_IP";
/// An address; checked and not used.
pub const SECONDARY_INTERNAL_IP: &str = "SECONDARY_INTERNAL_IP";
/// Seconds between two cycles, 1 to 3600 (default 60).
pub const CHECK_INTERVAL_SECONDS: &str = "CHECK_INTERVAL_SECONDS";
/// Seconds that a cycle's questions may take together; what is not answered then is unknown (default: the interval, at least
/// `GCP_BACKEND_HEALTH_TIMEOUT`).
pub const CYCLE_DEADLINE_SECONDS: &str = "CYCLE_DEADLINE_SECONDS";
/// Questions about backends at the same time, 1 to 64 (default 8).
pub const PARALLEL_HEALTH_CHECKS: &str = "PARALLEL_HEALTH_CHECKS";
/// Retries of a question about backends, 1 to 10 (default 5).
pub const MAX_RETRIES_HEALTH_CHECK: &str = "MAX_RETRIES_HEALTH_CHECK";
/// Retries of a question about BGP sessions, 1 to 10 (default 4).
pub const MAX_RETRIES_BGP_CHECK: &str = "MAX_RETRIES_BGP_CHECK";
/// Retries of a router's change, 1 to 10 (default 2).
pub const MAX_RETRIES_BGP_UPDATE: &str = "MAX_RETRIES_BGP_UPDATE";
/// Retries of a call to Cloudflare, 1 to 10 (default 3).
pub const MAX_RETRIES_CLOUDFLARE: &str = "MAX_RETRIES_CLOUDFLARE";
/// Checked for old configurations and not used.
pub const MAX_RETRIES: &str = "MAX_RETRIES";
/// First pause between tries in seconds, 0.1 to 60 (default 1); it doubles, with full jitter.
pub const INITIAL_BACKOFF_SECONDS: &str = "INITIAL_BACKOFF_SECONDS";
/// Longest pause between tries in seconds, 1 to 600 (default 60).
pub const MAX_BACKOFF_SECONDS: &str = "MAX_BACKOFF_SECONDS";
/// Failures one after the other that open the circuit breaker of a target, 1 to 20 (default 5).
pub const CIRCUIT_BREAKER_THRESHOLD: &str = "CIRCUIT_BREAKER_THRESHOLD";
/// Seconds before an open breaker lets one call through, 30 to 3600 (default 300).
pub const CIRCUIT_BREAKER_TIMEOUT_SECONDS: &str = "CIRCUIT_BREAKER_TIMEOUT_SECONDS";
/// File that keeps the decision over a restart; not set = a start waits until its windows are full.
pub const STATE_FILE: &str = "STATE_FILE";

/// How calls are repeated.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    /// Retries after the first try, by kind of call.
    pub health: u32,
    /// Of questions about sessions.
    pub bgp: u32,
    /// Of changes of the router.
    pub update: u32,
    /// Of calls to Cloudflare.
    pub cloudflare: u32,
    /// First pause.
    pub initial: Duration,
    /// Longest pause.
    pub max: Duration,
    /// Failures that open a breaker.
    pub breaker_threshold: u32,
    /// Time that a breaker stays open.
    pub breaker_timeout: Duration,
}

/// The section.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteSettings {
    /// What the decision is told.
    pub policy: RoutePolicy,
    /// The own prefix.
    pub primary: IpNet,
    /// The other region's prefix.
    pub secondary: IpNet,
    /// Google.
    pub gcp: GcpPlaces,
    /// Cloudflare.
    pub cloudflare: CloudflareRoutes,
    /// Time between two cycles.
    pub interval: Duration,
    /// Time for a cycle's questions.
    pub deadline: Duration,
    /// Questions at the same time.
    pub parallel: usize,
    /// Repetition.
    pub retries: Retries,
    /// Events and their files.
    pub events: EventSettings,
    /// Where the decision is kept.
    pub state_file: Option<PathBuf>,
    /// Sentences for the log: what works and is dangerous.
    pub warnings: Vec<String>,
}

/// Reads the section. `side` is where this site stands in the pair; only pins depend on it.
pub fn read(reader: &mut Reader<'_>, side: Side) -> RouteSettings {
    let mut warnings = Vec::new();
    let (primary, secondary) = prefixes(reader, &mut warnings);
    for name in [PRIMARY_INTERNAL_IP, SECONDARY_INTERNAL_IP] {
        reader.parsed::<std::net::IpAddr>(name, "an IP address");
    }
    let gcp = clouds::gcp(reader, &mut warnings);
    let cloudflare = clouds::cloudflare(reader, &mut warnings);
    let interval = Duration::from_secs(reader.integer(CHECK_INTERVAL_SECONDS, 60, 1, 3600));
    let usual = interval.max(gcp.health_timeout);
    let usual_ms = u64::try_from(usual.as_millis()).unwrap_or(u64::MAX);
    let deadline = Duration::from_millis(reader.seconds(CYCLE_DEADLINE_SECONDS, usual_ms, 1.0, 3600.0));
    let parallel = reader.integer(PARALLEL_HEALTH_CHECKS, 8, 1, 64) as usize;
    let retries = retries(reader);
    let mut policy = decision::read(reader, side);
    // Cycles that take longer than the interval come at their own pace, and samples are as old as that.
    let pace = interval.max(deadline);
    policy.interval_ms = u64::try_from(pace.as_millis()).unwrap_or(u64::MAX);
    if policy.passive {
        warnings.push(format!("{} is on: routes are watched and never changed", decision::RUN_PASSIVE));
    }
    let events = events::read(reader);
    warn_of_inline_comments(reader, &mut warnings);
    RouteSettings {
        policy,
        primary,
        secondary,
        gcp,
        cloudflare,
        interval,
        deadline,
        parallel,
        retries,
        events,
        state_file: reader.text(STATE_FILE).map(PathBuf::from),
        warnings,
    }
}

fn prefixes(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> (IpNet, IpNet) {
    let primary = prefix(reader, PRIMARY_PREFIX, warnings);
    let secondary = prefix(reader, SECONDARY_PREFIX, warnings);
    if let (Some(primary), Some(secondary)) = (primary, secondary) {
        if primary == secondary {
            let want = format!("another prefix than {PRIMARY_PREFIX}");
            reader.problem(SECONDARY_PREFIX, Some(&secondary.to_string()), want);
        } else if primary.contains(&secondary) || secondary.contains(&primary) {
            warnings.push(format!(
                "{PRIMARY_PREFIX}={primary} and {SECONDARY_PREFIX}={secondary} overlap: the longer one wins everywhere"
            ));
        }
    }
    let none = IpNet::from(ipnet::Ipv4Net::default());
    (primary.unwrap_or(none), secondary.unwrap_or(none))
}

/// A network; host bits are dropped, since the API stores it so and comparisons would never match.
fn prefix(reader: &mut Reader<'_>, name: &str, warnings: &mut Vec<String>) -> Option<IpNet> {
    let want = "a network such as 192.0.2.0/24";
    let text = reader.required(name, want);
    if text.is_empty() {
        return None;
    }
    let host = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    match text.parse::<IpNet>().ok().or_else(host) {
        Some(network) => {
            let canonical = network.trunc();
            if canonical.to_string() != text {
                warnings.push(format!("{name}={text} is taken as {canonical}"));
            }
            Some(canonical)
        }
        None => {
            reader.problem(name, Some(&text), want);
            None
        }
    }
}

fn retries(reader: &mut Reader<'_>) -> Retries {
    let times = |reader: &mut Reader<'_>, name, default| reader.integer(name, default, 1, 10) as u32;
    times(reader, MAX_RETRIES, 3);
    let initial_ms = reader.seconds(INITIAL_BACKOFF_SECONDS, 1_000, 0.1, 60.0);
    let max_ms = reader.seconds(MAX_BACKOFF_SECONDS, 60_000, 1.0, 600.0);
    if max_ms < initial_ms {
        let want = format!("not less than {INITIAL_BACKOFF_SECONDS} ({} s)", initial_ms as f64 / 1000.0);
        reader.problem(MAX_BACKOFF_SECONDS, Some(&(max_ms as f64 / 1000.0).to_string()), want);
    }
    Retries {
        health: times(reader, MAX_RETRIES_HEALTH_CHECK, 5),
        bgp: times(reader, MAX_RETRIES_BGP_CHECK, 4),
        update: times(reader, MAX_RETRIES_BGP_UPDATE, 2),
        cloudflare: times(reader, MAX_RETRIES_CLOUDFLARE, 3),
        initial: Duration::from_millis(initial_ms),
        max: Duration::from_millis(max_ms),
        breaker_threshold: reader.integer(CIRCUIT_BREAKER_THRESHOLD, 5, 1, 20) as u32,
        breaker_timeout: Duration::from_secs(reader.integer(CIRCUIT_BREAKER_TIMEOUT_SECONDS, 300, 30, 3600)),
    }
}

/// systemd hands an inline comment over as part of the value; such a filter silently matches nothing.
fn warn_of_inline_comments(reader: &Reader<'_>, warnings: &mut Vec<String>) {
    let texts = [clouds::DESCRIPTION_SUBSTRING, clouds::GCP_PROJECT, clouds::BACKEND_SERVICE_FILTER];
    for name in texts {
        if reader.text(name).is_some_and(|text| text.contains(" #")) {
            warnings.push(format!("{name} contains \" #\": systemd does not strip inline comments"));
        }
    }
}
