//! Two mirrored regions in simulated clouds: what `route_watch` reads and writes, and the settings that point it there.
//!
//! Owns the set-up only. The strictness is in [`super::compute`] and [`super::magic_transit`]; the story that a person
//! can watch is [`super::route_scenario`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compute::{API_PATH, Cloud, LAB_BASE, Tokens};
use super::front::{Front, ServedCloud};
use super::magic_transit::{self, MagicAccount};
use crate::adapters::gcp::RouterPlace;
use crate::adapters::wire::Wire;
use crate::model::Side;

/// Project of everything.
pub const PROJECT: &str = "lab";
/// Regions of the active and of the passive site.
pub const REGIONS: [&str; 2] = ["us-east1", "us-west1"];
/// Prefixes of the active and of the passive site.
pub const PREFIXES: [&str; 2] = ["192.0.2.0/24", "198.51.100.0/24"];
/// What the descriptions of the sites' Cloudflare routes contain.
pub const FILTERS: [&str; 2] = ["EDGE-ACTIVE", "EDGE-PASSIVE"];
/// Names of the routers.
const ROUTERS: [&str; 2] = ["router-active", "router-passive"];

/// Both clouds. Cheap to clone: clones are the same clouds.
#[derive(Clone)]
pub struct RouteClouds {
    /// Google Compute.
    pub compute: Front<Cloud>,
    /// Cloudflare.
    pub magic: Front<MagicAccount>,
}

/// Both clouds behind sockets.
pub struct ServedClouds {
    compute: ServedCloud,
    magic: ServedCloud,
}

impl Default for RouteClouds {
    fn default() -> Self {
        Self::new()
    }
}

/// The router of a side.
pub fn router(side: Side) -> RouterPlace {
    RouterPlace {
        project: PROJECT.to_owned(),
        region: REGIONS[side as usize].to_owned(),
        name: ROUTERS[side as usize].to_owned(),
    }
}

impl RouteClouds {
    /// A normal day: every backend healthy, every session up, each site announces its own prefix.
    pub fn new() -> Self {
        let (mut cloud, mut account) = (Cloud::new(), MagicAccount::new());
        for side in Side::ALL {
            let (index, region) = (side as usize, REGIONS[side as usize]);
            let group = format!("projects/{PROJECT}/zones/{region}-b/instanceGroups/edge");
            cloud.add_service(PROJECT, region, "edge", &[(&group, 2)]);
            cloud.add_router(&router(side), &[PREFIXES[index]], &["peer-1", "peer-2"]);
            for (number, prefix) in PREFIXES.iter().enumerate() {
                let priority = if number == index { 100 } else { 200 };
                let hop = format!("10.{index}.0.1");
                account.add(prefix, &hop, priority, Some(FILTERS[index]));
            }
        }
        // Each site's routes carry one priority; on a normal day it is the primary one.
        for route in &mut account.routes {
            route["priority"] = 100.into();
        }
        Self { compute: Front::new(cloud), magic: Front::new(account) }
    }

    /// The way straight into both clouds, without sockets.
    pub fn wire(&self) -> Wire {
        let (compute, magic) = (self.compute.wire(), self.magic.wire());
        Wire::Direct(Arc::new(move |sent| {
            let to_magic = sent.url.contains(magic_transit::API_PATH);
            match if to_magic { &magic } else { &compute } {
                Wire::Direct(answer) => answer(sent),
                Wire::Network(_) => unreachable!("a front's way is a function"),
            }
        }))
    }

    /// Serves both clouds on free ports.
    ///
    /// # Errors
    /// Where no socket can be had.
    pub async fn serve(&self) -> std::io::Result<ServedClouds> {
        Ok(ServedClouds { compute: self.compute.serve().await?, magic: self.magic.serve().await? })
    }

    /// Prefixes that the router of a side lists.
    pub fn listed(&self, side: Side) -> Vec<String> {
        self.compute.with(|cloud| cloud.listed(&router(side)))
    }

    /// Priorities of the Cloudflare routes of a side.
    pub fn priorities(&self, side: Side) -> Vec<i64> {
        self.magic.with(|account| account.priorities(FILTERS[side as usize]).into_iter().collect())
    }

    /// Every backend of a side gets a state.
    pub fn set_backends(&self, side: Side, healthy: bool) {
        let state = if healthy { "HEALTHY" } else { "UNHEALTHY" };
        self.compute.with(|cloud| cloud.set_health(PROJECT, REGIONS[side as usize], state));
    }

    /// Every session of a side's router gets a status.
    pub fn set_sessions(&self, side: Side, up: bool) {
        self.compute.with(|cloud| cloud.set_sessions(&router(side), if up { "UP" } else { "DOWN" }));
    }
}

impl ServedClouds {
    /// Addresses of Compute and of Cloudflare.
    pub fn bases(&self) -> [String; 2] {
        [self.compute.base(), self.magic.base()]
    }
}

/// Addresses that a direct wire understands.
pub fn direct_bases() -> [String; 2] {
    [LAB_BASE.to_owned(), LAB_BASE.to_owned()]
}

/// Writes a credentials file for a lab cloud.
///
/// # Errors
/// Whatever the file system says.
pub fn write_key(folder: &Path, base: &str) -> std::io::Result<PathBuf> {
    let path = folder.join("gcp-key.json");
    std::fs::write(&path, Tokens::key_file(base).to_string())?;
    Ok(path)
}

/// The environment that steers the routes of a side; files go to `folder`.
pub fn environment(side: Side, bases: &[String; 2], key: &Path, folder: &Path) -> BTreeMap<String, String> {
    let (here, there) = (side as usize, side.other() as usize);
    let file = |name: &str| folder.join(format!("{name}-{here}")).display().to_string();
    let pairs = [
        ("GCP_PROJECT", PROJECT.to_owned()),
        ("GOOGLE_APPLICATION_CREDENTIALS", key.display().to_string()),
        ("GCP_COMPUTE_ENDPOINT", format!("{}{API_PATH}", bases[0])),
        ("LOCAL_GCP_REGION", REGIONS[here].to_owned()),
        ("REMOTE_GCP_REGION", REGIONS[there].to_owned()),
        ("BGP_PEER_PROJECT", PROJECT.to_owned()),
        ("LOCAL_BGP_REGION", REGIONS[here].to_owned()),
        ("LOCAL_BGP_ROUTER", ROUTERS[here].to_owned()),
        ("REMOTE_BGP_REGION", REGIONS[there].to_owned()),
        ("REMOTE_BGP_ROUTER", ROUTERS[there].to_owned()),
        ("PRIMARY_PREFIX", PREFIXES[here].to_owned()),
        ("SECONDARY_PREFIX", PREFIXES[there].to_owned()),
        ("CLOUDFLARE_ACCOUNT_ID", magic_transit::ACCOUNT.to_owned()),
        ("CLOUDFLARE_API_TOKEN", magic_transit::TOKEN.to_owned()),
        ("CLOUDFLARE_API_BASE", format!("{}{}", bases[1], magic_transit::API_PATH)),
        ("DESCRIPTION_SUBSTRING", FILTERS[here].to_owned()),
        ("LOG_FILE", file("routes.log")),
        ("STRUCTURED_LOG_FILE", file("routes.jsonl")),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
