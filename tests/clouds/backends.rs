//! Health of a region: pages, filters, groups that cannot be asked, the cycle's deadline, and refusals of the list.

use std::time::Duration;

use serde_json::json;
use switchover_agent::adapters::gcp::{BackendScope, GcpError};
use switchover_agent::lab::compute::GroupHealth;
use switchover_agent::lab::front::CloudFault;
use switchover_agent::model::FailureKind;
use switchover_agent::rules::breaker::BreakerSettings;
use tokio::time::Instant;

use crate::bench::{Bench, EAST, SERVICES, all_healthy, cloud, group, groups, scope, settings, waits};

#[tokio::test(start_paused = true)]
async fn every_group_of_the_region_is_asked_once_and_no_other() {
    let bench = Bench::new();
    let region = bench.east().await.unwrap();
    assert!(all_healthy(&region));
    assert_eq!(groups(&region).len(), 3);
    assert_eq!(bench.cloud.count("regionBackendServices.list"), 1);
    assert_eq!(bench.cloud.count("regionBackendServices.getHealth"), 3);
    assert_eq!(bench.cloud.count("token"), 1, "one token for all");
    assert!(bench.cloud.seen().iter().all(|call| call.status == 200 && !call.write));
}

#[tokio::test(start_paused = true)]
async fn a_19_a_list_that_is_refused_for_good_is_unknown_at_once_and_a_used_up_quota_is_waited_for() {
    let bench = Bench::new();
    bench.cloud.with(|cloud| cloud.denied.insert("compute.regionBackendServices.list".to_owned()));
    let error = bench.east().await.unwrap_err();
    assert_eq!((error.status(), error.kind()), (Some(403), FailureKind::Permanent), "{error}");
    assert!(error.to_string().contains("compute.regionBackendServices.list"), "{error}");
    assert_eq!(waits(&bench.heard), [0_u64; 0], "asked once");
    bench.cloud.with(|cloud| cloud.denied.clear());

    let elsewhere = bench.compute.backend_health(&scope("mars-north1"), crate::bench::deadline()).await;
    assert_eq!(elsewhere.unwrap_err().word(), "api_error_http_404");

    bench.cloud.fail("GET", "backendServices", 2, CloudFault::Refused(403, "rateLimitExceeded"));
    assert!(all_healthy(&bench.east().await.unwrap()));
    assert_eq!(waits(&bench.heard), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_used_up_by_ourselves_refills_on_the_minute() {
    let bench = Bench::new();
    tokio::time::advance(Duration::from_secs(45)).await;
    bench.cloud.with(|cloud| cloud.quota_per_minute = Some(2));
    let region = bench.east().await.unwrap();
    // The list and one group fit into this minute, the other two wait for the next one.
    assert!(all_healthy(&region), "{region:?}");
    let refused = bench.cloud.seen().iter().filter(|call| call.status == 403).count();
    assert!(refused >= 2, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_20_a_group_that_fails_for_the_moment_is_asked_again_and_is_unanswered_in_the_end() {
    let bench = Bench::new();
    bench.cloud.with(|cloud| {
        let names: Vec<String> = (0..6).map(|n| group(EAST, n)).collect();
        let list: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 2)).collect();
        cloud.add_service(SERVICES, EAST, "edge", &list);
        let health = &mut cloud.region_mut(SERVICES, EAST).services.get_mut("edge").unwrap().health;
        health.insert(group(EAST, 4), GroupHealth::Refused(503, "backendError".to_owned()));
    });
    let region = bench.east().await.unwrap();
    let answers = groups(&region);
    let failed: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert_eq!((answers.len(), failed.len()), (6, 1));
    assert_eq!(failed[0].as_ref().unwrap_err().kind(), FailureKind::Transient);
    assert_eq!(waits(&bench.heard), [1, 2, 4, 8, 16], "five retries inside the limit");
    assert_eq!(bench.cloud.count("regionBackendServices.getHealth"), 5 + 6);
}

#[tokio::test(start_paused = true)]
async fn a_21_a_sick_instance_on_the_third_page_is_found() {
    let mut cloud = cloud();
    cloud.page_size = 2;
    for n in 0..5 {
        cloud.add_service(SERVICES, EAST, &format!("s{n}"), &[(&group(EAST, 10 + n), 1)]);
    }
    let service = cloud.region_mut(SERVICES, EAST).services.get_mut("s4").unwrap();
    let sick = vec![("i".to_owned(), "UNHEALTHY".to_owned())];
    service.health.insert(group(EAST, 14), GroupHealth::Instances(sick));
    let bench = Bench::with(cloud, settings(), BreakerSettings::default());
    let region = bench.east().await.unwrap();
    assert_eq!(bench.cloud.count("regionBackendServices.list"), 3);
    assert_eq!(region.services.len(), 6);
    assert_eq!(region.services[5].groups[0].health.as_ref().unwrap()[0].state, "UNHEALTHY");
}

#[tokio::test(start_paused = true)]
async fn half_a_list_is_an_error_and_never_a_short_list() {
    let mut cloud = cloud();
    cloud.page_size = 1;
    cloud.add_service(SERVICES, EAST, "second", &[(&group(EAST, 9), 1)]);
    let bench = Bench::with(cloud, settings(), BreakerSettings::default());
    bench.cloud.fail("GET", "pageToken", u32::MAX, CloudFault::Refused(500, "backendError"));
    assert_eq!(bench.east().await.unwrap_err().status(), Some(500));
    bench.cloud.heal();
    assert_eq!(bench.east().await.unwrap().services.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_filter_is_the_apis_own_and_a_wrong_one_is_refused() {
    let bench = Bench::new();
    bench.cloud.with(|cloud| cloud.add_service(SERVICES, EAST, "unrelated", &[(&group(EAST, 9), 1)]));
    let with = |filter: &str| BackendScope { filter: Some(filter.to_owned()), ..scope(EAST) };
    let ask =
        async |filter: &str| bench.compute.backend_health(&with(filter), crate::bench::deadline()).await;
    let region = ask("name eq \"edge.*\"").await.unwrap();
    assert_eq!(region.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["edge"]);
    assert_eq!(ask("colour = blue").await.unwrap_err().status(), Some(400));
}

#[tokio::test(start_paused = true)]
async fn a_22_a_region_without_services_is_an_answer_without_services() {
    let bench = Bench::new();
    bench.cloud.with(|cloud| cloud.region_mut(SERVICES, EAST).services.clear());
    let region = bench.east().await.unwrap();
    assert!(region.services.is_empty());
    assert!(bench.attempts.breakers().values().all(|(_, failures)| *failures == 0), "that is no failure");
}

#[tokio::test(start_paused = true)]
async fn a_23_an_answer_without_states_has_no_instances_and_a_drained_group_is_not_asked() {
    let bench = Bench::new();
    bench.cloud.with(|cloud| {
        let service = cloud.region_mut(SERVICES, EAST).services.get_mut("edge").unwrap();
        service.health.insert(group(EAST, 0), GroupHealth::Nothing);
        let nameless = vec![("i".to_owned(), String::new())];
        service.health.insert(group(EAST, 1), GroupHealth::Instances(nameless));
        service.resource["backends"][2]["capacityScaler"] = json!(0);
        service.resource["backends"][1]["failover"] = json!(true);
    });
    let region = bench.east().await.unwrap();
    let edge = &region.services[0].groups;
    assert_eq!(edge[0].health, Ok(vec![]));
    assert_eq!(edge[1].health.as_ref().unwrap()[0].state, "", "a missing word is no HEALTHY");
    assert!(edge[1].failover && !edge[0].failover);
    assert!(edge[2].drained);
    assert_eq!(bench.cloud.count("regionBackendServices.getHealth"), 2);
}

#[tokio::test(start_paused = true)]
async fn groups_are_asked_in_parallel_and_never_beyond_the_deadline() {
    let mut cloud = cloud();
    let names: Vec<String> = (0..40).map(|n| group(EAST, n)).collect();
    let list: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    cloud.add_service(SERVICES, EAST, "edge", &list);
    let bench = Bench::with(cloud, settings(), BreakerSettings::default());
    bench.cloud.fail("POST", "getHealth", 40, CloudFault::Slow(Duration::from_secs(3)));
    let began = Instant::now();
    assert!(all_healthy(&bench.east().await.unwrap()));
    assert_eq!(began.elapsed().as_secs(), 9, "40 calls of 3 s, 16 at a time");

    bench.cloud.fail("POST", "getHealth", u32::MAX, CloudFault::Slow(Duration::from_secs(3)));
    let began = Instant::now();
    let end = began + Duration::from_secs(5);
    let region = bench.compute.backend_health(&scope(EAST), end).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(6));
    let answered = groups(&region).iter().filter(|group| group.is_ok()).count();
    assert_eq!(answered, 16, "one round fits");
    let unanswered = groups(&region).into_iter().find_map(|group| group.as_ref().err()).unwrap();
    assert!(matches!(unanswered, GcpError::Late { .. }), "{unanswered}");
    assert_eq!(unanswered.kind(), FailureKind::Transient);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_damaged_is_asked_for_again() {
    for fault in [
        CloudFault::NotJson,
        CloudFault::Truncated,
        CloudFault::Reset,
        CloudFault::DoneReset,
        CloudFault::Html(502),
        CloudFault::RateLimited(7),
        CloudFault::Refused(500, "backendError"),
        CloudFault::Refused(408, "timeout"),
    ] {
        let bench = Bench::new();
        bench.cloud.fail("GET", "backendServices", 1, fault);
        bench.cloud.fail("POST", "getHealth", 1, fault);
        let region = bench.east().await;
        assert!(region.as_ref().is_ok_and(all_healthy), "{fault:?}: {region:?}");
        let least = if fault == CloudFault::RateLimited(7) { 7 } else { 1 };
        assert_eq!(waits(&bench.heard), [least, least], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_api_costs_the_limit_of_a_call_and_not_more() {
    let bench = Bench::new();
    bench.cloud.fail("GET", "backendServices", 1, CloudFault::Silent);
    let began = Instant::now();
    assert!(all_healthy(&bench.east().await.unwrap()));
    assert_eq!(began.elapsed().as_secs(), 30 + 1, "the limit, and the first wait");
}
