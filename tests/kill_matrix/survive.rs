//! What a killed agent must not forget: tries of the pipeline and their clock, messages that wait for the peer, a
//! consent that was asked for.

use std::time::Duration;

use serde_json::Value;
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;
use tokio::time::Instant;

use crate::cases::JournalKind;
use crate::drive::scenario;
use crate::rig::Rig;

const TRIGGER: &str = "POST tekton";

fn started(rig: &Rig, side: Side) -> usize {
    rig.once_effects(side).get(TRIGGER).copied().unwrap_or_default()
}

fn says(shown: &Value, key: &str, text: &str) -> bool {
    shown[key].as_str().is_some_and(|value| value.contains(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_of_the_pipeline_and_their_clock_survive() {
    const INTERVAL: u64 = 6;
    let mut rig = Rig::lay(scenario("golddr-primary"), JournalKind::File).await;
    rig.lab.world.initiate(Side::Passive, Fault::PipelineFail, None);
    let limits =
        [("PIPELINE_RETRY_INTERVAL_SECONDS", "6"), ("PIPELINE_MAX_RETRIES", "1"), ("LOG_LEVEL", "info")];
    rig.start(Side::Active, &[]);
    rig.start(Side::Passive, &limits);
    rig.until_acquainted().await.unwrap();
    rig.order(Side::Active, "golddr-primary").await.unwrap();
    rig.until(Side::Passive, "the first failure", |shown| says(shown, "pipeline", "Waiting")).await;
    let failed = Instant::now();
    rig.kill(Side::Passive).await;
    rig.start(Side::Passive, &limits);
    rig.until(Side::Passive, "the second try", |shown| !says(shown, "pipeline", "Waiting")).await;
    assert!(failed.elapsed() > Duration::from_secs(INTERVAL - 1), "the pause was not cut short");
    rig.until(Side::Passive, "the end", |shown| says(shown, "pipeline", "GivenUp")).await;
    rig.kill(Side::Passive).await;
    rig.start(Side::Passive, &limits);
    rig.until(Side::Passive, "what was given up", |shown| says(shown, "pipeline", "GivenUp")).await;
    assert_eq!(started(&rig, Side::Passive), 2, "one try and one more");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_to_a_dead_peer_outlives_the_agent_that_gave_it() {
    let scenario = scenario("golddr-primary");
    let mut rig = Rig::lay(scenario, JournalKind::ConfigMap).await;
    rig.start(Side::Active, &[]);
    rig.until_acting(Side::Active).await.unwrap();
    rig.order(Side::Active, scenario.transition).await.unwrap();
    rig.until(Side::Active, "its own part", |shown| {
        shown["phase"] == "golddr-primary" && shown["run"].is_null()
    })
    .await;
    rig.kill(Side::Active).await;
    rig.start(Side::Active, &[]);
    rig.start(Side::Passive, &[]);
    for side in Side::ALL {
        rig.until(side, "the whole failover", |shown| (scenario.is_over)(side, shown)).await;
    }
    assert_eq!(started(&rig, Side::Passive), 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consent_that_was_asked_for_is_still_waited_for_after_a_restart() {
    let scenario = scenario("gold-standby");
    let mut rig = Rig::lay(scenario, JournalKind::File).await;
    let patient = [("CONSENT_TIMEOUT_SECONDS", "300")];
    rig.start(Side::Active, &patient);
    rig.start(Side::Passive, &[("FAULT_KILL_AT", "tell-peer-yes:before-intent")]);
    rig.until_acquainted().await.unwrap();
    rig.order(Side::Active, scenario.transition).await.unwrap();
    while rig.ended(Side::Passive).is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let waits = |shown: &Value| shown["waiting_for_consent"] == "gold-standby" && shown["transition"] == "";
    rig.until(Side::Active, "the request to be out of the record", waits).await;
    rig.kill(Side::Active).await;
    rig.start(Side::Active, &patient);
    rig.until(Side::Active, "the request to be known again", waits).await;
    rig.start(Side::Passive, &[]);
    for side in Side::ALL {
        rig.until(side, "the rebuild", |shown| (scenario.is_over)(side, shown)).await;
    }
    rig.stop().await;
}
