//! B17 to B21: failed reads and writes of the Cloudflare API.

use std::time::Duration;

use switchover_agent::adapters::cloudflare::{Cloudflare, CloudflareSettings};
use switchover_agent::lab::cloudflare::Fault;

use crate::bench::{HOST, Instance, POOL, account, addresses, ingress};

#[tokio::test]
async fn b17_a_failed_read_is_repeated_before_anything_is_written() {
    let server = account().await;
    let instance = Instance::eu(&server);
    instance.pass(&[ingress("c1", &["203.0.113.5"])]).await;
    server.forget();
    server.fail("GET", "/zones/", 2, Fault::Status(500));
    let east = Instance::new(&server, "us_east", "owner-b", &[]);
    assert!(east.pass(&[ingress("c2", &["203.0.113.9"])]).await.is_good());
    let seen = server.seen();
    let good = seen.iter().position(|call| call.target.contains("/zones/") && call.status == 200).unwrap();
    let write = seen.iter().position(|call| call.method != "GET").unwrap();
    assert!(good < write, "{seen:?}");
    assert_eq!(server.with(|account| account.default_pools(HOST)).len(), 2);
}

/// What evicted all other clusters before: the list of load balancers is read, the load balancer is not.
#[tokio::test]
async fn b17_a_load_balancer_that_cannot_be_read_again_is_not_written() {
    let server = account().await;
    Instance::eu(&server).pass(&[ingress("c1", &["203.0.113.5"])]).await;
    let id = server.with(|account| account.balancers[0]["id"].as_str().unwrap().to_owned());
    server.forget();
    server.fail("GET", &id, u32::MAX, Fault::Status(500));
    let east = Instance::new(&server, "us_east", "owner-b", &[]);
    let report = east.pass(&[ingress("c2", &["203.0.113.9"])]).await;
    assert!(!report.is_good(), "{report:?}");
    let writes = server.writes();
    assert!(writes.len() == 1 && writes[0].target.ends_with("/pools"), "only its own pool: {writes:?}");
    assert_eq!(server.with(|account| account.default_pools(HOST)), [POOL]);
    server.heal();
    assert!(east.pass(&[ingress("c2", &["203.0.113.9"])]).await.is_good());
    assert_eq!(server.with(|account| account.default_pools(HOST)).len(), 2);
}

/// A list that says there is more than it gives is no list.
#[tokio::test]
async fn a_list_that_is_not_whole_is_not_read() {
    let client = Instance::eu(&account().await).settings.cloudflare;
    for (info, whole) in [
        (serde_json::json!({"page": 1, "per_page": 25, "count": 1, "total_count": 2}), false),
        (serde_json::json!({"page": 1, "per_page": 25, "count": 1, "total_count": 1}), true),
        (serde_json::Value::Null, true),
    ] {
        let reply =
            serde_json::json!({"success": true, "errors": [], "result": [{"id": "a"}], "result_info": info});
        let router = axum::Router::new().fallback(move || async move { axum::Json(reply) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let settings = CloudflareSettings { base, ..client.clone() };
        let cloudflare = Cloudflare::new(settings, &prometheus::Registry::new()).unwrap();
        assert_eq!(cloudflare.list("/things", "thing").await.is_ok(), whole, "{info}");
    }
}

#[tokio::test]
async fn b18_a_pool_that_cannot_be_read_is_not_written() {
    let server = account().await;
    let instance = Instance::eu(&server);
    instance.pass(&[ingress("c1", &["203.0.113.5"])]).await;
    let id = server.with(|account| account.pool(POOL).unwrap()["id"].as_str().unwrap().to_owned());
    server.forget();
    server.fail("GET", &id, u32::MAX, Fault::Status(500));
    let report = instance.pass(&[ingress("c1", &["203.0.113.6"])]).await;
    assert!(!report.is_good() && report.failures.len() == 1, "{report:?}");
    assert_eq!(server.writes(), []);
    assert_eq!(addresses(&server, POOL), ["203.0.113.5"]);
}

#[tokio::test]
async fn b19_pools_that_cannot_be_listed_are_not_created() {
    let server = account().await;
    server.fail("GET", "/pools", u32::MAX, Fault::Status(500));
    let report = Instance::eu(&server).pass(&[ingress("c1", &["203.0.113.5"])]).await;
    assert!(!report.is_good());
    assert_eq!(server.writes(), []);
    assert_eq!(server.seen().len(), 5, "five attempts");
}

#[tokio::test]
async fn b20_a_creation_whose_answer_is_lost_is_found_again() {
    let server = account().await;
    server.fail("POST", "/pools", 1, Fault::DoneSilently);
    let mut instance = Instance::eu(&server);
    instance.settings.cloudflare.timeout = Duration::from_secs(2);
    let registry = prometheus::Registry::new();
    instance.cloudflare = switchover_agent::adapters::cloudflare::Cloudflare::new(
        instance.settings.cloudflare.clone(),
        &registry,
    )
    .unwrap();
    let report = instance.pass(&[ingress("c1", &["203.0.113.5"])]).await;
    assert!(report.is_good(), "{report:?}");
    assert_eq!(server.with(|account| account.pools.len()), 1);
    let posts = server.writes().iter().filter(|call| call.target.ends_with("/pools")).count();
    assert_eq!(posts, 1);
    assert_eq!(server.with(|account| account.default_pools(HOST)), [POOL]);
}

#[tokio::test]
async fn b21_retry_after_is_obeyed() {
    let server = account().await;
    server.fail("GET", "/pools", 1, Fault::RateLimited(3));
    let report = Instance::eu(&server).pass(&[ingress("c1", &["203.0.113.5"])]).await;
    assert!(report.is_good(), "{report:?}");
    let seen = server.seen();
    assert_eq!(seen[0].status, 429);
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(3), "{:?}", seen[1].at - seen[0].at);
}

#[tokio::test]
async fn a_list_of_several_pages_is_read_to_its_end() {
    let server = account().await;
    server.with(|account| account.page_size = 1);
    let instance = Instance::eu(&server);
    let given =
        [ingress("c1", &["203.0.113.5"]), ingress("c2", &["203.0.113.6"]), ingress("c3", &["203.0.113.7"])];
    instance.pass(&given).await;
    server.forget();
    assert!(instance.pass(&given).await.is_good());
    assert_eq!(server.writes(), []);
    // A last page that cannot be read makes the whole list unread.
    server.fail("GET", "page=3", u32::MAX, Fault::Status(500));
    let report = instance.pass(&given).await;
    assert!(!report.is_good());
    assert_eq!(server.writes(), []);
}

#[tokio::test]
async fn a_token_without_rights_is_told_at_once() {
    let server = account().await;
    server.fail("POST", "/zones/", u32::MAX, Fault::Status(403));
    let report = Instance::eu(&server).pass(&[ingress("c1", &["203.0.113.5"])]).await;
    assert!(report.failures[0].forbidden, "{report:?}");
    assert_eq!(server.writes().len(), 2);
}
