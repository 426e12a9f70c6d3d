//! Whatever can announce prefixes: the trait, and the plain data that crosses it.
//!
//! Owns: the vocabulary between the side that decides (`rules/prefixes.rs`) and the sides that act (one file per
//! announcer). Never: decides *whether* to announce. Sits between the `anycast` task and BGP, FRRouting or BIRD.
//!
//! To add an announcer: one file here with an [`Announcer`], one variant in the announcer section of
//! `config/anycast`, one line in the contract tests.

pub mod bird;
pub mod frr;
pub mod recorder;
pub mod speaker;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use ipnet::IpNet;

use crate::model::FailureKind;

pub use recorder::Recorder;

/// Whatever can announce prefixes. Level-triggered: the whole wanted set each time.
pub trait Announcer: Send {
    /// Name in logs, metrics and the status page: `bgp`, `frr`, `bird`, `recorder`.
    fn name(&self) -> &str;

    /// Tells which prefixes are ours, wanted or not, so that what a former process left of them goes. For announcers
    /// whose routes outlive the process; the others have nothing to remember.
    fn manage(&mut self, _prefixes: &mut dyn Iterator<Item = &PrefixKey>) {}

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

/// One route: a prefix within a routing table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixKey {
    /// The network, without host bits.
    pub prefix: IpNet,
    /// Name of the VRF, `None` = the default table.
    pub vrf: Option<String>,
}

impl fmt::Display for PrefixKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.vrf {
            Some(vrf) => write!(f, "{} vrf {vrf}", self.prefix),
            None => write!(f, "{}", self.prefix),
        }
    }
}

/// What a route carries, as far as it differs from the announcer's own defaults.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RouteAttributes {
    /// NEXT_HOP; `None` = the announcer's own address.
    pub next_hop: Option<IpAddr>,
    /// MULTI_EXIT_DISC (RFC 4271 §5.1.4).
    pub med: Option<u32>,
    /// LOCAL_PREF, sent to internal neighbours only (RFC 4271 §5.1.5).
    pub local_pref: Option<u32>,
    /// Communities: standard `a:b` (RFC 1997), large `a:b:c` (RFC 8092), extended `rt:a:b` and the like (RFC 4360).
    pub communities: Vec<String>,
    /// How many times the own AS number is put in front, beyond the one that belongs there.
    pub as_path_prepend: u8,
    /// Whether the route carries GRACEFUL_SHUTDOWN, 65535:0 (RFC 8326).
    pub graceful_shutdown: bool,
}

/// What a call of [`Announcer::set`] changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Changes {
    /// Not announced before, announced now.
    pub announced: BTreeSet<PrefixKey>,
    /// Announced before and now, with other attributes.
    pub updated: BTreeSet<PrefixKey>,
    /// Announced before, not now.
    pub withdrawn: BTreeSet<PrefixKey>,
    /// Prefixes that are set as wanted and yet do not reach anybody, each with what is wrong and what would help,
    /// in one sentence (FRR: `configured, not advertised: no RIB route`).
    pub diagnoses: BTreeMap<PrefixKey, String>,
    /// Some prefixes could not be looked at yet; the caller should call again soon.
    pub unsure: bool,
}

impl Changes {
    /// Whether the announced set was already as wanted.
    pub fn is_empty(&self) -> bool {
        self.announced.is_empty() && self.updated.is_empty() && self.withdrawn.is_empty()
    }
}

/// How an announcer ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Take every route back.
    Withdraw {
        /// How long the routes first carry GRACEFUL_SHUTDOWN, in milliseconds; zero = not at all.
        drain_ms: u64,
        /// What neighbours are told (RFC 9003), at most 255 bytes.
        reason: String,
    },
    /// Leave the routes for the next process: graceful restart, or a router that keeps its configuration.
    KeepRoutes,
}

/// A call that did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{announcer}: could not {attempted}: {reason}")]
pub struct AnnounceError {
    /// Which announcer.
    pub announcer: String,
    /// What was tried, on what.
    pub attempted: String,
    /// What went wrong, in one line without secrets.
    pub reason: String,
    /// How to take it.
    pub kind: FailureKind,
}

impl AnnounceError {
    /// An error that trying again may heal.
    pub fn transient(announcer: &str, attempted: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            announcer: announcer.to_owned(),
            attempted: attempted.into(),
            reason: reason.to_string(),
            kind: FailureKind::Transient,
        }
    }

    /// An error that stays until somebody changes something.
    pub fn permanent(announcer: &str, attempted: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { kind: FailureKind::Permanent, ..Self::transient(announcer, attempted, reason) }
    }

    /// How to take it.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }
}
