//! A33, A34, A38 to A40, pins and restarts: the task as a process that never goes away by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use regex::Regex;
use serde_json::{Value, json};
use switchover_agent::adapters::attempts::RetryPolicy;
use switchover_agent::lab::front::CloudFault;
use switchover_agent::lab::route_clouds::{PREFIXES, RouteClouds, router};
use switchover_agent::model::{Detail, FailureKind, Mono, Outcome, RoutePin, Side};
use switchover_agent::rules::breaker::{Admission, Breaker, BreakerSettings, BreakerState};
use switchover_agent::tasks::Exit;
use switchover_agent::tasks::route_watch::{PinSource, once};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::stage::{Stage, of_type};

#[test]
fn a33_only_failures_in_a_row_open_a_breaker_and_one_probe_closes_it() {
    let mut breaker = Breaker::new(BreakerSettings { threshold: 3, timeout_ms: 300_000 });
    for well in [false, true, false, true, false] {
        assert_eq!(breaker.admit(Mono(0)), Admission::Admitted);
        if well {
            breaker.succeeded();
        } else {
            breaker.failed(Mono(0));
        }
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    breaker.failed(Mono(1_000));
    breaker.failed(Mono(2_000));
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(matches!(breaker.admit(Mono(100_000)), Admission::Blocked { .. }));
    assert_eq!(breaker.admit(Mono(302_000)), Admission::Probe);
    assert!(matches!(breaker.admit(Mono(302_000)), Admission::Blocked { .. }), "exactly one probe");
    breaker.failed(Mono(303_000));
    assert!(
        matches!(breaker.admit(Mono(302_000 + 300_000)), Admission::Blocked { .. }),
        "the time began anew"
    );
    assert_eq!(breaker.admit(Mono(603_000)), Admission::Probe);
    breaker.succeeded();
    assert_eq!((breaker.state(), breaker.failures()), (BreakerState::Closed, 0));
}

#[test]
fn a34_waits_double_up_to_the_longest() {
    let waits = |initial: u64, max: u64, retries: u32| -> Vec<u64> {
        let policy = RetryPolicy {
            retries,
            initial: Duration::from_secs(initial),
            max: Duration::from_secs(max),
            total: Duration::from_secs(600),
            jitter: false,
        };
        (0..retries).map(|number| policy.longest_wait(number).as_secs()).collect()
    };
    assert_eq!(waits(1, 60, 3), [1, 2, 4]);
    assert_eq!(waits(10, 20, 4), [10, 20, 20, 20]);
    assert!(waits(1, 60, 0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a38_fifty_failing_cycles_end_nothing() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    stage.clouds.compute.fail("PATCH", "/routers/", 100_000, CloudFault::Refused(403, "forbidden"));
    stage.clouds.magic.fail("GET", "/", 100_000, CloudFault::Refused(500, "x"));
    stage.cycles(50).await;
    assert!(stage.is_running());
    assert!(stage.metric("failed_cycles_in_a_row", &[]) >= 49.0);
    stage.clouds.compute.heal();
    stage.clouds.magic.heal();
    stage.until("the world to be as it should", || stage.clouds.listed(Side::Active) == [PREFIXES[0]]).await;
    stage.until("a good cycle", || stage.metric("failed_cycles_in_a_row", &[]) == 0.0).await;
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a38_questions_that_never_work_end_nothing_either() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    stage.clouds.compute.fail("GET", "/", 100_000, CloudFault::Reset);
    stage.cycles(50).await;
    assert!(stage.is_running());
    assert_eq!(stage.patches().len(), 0);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a39_a_stop_ends_a_retry_sleep_within_two_seconds() {
    let mut stage = Stage::new(&[("INITIAL_BACKOFF_SECONDS", "16"), ("CHECK_INTERVAL_SECONDS", "3600")]);
    stage.start();
    stage.cycles(1).await;
    stage.clouds.compute.fail("GET", "backendServices", 1_000, CloudFault::Refused(503, "backendError"));
    stage.until("a retry", || stage.metric("retry_total", &[]) >= 1.0).await;
    let begun = Instant::now();
    assert_eq!(stage.stop().await, Exit::Cancelled);
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((stage.patches().len(), stage.puts().len()), (0, 0));
    assert_eq!(stage.clouds.listed(Side::Active), [PREFIXES[0]]);
    let events = stage.events();
    let last = events.last().unwrap();
    assert_eq!((&last["event_type"], &last["operation"]), (&json!("daemon_lifecycle"), &json!("shutdown")));
}

#[tokio::test(start_paused = true)]
async fn a39_a_call_that_hangs_does_not_hold_a_stop_up() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(1).await;
    stage.clouds.compute.fail("GET", "backendServices", 1_000, CloudFault::Silent);
    tokio::time::sleep(Duration::from_secs(62)).await;
    let begun = Instant::now();
    stage.stop().await;
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a40_the_event_log_is_good_over_restart_and_rotation() {
    let mut stage = Stage::new(&[("LOG_MAX_BYTES", "20000"), ("LOG_BACKUP_COUNT", "100")]);
    for _ in 0..2 {
        stage.start();
        stage.cycles(8).await;
        stage.stop().await;
    }
    let mut files = 0;
    let mut ids = BTreeSet::new();
    let pattern = Regex::new(r"^hc-\d+-[0-9a-f]{8}$").unwrap();
    for entry in std::fs::read_dir(stage.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path.display().to_string().contains("routes.jsonl") {
            continue;
        }
        files += 1;
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["structured_event"], true);
            assert_ne!(event["result"], "no_change", "hidden at INFO");
            match event["correlation_id"].as_str() {
                Some(id) => {
                    assert!(pattern.is_match(id), "{id}");
                    ids.insert(id.to_owned());
                }
                None => assert_ne!(event["event_type"], "health_check_cycle", "only before the first cycle"),
            }
        }
    }
    assert!(files > 1, "it was rotated");
    assert!(ids.len() >= 16, "one id per cycle: {}", ids.len());
}

#[tokio::test(start_paused = true)]
async fn a40_the_old_array_form_is_one_array() {
    let mut stage = Stage::new(&[("STRUCTURED_LOG_FORMAT", "array")]);
    for _ in 0..2 {
        stage.start();
        stage.cycles(2).await;
        stage.stop().await;
    }
    let text = std::fs::read_to_string(&stage.env["STRUCTURED_LOG_FILE"]).unwrap();
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(of_type(&events, "health_check_cycle").len() >= 4, "both lives are in it");
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_from_the_state_file() {
    let mut stage = Stage::new(&[("WITHDRAW_GUARD", "off")]);
    let state = stage.folder.path().join("state.json").display().to_string();
    stage.env.insert("STATE_FILE".to_owned(), state);
    stage.start();
    stage.cycles(6).await;
    stage.clouds.set_backends(Side::Active, false);
    stage.until("the withdrawal", || stage.clouds.listed(Side::Active).is_empty()).await;
    stage.stop().await;
    // Somebody announces it again while nobody looks: the next process takes it back with its first cycle.
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([{"range": PREFIXES[0]}]));
    stage.start();
    stage.cycles(1).await;
    assert!(stage.clouds.listed(Side::Active).is_empty());
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_cycle_alone_can_be_asked_for_and_a_dry_run_writes_nothing() {
    let stage = Stage::new(&[]);
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    let (mut parts, _pinner) = stage.parts(PinSource::Health);
    parts.dry_run = true;
    let registry = prometheus::Registry::new();
    let report = once(&parts, &registry, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.ended.word(), "skipped", "one sample proves nothing: {report:?}");
    assert!(stage.patches().is_empty());
}

fn failed(outcome: &Outcome) -> Option<(FailureKind, String)> {
    match outcome {
        Outcome::Failed { kind, reason } => Some((*kind, reason.clone())),
        Outcome::Done(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_pin_is_obeyed_at_once_and_waits_for_the_other_site_before_it_takes_away() {
    let clouds = RouteClouds::new();
    let mut passive = Stage::at(Side::Passive, clouds.clone(), &[]);
    let mut active = Stage::at(Side::Active, clouds.clone(), &[]);
    for stage in [&mut passive, &mut active] {
        stage.snapshot.send_replace(json!({"route_pin": "health"}));
        stage.start_with_engine();
        stage.cycles(6).await;
    }
    let (kind, reason) = failed(&active.pin(RoutePin::Passive).await).expect("nobody else announces it yet");
    assert_eq!(kind, FailureKind::Transient);
    assert!(reason.contains("PeerNotAnnouncing"), "{reason}");
    assert_eq!(clouds.listed(Side::Active), [PREFIXES[0]]);
    assert_eq!(passive.pin(RoutePin::Passive).await, Outcome::Done(Detail::Nothing));
    assert_eq!(clouds.listed(Side::Passive), [PREFIXES[1], PREFIXES[0]]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(active.pin(RoutePin::Passive).await, Outcome::Done(Detail::Nothing));
    assert!(clouds.listed(Side::Active).is_empty());
    assert_eq!(clouds.priorities(Side::Active), [200]);
    assert_eq!(active.pin(RoutePin::Passive).await, Outcome::Done(Detail::AlreadySo), "twice does no harm");
    // Health says nothing against it, whatever it says.
    for stage in [&active, &passive] {
        stage.snapshot.send_replace(json!({"route_pin": "passive"}));
    }
    clouds.set_backends(Side::Passive, false);
    active.cycles(10).await;
    assert!(clouds.listed(Side::Active).is_empty());
    assert_eq!(clouds.listed(Side::Passive).len(), 2);
    clouds.set_backends(Side::Passive, true);
    active.cycles(10).await;
    // Back: the active site announces first, the passive one takes back when it sees that.
    for stage in [&active, &passive] {
        stage.snapshot.send_replace(json!({"route_pin": "health"}));
    }
    assert_eq!(active.pin(RoutePin::Health).await, Outcome::Done(Detail::Nothing));
    assert_eq!(clouds.listed(Side::Active), [PREFIXES[0]]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(passive.pin(RoutePin::Health).await, Outcome::Done(Detail::Nothing));
    assert_eq!(clouds.listed(Side::Passive), [PREFIXES[1]]);
    assert_eq!((clouds.priorities(Side::Active), clouds.priorities(Side::Passive)), (vec![100], vec![100]));
    active.stop().await;
    passive.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_not_known_changes_nothing() {
    let mut stage = Stage::new(&[]);
    stage.router(|router| router["bgp"]["advertisedIpRanges"] = json!([]));
    stage.start_with_engine();
    stage.cycles(10).await;
    assert_eq!((stage.patches().len(), stage.metric("pinned", &[])), (0, -1.0));
    stage.snapshot.send_replace(json!({"route_pin": "health"}));
    stage.cycles(2).await;
    assert_eq!(stage.patches().len(), 1);
    stage.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_region_is_taken_over_and_given_back() {
    let mut stage = Stage::new(&[]);
    stage.start();
    stage.cycles(6).await;
    stage.clouds.set_backends(Side::Passive, false);
    stage.clouds.set_sessions(Side::Passive, false);
    stage.until("the takeover", || stage.clouds.listed(Side::Active).len() == 2).await;
    stage.clouds.set_backends(Side::Passive, true);
    stage.clouds.set_sessions(Side::Passive, true);
    stage.until("the return", || stage.clouds.listed(Side::Active) == [PREFIXES[0]]).await;
    assert_eq!(stage.clouds.compute.with(|cloud| cloud.listed(&router(Side::Passive))), [PREFIXES[1]]);
    stage.stop().await;
}
