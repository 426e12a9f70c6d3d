//! What a service and a whole file may say in either dialect, beyond what the predecessors knew.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::fields::Fields;
use super::{
    AnnouncerRef, Anycast, ConfiguredCheck, Dialect, Graded, Route, Service, ShutdownRules, StartRule, bird,
};
use crate::announce::{PrefixKey, RouteAttributes};
use crate::rules::health::{Damping, Policy, Strategy};
use crate::rules::prefixes::{ByState, FailOpen, Sharing};

/// What the checks of a service inherit from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    /// Interval of checks that name none.
    pub(super) interval: Option<Duration>,
}

/// The settings of the whole file, without its services.
pub(super) fn whole(root: &Fields<'_>, dialect: Dialect) -> Anycast {
    // The settings of the rest of the agent, read elsewhere.
    let _ = root.get("env");
    let shutdown = root.table("shutdown").map(|table| shutdown(&table)).unwrap_or_default();
    let fail_open = root.table("fail_open").map(|table| {
        let min_healthy_percent = table.number("min_healthy_percent", 0.0, 100.0).unwrap_or(0.0);
        table.finish();
        FailOpen { min_healthy_percent }
    });
    let start = match root.text("on_start").as_deref() {
        // Whoever leaves its routes at the end wants to find them again at the start.
        None if shutdown.keep_routes => StartRule::KeepUntilVerdict,
        None | Some("withdraw") => StartRule::Withdraw,
        Some("keep-until-verdict") => StartRule::KeepUntilVerdict,
        Some(other) => {
            root.problem("on_start", Some(&other), "one of withdraw and keep-until-verdict is wanted");
            StartRule::Withdraw
        }
    };
    Anycast {
        dialect,
        services: Vec::new(),
        bgp: None,
        bird: root.table("bird").map(|table| bird::read(&table)),
        metrics_listen: None,
        shutdown,
        start,
        reconcile: root
            .duration("reconcile_interval")
            .unwrap_or(Duration::from_secs(30))
            .max(Duration::from_millis(100)),
        fail_open: fail_open.unwrap_or_default(),
        control_socket: root.text("control_socket").map(PathBuf::from),
        warnings: Vec::new(),
    }
}

fn shutdown(table: &Fields<'_>) -> ShutdownRules {
    let defaults = ShutdownRules::default();
    let keep_routes = match table.text("routes").as_deref() {
        None | Some("withdraw") => false,
        Some("keep") => true,
        Some(other) => {
            table.problem("routes", Some(&other), "one of withdraw and keep is wanted");
            false
        }
    };
    let reason = table.text("reason").unwrap_or(defaults.reason);
    if reason.len() > 255 {
        table.problem("reason", Some(&reason), "at most 255 bytes (RFC 9003)");
    }
    let rules = ShutdownRules {
        keep_routes,
        drain_delay: table.duration("drain_delay").unwrap_or(defaults.drain_delay),
        limit: table.duration("limit").unwrap_or(defaults.limit),
        reason,
    };
    table.finish();
    rules
}

