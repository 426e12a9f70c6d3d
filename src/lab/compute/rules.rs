//! What a patch of a router is refused for, and how it is merged (RFC 7396). Pure functions over JSON.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::Value;

/// Why something is refused: the API's reason, and a sentence.
pub(super) type Refused = (&'static str, String);

/// Most prefixes in a list.
const RANGE_LIMIT: usize = 200;

const ROUTER: [&str; 16] = [
    "kind",
    "id",
    "creationTimestamp",
    "name",
    "description",
    "region",
    "network",
    "interfaces",
    "bgpPeers",
    "bgp",
    "selfLink",
    "nats",
    "encryptedInterconnectRouter",
    "md5AuthenticationKeys",
    "nccGateway",
    "params",
];
const BGP: [&str; 6] = [
    "asn",
    "advertiseMode",
    "advertisedGroups",
    "advertisedIpRanges",
    "keepaliveInterval",
    "identifierRange",
];
const PEER: [&str; 26] = [
    "name",
    "interfaceName",
    "ipAddress",
    "peerIpAddress",
    "peerAsn",
    "advertisedRoutePriority",
    "advertiseMode",
    "managementType",
    "advertisedGroups",
    "advertisedIpRanges",
    "bfd",
    "enable",
    "enableIpv6",
    "ipv6NexthopAddress",
    "peerIpv6NexthopAddress",
    "routerApplianceInstance",
    "md5AuthenticationKeyName",
    "customLearnedRoutePriority",
    "customLearnedIpRanges",
    "enableIpv4",
    "ipv4NexthopAddress",
    "peerIpv4NexthopAddress",
    "exportPolicies",
    "importPolicies",
    "kind",
    "description",
];

/// Why a patch is refused.
pub(super) fn check_patch(current: &Value, patch: &Value) -> Result<(), Refused> {
    known_fields(patch, &ROUTER, "router")?;
    if let Some(bgp) = patch.get("bgp") {
        known_fields(bgp, &BGP, "router.bgp")?;
    }
    for peer in patch["bgpPeers"].as_array().into_iter().flatten() {
        known_fields(peer, &PEER, "router.bgpPeers")?;
    }
    let next = merged(current, patch);
    for fixed in ["name", "region", "network", "id", "kind"] {
        if next[fixed] != current[fixed] {
            return Err((
                "invalid",
                format!("Invalid value for field 'resource.{fixed}': it cannot be changed"),
            ));
        }
    }
    if next["bgp"]["asn"] != current["bgp"]["asn"] {
        return Err((
            "invalid",
            "Invalid value for field 'resource.bgp.asn': it cannot be changed".to_owned(),
        ));
    }
    check_list(&next["bgp"], "resource.bgp")?;
    check_peers(&next)
}

fn check_peers(next: &Value) -> Result<(), Refused> {
    let mut names = BTreeSet::new();
    let interfaces: BTreeSet<&str> =
        next["interfaces"].as_array().into_iter().flatten().filter_map(|i| i["name"].as_str()).collect();
    for (n, peer) in next["bgpPeers"].as_array().into_iter().flatten().enumerate() {
        let place = format!("resource.bgpPeers[{n}]");
        let name = peer["name"].as_str().unwrap_or_default();
        if name.is_empty() || !names.insert(name) {
            return Err(("invalid", format!("Invalid value for field '{place}.name': '{name}'")));
        }
        if peer["peerAsn"].as_u64().is_none() {
            return Err(("required", format!("Required field '{place}.peerAsn' not specified")));
        }
        if !interfaces.contains(peer["interfaceName"].as_str().unwrap_or_default()) {
            return Err(("invalid", format!("Invalid value for field '{place}.interfaceName'")));
        }
        check_list(peer, &place)?;
    }
    Ok(())
}

/// A list of prefixes: only in mode `CUSTOM`, each a canonical prefix, each once.
fn check_list(holder: &Value, place: &str) -> Result<(), Refused> {
    let mode = holder["advertiseMode"].as_str().unwrap_or("DEFAULT");
    if !["DEFAULT", "CUSTOM"].contains(&mode) {
        return Err(("invalid", format!("Invalid value for field '{place}.advertiseMode': '{mode}'")));
    }
    let list = match &holder["advertisedIpRanges"] {
        Value::Null => return Ok(()),
        Value::Array(list) => list,
        _ => return Err(("badRequest", format!("Invalid value at '{place}.advertisedIpRanges'"))),
    };
    if !list.is_empty() && mode != "CUSTOM" {
        let place = format!("{place}.advertisedIpRanges");
        let message = format!("Invalid value for field '{place}': only allowed when advertiseMode is CUSTOM");
        return Err(("invalid", message));
    }
    if list.len() > RANGE_LIMIT {
        return Err(("invalid", format!("'{place}.advertisedIpRanges' has more than {RANGE_LIMIT} entries")));
    }
    let mut seen = BTreeSet::new();
    for (n, entry) in list.iter().enumerate() {
        known_fields(entry, &["range", "description"], "router.bgp.advertisedIpRanges")?;
        let text = entry["range"].as_str().unwrap_or_default();
        let net: Option<IpNet> = text.parse().ok();
        let good = net.is_some_and(|net| net == net.trunc() && seen.insert(net));
        if !good {
            let place = format!("{place}.advertisedIpRanges[{n}].range");
            return Err(("invalid", format!("Invalid value for field '{place}': '{text}'")));
        }
    }
    Ok(())
}

fn known_fields(object: &Value, known: &[&str], place: &str) -> Result<(), Refused> {
    let Some(fields) = object.as_object() else {
        return Err(("badRequest", format!("Invalid value at '{place}'")));
    };
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err((
            "badRequest",
            format!(
                "Invalid JSON payload received. Unknown name \"{name}\" at '{place}': Cannot find field."
            ),
        )),
    }
}

/// The resource after a merge patch. An array that becomes empty disappears, as empty lists do in every answer.
pub(super) fn merged(current: &Value, patch: &Value) -> Value {
    let Some(changes) = patch.as_object() else { return patch.clone() };
    let mut object = current.as_object().cloned().unwrap_or_default();
    for (name, change) in changes {
        match change {
            Value::Null => {
                object.shift_remove(name);
            }
            Value::Array(list) if list.is_empty() => {
                object.shift_remove(name);
            }
            Value::Object(_) => {
                let inner = object.get(name).cloned().unwrap_or_default();
                object.insert(name.clone(), merged(&inner, change));
            }
            other => {
                object.insert(name.clone(), other.clone());
            }
        }
    }
    Value::Object(object)
}

/// Whether a text is a UUID and not the zero one.
pub(super) fn is_request_id(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let digits = text.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    groups == [8, 4, 4, 4, 12] && digits && text.chars().any(|c| !matches!(c, '-' | '0'))
}
