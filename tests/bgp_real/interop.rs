//! The interoperability table of `docs/bgp.md`: every "must" and "should" row against every daemon, by observation.
//!
//! `UPDATE_DOCS=1 cargo nextest run --test bgp_real -E 'test(interoperability)'` writes the table; without it the test compares.

mod further;
mod observe;

use std::collections::BTreeMap;
use std::time::Duration;

use switchover_agent::announce::speaker::SpeakerAnnouncer;
use switchover_agent::announce::{Announcer, RouteAttributes};
use switchover_agent::bgp::NeighbourState;
use switchover_agent::config::Secret;
use switchover_agent::config::bgp::{BfdSettings, NeighbourSettings, Role};

use observe::{shown, words};

use crate::bgp_lab::daemons::Peering;
use crate::bgp_lab::{BIRD, EXABGP, FRR, GOBGP, Lab, PATIENCE, asn, within};
use crate::{OUR_ASN, neighbour, plain, routes, speaker, withdraw};

const V4: &str = "203.0.113.53/32";
const V6: &str = "2001:db8:53::/48";
const HOSTS: [u8; 4] = [FRR, BIRD, GOBGP, EXABGP];

/// Rows in the order of the table: what, RFC, need.
const ROWS: [(&str, &str, &str); 32] = [
    ("Session, eBGP", "4271", "must"),
    ("Session, iBGP: empty AS_PATH, LOCAL_PREF", "4271", "must"),
    ("AS number above 65535", "6793", "must"),
    ("Neighbour without capabilities: AS_TRANS, AS4_PATH", "6793", "must"),
    ("Hanging neighbour: hold timer expired", "4271", "must"),
    ("Wrong AS: refused", "4271", "must"),
    ("Extended optional parameters understood", "9072", "must"),
    ("Received routes: none kept, none passed on", "8212", "must"),
    ("IPv4 routes", "4271", "must"),
    ("IPv6 routes over an IPv4 session", "4760", "must"),
    ("Session over IPv6, both families", "4760", "must"),
    ("IPv4 routes with an IPv6 next hop", "8950", "should"),
    ("Withdrawal, both families", "4271, 4760", "must"),
    ("MED", "4271", "must"),
    ("AS_PATH prepend", "4271", "must"),
    ("Communities", "1997", "must"),
    ("Large communities", "8092", "must"),
    ("Extended communities", "4360", "should"),
    ("GRACEFUL_SHUTDOWN", "8326", "must"),
    ("Route refresh", "2918", "must"),
    ("Enhanced route refresh", "7313", "should"),
    ("Malformed UPDATE: session stays", "7606", "must"),
    ("TCP-MD5", "2385", "must"),
    ("TCP-MD5, wrong key: no session", "2385", "must"),
    ("GTSM", "5082", "must"),
    ("Multihop TTL", "4271", "must"),
    ("Our shutdown reason shown", "9003", "must"),
    ("Their shutdown reason read", "9003", "must"),
    ("Roles, only-to-customer", "9234", "should"),
    ("Graceful restart: routes kept", "4724", "should"),
    ("BFD, single hop", "5880, 5881", "should"),
    ("BFD, multihop", "5880, 5883", "should"),
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cell {
    Yes,
    No,
    NotApplicable,
}

type Column = BTreeMap<&'static str, Cell>;

fn start(lab: &mut Lab, host: u8, peering: &Peering) {
    match host {
        FRR if peering.extra.contains("bfd") => lab.start_frr(peering, &["zebra", "bfdd", "bgpd"]),
        FRR => lab.start_frr(peering, &["zebra", "bgpd"]),
        BIRD => lab.start_bird(peering),
        GOBGP => lab.start_gobgp(peering),
        _ => lab.start_exabgp(peering),
    }
}

async fn comes_true(condition: impl AsyncFnMut() -> bool) -> Cell {
    if within(PATIENCE, condition).await { Cell::Yes } else { Cell::No }
}

fn is_up(announcer: &SpeakerAnnouncer) -> bool {
    announcer.neighbours()[0].state == NeighbourState::Established
}

async fn has(lab: &Lab, host: u8, prefix: &str, needle: &str) -> Cell {
    comes_true(async || shown(lab, host, prefix).contains(needle)).await
}

fn both(a: Cell, b: Cell) -> Cell {
    if a == Cell::Yes && b == Cell::Yes { Cell::Yes } else { Cell::No }
}

/// Attributes, refresh and reasons over one eBGP session with MD5.
async fn main_session(host: u8, column: &mut Column) {
    let mut lab = Lab::new(&[]).unwrap();
    start(&mut lab, host, &Peering { password: Some("s3cret".to_owned()), ..Peering::with(OUR_ASN) });
    let settings = NeighbourSettings { password: Some(Secret::new("s3cret")), ..neighbour(&lab, host) };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings]);
    announcer.set(&plain(&[V4, V6])).await.unwrap();
    let up = comes_true(async || is_up(&announcer)).await;
    column.insert("Session, eBGP", up.clone());
    column.insert("TCP-MD5", up);
    column.insert("AS number above 65535", has(&lab, host, V4, words(host, "as")).await);
    column.insert("IPv4 routes", comes_true(async || !shown(&lab, host, V4).is_empty()).await);
    column.insert(
        "IPv6 routes over an IPv4 session",
        comes_true(async || !shown(&lab, host, V6).is_empty()).await,
    );
    let attributes = RouteAttributes {
        med: Some(50),
        communities: vec!["65001:7".into(), "1:2:3".into(), "rt:65001:9".into()],
        as_path_prepend: 2,
        ..RouteAttributes::default()
    };
    announcer.set(&routes(&[(V4, attributes.clone()), (V6, RouteAttributes::default())])).await.unwrap();
    for (row, what) in [
        ("MED", "med"),
        ("AS_PATH prepend", "prepend"),
        ("Communities", "community"),
        ("Large communities", "large"),
        ("Extended communities", "extended"),
    ] {
        column.insert(row, has(&lab, host, V4, words(host, what)).await);
    }
    refresh(&lab, host, &announcer, column).await;
    let leaving = RouteAttributes { graceful_shutdown: true, ..attributes };
    announcer.set(&routes(&[(V4, leaving), (V6, RouteAttributes::default())])).await.unwrap();
    column.insert("GRACEFUL_SHUTDOWN", has(&lab, host, V4, words(host, "gshut")).await);
    announcer.set(&plain(&[])).await.unwrap();
    let gone = async || shown(&lab, host, V4).is_empty() && shown(&lab, host, V6).is_empty();
    column.insert("Withdrawal, both families", comes_true(gone).await);
    column.insert("Their shutdown reason read", their_reason(&lab, host, &announcer).await);
    announcer.shutdown(withdraw("bye")).await;
}

