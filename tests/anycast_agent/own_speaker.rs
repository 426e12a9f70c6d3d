//! The Go predecessor's file, YAML and JSON, with our own speaker and BIRD as the neighbour.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::Agent;
use crate::bgp_lab::daemons::Peering;
use crate::bgp_lab::{BIRD, FRR, Lab, asn, until};

pub const OUR_ASN: u32 = 65_100;

/// A file of the Go predecessor: two services with their own prefixes whose checks are files in the lab's folder.
pub fn file(lab: &Lab, host: u8) -> serde_json::Value {
    let check =
        |name: &str| json!([{ "kind": "file", "spec": { "path": lab.path(name) }, "fast_interval": "50ms" }]);
    json!({
        "announcer": {
            "router_id": lab.v4(1), "local_address": lab.v4(1), "local_asn": OUR_ASN, "routes": [],
            "peers": [{
                "name": "edge", "remote_address": lab.v4(host), "remote_asn": asn(host), "hold_time": 9,
                "retry_min_ms": 300, "retry_max_ms": 2000,
            }],
        },
        "services": [
            { "name": "web", "check_interval": "200ms", "prefixes": ["203.0.113.1/32"], "checks": check("web"),
              "drain_delay": "1s" },
            { "name": "dns", "check_interval": "200ms", "prefixes": ["203.0.113.2/32"], "checks": check("dns") },
        ],
        "metrics": { "enabled": false },
    })
}

/// A lab with a neighbour and both services healthy.
pub fn lab() -> Option<Lab> {
    let mut lab = Lab::new(&["bird", "birdc", "setpriv"])?;
    lab.start_bird(&Peering::with(OUR_ASN));
    lab.file("web", "");
    lab.file("dns", "");
    Some(lab)
}

pub async fn routes(lab: &Lab, want: &[&str]) {
    let have = || -> Vec<&str> {
        let known = ["203.0.113.1/32", "203.0.113.2/32", "203.0.113.3/32"];
        known.into_iter().filter(|prefix| !lab.bird_route(prefix).is_empty()).collect()
    };
    until(&format!("BIRD has {want:?}"), async || have() == want).await;
}

const BOTH: [&str; 2] = ["203.0.113.1/32", "203.0.113.2/32"];

#[tokio::test]
async fn case_33_and_38_from_the_go_predecessors_yaml_to_bird_and_back() {
    let Some(lab) = lab() else { return };
    let yaml = serde_saphyr::to_string(&file(&lab, BIRD)).unwrap();
    let agent = Agent::start(lab.dir.path(), &lab.file("config.yaml", &yaml));
    routes(&lab, &BOTH).await;
    let seen = lab.bird_route("203.0.113.1/32");
    assert!(seen.contains(&format!("BGP.as_path: {OUR_ASN}")), "{seen}");
    assert!(seen.contains(&format!("BGP.next_hop: {}", lab.v4(1))), "{seen}");
    assert!(!seen.contains("BGP.med") && !seen.contains("BGP.community"), "{seen}");
    // The check fails: its route goes, the other stays.
    std::fs::remove_file(lab.path("web")).unwrap();
    routes(&lab, &["203.0.113.2/32"]).await;
    let explained = agent.ask(&["explain", "203.0.113.1"]).unwrap();
    assert!(explained.contains("withdrawn") && explained.contains("service web down"), "{explained}");
    lab.file("web", "");
    routes(&lab, &BOTH).await;
    // A drain marks the route first, then takes it back.
    agent.ask(&["drain", "web"]).unwrap();
    until("marked", async || lab.bird_route("203.0.113.1/32").contains("(65535,0)")).await;
    routes(&lab, &["203.0.113.2/32"]).await;
    assert!(agent.ask(&["status"]).unwrap().contains("DRAINING   web"));
    agent.ask(&["undrain", "web"]).unwrap();
    routes(&lab, &BOTH).await;
    assert!(agent.ask(&["check", "web"]).unwrap().contains("1 checks of web run now"));
    assert!(agent.ask(&["drain", "nothing"]).unwrap_err().contains("there are dns, web"));
    let (code, log) = agent.stop();
    assert_eq!(code, Some(0), "{log}");
    routes(&lab, &[]).await;
    assert!(log.contains("every route is withdrawn"), "{log}");
    let shown = lab.birdc("show protocols all agent");
    assert!(shown.contains("Administrative shutdown"), "{shown}");
    let names = ["announced", "withdrawn"];
    assert!(
        names.iter().all(|word| log.contains(&format!("{word} announcer=\"bgp\"")) || log.contains(word))
    );
}

