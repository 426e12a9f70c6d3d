//! What each daemon shows of a route, and in which words.

use crate::bgp_lab::{BIRD, FRR, GOBGP, Lab};

/// What the daemon shows of a route, without blanks; empty where it has none.
pub fn shown(lab: &Lab, host: u8, prefix: &str) -> String {
    let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
    let text = match host {
        FRR => {
            Some(lab.frr_route(prefix)).filter(|r| !r.is_null()).map(|r| r.to_string()).unwrap_or_default()
        }
        BIRD => lab.bird_route(prefix),
        GOBGP => {
            let table = lab.gobgp(&["global", "rib", "-a", family]).unwrap_or_default();
            table.lines().filter(|l| l.contains(prefix)).collect()
        }
        _ => {
            let events = lab.exabgp_events();
            let about: Vec<String> =
                events.iter().map(ToString::to_string).filter(|text| text.contains(prefix)).collect();
            let last = about.last().cloned().unwrap_or_default();
            if last.contains("\"withdraw\"") { String::new() } else { last }
        }
    };
    text.replace([' ', '\t', '\n'], "")
}

/// How a daemon writes something about a route, without blanks.
pub fn words(host: u8, what: &str) -> &'static str {
    let [frr, bird, gobgp, exabgp] = match what {
        "as" => ["\"4200000001\"", "as_path:4200000001BGP", "4200000001", "\"as-path\":[4200000001]"],
        "prepend" => [
            "42000000014200000001420000000", /* the rest differs by what follows */
            "as_path:420000000142000000014200000001",
            "420000000142000000014200000001",
            "[4200000001,4200000001,4200000001]",
        ],
        "med" => ["\"metric\":50", "med:50", "{Med:50}", "\"med\":50"],
        "community" => ["\"65001:7\"", "(65001,7)", "65001:7", "[65001,7]"],
        "large" => ["1:2:3", "(1,2,3)", "1:2:3", "[1,2,3]"],
        "extended" => ["RT:65001:9", "(rt,65001,9)", "65001:9", "65001:9"],
        "gshut" => ["gracefulShutdown", "(65535,0)", "planned-shut", "[65535,0]"],
        "local" => ["\"locPrf\":100", "local_pref:100", "{LocalPref:100}", "\"local-preference\":100"],
        _ => unreachable!(),
    };
    match host {
        FRR => frr,
        BIRD => bird,
        GOBGP => gobgp,
        _ => exabgp,
    }
}