/// A service's own settings; its checks and routes were read by the dialect.
pub(super) fn read(
    name: String,
    table: &Fields<'_>,
    checks: Vec<ConfiguredCheck>,
    routes: Vec<Route>,
    index: usize,
) -> Service {
    let name = if name.is_empty() { format!("services[{index}]") } else { name };
    let sharing = match table.text("sharing").as_deref() {
        None | Some("all") => Sharing::All,
        Some("any") => Sharing::Any,
        Some(other) => {
            table.problem("sharing", Some(&other), "one of all and any is wanted");
            Sharing::All
        }
    };
    let hold_unknown = match table.text("on_unknown").as_deref() {
        None | Some("withdraw") => false,
        Some("hold") => true,
        Some(other) => {
            table.problem("on_unknown", Some(&other), "one of withdraw and hold is wanted");
            false
        }
    };
    let quiet =
        checks.iter().map(|check| check.interval * 2 + check.deadline).max().unwrap_or(Duration::ZERO);
    let policy = Policy {
        start_delay_ms: millis(table.duration("start_delay").unwrap_or_default()),
        unknown_after_ms: millis(table.duration("unknown_after").unwrap_or(quiet)),
        damping: table.table("damping").map(|table| damping(&table)),
    };
    let drain_delay = table.duration("drain_delay").unwrap_or_default();
    Service {
        routes,
        strategy: strategy(table),
        policy,
        always_announce: table.flag("always_announce", false),
        disable_file: table.text("disable_file").map(PathBuf::from),
        sharing,
        hold_unknown,
        fail_open: table.flag("fail_open", false),
        drain_delay,
        attributes: by_state(table, drain_delay),
        checks,
        name,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn damping(table: &Fields<'_>) -> Damping {
    let hold = table.duration("hold").unwrap_or(Duration::from_secs(10));
    let damping = Damping {
        hold_ms: millis(hold),
        cap_ms: millis(table.duration("cap").unwrap_or(Duration::from_secs(300)).max(hold)),
        forget_ms: millis(table.duration("forget_after").unwrap_or(Duration::from_secs(600))),
    };
    table.finish();
    damping
}

fn strategy(table: &Fields<'_>) -> Strategy {
    let options = table.table("strategy_options");
    let name = table.text("strategy").unwrap_or_default();
    match name.as_str() {
        "" | "at_least_one" | "any_failed" => Strategy::AnyFailed,
        "all" | "all_failed" => Strategy::AllFailed,
        "all_in_group" => Strategy::GroupFailed,
        "at_least_n_percentage" => {
            let Some(options) = options else {
                table.problem("strategy_options", None, "a table with n, a fraction from 0 to 1, is wanted");
                return Strategy::AnyFailed;
            };
            let fraction = options.number("n", 0.0, 1.0).unwrap_or(0.0);
            options.finish();
            Strategy::MoreThanFraction(fraction)
        }
        "at_least_n_pass" => {
            let needed = options.as_ref().and_then(|options| options.integer("n", 1, 10_000));
            if needed.is_none() {
                table.problem(
                    "strategy_options",
                    None,
                    "a table with n, the number of checks that must pass",
                );
            }
            Strategy::FewerThanPass(needed.unwrap_or(1) as u32)
        }
        other => {
            let known = "at_least_one (any_failed), all (all_failed), all_in_group, at_least_n_percentage, at_least_n_pass";
            table.problem("strategy", Some(&other), format!("known strategies are {known}"));
            Strategy::AnyFailed
        }
    }
}

fn by_state(table: &Fields<'_>, drain_delay: Duration) -> ByState<Graded> {
    let up = attributes(table, "attributes").unwrap_or_default();
    let down = attributes(table, "down_attributes");
    let disabled = attributes(table, "disabled_attributes");
    let marked = RouteAttributes { graceful_shutdown: true, ..up.clone() };
    // Longer by three, so that a site that is well is preferred whatever its own path is.
    let longer = RouteAttributes { as_path_prepend: up.as_path_prepend.saturating_add(3), ..marked.clone() };
    let last_resort = down.clone().unwrap_or(longer);
    let graded = |class: u8, attributes: RouteAttributes| Graded { class, attributes };
    ByState {
        up: graded(9, up),
        down: down.map(|attributes| graded(2, attributes)),
        disabled: disabled.map(|attributes| graded(2, attributes)),
        draining: (!drain_delay.is_zero()).then(|| graded(5, marked)),
        last_resort: graded(1, last_resort),
    }
}

fn attributes(table: &Fields<'_>, key: &'static str) -> Option<RouteAttributes> {
    let table = table.table(key)?;
    let number = |key| table.integer(key, 0, u64::from(u32::MAX)).map(|value| value as u32);
    let communities = table.texts("communities");
    for community in &communities {
        if community.is_empty()
            || !community.is_ascii()
            || community.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            table.problem("communities", Some(community), "a:b, a:b:c, or rt:a:b is wanted");
        }
    }
    let read = RouteAttributes {
        next_hop: table.parsed::<IpAddr>("next_hop", "an address is wanted"),
        med: number("med"),
        local_pref: number("local_pref"),
        communities,
        as_path_prepend: table.integer("as_path_prepend", 0, 32).unwrap_or(0) as u8,
        graceful_shutdown: table.flag("graceful_shutdown", false),
    };
    table.finish();
    Some(read)
}

/// A prefix as both predecessors write it: bare address, length, netmask or hostmask. True = host bits were cleared.
///
/// # Errors
/// What would be right.
pub(super) fn prefix(
    text: &str,
    vrf: Option<String>,
    clear_host_bits: bool,
) -> Result<(PrefixKey, bool), String> {
    let want = || "a network is wanted, such as 203.0.113.53/32 or 2001:db8::53".to_owned();
    let net: IpNet = match text.trim().split_once('/') {
        None => IpNet::from(text.trim().parse::<IpAddr>().map_err(|_| want())?),
        Some((address, length)) => {
            let address: IpAddr = address.parse().map_err(|_| want())?;
            let length = match length.parse::<u8>() {
                Ok(length) => length,
                Err(_) => mask_length(address, length).ok_or_else(want)?,
            };
            IpNet::new(address, length).map_err(|_| want())?
        }
    };
    let cut = net.trunc() != net;
    if cut && !clear_host_bits {
        return Err(format!("it has host bits set; the network is {}", net.trunc()));
    }
    if net.prefix_len() == 0 {
        return Err("a default route is never announced".to_owned());
    }
    if is_bogon(&net) {
        return Err("this network means nothing beyond this machine or link".to_owned());
    }
    if let Some(name) = &vrf {
        // It becomes part of a router's command line.
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        if name.len() > 64 || !name.chars().all(allowed) {
            return Err(format!("VRF {name:?}: letters, digits and _ - . : are wanted"));
        }
    }
    Ok((PrefixKey { prefix: net.trunc(), vrf }, cut))
}

fn mask_length(address: IpAddr, mask: &str) -> Option<u8> {
    let IpAddr::V4(_) = address else { return None };
    let mask = u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?);
    let netmask = mask.leading_ones() + mask.trailing_zeros() == 32 || mask == 0;
    let hostmask = mask.leading_zeros() + mask.trailing_ones() == 32;
    match (netmask, hostmask) {
        (true, _) => Some(mask.leading_ones() as u8),
        (false, true) => Some(mask.leading_zeros() as u8),
        (false, false) => None,
    }
}