#[tokio::test]
async fn the_go_predecessors_json_by_its_variable_keeps_its_routes_from_a_neighbour_that_comes_late() {
    let Some(mut lab) = lab() else { return };
    let text = serde_json::to_string(&file(&lab, BIRD)).unwrap();
    let path = lab.file("config.json", &text);
    lab.kill("bird");
    let agent =
        Agent::start_with(lab.dir.path(), &["run"], &[("CONFIG_PATH", &path), ("LOG_FORMAT", "json")]);
    until("it runs", async || agent.ask(&["status"]).is_ok_and(|text| text.contains("UP         web"))).await;
    assert!(agent.ask(&["status"]).unwrap().contains("no neighbour has a session"));
    lab.start_bird(&Peering::with(OUR_ASN));
    routes(&lab, &BOTH).await;
    // A check that failed while the neighbour was away must not leave its route behind.
    lab.signal("bird", Signal::SIGSTOP);
    std::fs::remove_file(lab.path("dns")).unwrap();
    until("withdrawn", async || {
        agent.ask(&["explain", "203.0.113.2"]).is_ok_and(|t| t.contains("service dns down"))
    })
    .await;
    lab.signal("bird", Signal::SIGCONT);
    routes(&lab, &["203.0.113.1/32"]).await;
    assert!(agent.log().lines().all(|line| line.starts_with('{')), "one JSON object per line");
    let (code, _) = agent.stop();
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn a_neighbour_that_takes_nothing_makes_the_end_no_success() {
    let Some(lab) = lab() else { return };
    let mut text = file(&lab, BIRD);
    text["shutdown"] = json!({ "limit": "1s" });
    // So many prefixes that they do not fit into the sockets' buffers.
    let many: Vec<String> =
        (0..60_000_u32).map(|n| format!("10.{}.{}.{}/32", n >> 16, (n >> 8) & 255, n & 255)).collect();
    text["services"][1]["prefixes"] = json!(many);
    let agent = Agent::start(lab.dir.path(), &lab.file("config.json", &text.to_string()));
    until("BIRD has them", async || lab.birdc("show route count").contains("60001 of 60001")).await;
    lab.signal("bird", Signal::SIGSTOP);
    let (code, log) = agent.stop();
    lab.signal("bird", Signal::SIGCONT);
    // Whatever the kernel did not take is told; what it took is the neighbour's.
    assert!(code == Some(0) || (code == Some(1) && log.contains("routes that may remain")), "{code:?}");
    until("gone all the same", async || lab.birdc("show route count").contains("0 of 0")).await;
}

#[tokio::test]
async fn a_frozen_agent_loses_its_routes_within_a_second_by_bfd() {
    let Some(mut lab) = Lab::new(&["bgpd", "zebra", "bfdd", "vtysh", "setpriv"]) else { return };
    let peering = Peering { extra: " neighbor {us} bfd\n".to_owned(), ..Peering::with(OUR_ASN) };
    lab.start_frr(&peering, &["zebra", "bfdd", "bgpd"]);
    lab.file("web", "");
    lab.file("dns", "");
    let mut text = file(&lab, FRR);
    text["announcer"]["peers"][0]["bfd"] = json!({ "transmit_ms": 100, "receive_ms": 100 });
    let agent = Agent::start(lab.dir.path(), &lab.file("config.json", &text.to_string()));
    until("FRR has it", async || !lab.frr_route("203.0.113.1/32").is_null()).await;
    let up = |lab: &Lab| lab.vtysh(&["show bfd peers"]).is_ok_and(|text| text.contains("Status: up"));
    until("BFD is up", async || up(&lab)).await;
    let began = std::time::Instant::now();
    agent.signal(Signal::SIGSTOP);
    until("the route is gone", async || lab.frr_route("203.0.113.1/32").is_null()).await;
    let took = began.elapsed();
    agent.signal(Signal::SIGCONT);
    // Without BFD it would be the hold time, nine seconds; a busy machine adds to the 300 ms of detection.
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    println!("a frozen agent's route was gone after {took:?}");
}

#[tokio::test]
async fn case_43_a_second_agent_is_refused_with_the_process_number_of_the_first() {
    let Some(lab) = lab() else { return };
    let path = lab.file("config.json", &file(&lab, BIRD).to_string());
    let first = Agent::start(lab.dir.path(), &path);
    routes(&lab, &BOTH).await;
    let mut second = Agent::start(lab.dir.path(), &path);
    let code = second.end().code();
    assert_eq!(code, Some(1));
    let held = format!("process {} holds", first.child.id());
    assert!(second.log().contains(&held), "{held} in\n{}", second.log());
    routes(&lab, &BOTH).await;
}
