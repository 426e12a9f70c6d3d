//! A router's JSON: reading it, and the smallest body whose merge makes it announce what is wanted.
//!
//! Pure. JSON merge patch replaces arrays whole, so the list goes out complete, every unrelated entry as it was read,
//! with its description and every field that is not known here.

use serde_json::{Map, Value, json};

use super::routers::{AdvertiseMode, AdvertisedRange, BgpPeer, Overrides, RouterView, WantedPrefix};
use super::{GcpError, canonical};

/// Reads a router.
pub(super) fn read_router(what: &str, raw: Value) -> Result<RouterView, GcpError> {
    if raw.get("name").and_then(Value::as_str).is_none() {
        return Err(GcpError::malformed(what, "the answer is no router: it has no name"));
    }
    let bgp = raw.get("bgp").cloned().unwrap_or(Value::Null);
    let mode = match bgp.get("advertiseMode").and_then(Value::as_str) {
        None | Some("DEFAULT") => AdvertiseMode::Default,
        Some("CUSTOM") => AdvertiseMode::Custom,
        Some(other) => AdvertiseMode::Other(super::error::shorten(other)),
    };
    let groups = bgp.get("advertisedGroups").and_then(Value::as_array).into_iter().flatten();
    let groups = groups.filter_map(|group| group.as_str().map(str::to_owned)).collect();
    let ranges = read_ranges(what, bgp.get("advertisedIpRanges"))?;
    let mut peers = Vec::new();
    for peer in raw.get("bgpPeers").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| peer.get(field).and_then(Value::as_str).unwrap_or_default();
        peers.push(BgpPeer {
            name: text("name").to_owned(),
            enabled: text("enable") != "FALSE",
            own_list: text("advertiseMode") == "CUSTOM",
            ranges: read_ranges(what, peer.get("advertisedIpRanges"))?,
        });
    }
    Ok(RouterView { mode, groups, ranges, peers, raw })
}

fn read_ranges(what: &str, list: Option<&Value>) -> Result<Vec<AdvertisedRange>, GcpError> {
    let list = match list {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(GcpError::malformed(what, "advertisedIpRanges is no list")),
    };
    let read = |entry: &Value| {
        let range = entry.get("range").and_then(Value::as_str);
        let range = range.ok_or_else(|| GcpError::malformed(what, "an advertised range without a range"))?;
        let description = entry.get("description").and_then(Value::as_str).map(str::to_owned);
        Ok(AdvertisedRange { range: range.to_owned(), prefix: canonical(range), description })
    };
    list.iter().map(read).collect()
}

/// The body of the `PATCH` and what it changes; `None` where nothing differs. An error says why the complete lists
/// cannot be written.
pub(super) fn patch(
    view: &RouterView,
    wanted: &[WantedPrefix],
    overrides: Overrides,
) -> Result<Option<(Value, Vec<WantedPrefix>)>, String> {
    let mut body = Map::new();
    let mut changed = Vec::new();
    if let Some(list) = changed_list(view.raw.pointer("/bgp/advertisedIpRanges"), wanted, &mut changed)? {
        body.insert("bgp".to_owned(), json!({ "advertisedIpRanges": list }));
    }
    if overrides == Overrides::Manage
        && let Some(Value::Array(peers)) = view.raw.get("bgpPeers")
    {
        let (mut peers, mut differs) = (peers.clone(), false);
        for peer in peers.iter_mut().filter(|peer| peer["advertiseMode"] == "CUSTOM") {
            if let Some(list) = changed_list(peer.get("advertisedIpRanges"), wanted, &mut changed)? {
                peer["advertisedIpRanges"] = list;
                differs = true;
            }
        }
        if differs {
            body.insert("bgpPeers".to_owned(), Value::Array(peers));
        }
    }
    Ok((!body.is_empty()).then(|| (Value::Object(body), changed)))
}

