//! Actions that must not happen twice, when their answer is lost: the world is looked at before they are repeated.

use serde_json::{Value, json};
use switchover_agent::lab::agents::LabSettings;
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;

use super::stage::Stage;

async fn count(stage: &Stage, side: Side, begins: &str) -> usize {
    stage.activity(side).await.iter().filter(|asked| asked.line.starts_with(begins)).count()
}

async fn failed_over(settings: LabSettings) -> Stage {
    let stage = Stage::up_with(settings).await;
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    stage
}

#[tokio::test]
async fn a_trigger_whose_answer_is_lost_starts_one_run() {
    let stage = Stage::up().await;
    // Somebody else's run of our release that was there before is not taken for ours.
    stage.foreign_run(Side::Passive, "somebody-elses", true).await;
    stage.lab.world.initiate(Side::Passive, Fault::ListenerMute, Some(1));
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    stage.settled("golddr-primary").await;
    assert_eq!(count(&stage, Side::Passive, "POST /tekton").await, 1);
    assert_eq!(stage.metric(Side::Passive, "switchover_pipeline_total", &["state=\"Retry\""]), 0.0);
}

#[tokio::test]
async fn after_a_503_the_run_is_waited_for_before_it_is_asked_for_again() {
    let stage = Stage::up_with(LabSettings::on_free_ports().with("TEKTON_SETTLE_SECONDS", "10")).await;
    stage.lab.world.initiate(Side::Passive, Fault::ListenerDown, Some(1));
    stage.put_site(Side::Active, "/phase/transition-to-golddr-primary").await;
    // 503 may be a proxy's word for an event that was heard, so the run is waited for: within one call's limit.
    let again = || {
        let steps = stage.shown(Side::Passive)["run"]["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().any(|step| step["name"] == "start-pipeline" && step["attempt"].as_u64() > Some(1))
    };
    stage.until("the second try", again).await;
    assert_eq!(count(&stage, Side::Passive, "POST /tekton").await, 1, "a run may still appear");
}

#[tokio::test]
async fn a_volume_whose_deletion_was_not_answered_is_deleted_once() {
    let stage = failed_over(LabSettings::on_free_ports()).await;
    // One lost answer for each of the four deletions of a rebuild.
    stage.lab.world.initiate(Side::Active, Fault::ApiDeleteMute, Some(4));
    stage.edit_record(Side::Active, json!({"transition": "gold-standby"})).await;
    stage.settled("gold-standby").await;
    for object in ["patroni-spilo-0", "patroni-spilo-1", "patroni-spilo-2"] {
        let line = "DELETE /k8s/api/v1/namespaces/sso-dev/persistentvolumeclaims/storage-volume-";
        assert_eq!(count(&stage, Side::Active, &format!("{line}{object}")).await, 1, "{object}");
    }
    let state = "DELETE /k8s/api/v1/namespaces/sso-dev/configmaps/patroni-spilo-config";
    assert_eq!(count(&stage, Side::Active, state).await, 1);
}

#[tokio::test]
async fn a_new_claim_of_the_same_name_is_not_deleted() {
    let stage = failed_over(LabSettings::on_free_ports()).await;
    let claim = "storage-volume-patroni-spilo-0";
    let url = |name: &str| {
        format!(
            "{}/k8s/api/v1/namespaces/sso-dev/persistentvolumeclaims{name}",
            stage.lab.site_url(Side::Active)
        )
    };
    stage.lab.world.initiate(Side::Active, Fault::ApiDeleteMute, Some(1));
    stage.edit_record(Side::Active, json!({"transition": "gold-standby"})).await;
    // As soon as the claim is gone (its deletion was not answered), somebody makes a new one.
    let made = async {
        let object = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        loop {
            let made = stage.client.post(url("")).json(&object).send().await.unwrap();
            if made.status().is_success() {
                return made.json::<Value>().await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let made = tokio::time::timeout(std::time::Duration::from_secs(90), made).await.unwrap();
    stage.settled("gold-standby").await;
    let kept: Value = stage.client.get(url(&format!("/{claim}"))).send().await.unwrap().json().await.unwrap();
    assert_eq!(kept["metadata"]["uid"], made["metadata"]["uid"], "the new claim stays");
    assert!(made["metadata"]["uid"].is_string());
}
