//! Transitions in which something goes wrong: nothing is left half done, nothing is believed that was not seen, and
//! no data is deleted that the other site does not hold.

use serde_json::json;
use switchover_agent::lab::agents::LabSettings;
use switchover_agent::lab::cycle;
use switchover_agent::lab::faults::Fault;
use switchover_agent::lab::settings::PatroniVersion;
use switchover_agent::model::Side;

use super::stage::{BOTH, Stage, asked_by_agent};

#[tokio::test]
async fn hazard_4_a_phase_is_settled_only_when_its_pipeline_is_done() {
    let stage = Stage::up().await;
    stage.initiate(Side::Passive, Fault::PipelineHang);
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.until("the record", || stage.phase(Side::Passive) == "golddr-primary").await;
    stage.until("the run to be over", || stage.shown(Side::Passive)["run"].is_null()).await;
    stage.database_looks(Side::Passive, 10).await;
    assert_eq!(stage.shown(Side::Passive)["settled"], false);
    assert_eq!(stage.metric(Side::Passive, "switchover_settled", &[]), 0.0);
    assert_eq!(
        stage.world(Side::Passive)["maintenance"],
        true,
        "maintenance stays on until the application runs"
    );
    assert_eq!(stage.metric(Side::Passive, "switchover_maintenance", &[]), 1.0);
    stage.lift(Side::Passive, Fault::PipelineHang);
    stage.settled("golddr-primary").await;
    assert_eq!(stage.world(Side::Passive)["maintenance"], false);
    assert_eq!(stage.metric(Side::Passive, "switchover_settled", &[]), 1.0);
}

#[tokio::test]
async fn hazard_5_and_defect_12_a_500_on_the_service_leaves_nothing_half_done() {
    let stage = Stage::up().await;
    stage.initiate(Side::Active, Fault::ServicePatch500);
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled_at(Side::Passive, "golddr-primary").await;
    stage.until("the active site's record", || stage.phase(Side::Active) == "golddr-primary").await;
    let shown = stage.shown(Side::Active);
    assert!(shown["beside"].to_string().contains("route-to-maintenance-page"), "{shown}");
    assert_eq!(shown["settled"], false, "what is missing shows");
    stage.lift(Side::Active, Fault::ServicePatch500);
    stage.settled("golddr-primary").await;
    assert_eq!(stage.world(Side::Active)["service"], "maintenance page");
}

#[tokio::test]
async fn hazard_5_and_defect_12_a_planned_move_repeats_the_step_that_failed() {
    let stage = Stage::up().await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    stage.lab.world.initiate(Side::Active, Fault::ServicePatch500, Some(3));
    stage.put_site(Side::Active, "/phase/transition-to-gold-standby").await;
    stage.settled("gold-standby").await;
    let asked = stage.activity(Side::Active).await;
    let start = asked.iter().rposition(|asked| asked.line.starts_with("PHASE_CHANGE")).unwrap();
    let tries = asked[start..].iter().filter(|asked| asked.line.ends_with("/services/keycloak")).count();
    assert!(tries >= 4, "three failures and a success, but {tries}");
}

