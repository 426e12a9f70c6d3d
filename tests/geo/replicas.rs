//! Two replicas of the task against one API server: who works, who waits, who takes over. And the end of a process.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchover_agent::lab::cloudflare::{Fault, Server};
use switchover_agent::lab::faults::Fault as ClusterFault;
use switchover_agent::lab::geo_scenario::{Cluster, environment, until};
use switchover_agent::model::Side;

use crate::bench::{HOST, POOL, account, addresses, metric, wait_for};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/web/leases/geo-sync";

async fn two_replicas(server: &Server) -> (Cluster, Cluster) {
    let settings = [("LEADER_ELECT", "true"), ("GEO_LEASE_NAMESPACE", "web")];
    let env = environment(&server.base(), "eu", "owner-a", &settings);
    let mut one = Cluster::new("c1", env).await.unwrap();
    let mut two = one.replica().await.unwrap();
    one.publish("web", &["203.0.113.5"]).await.unwrap();
    one.start().unwrap();
    until(server, "published", |account| account.default_pools(HOST) == [POOL]).await.unwrap();
    two.start().unwrap();
    wait_for("the standby is ready", || two.health.is_ready()).await;
    assert_eq!((leads(&one), leads(&two)), (true, false));
    assert_eq!(passes(&two), 0.0, "a standby only reads once");
    (one, two)
}

fn leads(cluster: &Cluster) -> bool {
    metric(&cluster.registry, "switchover_geo_leader") == 1.0
}

fn passes(cluster: &Cluster) -> f64 {
    metric(&cluster.registry, "switchover_geo_reconcile_total")
}