async fn refresh(lab: &Lab, host: u8, announcer: &SpeakerAnnouncer, column: &mut Column) {
    let us = lab.v4(1).to_string();
    let before = announcer.neighbours()[0].sent;
    match host {
        FRR => drop(lab.vtysh(&[&format!("clear bgp ipv4 unicast {us} soft in")])),
        BIRD => drop(lab.birdc("reload in agent")),
        // GoBGP replays its own copy and never asks; ExaBGP asks only through its API.
        _ => {
            column.insert("Route refresh", Cell::NotApplicable);
            column.insert("Enhanced route refresh", Cell::NotApplicable);
            return;
        }
    }
    let plain = comes_true(async || {
        let now = &announcer.neighbours()[0];
        now.received.refresh > 0 && now.sent.update > before.update
    });
    column.insert("Route refresh", plain.await);
    let marks = comes_true(async || announcer.neighbours()[0].sent.refresh >= before.refresh + 2);
    column.insert("Enhanced route refresh", marks.await);
}

async fn their_reason(lab: &Lab, host: u8, announcer: &SpeakerAnnouncer) -> Cell {
    let us = lab.v4(1).to_string();
    match host {
        FRR => drop(lab.vtysh(&[
            "configure terminal",
            &format!("router bgp {}", asn(FRR)),
            &format!("neighbor {us} shutdown message planned work"),
        ])),
        BIRD => drop(lab.birdc("disable agent \"planned work\"")),
        GOBGP => drop(lab.gobgp(&["neighbor", &us, "shutdown", "--reason", "planned work"])),
        _ => return Cell::NotApplicable,
    }
    let cell = comes_true(async || {
        let received = announcer.neighbours()[0].notification_received.clone();
        received.is_some_and(|n| n.text.as_deref() == Some("planned work"))
    })
    .await;
    if cell == Cell::No {
        println!("host {host} said {:?}", announcer.neighbours()[0].notification_received);
    }
    cell
}

