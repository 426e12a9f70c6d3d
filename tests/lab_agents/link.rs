//! What the sites say to each other: nothing is lost, nothing old or forged is obeyed, nothing is refused in silence.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use switchover_agent::lab::agents::LabSettings;
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;
use tokio_tungstenite::tungstenite::Message;

use super::predecessor::{Credentials, connect};
use super::stage::{BOTH, Stage, asked_by_agent};

/// Sends frames to the agent of a side as the other site, with its certificate or without one; `None` = not served.
async fn say(stage: &Stage, to: Side, certificate: bool, frames: &[Value]) -> Option<Vec<String>> {
    let names = &stage.lab.world.settings().site_names;
    let read = |name: String| std::fs::read_to_string(stage.lab.dir.join(name)).unwrap();
    let own = &names[to.other() as usize];
    let credentials = Credentials {
        ca: read("ca.crt".to_owned()),
        only_tls12: false,
        own: certificate.then(|| (read(format!("{own}.crt")), read(format!("{own}.key")))),
    };
    let address: SocketAddr = stage.lab.env[to as usize]["PEER_LISTEN"].parse().unwrap();
    let mut socket = connect(address, &names[to as usize], &credentials).await.ok()?;
    let mut answers = Vec::new();
    for frame in frames {
        socket.send(Message::text(json!({"event": "from_peer", "message": frame}).to_string())).await.ok()?;
        match socket.next().await? {
            Ok(message) => answers.push(message.to_string()),
            Err(_) => return None,
        }
    }
    Some(answers)
}

/// A lab in which a site moves only because the other one says so.
fn by_word_only() -> LabSettings {
    LabSettings::on_free_ports().with("AUTOMATION_ENABLED", "false")
}

#[tokio::test]
async fn defect_1_a_client_without_the_peers_certificate_moves_nothing() {
    let stage = Stage::up().await;
    let order = json!({"event": "transition_to", "state": "golddr-primary"});
    for side in BOTH {
        assert_eq!(
            say(&stage, side, false, std::slice::from_ref(&order)).await,
            None,
            "{side} serves a stranger"
        );
        stage.database_looks(side, 10).await;
        assert_eq!(asked_by_agent(&stage, side).await, [], "{side}");
    }
}

#[tokio::test]
async fn hazard_2_and_defect_7_a_yes_that_was_not_asked_for_starts_nothing() {
    let stage = Stage::up().await;
    // A whole cycle, so that the old consents were all given once; then they come again, from the peer itself.
    for (name, phase) in switchover_agent::lab::cycle::CYCLE {
        stage.put_site(Side::Active, &format!("/phase/{name}")).await;
        stage.settled(phase).await;
    }
    let claims = stage.world(Side::Active)["database"]["volumes"].clone();
    for side in BOTH {
        stage.forget_activity(side).await;
    }
    let data = json!({"last_stable_state": "golddr-primary", "transition": "gold-standby"});
    let tag = |nonce: String| {
        json!({"nonce": nonce, "generation": 99, "expires": 9_999_999_999_999_u64, "transition": "gold-standby",
               "site": "gold"})
    };
    let instance = stage.shown(Side::Passive)["peer"]["instance"].as_str().unwrap().to_owned();
    let items = [
        json!({"event": "switchover_state", "data": data}),
        json!({"event": "switchover_state", "data": data, "consent": tag("made-up".to_owned())}),
        json!({"event": "switchover_state", "data": data, "consent": tag(format!("{instance}-1"))}),
    ];
    for item in items {
        let yes = json!({"event": "yes_happy_to_proceed", "item": item});
        assert!(say(&stage, Side::Active, true, &[yes.clone(), yes]).await.is_some(), "the peer is served");
    }
    stage.until("all to be refused", || stage.refusals(Side::Active).len() >= 6).await;
    let refusals = stage.refusals(Side::Active);
    assert!(refusals.contains(&"consent-not-asked".to_owned()), "{refusals:?}");
    assert!(refusals.contains(&"consent-expired".to_owned()), "{refusals:?}");
    stage.database_looks(Side::Active, 10).await;
    for side in BOTH {
        assert_eq!(asked_by_agent(&stage, side).await, [], "{side}");
        assert_eq!(stage.phase(side), "active-passive");
    }
    assert!(stage.writable(Side::Active));
    assert_eq!(stage.world(Side::Active)["database"]["volumes"], claims, "a volume was deleted");
}

