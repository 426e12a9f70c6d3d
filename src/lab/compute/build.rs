//! Building a cloud, changing it as people and accidents do, and looking at it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Cloud, GroupHealth, OperationStyle, Region, Router, Service, Tokens};
use crate::adapters::gcp::RouterPlace;
use crate::model::Mono;

impl Default for Cloud {
    fn default() -> Self {
        Self::new()
    }
}

impl Cloud {
    /// A cloud without projects. Operations take one look; sessions follow after two seconds.
    pub fn new() -> Self {
        Self {
            projects: BTreeMap::new(),
            tokens: Tokens::default(),
            denied: BTreeSet::new(),
            quota_per_minute: None,
            page_size: 500,
            operation: OperationStyle { polls: 1, at_latest_ms: 30_000, error: None },
            propagation_ms: 2_000,
            quota_used: (0, 0),
            pages: BTreeMap::new(),
            made: 0,
        }
    }

    /// A region, made where it is not there yet.
    pub fn region_mut(&mut self, project: &str, region: &str) -> &mut Region {
        let project = self.projects.entry(project.to_owned()).or_default();
        project.regions.entry(region.to_owned()).or_default()
    }

    /// A regional backend service with backend groups (URLs), each with healthy instances.
    pub fn add_service(&mut self, project: &str, region: &str, name: &str, groups: &[(&str, usize)]) {
        let backends: Vec<Value> = groups
            .iter()
            .map(|(group, _)| json!({"group": group, "balancingMode": "CONNECTION", "failover": false}))
            .collect();
        let resource = json!({
            "kind": "compute#backendService", "name": name, "loadBalancingScheme": "INTERNAL",
            "protocol": "UDP", "backends": backends,
        });
        let instance = |group: &str, n: usize| (format!("{group}/instances/i-{n}"), "HEALTHY".to_owned());
        let health = groups.iter().map(|(group, count)| {
            let instances = (0..*count).map(|n| instance(group, n)).collect();
            ((*group).to_owned(), GroupHealth::Instances(instances))
        });
        let service = Service { resource, health: health.collect() };
        self.region_mut(project, region).services.insert(name.to_owned(), service);
    }

    /// Every instance of every service of a region gets a state.
    pub fn set_health(&mut self, project: &str, region: &str, state: &str) {
        for service in self.region_mut(project, region).services.values_mut() {
            for group in service.health.values_mut() {
                if let GroupHealth::Instances(instances) = group {
                    instances.iter_mut().for_each(|(_, word)| state.clone_into(word));
                }
            }
        }
    }

    /// A router in mode `CUSTOM` with prefixes and peers whose sessions are up. They announce at once.
    pub fn add_router(&mut self, place: &RouterPlace, prefixes: &[&str], peers: &[&str]) {
        let ranges: Vec<Value> = prefixes.iter().map(|prefix| json!({"range": prefix})).collect();
        let mut bgp = json!({"asn": 64512, "advertiseMode": "CUSTOM", "advertisedGroups": ["ALL_SUBNETS"],
            "keepaliveInterval": 20});
        if !ranges.is_empty() {
            bgp["advertisedIpRanges"] = Value::Array(ranges);
        }
        let interface = |peer: &&str| json!({"name": format!("if-{peer}"), "ipRange": "169.254.0.1/30"});
        let entry = |peer: &&str| {
            json!({"name": peer, "interfaceName": format!("if-{peer}"), "peerAsn": 65001, "enable": "TRUE",
                "ipAddress": "169.254.0.1", "peerIpAddress": "169.254.0.2", "managementType": "MANAGED_BY_USER"})
        };
        let resource = json!({
            "kind": "compute#router", "id": "1", "name": place.name, "region": place.region,
            "network": "global/networks/default", "bgp": bgp,
            "interfaces": peers.iter().map(interface).collect::<Vec<_>>(),
            "bgpPeers": peers.iter().map(entry).collect::<Vec<_>>(),
            "nats": [{"name": "keep-me", "natIpAllocateOption": "AUTO_ONLY"}],
        });
        let sessions = peers.iter().map(|peer| ((*peer).to_owned(), "UP".to_owned())).collect();
        let announced = vec![(Mono(0), resource.clone())];
        let router = Router { resource, sessions, running: None, announced };
        self.region_mut(&place.project, &place.region).routers.insert(place.name.clone(), router);
    }

    /// A router.
    pub fn router(&self, place: &RouterPlace) -> Option<&Router> {
        self.projects.get(&place.project)?.regions.get(&place.region)?.routers.get(&place.name)
    }

    /// A router, to change it behind everybody's back.
    pub fn router_mut(&mut self, place: &RouterPlace) -> Option<&mut Router> {
        self.projects.get_mut(&place.project)?.regions.get_mut(&place.region)?.routers.get_mut(&place.name)
    }

    /// All sessions of a router get a status.
    pub fn set_sessions(&mut self, place: &RouterPlace, status: &str) {
        if let Some(router) = self.router_mut(place) {
            router.sessions.values_mut().for_each(|word| status.clone_into(word));
        }
    }

    /// Prefixes in a router's list, in their order.
    pub fn listed(&self, place: &RouterPlace) -> Vec<String> {
        let list = self.router(place).and_then(|router| router.resource.pointer("/bgp/advertisedIpRanges"));
        let text = |entry: &Value| entry["range"].as_str().unwrap_or_default().to_owned();
        list.and_then(Value::as_array).into_iter().flatten().map(text).collect()
    }

    /// Prefixes that somebody on the other end of a session hears at a moment.
    pub fn announced(&mut self, place: &RouterPlace, now: Mono) -> BTreeSet<IpNet> {
        self.settle(now);
        let Some(router) = self.router(place) else { return BTreeSet::new() };
        let up = router.sessions.iter().filter(|(_, status)| *status == "UP");
        up.flat_map(|(peer, _)| router.announces(peer, now)).collect()
    }
}

impl Router {
    /// What a peer's session announces at a moment, where it is up.
    pub(super) fn announces(&self, peer: &str, now: Mono) -> Vec<IpNet> {
        let begun = self.announced.iter().rev().find(|(since, _)| *since <= now);
        let Some((_, resource)) = begun else { return Vec::new() };
        let peers = resource["bgpPeers"].as_array().into_iter().flatten();
        let own =
            peers.filter(|entry| entry["name"] == peer).find(|entry| entry["advertiseMode"] == "CUSTOM");
        let list = match own {
            Some(entry) => &entry["advertisedIpRanges"],
            None => &resource["bgp"]["advertisedIpRanges"],
        };
        let entries = list.as_array().into_iter().flatten();
        entries.filter_map(|entry| entry["range"].as_str()?.parse().ok()).collect()
    }

    /// The resource as it is now is announced from a moment on.
    pub(super) fn announce_from(&mut self, moment: Mono) {
        self.announced.push((moment, self.resource.clone()));
        if self.announced.len() > 8 {
            self.announced.remove(0);
        }
    }
}