async fn our_reason(host: u8, column: &mut Column) {
    let mut lab = Lab::new(&[]).unwrap();
    if host == EXABGP {
        // Its listener leaves the TTL alone, so the handshake needs the system's to be 255.
        lab.inside(&["sysctl", "-qw", "net.ipv4.ip_default_ttl=255"]).unwrap();
    }
    start(&mut lab, host, &Peering { gtsm: true, ..Peering::with(OUR_ASN) });
    let settings = NeighbourSettings { ttl_security_hops: Some(1), ..neighbour(&lab, host) };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings]);
    announcer.set(&plain(&[V4])).await.unwrap();
    column.insert("GTSM", comes_true(async || !shown(&lab, host, V4).is_empty()).await);
    announcer.shutdown(withdraw("planned work")).await;
    let seen = comes_true(async || match host {
        FRR => lab.vtysh_json("show bgp neighbors json").to_string().contains("planned work"),
        BIRD => lab.birdc("show protocols all agent").contains("planned work"),
        GOBGP => lab.log("gobgpd.log").contains("planned work"),
        _ => false,
    });
    let cell = if host == EXABGP { Cell::NotApplicable } else { seen.await };
    column.insert("Our shutdown reason shown", cell);
}

async fn internal(host: u8, column: &mut Column) {
    let mut lab = Lab::new(&[]).unwrap();
    start(&mut lab, host, &Peering::with(asn(host)));
    let mut announcer = speaker(&lab, asn(host), vec![neighbour(&lab, host)]);
    announcer.set(&plain(&[V4])).await.unwrap();
    let cell = has(&lab, host, V4, words(host, "local")).await;
    column.insert("Session, iBGP: empty AS_PATH, LOCAL_PREF", cell);
    announcer.shutdown(withdraw("bye")).await;
}

async fn over_ipv6(host: u8, column: &mut Column) {
    let mut lab = Lab::new(&[]).unwrap();
    let (extra, bird_ipv4) = match host {
        FRR => (" neighbor {us} capability extended-nexthop", ""),
        BIRD => ("", "extended next hop on;"),
        _ => ("", ""),
    };
    let peering = Peering {
        over_ipv6: true,
        extra: extra.to_owned(),
        bird_ipv4: bird_ipv4.to_owned(),
        ..Peering::with(OUR_ASN)
    };
    start(&mut lab, host, &peering);
    let settings = |next_hop_v4| NeighbourSettings {
        address: lab.v6(host).into(),
        local_address: Some(lab.v6(1).into()),
        next_hop_v4,
        ..neighbour(&lab, host)
    };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings(Some(lab.v4(1)))]);
    announcer.set(&plain(&[V4, V6])).await.unwrap();
    let seen = async || !shown(&lab, host, V4).is_empty() && !shown(&lab, host, V6).is_empty();
    column.insert("Session over IPv6, both families", comes_true(seen).await);
    announcer.shutdown(withdraw("bye")).await;
    let row = "IPv4 routes with an IPv6 next hop";
    if !matches!(host, FRR | BIRD) {
        column.insert(row, Cell::NotApplicable);
        return;
    }
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings(None)]);
    announcer.set(&plain(&[V4])).await.unwrap();
    column.insert(row, has(&lab, host, V4, &lab.v6(1).to_string()).await);
    announcer.shutdown(withdraw("bye")).await;
}

