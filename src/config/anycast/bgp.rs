//! The `announcer` section: our own BGP speaker as the Go predecessor configures it, with the speaker's own settings
//! for each neighbour beside.
//!
//! Becomes the tree that the speaker's settings are read from; which of its further keys make sense is judged there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::fields::Fields;
use super::service;
use crate::announce::PrefixKey;
use crate::config::Problem;
use crate::config::bgp::{NeighbourSettings, SpeakerSettings};

/// Keys of a neighbour that go to the speaker as they are.
const PASSED: [&str; 21] = [
    "port",
    "local_address",
    "interface",
    "families",
    "hold_time",
    "keepalive",
    "send_hold_time",
    "connect_timeout_ms",
    "retry_min_ms",
    "retry_max_ms",
    "password",
    "ttl_security_hops",
    "next_hop_v4",
    "next_hop_v6",
    "med",
    "local_pref",
    "communities",
    "as_path_prepend",
    "graceful_restart_secs",
    "bfd",
    "role",
];

/// Settings of the BGP speaker, in the form that its own settings type reads (`router_id`, `local_asn`,
/// `local_address`, `neighbours`). Never shown whole: it may hold passwords.
#[derive(Clone, PartialEq, Default)]
pub struct BgpSection(Value);

impl BgpSection {
    /// The tree itself, for the one call that reads it.
    pub fn expose(&self) -> &Value {
        &self.0
    }

    /// The speaker's settings, checked.
    ///
    /// # Errors
    /// Everything that is wrong with them, under the names that the file has for it.
    pub fn speaker(&self) -> Result<SpeakerSettings, Vec<Problem>> {
        let mut problems = Vec::new();
        match SpeakerSettings::deserialize(&self.0) {
            Ok(settings) => {
                settings.validate("announcer", &mut problems);
                for problem in &mut problems {
                    problem.setting = as_in_the_file(&problem.setting);
                }
                if problems.is_empty() { Ok(settings) } else { Err(problems) }
            }
            Err(error) => {
                let neighbours = self.0.get("neighbours").and_then(Value::as_array);
                for (index, neighbour) in neighbours.into_iter().flatten().enumerate() {
                    problems.extend(misread(index, neighbour));
                }
                if problems.is_empty() {
                    let (setting, want) = ("announcer".to_owned(), error.to_string());
                    problems.push(Problem { setting, value: None, want });
                }
                Err(problems)
            }
        }
    }

    /// Our router id.
    pub fn router_id(&self) -> &str {
        self.0.get("router_id").and_then(Value::as_str).unwrap_or_default()
    }
}

impl fmt::Debug for BgpSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BgpSection({})", self.router_id())
    }
}

/// The name that the file has for a setting of the speaker.
fn as_in_the_file(setting: &str) -> String {
    let setting = setting.replacen(".neighbours", ".peers", 1);
    match setting.strip_suffix("].address") {
        Some(start) => format!("{start}].remote_address"),
        None => setting,
    }
}

/// The keys of a neighbour whose values are of a wrong kind: each is tried alone, since the reader stops at the first.
fn misread(index: usize, neighbour: &Value) -> Vec<Problem> {
    let entries = neighbour.as_object().into_iter().flatten();
    entries
        .filter(|(key, _)| PASSED.contains(&key.as_str()))
        .filter_map(|(key, value)| {
            let alone = serde_json::json!({ "address": "192.0.2.1", "remote_asn": 1, key: value });
            let error = NeighbourSettings::deserialize(&alone).err()?;
            // Neither a password nor the reader's words about it, which repeat it.
            let secret = key == "password";
            let shown = Some(if secret { "***".to_owned() } else { value.to_string() });
            let want = if secret { "a text is wanted".to_owned() } else { error.to_string() };
            Some(Problem { setting: format!("announcer.peers[{index}].{key}"), value: shown, want })
        })
        .collect()
}

/// Reads the section without its routes; `need_routes` = they must be there.
pub(super) fn read(table: &Fields<'_>, need_routes: bool) -> (BgpSection, Vec<PrefixKey>) {
    let (section, routes, _) = read_with_routes(table, !need_routes);
    (section, routes)
}

