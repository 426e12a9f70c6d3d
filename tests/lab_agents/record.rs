//! The record as other hands leave it: keys missing, words unknown, edits in mid-transition. Named, never guessed.

use serde_json::{Value, json};
use switchover_agent::lab::agents::LabSettings;
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;

use super::stage::{BOTH, Stage, asked_by_agent};

#[tokio::test]
async fn defect_25_a_record_without_transition_or_without_data_is_read_calmly() {
    let stage = Stage::up().await;
    stage.edit_record(Side::Active, json!({"transition": null})).await;
    stage
        .until_async("the key to be gone", || async {
            stage.record(Side::Active).await["data"].get("transition").is_none()
        })
        .await;
    stage.database_looks(Side::Active, 10).await;
    assert_eq!(stage.phase(Side::Active), "active-passive");
    stage.edit_record(Side::Active, Value::Null).await;
    stage
        .until("a record without data to become independent", || stage.phase(Side::Active) == "independent")
        .await;
    assert_eq!(stage.get(Side::Active, "/health").await.0, 200);
    stage.edit_record(Side::Active, json!({"last_stable_state": "active-passive"})).await;
    stage.until("the phase to be back", || stage.phase(Side::Active) == "active-passive").await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
}

#[tokio::test]
async fn unknown_words_in_the_record_are_refused_by_name_and_left_alone() {
    let stage = Stage::up().await;
    stage.edit_record(Side::Active, json!({"transition": "golddr-primry"})).await;
    let refused = |name: &'static str| {
        let stage = &stage;
        move || stage.refusals(Side::Active).iter().any(|refusal| refusal == name)
    };
    stage.until("the refusal of the transition", refused("unknown-transition")).await;
    stage.edit_record(Side::Active, json!({"last_stable_state": "golden", "transition": ""})).await;
    stage.until("the refusal of the phase", refused("record-phase-unknown")).await;
    stage.database_looks(Side::Active, 10).await;
    let record = stage.record(Side::Active).await;
    assert_eq!(record["data"]["last_stable_state"], "golden", "nothing was guessed");
    for side in BOTH {
        let asked = asked_by_agent(&stage, side).await;
        assert!(asked.iter().all(|asked| !asked.body.contains("maintenance")), "{side}: {asked:?}");
    }
}

#[tokio::test]
async fn an_edit_in_mid_transition_is_refused_by_name_and_the_failover_ends() {
    let stage = Stage::up().await;
    stage.initiate(Side::Passive, Fault::PatroniNoLeader);
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.until("the failover", || stage.shown(Side::Passive)["run"]["transition"] == "golddr-primary").await;
    stage.edit_record(Side::Passive, json!({"transition": "gold-standby"})).await;
    stage.until("the refusal", || stage.refusals(Side::Passive).contains(&"record-edited".to_owned())).await;
    stage.lift(Side::Passive, Fault::PatroniNoLeader);
    stage.settled("golddr-primary").await;
}

#[tokio::test]
async fn defect_13_a_rebuild_half_done_goes_on_after_a_restart_of_the_agent() {
    let mut settings = LabSettings::on_free_ports();
    settings.world.delays.clone_ms = 4_000;
    let mut stage = Stage::up_with(settings).await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    stage.edit_record(Side::Active, json!({"transition": "gold-standby"})).await;
    stage
        .until("the first member to be started", || stage.phase(Side::Active) == "gold-standby-partial")
        .await;
    stage.restart(Side::Active).await;
    stage
        .until("the rest to be taken up", || stage.shown(Side::Active)["run"]["rule"] == "rebuild-resumed")
        .await;
    stage.settled("gold-standby").await;
    let members = stage.world(Side::Active)["database"]["members"].as_object().unwrap().len();
    assert_eq!(members, 3);
}
