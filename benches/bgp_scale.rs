//! How fast a set of prefixes reaches one and ten neighbours, and what it costs the sender: our speaker beside BIRD
//! and GoBGP sending the same set, on the same link, to the same receiving BIRDs.
//!
//! `cargo bench --bench bgp_scale` (root; FRR is not needed). Time runs from the moment when a receiver sees the
//! session up to the moment when it has every prefix; with ten neighbours the slowest counts. Memory is the sender's
//! peak (VmHWM). Where a daemon is missing the bench says `SKIPPED`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "../tests/bgp_lab/mod.rs"]
mod bgp_lab;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bgp_lab::{Lab, run};
use ipnet::IpNet;
use switchover_agent::announce::speaker::SpeakerAnnouncer;
use switchover_agent::announce::{Announcer, PrefixKey, RouteAttributes};
use switchover_agent::config::bgp::{NeighbourSettings, SpeakerSettings};

const OUR_ASN: u32 = 65001;
const THEIR_ASN: u32 = 65003;
const LIMIT: Duration = Duration::from_secs(120);

fn prefix(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0B00_0000 + number)
}

fn hosts(neighbours: u8) -> impl Iterator<Item = u8> {
    (0..neighbours).map(|n| 10 + n)
}

/// The receiving BIRD of a host: passive, keeps everything, sends nothing.
fn receiver(lab: &mut Lab, host: u8) {
    let (me, us) = (lab.v4(host), lab.v4(1));
    let config = format!(
        "log stderr all;\nrouter id {me};\nprotocol device {{}}\nprotocol bgp agent {{ local {me} as {THEIR_ASN}; \
         neighbor {us} as {OUR_ASN}; passive; strict bind yes; hold time 90; ipv4 {{ import all; export none; }}; }}\n"
    );
    let (name, control) = (format!("receiver{host}"), lab.path(&format!("r{host}.ctl")));
    let file = lab.file(&format!("r{host}.conf"), &config);
    lab.spawn(&name, &[], &["/usr/sbin/bird", "-f", "-c", &file, "-s", &control]);
    let end = Instant::now() + LIMIT;
    while !birdc(lab, host, "show status").contains("up and running") {
        assert!(Instant::now() < end, "{name} does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn birdc(lab: &Lab, host: u8, command: &str) -> String {
    run("birdc", &["-s", &lab.path(&format!("r{host}.ctl")), command]).unwrap_or_default()
}

/// Waits for every receiver; the slowest one's time from session to last prefix.
fn measure(lab: &Lab, neighbours: u8, prefixes: u32) -> Duration {
    let mut up: BTreeMap<u8, Instant> = BTreeMap::new();
    let mut done: BTreeMap<u8, Duration> = BTreeMap::new();
    let wanted = format!("{prefixes} of {prefixes} routes");
    let end = Instant::now() + LIMIT;
    while done.len() < usize::from(neighbours) {
        assert!(Instant::now() < end, "only {} of {neighbours} receivers have everything", done.len());
        for host in hosts(neighbours) {
            if !up.contains_key(&host) && birdc(lab, host, "show protocols agent").contains("Established") {
                up.insert(host, Instant::now());
            }
            let Some(since) = up.get(&host) else { continue };
            if !done.contains_key(&host) && birdc(lab, host, "show route count").contains(&wanted) {
                done.insert(host, since.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    done.into_values().max().unwrap_or_default()
}

fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("VmHWM: 0 kB");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Our speaker in a process of its own: `--speaker ADDRESS PREFIXES NEIGHBOUR…`.
fn be_speaker(arguments: &[String]) {
    let local: Ipv4Addr = arguments[0].parse().unwrap();
    let count: u32 = arguments[1].parse().unwrap();
    let neighbours = arguments[2..].iter().map(|a| {
        let settings = NeighbourSettings::new(a.parse().unwrap(), THEIR_ASN);
        NeighbourSettings { retry_min_ms: 200, retry_max_ms: 500, ..settings }
    });
    let settings = SpeakerSettings {
        router_id: local,
        local_asn: OUR_ASN,
        local_address: Some(local.into()),
        neighbours: neighbours.collect(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut announcer = SpeakerAnnouncer::start("speaker", settings).unwrap();
        let key = |n| PrefixKey { prefix: IpNet::new(IpAddr::V4(prefix(n)), 32).unwrap(), vrf: None };
        let wanted: BTreeMap<_, _> = (0..count).map(|n| (key(n), RouteAttributes::default())).collect();
        announcer.set(&wanted).await.unwrap();
        drop(wanted);
        std::future::pending::<()>().await;
    });
}

fn start_ours(lab: &mut Lab, neighbours: u8, prefixes: u32) -> u32 {
    let program = std::env::current_exe().unwrap();
    let mut command =
        vec![program.to_str().unwrap().to_owned(), "--speaker".to_owned(), lab.v4(1).to_string()];
    command.push(prefixes.to_string());
    command.extend(hosts(neighbours).map(|host| lab.v4(host).to_string()));
    lab.spawn_outside("ours", &command.iter().map(String::as_str).collect::<Vec<_>>())
}

fn start_bird(lab: &mut Lab, neighbours: u8, prefixes: u32) -> u32 {
    let me = lab.v4(1);
    let mut config =
        format!("log stderr all;\nrouter id {me};\nprotocol device {{}}\nprotocol static {{ ipv4;\n");
    for n in 0..prefixes {
        let _ = writeln!(config, "route {}/32 blackhole;", prefix(n));
    }
    config.push_str("}\n");
    for host in hosts(neighbours) {
        let them = lab.v4(host);
        let _ = writeln!(
            config,
            "protocol bgp to{host} {{ local {me} as {OUR_ASN}; neighbor {them} as {THEIR_ASN}; direct; \
             connect delay time 1; ipv4 {{ import none; export all; next hop self; }}; }}"
        );
    }
    let (file, control) = (lab.file("sender.conf", &config), lab.path("sender.ctl"));
    lab.spawn_outside("bird", &["/usr/sbin/bird", "-f", "-c", &file, "-s", &control])
}

/// The host and AS of the BIRD that GoBGP has its routes from: GoBGP's own command adds one route per call.
const FEEDER: (u8, u32) = (9, 65009);

fn start_feeder(lab: &mut Lab, prefixes: u32) {
    let (me, us, own) = (lab.v4(FEEDER.0), lab.v4(1), FEEDER.1);
    let mut config =
        format!("log stderr all;\nrouter id {me};\nprotocol device {{}}\nprotocol static {{ ipv4;\n");
    for n in 0..prefixes {
        let _ = writeln!(config, "route {}/32 blackhole;", prefix(n));
    }
    let _ = writeln!(
        config,
        "}}\nprotocol bgp feed {{ local {me} as {own}; neighbor {us} as {OUR_ASN}; passive; strict bind yes; \
         ipv4 {{ import none; export all; next hop self; }}; }}"
    );
    let (file, control) = (lab.file("feeder.conf", &config), lab.path("feeder.ctl"));
    lab.spawn("feeder", &[], &["/usr/sbin/bird", "-f", "-c", &file, "-s", &control]);
}

fn gobgp_neighbour(lab: &Lab, host: u8, asn: u32) -> String {
    let (me, them) = (lab.v4(1), lab.v4(host));
    format!(
        "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{them}\"\npeer-as = {asn}\n\
         [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n\
         [neighbors.transport.config]\nlocal-address = \"{me}\"\n"
    )
}

fn start_gobgp(lab: &mut Lab, neighbours: u8, prefixes: u32) -> u32 {
    start_feeder(lab, prefixes);
    let me = lab.v4(1);
    let mut config = format!("[global.config]\nas = {OUR_ASN}\nrouter-id = \"{me}\"\nport = -1\n");
    config.push_str(&gobgp_neighbour(lab, FEEDER.0, FEEDER.1));
    let file = lab.file("gobgp.toml", &config);
    let command = ["/usr/bin/gobgpd", "-t", "toml", "-f", &file, "--api-hosts", "127.0.0.1:50061"];
    let pid = lab.spawn_outside("gobgpd", &command);
    // It has all routes before the first neighbour is there: the same as for the other two.
    let wanted = format!("Destination: {prefixes},");
    let end = Instant::now() + LIMIT;
    while !run("gobgp", &["-p", "50061", "global", "rib", "summary"]).unwrap_or_default().contains(&wanted) {
        assert!(Instant::now() < end, "gobgpd does not get its routes");
        std::thread::sleep(Duration::from_millis(50));
    }
    for host in hosts(neighbours) {
        config.push_str(&gobgp_neighbour(lab, host, THEIR_ASN));
    }
    std::fs::write(&file, config).unwrap();
    lab.signal("gobgpd", nix::sys::signal::Signal::SIGHUP);
    pid
}

type Start = fn(&mut Lab, u8, u32) -> u32;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "--speaker") {
        return be_speaker(&arguments[1..]);
    }
    println!("| Sender | Prefixes | Neighbours | Seconds until all are there | Peak memory, MiB |");
    println!("|---|---|---|---|---|");
    let senders: [(&str, &str, Start); 3] = [
        ("switchover-agent", "bird", start_ours),
        ("BIRD", "bird", start_bird),
        ("GoBGP", "gobgpd", start_gobgp),
    ];
    for prefixes in [1_000, 100_000] {
        for neighbours in [1, 10] {
            for (name, program, start) in senders {
                let Some(mut lab) = Lab::new(&["bird", "birdc", program]) else { continue };
                for host in hosts(neighbours) {
                    receiver(&mut lab, host);
                }
                let pid = start(&mut lab, neighbours, prefixes);
                let time = measure(&lab, neighbours, prefixes);
                println!(
                    "| {name} | {prefixes} | {neighbours} | {:.3} | {:.1} |",
                    time.as_secs_f64(),
                    peak_mib(pid)
                );
            }
        }
    }
}
