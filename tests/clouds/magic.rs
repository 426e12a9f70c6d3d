//! Magic Transit routes: selection, the smallest write with everything echoed, its check, limits and lost answers.

use std::time::Duration;

use serde_json::json;
use switchover_agent::adapters::cloudflare_routes::{MagicError, MagicSettings};
use switchover_agent::config::Secret;
use switchover_agent::lab::front::{CloudFault, Front};
use switchover_agent::lab::magic_transit::{self, MagicAccount};
use switchover_agent::model::FailureKind;
use switchover_agent::rules::breaker::BreakerSettings;
use tokio::time::Instant;

use crate::bench::{FILTER, PRIMARY, attempts, deadline, magic, waits};

#[tokio::test(start_paused = true)]
async fn a_29_one_write_with_just_what_differs_and_everything_of_it_echoed() {
    let magic = magic();
    let done = magic.routes.prioritise(100, deadline()).await.unwrap();
    assert_eq!((done.matching, done.modified), (2, vec![magic.ids[0].clone()]));
    let writes = magic.account.writes();
    assert_eq!(writes.len(), 1);
    let entry = json!({"id": magic.ids[0], "prefix": PRIMARY, "nexthop": "10.1.0.1", "priority": 100,
        "description": "CF-DEV-C a", "weight": 10, "scope": {"colo_regions": ["ENAM"]}});
    assert_eq!(writes[0].body, Some(json!({ "routes": [entry] })));
    let first = magic.account.with(|account| account.routes[0].clone());
    assert_eq!((&first["weight"], &first["scope"]), (&json!(10), &json!({"colo_regions": ["ENAM"]})));
    let others: Vec<_> =
        [1, 2, 3].map(|n: usize| magic.account.with(|a| a.routes[n]["priority"].clone())).into();
    assert_eq!(others, [json!(200), json!(200), json!(100)]);
    assert_eq!(magic.account.count("routes.list"), 1, "the write's answer is proof enough");

    let nothing = magic.routes.prioritise(100, deadline()).await.unwrap();
    assert!(nothing.modified.is_empty());
    assert_eq!(magic.account.write_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_pages_are_read_and_half_a_list_is_an_error() {
    let magic = magic();
    magic.account.with(|account| account.page_size = Some(1));
    assert_eq!(magic.routes.routes(deadline()).await.unwrap().len(), 2);
    assert_eq!(magic.account.count("routes.list"), 4);
    magic.account.fail("GET", "page=3", u32::MAX, CloudFault::Refused(500, "internal"));
    let error = magic.routes.prioritise(100, deadline()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Transient, "{error}");
    assert_eq!(magic.account.write_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_30_a_filter_that_matches_nothing_is_an_error() {
    let magic = magic();
    magic.account.with(|account| account.routes.retain(|route| route["description"] != "CF-DEV-C a"));
    magic.account.with(|account| account.routes.retain(|route| route["description"] != "CF-DEV-C d"));
    assert!(magic.routes.routes(deadline()).await.unwrap().is_empty());
    let error = magic.routes.prioritise(100, deadline()).await.unwrap_err();
    assert_eq!(error, MagicError::NoMatch { filter: FILTER.to_owned(), listed: 2 });
    assert_eq!(error.kind(), FailureKind::Permanent);
    let account = Front::new(MagicAccount::new());
    let (attempts, _, _) = attempts(BreakerSettings::default());
    let settings = MagicSettings::new("", Secret::default(), "", "");
    assert!(
        magic_transit::connect(&account, settings, attempts).is_err(),
        "an empty filter takes every route"
    );
}

#[tokio::test(start_paused = true)]
async fn a_31_retry_after_is_waited_out_before_the_one_retry() {
    let magic = magic();
    magic.account.fail("PUT", "routes", 1, CloudFault::RateLimited(7));
    let began = Instant::now();
    magic.routes.prioritise(100, deadline()).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 7);
    let seen = magic.account.seen();
    let calls: Vec<_> = seen.iter().map(|call| (call.operation, call.status)).collect();
    let expected =
        [("routes.list", 200), ("routes.update", 429), ("routes.list", 200), ("routes.update", 200)];
    assert_eq!(calls, expected);
    assert!(seen[2].at.since(seen[1].at) >= 7000);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_longer_than_a_cycle_is_kept_across_cycles_without_a_call() {
    let magic = magic();
    magic.account.fail("GET", "routes", 1, CloudFault::RateLimited(120));
    let began = Instant::now();
    for _ in 0..3 {
        let error = magic.routes.prioritise(100, began + Duration::from_secs(90)).await.unwrap_err();
        assert!(matches!(&error, MagicError::Api { retry_after: Some(_), .. }), "{error}");
        assert!(error.to_string().contains("429"), "{error}");
    }
    assert_eq!((began.elapsed().as_secs(), magic.account.seen().len()), (0, 1));
    tokio::time::advance(Duration::from_secs(120)).await;
    magic.routes.prioritise(100, deadline()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_found_by_the_next_list() {
    for fault in [CloudFault::DoneReset, CloudFault::DoneSilently, CloudFault::NotJson, CloudFault::Truncated]
    {
        let magic = magic();
        magic.account.fail("PUT", "routes", 1, fault);
        let long = Instant::now() + Duration::from_secs(300);
        let mut done = magic.routes.prioritise(100, long).await;
        if fault == CloudFault::DoneSilently {
            // The limit of a bulk write is longer than the chain's: the next cycle finds it.
            assert!(matches!(done, Err(MagicError::Late { .. })), "{done:?}");
            done = magic.routes.prioritise(100, long).await;
        }
        assert_eq!(done.unwrap().matching, 2, "{fault:?}");
        assert_eq!(magic.account.write_count(), 1, "{fault:?}");
        assert_eq!(magic.account.with(|account| account.priority(&magic.ids[0])), Some(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_changes_between_list_and_write_keeps_nothing_of_ours_but_the_priority() {
    let magic = magic();
    magic.account.fail("PUT", "routes", 1, CloudFault::Refused(503, "internal"));
    let mut once = true;
    magic.account.before_each(move |request, account| {
        if request.method == http::Method::PUT && std::mem::take(&mut once) {
            account.routes[0]["weight"] = json!(42);
        }
    });
    magic.routes.prioritise(100, deadline()).await.unwrap();
    assert_eq!(
        magic.account.with(|account| account.routes[0]["weight"].clone()),
        json!(42),
        "from a fresh list"
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_not_there_afterwards_is_a_failure() {
    let magic = magic();
    magic.account.with(|account| account.deaf = true);
    let error = magic.routes.prioritise(100, deadline()).await.unwrap_err();
    assert!(matches!(error, MagicError::NotApplied { .. }), "{error}");
    assert_eq!(magic.account.write_count(), 4, "three retries");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_is_not_repeated() {
    let magic = magic();
    magic.account.with(|account| account.read_only = true);
    let error = magic.routes.prioritise(100, deadline()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Permanent);
    assert_eq!(magic.account.write_count(), 1);
    assert_eq!(waits(&magic.heard), [0_u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_users_token_is_unknown_to_verify_and_still_lists() {
    let magic = magic();
    magic.routes.verify_token().await.unwrap();
    magic.account.with(|account| account.user_token = true);
    assert!(magic.routes.verify_token().await.is_err());
    assert_eq!(magic.routes.routes(deadline()).await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_window_of_the_tokens_limit_is_kept_by_our_own_budget() {
    let magic = magic();
    for _ in 0..100 {
        magic.routes.routes(deadline()).await.unwrap();
    }
    assert!(magic.account.seen().iter().all(|call| call.status == 200));
}