async fn multihop(host: u8, column: &mut Column) {
    let mut lab = Lab::new(&[]).unwrap();
    let extra = match host {
        FRR => " neighbor {us} ebgp-multihop 5",
        BIRD => "multihop 5;",
        GOBGP => "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 5\n",
        _ => "outgoing-ttl 5;",
    };
    start(&mut lab, host, &Peering { extra: extra.to_owned(), ..Peering::with(OUR_ASN) });
    let settings = NeighbourSettings { multihop_ttl: Some(5), ..neighbour(&lab, host) };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings]);
    announcer.set(&plain(&[V4])).await.unwrap();
    column.insert("Multihop TTL", comes_true(async || !shown(&lab, host, V4).is_empty()).await);
    announcer.shutdown(withdraw("bye")).await;
}

/// BIRD as a neighbour from before RFC 5492, ExaBGP as one that sends broken attributes.
async fn oddities(host: u8, column: &mut Column) {
    let (old, broken) =
        ("Neighbour without capabilities: AS_TRANS, AS4_PATH", "Malformed UPDATE: session stays");
    column.insert(old, Cell::NotApplicable);
    column.insert(broken, Cell::NotApplicable);
    let mut lab = Lab::new(&[]).unwrap();
    if host == BIRD {
        start(&mut lab, host, &Peering { extra: "capabilities off;".to_owned(), ..Peering::with(23456) });
        let mut announcer = speaker(&lab, OUR_ASN, vec![neighbour(&lab, host)]);
        announcer.set(&plain(&[V4])).await.unwrap();
        column.insert(old, has(&lab, host, V4, words(host, "as")).await);
        announcer.shutdown(withdraw("bye")).await;
    }
    if host == EXABGP {
        // COMMUNITIES of three bytes.
        let line = "announce route 198.51.100.0/24 next-hop self attribute [0x08 0xc0 0x010203]\n";
        lab.file("exabgp.commands", line);
        start(&mut lab, host, &Peering::with(OUR_ASN));
        let announcer = speaker(&lab, OUR_ASN, vec![neighbour(&lab, host)]);
        let counted = comes_true(async || announcer.neighbours()[0].malformed_updates > 0).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let alive = if is_up(&announcer) { Cell::Yes } else { Cell::No };
        column.insert(broken, both(counted, alive));
    }
}

async fn restart(host: u8, column: &mut Column) {
    let row = "Graceful restart: routes kept";
    let extra = match host {
        FRR => " neighbor {us} graceful-restart-helper",
        BIRD => "graceful restart aware;",
        _ => {
            column.insert(row, Cell::NotApplicable);
            return;
        }
    };
    let mut lab = Lab::new(&[]).unwrap();
    start(&mut lab, host, &Peering { extra: extra.to_owned(), ..Peering::with(OUR_ASN) });
    let settings = || NeighbourSettings { graceful_restart_secs: Some(60), ..neighbour(&lab, host) };
    let mut first = speaker(&lab, OUR_ASN, vec![settings()]);
    first.set(&plain(&[V4])).await.unwrap();
    let there = comes_true(async || !shown(&lab, host, V4).is_empty()).await;
    first.shutdown(switchover_agent::announce::Shutdown::KeepRoutes).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kept = if shown(&lab, host, V4).is_empty() { Cell::No } else { Cell::Yes };
    let mut second = speaker(&lab, OUR_ASN, vec![settings()]);
    second.set(&plain(&[V4])).await.unwrap();
    let back = comes_true(async || is_up(&second)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let still = if shown(&lab, host, V4).is_empty() { Cell::No } else { Cell::Yes };
    column.insert(row, both(both(there, kept), both(back, still)));
    second.shutdown(withdraw("bye")).await;
}

/// We are the provider: a customer has to accept, and the route carries our AS as only-to-customer.
async fn roles(host: u8, column: &mut Column) {
    let row = "Roles, only-to-customer";
    let extra = match host {
        FRR => " neighbor {us} local-role customer strict-mode",
        BIRD => "local role customer; require roles;",
        _ => {
            column.insert(row, Cell::NotApplicable);
            return;
        }
    };
    let mut lab = Lab::new(&[]).unwrap();
    start(&mut lab, host, &Peering { extra: extra.to_owned(), ..Peering::with(OUR_ASN) });
    let settings = NeighbourSettings { role: Some(Role::Provider), ..neighbour(&lab, host) };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings]);
    announcer.set(&plain(&[V4])).await.unwrap();
    let needle = if host == FRR { "\"otc\":4200000001" } else { "otc:4200000001" };
    column.insert(row, has(&lab, host, V4, needle).await);
    announcer.shutdown(withdraw("bye")).await;
}

