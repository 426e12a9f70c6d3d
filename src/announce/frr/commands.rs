//! From wanted prefixes to FRR's configuration commands.
//!
//! Pure. Attributes become a route-map whose name is a digest of its lines, so that equal attributes share one and a
//! changed one is a new name: a route-map in use is never edited under a running route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::running_config::{Instance, RunningConfig};
use super::vtysh::VtyshError;
use crate::announce::{PrefixKey, RouteAttributes};
use crate::bgp::Community;

/// Our route-maps start with this.
pub const MAP_PREFIX: &str = "SWITCHOVER-";

/// Commands in one process: far below the kernel's limit of arguments, and quick enough not to hold a lock for long.
const BATCH: usize = 400;

/// A route-map that says the attributes of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteMap {
    /// Its `set` lines; `{asn}` stands for the instance's AS.
    lines: Vec<String>,
}

impl RouteMap {
    /// The route-map for these attributes; `None` where there is nothing to say.
    ///
    /// # Errors
    /// What FRR's route-maps cannot express, in words.
    pub fn of(attributes: &RouteAttributes) -> Result<Option<Self>, String> {
        let (mut standard, mut large, mut extended) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for text in &attributes.communities {
            let community: Community = text.parse().map_err(|error| format!("{error}"))?;
            match community {
                Community::Standard(_) => drop(standard.insert(community)),
                Community::Large(..) => drop(large.insert(community)),
                Community::Extended(_) => extended.push(community.to_string()),
            }
        }
        if attributes.graceful_shutdown {
            standard.insert(Community::Standard(crate::bgp::community::GRACEFUL_SHUTDOWN));
        }
        let words =
            |set: &BTreeSet<Community>| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let mut lines = Vec::new();
        match attributes.next_hop {
            Some(IpAddr::V4(ip)) => lines.push(format!("set ip next-hop {ip}")),
            Some(IpAddr::V6(ip)) => lines.push(format!("set ipv6 next-hop global {ip}")),
            None => {}
        }
        lines.extend(attributes.med.map(|med| format!("set metric {med}")));
        lines.extend(attributes.local_pref.map(|preference| format!("set local-preference {preference}")));
        if !standard.is_empty() {
            lines.push(format!("set community {}", words(&standard)));
        }
        if !large.is_empty() {
            lines.push(format!("set large-community {}", words(&large)));
        }
        for kind in ["rt", "soo"] {
            let start = format!("{kind}:");
            let these: Vec<&str> =
                extended.iter().filter_map(|text| text.strip_prefix(start.as_str())).collect();
            if !these.is_empty() {
                lines.push(format!("set extcommunity {kind} {}", these.join(" ")));
            }
        }
        if let Some(text) = extended.iter().find(|text| !text.starts_with("rt:") && !text.starts_with("soo:"))
        {
            return Err(format!("FRR's route-maps cannot set extended community {text}"));
        }
        if attributes.as_path_prepend > 0 {
            let path = vec!["{asn}"; attributes.as_path_prepend.into()].join(" ");
            lines.push(format!("set as-path prepend {path}"));
        }
        Ok((!lines.is_empty()).then_some(Self { lines }))
    }

    /// Its name in an instance with this AS.
    pub fn name(&self, asn: &str) -> String {
        let digest = Sha256::digest(self.lines.join("\n").replace("{asn}", asn));
        format!("{MAP_PREFIX}{}", hex::encode(&digest[..6]))
    }

    fn define(&self, asn: &str) -> Vec<String> {
        let mut commands = vec![format!("route-map {} permit 10", self.name(asn))];
        commands.extend(self.lines.iter().map(|line| line.replace("{asn}", asn)));
        commands.push("exit".to_owned());
        commands
    }
}

/// The question about one prefix.
pub fn show_route(key: &PrefixKey) -> String {
    let vrf = key.vrf.as_ref().map(|vrf| format!("vrf {vrf} ")).unwrap_or_default();
    format!("show bgp {vrf}{} unicast {} json", family(key), key.prefix)
}

fn family(key: &PrefixKey) -> &'static str {
    if key.prefix.addr().is_ipv4() { "ipv4" } else { "ipv6" }
}

