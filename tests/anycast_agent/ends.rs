//! How the real binary ends in front of real neighbours: for good, with all four daemons watching, and to come back.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::Agent;
use crate::bgp_lab::daemons::Peering;
use crate::bgp_lab::{BIRD, EXABGP, FRR, GOBGP, Lab, asn, until};
use crate::own_speaker::{OUR_ASN, file, lab, routes};

/// What ExaBGP saw, in order, without repetitions.
fn seen(lab: &Lab) -> Vec<&'static str> {
    let mut order: Vec<&'static str> = lab
        .exabgp_events()
        .iter()
        .filter_map(|event| {
            let update = &event["neighbor"]["message"]["update"];
            let (text, reason) =
                (update.to_string(), event["neighbor"]["reason"].as_str().unwrap_or_default());
            // Debian's ExaBGP 4.2.21 stumbles over any NOTIFICATION ("message of type 3") and says so: it did arrive.
            if event["type"] == "state"
                && (reason.contains("(6,2)") || reason.contains("message of type \"3\""))
            {
                return Some("cease");
            }
            if update.is_null() || text.contains("eor") {
                return None;
            }
            Some(match (text.contains("\"withdraw\""), text.contains("65535")) {
                (true, _) => "withdraw",
                (false, true) => "drain",
                (false, false) => "announce",
            })
        })
        .collect();
    order.dedup();
    order
}

#[tokio::test]
async fn case_38_sigterm_drains_withdraws_and_says_why_to_all_four_daemons() {
    let all = ["bgpd", "zebra", "vtysh", "bird", "birdc", "gobgpd", "gobgp", "exabgp", "setpriv"];
    let Some(mut lab) = Lab::new(&all) else { return };
    let peering = Peering { hold: 90, ..Peering::with(OUR_ASN) };
    lab.start_frr(&peering, &["zebra", "bgpd"]);
    lab.start_bird(&peering);
    lab.start_gobgp(&peering);
    lab.start_exabgp(&peering);
    lab.file("web", "");
    lab.file("dns", "");
    let reason = "moved to the other site";
    let mut text = file(&lab, BIRD);
    text["shutdown"] = json!({ "drain_delay": "4s", "reason": reason });
    text["announcer"]["peers"] = json!([FRR, BIRD, GOBGP, EXABGP].map(|host| json!({
        "name": format!("host{host}"), "remote_address": lab.v4(host), "remote_asn": asn(host), "hold_time": 90,
        "retry_min_ms": 300, "retry_max_ms": 2000,
    })));
    let agent = Agent::start(lab.dir.path(), &lab.file("config.json", &text.to_string()));
    until("FRR has the routes", async || !lab.frr_route("203.0.113.2/32").is_null()).await;
    routes(&lab, &["203.0.113.1/32", "203.0.113.2/32"]).await;
    until("GoBGP has them", async || !lab.gobgp_rib("ipv4")["203.0.113.2/32"].is_null()).await;
    until("ExaBGP has them", async || lab.log("exabgp.json").contains("203.0.113.2/32")).await;
    let began = std::time::Instant::now();
    agent.signal(Signal::SIGTERM);
    until("FRR sees 65535:0", async || {
        lab.frr_route("203.0.113.1/32")["community"]["string"]
            .as_str()
            .is_some_and(|c| c.contains("graceful"))
    })
    .await;
    until("BIRD sees 65535:0", async || lab.bird_route("203.0.113.1/32").contains("(65535,0)")).await;
    let (code, log) = agent.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(began.elapsed() >= std::time::Duration::from_secs(4), "the drain delay: {:?}", began.elapsed());
    routes(&lab, &[]).await;
    until("FRR has none", async || lab.frr_route("203.0.113.1/32").is_null()).await;
    until("BIRD shows the reason", async || lab.birdc("show protocols all agent").contains(reason)).await;
    until("FRR shows the reason", async || {
        lab.vtysh_json("show bgp neighbors json").to_string().contains(reason)
    })
    .await;
    until("GoBGP shows the reason", async || lab.log("gobgpd.log").contains(reason)).await;
    until("ExaBGP has seen the end", async || lab.log("exabgp.json").contains("\"down\"")).await;
    assert_eq!(seen(&lab), ["announce", "drain", "withdraw", "cease"], "{:#?}", lab.exabgp_events());
}

#[tokio::test]
async fn case_39_a_restart_that_keeps_its_routes_withdraws_nothing_and_notifies_nobody() {
    let Some(mut lab) = lab() else { return };
    lab.kill("bird");
    lab.start_bird_before_exabgp(OUR_ASN);
    let mut text = file(&lab, BIRD);
    text["shutdown"] = json!({ "routes": "keep" });
    text["announcer"]["peers"][0]["graceful_restart_secs"] = json!(60);
    let path = lab.file("config.json", &text.to_string());
    let first = Agent::start(lab.dir.path(), &path);
    let both = ["203.0.113.1/32", "203.0.113.2/32"];
    routes(&lab, &both).await;
    until("they are downstream", async || both.iter().all(|p| lab.log("exabgp.json").contains(p))).await;
    let (code, log) = first.stop();
    assert_eq!(code, Some(0), "{log}");
    until("BIRD has lost the session", async || !lab.birdc("show protocols agent").contains("Established"))
        .await;
    routes(&lab, &both).await;
    let second = Agent::start(lab.dir.path(), &path);
    until("the session is back", async || lab.birdc("show protocols agent").contains("Established")).await;
    until("End-of-RIB has ended the restart", async || {
        let shown = lab.bird_route(both[0]) + &lab.bird_route(both[1]);
        shown.matches("BGP.origin").count() == 2 && !shown.contains("stale") && !shown.contains(" s ")
    })
    .await;
    until("said again", async || second.ask(&["status"]).is_ok_and(|text| text.contains("UP         dns")))
        .await;
    routes(&lab, &both).await;
    let events = lab.exabgp_events();
    let withdrawals = events.iter().filter(|event| event.to_string().contains("\"withdraw\"")).count();
    assert_eq!(withdrawals, 0, "{events:#?}");
    assert!(!lab.log("bird.log").contains("<RMT>"), "no NOTIFICATION: {}", lab.log("bird.log"));
}