/// The list with the wanted prefixes in it and the unwanted ones out of it; `None` where it is so already.
fn changed_list(
    list: Option<&Value>,
    wanted: &[WantedPrefix],
    changed: &mut Vec<WantedPrefix>,
) -> Result<Option<Value>, String> {
    let mut entries = match list {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(entries)) => entries.clone(),
        Some(_) => return Err("its list of prefixes is no list".to_owned()),
    };
    let prefix_of = |entry: &Value| canonical(entry.get("range")?.as_str()?);
    let mut differs = false;
    for want in wanted {
        let prefix = want.prefix.trunc();
        let listed = entries.iter().any(|entry| prefix_of(entry) == Some(prefix));
        if listed == want.announce {
            continue;
        }
        differs = true;
        if !changed.contains(want) {
            changed.push(*want);
        }
        if want.announce {
            entries.push(json!({ "range": prefix.to_string() }));
        } else {
            entries.retain(|entry| prefix_of(entry) != Some(prefix));
        }
    }
    Ok(differs.then_some(Value::Array(entries)))
}

/// A version 4 UUID (RFC 9562) of random bytes.
pub(super) fn request_id(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(raw: Value) -> RouterView {
        read_router("GET router", raw).unwrap()
    }

    fn want(prefix: &str, announce: bool) -> WantedPrefix {
        WantedPrefix { prefix: prefix.parse().unwrap(), announce }
    }

    #[test]
    fn unrelated_entries_go_out_as_they_came_in() {
        let other = json!({"range": "10.9.0.0/16", "description": "somebody else's", "unheardOf": 7});
        let raw = json!({"name": "r", "bgp": {"advertiseMode": "CUSTOM",
            "advertisedIpRanges": [other, {"range": "192.0.2.0/24"}]}});
        let view = view(raw);
        let (body, changed) =
            patch(&view, &[want("192.0.2.0/24", true), want("198.51.100.0/24", true)], Overrides::Refuse)
                .unwrap()
                .unwrap();
        let list = json!([other, {"range": "192.0.2.0/24"}, {"range": "198.51.100.0/24"}]);
        assert_eq!(body, json!({"bgp": {"advertisedIpRanges": list}}));
        assert_eq!(changed, [want("198.51.100.0/24", true)]);
        let same = patch(&view, &[want("192.0.2.0/24", true)], Overrides::Refuse).unwrap();
        assert_eq!(same, None);
    }

    #[test]
    fn prefixes_are_compared_as_prefixes() {
        let raw = json!({"name": "r", "bgp": {"advertiseMode": "CUSTOM", "advertisedIpRanges": [
            {"range": "2001:DB8:0::/48"}]}});
        let view = view(raw);
        assert_eq!(patch(&view, &[want("2001:db8::1/48", true)], Overrides::Refuse).unwrap(), None);
        let (body, _) = patch(&view, &[want("2001:db8::/48", false)], Overrides::Refuse).unwrap().unwrap();
        assert_eq!(body, json!({"bgp": {"advertisedIpRanges": []}}));
    }

    #[test]
    fn managed_peers_go_out_with_all_other_peers() {
        let plain = json!({"name": "a", "interfaceName": "if-a", "peerAsn": 65001});
        let raw = json!({"name": "r", "bgp": {"advertiseMode": "CUSTOM"}, "bgpPeers": [plain, {"name": "b",
            "advertiseMode": "CUSTOM", "advertisedGroups": ["ALL_SUBNETS"], "peerAsn": 65002}]});
        let view = view(raw);
        assert!(view.obstacle(Overrides::Refuse).unwrap().contains("peers b"));
        assert_eq!(view.obstacle(Overrides::Manage), None);
        let (body, _) = patch(&view, &[want("192.0.2.0/24", true)], Overrides::Manage).unwrap().unwrap();
        let list = json!([{"range": "192.0.2.0/24"}]);
        assert_eq!(body["bgp"]["advertisedIpRanges"], list);
        assert_eq!(body["bgpPeers"][0], plain);
        assert_eq!(body["bgpPeers"][1]["advertisedIpRanges"], list);
        assert_eq!(body["bgpPeers"][1]["advertisedGroups"], json!(["ALL_SUBNETS"]));
    }

    #[test]
    fn a_request_id_is_a_uuid() {
        assert_eq!(request_id([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
