//! The harness of real components at work: two Patroni clusters, a DNS server, a rebuild as Kubernetes would ask it.
#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(target_os = "linux")]

mod real;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use real::daemon::{Network, open_tempdir, wait_for};
use real::etcd::Etcd;
use real::knot::Knot;
use real::patroni::{PatroniCluster, Upstream};
use real::skip::{Verdict, require, verdict};
use real::spilo::{ClusterWorld, Operator};
use real::sql::{Writer, missing_rows, query, writable};

#[test]
fn a_missing_component_is_named_and_under_ci_it_is_a_failure() {
    assert_eq!(verdict("knot", None, true), Verdict::Run);
    let skip = verdict("knot", Some("no file".into()), false);
    assert_eq!(skip, Verdict::Skip("SKIPPED: knot: no file".into()));
    assert!(matches!(verdict("knot", Some("no file".into()), true), Verdict::Fail(_)));
}

#[test]
fn a_dns_answer_changes_by_dynamic_update_and_is_seen() {
    if !require("knot") {
        return;
    }
    let (dir, net) = (open_tempdir(), Network::random());
    let knot = Knot::start(dir.path(), net, 1, "127.0.1.1");
    knot.point_to("127.0.2.1");
    wait_for("the new answer", 30, || (knot.answers() == ["127.0.2.1"]).then_some(()));
}

/// Kubernetes objects played by hand.
#[derive(Clone, Default)]
struct Objects(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    replicas: u32,
    volumes: BTreeSet<u8>,
    standby: Option<Upstream>,
    configured: bool,
    members: u32,
    ready: u32,
}

impl Objects {
    fn change(&self, edit: impl FnOnce(&mut State)) {
        edit(&mut self.0.lock().unwrap());
    }

    fn wait_for_members(&self, members: u32) {
        wait_for(&format!("{members} members ready"), 180, || {
            let state = self.0.lock().unwrap();
            ((state.members, state.ready) == (members, members)).then_some(())
        });
    }
}

impl ClusterWorld for Objects {
    fn replicas(&self) -> u32 {
        self.0.lock().unwrap().replicas
    }
    fn volume_present(&self, ordinal: u8) -> bool {
        self.0.lock().unwrap().volumes.contains(&ordinal)
    }
    fn standby_env(&self) -> Option<Upstream> {
        self.0.lock().unwrap().standby.clone()
    }
    fn cluster_state_present(&self) -> bool {
        self.0.lock().unwrap().configured
    }
    fn volume_created(&self, ordinal: u8) {
        self.change(|state| state.volumes.extend([ordinal]));
    }
    fn cluster_created(&self) {
        self.change(|state| state.configured = true);
    }
    fn status(&self, members: u32, ready: u32) {
        self.change(|state| (state.members, state.ready) = (members, ready));
    }
}

fn system_identifier(host: &str) -> Option<String> {
    query(host, "select system_identifier from pg_control_system()").ok()
}

#[test]
fn golddr_streams_is_promoted_and_gold_is_rebuilt_from_it_by_a_real_basebackup() {
    if !(require("etcd") && require("patroni")) {
        return;
    }
    let (dir, net) = (open_tempdir(), Network::random());
    let etcd = Etcd::start(dir.path(), net, 1);
    let gold = PatroniCluster::new(dir.path(), net, "gold", 11, &etcd);
    let mut golddr = PatroniCluster::new(dir.path(), net, "golddr", 21, &etcd);
    let (gold_host, golddr_host) = (gold.host(0), golddr.host(0));

    let world = Objects::default();
    world.change(|state| state.replicas = 1);
    let operator = Operator::start(world.clone(), gold);
    world.wait_for_members(1);
    wait_for("gold accepts writes", 60, || writable(&gold_host).then_some(()));
    golddr.start(0, Some(&(gold_host.clone(), 5432)));
    golddr.wait_until(0, "/standby-leader");

    let writer = Writer::start(&gold_host);
    wait_for("twenty acknowledged rows", 60, || (writer.acknowledged().len() >= 20).then_some(()));
    let before = writer.finish();
    wait_for("every row streamed", 60, || {
        missing_rows(&golddr_host, &before).is_ok_and(|rows| rows.is_empty()).then_some(())
    });

    golddr.patch_config(0, r#"{"standby_cluster":null}"#);
    golddr.wait_until(0, "/primary");
    wait_for("golddr accepts writes", 60, || writable(&golddr_host).then_some(()));
    query(&golddr_host, "insert into ledger values (1000000)").unwrap();
    query(&gold_host, "create table only_at_gold ()").unwrap();

    // What the agent asks of Kubernetes to rebuild gold as a standby.
    world.change(|state| (state.standby, state.replicas) = (Some((golddr_host.clone(), 5432)), 0));
    world.wait_for_members(0);
    world.change(|state| {
        state.volumes.remove(&0);
        state.configured = false;
        state.replicas = 1;
    });
    world.wait_for_members(1);
    operator.cluster.lock().unwrap().wait_until(0, "/standby-leader");
    wait_for("gold has golddr's rows", 60, || {
        let want = BTreeSet::from([1_000_000]);
        missing_rows(&gold_host, &want).is_ok_and(|rows| rows.is_empty()).then_some(())
    });
    assert!(query(&gold_host, "select * from only_at_gold").is_err(), "gold's old data is gone");
    assert_eq!(system_identifier(&gold_host), system_identifier(&golddr_host));
    assert!(!writable(&gold_host), "a standby refuses writes");
}