fn is_bogon(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(ip) => {
            let first = ip.octets()[0];
            first == 0 || ip.is_loopback() || ip.is_link_local() || first >= 224
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            first >> 8 == 0 || first & 0xffc0 == 0xfe80 || ip.is_multicast()
        }
    }
}

/// What can only be judged when everything is read.
pub(super) fn settle(config: &mut Anycast, root: &Fields<'_>) {
    config.services.sort_by(|a, b| a.name.cmp(&b.name));
    let mut owners: BTreeMap<&Route, Vec<&Service>> = BTreeMap::new();
    let mut repeated = Vec::new();
    for pair in config.services.windows(2) {
        if pair[0].name == pair[1].name {
            repeated.push(pair[0].name.clone());
        }
    }
    for service in &config.services {
        for route in &service.routes {
            owners.entry(route).or_default().push(service);
        }
    }
    let shared = owners.iter().filter(|(_, services)| services.len() > 1).map(|(route, services)| {
        let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        let any = services.iter().all(|service| service.sharing == Sharing::Any);
        let rule = if any { "any" } else { "all" };
        format!("{} is shared by {}: announced while {rule} of them are healthy", route.key, names.join(", "))
    });
    let mut warnings: Vec<String> = shared.take(20).collect();
    if config.bgp.is_none() && config.announcers().contains(&AnnouncerRef::Bgp) {
        root.problem("announcer", None, "prefixes of type bgp need this section");
    }
    if config.bird.is_none() && config.announcers().contains(&AnnouncerRef::Bird) {
        root.problem("bird", None, "prefixes of type bird need this section");
    }
    for name in repeated {
        root.problem("services", Some(&name), "two services have this name");
    }
    config.warnings.append(&mut warnings);
}
