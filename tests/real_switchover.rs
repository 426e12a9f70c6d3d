//! The whole story on real parts: two agents move a real Patroni/PostgreSQL pair to the other site because a real DNS
//! server changed its answer, rebuild the old site by a real base backup, and fail back without losing a row.
//!
//! Kubernetes, Tekton and the maintenance portal are the lab's; etcd, Patroni, PostgreSQL and knot are Debian's.
#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(target_os = "linux")]

mod real;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use real::daemon::{Network, open_tempdir, wait_for};
use real::etcd::Etcd;
use real::knot::Knot;
use real::patroni::{PatroniCluster, Upstream};
use real::skip::require;
use real::spilo::{ClusterWorld, Operator};
use real::sql::{Writer, missing_rows, query, writable};
use serde_json::Value;
use switchover_agent::agent::Agent;
use switchover_agent::lab::agents::{Lab, LabSettings, start_agent};
use switchover_agent::lab::world::World;
use switchover_agent::model::Side;
use tokio::runtime::Runtime;

const ACTIVE_IP: &str = "127.0.1.1";
const PASSIVE_IP: &str = "127.0.2.1";

/// What the agent has asked of a site's Kubernetes, as the real cluster must follow it. Read from the lab's activity,
/// in order, because the simulated controllers are quicker than real pods.
struct Followed {
    world: World,
    side: Side,
    first_upstream: Option<Upstream>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    read: usize,
    replicas: u32,
    next_replicas: VecDeque<u32>,
    gone: BTreeSet<u8>,
    config_gone: bool,
    upstream: Option<Option<Upstream>>,
}

impl Followed {
    fn new(world: World, side: Side, first_upstream: Option<Upstream>) -> Self {
        let state = State { replicas: 1, gone: BTreeSet::from([1, 2]), ..State::default() };
        Self { world, side, first_upstream, state: Mutex::new(state) }
    }

    fn read_on(&self) {
        let activity = self.world.activity(self.side);
        let mut state = self.state.lock().unwrap();
        let entries = activity.as_array().map(Vec::as_slice).unwrap_or_default();
        for entry in entries.iter().skip(state.read) {
            state.take(entry);
        }
        state.read = entries.len();
    }
}

impl State {
    fn take(&mut self, entry: &Value) {
        let (method, path) = (entry["method"].as_str().unwrap_or(""), entry["path"].as_str().unwrap_or(""));
        let body = &entry["body"];
        if path.contains("/statefulsets/patroni-spilo/scale") {
            self.next_replicas.extend(body["spec"]["replicas"].as_u64().map(|count| u32::from(count > 0)));
        } else if method == "DELETE" && path.contains("/persistentvolumeclaims/") {
            self.gone.extend(path.rsplit('-').next().and_then(|ordinal| ordinal.parse::<u8>().ok()));
        } else if method == "DELETE" && path.ends_with("/patroni-spilo-config") {
            self.config_gone = true;
        } else if path.ends_with("/patroni-spilo-env-vars") {
            let text = |key: &str| body["data"][key].as_str().unwrap_or("").to_owned();
            let (host, port) = (text("STANDBY_HOST"), text("STANDBY_PORT"));
            self.upstream = Some(port.parse().ok().filter(|_| !host.is_empty()).map(|port| (host, port)));
        }
    }
}

impl ClusterWorld for Arc<Followed> {
    fn replicas(&self) -> u32 {
        self.read_on();
        self.state.lock().unwrap().replicas
    }
    fn volume_present(&self, ordinal: u8) -> bool {
        !self.state.lock().unwrap().gone.contains(&ordinal)
    }
    fn standby_env(&self) -> Option<Upstream> {
        let asked = self.state.lock().unwrap().upstream.clone();
        asked.unwrap_or_else(|| self.first_upstream.clone())
    }
    fn cluster_state_present(&self) -> bool {
        !self.state.lock().unwrap().config_gone
    }
    fn volume_created(&self, ordinal: u8) {
        self.state.lock().unwrap().gone.remove(&ordinal);
    }
    fn cluster_created(&self) {
        self.state.lock().unwrap().config_gone = false;
    }
    fn status(&self, members: u32, _ready: u32) {
        let mut state = self.state.lock().unwrap();
        // A later number is followed only when the earlier one was reached: no restart goes unseen.
        if members == state.replicas
            && let Some(next) = state.next_replicas.pop_front()
        {
            state.replicas = next;
        }
    }
}

