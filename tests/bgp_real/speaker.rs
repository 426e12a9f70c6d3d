//! The speaker's acceptance cases.

use std::time::Duration;

use switchover_agent::announce::{Announcer, Shutdown};
use switchover_agent::config::bgp::NeighbourSettings;

use crate::bgp_lab::daemons::Peering;
use crate::bgp_lab::{BIRD, EXABGP, FRR, GOBGP, Lab, asn, until, within};
use crate::{OUR_ASN, all_up, neighbour, plain, speaker, withdraw};

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
    assert!(path["metric"].is_null(), "no MED: {path}");
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
    // The usual hold time: a machine that stands still for nine seconds is not what this is about.
    let peering = Peering { hold: 90, ..Peering::with(OUR_ASN) };
    lab.start_frr(&peering, &["zebra", "bgpd"]);
    lab.start_bird(&peering);
    lab.start_gobgp(&peering);
    lab.start_exabgp(&peering);
    let patient = |host: &u8| NeighbourSettings { hold_time: 90, ..neighbour(&lab, *host) };
    let hosts = [FRR, BIRD, GOBGP, EXABGP];
    let mut announcer = speaker(&lab, OUR_ASN, hosts.iter().map(patient).collect());
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
    until("FRR has let the route go", async || lab.frr_route("203.0.113.53/32").is_null()).await;
    until("BIRD shows the reason", async || lab.birdc("show protocols all agent").contains(reason)).await;
    until("FRR shows the reason", async || {
        lab.vtysh_json("show bgp neighbors json").to_string().contains(reason)
    })
    .await;
    until("GoBGP shows the reason", async || lab.log("gobgpd.log").contains(reason)).await;
    until("ExaBGP has seen the end", async || lab.log("exabgp.json").contains("\"down\"")).await;
    let events = lab.exabgp_events();
    let kinds: Vec<String> = events
        .iter()
        .filter_map(|e| {
            let message = &e["neighbor"]["message"]["update"];
            let text = message.to_string();
            // Debian's ExaBGP 4.2.21 stumbles over any NOTIFICATION ("message of type 3") and says so: it did arrive.
            let reason = e["neighbor"]["reason"].as_str().unwrap_or_default();
            if e["type"] == "state" && (reason.contains("(6,2)") || reason.contains("message of type \"3\""))
            {
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

#[tokio::test]
async fn case_36_a_neighbour_that_comes_up_late_is_met_within_seconds() {
    let Some(mut lab) = Lab::new(&["bird", "birdc"]) else { return };
    let settings = NeighbourSettings { hold_time: 9, ..NeighbourSettings::new(lab.addr(BIRD), asn(BIRD)) };
    let mut announcer = speaker(&lab, OUR_ASN, vec![settings]);
    announcer.set(&plain(&["203.0.113.53/32"])).await.unwrap();
    until("some attempts have failed", async || announcer.neighbours()[0].last_error.is_some()).await;
    // Long enough for the waits between attempts to have grown to their longest.
    tokio::time::sleep(Duration::from_secs(20)).await;
    lab.start_bird(&Peering::with(OUR_ASN));
    let met = within(Duration::from_secs(30), async || !lab.bird_route("203.0.113.53/32").is_empty()).await;
    assert!(met, "not within 30 s: {:?}", announcer.neighbours()[0]);
    announcer.shutdown(withdraw("test")).await;
}

#[tokio::test]
async fn case_37_ten_thousand_received_routes_go_nowhere_and_cost_nothing() {
    let Some(mut lab) = Lab::alone(&["exabgp", "bird", "birdc"]) else { return };
    let text: String = (0..10_000)
        .map(|n| format!("announce route 100.{}.{}.0/24 next-hop self\n", n / 250, n % 250))
        .collect();
    lab.file("exabgp.commands", &text);
    lab.start_bird(&Peering::with(OUR_ASN));
    lab.start_exabgp(&Peering::with(OUR_ASN));
    let mut announcer = speaker(&lab, OUR_ASN, vec![neighbour(&lab, BIRD), neighbour(&lab, EXABGP)]);
    announcer.set(&plain(&["203.0.113.53/32"])).await.unwrap();
    all_up(&announcer).await;
    let before = resident_kib();
    until("ten thousand routes have come in", async || {
        announcer.neighbours()[1].received_prefixes.0 >= 10_000
    })
    .await;
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 5 * 1024, "{grown} KiB");
    until("BIRD has our route", async || !lab.bird_route("203.0.113.53/32").is_empty()).await;
    let count = lab.birdc("show route count");
    assert!(count.contains("1 of 1 routes") || count.contains("1 of 1"), "{count}");
    announcer.shutdown(withdraw("test")).await;
}

/// Resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn case_39_a_restart_with_graceful_restart_withdraws_nothing_downstream() {
    let Some(mut lab) = Lab::new(&["bird", "birdc", "exabgp"]) else { return };
    lab.start_bird_before_exabgp(OUR_ASN);
    let settings = || NeighbourSettings { graceful_restart_secs: Some(60), ..neighbour(&lab, BIRD) };
    let mut first = speaker(&lab, OUR_ASN, vec![settings()]);
    first.set(&plain(&["203.0.113.53/32"])).await.unwrap();
    let seen = || lab.log("exabgp.json").contains("203.0.113.53/32");
    until("the route is downstream", async || seen()).await;
    first.shutdown(Shutdown::KeepRoutes).await;
    until("BIRD has lost the session", async || !lab.birdc("show protocols agent").contains("Established"))
        .await;
    assert!(!lab.bird_route("203.0.113.53/32").is_empty(), "stale, not gone");
    let mut second = speaker(&lab, OUR_ASN, vec![settings()]);
    second.set(&plain(&["203.0.113.53/32"])).await.unwrap();
    until("the second session is up", async || lab.birdc("show protocols agent").contains("Established"))
        .await;
    all_up(&second).await;
    let generation = || second.neighbours()[0].table.as_ref().is_some_and(|t| t.len() == 1);
    until("everything is said", async || generation()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!lab.bird_route("203.0.113.53/32").is_empty());
    let events = lab.exabgp_events();
    let withdrawals = events.iter().filter(|e| e.to_string().contains("\"withdraw\"")).count();
    assert_eq!(withdrawals, 0, "{events:#?}");
    assert!(!lab.log("bird.log").contains("<RMT>"), "no NOTIFICATION: {}", lab.log("bird.log"));
    second.shutdown(withdraw("test")).await;
    until("a wanted end withdraws even with graceful restart", async || {
        lab.bird_route("203.0.113.53/32").is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_neighbour_that_hangs_is_dropped_when_the_hold_time_ends() {
    let Some(mut lab) = Lab::new(&["bird", "birdc"]) else { return };
    lab.start_bird(&Peering { hold: 3, ..Peering::with(OUR_ASN) });
    let announcer = speaker(&lab, OUR_ASN, vec![NeighbourSettings { hold_time: 3, ..neighbour(&lab, BIRD) }]);
    all_up(&announcer).await;
    lab.signal("bird", nix::sys::signal::Signal::SIGSTOP);
    until("the hold timer has expired", async || {
        announcer.neighbours()[0].notification_sent.as_ref().is_some_and(|n| (n.code, n.subcode) == (4, 0))
    })
    .await;
    lab.signal("bird", nix::sys::signal::Signal::SIGCONT);
    all_up(&announcer).await;
}

#[tokio::test]
async fn a_wrong_as_and_a_wrong_key_are_told_in_words() {
    let Some(mut lab) = Lab::new(&["bird", "birdc"]) else { return };
    lab.start_bird(&Peering { password: Some("right".to_owned()), ..Peering::with(OUR_ASN) });
    let keyed = |key: &str, asn| NeighbourSettings {
        password: Some(switchover_agent::config::Secret::new(key)),
        connect_timeout_ms: 1_000,
        remote_asn: asn,
        ..neighbour(&lab, BIRD)
    };
    let told = async |announcer: &switchover_agent::announce::speaker::SpeakerAnnouncer, what: &str| {
        until(what, async || {
            announcer.neighbours()[0].last_error.as_ref().is_some_and(|error| error.contains(what))
        })
        .await;
    };
    let wrong_key = speaker(&lab, OUR_ASN, vec![keyed("wrong", asn(BIRD))]);
    told(&wrong_key, "a wrong TCP-MD5 key is silent").await;
    assert!(!format!("{:?}", wrong_key.neighbours()).contains("wrong\""), "no key in a status");
    let wrong_as = speaker(&lab, OUR_ASN, vec![keyed("right", 64999)]);
    told(&wrong_as, "NOTIFICATION sent: 2/2").await;
}

#[tokio::test]
async fn a_changed_neighbour_is_reset_and_the_other_keeps_its_session() {
    let Some(mut lab) = Lab::new(&["bird", "birdc", "gobgpd", "gobgp"]) else { return };
    lab.start_bird(&Peering::with(OUR_ASN));
    lab.start_gobgp(&Peering::with(OUR_ASN));
    let both = vec![neighbour(&lab, BIRD), neighbour(&lab, GOBGP)];
    let mut announcer = speaker(&lab, OUR_ASN, both.clone());
    announcer.set(&plain(&["203.0.113.53/32"])).await.unwrap();
    all_up(&announcer).await;
    let mut settings = crate::settings(&lab, OUR_ASN, both);
    settings.neighbours[1].med = Some(77);
    announcer.reconfigure(settings).await.unwrap();
    all_up(&announcer).await;
    until("GoBGP has the new MED", async || lab.gobgp_rib("ipv4").to_string().contains("\"metric\":77"))
        .await;
    let counts: Vec<u64> = announcer.neighbours().iter().map(|n| n.established_count).collect();
    assert_eq!(counts, [1, 1]);
    assert!(!lab.log("bird.log").contains("<RMT>"), "BIRD's session was not touched");
}

/// An hour (`SOAK_SECONDS`) with all four daemons and a change every second: no session may end, no NOTIFICATION may
/// be sent or received. `cargo nextest run --run-ignored only -E 'test(soak)'`.
#[tokio::test]
#[ignore = "takes an hour"]
async fn soak_without_a_notification() {
    let Some(mut lab) = Lab::new(&["bgpd", "zebra", "vtysh", "bird", "birdc", "gobgpd", "gobgp", "exabgp"])
    else {
        return;
    };
    #[allow(clippy::disallowed_methods, reason = "a test's own switch, not a setting")]
    let seconds: u64 = std::env::var("SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3600);
    let peering = Peering::with(OUR_ASN);
    lab.start_frr(&peering, &["zebra", "bgpd"]);
    lab.start_bird(&peering);
    lab.start_gobgp(&peering);
    lab.start_exabgp(&peering);
    let hosts = [FRR, BIRD, GOBGP, EXABGP];
    let mut announcer = speaker(&lab, OUR_ASN, hosts.iter().map(|h| neighbour(&lab, *h)).collect());
    all_up(&announcer).await;
    let prefixes = ["203.0.113.53/32", "2001:db8:53::/48", "203.0.113.54/32"];
    let mut changes = 0;
    for second in 0..seconds {
        let wanted = &prefixes[..(second % 4).min(3) as usize];
        let changed = announcer.set(&plain(wanted)).await.unwrap();
        changes += changed.announced.len() + changed.withdrawn.len();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for status in announcer.neighbours() {
            assert_eq!(status.established_count, 1, "after {second} s: {status:?}");
            assert!(
                status.notification_received.is_none() && status.notification_sent.is_none(),
                "{status:?}"
            );
        }
    }
    announcer.set(&plain(&prefixes)).await.unwrap();
    until("everybody has everything", async || {
        let bird =
            !lab.bird_route("2001:db8:53::/48").is_empty() && !lab.bird_route("203.0.113.54/32").is_empty();
        bird && !lab.frr_route("203.0.113.54/32").is_null()
            && !lab.gobgp_rib("ipv4")["203.0.113.54/32"].is_null()
    })
    .await;
    println!("soak: {seconds} s, 4 neighbours, {changes} announcements and withdrawals, 0 NOTIFICATIONs");
    announcer.shutdown(withdraw("soak done")).await;
}
