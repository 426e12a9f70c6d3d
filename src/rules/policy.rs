//! The settings that decisions depend on, checked and typed; no names of objects, no addresses of servers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Side, SiteName};

/// How far the agent may act alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Automation {
    /// Only people start transitions.
    Off,
    /// Never acts alone; says what it would do and has the plan ready.
    Advise,
    /// Acts on the agreement of independent observers.
    Witnessed,
    /// The active site stops serving when it has lost peer and witness for its lease; the passive one takes over
    /// after lease and grace.
    SelfFencing,
}

impl Automation {
    /// Whether the agent may begin a transition by itself.
    pub fn acts_alone(self) -> bool {
        match self {
            Self::Off | Self::Advise => false,
            Self::Witnessed | Self::SelfFencing => true,
        }
    }
}

/// Times and limits of the guards.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SafetyPolicy {
    /// A witness is configured.
    pub witness: bool,
    /// How long a site may serve after the last proof that peer or witness knows it to live, in milliseconds.
    pub lease_ms: u64,
    /// What the other site waits beyond the lease, in milliseconds; covers the time that fencing takes.
    pub grace_ms: u64,
    /// A reading older than this is stale, in milliseconds.
    pub stale_ms: u64,
    /// Most bytes that the standby may be behind before a planned move; `None` = no limit.
    pub max_lag_bytes: Option<u64>,
    /// Longest time that the standby may be behind before a planned move, in milliseconds; `None` = no limit.
    pub max_lag_ms: Option<u64>,
    /// How long neither site may take writes before people are told, in milliseconds.
    pub both_demoted_ms: u64,
    /// A site that was out starts fenced until it knows the peer's generation.
    pub boot_fence: bool,
    /// How long a restarted agent may look for peer or witness before its site counts as cut off, in milliseconds.
    pub boot_grace_ms: u64,
}

impl Default for SafetyPolicy {
    fn default() -> Self {
        Self {
            witness: false,
            lease_ms: 15_000,
            grace_ms: 30_000,
            stale_ms: 30_000,
            max_lag_bytes: Some(16 * 1024 * 1024),
            max_lag_ms: None,
            both_demoted_ms: 300_000,
            boot_fence: false,
            boot_grace_ms: 5_000,
        }
    }
}

/// What must be known before data is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DestructionGate {
    /// The peer's consent and the peer seen as a writable primary at or past our last position.
    Strict,
    /// The peer's consent alone (a predecessor peer, or a Patroni that cannot report positions).
    Consent,
}

/// Retry rules of the deployment pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PipelinePolicy {
    /// Pause before the next try, in milliseconds.
    pub retry_interval_ms: u64,
    /// A run older than this is cancelled, in milliseconds.
    pub attempt_timeout_ms: u64,
    /// Retries after the first try; 0 = none.
    pub max_retries: u32,
    /// Time for all tries together, counted from the first, in milliseconds.
    pub total_cap_ms: u64,
}

/// How DNS answers are judged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DnsPolicy {
    /// Addresses that mean the active site.
    pub active: BTreeSet<IpAddr>,
    /// Addresses that mean the passive site.
    pub passive: BTreeSet<IpAddr>,
    /// Resolvers that must agree.
    pub quorum: usize,
    /// Agreeing samples before anything follows.
    pub agree_samples: u32,
    /// Time that the agreeing samples must span, in milliseconds.
    pub agree_ms: u64,
}

/// Everything that the engine is told at start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// This site.
    pub site: SiteName,
    /// Its side.
    pub side: Side,
    /// Random name of this process; part of every nonce.
    pub instance: String,
    /// How far automation goes.
    pub automation: Automation,
    /// How DNS answers are judged.
    pub dns: DnsPolicy,
    /// What must be known before data is destroyed.
    pub gate: DestructionGate,
    /// Host that the local standby follows, where known (`PATRONI_PEER_HOST`).
    pub database_peer: Option<String>,
    /// Retry rules of the pipeline; `None` = no pipeline, the application is scaled directly.
    pub pipeline: Option<PipelinePolicy>,
    /// `KUBE_NAMESPACE`, the release that untracked runs must name.
    pub release: String,
    /// A maintenance portal is configured.
    pub portal: bool,
    /// Routes are steered by this agent.
    pub routes: bool,
    /// `PROMOTE_FIRST`.
    pub promote_first: bool,
    /// `FENCE_OLD_PRIMARY`.
    pub fence_old_primary: bool,
    /// Replicas of the health deployment where the site is offered.
    pub health_replicas: u32,
    /// Members of the database.
    pub database_replicas: u32,
    /// Replicas of the application where it runs and is scaled directly.
    pub application_replicas: u32,
    /// How long a consent request may wait, in milliseconds.
    pub consent_ms: u64,
    /// Facts about the peer or the database older than this are unknown, in milliseconds.
    pub fresh_ms: u64,
    /// Least time between two attempts of automation to begin a transition, in milliseconds.
    pub automation_pause_ms: u64,
    /// Times and limits of the guards.
    pub safety: SafetyPolicy,
}

impl Policy {
    /// How long a lost peer that fences itself may still serve, with a little to spare; 0 = it does not.
    pub fn peer_lease_ms(&self) -> u64 {
        match self.automation {
            Automation::SelfFencing => self.safety.lease_ms + self.safety.grace_ms + 15_000,
            Automation::Off | Automation::Advise | Automation::Witnessed => 0,
        }
    }
}