#[tokio::test]
async fn hazard_6_nothing_waits_while_the_database_is_scaled() {
    let mut settings = LabSettings::on_free_ports().with("DNS_POLL_SECONDS", "0.2");
    settings.world.delays.pod_stop_ms = 6_000;
    let stage = Stage::up_with(settings).await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    stage.put_site(Side::Active, "/phase/transition-to-gold-standby").await;
    let stopping = || {
        let shown = stage.shown(Side::Active);
        let steps = shown["run"]["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().any(|step| step["name"] == "stop-database" && step["status"] == "running")
    };
    stage.until("the database to be stopped", stopping).await;
    stage.dns_rounds(Side::Active, 8).await;
    assert!(stopping(), "the pods still end");
    assert_eq!(stage.get(Side::Active, "/health").await.0, 200);
    assert_eq!(stage.shown(Side::Passive)["peer_link"], "up");
    assert!(stage.shown(Side::Passive)["peer_age_ms"].as_u64() < Some(3_000));
    stage.settled("gold-standby").await;
}

#[tokio::test]
async fn hazard_7_and_defect_6_no_volume_goes_while_the_peers_database_is_not_seen_writable() {
    let stage = Stage::up_with(LabSettings::on_free_ports().with("FRESH_SECONDS", "2")).await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    // The record says golddr-primary, but nobody can say what the database there is.
    stage.initiate(Side::Passive, Fault::PatroniDown);
    stage.until("the facts to be gone", || stage.shown(Side::Active)["peer"]["writable"].is_null()).await;
    for side in BOTH {
        stage.forget_activity(side).await;
    }
    stage.edit_record(Side::Active, json!({"transition": "gold-standby"})).await;
    stage.until("the refusal", || stage.refusals(Side::Active).contains(&"peer-refused".to_owned())).await;
    stage.until("the request to be cleared", || stage.shown(Side::Active)["transition"] == "").await;
    stage.database_looks(Side::Active, 10).await;
    let asked = stage.activity(Side::Active).await;
    assert!(asked.iter().all(|asked| asked.line.contains("/configmaps/switchover-state-")), "{asked:?}");
    stage.lift(Side::Passive, Fault::PatroniDown);
    stage.until("the facts to be back", || stage.shown(Side::Active)["peer"]["writable"] == true).await;
    stage.edit_record(Side::Active, json!({"transition": "gold-standby"})).await;
    stage.settled("gold-standby").await;
}

#[tokio::test]
async fn defect_5_with_fencing_there_is_no_moment_with_two_writers_and_no_row_is_lost() {
    let mut settings = LabSettings::on_free_ports().with("FENCE_OLD_PRIMARY", "true");
    settings.world.writer_interval_ms = Some(20);
    let stage = Stage::up_with(settings).await;
    stage.until("some rows", || stage.lab.world.acknowledged_rows() > 20).await;
    for (name, phase) in cycle::CYCLE {
        stage.put_site(Side::Active, &format!("/phase/{name}")).await;
        stage.settled(phase).await;
    }
    let rows = stage.lab.world.acknowledged_rows();
    stage.until("rows after the cycle", || stage.lab.world.acknowledged_rows() > rows).await;
    let [active, passive] = BOTH.map(|side| stage.lab.world.writable_intervals(side));
    for a in &active {
        for b in &passive {
            let (a_end, b_end) = (a.end_ms.unwrap_or(u64::MAX), b.end_ms.unwrap_or(u64::MAX));
            assert!(a_end <= b.start_ms || b_end <= a.start_ms, "two writers: {a:?} {b:?}");
        }
    }
    assert!(!passive.is_empty(), "the passive site never wrote, so nothing was shown");
    assert_eq!(stage.lab.world.lost_rows(), Vec::<u64>::new());
}

#[tokio::test]
async fn defect_15_a_database_without_a_leader_is_promoted_once_it_has_one() {
    let stage = Stage::up().await;
    stage.initiate(Side::Passive, Fault::PatroniNoLeader);
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage
        .until("the promotion to be tried", || {
            let steps = stage.shown(Side::Passive)["run"]["steps"].as_array().cloned().unwrap_or_default();
            steps.iter().any(|step| step["name"] == "promote-database" && step["attempt"].as_u64() > Some(0))
        })
        .await;
    stage.database_looks(Side::Passive, 10).await;
    assert_eq!(stage.phase(Side::Passive), "active-passive", "what was not seen is not written");
    stage.lift(Side::Passive, Fault::PatroniNoLeader);
    stage.settled("golddr-primary").await;
    assert!(stage.writable(Side::Passive));
}

#[tokio::test]
async fn defect_16_the_words_of_patroni_3_and_4_both_bring_the_pair_around() {
    // Patroni 4 (`streaming`) is the lab's default and what every other test here speaks.
    let mut settings = LabSettings::on_free_ports();
    settings.world.patroni_version = PatroniVersion::V3;
    let stage = Stage::up_with(settings).await;
    let took = cycle::run(&stage.lab, |_| {}).await.unwrap();
    assert_eq!(took.len(), 3);
    assert_eq!([stage.writable(Side::Active), stage.writable(Side::Passive)], [true, false]);
}

#[tokio::test]
async fn defect_19_the_first_pairing_and_the_way_back_from_maintenance_exist() {
    let stage = Stage::up().await;
    for side in BOTH {
        stage.edit_record(side, json!({"last_stable_state": null})).await;
        stage.until("an empty record to become independent", || stage.phase(side) == "independent").await;
    }
    stage.edit_record(Side::Active, json!({"transition": "active-passive"})).await;
    stage.settled("active-passive").await;
    for side in BOTH {
        stage.edit_record(side, json!({"transition": "golddr-maintenance"})).await;
        stage.settled_at(side, "golddr-maintenance").await;
    }
    // The passive site was promoted for its maintenance: what was written there goes, and a person must say so.
    let loss = json!({"accept_data_loss": "the rehearsal's rows may go"});
    let (status, body) = stage.ask(Side::Active, "/phase/transition-to-active-passive", Some(loss)).await;
    assert_eq!(status, 202, "{body}");
    stage.settled("active-passive").await;
    assert_eq!([stage.writable(Side::Active), stage.writable(Side::Passive)], [true, false]);
}

#[tokio::test]
async fn defect_35_a_broken_portal_blocks_no_failover_and_is_told_later() {
    let stage = Stage::up().await;
    for side in BOTH {
        stage.initiate(side, Fault::PortalDown);
    }
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.until("the passive site to serve", || stage.writable(Side::Passive)).await;
    stage.until("both records", || BOTH.into_iter().all(|side| stage.phase(side) == "golddr-primary")).await;
    assert_eq!(stage.world(Side::Active)["maintenance"], false, "the portal has not heard yet");
    for side in BOTH {
        stage.lift(side, Fault::PortalDown);
    }
    stage.settled("golddr-primary").await;
    assert_eq!(stage.world(Side::Active)["maintenance"], true);
    assert_eq!(stage.world(Side::Passive)["maintenance"], false);
}

#[tokio::test]
async fn defect_36_promote_first_opens_traffic_only_after_the_promotion_was_seen() {
    let stage = Stage::up_with(LabSettings::on_free_ports().with("PROMOTE_FIRST", "true")).await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    let asked = stage.activity(Side::Passive).await;
    let place = |what: &str| asked.iter().position(|asked| asked.line.contains(what)).unwrap();
    let (promotion, nobody) = (place("/patroni/config"), place("patroni-spilo-env-vars"));
    let (page, health) = (place("/services/keycloak"), place("generic-api/scale"));
    assert!(promotion < nobody && nobody < page && page < health, "{asked:?}");
}

#[tokio::test]
async fn defect_22_a_pipeline_run_without_labels_disturbs_nothing() {
    let stage = Stage::up().await;
    stage.foreign_run(Side::Passive, "nobodys-run", false).await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    assert_eq!(stage.get(Side::Passive, "/health").await.0, 200);
    assert_eq!(patched_runs(&stage).await, 0, "somebody else's run is left alone");
}

async fn patched_runs(stage: &Stage) -> usize {
    let asked = asked_by_agent(stage, Side::Passive).await;
    asked
        .iter()
        .filter(|asked| asked.line.starts_with("PATCH") && asked.line.contains("/pipelineruns/"))
        .count()
}
