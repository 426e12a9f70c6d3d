//! How long a failed service stays announced: from the failure to the withdrawal on the wire, the shipped binary beside
//! ExaBGP's healthcheck with its defaults and tuned, in one run, to the same receiver.
//!
//! `cargo bench --bench anycast_failover -- [--samples N] [--slow-samples N]` (root, for port 179 on a loopback address).
//! The receiver is part of the bench: a BGP speaker that takes a session and notes when a withdrawal arrives. Failures
//! come at another phase of the beat each time. Where ExaBGP is missing the bench says `SKIPPED`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints its figures")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const OUR_ASN: u32 = 65_001;
const THEIR_ASN: u16 = 65_002;
const LIMIT: Duration = Duration::from_secs(60);

/// What the receiver saw on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Announced,
    Withdrawn(Instant),
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFF; 16];
    out.extend(((19 + body.len()) as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

fn open(identifier: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![4];
    body.extend(THEIR_ASN.to_be_bytes());
    body.extend(180_u16.to_be_bytes());
    body.extend(identifier.octets());
    // IPv4 unicast and four-octet AS numbers.
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
    capabilities.extend(u32::from(THEIR_ASN).to_be_bytes());
    body.extend([capabilities.len() as u8 + 2, 2, capabilities.len() as u8]);
    body.extend(capabilities);
    message(1, &body)
}

/// Takes one session and tells of every UPDATE that has prefixes.
fn session(mut stream: TcpStream, identifier: Ipv4Addr, seen: &Sender<Seen>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&open(identifier))?;
    stream.write_all(&message(4, &[]))?;
    let mut header = [0_u8; 19];
    loop {
        stream.read_exact(&mut header)?;
        let arrived = Instant::now();
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length.saturating_sub(19)];
        stream.read_exact(&mut body)?;
        match header[18] {
            4 => stream.write_all(&message(4, &[]))?,
            2 if body.len() > 4 => {
                let withdrawn = u16::from_be_bytes([body[0], body[1]]);
                let what = if withdrawn > 0 { Seen::Withdrawn(arrived) } else { Seen::Announced };
                if seen.send(what).is_err() {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

fn receiver(address: Ipv4Addr) -> Receiver<Seen> {
    let listener = TcpListener::bind((address, 179)).unwrap();
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || session(stream.unwrap(), address, &sender));
        }
    });
    seen
}

/// A sender under test, ended when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.0.wait();
    }
}

fn agent(folder: &Path, us: Ipv4Addr, them: Ipv4Addr, check: &str) -> Daemon {
    let text = format!(
        "control_socket = '{0}/control.sock'\n\
         announcer = {{ router_id = '{us}', local_address = '{us}', local_asn = {OUR_ASN}, peers = [{{ name = 'r', \
         remote_address = '{them}', remote_asn = {THEIR_ASN}, retry_min_ms = 200 }}] }}\n\
         [services.web]\nprefixes.bgp = ['203.0.113.53']\n{check}\n",
        folder.display()
    );
    let path = folder.join("config.toml");
    std::fs::write(&path, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_switchover-agent"))
        .args(["run", "--log-level", "error", "--config", path.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    Daemon(child.unwrap())
}

fn exabgp(folder: &Path, us: Ipv4Addr, them: Ipv4Addr, file: &Path, options: &str) -> Daemon {
    let log = std::fs::File::create(folder.join("exabgp.log")).unwrap();
    let config = format!(
        "process watch {{ run /usr/bin/python3 -m exabgp healthcheck --cmd \"test -e {}\" --no-ip-setup --no-syslog \
         --withdraw-on-down --ip 203.0.113.53 --next-hop {us} {options}; encoder text; }}\n\
         neighbor {them} {{ router-id {us}; local-address {us}; local-as {OUR_ASN}; peer-as {THEIR_ASN}; hold-time 180; \
         family {{ ipv4 unicast; }} api {{ processes [ watch ]; }} }}\n",
        file.display()
    );
    let path = folder.join("exabgp.conf");
    std::fs::write(&path, config).unwrap();
    let child = Command::new("/usr/sbin/exabgp")
        .arg(&path)
        .env("exabgp.daemon.user", "root")
        .env("exabgp.daemon.daemonize", "false")
        .env("exabgp.api.cli", "false")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    Daemon(child.unwrap())
}

fn wait(seen: &Receiver<Seen>, wanted: impl Fn(&Seen) -> bool) -> Seen {
    let end = Instant::now() + LIMIT;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        let what = seen.recv_timeout(rest).expect("the UPDATE comes within a minute");
        if wanted(&what) {
            return what;
        }
    }
}

/// Fails and heals the service so many times; the times from failure to withdrawal.
fn measure(
    seen: &Receiver<Seen>,
    samples: u64,
    spread: u64,
    mut fail: impl FnMut() -> Instant,
    mut heal: impl FnMut(),
) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..samples {
        wait(seen, |what| *what == Seen::Announced);
        // Another phase of the beat each time.
        std::thread::sleep(Duration::from_millis(300 + (number * 617) % spread));
        let failed = fail();
        let Seen::Withdrawn(at) = wait(seen, |what| matches!(what, Seen::Withdrawn(_))) else { continue };
        times.push(at.duration_since(failed));
        heal();
    }
    times
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| {
        let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len());
        times[place - 1].as_secs_f64() * 1000.0
    };
    println!("| {what} | {} | {:.1} | {:.1} | {:.1} |", times.len(), at(0.5), at(0.99), at(1.0));
}

