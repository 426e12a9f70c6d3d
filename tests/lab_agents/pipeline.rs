//! Deployment pipelines that fail, hang or were never ours: every tracking has an end, and the metrics tell it.

use switchover_agent::lab::agents::LabSettings;
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;

use super::stage::Stage;

fn quick() -> LabSettings {
    LabSettings::on_free_ports()
        .with("PIPELINE_RETRY_INTERVAL_SECONDS", "1")
        .with("PIPELINE_MAX_RETRIES", "1")
}

const FAILED: &str = "switchover_transition_failed_total";

#[tokio::test]
async fn defects_14_and_21_a_failed_pipeline_is_declared_once_and_cleared_only_by_a_later_run() {
    let stage = Stage::up_with(quick()).await;
    stage.initiate(Side::Passive, Fault::PipelineFail);
    // A success of long ago, as a watch shows it again after each reconnect.
    stage.foreign_run(Side::Passive, "yesterdays-run", true).await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.until("the failure to be declared", || stage.metric(Side::Passive, FAILED, &[]) == 1.0).await;
    let gauge = |text: f64| stage.metric(Side::Passive, "switchover_transition{", &["release="]) == text;
    assert!(gauge(3.0), "3 = failed");
    assert_eq!(stage.metric(Side::Passive, "switchover_pipeline_total", &["state=\"Retry\""]), 1.0);
    stage.finish_run(Side::Passive, "yesterdays-run").await;
    stage.initiate(Side::Passive, Fault::Watch410);
    stage.lift(Side::Passive, Fault::Watch410);
    stage.database_looks(Side::Passive, 20).await;
    assert!(gauge(3.0), "an old success clears nothing");
    assert_eq!(stage.world(Side::Passive)["maintenance"], true);
    assert_eq!(stage.metric(Side::Passive, FAILED, &[]), 1.0);
    stage.lift(Side::Passive, Fault::PipelineFail);
    stage.foreign_run(Side::Passive, "a-persons-run", true).await;
    stage.finish_run(Side::Passive, "a-persons-run").await;
    stage.settled("golddr-primary").await;
    assert!(gauge(0.0));
    assert_eq!(stage.world(Side::Passive)["maintenance"], false);
    assert_eq!(stage.metric(Side::Passive, FAILED, &[]), 1.0, "the counter remembers");
}

#[tokio::test]
async fn defect_20_a_hung_run_is_cancelled_and_tried_again() {
    let stage = Stage::up_with(quick().with("PIPELINE_ATTEMPT_TIMEOUT_SECONDS", "2")).await;
    stage.initiate(Side::Passive, Fault::PipelineHang);
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage
        .until("the time-out", || {
            stage.metric(Side::Passive, "switchover_pipeline_total", &["state=\"Timeout\""]) >= 1.0
        })
        .await;
    stage.lift(Side::Passive, Fault::PipelineHang);
    stage.settled("golddr-primary").await;
    let asked = stage.activity(Side::Passive).await;
    let cancelled = |body: &str| body == r#"{"spec":{"status":"CancelledRunFinally"}}"#;
    assert!(
        asked.iter().any(|asked| asked.line.contains("/pipelineruns/") && cancelled(&asked.body)),
        "{asked:?}"
    );
    assert_eq!(stage.metric(Side::Passive, FAILED, &[]), 0.0);
}

#[tokio::test]
async fn defect_20_a_listener_that_refuses_is_asked_again_and_blocks_nothing_for_ever() {
    let stage = Stage::up_with(quick()).await;
    stage.lab.world.initiate(Side::Passive, Fault::ListenerDown, Some(2));
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    let asked = stage.activity(Side::Passive).await;
    assert!(asked.iter().filter(|asked| asked.line == "POST /tekton").count() >= 3, "{asked:?}");
}
