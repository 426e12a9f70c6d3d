//! The task itself, with a simulated Kubernetes API: B7, B9, B10, B26, B29 to B31, B34, B35, B37, and the lab's story.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchover_agent::lab::cloudflare::{Account, Fault, Server, TOKEN};
use switchover_agent::lab::faults::Fault as ClusterFault;
use switchover_agent::lab::geo_scenario::{self, Cluster, environment, until};
use switchover_agent::model::Side;
use switchover_agent::tasks::Exit;

use crate::bench::{HOST, POOL, account, addresses};

async fn cluster(server: &Server, more: &[(&str, &str)]) -> Cluster {
    Cluster::new("c1", environment(&server.base(), "eu", "owner-a", more)).await.unwrap()
}

fn has(pool: &'static str, address: &'static str) -> impl FnMut(&Account) -> bool {
    move |account| account.pool(pool).is_some_and(|pool| pool["origins"][0]["address"] == address)
}

/// Waits until the task has looked at the account that many times from now on.
async fn looks(server: &Server, count: usize) {
    let lists = || {
        server.seen().iter().filter(|call| call.target.ends_with("/pools") && call.method == "GET").count()
    };
    let goal = lists() + count;
    let end = Instant::now() + Duration::from_secs(60);
    while lists() < goal {
        assert!(Instant::now() < end, "the task does not look any more");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn b05_resyncs_without_a_change_write_nothing() {
    let server = account().await;
    let mut cluster = cluster(&server, &[]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    looks(&server, 1).await;
    server.forget();
    looks(&server, 3).await;
    assert_eq!(server.writes(), []);
    assert!(cluster.health.is_ready() && cluster.health.is_alive());
}

#[tokio::test]
async fn b07_the_cluster_label_has_two_spellings() {
    let server = account().await;
    let mut cluster = cluster(&server, &[]).await;
    let label = |pairs: Value| {
        let mut labels = pairs;
        labels["dns.external/geo-route"] = json!("true");
        labels
    };
    cluster.put("a", label(json!({"cluster_name": "old"})), &["203.0.113.1"]).await.unwrap();
    cluster
        .put("b", label(json!({"cluster-name": "new", "cluster_name": "x"})), &["203.0.113.2"])
        .await
        .unwrap();
    cluster
        .put("c", label(json!({"cluster-name": "", "cluster_name": "back"})), &["203.0.113.3"])
        .await
        .unwrap();
    cluster.put("d", label(json!({})), &["203.0.113.4"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "three pools", |account| account.default_pools(HOST).len() == 3).await.unwrap();
    looks(&server, 1).await;
    let pools = server.with(|account| account.default_pools(HOST)).into_iter().collect::<BTreeSet<_>>();
    let want = ["k8s-pool-back-eu", "k8s-pool-new-eu", "k8s-pool-old-eu"].map(str::to_owned);
    assert_eq!(pools, BTreeSet::from(want));
    let events = cluster.kube.list("/api/v1/namespaces/web/events", None).await.unwrap();
    let about: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|e| e["involvedObject"]["name"].as_str())
        .collect();
    assert_eq!(about, ["d"]);
}

#[tokio::test]
async fn b09_an_address_that_comes_later_is_published_then() {
    let server = account().await;
    let mut cluster = cluster(&server, &[]).await;
    cluster.publish("web", &[]).await.unwrap();
    cluster.start().unwrap();
    looks(&server, 1).await;
    assert_eq!(server.writes(), []);
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    until(&server, "published", has(POOL, "203.0.113.5")).await.unwrap();
}

#[tokio::test]
async fn b10_a_proxied_name_is_refused_with_an_event() {
    let server = account().await;
    server.with(|account| {
        account.records = vec![("loop.x.test".into(), true), ("origin.x.test".into(), false)]
    });
    let mut cluster = cluster(&server, &[]).await;
    cluster.publish("web", &["loop.x.test", "origin.x.test"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", has(POOL, "origin.x.test")).await.unwrap();
    assert_eq!(addresses(&server, POOL), ["origin.x.test"]);
    let events = cluster.kube.list("/api/v1/namespaces/web/events", None).await.unwrap();
    assert!(events["items"][0]["message"].as_str().unwrap().contains("loop.x.test"), "{events}");
}

#[tokio::test]
async fn b26_label_gone_or_ingress_gone_disables_after_the_grace_period() {
    let server = account().await;
    let mut east = Cluster::new("c2", environment(&server.base(), "us_east", "owner-b", &[])).await.unwrap();
    east.publish("web", &["203.0.113.9"]).await.unwrap();
    east.start().unwrap();
    let mut cluster = cluster(&server, &[("EMPTY_GRACE_SECONDS", "1")]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    let enabled = |wanted: bool| {
        move |account: &Account| account.pool(POOL).is_some_and(|pool| pool["enabled"] == json!(wanted))
    };
    until(&server, "both pools", |account| account.default_pools(HOST).len() == 2).await.unwrap();
    let began = Instant::now();
    cluster.put("web", json!({"dns.external/geo-route": null}), &["203.0.113.5"]).await.unwrap();
    until(&server, "disabled without the label", enabled(false)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "the grace period is kept");
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    until(&server, "enabled again", enabled(true)).await.unwrap();
    cluster.withdraw("web").await.unwrap();
    until(&server, "disabled without the ingress", enabled(false)).await.unwrap();
}

#[tokio::test]
async fn b29_an_unreachable_cluster_changes_nothing_and_is_caught_up_with() {
    let server = account().await;
    let mut cluster =
        cluster(&server, &[("KUBE_TIMEOUT_SECONDS", "1"), ("KUBE_WATCH_STALL_SECONDS", "1")]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    looks(&server, 1).await;
    cluster.world.initiate(Side::Active, ClusterFault::ApiRefused, None);
    cluster.world.initiate(Side::Active, ClusterFault::WatchClose, None);
    server.forget();
    // Until the task has stopped looking: a whole resync and more without a call.
    let mut quiet = 0;
    let mut last = server.seen().len();
    let end = Instant::now() + Duration::from_secs(60);
    while quiet < 30 {
        assert!(Instant::now() < end, "the task goes on although it sees nothing");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = server.seen().len();
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
    assert_eq!(server.writes(), []);
    cluster.world.lift(Side::Active, ClusterFault::ApiRefused);
    cluster.world.lift(Side::Active, ClusterFault::WatchClose);
    cluster.publish("web", &["203.0.113.6"]).await.unwrap();
    until(&server, "caught up", has(POOL, "203.0.113.6")).await.unwrap();
    assert_eq!(addresses(&server, POOL), ["203.0.113.6"]);
}

#[tokio::test]
async fn b30_a_watch_that_expires_closes_or_stalls_goes_on() {
    let server = account().await;
    let mut cluster = cluster(&server, &[("KUBE_WATCH_STALL_SECONDS", "0.5")]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", has(POOL, "203.0.113.5")).await.unwrap();
    let faults = [ClusterFault::Watch410, ClusterFault::WatchClose, ClusterFault::WatchStall];
    for (fault, address) in faults.into_iter().zip(["203.0.113.6", "203.0.113.7", "203.0.113.8"]) {
        cluster.world.initiate(Side::Active, fault, None);
        cluster.publish("web", &[address]).await.unwrap();
        until(&server, "published in spite of the watch", has(POOL, address)).await.unwrap();
        cluster.world.lift(Side::Active, fault);
    }
}

#[tokio::test]
async fn b31_news_that_do_not_matter_start_nothing() {
    let server = account().await;
    let mut cluster = cluster(&server, &[("RESYNC_SECONDS", "3600")]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    looks(&server, 1).await;
    server.forget();
    // Changes of the object that are none of its addresses; then one that is, to know that all were seen.
    for number in 0..5 {
        let labels =
            json!({"dns.external/geo-route": "true", "cluster-name": "c1", "build": number.to_string()});
        cluster.put("web", labels, &["203.0.113.5"]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.seen(), [], "nothing was asked");
    cluster.publish("web", &["203.0.113.6"]).await.unwrap();
    until(&server, "published", has(POOL, "203.0.113.6")).await.unwrap();
}

#[tokio::test]
async fn b34_it_ends_at_once_in_the_middle_of_a_call() {
    let server = account().await;
    server.fail("POST", "/pools", u32::MAX, Fault::Silent);
    let mut cluster = cluster(&server, &[]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while server.writes().is_empty() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    assert_eq!(cluster.stop().await, Some(Exit::Cancelled));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn b35_a_dry_run_tells_and_writes_nothing() {
    let server = account().await;
    let mut cluster = cluster(&server, &[("DRY_RUN", "true")]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    looks(&server, 2).await;
    let registry = prometheus::Registry::new();
    let settings = cluster.settings().unwrap();
    let told =
        switchover_agent::tasks::geo_sync::dry_run(settings, cluster.kube.clone(), &registry).await.unwrap();
    let lines = told.changes;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(POOL) && lines[0].contains("203.0.113.5"), "{lines:?}");
    assert!(lines[1].contains(HOST), "{lines:?}");
    assert_eq!(server.writes(), []);
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn b37_logs_hold_neither_token_nor_bodies() {
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || writer.clone())
        .finish();
    // The test's runtime has one thread, so all of the task's lines come here.
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = account().await;
    let mut cluster = cluster(&server, &[]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    server.fail("GET", "/pools", 20, Fault::Status(403));
    looks(&server, 2).await;
    cluster.stop().await;
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("geo configuration loaded") && text.contains("create pool"), "{text}");
    assert!(text.contains("geo pass failed"), "{text}");
    for hidden in [TOKEN, "fallback_pool", "\"origins\"", "success"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
}

#[tokio::test]
async fn a_lease_lets_one_of_two_replicas_work() {
    let server = account().await;
    let lease = [("LEADER_ELECT", "true"), ("GEO_LEASE_NAMESPACE", "web")];
    let mut one = cluster(&server, &lease).await;
    one.publish("web", &["203.0.113.5"]).await.unwrap();
    one.start().unwrap();
    until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    let path = "/apis/coordination.k8s.io/v1/namespaces/web/leases/geo-sync";
    let holder = |lease: &Value| lease["spec"]["holderIdentity"].as_str().unwrap().to_owned();
    let mut lease = one.kube.get_json(path).await.unwrap();
    let first = holder(&lease);
    one.stop().await;
    server.forget();
    // Somebody else renews it all the time: the new replica must not work.
    one.start().unwrap();
    for number in 0..20 {
        lease = one.kube.get_json(path).await.unwrap();
        assert_eq!(holder(&lease), first, "a foreign Lease was taken");
        lease["spec"]["leaseTransitions"] = json!(number);
        one.kube.replace(path, &lease).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.seen(), []);
    lease = one.kube.get_json(path).await.unwrap();
    lease["spec"]["holderIdentity"] = json!("");
    one.kube.replace(path, &lease).await.unwrap();
    looks(&server, 1).await;
    let lease = one.kube.get_json(path).await.unwrap();
    assert!(holder(&lease) != first && !holder(&lease).is_empty());
}

#[tokio::test]
async fn a_configured_monitor_is_made_once_and_attached() {
    let server = account().await;
    let monitor = [("CF_MONITOR_TYPE", "https"), ("CF_MONITOR_PATH", "/health")];
    let mut cluster = cluster(&server, &monitor).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    for _ in 0..2 {
        cluster.start().unwrap();
        looks(&server, 2).await;
        until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
        cluster.stop().await;
    }
    let (count, same) = server.with(|account| {
        let monitor = &account.monitors[0]["id"];
        (account.monitors.len(), account.pool(POOL).unwrap()["monitor"] == *monitor)
    });
    assert!(count == 1 && same);
}

#[tokio::test]
async fn a_name_outside_the_zone_is_never_published_and_the_task_stays() {
    let server = account().await;
    // Slow retries of a refusal are as slow as the resync at most, which is a second here.
    let mut cluster = cluster(&server, &[("CF_LB_HOSTNAME", "app.other.test")]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    let asked = || server.seen().iter().filter(|call| call.target.starts_with("/zones/")).count();
    let end = Instant::now() + Duration::from_secs(60);
    while asked() < 2 {
        assert!(Instant::now() < end, "it tries again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!cluster.health.is_ready() && cluster.health.is_alive());
    assert_eq!(cluster.stop().await, Some(Exit::Cancelled), "it ran all the time");
    assert_eq!(server.writes(), []);
}

#[tokio::test]
async fn four_clusters_join_one_dies_one_empties_and_returns() {
    let steps = geo_scenario::run(|at, what| println!("{at:>6} ms  {what}")).await.unwrap();
    assert_eq!(steps, 6);
}
