//! `make bench`: what one agent costs and how quick a failover is, measured on this machine with the lab around it.
//!
//! Prints a table for the README. Nothing here decides whether a test passes.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use switchover_agent::lab::agents::{Lab, LabSettings};
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;

const ROUNDS: usize = 7;

/// A started agent; ends with its guard.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn median(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[0], figures[figures.len() / 2], figures[figures.len() - 1])
}

fn start(env: &BTreeMap<String, String>, http: u16, peer: u16) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchover-agent"));
    command.env_clear().envs(env).env("HTTP_LISTEN", format!("127.0.0.1:{http}"));
    command.env("PEER_LISTEN", format!("127.0.0.1:{peer}")).env("LOG_LEVEL", "WARNING");
    Process(command.stdout(Stdio::null()).spawn().expect("the agent starts"))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Whether `GET path` answers 200.
fn answers(port: u16, path: &str) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return false };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut text).is_ok()
        && text.starts_with("HTTP/1.1 200")
}

/// Proportional set size in KiB (`smaps_rollup`, Linux).
fn pss(process: &Process) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.0.id())).expect("Linux");
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).expect("a Pss line");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

fn measure_process(lab: &Lab) {
    let (mut to_health, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (http, peer) = (free_port(), free_port());
        let begun = Instant::now();
        let process = start(&lab.env[1], http, peer);
        while !answers(http, "/health") {
            assert!(begun.elapsed() < Duration::from_secs(30), "the agent answers");
            std::thread::sleep(Duration::from_millis(1));
        }
        to_health.push(begun.elapsed().as_secs_f64() * 1000.0);
        std::thread::sleep(Duration::from_secs(3));
        memory.push(pss(&process) / 1024.0);
    }
    let (low, middle, high) = median(to_health);
    println!("start to /health        {middle:7.1} ms   ({low:.1} to {high:.1}, n={ROUNDS})");
    let (low, middle, high) = median(memory);
    println!("memory, all tasks (PSS) {middle:7.1} MiB  ({low:.1} to {high:.1}, n={ROUNDS})");
}

/// Changes that were asked of a site, without the lab's own entries.
fn changes(lab: &Lab, side: Side) -> usize {
    let activity = lab.world.activity(side);
    let entries = activity.as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter(|entry| entry["method"] != "").count()
}

async fn measure_failover() {
    let (mut first, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let lab = Lab::start(LabSettings::on_free_ports()).await.expect("the lab starts");
        let shown = |side: Side, key: &str| lab.agent(side).snapshot.borrow()[key].clone();
        while Side::ALL.iter().any(|side| shown(*side, "dns").is_null() || shown(*side, "peer_link") != "up")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before: usize = Side::ALL.iter().map(|side| changes(&lab, *side)).sum();
        let begun = Instant::now();
        for side in Side::ALL {
            lab.world.initiate(side, Fault::DnsFlip, None);
        }
        while Side::ALL.iter().map(|side| changes(&lab, *side)).sum::<usize>() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.push(begun.elapsed().as_secs_f64() * 1000.0);
        let done = |side: &Side| shown(*side, "phase") == "golddr-primary" && shown(*side, "settled") == true;
        while !Side::ALL.iter().all(done) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        whole.push(begun.elapsed().as_secs_f64() * 1000.0);
        lab.stop().await;
    }
    let (low, middle, high) = median(first);
    println!(
        "DNS flip to first action{middle:7.0} ms   ({low:.0} to {high:.0}, n={ROUNDS}; 3 polls of 0.5 s)"
    );
    let (low, middle, high) = median(whole);
    println!("DNS flip to settled     {middle:7.0} ms   ({low:.0} to {high:.0}, n={ROUNDS})");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let lab = runtime.block_on(Lab::start(LabSettings::on_free_ports())).expect("the lab starts");
    measure_process(&lab);
    runtime.block_on(lab.stop());
    runtime.block_on(measure_failover());
}
