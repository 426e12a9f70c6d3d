//! Reads Patroni's bodies, 3.x and 4.x. Unknown fields are ignored; a known field of the wrong type makes the whole
//! body malformed, because half-understood is not understood.

use serde_json::Value;

use crate::model::{Member, MemberRole};

/// What `/config` says of `standby_cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standby {
    /// Whether there is such a section.
    pub(super) configured: bool,
    /// Its host or hosts.
    pub(super) host: Option<String>,
}

/// A member as `/cluster` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// The member.
    pub(super) member: Member,
    /// Base address of its own API.
    pub(super) api: Option<String>,
    /// Its position (4.x).
    pub(super) lsn: Option<u64>,
}

/// What `/cluster` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    /// Members by name.
    pub(super) members: Vec<Listed>,
}

impl Cluster {
    /// The leader, of a primary or a standby cluster.
    pub(super) fn leader(&self) -> Option<&Listed> {
        self.members
            .iter()
            .rfind(|listed| matches!(listed.member.role, MemberRole::Leader | MemberRole::StandbyLeader))
    }
}

/// Timeline and position of the leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Timeline.
    pub(super) timeline: Option<u64>,
    /// Position in bytes.
    pub(super) lsn: Option<u64>,
    /// Whether PostgreSQL itself replays instead of writing.
    pub(super) in_recovery: Option<bool>,
}

/// Reads `/config`.
pub(super) fn standby(json: &Value) -> Result<Standby, String> {
    let config = json.as_object().ok_or("the configuration is not an object")?;
    let section = match config.get("standby_cluster") {
        None | Some(Value::Null) => return Ok(Standby { configured: false, host: None }),
        Some(Value::Object(section)) => section,
        Some(_) => return Err("standby_cluster is not an object".to_owned()),
    };
    let host = match section.get("host") {
        None | Some(Value::Null) => None,
        Some(Value::String(host)) if host.trim().is_empty() => None,
        Some(Value::String(host)) => Some(host.trim().to_owned()),
        Some(_) => return Err("standby_cluster.host is not a text".to_owned()),
    };
    // Patroni takes an empty section for none.
    Ok(Standby { configured: !section.is_empty(), host })
}

/// Reads `/cluster`.
pub(super) fn cluster(json: &Value) -> Result<Cluster, String> {
    let members = json.get("members").and_then(Value::as_array).ok_or("no list of members")?;
    let mut members = members.iter().map(listed).collect::<Result<Vec<_>, _>>()?;
    members.sort_by(|a, b| a.member.name.cmp(&b.member.name));
    Ok(Cluster { members })
}

fn listed(json: &Value) -> Result<Listed, String> {
    let name = text(json, "name")?.ok_or("a member without a name")?;
    let role_text = text(json, "role")?.ok_or_else(|| format!("member {name} without a role"))?;
    let state = text(json, "state")?.ok_or_else(|| format!("member {name} without a state"))?;
    let member = Member {
        role: role(&role_text),
        role_text,
        state,
        timeline: number(json, "timeline")?,
        lag: number(json, "lag")?,
        name,
    };
    let lsn = match json.get("lsn") {
        Some(Value::String(text)) => position(text),
        _ => None,
    };
    Ok(Listed { member, api: text(json, "api_url")?.and_then(|url| api_base(&url)), lsn })
}

/// Patroni 3 and 4 word `/cluster` alike; `master` is the word of versions before.
fn role(word: &str) -> MemberRole {
    match word {
        "leader" | "master" | "primary" => MemberRole::Leader,
        "standby_leader" => MemberRole::StandbyLeader,
        "replica" | "sync_standby" | "quorum_standby" => MemberRole::Replica,
        _ => MemberRole::Other,
    }
}

/// The base of a member's API: its `api_url` names the path `/patroni`.
fn api_base(url: &str) -> Option<String> {
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix("/patroni").unwrap_or(base);
    let parsed = reqwest::Url::parse(base).ok()?;
    matches!(parsed.scheme(), "http" | "https").then(|| base.to_owned())
}

