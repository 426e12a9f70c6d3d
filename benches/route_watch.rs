//! `make bench-routes`: what a cycle of route steering costs with 5, 50 and 500 backend groups in each region.
//!
//! The real binary in front of simulated clouds on loopback; prints a table for the README. The simulated clouds share
//! the machine, and real ones are further away: a cycle's calls go in rounds of `PARALLEL_HEALTH_CHECKS`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use switchover_agent::lab::route_clouds::{PROJECT, REGIONS, RouteClouds, environment, write_key};
use switchover_agent::model::Side;

/// Cycles that are measured.
const CYCLES: f64 = 10.0;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn metrics(port: u16) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) {
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let _ =
            stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut text).map(|_| ()));
    }
    text
}

fn value(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(&format!("switchover_routes_{name}")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Proportional set size in KiB (`smaps_rollup`, Linux).
fn pss(id: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).expect("Linux");
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).expect("a Pss line");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

fn clouds(groups: usize) -> RouteClouds {
    let clouds = RouteClouds::new();
    clouds.compute.with(|cloud| {
        for region in REGIONS {
            cloud.region_mut(PROJECT, region).services.clear();
            // Five groups to a service, as a regional service over zones has them.
            for service in 0..groups.div_ceil(5) {
                let names: Vec<String> = (0..5)
                    .map(|group| format!("projects/lab/zones/{region}-b/instanceGroups/g-{service}-{group}"))
                    .collect();
                let list: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 3)).collect();
                cloud.add_service(PROJECT, region, &format!("service-{service}"), &list);
            }
        }
    });
    clouds
}

fn measure(runtime: &tokio::runtime::Runtime, groups: usize) {
    let clouds = clouds(groups);
    let served = runtime.block_on(clouds.serve()).expect("served clouds");
    let folder = std::env::temp_dir().join(format!("bench-routes-{}-{groups}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let bases = served.bases();
    let key = write_key(&folder, &bases[0]).expect("a key");
    let port = free_port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchover-agent"));
    command.arg("routes").env_clear().envs(environment(Side::Active, &bases, &key, &folder));
    command.env("HTTP_LISTEN", format!("127.0.0.1:{port}")).env("CHECK_INTERVAL_SECONDS", "1");
    let process = Process(command.stdout(Stdio::null()).spawn().expect("the agent starts"));
    let limit = Instant::now() + Duration::from_secs(300);
    let wait_for = |cycles: f64| loop {
        let text = metrics(port);
        if value(&text, "cycle_total") >= cycles {
            break text;
        }
        assert!(Instant::now() < limit, "the cycles did not come:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let before = wait_for(6.0);
    let calls = |text: &str| {
        value(text, "api_requests_total{api=\"compute\"")
            + value(text, "api_requests_total{api=\"cloudflare\"")
    };
    let after = wait_for(6.0 + CYCLES);
    let cycles = value(&after, "cycle_total") - value(&before, "cycle_total");
    let seconds = value(&after, "cycle_seconds_sum") - value(&before, "cycle_seconds_sum");
    println!(
        "| {groups} | {:.0} ms | {:.0} | {:.1} MiB |",
        seconds / cycles * 1000.0,
        (calls(&after) - calls(&before)) / cycles,
        pss(process.0.id()) / 1024.0
    );
    drop(process);
    let _ = std::fs::remove_dir_all(&folder);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!(
        "| backend groups in each region | cycle | API calls in a cycle | memory (PSS) |\n|---|---|---|---|"
    );
    for groups in [5, 50, 500] {
        measure(&runtime, groups);
    }
}
