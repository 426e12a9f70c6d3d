//! Whole agents in the lab: a switchover takes the routes of both clouds along, also over the end of an agent.

use switchover_agent::lab::agents::start_agent;
use switchover_agent::lab::front::CloudFault;
use switchover_agent::lab::route_clouds::router;
use switchover_agent::lab::route_scenario::{self, RouteLab};
use switchover_agent::model::Side;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_of_the_lab_comes_true() {
    let mut lines = Vec::new();
    let result = route_scenario::run(|_, line| lines.push(line.to_owned())).await;
    assert!(result.is_ok(), "{}\n{}", result.unwrap_err(), lines.join("\n"));
    assert!(lines.len() >= 10, "{lines:?}");
}

/// Names of the steps that a side's agent has taken, from its journal's notes in `/status`.
fn steps(stage: &RouteLab, side: Side) -> Vec<String> {
    let shown = stage.shown(side);
    let list = shown["run"]["steps"].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|step| step["name"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_moves_the_routes_in_the_right_order_and_a_restarted_agent_goes_on() {
    let journal = tempfile::tempdir().unwrap();
    let path = format!("file:{}", journal.path().display());
    let mut stage = RouteLab::start(&[]).await.unwrap();
    // The active site's agent keeps its journal over its death; the passive one's stays in memory.
    stage.lab.env[Side::Active as usize].insert("JOURNAL".to_owned(), path);
    let old = stage.lab.agents.remove(0);
    let address = old.http;
    old.stop().await;
    let new = start_agent(&stage.lab.env[0], address).await.unwrap();
    stage.lab.agents.insert(0, new);
    stage.ready().await.unwrap();
    // The passive site's router does not take changes for now: nothing may be withdrawn at the active site.
    let far = router(Side::Passive).name;
    stage.clouds.compute.fail("PATCH", &far, 100_000, CloudFault::Refused(503, "backendError"));
    stage.ask("transition-to-golddr-primary").await.unwrap();
    stage
        .until("the active site's step", |it| {
            steps(it, Side::Active).iter().any(|name| name == "pin-routes-to-passive")
                || it.shown(Side::Active)["beside"].to_string().contains("pin-routes-to-passive")
        })
        .await
        .unwrap();
    stage
        .until("the passive site to be pinned", |it| it.shown(Side::Passive)["route_pin"] == "passive")
        .await
        .unwrap();
    assert_eq!(stage.clouds.listed(Side::Active).len(), 1, "nothing is taken away while nobody else has it");
    // The active site's agent ends in the middle and comes back with nothing but its journal and its state file.
    let old = stage.lab.agents.remove(0);
    old.stop().await;
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let new = start_agent(&stage.lab.env[0], any).await.unwrap();
    stage.lab.agents.insert(0, new);
    assert_eq!(stage.clouds.listed(Side::Active).len(), 1);
    stage.clouds.compute.heal();
    stage.until("the routes to follow", |it| it.routes_are([&[], &[0, 1]], [200, 100])).await.unwrap();
    stage.settled("golddr-primary").await.unwrap();
    // In the clouds' own order: the passive router announces before the active one withdraws.
    let calls = stage.clouds.compute.seen();
    let patched: Vec<&str> = calls
        .iter()
        .filter(|call| call.operation == "routers.patch" && call.status == 200)
        .map(|call| if call.target.contains(&far) { "passive announces" } else { "active withdraws" })
        .collect();
    assert_eq!(patched, ["passive announces", "active withdraws"]);
    // Health may say what it likes now.
    stage.clouds.set_backends(Side::Passive, false);
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    assert!(stage.routes_are([&[], &[0, 1]], [200, 100]), "{}", stage.describe());
    stage.clouds.set_backends(Side::Passive, true);
    stage.ask("transition-to-gold-standby").await.unwrap();
    stage.settled("gold-standby").await.unwrap();
    stage.ask("transition-to-active-passive").await.unwrap();
    stage.settled("active-passive").await.unwrap();
    stage.until("the routes to come back", |it| it.routes_are([&[0], &[1]], [100, 100])).await.unwrap();
    stage.stop().await;
}

#[test]
fn both_sides_of_the_switchover_have_the_routes_as_a_step_of_their_plans() {
    use switchover_agent::model::Transition;
    use switchover_agent::plan::{Facts, build};
    let facts = |side, routes| Facts {
        side,
        ordered_by_peer: true,
        automatic: false,
        database_is_primary: false,
        database_is_stopped: false,
        database_is_standby: false,
        catch_up: false,
        promote_first: true,
        fence: true,
        portal: true,
        tekton: true,
        routes,
        peer_lease_ms: 0,
        witness: false,
        health_replicas: 2,
        database_replicas: 3,
        application_replicas: 1,
    };
    let names = |transition, side, routes| -> Vec<String> {
        build(transition, &facts(side, routes)).into_iter().map(|step| step.name).collect()
    };
    for (transition, step) in [
        (Transition::GolddrPrimary, "pin-routes-to-passive"),
        (Transition::ActivePassive, "release-routes-to-health"),
    ] {
        for side in Side::ALL {
            assert!(names(transition, side, true).iter().any(|name| name == step), "{transition} {side}");
            assert!(!names(transition, side, false).iter().any(|name| name.contains("routes-to-")));
        }
    }
    let active = names(Transition::GolddrPrimary, Side::Active, true);
    let at = |name: &str| active.iter().position(|step| step == name).unwrap();
    assert!(
        at("order-peer-golddr-primary") < at("pin-routes-to-passive"),
        "the other site must announce first"
    );
    let passive = names(Transition::GolddrPrimary, Side::Passive, true);
    let at = |name: &str| passive.iter().position(|step| step == name).unwrap();
    assert!(
        at("promote-database") < at("pin-routes-to-passive"),
        "traffic goes where the database takes writes"
    );
}