/// Reads `/patroni` of the leader. A member that calls itself a replica is not the leader (any more, or behind a
/// balanced address), so its position says nothing.
pub(super) fn progress(json: &Value) -> Progress {
    let primary = match json.get("role").and_then(Value::as_str) {
        Some("master" | "primary") => true,
        Some("standby_leader") => false,
        _ => return Progress::default(),
    };
    let xlog = |key: &str| json.get("xlog").and_then(|xlog| xlog.get(key)).and_then(Value::as_u64);
    let lsn = if primary {
        xlog("location")
    } else {
        // What came from an archive was replayed and never received.
        xlog("received_location").max(xlog("replayed_location"))
    };
    // Only a server in recovery has a replay position; the role word follows the configuration sooner.
    let in_recovery = match (xlog("location").is_some(), xlog("replayed_location").is_some()) {
        (true, false) => Some(false),
        (false, true) => Some(true),
        _ => None,
    };
    Progress { timeline: json.get("timeline").and_then(Value::as_u64), lsn, in_recovery }
}

/// A position as PostgreSQL prints it: two hexadecimal halves of 32 bits, `0/4000000`.
fn position(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
    Some(u64::from(high) << 32 | u64::from(low))
}

fn text(json: &Value, key: &str) -> Result<Option<String>, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key} is not a text")),
    }
}

/// A number; a text in its place (`unknown`) is none.
fn number(json: &Value, key: &str) -> Result<Option<u64>, String> {
    match json.get(key) {
        None | Some(Value::Null | Value::String(_)) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| format!("{key} is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn positions_read_as_postgresql_prints_them() {
        assert_eq!(position("0/4000000"), Some(67_108_864));
        assert_eq!(position("1/0"), Some(1 << 32));
        for bad in ["", "unknown", "0", "0/", "0/x", "100000000/0"] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_standby_section_is_none_empty_fenced_or_following() {
        let read = |json: Value| standby(&json);
        let none = Ok(Standby { configured: false, host: None });
        assert_eq!(read(json!({})), none);
        assert_eq!(read(json!({ "standby_cluster": null })), none);
        assert_eq!(read(json!({ "standby_cluster": {} })), none);
        let fenced = json!({ "standby_cluster": { "restore_command": "false" } });
        assert_eq!(read(fenced), Ok(Standby { configured: true, host: None }));
        let following = json!({ "standby_cluster": { "host": "192.0.2.1,192.0.2.2", "port": 5432 } });
        let host = Some("192.0.2.1,192.0.2.2".to_owned());
        assert_eq!(read(following), Ok(Standby { configured: true, host }));
        for bad in [json!([]), json!({ "standby_cluster": "x" }), json!({ "standby_cluster": { "host": 1 } })]
        {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_member_of_the_wrong_shape_makes_the_cluster_malformed() {
        let good = json!({ "name": "a", "role": "leader", "state": "running" });
        assert!(cluster(&json!({ "members": [good] })).is_ok());
        assert!(cluster(&json!({ "members": [] })).is_ok());
        for (key, value) in [
            ("name", json!(1)),
            ("role", json!(null)),
            ("state", json!([])),
            ("lag", json!({})),
            ("lag", json!(-1)),
            ("timeline", json!(true)),
        ] {
            let mut bad = good.clone();
            bad[key] = value.clone();
            assert!(cluster(&json!({ "members": [bad] })).is_err(), "{key}={value}");
        }
        for bad in [json!({}), json!([]), json!({ "members": {} }), json!({ "members": [3] })] {
            assert!(cluster(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_position_is_the_leaders_own_in_both_versions() {
        let three = json!({ "role": "standby_leader", "timeline": 1, "xlog": { "received_location": 9, "replayed_location": 7 } });
        assert_eq!(progress(&three), Progress { timeline: Some(1), lsn: Some(9), in_recovery: Some(true) });
        for word in ["master", "primary"] {
            let primary = json!({ "role": word, "timeline": 10, "xlog": { "location": 67_366_904 } });
            assert_eq!(
                progress(&primary),
                Progress { timeline: Some(10), lsn: Some(67_366_904), in_recovery: Some(false) }
            );
        }
        assert_eq!(progress(&json!({ "role": "replica", "timeline": 3 })), Progress::default());
    }
}
