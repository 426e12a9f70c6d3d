//! The speaker, BFD and the announcers against FRRouting, BIRD, GoBGP and ExaBGP as Debian ships them.

mod bgp_lab;

use std::collections::BTreeMap;

use bgp_lab::daemons::Peering;
use bgp_lab::{BIRD, EXABGP, FRR, GOBGP, Lab, asn, until};
use switchover_agent::announce::speaker::SpeakerAnnouncer;
use switchover_agent::announce::{Announcer, PrefixKey, RouteAttributes, Shutdown};
use switchover_agent::bgp::NeighbourState;
use switchover_agent::config::bgp::{NeighbourSettings, SpeakerSettings};

const OUR_ASN: u32 = 4_200_000_001;

fn neighbour(lab: &Lab, host: u8) -> NeighbourSettings {
    NeighbourSettings {
        hold_time: 9,
        retry_min_ms: 300,
        retry_max_ms: 2_000,
        next_hop_v6: Some(lab.v6(1)),
        ..NeighbourSettings::new(lab.addr(host), asn(host))
    }
}

fn speaker(lab: &Lab, our_asn: u32, neighbours: Vec<NeighbourSettings>) -> SpeakerAnnouncer {
    let settings = SpeakerSettings {
        router_id: lab.v4(1),
        local_asn: our_asn,
        local_address: Some(lab.addr(1)),
        neighbours,
    };
    let mut problems = Vec::new();
    settings.validate("bgp", &mut problems);
    assert_eq!(problems, []);
    SpeakerAnnouncer::start("speaker", settings).unwrap()
}

fn routes(list: &[(&str, RouteAttributes)]) -> BTreeMap<PrefixKey, RouteAttributes> {
    list.iter().map(|(p, a)| (PrefixKey { prefix: p.parse().unwrap(), vrf: None }, a.clone())).collect()
}

fn plain(prefixes: &[&str]) -> BTreeMap<PrefixKey, RouteAttributes> {
    routes(&prefixes.iter().map(|p| (*p, RouteAttributes::default())).collect::<Vec<_>>())
}

async fn all_up(announcer: &SpeakerAnnouncer) {
    until("all sessions are up", async || {
        announcer.neighbours().iter().all(|n| n.state == NeighbourState::Established)
    })
    .await;
}

fn withdraw(reason: &str) -> Shutdown {
    Shutdown::Withdraw { drain_ms: 0, reason: reason.to_owned() }
}

#[tokio::test]
async fn case_34_frr_sees_an_ebgp_route_as_the_predecessor_sent_it() {
    let Some(mut lab) = Lab::new(&["bgpd", "zebra", "vtysh"]) else { return };
    lab.start_frr(&Peering::with(OUR_ASN), &["zebra", "bgpd"]);
    let mut announcer = speaker(&lab, OUR_ASN, vec![neighbour(&lab, FRR)]);
    announcer.set(&plain(&["203.0.113.53/32"])).await.unwrap();
    until("FRR has the route", async || !lab.frr_route("203.0.113.53/32").is_null()).await;
    let path = lab.frr_route("203.0.113.53/32");
    assert_eq!(path["aspath"]["string"], OUR_ASN.to_string());
    assert_eq!(path["nexthops"][0]["ip"], lab.v4(1).to_string());
    assert_eq!(path["origin"], "IGP");
    assert!(path["community"].is_null() && path["largeCommunity"].is_null(), "{path}");
    assert_eq!(announcer.current().await.unwrap().len(), 1);
    announcer.shutdown(withdraw("test")).await;
}

#[tokio::test]
async fn case_35_bird_sees_an_ibgp_route_with_an_empty_path_and_local_pref_100() {
    let Some(mut lab) = Lab::new(&["bird", "birdc"]) else { return };
    lab.start_bird(&Peering::with(asn(BIRD)));
    let mut announcer = speaker(&lab, asn(BIRD), vec![neighbour(&lab, BIRD)]);
    announcer.set(&plain(&["203.0.113.53/32"])).await.unwrap();
    until("BIRD has the route", async || !lab.bird_route("203.0.113.53/32").is_empty()).await;
    let route = lab.bird_route("203.0.113.53/32");
    assert!(route.contains("BGP.as_path: \n") && route.contains("BGP.local_pref: 100"), "{route}");
    announcer.shutdown(withdraw("test")).await;
}

#[tokio::test]
async fn case_38_every_daemon_sees_graceful_shutdown_then_the_withdrawal_then_the_reason() {
    let Some(mut lab) = Lab::new(&["bgpd", "zebra", "vtysh", "bird", "birdc", "gobgpd", "gobgp", "exabgp"])
    else {
        return;
    };
    let peering = Peering::with(OUR_ASN);
    lab.start_frr(&peering, &["zebra", "bgpd"]);
    lab.start_bird(&peering);
    lab.start_gobgp(&peering);
    lab.start_exabgp(&peering);
    let hosts = [FRR, BIRD, GOBGP, EXABGP];
    let mut announcer = speaker(&lab, OUR_ASN, hosts.iter().map(|h| neighbour(&lab, *h)).collect());
    announcer.set(&plain(&["203.0.113.53/32", "2001:db8:53::/48"])).await.unwrap();
    all_up(&announcer).await;
    until("FRR has the route", async || !lab.frr_route("203.0.113.53/32").is_null()).await;
    until("BIRD has the route", async || !lab.bird_route("2001:db8:53::/48").is_empty()).await;
    until("GoBGP has the route", async || !lab.gobgp_rib("ipv6")["2001:db8:53::/48"].is_null()).await;
    let reason = "moved to the other site";
    let ending = tokio::spawn(async move {
        announcer.shutdown(Shutdown::Withdraw { drain_ms: 4_000, reason: reason.to_owned() }).await;
    });
    until("FRR sees 65535:0", async || {
        lab.frr_route("203.0.113.53/32")["community"]["string"]
            .as_str()
            .is_some_and(|c| c.contains("graceful"))
    })
    .await;
    until("BIRD sees 65535:0", async || lab.bird_route("203.0.113.53/32").contains("(65535,0)")).await;
    ending.await.unwrap();
    assert!(lab.frr_route("203.0.113.53/32").is_null());
    until("BIRD shows the reason", async || lab.birdc("show protocols all agent").contains(reason)).await;
    until("FRR shows the reason", async || {
        lab.vtysh_json("show bgp neighbors json").to_string().contains(reason)
    })
    .await;
    until("GoBGP shows the reason", async || lab.log("gobgpd.log").contains(reason)).await;
    let events = lab.exabgp_events();
    let kinds: Vec<String> = events
        .iter()
        .filter_map(|e| {
            let message = &e["neighbor"]["message"]["update"];
            let text = message.to_string();
            if e["type"] == "notification" {
                return Some("cease".to_owned());
            }
            if message.is_null() || text.contains("eor") {
                return None;
            }
            Some(match (text.contains("\"withdraw\""), text.contains("65535")) {
                (true, _) => "withdraw".to_owned(),
                (false, true) => "drain".to_owned(),
                (false, false) => "announce".to_owned(),
            })
        })
        .collect();
    let mut order = kinds.clone();
    order.dedup();
    assert_eq!(order, ["announce", "drain", "withdraw", "cease"], "{events:#?}");
}
