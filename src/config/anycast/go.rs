//! The Go predecessor's form: `announcer`, a list of `services`, `metrics`.
//!
//! A service without `prefixes` of its own shares `announcer.routes` with the others of that sort; such a route is
//! announced only while all of them are healthy.

use serde_json::Value;

use super::checks::{self, Home};
use super::fields::Fields;
use super::service::{self, Defaults};
use super::{AnnouncerRef, Anycast, Dialect, Route, Service, bgp};

/// Reads the whole file.
pub(super) fn read(root: &Fields<'_>) -> Anycast {
    let mut config = service::whole(root, Dialect::Go);
    let mut shared = Vec::new();
    let services = root.list("services");
    let own_everywhere = !services.is_empty()
        && services.iter().all(|service| service.get("prefixes").is_some_and(|prefixes| !prefixes.is_null()));
    match root.table("announcer") {
        Some(announcer) => {
            let (section, routes, warnings) = bgp::read_with_routes(&announcer, own_everywhere);
            config.bgp = Some(section);
            config.warnings.extend(warnings);
            shared = routes.into_iter().map(|key| Route { announcer: AnnouncerRef::Bgp, key }).collect();
        }
        None if root.has("announcer") => {}
        None => {
            for key in ["router_id", "local_address", "local_asn", "routes", "peers"] {
                root.problem(&format!("announcer.{key}"), None, "cannot be blank");
            }
        }
    }
    metrics(root, &mut config);
    if services.is_empty() {
        root.problem("services", None, "cannot be blank: at least one service is wanted");
    }
    for (index, value) in services.iter().enumerate() {
        let table = root.enter(&format!("services[{index}]"), value);
        config.services.extend(table.map(|table| one(&table, &shared, index, &mut config.warnings)));
    }
    root.finish();
    service::settle(&mut config, root);
    config
}

fn metrics(root: &Fields<'_>, config: &mut Anycast) {
    let Some(metrics) = root.table("metrics") else {
        if !root.has("metrics") {
            for key in ["enabled", "address"] {
                root.problem(&format!("metrics.{key}"), None, "cannot be blank");
            }
        }
        return;
    };
    if !metrics.has("enabled") {
        metrics.problem("enabled", None, "true or false is wanted");
    }
    let enabled = metrics.flag("enabled", false);
    let address = metrics.text("address").filter(|address| !address.is_empty());
    match address {
        Some(address) if enabled => {
            if address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                metrics.problem("address", Some(&address), "HOST:PORT of the listener is wanted");
            }
            config.metrics_listen = Some(address);
        }
        None if enabled => metrics.problem("address", None, "HOST:PORT of the listener is wanted"),
        Some(_) | None => {}
    }
    metrics.finish();
}

fn one(table: &Fields<'_>, shared: &[Route], index: usize, warnings: &mut Vec<String>) -> Service {
    let name = table.required("name", "the service's name cannot be blank");
    let defaults = Defaults { interval: Some(table.required_duration("check_interval")) };
    let mut checks = Vec::new();
    for (index, value) in table.list("checks").iter().enumerate() {
        let Some(item) = table.enter(&format!("checks[{index}]"), value) else { continue };
        let kind = item.required("kind", "the kind of the check cannot be blank");
        let name = item.text("name");
        if let Some(spec) = item.table("spec") {
            let home = Home { schedule: &item, spec: &spec, flat: false };
            let known = checks::shorthand(&kind).is_some();
            if !known && !kind.is_empty() {
                item.problem("kind", Some(&kind), checks::unknown_kind());
            }
            if known {
                let check = checks::read(&kind, name, &home, &defaults, &checks);
                spec.finish();
                item.finish();
                checks.extend(check);
            }
        } else if !item.has("spec") {
            item.problem("spec", None, "cannot be blank: a table is wanted");
        }
    }
    if checks.is_empty() && table.list("checks").is_empty() && !table.flag("always_announce", false) {
        table.problem("checks", None, "cannot be blank: at least one check is wanted");
    }
    let routes = if table.has("prefixes") { own_routes(table, warnings) } else { shared.to_vec() };
    let service = service::read(name, table, checks, routes, index);
    table.finish();
    service
}

fn own_routes(table: &Fields<'_>, warnings: &mut Vec<String>) -> Vec<Route> {
    let announcer = match table.text("announcer").as_deref() {
        None | Some("bgp") => AnnouncerRef::Bgp,
        Some("bird") => AnnouncerRef::Bird,
        Some("frr" | "frrouting") => AnnouncerRef::Frr { vtysh: "/usr/bin/vtysh".into() },
        Some(other) => {
            table.problem("announcer", Some(&other), "one of bgp, frr and bird is wanted");
            AnnouncerRef::Bgp
        }
    };
    let mut routes = Vec::new();
    for (index, value) in table.list("prefixes").iter().enumerate() {
        let path = format!("prefixes[{index}]");
        let (text, vrf) = match value {
            Value::String(text) => (text.clone(), None),
            other => {
                let Some(fields) = table.enter(&path, other) else { continue };
                let text = fields.required("prefix", "a network is wanted");
                let vrf = fields.text("vrf").filter(|vrf| !vrf.is_empty());
                fields.finish();
                if text.is_empty() {
                    continue;
                }
                (text, vrf)
            }
        };
        match service::prefix(&text, vrf, true) {
            Ok((key, cut)) => {
                if cut {
                    warnings.push(format!("{path} = {text}: its host bits are cleared, announced is {key}"));
                }
                routes.push(Route { announcer: announcer.clone(), key });
            }
            Err(want) => table.problem(&path, Some(&text), want),
        }
    }
    routes
}
