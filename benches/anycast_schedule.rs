//! Measures the scheduler: many services with one check each on one thread, and how long a failure takes to reach
//! the announcer.
//!
//! `cargo bench --bench anycast_schedule -- [--services N] [--seconds N] [--kind file|tcp|assigned_address]`
//!
//! Prints the runs that were made, how many began more than 100 ms behind their beat, the processor time used, and
//! percentiles of the time from a failure to the withdrawal, when polled and by event.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement that people run and read")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchover_agent::announce::recorder::{Call, Recording};
use switchover_agent::announce::{Announcer, Recorder};
use switchover_agent::checks::trust::Trust;
use switchover_agent::config::anycast::{AnnouncerRef, parse};
use switchover_agent::tasks::anycast::{Running, Setup, start};
use tokio_util::sync::CancellationToken;

struct Wanted {
    services: usize,
    seconds: u64,
    kind: String,
    samples: usize,
}

fn arguments() -> Wanted {
    let mut wanted = Wanted { services: 10_000, seconds: 20, kind: "file".to_owned(), samples: 200 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--services" => wanted.services = words.next().unwrap().parse().unwrap(),
            "--seconds" => wanted.seconds = words.next().unwrap().parse().unwrap(),
            "--samples" => wanted.samples = words.next().unwrap().parse().unwrap(),
            "--kind" => wanted.kind = words.next().unwrap(),
            _ => {}
        }
    }
    wanted
}

fn begin(text: &str) -> (Running, Recording, Arc<prometheus::Registry>, CancellationToken) {
    let began = Instant::now();
    let config = parse(text).unwrap();
    println!("{} services read in {:?}", config.services.len(), began.elapsed());
    let (recorder, recording) = Recorder::new();
    let mut announcers: BTreeMap<AnnouncerRef, Box<dyn Announcer>> = BTreeMap::new();
    announcers.insert(config.announcers().pop_first().unwrap(), Box::new(recorder));
    let registry = Arc::new(prometheus::Registry::new());
    let setup =
        Setup { config, announcers, trust: Trust::nobody(), registry: Arc::clone(&registry), socket: None };
    let cancel = CancellationToken::new();
    (start(setup, cancel.clone()).unwrap(), recording, registry, cancel)
}

/// Sums of the runs and of the late ones. Reading tens of thousands of series takes a while, so it is done beside the
/// thread that is measured.
async fn totals(registry: &Arc<prometheus::Registry>) -> (f64, f64) {
    let registry = Arc::clone(registry);
    let gathered = tokio::task::spawn_blocking(move || {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let sum = |name: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        };
        (sum("anycastd_check_runs_total"), sum("anycastd_check_late_total"))
    });
    gathered.await.unwrap()
}

/// Processor time of this process: user and system, in clock ticks of 10 ms.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn many(wanted: &Wanted) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = match wanted.kind.as_str() {
        "tcp" => format!("tcp = [{{ target = \"{}\", interval = 1 }}]", listener.local_addr().unwrap()),
        "assigned_address" => "assigned_address = [{ ipv4 = \"127.0.0.1\", interval = 1 }]".to_owned(),
        _ => "file = [{ path = \"/\", interval = 1 }]".to_owned(),
    };
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let mut text = String::new();
    for number in 0..wanted.services {
        let (high, low) = (number / 256 % 256, number % 256);
        write!(
            text,
            "[services.s{number}]\nprefixes.frrouting = [\"10.{}.{high}.{low}\"]\nchecks.{check}\n",
            number / 65_536
        )
        .unwrap();
    }
    let (running, recording, registry, cancel) = begin(&text);
    let settled = Instant::now();
    while recording.routes().len() < wanted.services {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("all {} services announced after {:?}", wanted.services, settled.elapsed());
    let (runs_before, late_before) = totals(&registry).await;
    let (cpu_before, began) = (processor(), Instant::now());
    tokio::time::sleep(Duration::from_secs(wanted.seconds)).await;
    let (took, cpu) = (began.elapsed(), processor() - cpu_before);
    let (runs_after, late_after) = totals(&registry).await;
    let (runs, late) = (runs_after - runs_before, late_after - late_before);
    println!(
        "{} checks, {:.0} runs in {took:?} ({:.0} a second)",
        wanted.kind,
        runs,
        runs / took.as_secs_f64()
    );
    println!(
        "late: {late:.0}; processor: {:.1} % of one core",
        cpu.as_secs_f64() * 100.0 / took.as_secs_f64()
    );
    cancel.cancel();
    running.task.await.unwrap();
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: n={} p50 {:?} p95 {:?} p99 {:?} max {:?}",
        times.len(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
}

fn withdrawn_at(recording: &Recording) -> Option<Instant> {
    recording.calls().into_iter().rev().find_map(|call| match call {
        Call::Set { at, changes } if !changes.withdrawn.is_empty() => Some(at),
        Call::Set { .. } | Call::Failed | Call::Shutdown(_) => None,
    })
}

/// From a failure to the call that withdraws, with the default interval, rise and fall.
async fn polled(samples: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("up");
    let text = format!(
        "[services.a]\nprefixes.frrouting = [\"192.0.2.1\"]\nchecks.file = [\"{}\"]\n",
        path.display()
    );
    std::fs::write(&path, "").unwrap();
    let (_running, recording, _, cancel) = begin(&text);
    let mut times = Vec::new();
    for number in 0..samples {
        while recording.routes().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Another phase of the beat each time.
        tokio::time::sleep(Duration::from_millis((number as u64 * 37) % 1000)).await;
        let failed = Instant::now();
        std::fs::remove_file(&path).unwrap();
        while !recording.routes().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(withdrawn_at(&recording).unwrap().duration_since(failed));
        std::fs::write(&path, "").unwrap();
    }
    cancel.cancel();
    percentiles("failure to withdrawal, polled with default settings", times);
}

/// From the end of a process to the call that withdraws.
async fn by_event(samples: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let text = format!(
        "[services.a]\nprefixes.frrouting = [\"192.0.2.1\"]\nchecks.process = [{{ pid_file = \"{}\", rise = 1 }}]\n",
        path.display()
    );
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(&path, child.id().to_string()).unwrap();
    let (_running, recording, _, cancel) = begin(&text);
    let mut times = Vec::new();
    for number in 0..samples {
        while recording.routes().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis((number as u64 * 37) % 200)).await;
        let failed = Instant::now();
        child.kill().unwrap();
        while !recording.routes().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(withdrawn_at(&recording).unwrap().duration_since(failed));
        child.wait().unwrap();
        child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        std::fs::write(&path, child.id().to_string()).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    cancel.cancel();
    percentiles("end of a process to withdrawal, by event", times);
}

fn main() {
    // A test runner that collects tests of all targets asks for a list: there are none here.
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    let wanted = arguments();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if wanted.services > 0 {
            many(&wanted).await;
        }
        if wanted.samples > 0 {
            by_event(wanted.samples).await;
            polled(wanted.samples).await;
        }
    });
}
