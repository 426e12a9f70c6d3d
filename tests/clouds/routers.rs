//! Routers: one patch from one fresh read, operations to their end, read-back, obstacles, races, sessions.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use switchover_agent::adapters::gcp::{GcpError, Overrides};
use switchover_agent::lab::compute::OperationStyle;
use switchover_agent::lab::front::CloudFault;
use switchover_agent::model::FailureKind;
use tokio::time::Instant;

use crate::bench::{Bench, OTHER, PRIMARY, SECONDARY, deadline, east_router, waits, wanted, west_router};

#[tokio::test(start_paused = true)]
async fn a_24_both_prefixes_go_into_one_patch_and_nothing_else_changes() {
    let bench = Bench::new();
    bench.cloud.with(|cloud| {
        let router = cloud.router_mut(&east_router()).unwrap();
        router.resource["bgp"]["advertisedIpRanges"][0]["description"] = json!("somebody else's");
    });
    let before = bench.cloud.with(|cloud| cloud.router(&east_router()).unwrap().resource.clone());

    let nothing = bench.steer(true, false).await.unwrap();
    assert_eq!((nothing.changed.len(), nothing.patches, nothing.operation), (0, 0, None));
    assert_eq!(bench.cloud.write_count(), 0);

    let done = bench.steer(true, true).await.unwrap();
    assert_eq!((done.changed.len(), done.patches), (1, 1));
    assert!(done.operation.is_some());
    let writes = bench.cloud.writes();
    assert_eq!(writes.len(), 1);
    let list =
        json!([{"range": OTHER, "description": "somebody else's"}, {"range": PRIMARY}, {"range": SECONDARY}]);
    assert_eq!(writes[0].body, Some(json!({"bgp": {"advertisedIpRanges": list}})));
    assert!(writes[0].target.contains("requestId="), "{}", writes[0].target);
    let mut after = bench.cloud.with(|cloud| cloud.router(&east_router()).unwrap().resource.clone());
    after["bgp"]["advertisedIpRanges"] = before["bgp"]["advertisedIpRanges"].clone();
    assert_eq!(after, before, "nothing else");
}

#[tokio::test(start_paused = true)]
async fn a_25_the_last_prefix_is_withdrawn_by_an_empty_list() {
    let bench = Bench::new();
    bench.cloud.with(|cloud| cloud.add_router(&east_router(), &[PRIMARY], &["peer-a"]));
    bench.steer(false, false).await.unwrap();
    assert_eq!(bench.cloud.writes()[0].body, Some(json!({"bgp": {"advertisedIpRanges": []}})));
    assert!(bench.listed().is_empty());
    let nothing = bench.steer(false, false).await.unwrap();
    assert_eq!(nothing.patches, 0, "a list that disappeared is empty");
}

#[tokio::test(start_paused = true)]
async fn a_26_an_operation_is_followed_to_its_end_and_its_error_is_a_failure() {
    let bench = Bench::new();
    let style = OperationStyle {
        polls: 3,
        at_latest_ms: 600_000,
        error: Some(("INVALID_USAGE".to_owned(), "quota of routes".to_owned())),
    };
    bench.cloud.with(|cloud| cloud.operation = style.clone());
    let error = bench.steer(true, true).await.unwrap_err();
    assert!(matches!(&error, GcpError::Operation { code, .. } if code == "INVALID_USAGE"), "{error}");
    assert_eq!(bench.cloud.count("regionOperations.get"), 4, "three times RUNNING, then DONE");
    assert_eq!(bench.cloud.write_count(), 1, "not repeated by itself");
    assert_eq!(bench.listed(), [OTHER, PRIMARY]);

    bench.cloud.with(|cloud| cloud.operation = OperationStyle { error: None, ..style });
    bench.steer(true, true).await.unwrap();
    assert_eq!(bench.cloud.write_count(), 2, "the next cycle does");
    assert_eq!(bench.listed(), [OTHER, PRIMARY, SECONDARY]);
    let last = bench.cloud.seen().pop().unwrap();
    assert_eq!(last.operation, "routers.get", "the read-back");
}

