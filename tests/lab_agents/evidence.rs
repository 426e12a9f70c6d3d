//! What counts as evidence for a failover: lasting answers of a quorum, and nothing else.

use switchover_agent::lab::agents::LabSettings;
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;

use super::stage::{BOTH, Stage, asked_by_agent};

fn quick() -> LabSettings {
    LabSettings::on_free_ports().with("DNS_POLL_SECONDS", "0.1")
}

#[tokio::test]
async fn hazard_1_and_defect_9_resolver_faults_move_nothing() {
    let stage = Stage::up_with(quick().with("DNS_TIMEOUT_SECONDS", "0.3")).await;
    let faults = [Fault::DnsLookupError, Fault::DnsServfail, Fault::DnsTimeout, Fault::DnsOneResolverLies];
    for fault in faults {
        stage.initiate(Side::Active, fault);
        // Three samples would be enough for an answer that counts.
        let rounds = if fault == Fault::DnsTimeout { 4 } else { 6 };
        stage.dns_rounds(Side::Active, rounds).await;
        assert_eq!(stage.shown(Side::Active)["traffic_moved"], false, "{fault:?}");
        stage.lift(Side::Active, fault);
    }
    for side in BOTH {
        assert_eq!(asked_by_agent(&stage, side).await, [], "{side}");
        assert_eq!(stage.phase(side), "active-passive");
    }
}

#[tokio::test]
async fn hazard_1_and_defect_9_a_resolver_fault_at_start_moves_nothing() {
    let mut stage = Stage::up_with(quick()).await;
    stage.initiate(Side::Active, Fault::DnsLookupError);
    stage.restart(Side::Active).await;
    stage.dns_rounds(Side::Active, 8).await;
    assert_eq!(stage.shown(Side::Active)["traffic_moved"], false);
    for side in BOTH {
        assert_eq!(asked_by_agent(&stage, side).await, [], "{side}");
    }
}

#[tokio::test]
async fn defect_9_an_odd_answer_that_does_not_last_moves_nothing() {
    let stage = Stage::up_with(quick().with("DNS_AGREE_SAMPLES", "100")).await;
    stage.initiate(Side::Active, Fault::DnsFlip);
    stage.dns_rounds(Side::Active, 20).await;
    stage.lift(Side::Active, Fault::DnsFlip);
    stage.dns_rounds(Side::Active, 5).await;
    assert_eq!(asked_by_agent(&stage, Side::Active).await, []);
    assert_eq!(asked_by_agent(&stage, Side::Passive).await, []);
}

#[tokio::test]
async fn defect_10_a_reaction_that_failed_is_repeated_without_a_new_dns_answer() {
    let stage = Stage::up_with(quick().with("AUTOMATION_PAUSE_SECONDS", "1")).await;
    stage.initiate(Side::Passive, Fault::DnsLookupError);
    stage.initiate(Side::Active, Fault::ApiDown);
    stage.initiate(Side::Active, Fault::DnsFlip);
    stage.until("the traffic to be seen moved", || stage.shown(Side::Active)["traffic_moved"] == true).await;
    stage
        .until("the first reaction to fail", || {
            let chores = stage.shown(Side::Active)["chores"].to_string();
            chores.contains("record-request") && chores.contains("503")
        })
        .await;
    assert_eq!(stage.phase(Side::Passive), "active-passive");
    stage.lift(Side::Active, Fault::ApiDown);
    stage.settled("golddr-primary").await;
}

#[tokio::test]
async fn defect_24_automation_leaves_an_operators_transition_alone() {
    let stage = Stage::up_with(quick().with("AUTOMATION_PAUSE_SECONDS", "1")).await;
    // The detachment of the passive site waits for its promotion, and meanwhile DNS moves.
    stage.initiate(Side::Passive, Fault::PatroniNoLeader);
    let (status, _) = stage.ask(Side::Passive, "/phase/transition-to-golddr-maintenance", None).await;
    assert_eq!(status, 202);
    stage
        .until("the promotion", || stage.shown(Side::Passive)["run"]["transition"] == "golddr-maintenance")
        .await;
    stage.initiate(Side::Passive, Fault::DnsFlip);
    stage.until("the traffic to be seen moved", || stage.shown(Side::Passive)["traffic_moved"] == true).await;
    stage.dns_rounds(Side::Passive, 15).await;
    let asked = stage.activity(Side::Passive).await;
    assert!(!asked.iter().any(|asked| asked.body.contains("golddr-primary")), "{asked:?}");
    stage.lift(Side::Passive, Fault::PatroniNoLeader);
    stage.settled_at(Side::Passive, "golddr-maintenance").await;
    let asked = stage.activity(Side::Passive).await;
    assert!(!asked.iter().any(|asked| asked.body.contains("golddr-primary")), "{asked:?}");
    assert_eq!(stage.phase(Side::Active), "active-passive");
}
