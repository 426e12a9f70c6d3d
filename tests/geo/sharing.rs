//! B22 to B24, B32: several instances and people at one load balancer.

use serde_json::json;

use crate::bench::{HOST, Instance, POOL, account, addresses, ingress};

const EAST: &str = "k8s-pool-c2-us_east";

#[tokio::test]
async fn b22_two_first_instances_make_one_load_balancer() {
    for _ in 0..10 {
        let server = account().await;
        let (eu, east) = (Instance::eu(&server), Instance::new(&server, "us_east", "owner-b", &[]));
        let (a, b) = ([ingress("c1", &["203.0.113.5"])], [ingress("c2", &["203.0.113.9"])]);
        let (one, two) = tokio::join!(eu.pass(&a), east.pass(&b));
        assert!(one.is_good() && two.is_good(), "{one:?} {two:?}");
        assert_eq!(server.with(|account| account.balancers.len()), 1);
        let mut pools = server.with(|account| account.default_pools(HOST));
        pools.sort();
        assert_eq!(pools, [POOL, EAST]);
    }
}

#[tokio::test]
async fn b23_a_stale_write_is_repaired_by_its_writer() {
    let server = account().await;
    let (eu, east) = (Instance::eu(&server), Instance::new(&server, "us_east", "owner-b", &[]));
    east.pass(&[ingress("c2", &["203.0.113.9"])]).await;
    let third = Instance::new(&server, "asia", "owner-c", &[]);
    third.pass(&[ingress("c3", &["203.0.113.7"])]).await;
    let asia = "k8s-pool-c3-asia";
    // Just before A's PATCH arrives, somebody's stale write has removed the pool of B; A's own is stale as well.
    let mut once = true;
    server.before_each(move |method, target, account| {
        if method == "PATCH" && target.contains("/zones/") && std::mem::take(&mut once) {
            let id = account.pool(asia).unwrap()["id"].clone();
            account.balancers[0]["default_pools"] = json!([id]);
        }
    });
    let report = eu.pass(&[ingress("c1", &["203.0.113.5"])]).await;
    assert!(report.is_good());
    let pools = server.with(|account| account.default_pools(HOST));
    assert_eq!(pools.len(), 3, "{pools:?}");
    // And the other way round: A's pool is dropped after A's write; A's verification sees and repairs it.
    let eu_id = server.with(|account| account.pool(POOL).unwrap()["id"].clone());
    let mut patched = false;
    let mut once = true;
    server.before_each(move |method, target, account| {
        if patched && method == "GET" && std::mem::take(&mut once) {
            let list = account.balancers[0]["default_pools"].as_array_mut().unwrap();
            list.retain(|id| *id != eu_id);
        }
        patched |= method == "PATCH" && target.contains("/pools/");
    });
    let report = eu.pass(&[ingress("c1", &["203.0.113.6"])]).await;
    assert!(report.is_good() && report.writes.contains(&"patch-balancer"), "{report:?}");
    assert_eq!(server.with(|account| account.default_pools(HOST)).len(), 3);
}

#[tokio::test]
async fn b24_a_person_s_edit_between_read_and_write_survives() {
    let server = account().await;
    Instance::eu(&server).pass(&[ingress("c1", &["203.0.113.5"])]).await;
    server.before_each(|method, target, account| {
        if method == "PATCH" && target.contains("/zones/") {
            account.balancers[0]["session_affinity"] = json!("cookie");
        }
    });
    let east = Instance::new(&server, "us_east", "owner-b", &[]);
    east.pass(&[ingress("c2", &["203.0.113.9"])]).await;
    assert_eq!(server.with(|account| account.balancers[0]["session_affinity"].clone()), "cookie");
    assert_eq!(server.with(|account| account.default_pools(HOST)).len(), 2);
}

#[tokio::test]
async fn b32_two_clusters_of_one_name_only_add_and_say_so() {
    let server = account().await;
    let (a, b) = (Instance::eu(&server), Instance::new(&server, "eu", "owner-b", &[("ON_EMPTY", "delete")]));
    a.pass(&[ingress("c1", &["203.0.113.5"])]).await;
    let report = b.pass(&[ingress("c1", &["203.0.113.9"])]).await;
    assert!(report.conflicts.contains(POOL), "{report:?}");
    assert_eq!(addresses(&server, POOL), ["203.0.113.5", "203.0.113.9"]);
    let report = a.pass(&[ingress("c1", &["203.0.113.6"])]).await;
    assert!(report.conflicts.contains(POOL), "{report:?}");
    assert_eq!(addresses(&server, POOL), ["203.0.113.5", "203.0.113.9", "203.0.113.6"]);
    server.forget();
    b.pass_due(&[], &[POOL]).await;
    a.pass_due(&[], &[POOL]).await;
    assert_eq!(server.writes(), [], "nothing is removed by either");
}

#[tokio::test]
async fn a_pool_shared_on_purpose_has_origins_tagged_by_owner() {
    let server = account().await;
    let shared = [("SHARED_POOL", "true")];
    let a = Instance::new(&server, "eu", "owner-a", &shared);
    let b = Instance::new(&server, "eu", "owner-b", &shared);
    let (one, two) = ([ingress("c1", &["203.0.113.5"])], [ingress("c1", &["203.0.113.9"])]);
    a.pass(&one).await;
    assert!(b.pass(&two).await.conflicts.is_empty());
    server.forget();
    assert!(a.pass(&one).await.is_good() && b.pass(&two).await.is_good());
    assert_eq!(server.writes(), []);
    assert_eq!(addresses(&server, POOL).len(), 2);
}
