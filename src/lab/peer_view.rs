//! What a site knows of the other one: directly where both live in one process, by HTTP where each has its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Facts about a site that the other one and the global load balancer can see.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SiteFacts {
    /// The health deployment has ready pods.
    pub health_ready: bool,
    /// A database that answers, and what it has.
    pub database: Option<SourceFacts>,
}

/// A database as a standby at the other site sees it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SourceFacts {
    /// System identifier: databases with different ones have nothing in common.
    pub system: u64,
    /// Its timeline.
    pub timeline: u32,
    /// Its position in bytes.
    pub lsn: u64,
    /// Whether it accepts writes.
    pub writable: bool,
    /// Earlier timelines and the positions at which they ended.
    pub switches: Vec<(u32, u64)>,
    /// Numbers of the rows it has; only known within one process.
    #[serde(skip)]
    pub rows: Arc<Vec<u64>>,
}

/// Where the facts about the other site come from.
#[derive(Debug, Clone)]
pub enum PeerView {
    /// Both sites are in this world.
    InProcess,
    /// The other site is a process of its own.
    Http {
        /// Its base URL, for `GET {url}/lab/state`.
        url: String,
    },
}

/// Milliseconds between two looks at a site in another process.
pub const POLL_MS: u64 = 200;
/// Facts older than this many milliseconds are no longer believed.
pub const STALE_MS: u64 = 2000;

/// Fetches the facts of a site in another process.
pub async fn fetch(client: &reqwest::Client, url: &str) -> Result<SiteFacts, reqwest::Error> {
    #[derive(Deserialize)]
    struct Body {
        facts: SiteFacts,
    }
    let url = format!("{}/lab/state", url.trim_end_matches('/'));
    Ok(client.get(url).send().await?.error_for_status()?.json::<Body>().await?.facts)
}