#[tokio::test]
async fn hazard_3_an_order_survives_any_number_of_failed_deliveries() {
    // Without automation: else the passive site would follow DNS by itself.
    let settings = by_word_only().with("PEER_FORWARD_TIMEOUT_SECONDS", "0.2");
    let stage = Stage::up_with(settings).await;
    stage.initiate(Side::Active, Fault::PeerPartition);
    stage.until("the peer to be lost", || stage.shown(Side::Active)["peer_link"] == "down").await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.until("the order to wait", || stage.shown(Side::Active)["outbox"].as_u64() > Some(0)).await;
    // The predecessor gives up after five tries.
    let tries = || stage.metric(Side::Active, "switchover_peer_connections_total", &["forward"]);
    let before = tries();
    stage.until("six tries of delivery", || tries() >= before + 6.0).await;
    assert_eq!(stage.phase(Side::Passive), "active-passive");
    stage.lift(Side::Active, Fault::PeerPartition);
    stage.settled("golddr-primary").await;
    stage.until("the outbox to be empty", || stage.shown(Side::Active)["outbox"] == 0).await;
    assert!(stage.writable(Side::Passive));
}

#[tokio::test]
async fn defect_17_a_peer_agent_that_was_away_hears_of_the_failover_when_it_is_back() {
    let mut stage = Stage::up_with(by_word_only()).await;
    let away = stage.lab.agents.pop().unwrap();
    away.stop().await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage
        .until("the active site to be done", || {
            stage.phase(Side::Active) == "golddr-primary" && stage.shown(Side::Active)["run"].is_null()
        })
        .await;
    assert_eq!(stage.world(Side::Passive)["record"]["last_stable_state"], "active-passive");
    stage.start_passive().await;
    stage.settled("golddr-primary").await;
    assert!(stage.writable(Side::Passive));
}

#[tokio::test]
async fn defect_18_a_refused_consent_is_seen_by_everybody() {
    let stage = Stage::up().await;
    // The active site believes that it was left; the passive one does not.
    stage.edit_record(Side::Active, json!({"last_stable_state": "golddr-primary"})).await;
    stage.until("the edit to be seen", || stage.phase(Side::Active) == "golddr-primary").await;
    stage.edit_record(Side::Active, json!({"transition": "gold-standby"})).await;
    stage.until("the refusal", || stage.refusals(Side::Active).contains(&"peer-refused".to_owned())).await;
    stage
        .until_async("the annotation", || async {
            let record = stage.record(Side::Active).await;
            let note = &record["metadata"]["annotations"]["switchover-agent.io/last-refusal"];
            note.as_str()
                .is_some_and(|note| note.starts_with("peer-refused") && note.contains("active-passive"))
                && record["data"]["transition"] == ""
        })
        .await;
    assert!(stage.metric(Side::Active, "switchover_refusals_total", &["peer-refused"]) >= 1.0);
    assert!(stage.refusals(Side::Passive).contains(&"required-phase-differs".to_owned()));
    assert!(stage.writable(Side::Active), "nothing was taken down");
    let asked = stage.activity(Side::Active).await;
    assert!(!asked.iter().any(|asked| asked.line.starts_with("DELETE") || asked.line.contains("/scale")));
}

#[tokio::test]
async fn hazard_8_and_defect_26_a_hanging_api_server_delays_neither_heartbeats_nor_dns() {
    let stage = Stage::up_with(LabSettings::on_free_ports().with("DNS_POLL_SECONDS", "0.2")).await;
    stage.initiate(Side::Active, Fault::ApiHang);
    // A write that hangs: the predecessor's logic stands still from here on.
    let (status, _) = stage.ask(Side::Active, "/restart-kong", None).await;
    assert_eq!(status, 200);
    stage
        .until("the call to hang", || stage.shown(Side::Active)["chores"].to_string().contains("running"))
        .await;
    let fresh = || stage.shown(Side::Passive)["peer_age_ms"].as_u64().unwrap_or(u64::MAX) < 3_000;
    for _ in 0..10 {
        stage.dns_rounds(Side::Active, 2).await;
        assert_eq!(stage.shown(Side::Passive)["peer_link"], "up");
        stage.until("a fresh heartbeat", fresh).await;
        assert_eq!(stage.get(Side::Active, "/status").await.0, 200);
    }
    stage.lift(Side::Active, Fault::ApiHang);
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
}
