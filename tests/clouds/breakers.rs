//! Waits and breakers as the clients use them: delays, total limits, one breaker per target, one probe.

use std::time::Duration;

use switchover_agent::adapters::attempts::RetryPolicy;
use switchover_agent::adapters::gcp::GcpError;
use switchover_agent::lab::front::CloudFault;
use switchover_agent::rules::breaker::{BreakerSettings, BreakerState};
use tokio::time::Instant;

use crate::bench::{
    Bench, WEST, all_healthy, changes, cloud, deadline, east_router, groups, policy, scope, settings, waits,
    west_router,
};

fn breaker() -> BreakerSettings {
    BreakerSettings { threshold: 3, timeout_ms: 300_000 }
}

fn bench(retries: u32) -> Bench {
    let retry = policy(retries, 50);
    let settings =
        switchover_agent::adapters::gcp::GcpSettings { health_retry: retry, bgp_retry: retry, ..settings() };
    Bench::with(cloud(), settings, breaker())
}

#[tokio::test(start_paused = true)]
async fn a_34_delays_double_up_to_their_limit_and_no_retries_means_one_attempt() {
    let longest =
        |policy: &RetryPolicy, n: u32| (0..n).map(|k| policy.longest_wait(k).as_secs()).collect::<Vec<_>>();
    assert_eq!(longest(&policy(3, 50), 3), [1, 2, 4]);
    let short =
        RetryPolicy { initial: Duration::from_secs(10), max: Duration::from_secs(20), ..policy(9, 500) };
    assert_eq!(longest(&short, 4), [10, 20, 20, 20]);
    assert_eq!(policy(200, 500).longest_wait(199), Duration::from_secs(60), "no overflow");

    let bench = bench(0);
    bench.cloud.fail("GET", "backendServices", u32::MAX, CloudFault::Refused(500, "backendError"));
    assert!(bench.east().await.is_err());
    assert_eq!(bench.cloud.count("regionBackendServices.list"), 1);
    assert_eq!(waits(&bench.heard), [0_u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn jitter_is_a_share_of_the_longest_wait() {
    for _ in 0..20 {
        let retry = RetryPolicy { jitter: true, ..policy(3, 50) };
        let settings = switchover_agent::adapters::gcp::GcpSettings { bgp_retry: retry, ..settings() };
        let bench = Bench::with(cloud(), settings, breaker());
        bench.cloud.fail("GET", "getRouterStatus", 3, CloudFault::Reset);
        let began = Instant::now();
        bench.compute.sessions(&west_router(), deadline()).await.unwrap();
        assert!(began.elapsed() <= Duration::from_secs(7), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_ends_within_its_total_and_within_the_cycle() {
    let bench = bench(9);
    bench.cloud.fail("GET", "getRouterStatus", u32::MAX, CloudFault::Refused(503, "backendError"));
    let began = Instant::now();
    assert!(bench.compute.sessions(&west_router(), deadline()).await.is_err());
    assert!(began.elapsed() <= Duration::from_secs(50), "{:?}", began.elapsed());
    let began = Instant::now();
    let end = began + Duration::from_secs(5);
    assert!(bench.compute.sessions(&west_router(), end).await.is_err());
    assert!(began.elapsed() <= Duration::from_secs(5), "{:?}", began.elapsed());
    bench.cloud.heal();
    bench.cloud.fail("GET", "getRouterStatus", 1, CloudFault::RateLimited(120));
    let began = Instant::now();
    let error = bench.compute.sessions(&west_router(), deadline()).await.unwrap_err();
    assert_eq!(error.status(), Some(429));
    assert_eq!(began.elapsed().as_secs(), 0, "a wait that does not fit is not begun");
}

#[tokio::test(start_paused = true)]
async fn a_33_only_failures_in_a_row_open_a_breaker_and_one_probe_closes_it() {
    let bench = bench(0);
    let fail = || bench.cloud.fail("GET", "getRouterStatus", 1, CloudFault::Refused(500, "backendError"));
    let ask = async || bench.compute.sessions(&west_router(), deadline()).await;
    let target = "gcp_bgp_check/router-west";
    for _ in 0..3 {
        fail();
        ask().await.unwrap_err();
        ask().await.unwrap();
    }
    assert_eq!(bench.attempts.breakers()[target], (BreakerState::Closed, 0));
    for _ in 0..3 {
        fail();
        ask().await.unwrap_err();
    }
    assert_eq!(bench.attempts.breakers()[target], (BreakerState::Open, 3));

    let calls = bench.cloud.count("routers.getRouterStatus");
    let error = ask().await.unwrap_err();
    assert!(matches!(&error, GcpError::Blocked { target: t, .. } if t == target), "{error}");
    assert_eq!(bench.cloud.count("routers.getRouterStatus"), calls, "nothing is asked");
    bench.compute.router(&east_router(), deadline()).await.unwrap();
    assert!(all_healthy(&bench.east().await.unwrap()), "other targets are asked");

    tokio::time::advance(Duration::from_secs(301)).await;
    fail();
    ask().await.unwrap_err();
    assert!(matches!(ask().await.unwrap_err(), GcpError::Blocked { .. }), "the timer restarts");
    tokio::time::advance(Duration::from_secs(301)).await;
    ask().await.unwrap();
    assert_eq!(bench.attempts.breakers()[target], (BreakerState::Closed, 0));
    let words: Vec<_> = changes(&bench.heard).into_iter().map(|(_, word)| word).collect();
    let tail = ["opened", "call_blocked", "half_open", "opened", "call_blocked", "half_open", "closed"];
    assert!(words.ends_with(&tail), "{words:?}");
}

#[tokio::test(start_paused = true)]
async fn while_a_probe_is_under_way_everybody_else_is_refused() {
    let bench = bench(0);
    bench.cloud.fail("GET", "getRouterStatus", 3, CloudFault::Reset);
    for _ in 0..3 {
        bench.compute.sessions(&west_router(), deadline()).await.unwrap_err();
    }
    tokio::time::advance(Duration::from_secs(301)).await;
    bench.cloud.fail("GET", "getRouterStatus", 1, CloudFault::Slow(Duration::from_secs(10)));
    let place = west_router();
    let (probe, second) = tokio::join!(bench.compute.sessions(&place, deadline()), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.compute.sessions(&place, deadline()).await
    });
    probe.unwrap();
    assert!(matches!(second.unwrap_err(), GcpError::Blocked { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_region_has_its_own_breaker_and_one_sick_group_does_not_open_it() {
    let bench = bench(0);
    for _ in 0..5 {
        bench.cloud.fail("POST", "getHealth", 1, CloudFault::Refused(500, "backendError"));
        let region = bench.east().await.unwrap();
        assert_eq!(groups(&region).iter().filter(|group| group.is_err()).count(), 1);
    }
    for _ in 0..3 {
        bench.cloud.fail("POST", "getHealth", 3, CloudFault::Refused(500, "backendError"));
        bench.east().await.unwrap();
    }
    assert!(
        matches!(bench.east().await.unwrap_err(), GcpError::Blocked { .. }),
        "all groups failed, three times"
    );
    let west = bench.compute.backend_health(&scope(WEST), deadline()).await.unwrap();
    assert!(all_healthy(&west));
}
