//! The real binary by itself, with a neighbour that does not exist: what its checks do to others and to its log, what it
//! opens, and what it says where the machine lacks something. Needs no daemon.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::bgp_lab::until;
use crate::{Agent, BINARY};

/// A file with these services and a neighbour that nobody is.
pub fn file(folder: &tempfile::TempDir, services: &str) -> String {
    let text = format!(
        "announcer = {{ router_id = '127.0.0.1', local_address = '127.0.0.1', local_asn = 65001, peers = [{{ \
         name = 'nobody', remote_address = '127.0.0.99', remote_asn = 65002, retry_min_ms = 5000 }}] }}\n{services}"
    );
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text.replace("{DIR}", folder.path().to_str().unwrap())).unwrap();
    path.to_str().unwrap().to_owned()
}

pub async fn state(agent: &Agent, words: &str) {
    until(words, async || agent.ask(&["status"]).is_ok_and(|text| text.contains(words))).await;
}

/// A server that answers every request with this status; how often it was asked.
fn server(status: u16) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let mut request = [0_u8; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            // The agent asks for the check by either path of the API; one answer of 404 is two requests at first.
            if String::from_utf8_lossy(&request[..length]).starts_with("GET /api/v1/") {
                count.fetch_add(1, Ordering::SeqCst);
            }
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (format!("http://{address}"), asked)
}

#[tokio::test]
async fn case_11_and_12_a_cabourotte_that_answers_500_or_404_is_asked_on_its_beat_and_told_of_once() {
    for (status, said) in [(500, "status 500"), (404, "knows no check dns")] {
        let (url, asked) = server(status);
        let folder = tempfile::tempdir().unwrap();
        let services = format!(
            "[services.a]\nprefixes.bgp = ['192.0.2.1']\n\
             checks.cabourotte = [{{ name = 'dns', url = '{url}', interval = 1 }}]\n"
        );
        let began = Instant::now();
        let agent = Agent::start(folder.path(), &file(&folder, &services));
        // Ten seconds of the case, and asked again in every interval.
        until("ten requests", async || asked.load(Ordering::SeqCst) >= 10).await;
        let (count, took) = (asked.load(Ordering::SeqCst), began.elapsed().as_secs_f64());
        assert!(count as f64 <= took + 1.0, "{count} requests in {took} s at one a second");
        state(&agent, "DOWN       a").await;
        assert_eq!(agent.logged(said), 2, "the check and the service, once each: {}", agent.log());
        assert_eq!(agent.logged("check fails"), 1, "{}", agent.log());
    }
}

/// Addresses on which a process listens for TCP, as the kernel writes them.
fn listening(process: u32) -> Vec<String> {
    let links = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let sockets: Vec<String> = links
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| link.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{process}/net/{table}")));
    let mut found = Vec::new();
    for line in tables.iter().flatten().flat_map(|text| text.lines()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // 0A = listening; the tenth field is the socket's number.
        if fields.len() > 9 && fields[3] == "0A" && sockets.iter().any(|socket| socket == fields[9]) {
            found.push(fields[1].to_owned());
        }
    }
    found
}

