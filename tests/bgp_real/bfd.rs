//! BFD against BIRD and FRR's bfdd: up, lost, and what BGP makes of it.

use std::time::{Duration, Instant};

use switchover_agent::announce::Announcer;
use switchover_agent::bfd::{Driver, SessionSpec, State};
use switchover_agent::config::bgp::{BfdSettings, NeighbourSettings};

use crate::bgp_lab::daemons::Peering;
use crate::bgp_lab::{BIRD, FRR, Lab, within};
use crate::{OUR_ASN, all_up, neighbour, plain, speaker, until};

fn fast(multihop: bool) -> BfdSettings {
    BfdSettings { transmit_ms: 100, receive_ms: 100, multiplier: 3, multihop }
}

fn bird(multihop: bool) -> Peering {
    let timing = "min rx interval 100 ms; min tx interval 100 ms; multiplier 3;";
    let kind = if multihop {
        format!("multihop {{ {timing} }};")
    } else {
        format!("interface \"*\" {{ {timing} }};")
    };
    Peering {
        globals: format!("protocol bfd {{ {kind} }}"),
        extra: if multihop { "bfd on; multihop;" } else { "bfd on;" }.to_owned(),
        hold: 90,
        ..Peering::with(OUR_ASN)
    }
}

fn with_bfd(lab: &Lab, host: u8, multihop: bool) -> NeighbourSettings {
    NeighbourSettings { bfd: Some(fast(multihop)), hold_time: 90, ..neighbour(lab, host) }
}

async fn up_with_bird(lab: &Lab) {
    until("BFD is up", async || lab.birdc("show bfd sessions").contains("Up ")).await;
}

#[tokio::test]
async fn a_hanging_neighbour_is_noticed_in_a_fraction_of_the_hold_time() {
    let Some(mut lab) = Lab::new(&["bird", "birdc"]) else { return };
    lab.start_bird(&bird(false));
    let mut announcer = speaker(&lab, OUR_ASN, vec![with_bfd(&lab, BIRD, false)]);
    all_up(&announcer).await;
    // A change that is none of BFD's business must not lose it.
    let changed = NeighbourSettings { med: Some(7), ..with_bfd(&lab, BIRD, false) };
    announcer.reconfigure(crate::settings(&lab, OUR_ASN, vec![changed])).await.unwrap();
    all_up(&announcer).await;
    up_with_bird(&lab).await;
    lab.signal("bird", nix::sys::signal::Signal::SIGSTOP);
    let hung = Instant::now();
    until("BGP was ended with Cease, BFD down", async || {
        announcer.neighbours()[0].notification_sent.as_ref().is_some_and(|n| (n.code, n.subcode) == (6, 10))
    })
    .await;
    assert!(hung.elapsed() < Duration::from_secs(20), "{:?}, with a hold time of 90 s", hung.elapsed());
    lab.signal("bird", nix::sys::signal::Signal::SIGCONT);
    all_up(&announcer).await;
    up_with_bird(&lab).await;
}

#[tokio::test]
async fn a_multihop_session_comes_up_and_ends_on_purpose_without_a_failure() {
    let Some(mut lab) = Lab::new(&["bird", "birdc"]) else { return };
    lab.start_bird(&bird(true));
    let settings = NeighbourSettings { multihop_ttl: Some(64), ..with_bfd(&lab, BIRD, true) };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings]);
    announcer.set(&plain(&["203.0.113.53/32"])).await.unwrap();
    all_up(&announcer).await;
    up_with_bird(&lab).await;
    announcer.shutdown(crate::withdraw("going")).await;
    until("BIRD was told the reason", async || lab.birdc("show protocols all agent").contains("going")).await;
}

#[tokio::test]
async fn frr_and_we_notice_each_others_silence() {
    let Some(mut lab) = Lab::new(&["bgpd", "zebra", "vtysh", "bfdd"]) else { return };
    let peering =
        Peering { extra: " neighbor {us} bfd 3 100 100\n".to_owned(), hold: 90, ..Peering::with(OUR_ASN) };
    lab.start_frr(&peering, &["zebra", "bfdd", "bgpd"]);
    let specs = vec![SessionSpec {
        remote: lab.addr(FRR),
        local: Some(lab.addr(1)),
        interface: None,
        settings: fast(false),
    }];
    let (driver, states) = Driver::start(specs.clone()).unwrap();
    let state = states[0].clone();
    let frr_up = || lab.vtysh_json("show bfd peers json").to_string().contains("\"status\":\"up\"");
    until("both ends are up", async || *state.borrow() == State::Up && frr_up()).await;
    drop(driver);
    let silent = Instant::now();
    let noticed = within(Duration::from_secs(20), async || !frr_up()).await;
    println!("FRR noticed our silence after {:?}", silent.elapsed());
    assert!(noticed, "FRR has not noticed our silence in {:?}", silent.elapsed());
    let (_driver, states) = Driver::start(specs).unwrap();
    until("the session comes back after a restart", async || *states[0].borrow() == State::Up).await;
    lab.kill("bfdd");
    until("we notice FRR's silence", async || *states[0].borrow() != State::Up).await;
}

#[tokio::test]
async fn a_bgp_session_with_frr_brings_its_bfd_session_up() {
    let Some(mut lab) = Lab::new(&["bgpd", "zebra", "vtysh", "bfdd"]) else { return };
    let peering =
        Peering { extra: " neighbor {us} bfd 3 100 100".to_owned(), hold: 90, ..Peering::with(OUR_ASN) };
    lab.start_frr(&peering, &["zebra", "bfdd", "bgpd"]);
    let announcer = speaker(&lab, OUR_ASN, vec![with_bfd(&lab, FRR, false)]);
    all_up(&announcer).await;
    let shown = || lab.vtysh_json("show bfd peers json").to_string();
    let up = within(Duration::from_secs(20), async || shown().contains("\"status\":\"up\"")).await;
    assert!(up, "{}\n{}", shown(), lab.vtysh(&["show running-config"]).unwrap());
}

/// The packets stop, the connection does not: what a dead host looks like from outside.
#[tokio::test]
async fn a_dead_host_loses_its_routes_at_the_neighbour_by_bfd() {
    let Some(mut lab) = Lab::new(&["bird", "birdc", "iptables"]) else { return };
    lab.start_bird(&bird(false));
    let mut announcer = speaker(&lab, OUR_ASN, vec![with_bfd(&lab, BIRD, false)]);
    announcer.set(&plain(&["203.0.113.53/32"])).await.unwrap();
    until("BIRD has the route", async || !lab.bird_route("203.0.113.53/32").is_empty()).await;
    up_with_bird(&lab).await;
    let us = lab.v4(1).to_string();
    lab.inside(&["iptables", "-I", "INPUT", "-s", &us, "-j", "DROP"]).unwrap();
    let died = Instant::now();
    let gone = within(Duration::from_secs(30), async || lab.bird_route("203.0.113.53/32").is_empty()).await;
    println!("BIRD dropped the route after {:?}, with a hold time of 90 s", died.elapsed());
    assert!(gone);
    lab.inside(&["iptables", "-F"]).unwrap();
    until("the route comes back", async || !lab.bird_route("203.0.113.53/32").is_empty()).await;
}
