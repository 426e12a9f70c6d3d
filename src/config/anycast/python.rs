//! The Python predecessor's form: `[services.NAME]` with prefixes and checks by type.
//!
//! A check's own keys and its schedule stand in one table; a text in place of a table is its only required key.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::checks::{self, Home};
use super::fields::Fields;
use super::service::{self, Defaults};
use super::{AnnouncerRef, Anycast, ConfiguredCheck, Dialect, Route, Service, bgp};

/// Where `vtysh` is when nothing else is said.
const VTYSH: &str = "/usr/bin/vtysh";

/// Reads the whole file. Unknown keys beside `services` were always ignored; they become warnings.
pub(super) fn read(root: &Fields<'_>) -> Anycast {
    let mut config = service::whole(root, Dialect::Python);
    match root.table("services") {
        Some(services) => {
            for (index, key) in services.keys().enumerate() {
                let table = services.free(key).and_then(|value| services.enter(key, value));
                config.services.extend(table.map(|table| one(key, &table, index)));
            }
        }
        None if root.has("services") => {}
        None => root.problem("services", None, "a table of services is wanted"),
    }
    config.bgp = root.table("announcer").map(|announcer| bgp::read(&announcer, false).0);
    for (key, hint) in root.unknown() {
        config.warnings.push(format!("{key}: {hint}"));
    }
    service::settle(&mut config, root);
    config
}

fn one(key: &str, table: &Fields<'_>, index: usize) -> Service {
    let name = table.text("name").unwrap_or_else(|| key.to_owned());
    let defaults = Defaults { interval: None };
    let always = table.flag("always_announce", false);
    let mut checks = Vec::new();
    let kinds = table.table("checks");
    if kinds.is_none() && !table.has("checks") {
        table.problem("checks", None, "a table of checks by type is wanted");
    }
    if let Some(kinds) = kinds {
        for kind in kinds.keys() {
            read_kind(&kinds, kind, &defaults, &mut checks);
        }
        if checks.is_empty() && !always {
            let want = "at least one check is wanted; `always_announce = true` announces without";
            table.problem("checks", None, want);
        }
    }
    let routes = table.table("prefixes").map(|types| routes(&types));
    if routes.is_none() && !table.has("prefixes") {
        table.problem("prefixes", None, "a table of prefixes by type is wanted");
    }
    let service = service::read(name, table, checks, routes.unwrap_or_default(), index);
    table.finish();
    service
}

fn read_kind(kinds: &Fields<'_>, kind: &str, defaults: &Defaults, checks: &mut Vec<ConfiguredCheck>) {
    let items = match kinds.free(kind) {
        Some(Value::Array(items)) => items,
        Some(other) => {
            let want = "a list is wanted, such as [\"name\"]";
            kinds.problem(kind, Some(other), want);
            return;
        }
        None => return,
    };
    let Some(shorthand) = checks::shorthand(kind) else {
        kinds.problem(kind, None, checks::unknown_kind());
        return;
    };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{kind}[{index}]");
        let short: Value = match item {
            Value::String(text) => {
                let mut map = Map::new();
                map.insert(shorthand.to_owned(), Value::String(text.clone()));
                Value::Object(map)
            }
            other => other.clone(),
        };
        // The item is a value of ours when it was a text; the reader borrows it only for this call.
        let Some(fields) = kinds.enter(&path, &short) else { continue };
        let name = if kind == "cabourotte" { None } else { fields.text("name") };
        let home = Home { schedule: &fields, spec: &fields, flat: true };
        let check = checks::read(kind, name, &home, defaults, checks);
        fields.finish();
        checks.extend(check);
    }
}

fn routes(types: &Fields<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for kind in types.keys() {
        let kind_known = match kind {
            "frrouting" | "frr" | "bgp" | "bird" => kind,
            other => {
                let want = "the prefix type is not known; known: frrouting, bgp, bird";
                types.problem(other, None, want);
                continue;
            }
        };
        let Some(Value::Array(items)) = types.free(kind) else {
            types.problem(
                kind,
                types.free(kind).map(|v| v as &dyn std::fmt::Display),
                "a list of prefixes is wanted",
            );
            continue;
        };
        for (index, item) in items.iter().enumerate() {
            let path = format!("{kind}[{index}]");
            routes.extend(route(types, kind_known, &path, item));
        }
    }
    routes
}

fn route(types: &Fields<'_>, kind: &str, path: &str, item: &Value) -> Option<Route> {
    let (text, vrf, vtysh) = match item {
        Value::String(text) => (text.clone(), None, None),
        other => {
            let fields = types.enter(path, other)?;
            let text = fields.required("prefix", "a network is wanted");
            let vrf = fields.text("vrf").filter(|vrf| !vrf.is_empty());
            let vtysh = matches!(kind, "frrouting" | "frr").then(|| fields.text("vtysh")).flatten();
            fields.finish();
            if text.is_empty() {
                return None;
            }
            (text, vrf, vtysh)
        }
    };
    let announcer = match kind {
        "bgp" => AnnouncerRef::Bgp,
        "bird" => AnnouncerRef::Bird,
        _ => AnnouncerRef::Frr { vtysh: PathBuf::from(vtysh.unwrap_or_else(|| VTYSH.to_owned())) },
    };
    match service::prefix(&text, vrf, false) {
        Ok((key, _)) => Some(Route { announcer, key }),
        Err(want) => {
            types.problem(path, Some(&text), want);
            None
        }
    }
}
