//! B25 to B28, B33: pools without addresses.

use serde_json::json;
use switchover_agent::rules::geo::select::Ingress;

use crate::bench::{HOST, Instance, POOL, account, addresses, ingress};

const EAST: &str = "k8s-pool-c2-us_east";
const NONE: [Ingress; 0] = [];

async fn two(more: &[(&str, &str)]) -> (switchover_agent::lab::cloudflare::Server, Instance, Instance) {
    let server = account().await;
    let eu = Instance::new(&server, "eu", "owner-a", more);
    let east = Instance::new(&server, "us_east", "owner-b", more);
    eu.pass(&[ingress("c1", &["203.0.113.5"])]).await;
    east.pass(&[ingress("c2", &["203.0.113.9"])]).await;
    server.forget();
    (server, eu, east)
}

#[tokio::test]
async fn b25_an_address_that_another_ingress_has_stays() {
    let (server, eu, _east) = two(&[]).await;
    let mut other = ingress("c1", &["203.0.113.5"]);
    other.name = "other".into();
    eu.pass(&[other.clone(), ingress("c1", &["203.0.113.5"])]).await;
    eu.pass(&[other]).await;
    assert_eq!(server.writes(), []);
}

#[tokio::test]
async fn b26_an_empty_pool_is_disabled_after_its_grace_and_comes_back() {
    let (server, eu, _east) = two(&[]).await;
    let report = eu.pass(&NONE).await;
    assert!(report.orphans.contains(POOL));
    assert_eq!(server.writes(), [], "nothing within the grace period");
    assert!(eu.pass_due(&NONE, &[POOL]).await.is_good());
    let pool = server.with(|account| account.pool(POOL).unwrap().clone());
    assert_eq!(pool["enabled"], json!(false));
    assert_eq!(addresses(&server, POOL), ["203.0.113.5"]);
    assert_eq!(server.with(|account| account.default_pools(HOST)), [POOL, EAST]);
    server.forget();
    eu.pass_due(&NONE, &[POOL]).await;
    assert_eq!(server.writes(), []);
    eu.pass(&[ingress("c1", &["203.0.113.6"])]).await;
    assert_eq!(server.with(|account| account.pool(POOL).unwrap()["enabled"].clone()), json!(true));
    assert_eq!(addresses(&server, POOL), ["203.0.113.6"]);
}

#[tokio::test]
async fn b26_with_delete_the_pool_leaves_the_load_balancer_first() {
    let (server, eu, _east) = two(&[("ON_EMPTY", "delete")]).await;
    assert!(eu.pass_due(&NONE, &[POOL]).await.is_good());
    let writes: Vec<(String, bool)> =
        server.writes().iter().map(|call| (call.method.clone(), call.target.contains("/zones/"))).collect();
    let want = [("PATCH", false), ("PATCH", true), ("DELETE", false)];
    assert_eq!(writes, want.map(|(method, zone)| (method.to_owned(), zone)));
    assert_eq!(server.with(|account| account.default_pools(HOST)), [EAST]);
    let moved =
        server.with(|account| account.balancers[0]["fallback_pool"] == account.pool(EAST).unwrap()["id"]);
    assert!(moved && server.with(|account| account.pool(POOL).is_none()));
}

#[tokio::test]
async fn b26_with_keep_it_is_only_reported() {
    let (server, eu, _east) = two(&[("ON_EMPTY", "keep")]).await;
    assert!(eu.pass_due(&NONE, &[POOL]).await.orphans.contains(POOL));
    assert_eq!(server.writes(), []);
}

#[tokio::test]
async fn b27_the_last_pool_stays() {
    for mode in ["disable", "delete"] {
        let server = account().await;
        let eu = Instance::new(&server, "eu", "owner-a", &[("ON_EMPTY", mode)]);
        eu.pass(&[ingress("c1", &["203.0.113.5"])]).await;
        server.forget();
        let report = eu.pass_due(&NONE, &[POOL]).await;
        assert!(report.last.contains(POOL), "{report:?}");
        assert_eq!(server.writes(), [], "{mode}");
    }
}

#[tokio::test]
async fn b27_a_pool_disabled_by_a_person_does_not_count_as_another() {
    let (server, eu, _east) = two(&[]).await;
    server.with(|account| account.pool_mut(EAST).unwrap()["enabled"] = json!(false));
    assert!(eu.pass_due(&NONE, &[POOL]).await.last.contains(POOL));
    assert_eq!(server.writes(), []);
}

#[tokio::test]
async fn b28_a_pool_in_use_elsewhere_is_reported_with_its_users() {
    let (server, eu, _east) = two(&[("ON_EMPTY", "delete")]).await;
    server.with(|account| {
        let id = account.pool(POOL).unwrap()["id"].clone();
        let body = json!({"name": "other.x.test", "default_pools": [id], "fallback_pool": id});
        let zone = "/zones/00000000000000000000000000000001/load_balancers";
        assert_eq!(account.handle("POST", zone, Some(&body)).0, 200);
    });
    let report = eu.pass_due(&NONE, &[POOL]).await;
    assert!(!report.is_good());
    assert!(report.blocked[POOL][0].contains("other.x.test"), "{report:?}");
    let other = server.with(|account| account.default_pools("other.x.test"));
    assert_eq!(other, [POOL]);
    server.forget();
    assert!(!eu.pass_due(&NONE, &[POOL]).await.is_good());
    let writes = server.writes();
    assert!(writes.iter().all(|call| call.method == "DELETE") && writes.len() == 1, "{writes:?}");
}

#[tokio::test]
async fn b33_a_changed_location_makes_a_new_pool_and_retires_the_old() {
    let (server, _eu, _east) = two(&[]).await;
    let moved = Instance::new(&server, "asia", "owner-a", &[("ON_EMPTY", "delete")]);
    let given = [ingress("c1", &["203.0.113.5"])];
    let report = moved.pass(&given).await;
    assert!(report.orphans.contains(POOL), "{report:?}");
    moved.pass_due(&given, &[POOL]).await;
    let mut pools = server.with(|account| account.default_pools(HOST));
    pools.sort();
    assert_eq!(pools, ["k8s-pool-c1-asia", EAST]);
    assert!(server.with(|account| account.pool(POOL).is_none()));
}
