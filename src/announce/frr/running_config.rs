//! What `show running-config bgpd` says: BGP instances, their `network` statements, our route-maps.
//!
//! Pure. Reads only the lines it needs and skips every other, so that a configuration of any FRR version passes.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::commands::MAP_PREFIX;
use crate::announce::PrefixKey;

/// One `router bgp`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instance {
    /// The AS as FRR writes it: with `as-notation dot` it is not a number.
    pub asn: String,
    /// `network` statements with their route-map.
    pub networks: BTreeMap<IpNet, Option<String>>,
}

/// The parts of the running configuration that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunningConfig {
    /// Instances by VRF; `None` = the default one.
    pub instances: BTreeMap<Option<String>, Instance>,
    /// Names of route-maps that we made.
    pub maps: BTreeSet<String>,
}

impl RunningConfig {
    /// Reads the output of `vtysh`.
    ///
    /// # Errors
    /// What is missing, where the text is not a whole configuration: half a read is not an empty configuration.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (_, body) =
            text.split_once("Current configuration:").ok_or("no configuration in vtysh's output")?;
        let mut config = Self::default();
        let mut at: Option<Option<String>> = None;
        let mut whole = false;
        for line in body.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let indented = line.starts_with(' ');
            match words.as_slice() {
                ["router", "bgp", rest @ ..] if !indented => at = config.open(rest),
                ["route-map", name, ..] if !indented => {
                    at = None;
                    if name.starts_with(MAP_PREFIX) {
                        config.maps.insert((*name).to_owned());
                    }
                }
                ["end"] if !indented => whole = true,
                ["network", prefix, rest @ ..] if indented => {
                    if let (Some(vrf), Ok(prefix)) = (&at, prefix.parse::<IpNet>()) {
                        let map =
                            rest.iter().skip_while(|w| **w != "route-map").nth(1).map(|w| (*w).to_owned());
                        config.instances.entry(vrf.clone()).or_default().networks.insert(prefix.trunc(), map);
                    }
                }
                [] | ["!"] | ["exit"] => {}
                _ if !indented => at = None,
                _ => {}
            }
        }
        if !whole {
            return Err("it ends early".to_owned());
        }
        Ok(config)
    }

    /// Enters a `router bgp ASN [vrf NAME] …`; a view is nobody's business here.
    fn open(&mut self, rest: &[&str]) -> Option<Option<String>> {
        let (asn, rest) = rest.split_first()?;
        let vrf = match rest {
            ["vrf", name, ..] => Some((*name).to_owned()),
            ["view", ..] => return None,
            _ => None,
        };
        self.instances.entry(vrf.clone()).or_default().asn = (*asn).to_owned();
        Some(vrf)
    }

    /// Every `network` statement.
    pub fn networks(&self) -> impl Iterator<Item = PrefixKey> + '_ {
        self.instances.iter().flat_map(|(vrf, instance)| {
            instance.networks.keys().map(move |prefix| PrefixKey { prefix: *prefix, vrf: vrf.clone() })
        })
    }

    /// The route-map of a `network` statement; outer `None` = no such statement.
    pub fn network(&self, key: &PrefixKey) -> Option<Option<&str>> {
        self.instances.get(&key.vrf)?.networks.get(&key.prefix).map(Option::as_deref)
    }
}