#[tokio::test]
async fn case_19_metrics_that_are_off_open_no_listener() {
    let folder = tempfile::tempdir().unwrap();
    let text = |metrics: &str| {
        format!(
            r#"{{"announcer": {{"router_id": "127.0.0.1", "local_address": "127.0.0.1", "local_asn": 65001, "routes":
            ["192.0.2.1/32"], "peers": [{{"name": "p", "remote_address": "127.0.0.99", "remote_asn": 65002}}]}},
            "services": [{{"name": "a", "check_interval": "100ms", "checks": [{{"kind": "file", "spec": {{"path": "/"}}}}]}}],
            "metrics": {metrics}}}"#
        )
    };
    let path = folder.path().join("config.json");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (metrics, listeners) in [
        (r#"{"enabled": false}"#.to_owned(), 0),
        (r#"{"enabled": false, "address": "127.0.0.1:9"}"#.to_owned(), 0),
        (format!(r#"{{"enabled": true, "address": "{free}"}}"#), 1),
    ] {
        std::fs::write(&path, text(&metrics)).unwrap();
        let agent = Agent::start(folder.path(), path.to_str().unwrap());
        state(&agent, "UP         a").await;
        let found = listening(agent.child.id());
        assert_eq!(found.len(), listeners, "{metrics}: {found:?}");
        drop(agent);
        let _ = std::fs::remove_file(folder.path().join("control.sock"));
    }
}

/// Runs the binary in a network of its own, whose kernel lets nobody use datagram ICMP; `prepare` comes first.
fn in_a_network_of_its_own(prepare: &str, drop_raw: bool, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let setpriv = if drop_raw {
        "setpriv --bounding-set=-net_raw --pdeathsig KILL"
    } else {
        "setpriv --pdeathsig KILL"
    };
    let line = format!("ip link set lo up; {prepare}exec {setpriv} {BINARY} \"$@\"");
    command.args(["-n", "sh", "-ec", &line, "sh"]).args(arguments);
    command.stdin(Stdio::null()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

fn ping(extra: &str) -> String {
    format!(
        "[services.a]\nprefixes.bgp = ['192.0.2.1']\nchecks.icmp_ping = [{{ static = {{ host = '127.0.0.1' }}, \
         tries = 5, interval = '50ms', timeout = '2s'{extra} }}]\n"
    )
}

fn network_namespaces() -> bool {
    let may = nix::unistd::geteuid().is_root()
        && Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success());
    if !may {
        println!("SKIPPED: root, for network namespaces");
    }
    may
}

#[tokio::test]
async fn case_27_ping_needs_the_group_range_or_the_right_to_a_raw_socket_and_says_so_at_the_start() {
    if !network_namespaces() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, &ping(""));
    // Nobody is in the range, and there is no right to a raw socket.
    let shown = in_a_network_of_its_own("", true, &["run", "--config", &path]).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert!(!shown.status.success(), "{said}");
    assert!(said.contains("ping_group_range") && said.contains("CAP_NET_RAW"), "{said}");
    // With the right it works.
    let log = std::fs::File::create(folder.path().join("agent.log")).unwrap();
    let child = in_a_network_of_its_own("", false, &["run", "--config", &path])
        .env("ANYCAST_CONTROL_SOCKET", folder.path().join("control.sock"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    let agent = Agent { child: child.unwrap(), folder: folder.path().to_owned() };
    state(&agent, "UP         a").await;
}

#[tokio::test]
async fn case_26_one_lost_reply_of_five_fails_unless_such_a_loss_is_allowed() {
    if !network_namespaces() {
        return;
    }
    let lossy = "iptables -A INPUT -p icmp --icmp-type echo-reply -m statistic --mode nth --every 5 --packet 2 -j DROP; ";
    if !Command::new("unshare").args(["-n", "sh", "-c", lossy]).status().is_ok_and(|status| status.success())
    {
        println!("SKIPPED: iptables with statistic");
        return;
    }
    for (extra, want, loss) in
        [("", "DOWN       a", "DOWN"), (", max_loss_percent = 20", "UP         a", "UP")]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, &ping(extra));
        let log = std::fs::File::create(folder.path().join("agent.log")).unwrap();
        let child = in_a_network_of_its_own(lossy, false, &["run", "--config", &path])
            .env("ANYCAST_CONTROL_SOCKET", folder.path().join("control.sock"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let agent = Agent { child: child.unwrap(), folder: folder.path().to_owned() };
        state(&agent, want).await;
        if loss == "DOWN" {
            let status = agent.ask(&["status"]).unwrap();
            assert!(status.contains("20") || status.contains("4 of 5"), "the loss is told: {status}");
        }
    }
}

#[tokio::test]
async fn case_30_a_tls_server_that_never_speaks_delays_nobody_else() {
    // Accepts in the kernel and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("up"), "").unwrap();
    let services = format!(
        "[services.mute]\nprefixes.bgp = ['192.0.2.1']\nchecks.tls_certificate = [{{ remote = {{ host = '{}', \
         insecure = true }}, timeout = '20s', interval = '100ms' }}]\n\
         [services.quick]\nprefixes.bgp = ['192.0.2.2']\nchecks.file = [{{ path = '{{DIR}}/up', interval = '100ms' }}]\n",
        silent.local_addr().unwrap()
    );
    let began = Instant::now();
    let agent = Agent::start(folder.path(), &file(&folder, &services));
    for _ in 0..3 {
        state(&agent, "UP         quick").await;
        std::fs::remove_file(folder.path().join("up")).unwrap();
        state(&agent, "DOWN       quick").await;
        std::fs::write(folder.path().join("up"), "").unwrap();
    }
    // All of that while the first run of the other check was still waiting, which then fails at its own limit.
    if began.elapsed() < Duration::from_secs(18) {
        assert_eq!(agent.logged("check fails"), 3, "only the quick one so far: {}", agent.log());
    }
    state(&agent, "DOWN       mute").await;
    assert!(began.elapsed() >= Duration::from_secs(20));
    assert!(agent.log().contains("not done within 20s"), "{}", agent.log());
}