async fn bfd(host: u8, column: &mut Column) {
    let row = "BFD, single hop";
    let (extra, globals) = match host {
        FRR => (" neighbor {us} bfd 3 500 500", ""),
        BIRD => ("bfd on;", "protocol bfd { interface \"*\" { interval 500 ms; multiplier 3; }; }"),
        _ => {
            column.insert(row, Cell::NotApplicable);
            return;
        }
    };
    let mut lab = Lab::new(&[]).unwrap();
    let peering = Peering { extra: extra.to_owned(), globals: globals.to_owned(), ..Peering::with(OUR_ASN) };
    start(&mut lab, host, &peering);
    let timing = BfdSettings { transmit_ms: 500, receive_ms: 500, ..BfdSettings::default() };
    let settings = NeighbourSettings { bfd: Some(timing), ..neighbour(&lab, host) };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings]);
    let up = comes_true(async || {
        is_up(&announcer)
            && match host {
                FRR => lab.vtysh_json("show bfd peers json").to_string().contains("\"status\":\"up\""),
                _ => lab.birdc("show bfd sessions").contains("Up "),
            }
    });
    column.insert(row, up.await);
    announcer.shutdown(withdraw("bye")).await;
}

fn table(columns: &[Column]) -> String {
    let mut text = String::from(
        "| Topic | RFC | Need | FRR 8.4 | BIRD 2.0 | GoBGP 3.10 | ExaBGP 4.2 |\n|---|---|---|---|---|---|---|\n",
    );
    for (row, rfc, need) in ROWS {
        let cells: Vec<&str> = columns
            .iter()
            .map(|column| match &column[row] {
                Cell::Yes => "yes",
                Cell::No => "**no**",
                Cell::NotApplicable => "n/a",
            })
            .collect();
        text.push_str(&format!("| {row} | {rfc} | {need} | {} |\n", cells.join(" | ")));
    }
    text
}

const BEGIN: &str = "<!-- interoperability table: begin -->\n";
const END: &str = "<!-- interoperability table: end -->";

#[tokio::test]
async fn interoperability_table_is_what_the_documentation_shows() {
    let needs = ["bgpd", "zebra", "vtysh", "bfdd", "bird", "birdc", "gobgpd", "gobgp", "exabgp"];
    if Lab::new(&needs).is_none() {
        return;
    }
    let mut columns = Vec::new();
    for host in HOSTS {
        let mut column = Column::new();
        main_session(host, &mut column).await;
        our_reason(host, &mut column).await;
        internal(host, &mut column).await;
        over_ipv6(host, &mut column).await;
        multihop(host, &mut column).await;
        oddities(host, &mut column).await;
        roles(host, &mut column).await;
        restart(host, &mut column).await;
        bfd(host, &mut column).await;
        further::bfd_multihop(host, &mut column).await;
        further::hanging(host, &mut column).await;
        further::refused(host, &mut column).await;
        further::wrong_key(host, &mut column).await;
        further::imports_nothing(host, &mut column).await;
        further::extended_parameters(host, &mut column).await;
        columns.push(column);
    }
    let fresh = table(&columns);
    println!("{fresh}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/bgp.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the table's begin mark");
    let (old, after) = rest.split_once(END).expect("the table's end mark");
    #[allow(clippy::disallowed_methods, reason = "a test's own switch, not a setting")]
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{fresh}{END}{after}")).unwrap();
    } else {
        assert_eq!(old, fresh, "docs/bgp.md shows something else; UPDATE_DOCS=1 writes the new table");
    }
    assert!(!fresh.contains("**no**"), "{fresh}");
}
