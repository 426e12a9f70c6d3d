//! A19 to A32 where a cloud is part of the case: the task in front of strict simulators, on a paused clock.

use serde_json::json;
use switchover_agent::lab::compute::{GroupHealth, OperationStyle};
use switchover_agent::lab::front::CloudFault;
use switchover_agent::lab::magic_transit::MagicAccount;
use switchover_agent::lab::route_clouds::{PREFIXES, PROJECT, REGIONS, RouteClouds, router};
use switchover_agent::model::{Mono, Side};
use switchover_agent::tasks::Exit;

use super::stage::{Stage, of_type};

const LIST: &str = "/regions/us-east1/backendServices?";
const HEALTH: &str = "/regions/us-east1/backendServices/edge/getHealth";

#[tokio::test(start_paused = true)]
async fn a_normal_day_writes_nothing() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(12).await;
    assert_eq!((stage.patches().len(), stage.puts().len()), (0, 0));
    assert_eq!((stage.metric("state", &[]), stage.metric("state_seen", &[])), (1.0, 1.0));
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a08_a_region_that_fails_is_left_in_one_patch() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    // The other site's instance has taken over already.
    stage.clouds.compute.at(|cloud, _| {
        let other = router(Side::Passive);
        cloud.router_mut(&other).unwrap().resource["bgp"]["advertisedIpRanges"] =
            json!([{"range": PREFIXES[1]}, {"range": PREFIXES[0]}]);
    });
    stage.clouds.set_backends(Side::Active, false);
    stage.cycles(5).await;
    let patches = stage.patches();
    assert!(patches.len() <= 1, "{patches:?}");
    assert_eq!(stage.clouds.priorities(Side::Active), [200]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a19_a_list_that_is_refused_is_unknown_and_a_used_up_quota_is_tried_again() {
    for fault in [CloudFault::Refused(403, "forbidden"), CloudFault::Refused(404, "notFound")] {
        let mut stage = Stage::new(&[]);
        stage.start();
        stage.cycles(6).await;
        stage.clouds.compute.fail("GET", LIST, 1, fault);
        let skipped = stage.metric("cycle_total", &["skipped"]);
        stage.cycles(2).await;
        assert_eq!(stage.metric("cycle_total", &["skipped"]), skipped + 1.0, "one held cycle, {fault:?}");
        assert_eq!(stage.metric("input_failure_total", &["local"]), 1.0);
        assert_eq!(stage.metric("retry_total", &["list"]), 0.0, "no permission comes by asking again");
        stage.stop().await;
        let events = stage.events();
        let failed: Vec<_> = of_type(&events, "health_check_result")
            .into_iter()
            .filter(|event| event["result"] == "failure")
            .collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0]["details"]["healthy"], json!(null));
        assert!(failed[0]["details"]["error_code"].as_u64().is_some_and(|code| code == 403 || code == 404));
    }
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    stage.clouds.compute.fail("GET", LIST, 2, CloudFault::Refused(403, "rateLimitExceeded"));
    let skipped = stage.metric("cycle_total", &["skipped"]);
    stage.cycles(2).await;
    assert_eq!(stage.metric("cycle_total", &["skipped"]), skipped);
    assert!(stage.metric("retry_total", &["regionBackendServices.list"]) >= 2.0);
    stage.stop().await;
}

/// Six services in the active region, each with one group.
fn six(stage: &Stage) {
    stage.clouds.compute.with(|cloud| {
        for number in 0..6 {
            let group = format!("projects/lab/zones/us-east1-b/instanceGroups/g{number}");
            cloud.add_service(PROJECT, REGIONS[0], &format!("s{number}"), &[(&group, 1)]);
        }
        cloud.region_mut(PROJECT, REGIONS[0]).services.remove("edge");
    });
}

