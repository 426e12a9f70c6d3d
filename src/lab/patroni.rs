//! Patroni's REST API of a site, in the words of 3.0.2 or of 4.1.5.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::database::{Database, Member, MemberState};
use super::dynamic_config::is_standby;
use super::faults::Fault;
use super::http::{Answer, Request, json_answer, text_answer};
use super::settings::{DATABASE, PatroniVersion, WorldSettings};
use super::site::Site;
use super::volume::Data;

/// Answers a request; `None` = the connection is closed without a word, as where no pod listens.
pub fn answer(site: &mut Site, settings: &WorldSettings, request: &Request) -> Option<Answer> {
    if site.faults.on(Fault::PatroniDown) || site.database.members.is_empty() {
        return None;
    }
    let path = request.rest("/patroni").trim_end_matches('/');
    match (&request.method, path) {
        (&Method::PATCH, "/config") => return Some(patch_config(site, settings, request)),
        (&Method::GET | &Method::HEAD | &Method::OPTIONS, _) => {}
        _ => return Some(html(StatusCode::NOT_IMPLEMENTED, "Unsupported method")),
    }
    let database = &site.database;
    Some(match path {
        "/config" => match &database.config {
            Some(config) => json_answer(StatusCode::OK, config),
            None => text_answer(StatusCode::BAD_GATEWAY, "text/html", String::new()),
        },
        "/cluster" => json_answer(StatusCode::OK, &cluster(database, settings, &members_url(request))),
        "/history" => json_answer(StatusCode::OK, &history(database)),
        _ => return one_member(database, settings, path),
    })
}

/// Where the members' own interfaces are: behind this same address, since the lab has no pod addresses.
fn members_url(request: &Request) -> String {
    let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}/patroni/members", host.unwrap_or("127.0.0.1"))
}

/// A question to one member: `/members/N/...`, or by the service address.
fn one_member(database: &Database, settings: &WorldSettings, path: &str) -> Option<Answer> {
    let Some(rest) = path.strip_prefix("/members/") else {
        let asked = answering(database);
        return Some(match asked {
            Some((ordinal, member)) => role_check(database, settings, ordinal, member, path),
            None => html(StatusCode::SERVICE_UNAVAILABLE, ""),
        });
    };
    let (ordinal, path) =
        rest.split_once('/').map_or((rest, ""), |(ordinal, _)| (ordinal, &rest[ordinal.len()..]));
    let ordinal: u32 = ordinal.parse().ok()?;
    let member = *database.members.get(&ordinal)?;
    Some(role_check(database, settings, ordinal, member, path))
}

/// The service address leads to the leader where there is one, else to the first member.
fn answering(database: &Database) -> Option<(u32, Member)> {
    let ordinal = database
        .leader
        .filter(|leader| database.members.contains_key(leader))
        .or_else(|| database.members.keys().next().copied())?;
    Some((ordinal, *database.members.get(&ordinal)?))
}

fn role_check(
    database: &Database,
    settings: &WorldSettings,
    ordinal: u32,
    member: Member,
    path: &str,
) -> Answer {
    let runs = member.state == MemberState::Running;
    let leads = runs && database.leader == Some(ordinal);
    let standby = database.config.as_ref().is_some_and(is_standby);
    // Patroni asks the lock and the configuration; PostgreSQL itself follows a moment later.
    let good = match path {
        "" | "/primary" | "/master" | "/read-write" => leads && !standby && !member.recovering,
        "/leader" => leads,
        "/standby-leader" | "/standby_leader" => leads && standby,
        "/replica" => runs && !leads,
        "/read-only" | "/health" | "/readiness" => runs,
        "/liveness" | "/patroni" => true,
        _ => return html(StatusCode::NOT_FOUND, "Not Found"),
    };
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_answer(status, &member_status(database, settings, ordinal, member))
}

fn member_status(database: &Database, settings: &WorldSettings, ordinal: u32, member: Member) -> Value {
    let version = settings.patroni_version;
    let mut patroni = json!({"version": version.number(), "scope": DATABASE});
    if version == PatroniVersion::V4 {
        patroni["name"] = json!(format!("{DATABASE}-{ordinal}"));
    }
    let data = database.volumes.get(&ordinal);
    let (MemberState::Running, Some(data)) = (member.state, data) else {
        return json!({"state": state_word(database, settings, ordinal, member, false),
            "role": "replica", "patroni": patroni});
    };
    let leads = database.leader == Some(ordinal);
    let standby = database.config.as_ref().is_some_and(is_standby);
    let role = match (leads, standby, member.recovering, version) {
        (true, false, false, PatroniVersion::V3) => "master",
        (true, false, false, PatroniVersion::V4) => "primary",
        (true, true, _, _) => "standby_leader",
        _ => "replica",
    };
    let mut shown = json!({
        "state": "running", "role": role, "server_version": 150_018,
        "xlog": if member.recovering {
            json!({"received_location": data.lsn, "replayed_location": data.lsn,
                "replayed_timestamp": null, "paused": false})
        } else {
            json!({"location": data.lsn})
        },
        "timeline": data.timeline,
    });
    if version == PatroniVersion::V4 && member.streaming {
        shown["replication_state"] = json!("streaming");
    }
    if database.leader.is_none() {
        shown["cluster_unlocked"] = json!(true);
    }
    shown["database_system_identifier"] = json!(data.system.to_string());
    shown["patroni"] = patroni;
    shown
}