#[tokio::test(start_paused = true)]
async fn a_27_a_router_that_is_being_changed_is_waited_for_with_a_fresh_read_each_time() {
    let bench = Bench::new();
    bench.cloud.fail("PATCH", "routers", 2, CloudFault::Refused(400, "resourceNotReady"));
    bench.steer(true, true).await.unwrap();
    assert_eq!(waits(&bench.heard), [1, 2]);
    let calls: Vec<&str> = bench.cloud.seen().iter().map(|call| call.operation).collect();
    let expected = [
        "token",
        "routers.get",
        "routers.patch",
        "routers.get",
        "routers.patch",
        "routers.get",
        "routers.patch",
        "regionOperations.get",
        "regionOperations.get",
        "routers.get",
    ];
    assert_eq!(calls, expected);
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_operation_on_the_router_is_waited_out() {
    let bench = Bench::new();
    let (style, other) =
        (OperationStyle { polls: 99, at_latest_ms: 2_500, error: None }, bench.compute.clone());
    bench.cloud.with(|cloud| cloud.operation = style);
    let place = east_router();
    let wanted_by_them = wanted(false, true);
    let (theirs, ours) =
        tokio::join!(other.steer(&place, &wanted_by_them[..1], Overrides::Refuse, deadline()), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mine = wanted(true, true);
            bench.compute.steer(&place, &mine[1..], Overrides::Refuse, deadline()).await
        });
    theirs.unwrap();
    ours.unwrap();
    let mut listed = bench.listed();
    listed.sort();
    assert_eq!(listed, [OTHER, SECONDARY], "neither change is lost");
}

#[tokio::test(start_paused = true)]
async fn a_28_a_router_whose_list_means_nothing_is_not_written() {
    for (change, about) in [
        (json!({"bgp": {"asn": 64512, "advertiseMode": "DEFAULT"}}), "ALL_SUBNETS"),
        (json!({"bgp": {"asn": 64512}}), "DEFAULT"),
    ] {
        let bench = Bench::new();
        bench.cloud.with(|cloud| {
            cloud.router_mut(&east_router()).unwrap().resource["bgp"] = change["bgp"].clone();
        });
        let view = bench.compute.router(&east_router(), deadline()).await.unwrap();
        assert!(view.obstacle(Overrides::Refuse).unwrap().contains(about));
        let error = bench.steer(true, true).await.unwrap_err();
        assert!(matches!(error, GcpError::Unsteerable { .. }), "{error}");
        assert_eq!(bench.cloud.write_count(), 0);
    }
    let bench = own_list();
    let view = bench.compute.router(&east_router(), deadline()).await.unwrap();
    assert!(view.obstacle(Overrides::Refuse).unwrap().contains("peer-b"));
    let error = bench.steer(true, true).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Permanent);
    assert!(error.to_string().contains("peer-b"), "{error}");
    assert!(
        bench.attempts.breakers().values().all(|(_, failures)| *failures == 0),
        "the API did nothing wrong"
    );
}

fn own_list() -> Bench {
    let bench = Bench::new();
    bench.cloud.with(|cloud| {
        let peer = &mut cloud.router_mut(&east_router()).unwrap().resource["bgpPeers"][1];
        peer["advertiseMode"] = json!("CUSTOM");
        peer["advertisedIpRanges"] = json!([{"range": OTHER, "description": "own"}]);
    });
    bench
}

#[tokio::test(start_paused = true)]
async fn peers_with_their_own_list_are_managed_on_request_and_keep_everything_else() {
    let bench = own_list();
    let before = bench.cloud.with(|cloud| cloud.router(&east_router()).unwrap().resource["bgpPeers"].clone());
    let wanted = wanted(true, true);
    bench.compute.steer(&east_router(), &wanted, Overrides::Manage, deadline()).await.unwrap();
    assert_eq!(bench.cloud.write_count(), 1);
    let after = bench.cloud.with(|cloud| cloud.router(&east_router()).unwrap().resource["bgpPeers"].clone());
    assert_eq!(after[0], before[0]);
    let list = json!([{"range": OTHER, "description": "own"}, {"range": PRIMARY}, {"range": SECONDARY}]);
    assert_eq!(after[1]["advertisedIpRanges"], list);
    tokio::time::advance(Duration::from_secs(10)).await;
    let status = bench.compute.sessions(&east_router(), deadline()).await.unwrap();
    let heard: Vec<_> = status.sessions.iter().map(|s| s.advertised.len()).collect();
    assert_eq!(heard, [3, 3], "both peers announce all three");
    assert_eq!(bench.listed(), [OTHER, PRIMARY, SECONDARY]);
}

