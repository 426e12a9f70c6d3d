//! Every change that a transition asks of each site, in order, word for word and with the order of keys: `GET /activity`
//! against the texts in `golden/`, which were written from the specification's sections 4.3 and 4.4.

use std::path::Path;

use serde_json::json;
use switchover_agent::lab::agents::LabSettings;
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;

use super::stage::{Asked, BOTH, Stage};

/// Reads a text: `METHOD path` lines, an indented line = the body of the line above, `#` = a comment.
fn golden(name: &str) -> Vec<Asked> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab_agents/golden").join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut expected: Vec<Asked> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match line.strip_prefix("  ") {
            Some(body) => expected.last_mut().unwrap().body = body.to_owned(),
            None => expected.push(Asked { line: line.to_owned(), body: String::new() }),
        }
    }
    expected
}

/// What a person or the lab's control did is not the agent's: neither the control's entries nor a person's edit.
fn of_the_agent(asked: Vec<Asked>) -> Vec<Asked> {
    let by_hand = |asked: &Asked| {
        asked.line.contains("/configmaps/switchover-state-") && !asked.body.contains("maintenance\":null")
    };
    asked.into_iter().filter(|asked| !asked.is_control() && !by_hand(asked)).collect()
}

fn text(asked: &[Asked]) -> String {
    asked.iter().map(|asked| format!("{}\n  {}\n", asked.line, asked.body)).collect()
}

async fn compare(stage: &Stage, side: Side, name: &str) {
    let (asked, expected) = (of_the_agent(stage.activity(side).await), golden(name));
    let first = asked.iter().zip(&expected).position(|(asked, expected)| asked != expected);
    let first = first.unwrap_or_else(|| asked.len().min(expected.len()));
    assert!(
        asked == expected,
        "{name}: differs at change {first}\n  expected: {:?}\n  asked:    {:?}\nall that was asked:\n{}",
        expected.get(first),
        asked.get(first),
        text(&asked)
    );
}

async fn forget(stage: &Stage) {
    for side in BOTH {
        stage.forget_activity(side).await;
    }
}

/// Asks by the control of the active site, waits for the end and compares both sites.
async fn transition(stage: &Stage, name: &str) {
    forget(stage).await;
    stage.put_site(Side::Active, &format!("/phase/transition-to-{name}")).await;
    stage.settled(name).await;
    for side in BOTH {
        compare(stage, side, &format!("{name}.{}", word(side))).await;
    }
}

fn word(side: Side) -> &'static str {
    match side {
        Side::Active => "active",
        Side::Passive => "passive",
    }
}

#[tokio::test]
async fn the_three_transitions_ask_exactly_what_the_specification_says_of_each_site() {
    let stage = Stage::up().await;
    transition(&stage, "golddr-primary").await;
    transition(&stage, "gold-standby").await;
    transition(&stage, "active-passive").await;
    assert_eq!([stage.writable(Side::Active), stage.writable(Side::Passive)], [true, false]);
    for side in BOTH {
        assert_eq!(stage.refusals(side), Vec::<String>::new(), "{side}");
    }
}

#[tokio::test]
async fn a_lasting_dns_answer_asks_for_the_same_failover() {
    let settings =
        LabSettings::on_free_ports().with("DNS_POLL_SECONDS", "0.2").with("DNS_AGREE_SECONDS", "2");
    let stage = Stage::up_with(settings).await;
    // Only the active site sees it; the passive one's resolvers say nothing that would contradict.
    stage.initiate(Side::Passive, Fault::DnsLookupError);
    stage
        .until("the passive site to see nothing", || stage.shown(Side::Passive)["dns"] != "127.0.0.11")
        .await;
    stage.initiate(Side::Active, Fault::DnsFlip);
    stage.settled("golddr-primary").await;
    compare(&stage, Side::Active, "dns-flip.active").await;
    compare(&stage, Side::Passive, "golddr-primary.passive").await;
}

#[tokio::test]
async fn a_forced_failback_fences_the_passive_site_and_keeps_its_copy() {
    let stage = Stage::up().await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    forget(&stage).await;
    stage.edit_record(Side::Active, json!({"transition": "active-passive-force"})).await;
    stage.settled_at(Side::Active, "active-passive").await;
    stage
        .until("the passive site's gate to stay closed", || {
            stage.shown(Side::Passive)["run"]["gate_closed"].is_string()
        })
        .await;
    compare(&stage, Side::Active, "active-passive-force.active").await;
    compare(&stage, Side::Passive, "active-passive-force.passive").await;
    assert_eq!([stage.writable(Side::Active), stage.writable(Side::Passive)], [true, false]);
    let why = stage.shown(Side::Passive)["run"]["gate_closed"].to_string();
    assert!(why.contains("timeline"), "{why}");
}

#[tokio::test]
async fn maintenance_of_the_passive_site_is_asked_of_each_site_for_itself() {
    let stage = Stage::up().await;
    stage.edit_record(Side::Active, json!({"transition": "golddr-maintenance"})).await;
    stage.settled_at(Side::Active, "golddr-maintenance").await;
    compare(&stage, Side::Active, "golddr-maintenance.active").await;
    assert_eq!(of_the_agent(stage.activity(Side::Passive).await), [], "the peer is not told");

    forget(&stage).await;
    stage.edit_record(Side::Passive, json!({"transition": "golddr-maintenance"})).await;
    stage.settled_at(Side::Passive, "golddr-maintenance").await;
    compare(&stage, Side::Passive, "golddr-maintenance.passive").await;
    assert_eq!(of_the_agent(stage.activity(Side::Active).await), [], "the peer is not told");
}

#[tokio::test]
async fn a_rehearsal_of_the_consent_changes_nothing_else() {
    let stage = Stage::up().await;
    for side in BOTH {
        stage.edit_record(side, json!({"last_stable_state": "independent"})).await;
        stage.until("the edit to be seen", || stage.phase(side) == "independent").await;
    }
    forget(&stage).await;
    let mut notes = stage.lab.agent(Side::Active).notes.subscribe();
    stage.edit_record(Side::Active, json!({"transition": "test-ping-pong"})).await;
    let consented = async {
        loop {
            let note = format!("{:?}", notes.recv().await.unwrap());
            if note.contains("the peer consents to test-ping-pong") {
                return;
            }
            assert!(!note.starts_with("Refused"), "{note}");
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), consented).await.unwrap();
    stage.until("the request to be gone", || stage.shown(Side::Active)["transition"] == "").await;
    stage.database_looks(Side::Active, 5).await;
    compare(&stage, Side::Active, "test-ping-pong.active").await;
    compare(&stage, Side::Passive, "test-ping-pong.passive").await;
}