fn group_health(stage: &Stage, service: &str, health: GroupHealth) {
    stage.clouds.compute.with(|cloud| {
        let service = cloud.region_mut(PROJECT, REGIONS[0]).services.get_mut(service).unwrap();
        for found in service.health.values_mut() {
            *found = health.clone();
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a20_one_backend_of_six_that_does_not_answer_is_tried_again_and_then_unknown() {
    let mut stage = Stage::new(&[]);
    six(&stage);
    stage.start();
    stage.cycles(6).await;
    stage.clouds.compute.fail("POST", "s3/getHealth", 1, CloudFault::Refused(503, "backendError"));
    let skipped = stage.metric("cycle_total", &["skipped"]);
    stage.cycles(2).await;
    assert_eq!(stage.metric("cycle_total", &["skipped"]), skipped, "one failure is made good by a retry");
    group_health(&stage, "s3", GroupHealth::Refused(503, "backendError".to_owned()));
    stage.cycles(3).await;
    assert_eq!(stage.metric("input", &["local"]), -1.0, "unknown, not unhealthy");
    assert_eq!((stage.patches().len(), stage.puts().len()), (0, 0));
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a21_a_sick_instance_on_the_third_page_counts() {
    let mut stage = Stage::new(&[]);
    six(&stage);
    stage.clouds.compute.with(|cloud| cloud.page_size = 2);
    group_health(&stage, "s5", GroupHealth::Instances(vec![("i".to_owned(), "UNHEALTHY".to_owned())]));
    stage.start();
    stage.cycles(6).await;
    assert_eq!(stage.metric("input", &["local"]), 0.0);
    assert_eq!(stage.metric("backends", &["local", "total"]), 6.0);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a22_a_region_without_services_is_unknown_by_default() {
    for (policy, input) in [("unknown", -1.0), ("healthy", 1.0), ("unhealthy", 0.0)] {
        let mut stage = Stage::new(&[("EMPTY_REGION_POLICY", policy)]);
        stage.clouds.compute.with(|cloud| cloud.region_mut(PROJECT, REGIONS[0]).services.clear());
        stage.start();
        stage.cycles(6).await;
        assert_eq!(stage.metric("input", &["local"]), input, "{policy}");
        stage.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a23_an_answer_without_instances_is_not_healthy_and_says_why() {
    let mut stage = Stage::new(&[]);
    six(&stage);
    group_health(&stage, "s1", GroupHealth::Nothing);
    stage.start();
    stage.cycles(6).await;
    assert_eq!(stage.metric("input", &["local"]), 0.0);
    stage.clouds.compute.with(|cloud| {
        let service = cloud.region_mut(PROJECT, REGIONS[0]).services.get_mut("s1").unwrap();
        service.resource["backends"][0]["capacityScaler"] = json!(0.0);
    });
    stage.cycles(6).await;
    assert_eq!(stage.metric("input", &["local"]), 1.0, "a drained backend is not judged");
    stage.stop().await;
    let events = stage.events();
    let text = serde_json::to_string(&of_type(&events, "health_check_result")).unwrap();
    assert!(text.contains("incomplete_health_response"));
}

#[tokio::test(start_paused = true)]
async fn a24_one_patch_with_everything_that_was_there_and_none_where_nothing_differs() {
    let mut stage = Stage::new(&[]);
    let foreign = json!({"range": "203.0.113.0/24", "description": "somebody else's"});
    stage.router(|router| {
        router["bgp"]["advertisedIpRanges"] = json!([foreign, {"range": PREFIXES[0]}]);
    });
    stage.start();
    stage.cycles(8).await;
    assert_eq!(stage.patches().len(), 0, "state 1: announce the own, withdraw the other's");
    stage.clouds.set_backends(Side::Passive, false);
    stage.cycles(8).await;
    let wanted = json!([foreign, {"range": PREFIXES[0]}, {"range": PREFIXES[1]}]);
    assert_eq!(stage.patches(), [json!({"bgp": {"advertisedIpRanges": wanted}})]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a25_the_last_prefix_leaves_an_empty_list() {
    let mut stage = Stage::new(&[("WITHDRAW_GUARD", "off")]);
    stage.start();
    stage.cycles(6).await;
    stage.clouds.set_backends(Side::Active, false);
    stage.cycles(8).await;
    assert_eq!(stage.patches(), [json!({"bgp": {"advertisedIpRanges": []}})]);
    assert!(stage.clouds.listed(Side::Active).is_empty());
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a26_an_operation_that_ends_with_an_error_is_a_failure_and_comes_again() {
    let mut stage = Stage::new(&[]);
    let error = Some(("QUOTA_EXCEEDED".to_owned(), "no".to_owned()));
    stage.clouds.compute.with(|cloud| {
        cloud.operation = OperationStyle { polls: 3, at_latest_ms: 60_000, error };
    });
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    stage.start();
    stage.until("a failed write", || stage.metric("write_total", &["router", "failure"]) >= 1.0).await;
    assert!(stage.clouds.compute.count("regionOperations.get") >= 3, "the operation was followed to its end");
    assert!(stage.clouds.listed(Side::Active).is_empty());
    stage.clouds.compute.with(|cloud| cloud.operation.error = None);
    stage.cycles(2).await;
    assert_eq!(stage.clouds.listed(Side::Active), [PREFIXES[0]]);
    assert_eq!(stage.metric("write_total", &["router", "success"]), 1.0);
    stage.stop().await;
    let events = stage.events();
    let results: Vec<_> =
        of_type(&events, "bgp_advertisement_change").iter().map(|event| event["result"].clone()).collect();
    assert!(results.contains(&json!("failure")) && results.last() == Some(&json!("success")), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn a27_a_router_that_is_busy_is_read_anew_before_every_attempt() {
    let mut stage = Stage::new(&[]);
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    stage.clouds.compute.fail("PATCH", "/routers/", 2, CloudFault::Refused(400, "resourceNotReady"));
    stage.start();
    stage.until("the write", || stage.metric("write_total", &["router", "success"]) >= 1.0).await;
    let calls = stage.clouds.compute.seen();
    let of_router: Vec<(&str, Mono)> = calls
        .iter()
        .filter(|call| call.target.contains("router-active") && !call.target.contains("Status"))
        .map(|call| (call.operation, call.at))
        .collect();
    let patches: Vec<usize> =
        (0..of_router.len()).filter(|index| of_router[*index].0 == "routers.patch").collect();
    assert_eq!(patches.len(), 3, "{of_router:?}");
    assert!(patches.iter().all(|index| of_router[index - 1].0 == "routers.get"), "{of_router:?}");
    assert_eq!(stage.metric("cycle_total", &["failure"]), 0.0);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a28_a_router_whose_list_has_no_effect_is_refused_at_the_start() {
    for (change, says) in [("mode", "advertiseMode is DEFAULT"), ("peer", "peer-1")] {
        let mut stage = Stage::new(&[]);
        stage.router(|router| match change {
            "mode" => {
                router["bgp"]["advertiseMode"] = json!("DEFAULT");
                router["bgp"].as_object_mut().unwrap().remove("advertisedIpRanges");
            }
            _ => router["bgpPeers"][0]["advertiseMode"] = json!("CUSTOM"),
        });
        stage.start();
        let Exit::Failed(reason) = stage.ends().await else { panic!("{change}: it must not start") };
        assert!(reason.contains(says), "{reason}");
        assert!(stage.patches().is_empty());
        let events = stage.events();
        assert!(of_type(&events, "connectivity_test").iter().any(|event| event["result"] == "failure"));
    }
}

fn account(stage: &Stage, change: impl FnOnce(&mut MagicAccount)) {
    stage.clouds.magic.with(change);
}

#[tokio::test(start_paused = true)]
async fn a29_only_what_differs_is_written_and_everything_of_it_is_echoed() {
    let mut stage = Stage::new(&[("DESCRIPTION_SUBSTRING", "CF-DEV-C")]);
    account(&stage, |account| {
        account.routes.clear();
        account.add("192.0.2.0/24", "10.0.0.1", 200, Some("CF-DEV-C a"));
        account.add("192.0.2.0/24", "10.0.0.2", 200, Some("cf-dev-c b"));
        account.add("192.0.2.0/24", "10.0.0.3", 200, None);
        account.add("192.0.2.0/24", "10.0.0.4", 100, Some("CF-DEV-C d"));
        account.routes[0]["scope"] = json!({"colo_regions": ["ENAM"]});
        account.routes[0]["weight"] = json!(10);
    });
    stage.start();
    stage.cycles(8).await;
    let puts = stage.puts();
    assert_eq!(puts.len(), 1, "{puts:?}");
    let entries = puts[0]["routes"].as_array().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["priority"], 100);
    assert_eq!(entries[0]["scope"], json!({"colo_regions": ["ENAM"]}));
    assert_eq!(entries[0]["weight"], 10);
    assert_eq!(entries[0]["description"], "CF-DEV-C a");
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a30_a_filter_that_matches_nothing_is_an_error() {
    let mut stage = Stage::new(&[("DESCRIPTION_SUBSTRING", "NOBODY")]);
    stage.start();
    let Exit::Failed(reason) = stage.ends().await else { panic!("it must not start") };
    assert!(reason.contains("NOBODY"), "{reason}");
    // Routes that vanish later are a failure of every cycle, and the other cloud is steered all the same.
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    account(&stage, |account| account.routes.clear());
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    stage.cycles(2).await;
    assert!(stage.metric("cycle_total", &["failure"]) >= 1.0);
    assert_eq!(stage.metric("cf_matching_routes", &[]), 0.0);
    assert_eq!(stage.clouds.listed(Side::Active), [PREFIXES[0]]);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a31_retry_after_is_waited_for_and_does_not_hold_the_router_up() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    account(&stage, |account| account.routes.iter_mut().for_each(|route| route["priority"] = json!(200)));
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    stage.clouds.magic.forget();
    stage.clouds.magic.fail("PUT", "/magic/routes", 1, CloudFault::RateLimited(7));
    stage.cycles(1).await;
    assert_eq!(stage.clouds.listed(Side::Active), [PREFIXES[0]]);
    assert_eq!(stage.clouds.priorities(Side::Active), [100]);
    let writes = stage.clouds.magic.writes();
    assert_eq!(writes.len(), 2);
    assert!(writes[1].at.since(writes[0].at) >= 7_000, "{:?}", [writes[0].at, writes[1].at]);
    assert_eq!(stage.metric("cycle_total", &["failure"]), 0.0);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a32_a_failed_router_does_not_keep_cloudflare_from_being_written() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    account(&stage, |account| account.routes.iter_mut().for_each(|route| route["priority"] = json!(200)));
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    stage.clouds.compute.fail("PATCH", "/routers/", 50, CloudFault::Refused(403, "forbidden"));
    stage.cycles(1).await;
    assert_eq!(stage.clouds.priorities(Side::Active), [100]);
    assert_eq!(stage.metric("cycle_total", &["failure"]), 1.0);
    stage.stop().await;
    let events = stage.events();
    let cycle = of_type(&events, "health_check_cycle").into_iter().find(|event| event["result"] == "failure");
    let details = &cycle.unwrap()["details"];
    assert_eq!(details["operation_results"]["primary_advertisement_success"], false);
    assert_eq!(details["operation_results"]["cloudflare_update_success"], true);
}

#[tokio::test(start_paused = true)]
async fn a_cloudflare_that_is_down_at_the_start_does_not_keep_the_router_from_being_steered() {
    let mut stage = Stage::at(Side::Active, RouteClouds::new(), &[]);
    stage.clouds.magic.fail("GET", "/", 10_000, CloudFault::Reset);
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    stage.start();
    stage.until("the router", || stage.clouds.listed(Side::Active) == [PREFIXES[0]]).await;
    assert!(stage.is_running());
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sick_backend_in_the_middle_of_a_retry_storm_never_withdraws() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    stage.clouds.compute.fail("POST", HEALTH, 500, CloudFault::Refused(429, "rateLimitExceeded"));
    stage.cycles(10).await;
    assert_eq!((stage.patches().len(), stage.puts().len()), (0, 0));
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a13_the_dwell_time_is_an_event_and_the_loop_goes_on() {
    let mut stage = Stage::new(&[
        ("CHECK_INTERVAL_SECONDS", "5"),
        ("HEALTH_CHECK_WINDOW", "3"),
        ("HEALTH_CHECK_THRESHOLD", "2"),
        ("WITHDRAW_GUARD", "off"),
    ]);
    stage.start();
    stage.cycles(5).await;
    stage.clouds.set_backends(Side::Active, false);
    stage.until("state 2", || stage.metric("state", &[]) == 2.0).await;
    let since = tokio::time::Instant::now();
    stage.clouds.set_backends(Side::Active, true);
    stage.clouds.set_backends(Side::Passive, false);
    stage.cycles(15).await;
    assert_eq!((stage.metric("state", &[]), stage.metric("state_seen", &[])), (2.0, 3.0));
    assert!(stage.clouds.listed(Side::Active).is_empty(), "the old state's outcome stays");
    stage.until("state 3", || stage.metric("state", &[]) == 3.0).await;
    assert!(since.elapsed().as_secs() >= 115, "{:?}", since.elapsed());
    stage.cycles(1).await;
    assert_eq!(stage.clouds.listed(Side::Active).len(), 2);
    stage.stop().await;
    let events = stage.events();
    let refused = of_type(&events, "dwell_time_enforced");
    assert!(refused.len() >= 5, "{}", refused.len());
    assert_eq!(refused[0]["details"]["refused_state_code"], 3);
}

#[tokio::test(start_paused = true)]
async fn a16_a_status_that_does_not_come_in_time_is_unknown() {
    let mut stage = Stage::new(&[("CYCLE_DEADLINE_SECONDS", "20")]);
    stage.start();
    stage.cycles(6).await;
    stage.clouds.compute.fail("GET", "router-passive/getRouterStatus", 1, CloudFault::Silent);
    let skipped = stage.metric("cycle_total", &["skipped"]);
    stage.cycles(3).await;
    assert_eq!(stage.metric("cycle_total", &["skipped"]), skipped + 1.0);
    assert_eq!(stage.metric("input_failure_total", &["bgp"]), 1.0);
    assert_eq!((stage.patches().len(), stage.puts().len()), (0, 0));
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a17_sessions_that_blink_write_nothing() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    stage.clouds.set_sessions(Side::Passive, false);
    stage.cycles(1).await;
    stage.clouds.set_sessions(Side::Passive, true);
    stage.cycles(6).await;
    assert_eq!((stage.patches().len(), stage.puts().len()), (0, 0));
    stage.clouds.set_sessions(Side::Passive, false);
    stage.until("the other prefix", || stage.clouds.listed(Side::Active).len() == 2).await;
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a36_passive_mode_watches_and_never_writes() {
    let mut stage = Stage::new(&[("RUN_PASSIVE", "yes")]);
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    stage.start();
    stage.cycles(8).await;
    stage.clouds.set_backends(Side::Active, false);
    stage.cycles(8).await;
    assert_eq!((stage.patches().len(), stage.puts().len()), (0, 0));
    assert_eq!(stage.metric("cycle_total", &["skipped"]), stage.metric("cycle_total", &[]));
    assert_eq!(stage.metric("failed_cycles_in_a_row", &[]), 0.0);
    stage.stop().await;
    let events = stage.events();
    let codes: Vec<_> = of_type(&events, "state_transition")
        .iter()
        .map(|event| event["details"]["new_state_code"].clone())
        .collect();
    assert_eq!(codes, [json!(1), json!(2)]);
    let cycle = of_type(&events, "health_check_cycle")[0];
    assert_eq!(cycle["details"]["configuration"]["passive_mode"], true);
}