#[tokio::test(start_paused = true)]
async fn a_read_back_that_differs_starts_over_from_a_fresh_read() {
    let bench = Bench::new();
    let mut reads = 0;
    bench.cloud.before_each(move |request, cloud| {
        if request.method == Method::GET && request.path.ends_with("/router-east") {
            reads += 1;
            if reads == 2 {
                // Just before the read-back, somebody writes the list as they knew it, and one more.
                let router = cloud.router_mut(&east_router()).unwrap();
                let theirs = json!([{"range": OTHER}, {"range": PRIMARY}, {"range": "10.98.0.0/16"}]);
                router.resource["bgp"]["advertisedIpRanges"] = theirs;
            }
        }
    });
    let done = bench.steer(true, true).await.unwrap();
    assert_eq!(done.patches, 2);
    assert_eq!(bench.listed(), [OTHER, PRIMARY, "10.98.0.0/16", SECONDARY], "their addition stays");
    let ids: Vec<String> = bench.cloud.writes().iter().map(|call| call.target.clone()).collect();
    assert_ne!(ids[0], ids[1], "another request, another identifier");
}

#[tokio::test(start_paused = true)]
async fn a_patch_whose_answer_is_lost_is_not_made_twice() {
    for fault in [CloudFault::DoneReset, CloudFault::Truncated, CloudFault::NotJson, CloudFault::DoneSilently]
    {
        let bench = Bench::new();
        bench.cloud.fail("PATCH", "routers", 1, fault);
        let done = bench.steer(true, true).await.unwrap();
        assert_eq!(bench.listed(), [OTHER, PRIMARY, SECONDARY], "{fault:?}");
        let writes = bench.cloud.writes();
        assert!(
            writes.windows(2).all(|pair| pair[0].target == pair[1].target),
            "{fault:?}: the same requestId"
        );
        let operations = bench
            .cloud
            .with(|cloud| cloud.region_mut(crate::bench::NETWORK, crate::bench::EAST).operations.len());
        assert_eq!(operations, 1, "{fault:?}: {done:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn looks_at_an_operation_that_fail_are_repeated_until_the_limit() {
    let bench = Bench::new();
    bench.cloud.fail("GET", "operations", 3, CloudFault::Refused(503, "backendError"));
    bench.steer(true, true).await.unwrap();
    assert_eq!(bench.listed(), [OTHER, PRIMARY, SECONDARY]);

    let stuck = OperationStyle { polls: u32::MAX, at_latest_ms: 3_600_000, error: None };
    bench.cloud.with(|cloud| cloud.operation = stuck);
    let began = Instant::now();
    let error = bench.steer(true, false).await.unwrap_err();
    assert!(matches!(error, GcpError::OperationLate { .. }), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(60), "GCP_BGP_OPERATION_TIMEOUT: {:?}", began.elapsed());
    assert_eq!(error.kind(), FailureKind::Transient);
}

#[tokio::test(start_paused = true)]
async fn a_16_a_status_that_cannot_be_had_is_an_error_and_never_a_session_that_is_down() {
    let bench = Bench::new();
    bench.cloud.fail("GET", "getRouterStatus", u32::MAX, CloudFault::Silent);
    let error = bench.compute.sessions(&west_router(), deadline()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Transient, "{error}");
    bench.cloud.heal();
    bench.cloud.fail("GET", "getRouterStatus", 1, CloudFault::Silent);
    let status = bench.compute.sessions(&west_router(), deadline()).await.unwrap();
    assert_eq!(status.up_of(), (2, 2), "one lost answer is asked for again");
}

#[tokio::test(start_paused = true)]
async fn a_18_sessions_are_counted_as_the_api_words_them() {
    let bench = Bench::new();
    let up_of = async |words: [&str; 2]| {
        bench.cloud.with(|cloud| {
            let router = cloud.router_mut(&west_router()).unwrap();
            router.sessions =
                ["peer-c", "peer-d"].map(str::to_owned).into_iter().zip(words.map(str::to_owned)).collect();
        });
        bench.compute.sessions(&west_router(), deadline()).await.unwrap().up_of()
    };
    assert_eq!(up_of(["UP", "DOWN"]).await, (1, 2));
    assert_eq!(up_of(["IDLE", "CONNECT"]).await, (0, 2));
    assert_eq!(up_of(["", ""]).await, (0, 2), "entries without the field");
    bench.cloud.with(|cloud| cloud.router_mut(&west_router()).unwrap().sessions.clear());
    let status = bench.compute.sessions(&west_router(), deadline()).await.unwrap();
    assert_eq!(status.up_of(), (0, 0), "no list at all");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_switched_off_is_marked_and_a_router_is_only_read_to_know_it() {
    let bench = Bench::new();
    bench.compute.sessions(&west_router(), deadline()).await.unwrap();
    assert_eq!(bench.cloud.count("routers.get"), 0);
    bench.cloud.with(|cloud| {
        let router = cloud.router_mut(&west_router()).unwrap();
        router.resource["bgpPeers"][0]["enable"] = json!("FALSE");
        router.sessions.insert("peer-c".to_owned(), "DOWN".to_owned());
    });
    let status = bench.compute.sessions(&west_router(), deadline()).await.unwrap();
    assert!(status.sessions[0].disabled && !status.sessions[1].disabled);
    assert_eq!(status.up_of(), (1, 1));
    bench.cloud.fail("GET", "/routers/router-west", u32::MAX, CloudFault::Refused(500, "backendError"));
    assert!(bench.compute.sessions(&west_router(), deadline()).await.is_err(), "not knowing is not down");
}

#[tokio::test(start_paused = true)]
async fn what_is_really_announced_follows_the_operation_later_and_only_on_sessions_that_are_up() {
    let bench = Bench::new();
    let prefix = SECONDARY.parse().unwrap();
    bench.steer(true, true).await.unwrap();
    let view = bench.compute.router(&east_router(), deadline()).await.unwrap();
    assert!(view.lists(prefix));
    let now = bench.compute.sessions(&east_router(), deadline()).await.unwrap();
    assert!(!now.announces(prefix), "configured, and not announced yet");
    tokio::time::advance(Duration::from_secs(3)).await;
    let later = bench.compute.sessions(&east_router(), deadline()).await.unwrap();
    assert!(later.announces(prefix));
    bench.cloud.with(|cloud| cloud.set_sessions(&east_router(), "DOWN"));
    let down = bench.compute.sessions(&east_router(), deadline()).await.unwrap();
    assert!(!down.announces(prefix));
}

#[tokio::test(start_paused = true)]
async fn a_39_a_stop_ends_a_wait_at_once_and_sends_nothing_more() {
    let bench = Bench::new();
    bench.cloud.fail("PATCH", "routers", u32::MAX, CloudFault::RateLimited(16));
    let began = Instant::now();
    let stop = bench.stop.clone();
    let (result, ()) = tokio::join!(bench.steer(true, true), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop.cancel();
    });
    assert!(result.is_err());
    assert_eq!(began.elapsed().as_secs(), 5);
    assert_eq!(bench.cloud.write_count(), 1);
    assert_eq!(bench.listed(), [OTHER, PRIMARY]);
}

#[tokio::test(start_paused = true)]
async fn startup_says_which_region_and_which_permission_is_missing() {
    let bench = Bench::new();
    let compute = &bench.compute;
    compute.check_project(crate::bench::SERVICES, deadline()).await.unwrap();
    compute.check_region(crate::bench::SERVICES, crate::bench::EAST, deadline()).await.unwrap();
    let error = compute.check_region(crate::bench::SERVICES, "us-moon1", deadline()).await.unwrap_err();
    assert_eq!(error.status(), Some(404));
    assert!(error.to_string().contains("us-moon1"), "{error}");
    bench.cloud.with(|cloud| cloud.denied.insert("compute.projects.get".to_owned()));
    let error = compute.check_project(crate::bench::SERVICES, deadline()).await.unwrap_err();
    assert!(error.to_string().contains("Required 'compute.projects.get' permission"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_router_is_no_reason_to_write() {
    let bench = Bench::new();
    bench.cloud.with(|cloud| cloud.router_mut(&east_router()).unwrap().resource = json!({"bgp": {}}));
    assert!(matches!(bench.steer(true, true).await, Err(GcpError::Malformed { .. })));
    bench.cloud.with(|cloud| {
        let list: Value = json!({"range": OTHER});
        let bgp = json!({"advertiseMode": "CUSTOM", "advertisedIpRanges": list});
        cloud.router_mut(&east_router()).unwrap().resource = json!({"name": "router-east", "bgp": bgp});
    });
    assert!(matches!(bench.steer(true, true).await, Err(GcpError::Malformed { .. })));
    assert_eq!(bench.cloud.write_count(), 0);
}