fn state_word(
    database: &Database,
    settings: &WorldSettings,
    ordinal: u32,
    member: Member,
    in_cluster: bool,
) -> &'static str {
    match member.state {
        MemberState::Starting(_) => "starting",
        MemberState::Creating(_) => "creating replica",
        MemberState::Running
            if in_cluster
                && settings.patroni_version == PatroniVersion::V4
                && member.streaming
                && (member.recovering || database.leader != Some(ordinal)) =>
        {
            "streaming"
        }
        MemberState::Running => "running",
    }
}

fn cluster(database: &Database, settings: &WorldSettings, members_url: &str) -> Value {
    let standby = database.config.as_ref().is_some_and(is_standby);
    let members: Vec<Value> = database
        .members
        .iter()
        .map(|(ordinal, member)| {
            let role = match (database.leader == Some(*ordinal), standby) {
                (true, true) => "standby_leader",
                (true, false) => "leader",
                (false, _) => "replica",
            };
            let host = format!("{DATABASE}-{ordinal}.lab");
            let mut shown = json!({
                "name": format!("{DATABASE}-{ordinal}"), "role": role,
                "state": state_word(database, settings, *ordinal, *member, true),
                "api_url": format!("{members_url}/{ordinal}/patroni"), "host": host, "port": 5432,
            });
            let data = database.volumes.get(ordinal).filter(|_| member.state == MemberState::Running);
            if let Some(data) = data {
                add_position(&mut shown, data, role, settings.patroni_version);
            } else if role == "replica" {
                shown["lag"] = json!("unknown");
            }
            shown
        })
        .collect();
    let mut shown = json!({"members": members});
    if settings.patroni_version == PatroniVersion::V4 {
        shown["scope"] = json!(DATABASE);
    }
    shown
}

fn add_position(shown: &mut Value, data: &Data, role: &str, version: PatroniVersion) {
    shown["timeline"] = json!(data.timeline);
    if role != "replica" {
        return;
    }
    if version == PatroniVersion::V4 {
        let lsn = format!("{:X}/{:X}", data.lsn >> 32, data.lsn & 0xffff_ffff);
        shown["receive_lag"] = json!(0);
        shown["receive_lsn"] = json!(lsn);
        shown["replay_lag"] = json!(0);
        shown["replay_lsn"] = json!(lsn);
        shown["lag"] = json!(0);
        shown["lsn"] = json!(lsn);
    } else {
        shown["lag"] = json!(0);
    }
}

fn history(database: &Database) -> Value {
    let switches = database.leader_data().map(|data| data.switches.clone()).unwrap_or_default();
    switches
        .into_iter()
        .map(|(timeline, lsn)| json!([timeline, lsn, "no recovery target specified"]))
        .collect()
}

fn patch_config(site: &mut Site, settings: &WorldSettings, request: &Request) -> Answer {
    if let Some((user, password)) = &settings.patroni_basic {
        let wanted = format!("Basic {}", BASE64.encode(format!("{user}:{password}")));
        match request.header("authorization") {
            Some(sent) if sent == wanted => {}
            sent => {
                return unauthorized(if sent.is_some() {
                    "not authenticated"
                } else {
                    "no auth header received"
                });
            }
        }
    }
    match serde_json::from_slice::<Value>(&request.body) {
        Ok(Value::Object(patch)) if !patch.is_empty() => {
            let patched = site.database.patch_config(&Value::Object(patch));
            site.write_config(settings);
            match patched {
                Some(config) => json_answer(StatusCode::OK, &config),
                None => html(StatusCode::SERVICE_UNAVAILABLE, "no configuration yet"),
            }
        }
        _ => html(StatusCode::BAD_REQUEST, "Bad Request"),
    }
}

fn unauthorized(why: &str) -> Answer {
    let mut answer = text_answer(StatusCode::UNAUTHORIZED, "text/html", why.to_owned());
    let realm = http::HeaderValue::from_static("Basic realm=\"Patroni\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
    answer
}

fn html(status: StatusCode, why: &str) -> Answer {
    let code = status.as_u16();
    let body = format!(
        "<!DOCTYPE HTML><html><head><title>Error response</title></head><body><h1>Error response</h1>\
         <p>Error code: {code}</p><p>Message: {why}.</p></body></html>"
    );
    text_answer(status, "text/html;charset=utf-8", body)
}