/// What has to change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Statements to add or to give another route-map.
    pub announce: BTreeMap<PrefixKey, Option<RouteMap>>,
    /// Statements to remove.
    pub withdraw: Vec<PrefixKey>,
    /// Route-maps that nothing uses any more.
    unused: BTreeSet<String>,
}

impl Difference {
    /// Compares FRR with what is wanted; prefixes that are not managed are left alone.
    ///
    /// # Errors
    /// A wanted prefix has no BGP instance to live in, or attributes that FRR cannot express.
    pub fn between(
        config: &RunningConfig,
        desired: &BTreeMap<PrefixKey, RouteAttributes>,
        managed: &BTreeSet<PrefixKey>,
    ) -> Result<Self, VtyshError> {
        let mut difference = Self::default();
        let mut used: BTreeSet<String> = BTreeSet::new();
        for (key, attributes) in desired {
            let instance = instance(config, key)?;
            let map = RouteMap::of(attributes)
                .map_err(|text| VtyshError::Refused { command: "route-map".to_owned(), text })?;
            let name = map.as_ref().map(|map| map.name(&instance.asn));
            if config.network(key) != Some(name.as_deref()) {
                difference.announce.insert(key.clone(), map);
            }
            used.extend(name);
        }
        difference.withdraw =
            config.networks().filter(|key| managed.contains(key) && !desired.contains_key(key)).collect();
        let foreign = config.networks().filter(|key| !managed.contains(key));
        used.extend(foreign.filter_map(|key| config.network(&key).flatten().map(str::to_owned)));
        difference.unused = config.maps.difference(&used).cloned().collect();
        Ok(difference)
    }

    /// Whether FRR is as wanted.
    pub fn is_empty(&self) -> bool {
        self.announce.is_empty() && self.withdraw.is_empty() && self.unused.is_empty()
    }

    /// The commands, in processes of bounded size: route-maps, withdrawals, announcements, left-over route-maps.
    ///
    /// # Errors
    /// See [`Difference::between`].
    pub fn batches(&self, config: &RunningConfig) -> Result<Vec<Vec<String>>, VtyshError> {
        let mut maps: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut statements: Vec<(&PrefixKey, String)> =
            self.withdraw.iter().map(|key| (key, format!("no network {}", key.prefix))).collect();
        for (key, map) in &self.announce {
            let asn = &instance(config, key)?.asn;
            let suffix = map.as_ref().map(|map| format!(" route-map {}", map.name(asn))).unwrap_or_default();
            statements.push((key, format!("network {}{suffix}", key.prefix)));
            if let Some(map) = map {
                maps.insert(map.name(asn), map.define(asn));
            }
        }
        let mut batches = Vec::new();
        let mut defining: Vec<String> = maps.into_values().flatten().collect();
        // A stable sort: withdrawals stay in front within their instance and family.
        statements.sort_by_key(|(key, _)| (key.vrf.clone(), family(key)));
        for chunk in statements.chunks(BATCH) {
            let mut batch = vec!["configure terminal".to_owned()];
            batch.append(&mut defining);
            let mut place = None;
            for (key, statement) in chunk {
                let here = (&key.vrf, family(key));
                if place != Some(here) {
                    if place.is_some() {
                        batch.extend(["exit-address-family".to_owned(), "exit".to_owned()]);
                    }
                    let vrf = key.vrf.as_ref().map(|vrf| format!(" vrf {vrf}")).unwrap_or_default();
                    batch.push(format!("router bgp {}{vrf}", instance(config, key)?.asn));
                    batch.push(format!("address-family {} unicast", family(key)));
                    place = Some(here);
                }
                batch.push(statement.clone());
            }
            batches.push(batch);
        }
        for chunk in self.unused.iter().collect::<Vec<_>>().chunks(BATCH) {
            let mut batch = vec!["configure terminal".to_owned()];
            batch.extend(chunk.iter().map(|name| format!("no route-map {name}")));
            batches.push(batch);
        }
        Ok(batches)
    }
}

fn instance<'a>(config: &'a RunningConfig, key: &PrefixKey) -> Result<&'a Instance, VtyshError> {
    config.instances.get(&key.vrf).ok_or_else(|| VtyshError::NoInstance { vrf: key.vrf.clone() })
}

#[cfg(test)]
mod tests;
