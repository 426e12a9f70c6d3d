//! The witness against a real etcd, and two agents that rest on it.
#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(target_os = "linux")]

mod real;

use std::time::Duration;

use nix::sys::signal::Signal;
use real::daemon::{Network, open_tempdir, wait_for};
use real::etcd::Etcd;
use real::skip::require;
use switchover_agent::adapters::witness::Witness;
use switchover_agent::config::Secret;
use switchover_agent::config::witness::WitnessSettings;
use switchover_agent::lab::agents::{Lab, LabSettings};
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::{LeaseHolder, Side};

fn settings(etcd: &Etcd) -> WitnessSettings {
    WitnessSettings {
        base: format!("http://{}", etcd.client),
        ca: None,
        client_pem: None,
        login: None,
        key: "/switchover/test/service".to_owned(),
        poll_ms: 1_000,
    }
}

fn etcdctl(etcd: &Etcd, args: &[&str]) {
    let done = std::process::Command::new("/usr/bin/etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &etcd.client])
        .args(args)
        .output()
        .unwrap();
    assert!(done.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_site_at_a_time_holds_the_lease_until_it_is_given_back_or_lapses() {
    if !require("etcd") {
        return;
    }
    let (dir, net) = (open_tempdir(), Network::random());
    let etcd = Etcd::start(dir.path(), net, 1);
    let witness = |site: &str, ttl_ms: u64| Witness::new(&settings(&etcd), site, ttl_ms).unwrap();
    let (mut gold, mut golddr) = (witness("gold", 2_000), witness("golddr", 60_000));
    assert_eq!(golddr.look(Some(false)).await.unwrap(), LeaseHolder::Nobody);
    assert_eq!(gold.look(Some(true)).await.unwrap(), LeaseHolder::Us);
    assert_eq!(golddr.look(Some(true)).await.unwrap(), LeaseHolder::Peer);
    // A restarted agent of the same site finds what it holds.
    let mut again = witness("gold", 2_000);
    assert_eq!(again.look(None).await.unwrap(), LeaseHolder::Us);
    assert_eq!(again.look(Some(true)).await.unwrap(), LeaseHolder::Us);
    // Nobody renews it: it goes away by itself, and not before its time.
    let began = std::time::Instant::now();
    while golddr.look(Some(false)).await.unwrap() == LeaseHolder::Peer {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert_eq!(golddr.look(Some(true)).await.unwrap(), LeaseHolder::Us);
    assert_eq!(gold.look(Some(true)).await.unwrap(), LeaseHolder::Peer);
    assert_eq!(golddr.look(Some(false)).await.unwrap(), LeaseHolder::Nobody);
    assert_eq!(gold.look(Some(true)).await.unwrap(), LeaseHolder::Us);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_does_not_answer_or_asks_for_a_login_is_unknown_and_a_login_opens_it() {
    if !require("etcd") {
        return;
    }
    let (dir, net) = (open_tempdir(), Network::random());
    let etcd = Etcd::start(dir.path(), net, 1);
    etcdctl(&etcd, &["user", "add", "root:hunter2"]);
    etcdctl(&etcd, &["user", "grant-role", "root", "root"]);
    etcdctl(&etcd, &["auth", "enable"]);
    let mut stranger = Witness::new(&settings(&etcd), "gold", 5_000).unwrap();
    assert!(stranger.look(Some(true)).await.is_err());
    let login = Some(("root".to_owned(), Secret::new("hunter2")));
    let mut known = Witness::new(&WitnessSettings { login, ..settings(&etcd) }, "gold", 5_000).unwrap();
    assert_eq!(known.look(Some(true)).await.unwrap(), LeaseHolder::Us);
    let login = Some(("root".to_owned(), Secret::new("wrong-password")));
    let mut wrong = Witness::new(&WitnessSettings { login, ..settings(&etcd) }, "gold", 5_000).unwrap();
    let error = wrong.look(Some(true)).await.unwrap_err().to_string();
    assert!(!error.contains("wrong-password"), "{error}");
    etcd.daemon.signal(Signal::SIGSTOP);
    let silent = known.look(Some(true)).await;
    etcd.daemon.signal(Signal::SIGCONT);
    assert!(silent.is_err(), "no answer is no holder");
}

/// Milliseconds during which both simulated databases took writes.
fn both_wrote_ms(lab: &Lab) -> u64 {
    let [active, passive] = Side::ALL.map(|side| lab.world.writable_intervals(side));
    let end = |interval: &switchover_agent::lab::database::Interval| interval.end_ms.unwrap_or(u64::MAX);
    let overlaps = active.iter().flat_map(|a| {
        passive.iter().map(move |b| end(a).min(end(b)).saturating_sub(a.start_ms.max(b.start_ms)))
    });
    overlaps.sum()
}

fn writable(lab: &Lab, side: Side) -> bool {
    lab.world.describe(side)["database"]["writable"] == true
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(90), "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn self_fencing(witness: Option<&Etcd>) -> LabSettings {
    let mut settings = LabSettings::on_free_ports()
        .with("AUTOMATION_MODE", "self-fencing")
        .with("PROMOTE_FIRST", "true")
        .with("FENCE_OLD_PRIMARY", "true")
        .with("LEASE_SECONDS", "3")
        .with("LEASE_GRACE_SECONDS", "6")
        .with("BOOT_GRACE_SECONDS", "3");
    if let Some(etcd) = witness {
        settings = settings
            .with("WITNESS_URL", &format!("http://{}", etcd.client))
            .with("WITNESS_POLL_SECONDS", "0.5");
    }
    settings
}

async fn up(settings: LabSettings) -> Lab {
    let lab = Lab::start(settings).await.unwrap();
    until("both agents to know each other", || {
        Side::ALL.into_iter().all(|side| {
            let shown = lab.agent(side).snapshot.borrow().clone();
            shown["peer_link"] == "up"
                && shown["phase"] == "active-passive"
                && shown["peer"]["writable"].is_boolean()
        })
    })
    .await;
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_moves_nothing_while_the_witness_answers_and_one_writer_is_left_when_it_does_not() {
    if !require("etcd") {
        return;
    }
    let (dir, net) = (open_tempdir(), Network::random());
    let etcd = Etcd::start(dir.path(), net, 1);
    let lab = up(self_fencing(Some(&etcd))).await;
    let shown = |side: Side| lab.agent(side).snapshot.borrow().clone();
    until("the active site to hold the lease", || shown(Side::Passive)["sensors"]["witness"] == "good").await;
    lab.world.initiate(Side::Active, Fault::PeerPartition, None);
    until("the passive site to be held back by the witness", || {
        shown(Side::Passive)["refusals"].to_string().contains("\"witness-veto\"")
            || shown(Side::Passive)["refusals"].to_string().contains("\"traffic-stays-home\"")
    })
    .await;
    assert!(writable(&lab, Side::Active) && shown(Side::Active)["self_fenced"].is_null());
    // Now the witness is silent too: the active site cannot prove that it may serve.
    etcd.daemon.signal(Signal::SIGSTOP);
    until("the active site to let go", || !writable(&lab, Side::Active)).await;
    assert!(!writable(&lab, Side::Passive), "nobody knows, nobody takes over");
    etcd.daemon.signal(Signal::SIGCONT);
    until("one site to serve again", || Side::ALL.into_iter().any(|side| writable(&lab, side))).await;
    lab.world.lift(Side::Active, Fault::PeerPartition);
    assert_eq!(both_wrote_ms(&lab), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_witness_a_dead_active_site_is_replaced_after_lease_and_grace() {
    let lab = up(self_fencing(None)).await;
    // The whole site goes: agent, database, health endpoint.
    lab.world.initiate(Side::Active, Fault::DatabaseDown, None);
    lab.world.initiate(Side::Active, Fault::PeerPartition, None);
    lab.world.initiate(Side::Passive, Fault::DnsLookupError, None);
    until("the passive site to take over", || writable(&lab, Side::Passive)).await;
    assert_eq!(both_wrote_ms(&lab), 0);
    wait_for("its record", 60, || {
        (lab.agent(Side::Passive).snapshot.borrow()["phase"] == "golddr-primary").then_some(())
    });
}