fn number(name: &str, default: u64) -> u64 {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == name);
    at.and_then(|at| words.get(at + 1)).and_then(|word| word.parse().ok()).unwrap_or(default)
}

fn by_file(path: &Path) -> (impl FnMut() -> Instant + '_, impl FnMut() + '_) {
    std::fs::write(path, "").unwrap();
    let fail = move || {
        let failed = Instant::now();
        std::fs::remove_file(path).unwrap();
        failed
    };
    (fail, move || std::fs::write(path, "").unwrap())
}

fn ours(samples: u64) {
    let (us, them) = (Ipv4Addr::new(127, 0, 71, 1), Ipv4Addr::new(127, 0, 71, 2));
    let seen = receiver(them);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("up");
    let check = format!(
        "checks.command = [{{ command = '/usr/bin/test', arguments = ['-e', '{}'] }}]",
        file.display()
    );
    let (fail, heal) = by_file(&file);
    let sender = agent(folder.path(), us, them, &check);
    print("switchover-agent, command check, defaults", measure(&seen, samples, 1_000, fail, heal));
    drop(sender);
    let pid = folder.path().join("pid");
    let begin = || Command::new("/usr/bin/sleep").arg("600").spawn().unwrap();
    let child = std::cell::RefCell::new(begin());
    std::fs::write(&pid, child.borrow().id().to_string()).unwrap();
    let check = format!("checks.process = [{{ pid_file = '{}', rise = 1 }}]", pid.display());
    let sender = agent(folder.path(), us, them, &check);
    let fail = || {
        let failed = Instant::now();
        child.borrow_mut().kill().unwrap();
        failed
    };
    let heal = || {
        child.borrow_mut().wait().unwrap();
        *child.borrow_mut() = begin();
        std::fs::write(&pid, child.borrow().id().to_string()).unwrap();
    };
    print("switchover-agent, event: process exit", measure(&seen, samples, 200, fail, heal));
    let _ = child.borrow_mut().kill();
    let _ = child.borrow_mut().wait();
    drop(sender);
    reset(samples, folder.path(), us, them, &seen);
}

/// A held connection that the service resets, and a port that then refuses.
fn reset(samples: u64, folder: &Path, us: Ipv4Addr, them: Ipv4Addr, seen: &Receiver<Seen>) {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = first.local_addr().unwrap();
    let held = std::cell::RefCell::new((Some(first), Vec::<TcpStream>::new()));
    held.borrow().0.as_ref().unwrap().set_nonblocking(true).unwrap();
    let accept = |held: &std::cell::RefCell<(Option<TcpListener>, Vec<TcpStream>)>| {
        let end = Instant::now() + LIMIT;
        loop {
            let accepted = held.borrow().0.as_ref().unwrap().accept();
            if let Ok((stream, _)) = accepted {
                held.borrow_mut().1.push(stream);
                return;
            }
            assert!(Instant::now() < end, "the check does not connect");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let check = format!("checks.tcp = [{{ target = '{address}', hold = true, rise = 1 }}]");
    let sender = agent(folder, us, them, &check);
    accept(&held);
    let fail = || {
        let mut held = held.borrow_mut();
        held.0 = None;
        let failed = Instant::now();
        for stream in held.1.drain(..) {
            // Linger of zero: a reset and not a polite end.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        failed
    };
    let heal = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(16).unwrap();
        let listener: TcpListener = socket.into();
        listener.set_nonblocking(true).unwrap();
        held.borrow_mut().0 = Some(listener);
        accept(&held);
    };
    print("switchover-agent, event: connection reset", measure(seen, samples, 200, fail, heal));
    drop(sender);
}

fn theirs(samples: u64) {
    if !Path::new("/usr/sbin/exabgp").exists() {
        println!("SKIPPED: exabgp");
        return;
    }
    let rows = [
        ("ExaBGP healthcheck, defaults", "", 5_000, Ipv4Addr::new(127, 0, 72, 1)),
        (
            "ExaBGP healthcheck, tuned: 1 s, fast 0.1 s, rise and fall 2",
            "--interval 1 --fast-interval 0.1 --rise 2 --fall 2",
            1_000,
            Ipv4Addr::new(127, 0, 73, 1),
        ),
    ];
    for (what, options, spread, us) in rows {
        let them = Ipv4Addr::from(u32::from(us) + 1);
        let seen = receiver(them);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("up");
        let (fail, heal) = by_file(&file);
        let sender = exabgp(folder.path(), us, them, &file, options);
        print(what, measure(&seen, samples, spread, fail, heal));
        drop(sender);
    }
}

fn main() {
    // A test runner that collects tests of all targets asks for a list: there are none here.
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    println!(
        "| Failure to withdrawal on the wire | n | p50, ms | p99, ms | max, ms |\n|---|---|---|---|---|"
    );
    ours(number("--samples", 100));
    theirs(number("--slow-samples", 20));
}
