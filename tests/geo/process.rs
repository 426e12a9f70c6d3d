//! The task itself, with a simulated Kubernetes API: B7, B9, B10, B26, B29 to B31, B34, B35, B37, and the lab's story.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchover_agent::adapters::kube::KubeError;
use switchover_agent::lab::cloudflare::{Account, Fault, Server, TOKEN};
use switchover_agent::lab::faults::Fault as ClusterFault;
use switchover_agent::lab::geo_scenario::{self, Cluster, environment, until};
use switchover_agent::model::Side;
use switchover_agent::tasks::Exit;

use crate::bench::{HOST, POOL, account, addresses, metric_of, wait_for};

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
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    until(&server, "enabled once more", enabled(true)).await.unwrap();
    cluster.publish("web", &[]).await.unwrap();
    until(&server, "disabled without an address", enabled(false)).await.unwrap();
    assert_eq!(addresses(&server, POOL), ["203.0.113.5"], "its origins stay");
    east.stop().await;
}

#[tokio::test]
async fn b27_the_last_pool_stays_and_a_person_is_told() {
    let server = account().await;
    let mut cluster = cluster(&server, &[("EMPTY_GRACE_SECONDS", "0"), ("ON_EMPTY", "delete")]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    looks(&server, 1).await;
    server.forget();
    cluster.withdraw("web").await.unwrap();
    let problem = |kind| metric_of(&cluster.registry, "switchover_geo_problems", Some(kind));
    wait_for("the alert", || problem("last-pool") == 1.0 && problem("no-address") == 1.0).await;
    assert_eq!(server.writes(), []);
}

#[tokio::test]
async fn b18_a_pool_that_cannot_be_read_is_tried_again_and_counted() {
    let server = account().await;
    let mut cluster = cluster(&server, &[]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    looks(&server, 1).await;
    let id = server.with(|account| account.pool(POOL).unwrap()["id"].as_str().unwrap().to_owned());
    server.fail("GET", &id, u32::MAX, Fault::Status(500));
    server.forget();
    cluster.publish("web", &["203.0.113.6"]).await.unwrap();
    let failed = || metric_of(&cluster.registry, "switchover_geo_reconcile_total", Some("failed"));
    wait_for("it is tried again", || failed() >= 2.0).await;
    assert_eq!(server.writes(), []);
    assert!(cluster.health.is_ready(), "it was ready before and stays so");
    server.heal();
    until(&server, "published at last", has(POOL, "203.0.113.6")).await.unwrap();
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
    let visible = || metric_of(&cluster.registry, "switchover_geo_ingresses_visible", None) == 1.0;
    wait_for("the ingresses are seen", visible).await;
    cluster.world.initiate(Side::Active, ClusterFault::ApiRefused, None);
    cluster.world.initiate(Side::Active, ClusterFault::WatchClose, None);
    wait_for("the outage is noticed", || !visible()).await;
    server.forget();
    // Somebody's drift is not repaired from an old view either: two resyncs and more without a call.
    server.with(|account| account.pool_mut(POOL).unwrap()["latitude"] = json!(1.0));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(server.seen(), [], "nothing is even asked");
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
async fn b30_a_large_cluster_is_listed_in_pages() {
    let server = account().await;
    let mut cluster = cluster(&server, &[]).await;
    cluster.crowd(1001, &["203.0.113.1", "203.0.113.2"]);
    let page = cluster.kube.get_json("/apis/networking.k8s.io/v1/ingresses?limit=500").await.unwrap();
    assert_eq!(page["items"].as_array().unwrap().len(), 500, "the simulated API has pages");
    assert_eq!(page["metadata"]["remainingItemCount"], 501);
    cluster.start().unwrap();
    until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    assert_eq!(metric_of(&cluster.registry, "switchover_geo_ingresses_selected", None), 1001.0);
    assert_eq!(addresses(&server, POOL), ["203.0.113.1", "203.0.113.2"]);
    // The token of a list that was compacted is too old.
    let token = page["metadata"]["continue"].as_str().unwrap();
    cluster.publish("web", &["203.0.113.1"]).await.unwrap();
    cluster.compact();
    let target = format!("/apis/networking.k8s.io/v1/ingresses?limit=500&continue={token}");
    assert!(matches!(cluster.kube.get_json(&target).await, Err(KubeError::Gone { .. })));
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

/// Whole syncs with every level of logging on, this crate's and those of the libraries: success, every kind of refusal,
/// a lost answer, a conflict, a removal, Kubernetes Events and the Lease.
#[tokio::test]
async fn b37_logs_hold_neither_token_nor_bodies_even_at_trace() {
    use tracing_subscriber::util::SubscriberInitExt;
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    // The test's runtime has one thread, so all of the task's lines come here; lines of the `log` crate as well.
    let _guard = subscriber.set_default();
    let server = account().await;
    let more = [
        ("KUBE_API_TOKEN", "kube-token-never-to-be-seen"),
        ("CF_MONITOR_TYPE", "https"),
        ("LEADER_ELECT", "true"),
        ("GEO_LEASE_NAMESPACE", "web"),
    ];
    let mut cluster = cluster(&server, &more).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.put("x", json!({"dns.external/geo-route": "true"}), &["203.0.113.9"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    looks(&server, 1).await;
    let failed = || metric_of(&cluster.registry, "switchover_geo_reconcile_total", Some("failed"));
    for fault in [Fault::Status(403), Fault::Status(500), Fault::Status(400), Fault::RateLimited(1)] {
        let before = failed();
        server.fail("GET", "/pools", 5, fault);
        let told = || failed() > before || matches!(fault, Fault::RateLimited(_));
        looks(&server, 1).await;
        wait_for("the failure is told", told).await;
        server.heal();
    }
    let id = server.with(|account| account.pool(POOL).unwrap()["id"].as_str().unwrap().to_owned());
    server.fail("PATCH", &id, 1, Fault::Status(409));
    cluster.publish("web", &["203.0.113.6"]).await.unwrap();
    until(&server, "published", has(POOL, "203.0.113.6")).await.unwrap();
    cluster.stop().await;
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    for line in
        ["geo configuration loaded", "create pool", "geo pass failed", "ingress is left out", "released"]
    {
        assert!(text.contains(line), "the flow was logged: {line}");
    }
    assert!(text.contains("TRACE") && text.contains("hyper"), "libraries are heard too");
    // The account's words come in bodies only; the token and its beginning come nowhere.
    let hidden = [
        TOKEN,
        &TOKEN[..8],
        "kube-token",
        "Bearer",
        "fallback_pool",
        "\"origins\"",
        "\"success\"",
        "latitude",
    ];
    for hidden in hidden {
        let line = text.lines().find(|line| line.contains(hidden));
        assert!(line.is_none(), "{hidden}: {line:?}");
    }
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
    // Other settings: another monitor, to which the pool moves. What a person tuned at the first one stays.
    server.with(|account| account.monitors[0]["interval"] = json!(15));
    cluster.set("CF_MONITOR_PATH", "/live");
    cluster.start().unwrap();
    until(&server, "the pool has the new monitor", |account| {
        account.monitors.len() == 2 && account.pool(POOL).unwrap()["monitor"] == account.monitors[1]["id"]
    })
    .await
    .unwrap();
    assert_eq!(server.with(|account| account.monitors[0]["interval"].clone()), 15);
    // Deleted by hand: it is made again, because the refused write is a reason to look.
    server.with(|account| {
        account.monitors.clear();
        account.pool_mut(POOL).unwrap()["monitor"] = json!("");
    });
    until(&server, "made and attached again", |account| {
        account.monitors.len() == 1 && account.pool(POOL).unwrap()["monitor"] == account.monitors[0]["id"]
    })
    .await
    .unwrap();
    // A person's own choice stays.
    server.with(|account| {
        account.monitors.push(json!({"id": "own", "type": "https", "description": "tuned"}));
        account.pool_mut(POOL).unwrap()["monitor"] = json!("own");
    });
    looks(&server, 2).await;
    assert_eq!(server.with(|account| account.pool(POOL).unwrap()["monitor"].clone()), "own");
}

/// Two clusters whose settings contradict each other, both enforcing: they stop taking turns.
#[tokio::test]
async fn a_fight_over_the_load_balancer_s_settings_ends_in_a_truce() {
    let server = account().await;
    let enforce = [("CF_ENFORCE", "true")];
    let mut eu = cluster(&server, &enforce).await;
    let other = [("CF_ENFORCE", "true"), ("CF_STEERING_POLICY", "random")];
    let mut east =
        Cluster::new("c2", environment(&server.base(), "us_east", "owner-b", &other)).await.unwrap();
    eu.publish("web", &["203.0.113.5"]).await.unwrap();
    east.publish("web", &["203.0.113.9"]).await.unwrap();
    eu.start().unwrap();
    east.start().unwrap();
    let truce = |it: &Cluster| metric_of(&it.registry, "switchover_geo_problems", Some("enforcement")) == 1.0;
    // As soon as one gives in, nobody contradicts the other one.
    wait_for("one of them holds back", || truce(&eu) || truce(&east)).await;
    looks(&server, 4).await;
    server.forget();
    looks(&server, 6).await;
    let writes: Vec<_> = server.writes().into_iter().filter(|call| call.target.contains("/zones/")).collect();
    assert!(writes.len() <= 1, "{writes:?}");
    assert_eq!(server.with(|account| account.default_pools(HOST)).len(), 2);
}

/// Whether a name leads back to Cloudflare cannot be read: it is neither added nor taken away.
#[tokio::test]
async fn a_name_of_unknown_record_changes_nothing() {
    let server = account().await;
    server.with(|account| account.records = vec![("origin.x.test".into(), false)]);
    let mut cluster = cluster(&server, &[]).await;
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    cluster.start().unwrap();
    until(&server, "published", has(POOL, "203.0.113.5")).await.unwrap();
    looks(&server, 1).await;
    server.fail("GET", "/dns_records", u32::MAX, Fault::Status(500));
    server.forget();
    cluster.publish("web", &["203.0.113.5", "origin.x.test"]).await.unwrap();
    let failed = || metric_of(&cluster.registry, "switchover_geo_reconcile_total", Some("failed"));
    wait_for("it is tried again", || failed() >= 2.0).await;
    assert_eq!(server.writes(), []);
    server.heal();
    until(&server, "both", |account| {
        account.pool(POOL).is_some_and(|pool| pool["origins"].as_array().unwrap().len() == 2)
    })
    .await
    .unwrap();
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
