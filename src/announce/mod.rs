//! Whatever can announce prefixes: the trait, its words, and the announcers behind it.
//!
//! Owns nothing but the vocabulary. Never decides whether to announce: the caller hands over the whole wanted set
//! each time, on every change and periodically, and an announcer makes the world equal to it.
//!
//! ```text
//!  anycast (1x) -- set(desired) --> dyn Announcer --+--> speaker: our own BGP sessions
//!                                                   +--> frr: one serial batched vtysh worker
//!                                                   +--> bird: prefix file, then birdc configure
//! ```
//!
//! To add an announcer: a file here that implements [`Announcer`], a line in this module, a contract test.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use crate::model::FailureKind;

pub mod bird;
pub mod frr;
pub mod speaker;

/// Whatever can announce prefixes. Level-triggered: the whole wanted set each time.
pub trait Announcer: Send {
    /// The name shown in logs, metrics and status.
    fn name(&self) -> &str;
    /// Makes the announced set equal to `desired`, idempotent; returns what changed. Err = nothing is known to have
    /// changed; the caller retries.
    fn set<'a>(
        &'a mut self,
        desired: &'a BTreeMap<PrefixKey, RouteAttributes>,
    ) -> Pin<Box<dyn Future<Output = Result<Changes, AnnounceError>> + Send + 'a>>;
    /// Reads back what is announced now.
    fn current<'a>(
        &'a mut self,
    ) -> Pin<Box<dyn Future<Output = Result<BTreeSet<PrefixKey>, AnnounceError>> + Send + 'a>>;
    /// Withdraws per shutdown rules and ends (bounded by limit).
    fn shutdown<'a>(&'a mut self, how: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// A prefix and the routing table that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixKey {
    /// The prefix, host bits zero.
    pub prefix: ipnet::IpNet,
    /// VRF; `None` = the default table.
    pub vrf: Option<String>,
}

/// What is said about a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RouteAttributes {
    /// Next hop; `None` = the session's local address.
    pub next_hop: Option<IpAddr>,
    /// MULTI_EXIT_DISC (RFC 4271 §5.1.4).
    pub med: Option<u32>,
    /// LOCAL_PREF, sent to iBGP neighbours only; `None` = 100.
    pub local_pref: Option<u32>,
    /// Communities: standard `a:b`, large `a:b:c`, extended `rt:..`.
    pub communities: Vec<String>,
    /// How often the own AS is put in front of the path, beyond the once that eBGP requires.
    pub as_path_prepend: u8,
    /// Whether the route carries GRACEFUL_SHUTDOWN (65535:0, RFC 8326).
    pub graceful_shutdown: bool,
}

/// How an announcer ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Everything is withdrawn before the end.
    Withdraw {
        /// How long the routes stay with GRACEFUL_SHUTDOWN before they are withdrawn; 0 = not at all.
        drain_ms: u64,
        /// Shown to neighbours (RFC 9003).
        reason: String,
    },
    /// Routes stay: a restart in place.
    KeepRoutes,
}

/// What one call changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Changes {
    /// Announced anew, or announced again with other attributes.
    pub announced: Vec<PrefixKey>,
    /// No longer announced.
    pub withdrawn: Vec<PrefixKey>,
}

/// An announcer could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AnnounceError {
    /// What was tried on what, and what came back.
    pub message: String,
    /// How the failure should be taken.
    pub kind: FailureKind,
}