async fn holder(cluster: &Cluster) -> String {
    let lease = cluster.kube.get_json(LEASE).await.unwrap();
    lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

async fn moved(server: &Server, address: &str) {
    until(server, "the new address is published", |account| {
        account.pool(POOL).is_some_and(|pool| pool["origins"][0]["address"] == address)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_holder_that_stops_releases_its_lease_and_the_standby_goes_on() {
    let server = account().await;
    let (mut one, mut two) = two_replicas(&server).await;
    let first = holder(&one).await;
    server.forget();
    one.publish("web", &["203.0.113.6"]).await.unwrap();
    moved(&server, "203.0.113.6").await;
    assert_eq!(server.writes().len(), 1, "one of two wrote: {:?}", server.writes());
    let began = Instant::now();
    one.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_ne!(holder(&two).await, first, "released, not left to run out");
    two.publish("web", &["203.0.113.7"]).await.unwrap();
    moved(&server, "203.0.113.7").await;
    assert!(leads(&two));
    // And back again: whoever returns waits.
    one.start().unwrap();
    let seen = || metric(&one.registry, "switchover_geo_ingresses_visible") == 1.0;
    wait_for("the returned replica sees the ingresses", seen).await;
    assert_eq!((leads(&one), leads(&two)), (false, true));
    two.stop().await;
    one.publish("web", &["203.0.113.8"]).await.unwrap();
    moved(&server, "203.0.113.8").await;
    assert_eq!(addresses(&server, POOL), ["203.0.113.8"]);
}

#[tokio::test]
async fn a_dead_holder_s_lease_runs_out_before_the_standby_works() {
    let server = account().await;
    let (mut one, two) = two_replicas(&server).await;
    let first = holder(&one).await;
    server.forget();
    one.kill();
    let died = Instant::now();
    two.publish("web", &["203.0.113.6"]).await.unwrap();
    // It was renewed at most 0.3 s before, and lasts two seconds from when the standby saw that.
    while died.elapsed() < Duration::from_millis(1500) {
        assert_eq!(holder(&two).await, first);
        assert_eq!(server.seen(), [], "nobody may work yet");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    moved(&server, "203.0.113.6").await;
    assert!(leads(&two) && holder(&two).await != first);
    let lease = two.kube.get_json(LEASE).await.unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], json!(2), "the first holder was the first transition");
}

#[tokio::test]
async fn a_lease_that_somebody_renews_is_left_alone_and_a_lost_one_stops_the_holder() {
    let server = account().await;
    let (one, two) = two_replicas(&server).await;
    // A third holder takes the Lease by force, and keeps it.
    let seize = async |number: usize| {
        let mut lease = one.kube.get_json(LEASE).await.unwrap();
        lease["spec"]["holderIdentity"] = json!("somebody-else");
        lease["spec"]["leaseTransitions"] = json!(number);
        one.kube.replace(LEASE, &lease).await
    };
    let end = Instant::now() + Duration::from_secs(60);
    let mut number = 10;
    while leads(&one) || leads(&two) {
        assert!(Instant::now() < end, "the holder stops");
        // A conflict is the holder's renewal in between.
        let _ = seize(number).await;
        number += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.forget();
    one.publish("web", &["203.0.113.6"]).await.unwrap();
    let began = Instant::now();
    // Longer than the Lease lasts.
    while began.elapsed() < Duration::from_secs(3) {
        seize(number).await.unwrap();
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.seen(), [], "nobody of us works");
    assert_eq!(holder(&one).await, "somebody-else");
}

#[tokio::test]
async fn a_holder_that_cannot_renew_stops_by_itself() {
    let server = account().await;
    let (one, two) = two_replicas(&server).await;
    one.world.initiate(Side::Active, ClusterFault::ApiRefused, None);
    wait_for("nobody leads", || !leads(&one) && !leads(&two)).await;
    one.world.lift(Side::Active, ClusterFault::ApiRefused);
    wait_for("one leads again", || leads(&one) != leads(&two)).await;
}

/// The real binary, as a pod would run it.
fn binary(cluster: &Cluster, arguments: &[&str], http: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchover-agent"));
    command.args(arguments).env_clear().env("HTTP_LISTEN", http).stdout(Stdio::null()).stderr(Stdio::null());
    // Only what the predecessor had, and where the simulated APIs are.
    for name in [
        "CF_API_TOKEN",
        "CF_ACCOUNT_ID",
        "CF_ZONE_ID",
        "GEO_LOCATION",
        "CF_LB_HOSTNAME",
        "CF_API_BASE",
        "KUBE_API_URL",
        "GEO_OWNER",
        "LEADER_ELECT",
        "GEO_LEASE_NAMESPACE",
    ] {
        command.envs(cluster.env().get(name).map(|value| (name, value)));
    }
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b34_the_binary_ends_within_five_seconds_of_sigterm_and_releases_its_lease() {
    let server = account().await;
    let settings = [("LEADER_ELECT", "true"), ("GEO_LEASE_NAMESPACE", "web")];
    let env = environment(&server.base(), "eu", "owner-a", &settings);
    let cluster = Cluster::new("c1", env).await.unwrap();
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    let place = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = place.local_addr().unwrap().to_string();
    drop(place);
    // The very write that matters hangs: its answer never comes.
    server.fail("POST", "/pools", u32::MAX, Fault::Silent);
    let mut agent = binary(&cluster, &["geo"], &http).spawn().unwrap();
    wait_for("a write hangs", || !server.writes().is_empty()).await;
    let client = reqwest::Client::new();
    let get = async |path: &str| -> (u16, Value) {
        let answer = client.get(format!("http://{http}{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    };
    let (status, health) = get("/health").await;
    assert_eq!((status, &health["tasks"]["geo_sync"]["state"]), (200, &json!("running")), "{health}");
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap().success());
    let mut code = None;
    while code.is_none() && asked.elapsed() < Duration::from_secs(30) {
        code = agent.try_wait().unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if code.is_none() {
        agent.kill().unwrap();
    }
    agent.wait().unwrap();
    assert_eq!(code.and_then(|code| code.code()), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(holder(&cluster).await, "", "released");
    // The next one goes on where it was, and becomes ready.
    server.heal();
    let mut agent = binary(&cluster, &["geo"], &http).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < end, "ready at last");
        let answer = client.get(format!("http://{http}/ready")).send().await;
        if answer.is_ok_and(|answer| answer.status() == 200) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get("/ready").await.1, json!({"ready": true, "geo_sync": true}));
    // The first cycle may only have made the pool: it is offered once it was verified.
    wait_for("the pool is offered", || server.with(|account| account.default_pools(HOST)) == [POOL]).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b35_the_command_prints_the_diff_and_writes_nothing() {
    let server = account().await;
    let more = [("CF_MONITOR_TYPE", "https")];
    let cluster = Cluster::new("c1", environment(&server.base(), "eu", "owner-a", &more)).await.unwrap();
    cluster.publish("web", &["203.0.113.5"]).await.unwrap();
    let unnamed = json!({"dns.external/geo-route": "true"});
    cluster.put("nameless", unnamed, &["203.0.113.6"]).await.unwrap();
    let run = |monitor: &str| {
        let mut command = binary(&cluster, &["geo", "--dry-run"], "127.0.0.1:1");
        command.env("CF_MONITOR_TYPE", monitor).stdout(Stdio::piped());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let told = tokio::task::block_in_place(|| run("https"));
    for line in [
        "note: ingress web/nameless has neither label cluster-name nor cluster_name",
        "would create monitor https / expecting 2xx every 60 s, Host app.x.test",
        "would create pool k8s-pool-c1-eu with 203.0.113.5 at 50.1109, 8.6821, monitor (new monitor)",
        "would create load balancer app.x.test with k8s-pool-c1-eu; fallback k8s-pool-c1-eu; \
         steering proximity; proxied",
    ] {
        assert!(told.lines().any(|it| it == line), "{line:?} in\n{told}");
    }
    assert_eq!(server.writes(), [], "nothing but GET");
    let events = cluster.kube.list("/api/v1/namespaces/web/events", None).await.unwrap();
    assert_eq!(events["items"], json!([]), "nor any Kubernetes Event");
}

/// What the process needs, by the kernel's account: memory of its own (heap and stacks) with a thousand ingresses, after
/// ten resyncs. The figure is in the README.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_ingresses_need_little_memory() {
    let server = account().await;
    let cluster = Cluster::new("c1", environment(&server.base(), "eu", "owner-a", &[])).await.unwrap();
    cluster.crowd(1000, &["203.0.113.1", "203.0.113.2"]);
    let place = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = place.local_addr().unwrap().to_string();
    drop(place);
    let mut agent = binary(&cluster, &["geo"], &http).env("RESYNC_SECONDS", "1").spawn().unwrap();
    let lists = || server.seen().iter().filter(|call| call.target.ends_with("/pools")).count();
    wait_for("ten resyncs", || lists() > 10).await;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", agent.id())).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let kib = |field: &str| -> f64 {
        let line = rollup.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!("anonymous {:.1} MiB, PSS {:.1} MiB", kib("Anonymous:") / 1024.0, kib("Pss:") / 1024.0);
    assert!(kib("Anonymous:") < 48.0 * 1024.0, "{rollup}");
}
