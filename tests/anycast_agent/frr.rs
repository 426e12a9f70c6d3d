//! The Python predecessor's file with FRRouting behind `vtysh`, and a Cabourotte of ours behind its checks.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::Agent;
use crate::bgp_lab::daemons::Peering;
use crate::bgp_lab::{FRR, Lab, asn, until};
use crate::own_speaker::OUR_ASN;

/// A program that takes the place of `vtysh` for the FRR of this lab. It fails while the file `broken` is there.
pub fn wrapper(lab: &Lab) -> String {
    let script = format!(
        "#!/bin/sh\n[ -e {} ] && echo broken >&2 && exit 1\nexec vtysh -N {} \"$@\"\n",
        lab.path("broken"),
        lab.frr_name()
    );
    executable(lab, "vtysh.sh", &script)
}

/// A script in the lab's folder.
pub fn executable(lab: &Lab, name: &str, script: &str) -> String {
    let path = lab.file(name, script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A statement in FRR's IPv4 address family.
pub fn network(lab: &Lab, statement: &str) {
    let router = format!("router bgp {}", asn(FRR));
    lab.vtysh(&["configure terminal", &router, "address-family ipv4 unicast", statement]).unwrap();
}

pub fn networks(lab: &Lab) -> Vec<String> {
    let text = lab.vtysh(&["show running-config bgpd"]).unwrap_or_default();
    text.lines().filter(|l| l.trim().starts_with("network")).map(|l| l.trim().to_owned()).collect()
}

/// A Cabourotte that answers every check with what the flag says.
pub struct Cabourotte {
    pub url: String,
    pub healthy: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Cabourotte {
    /// How many requests there were.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub async fn cabourotte() -> Cabourotte {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (healthy, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (flag, count) = (Arc::clone(&healthy), Arc::clone(&asked));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
            let success = flag.load(Ordering::SeqCst);
            let body = format!(
                r#"{{"name":"dns","summary":"s","success":{success},"healthcheck-timestamp":{now},"message":"m","duration":3,"source":"configuration"}}"#
            );
            let mut buffer = [0_u8; 4096];
            let _ = stream.read(&mut buffer).await;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    Cabourotte { url: format!("http://{address}"), healthy, asked }
}

/// The predecessor's file: two services, three prefixes of both families, one of them in a VRF.
pub fn file(lab: &Lab, url: &str, vtysh: &str) -> String {
    let text = format!(
        "reconcile_interval = 1\n\
         [services.dns]\n\
         prefixes.frrouting = [{{ prefix = \"203.0.113.53\", vtysh = \"{vtysh}\" }}, {{ prefix = \"2001:db8::53\", vtysh = \"{vtysh}\" }}]\n\
         checks.cabourotte = [{{ name = \"dns\", url = \"{url}\", interval = 0.2 }}]\n\
         [services.ntp]\n\
         prefixes.frrouting = [{{ prefix = \"203.0.113.54\", vrf = \"red\", vtysh = \"{vtysh}\" }}]\n\
         checks.cabourotte = [{{ name = \"ntp\", url = \"{url}\", interval = 0.2 }}]\n"
    );
    lab.file("config.toml", &text)
}

const ALL: [&str; 3] = ["network 203.0.113.53/32", "network 2001:db8::53/128", "network 203.0.113.54/32"];

pub fn frr() -> Option<Lab> {
    let mut lab = Lab::new(&["bgpd", "zebra", "vtysh", "setpriv"])?;
    let globals = format!("router bgp {} vrf red\n", asn(FRR));
    lab.start_frr(&Peering { globals, ..Peering::with(OUR_ASN) }, &["zebra", "bgpd"]);
    Some(lab)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_02_06_and_07_from_the_python_predecessors_toml_to_frr_and_back() {
    let Some(mut lab) = frr() else { return };
    let Cabourotte { url, healthy, .. } = cabourotte().await;
    let path = file(&lab, &url, &wrapper(&lab));
    let folder = lab.dir.path().to_owned();
    let agent = Agent::start_with(&folder, &["run"], &[("CONFIG", &path), ("LOG_FORMAT", "logfmt")]);
    until("announced", async || networks(&lab) == ALL).await;
    healthy.store(false, Ordering::SeqCst);
    until("withdrawn", async || networks(&lab).is_empty()).await;
    until("logged", async || agent.logged("event=withdrawn") == 3).await;
    let log = agent.log();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text} in {log}"));
    assert!(at("to=DOWN") < at("event=withdrawn"), "the state is logged before the command");
    healthy.store(true, Ordering::SeqCst);
    until("announced", async || networks(&lab) == ALL).await;
    // bgpd restarts with an empty configuration: the prefixes come back without a flap.
    lab.kill("bgpd");
    lab.start_frr_daemon("bgpd");
    let name = lab.frr_name();
    let (router, vrf) = (format!("router bgp {}", asn(FRR)), format!("router bgp {} vrf red", asn(FRR)));
    until("bgpd is back", async || {
        crate::bgp_lab::run("vtysh", &["-N", &name, "-c", "configure", "-c", &router, "-c", &vrf]).is_ok()
    })
    .await;
    until("announced again", async || {
        let mut found = networks(&lab);
        found.sort();
        let mut all = ALL.map(str::to_owned).to_vec();
        all.sort();
        found == all
    })
    .await;
    assert_eq!(agent.logged("to=DOWN"), 2, "each service fell once, before bgpd restarted");
    // A crash leaves the statements; the next start removes them while the checks fail.
    agent.signal(Signal::SIGKILL);
    drop(agent);
    assert_eq!(networks(&lab).len(), 3, "what a crash leaves");
    healthy.store(false, Ordering::SeqCst);
    let agent = Agent::start(&folder, &path);
    until("the stale prefixes go", async || networks(&lab).is_empty()).await;
    // Before there was a verdict, and so before its window ended.
    until("told", async || agent.logged("service dns no verdict yet") == 2).await;
    healthy.store(true, Ordering::SeqCst);
    until("announced", async || networks(&lab).len() == 3).await;
    let (code, log) = agent.stop();
    assert_eq!((code, networks(&lab)), (Some(0), Vec::new()), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_08_a_hundred_ends_by_sigterm_withdraw_everything_and_a_failing_vtysh_is_no_success() {
    let Some(lab) = frr() else { return };
    let url = cabourotte().await.url;
    let path = file(&lab, &url, &wrapper(&lab));
    let began = std::time::Instant::now();
    let mut ends = 0;
    while ends < 100 {
        let agent = Agent::start(lab.dir.path(), &path);
        // Sometimes in the middle of announcing, sometimes after it.
        if ends % 4 != 3 {
            until("announced", async || networks(&lab).len() == 3).await;
        } else {
            until("it works", async || agent.log().matches("changing FRR").count() > 0).await;
        }
        let (code, log) = agent.stop();
        assert_eq!((code, networks(&lab)), (Some(0), Vec::new()), "end {ends}: {log}");
        std::fs::remove_file(lab.path("agent.log")).unwrap();
        ends += 1;
    }
    println!("{ends} of {ends} ends withdrew everything, {:?} each", began.elapsed() / ends);
    let text = std::fs::read_to_string(&path).unwrap();
    lab.file("config.toml", &format!("shutdown = {{ limit = 2 }}\n{text}"));
    let agent = Agent::start(lab.dir.path(), &path);
    until("announced", async || networks(&lab).len() == 3).await;
    lab.file("broken", "");
    let (code, log) = agent.stop();
    assert_eq!(code, Some(1), "{log}");
    for prefix in ["203.0.113.53/32", "2001:db8::53/128", "203.0.113.54/32 vrf red"] {
        let told = log.lines().any(|line| line.contains("routes that may remain") && line.contains(prefix));
        assert!(told, "{prefix} in {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let Some(lab) = frr() else { return };
    let url = cabourotte().await.url;
    let path = file(&lab, &url, &wrapper(&lab));
    let text = std::fs::read_to_string(&path).unwrap();
    lab.file("config.toml", &format!("shutdown = {{ drain_delay = 600 }}\n{text}"));
    let mut agent = Agent::start(lab.dir.path(), &path);
    until("announced", async || networks(&lab).len() == 3).await;
    agent.signal(Signal::SIGINT);
    until("it drains", async || agent.log().contains("graceful shutdown")).await;
    agent.signal(Signal::SIGINT);
    assert_eq!(agent.end().code(), Some(1));
    assert!(agent.log().contains("routes may remain"), "{}", agent.log());
}