/// Reads the section; `own_routes` = every service has prefixes of its own, so that none are needed here.
pub(super) fn read_with_routes(
    table: &Fields<'_>,
    own_routes: bool,
) -> (BgpSection, Vec<PrefixKey>, Vec<String>) {
    let mut tree = Map::new();
    let router_id = table.required("router_id", "cannot be blank: an IPv4 address");
    if !router_id.is_empty() && !router_id.parse::<Ipv4Addr>().is_ok_and(|id| !id.is_unspecified()) {
        table.problem("router_id", Some(&router_id), "must be a valid IPv4 address");
    }
    tree.insert("router_id".to_owned(), router_id.into());
    let local = table.required("local_address", "cannot be blank: the source address of every session");
    if !local.is_empty() && local.parse::<IpAddr>().is_err() {
        table.problem("local_address", Some(&local), "must be a valid address");
    }
    tree.insert("local_address".to_owned(), local.into());
    tree.insert("local_asn".to_owned(), asn(table, "local_asn").into());
    let (routes, warnings) = routes(table, own_routes);
    let peers = if table.has("neighbours") { table.list("neighbours") } else { table.list("peers") };
    if peers.is_empty() {
        table.problem("peers", None, "cannot be blank: at least one neighbour is wanted");
    }
    let mut neighbours = Vec::new();
    for (index, value) in peers.iter().enumerate() {
        if let Some(peer) = table.enter(&format!("peers[{index}]"), value) {
            neighbours.push(neighbour(&peer));
        }
    }
    tree.insert("neighbours".to_owned(), neighbours.into());
    table.finish();
    (BgpSection(Value::Object(tree)), routes, warnings)
}

fn asn(table: &Fields<'_>, key: &'static str) -> u64 {
    if !table.has(key) {
        table.problem(key, None, "cannot be blank: an AS number");
    }
    table.integer(key, 1, u64::from(u32::MAX) - 1).unwrap_or(1)
}

fn routes(table: &Fields<'_>, own_routes: bool) -> (Vec<PrefixKey>, Vec<String>) {
    let (mut routes, mut warnings) = (Vec::new(), Vec::new());
    let list = table.list("routes");
    if list.is_empty() && !own_routes {
        table.problem("routes", None, "cannot be blank: at least one CIDR");
    }
    for (index, value) in list.iter().enumerate() {
        let path = format!("routes[{index}]");
        let Some(text) = value.as_str() else {
            table.problem(&path, Some(value), "must be a valid CIDR");
            continue;
        };
        match service::prefix(text, None, true) {
            Ok((key, cut)) => {
                if cut {
                    warnings.push(format!(
                        "announcer.{path} = {text}: its host bits are cleared, announced is {key}"
                    ));
                }
                routes.push(key);
            }
            Err(want) => table.problem(&path, Some(&text), want),
        }
    }
    (routes, warnings)
}

fn neighbour(peer: &Fields<'_>) -> Value {
    let mut tree = Map::new();
    tree.insert("name".to_owned(), peer.required("name", "cannot be blank").into());
    let address = peer.required("remote_address", "cannot be blank: the neighbour's address");
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        peer.problem("remote_address", Some(&address), "must be a valid address");
    }
    tree.insert("address".to_owned(), address.into());
    tree.insert("remote_asn".to_owned(), asn(peer, "remote_asn").into());
    let ttl = peer.integer("multihop_ttl", 0, 255).unwrap_or(0);
    if peer.flag("enable_multihop", false) {
        // No TTL, or 0, always meant the largest.
        tree.insert("multihop_ttl".to_owned(), if ttl == 0 { 255 } else { ttl }.into());
    } else if ttl > 1 {
        peer.problem("multihop_ttl", Some(&ttl), "it has an effect only with enable_multihop: true");
    }
    for key in PASSED {
        if let Some(value) = peer.get(key) {
            tree.insert(key.to_owned(), value.clone());
        }
    }
    peer.finish();
    Value::Object(tree)
}