/// The agents with the parts that they look at.
struct Stage {
    runtime: Runtime,
    lab: Lab,
    agents: Vec<Agent>,
}

impl Stage {
    fn shown(&self, side: Side, key: &str) -> Value {
        self.agents[side as usize].snapshot.borrow()[key].clone()
    }

    fn wait_settled(&self, phase: &str, seconds: u64) {
        let what = format!("both records to say {phase}, settled");
        let settled = |side: &Side| {
            self.shown(*side, "phase") == phase
                && self.shown(*side, "transition") == ""
                && self.shown(*side, "settled") == true
        };
        let begun = Instant::now();
        wait_for(&what, seconds, || {
            let done = Side::ALL.iter().all(settled);
            if !done && begun.elapsed().as_secs() + 3 > seconds {
                for side in Side::ALL {
                    eprintln!("{side}: {}", *self.agents[side as usize].snapshot.borrow());
                }
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
            done.then_some(())
        });
        for side in Side::ALL {
            let url = self.lab.site_url(side);
            let (_, address) = url.split_once("http://").unwrap();
            let path = "/k8s/api/v1/namespaces/health-dev/configmaps/switchover-state-dev";
            let (_, record) = real::rest::request("GET", address, path, "").expect("the record");
            let record: Value = serde_json::from_str(&record).expect("JSON");
            assert_eq!(record["data"]["last_stable_state"], phase, "the record of the {side} site");
        }
    }

    fn ask(&self, transition: &str) {
        let url = format!("{}/phase/transition-to-{transition}", self.lab.site_url(Side::Active));
        let (_, address) = url.split_once("http://").unwrap();
        let (address, path) = address.split_once('/').unwrap();
        let answer = real::rest::request("PUT", address, &format!("/{path}"), "");
        assert_eq!(answer.map(|(status, _)| status), Some(204), "PUT {url}");
    }

    /// The simulated pods become ready when their simulated database does, so that has to be promoted too.
    fn promote_simulated(&self, side: Side) {
        let url = self.lab.site_url(side);
        let (_, address) = url.split_once("http://").unwrap();
        let answer = real::rest::request("PATCH", address, "/patroni/config", r#"{"standby_cluster":null}"#);
        assert_eq!(answer.map(|(status, _)| status), Some(200), "PATCH {url}/patroni/config");
    }

    /// Methods and paths asked of a site, in order.
    fn asked(&self, side: Side) -> Vec<String> {
        let activity = self.lab.world.activity(side);
        let entries = activity.as_array().cloned().unwrap_or_default();
        let shown = |entry: &Value| {
            format!("{} {}", entry["method"].as_str().unwrap_or(""), entry["path"].as_str().unwrap_or(""))
        };
        entries.iter().map(shown).collect()
    }
}

fn environment(lab: &Lab, side: Side, hosts: [&str; 2], knot: &Knot) -> BTreeMap<String, String> {
    let mut env = lab.env[side as usize].clone();
    env.remove("DNS_SELF_TEST_NAME");
    for (name, value) in [
        ("PATRONI_LOCAL_API", format!("http://{}:8008", hosts[side as usize])),
        ("PATRONI_PEER_HOST", hosts[side.other() as usize].to_owned()),
        ("PATRONI_PEER_PORT", "5432".to_owned()),
        ("DNS_RESOLVERS", format!("{}:53", knot.address)),
        ("GSLB_DOMAIN", "www.dr.test".to_owned()),
        ("ACTIVE_IP", ACTIVE_IP.to_owned()),
        ("PASSIVE_IP", PASSIVE_IP.to_owned()),
        ("DATABASE_REPLICAS", "1".to_owned()),
        ("FENCE_OLD_PRIMARY", "true".to_owned()),
        ("PROMOTE_FIRST", "true".to_owned()),
    ] {
        env.insert(name.to_owned(), value);
    }
    env
}

fn set_the_stage(hosts: [&str; 2], knot: &Knot) -> Stage {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (lab, agents) = runtime.block_on(async {
        let mut settings = LabSettings::on_free_ports();
        settings.world.database_hosts = hosts.map(str::to_owned);
        let mut lab = Lab::start(settings).await.expect("the lab");
        for agent in std::mem::take(&mut lab.agents) {
            agent.stop().await;
        }
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut agents = Vec::new();
        for side in Side::ALL {
            let env = environment(&lab, side, hosts, knot);
            agents.push(start_agent(&env, any).await.expect("an agent"));
        }
        (lab, agents)
    });
    Stage { runtime, lab, agents }
}

fn system_identifier(host: &str) -> Option<String> {
    query(host, "select system_identifier from pg_control_system()").ok()
}

#[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants")]
fn tell(begun: Instant, what: &str) {
    println!("{:6.1} s  {what}", begun.elapsed().as_secs_f64());
}

#[test]
fn a_changed_dns_answer_moves_a_real_database_pair_and_nothing_is_lost_on_the_way_back() {
    if !["etcd", "patroni", "knot"].into_iter().all(require) {
        return;
    }
    let begun = Instant::now();
    let (dir, net) = (open_tempdir(), Network::random());
    let (etcd_gold, etcd_golddr) = (Etcd::start(dir.path(), net, 1), Etcd::start(dir.path(), net, 2));
    let knot = Knot::start(dir.path(), net, 3, ACTIVE_IP);
    let gold = PatroniCluster::new(dir.path(), net, "gold", 11, &etcd_gold);
    let golddr = PatroniCluster::new(dir.path(), net, "golddr", 21, &etcd_golddr);
    let (gold_host, golddr_host) = (gold.host(0), golddr.host(0));
    let stage = set_the_stage([gold_host.as_str(), golddr_host.as_str()], &knot);
    let world = stage.lab.world.clone();
    let follow = |side, upstream| Arc::new(Followed::new(world.clone(), side, upstream));
    let _gold = Operator::start(follow(Side::Active, None), gold);
    wait_for("gold accepts writes", 90, || writable(&gold_host).then_some(()));
    let upstream = Some((gold_host.clone(), 5432));
    let _golddr = Operator::start(follow(Side::Passive, upstream), golddr);
    let writer = Writer::start(&gold_host);
    let role = |side: Side| stage.shown(side, "database")["role"].clone();
    wait_for("both agents see their databases", 120, || {
        (role(Side::Active) == "primary" && role(Side::Passive) == "standby").then_some(())
    });
    wait_for("rows are acknowledged and streamed", 60, || {
        let rows = writer.acknowledged();
        (rows.len() >= 20 && missing_rows(&golddr_host, &rows).is_ok_and(|missing| missing.len() < 5))
            .then_some(())
    });
    wait_for("both agents see the active site's address", 60, || {
        Side::ALL.iter().all(|side| stage.shown(*side, "dns") == ACTIVE_IP).then_some(())
    });
    tell(begun, "gold serves and golddr streams");

    let before_flip = writer.acknowledged();
    knot.point_to(PASSIVE_IP);
    let flipped = Instant::now();
    wait_for("golddr accepts writes", 90, || writable(&golddr_host).then_some(()));
    tell(flipped, "from the DNS flip until golddr took writes");
    stage.promote_simulated(Side::Passive);
    let at_gold = writer.acknowledged();
    writer.point_to(&golddr_host);
    stage.wait_settled("golddr-primary", 90);
    let missing = missing_rows(&golddr_host, &at_gold).expect("golddr can be asked");
    println!(
        "{} rows were acknowledged at gold, {} of them are missing at golddr",
        at_gold.len(),
        missing.len()
    );
    let lost_early = missing.intersection(&before_flip).count();
    assert!(lost_early <= 5, "rows from before the flip were streamed: {lost_early} are missing");
    assert!(!writable(&gold_host), "the old primary takes no writes");
    let asked = stage.asked(Side::Passive);
    let position = |word: &str| asked.iter().position(|line| line.contains(word));
    let (on, off) = (position("/maintenance/true"), position("/maintenance/false"));
    assert!(on.is_some() && on < off, "maintenance went on and then off: {asked:#?}");
    tell(begun, "golddr-primary, settled");

    let gold_log = || std::fs::read_to_string(dir.path().join("gold-0.log")).unwrap_or_default();
    let until = Instant::now();
    wait_for("gold's copy answers, read-only", 60, || {
        if until.elapsed().as_secs() > 57 {
            eprintln!("{}", gold_log());
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        query(&gold_host, "select pg_is_in_recovery()").is_ok_and(|answer| answer == "t").then_some(())
    });
    // While a server starts its timeline is not known, and who asks for a rebuild then is told `database-unknown`.
    wait_for("gold's agent sees the read-only copy", 60, || {
        let seen = stage.shown(Side::Active, "database");
        (seen["role"] == "standby"
            && seen["timeline"].is_number()
            && seen["concerns"] == serde_json::json!([]))
        .then_some(())
    });
    let old_copy = dir.path().join("data/gold-0/only-in-the-old-copy");
    std::fs::write(&old_copy, "").expect("gold's data directory");
    stage.ask("gold-standby");
    stage.wait_settled("gold-standby", 240);
    assert!(!old_copy.exists(), "gold's old volume is gone");
    let timeline = |side: Side| stage.shown(side, "database")["timeline"].clone();
    assert_eq!(timeline(Side::Active), timeline(Side::Passive), "gold follows golddr's history");
    wait_for("gold follows golddr", 60, || {
        (system_identifier(&gold_host) == system_identifier(&golddr_host)).then_some(())
    });
    let mut expected = writer.acknowledged();
    expected.retain(|row| !missing.contains(row));
    wait_for("gold has golddr's rows", 60, || {
        missing_rows(&gold_host, &expected).is_ok_and(|rows| rows.is_empty()).then_some(())
    });
    let log = gold_log();
    assert!(
        log.contains("basebackup") || log.contains("replica has been created"),
        "a real base backup: {log}"
    );
    assert!(!writable(&gold_host), "a standby refuses writes");
    tell(begun, "gold-standby, settled");

    let rows_before = writer.acknowledged().len();
    stage.ask("active-passive");
    wait_for("gold takes writes again", 180, || writable(&gold_host).then_some(()));
    stage.promote_simulated(Side::Active);
    writer.point_to(&gold_host);
    stage.wait_settled("active-passive", 240);
    wait_for("rows are acknowledged at gold", 60, || {
        (writer.acknowledged().len() > rows_before + 5).then_some(())
    });
    let mut acknowledged = writer.finish();
    acknowledged.retain(|row| !missing.contains(row));
    let lost = missing_rows(&gold_host, &acknowledged).expect("gold can be asked");
    println!(
        "{} rows were acknowledged in all, {} are missing after the failback",
        acknowledged.len(),
        lost.len()
    );
    assert!(lost.is_empty(), "acknowledged rows are missing after a planned failback: {lost:?}");
    wait_for("golddr stands by", 60, || {
        (system_identifier(&golddr_host).is_some() && !writable(&golddr_host)).then_some(())
    });
    tell(begun, "active-passive, settled");
    let Stage { runtime, lab, agents } = stage;
    runtime.block_on(async {
        for agent in agents {
            agent.stop().await;
        }
        lab.stop().await;
    });
}
