//! SIGHUP: what changed changes, what did not stays, and a broken file changes nothing.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::Agent;
use crate::bgp_lab::daemons::Peering;
use crate::bgp_lab::{BIRD, FRR, Lab, asn, until};
use crate::own_speaker::{OUR_ASN, file, lab, routes};

const BOTH: [&str; 2] = ["203.0.113.1/32", "203.0.113.2/32"];

/// When the session came up, and how many UPDATEs BIRD has seen on it.
fn session(lab: &Lab) -> (String, String) {
    let text = lab.birdc("show protocols all agent");
    let line = |start: &str| {
        text.lines().find(|line| line.trim().starts_with(start)).unwrap_or_default().trim().to_owned()
    };
    (line("agent"), line("Import withdraws"))
}

#[tokio::test]
async fn case_44_a_broken_file_changes_nothing_and_is_told_once_and_whole() {
    let Some(lab) = lab() else { return };
    let good = file(&lab, BIRD);
    let path = lab.file("config.json", &good.to_string());
    let agent = Agent::start(lab.dir.path(), &path);
    routes(&lab, &BOTH).await;
    let before = session(&lab);
    let mut bad = good.clone();
    bad["services"][0]["strategy"] = json!("most");
    bad["services"][1]["check_interval"] = json!(5);
    bad["announcer"]["peers"][0]["multihope_ttl"] = json!(3);
    lab.file("config.json", &bad.to_string());
    agent.signal(Signal::SIGHUP);
    until("told", async || agent.logged("nothing was changed") == 1).await;
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("nothing was changed")).unwrap();
    for what in ["strategy", "check_interval", "multihope_ttl"] {
        assert!(line.contains(what), "{what} in {line}");
    }
    lab.file("config.json", "{ \"services\": [");
    agent.signal(Signal::SIGHUP);
    until("told", async || agent.logged("nothing was changed") == 2).await;
    std::fs::remove_file(&path).unwrap();
    agent.signal(Signal::SIGHUP);
    until("told", async || agent.logged("nothing was changed") == 3).await;
    lab.file("config.json", &good.to_string());
    agent.signal(Signal::SIGHUP);
    until("taken", async || agent.logged("2 services kept, 0 started, 0 ended") == 1).await;
    assert_eq!(session(&lab), before, "the session and its routes were not touched");
    routes(&lab, &BOTH).await;
}

#[tokio::test]
async fn services_come_and_go_with_their_prefixes_and_the_others_are_not_touched() {
    let Some(lab) = lab() else { return };
    let mut text = file(&lab, BIRD);
    let path = lab.file("config.json", &text.to_string());
    let agent = Agent::start(lab.dir.path(), &path);
    routes(&lab, &BOTH).await;
    text["services"][1] = json!({
        "name": "ntp", "check_interval": "200ms", "prefixes": ["203.0.113.3/32"],
        "checks": [{ "kind": "file", "spec": { "path": lab.path("dns") } }],
    });
    lab.file("config.json", &text.to_string());
    agent.signal(Signal::SIGHUP);
    routes(&lab, &["203.0.113.1/32", "203.0.113.3/32"]).await;
    let (_, withdraws) = session(&lab);
    assert_eq!(withdraws.split_whitespace().nth(2), Some("1"), "only dns: {withdraws}");
    assert!(agent.log().contains("1 services kept, 1 started, 1 ended"));
}

#[tokio::test]
async fn a_neighbour_comes_and_another_goes_without_touching_the_third() {
    let Some(mut lab) = lab() else { return };
    lab.start_frr(&Peering::with(OUR_ASN), &["zebra", "bgpd"]);
    let mut text = file(&lab, BIRD);
    let path = lab.file("config.json", &text.to_string());
    let agent = Agent::start(lab.dir.path(), &path);
    routes(&lab, &BOTH).await;
    let (since, _) = session(&lab);
    let frr = json!({ "name": "second", "remote_address": lab.v4(FRR), "remote_asn": asn(FRR), "retry_min_ms": 300 });
    text["announcer"]["peers"].as_array_mut().unwrap().push(frr);
    lab.file("config.json", &text.to_string());
    agent.signal(Signal::SIGHUP);
    until("FRR has it", async || !lab.frr_route("203.0.113.1/32").is_null()).await;
    assert_eq!(session(&lab).0, since, "BIRD's session was not touched");
    text["announcer"]["peers"].as_array_mut().unwrap().pop();
    lab.file("config.json", &text.to_string());
    agent.signal(Signal::SIGHUP);
    until("FRR has none", async || lab.frr_route("203.0.113.1/32").is_null()).await;
    assert_eq!(session(&lab).0, since, "BIRD's session was not touched");
    routes(&lab, &BOTH).await;
    std::fs::remove_file(lab.path("web")).unwrap();
    routes(&lab, &["203.0.113.2/32"]).await;
}

#[tokio::test]
async fn a_file_that_names_frr_for_the_first_time_gets_it_and_what_a_crash_left_there_goes() {
    let Some(mut lab) = lab() else { return };
    lab.start_frr(&Peering::with(OUR_ASN), &["zebra", "bgpd"]);
    crate::frr::network(&lab, "network 203.0.113.9/32");
    let bird = lab.v4(BIRD);
    let first = format!(
        "announcer = {{ router_id = '{us}', local_address = '{us}', local_asn = {OUR_ASN}, peers = [{{ name = 'edge', \
         remote_address = '{bird}', remote_asn = {}, hold_time = 9, retry_min_ms = 300 }}] }}\n\
         [services.web]\nprefixes.bgp = ['203.0.113.1']\nchecks.file = [{{ path = '{}', interval = '200ms' }}]\n",
        asn(BIRD),
        lab.path("web"),
        us = lab.v4(1),
    );
    let path = lab.file("config.toml", &first);
    let agent = Agent::start(lab.dir.path(), &path);
    routes(&lab, &["203.0.113.1/32"]).await;
    // Two prefixes: one whose check passes, and one of which a crash left the statement and whose check fails.
    let vtysh = crate::frr::wrapper(&lab);
    let service = |name: &str, prefix: &str| {
        format!(
            "[services.{name}]\nprefixes.frrouting = [{{ prefix = '{prefix}', vtysh = '{vtysh}' }}]\n\
             checks.file = [{{ path = '{}', interval = '200ms' }}]\n",
            lab.path(name)
        )
    };
    let second = format!("{first}{}{}", service("dns", "203.0.113.2"), service("old", "203.0.113.9"));
    lab.file("config.toml", &second);
    agent.signal(Signal::SIGHUP);
    until("FRR has the one", async || crate::frr::networks(&lab) == ["network 203.0.113.2/32"]).await;
    assert!(agent.log().contains("1 services kept, 2 started, 0 ended"), "{}", agent.log());
    // And one that a reload adds later to an announcer that runs already.
    crate::frr::network(&lab, "network 203.0.113.8/32");
    lab.file("config.toml", &format!("{second}{}", service("older", "203.0.113.8")));
    agent.signal(Signal::SIGHUP);
    until("gone", async || crate::frr::networks(&lab) == ["network 203.0.113.2/32"]).await;
    let (code, log) = agent.stop();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(crate::frr::networks(&lab), Vec::<String>::new());
}
