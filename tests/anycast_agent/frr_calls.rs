//! What the agent asks of `vtysh`, call by call: no more than it must, in good time, and in spite of a `vtysh` that hangs
//! or of somebody else who changes FRR meanwhile.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Agent;
use crate::bgp_lab::{FRR, Lab, asn, until, within};
use crate::frr::{Cabourotte, cabourotte, executable, file, frr, networks};

/// A `vtysh` for this lab's FRR that notes time and arguments of each call in `calls`. While `race` is there somebody
/// else removes a prefix between our look and our command.
fn noting(lab: &Lab) -> String {
    let (calls, race, name) = (lab.path("calls"), lab.path("race"), lab.frr_name());
    let router = format!("router bgp {} vrf red", asn(FRR));
    let script = format!(
        "#!/bin/sh\necho \"$(date +%s.%N) $*\" >> {calls}\ncase \"$*\" in *'no network 203.0.113.54/32'*)\n\
         [ -e {race} ] && rm {race} && vtysh -N {name} -c configure -c '{router}' \
         -c 'address-family ipv4 unicast' -c 'no network 203.0.113.54/32';;\nesac\nexec vtysh -N {name} \"$@\"\n"
    );
    executable(lab, "noting.sh", &script)
}

/// The calls so far that changed something, each with its time.
fn changes(lab: &Lab) -> Vec<(f64, String)> {
    let text = lab.log("calls");
    let calls = text.lines().filter_map(|line| line.split_once(' '));
    let changing = calls.filter(|(_, words)| words.contains("configure terminal"));
    changing.map(|(time, words)| (time.parse().unwrap(), words.to_owned())).collect()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The agent on the predecessor's file of two services and three prefixes, all announced.
async fn started(lab: &Lab, cabourotte: &Cabourotte, vtysh: &str) -> Agent {
    let path = file(lab, &cabourotte.url, vtysh);
    let agent = Agent::start_with(lab.dir.path(), &["run"], &[("CONFIG", &path), ("LOG_FORMAT", "logfmt")]);
    until("announced", async || networks(lab).len() == 3).await;
    agent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_01_and_03_each_prefix_is_one_statement_in_its_place_and_then_there_is_silence() {
    let Some(lab) = frr() else { return };
    let cabourotte = cabourotte().await;
    let agent = started(&lab, &cabourotte, &noting(&lab)).await;
    let all: String = changes(&lab).iter().map(|(_, words)| format!("{words} ")).collect();
    let (router, vrf) =
        (format!("router bgp {} -c ", asn(FRR)), format!("router bgp {} vrf red -c ", asn(FRR)));
    for (place, prefix) in [
        (format!("{router}address-family ipv4 unicast"), "203.0.113.53/32"),
        (format!("{router}address-family ipv6 unicast"), "2001:db8::53/128"),
        (format!("{vrf}address-family ipv4 unicast"), "203.0.113.54/32"),
    ] {
        assert_eq!(all.matches(&format!(" network {prefix} ")).count(), 1, "{prefix} once: {all}");
        assert!(all.contains(&format!("{place} -c network {prefix} ")), "{prefix} in {place}: {all}");
    }
    // A minute of the predecessor's beat is twelve checks; and three comparisons of what is and what should be.
    let (before, asked, calls) = (changes(&lab).len(), cabourotte.asked(), lab.log("calls").lines().count());
    until("twelve checks of each service and three looks at FRR", async || {
        cabourotte.asked() >= asked + 24 && lab.log("calls").lines().count() >= calls + 3
    })
    .await;
    assert_eq!(changes(&lab).len(), before, "{:?}", changes(&lab));
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_02_a_result_that_turns_false_is_withdrawn_within_its_interval_and_half_a_second() {
    let Some(lab) = frr() else { return };
    let cabourotte = cabourotte().await;
    let agent = started(&lab, &cabourotte, &noting(&lab)).await;
    let mut taken = Vec::new();
    // The interval is 0.2 s. A machine that is busy with other things may be late, but not every time.
    for _ in 0..10 {
        let flipped = now();
        cabourotte.healthy.store(false, Ordering::SeqCst);
        until("withdrawn", async || networks(&lab).is_empty()).await;
        let commands = changes(&lab);
        let last = ["203.0.113.53/32", "2001:db8::53/128", "203.0.113.54/32"].map(|prefix| {
            let statement = format!("no network {prefix}");
            commands.iter().filter(|(_, words)| words.contains(&statement)).map(|(time, _)| *time).next_back()
        });
        taken.push(last.into_iter().map(|time| time.unwrap() - flipped).fold(0.0, f64::max));
        if taken.last().is_some_and(|seconds| *seconds <= 0.7) {
            println!("withdrawn after {taken:?} s");
            drop(agent);
            return;
        }
        cabourotte.healthy.store(true, Ordering::SeqCst);
        until("announced", async || networks(&lab).len() == 3).await;
    }
    panic!("never within 0.7 s: {taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_04_a_statement_that_somebody_else_removes_under_our_hands_is_a_warning() {
    let Some(lab) = frr() else { return };
    let cabourotte = cabourotte().await;
    let agent = started(&lab, &cabourotte, &noting(&lab)).await;
    lab.file("race", "");
    cabourotte.healthy.store(false, Ordering::SeqCst);
    until("withdrawn", async || networks(&lab).is_empty()).await;
    assert!(!std::path::Path::new(&lab.path("race")).exists(), "it was removed under our hands");
    until("told", async || agent.logged("Can't find static route") > 0).await;
    let log = agent.log();
    let told = log.lines().filter(|line| line.contains("Can't find static route"));
    assert!(told.clone().all(|line| line.to_lowercase().contains("level=warn")), "{log}");
    let (code, log) = agent.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.to_lowercase().contains("level=error"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_05_a_vtysh_that_sleeps_is_killed_and_called_again_and_the_other_service_is_untouched() {
    let Some(lab) = frr() else { return };
    let cabourotte = cabourotte().await;
    let (good, survived) = (noting(&lab), lab.path("survived"));
    let sleepy = format!(
        "#!/bin/sh\nif [ -e {0} ]; then echo x >> {1}; sleep 5; touch {survived}; fi\nexec vtysh -N {2} \"$@\"\n",
        lab.path("sleepy"),
        lab.path("slept"),
        lab.frr_name()
    );
    let bad = executable(&lab, "sleepy.sh", &sleepy);
    let path = file(&lab, &cabourotte.url, &good);
    // The second service goes through the vtysh that sleeps.
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, tail) = text.split_once("[services.ntp]").unwrap();
    lab.file("config.toml", &format!("{head}[services.ntp]{}", tail.replace(&good, &bad)));
    lab.file("sleepy", "");
    let agent = Agent::start(lab.dir.path(), &path);
    until("the other service is announced", async || networks(&lab).len() == 2).await;
    until("killed and called again", async || lab.log("slept").lines().count() >= 2).await;
    // The other one comes and goes as ever.
    cabourotte.healthy.store(false, Ordering::SeqCst);
    until("withdrawn", async || networks(&lab).is_empty()).await;
    cabourotte.healthy.store(true, Ordering::SeqCst);
    until("announced", async || networks(&lab).len() == 2).await;
    let first = agent.log().contains("did not end within 1.5s and was killed");
    assert!(first, "the first limit is the predecessor's: {}", agent.log());
    std::fs::remove_file(lab.path("sleepy")).unwrap();
    until("announced at last", async || networks(&lab).len() == 3).await;
    let (code, log) = agent.stop();
    assert_eq!((code, networks(&lab)), (Some(0), Vec::new()), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_09_a_prefix_without_its_route_is_explained_in_the_status_and_heals() {
    let Some(lab) = frr() else { return };
    let router = format!("router bgp {}", asn(FRR));
    lab.vtysh(&["configure terminal", &router, "bgp network import-check"]).unwrap();
    let cabourotte = cabourotte().await;
    let agent = started(&lab, &cabourotte, &noting(&lab)).await;
    let words = "configured, not advertised: no RIB route";
    let said = || agent.ask(&["explain", "203.0.113.53"]).unwrap_or_default();
    until("explained", async || said().contains(words)).await;
    assert!(agent.ask(&["status"]).unwrap().contains(words), "{}", agent.ask(&["status"]).unwrap());
    lab.inside(&["ip", "addr", "add", "203.0.113.53/32", "dev", "lo"]).unwrap();
    let healed = within(Duration::from_secs(45), async || !said().contains(words)).await;
    assert!(healed, "{}", said());
    until("FRR uses it", async || lab.frr_route("203.0.113.53/32")["valid"] == true).await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_07_what_a_crash_left_goes_even_when_the_file_no_longer_names_it_and_a_strangers_stays() {
    let Some(lab) = frr() else { return };
    crate::frr::network(&lab, "network 198.51.100.0/24");
    let cabourotte = cabourotte().await;
    let path = file(&lab, &cabourotte.url, &noting(&lab));
    let folder = lab.dir.path().to_owned();
    let agent = Agent::start(&folder, &path);
    until("announced", async || networks(&lab).len() == 4).await;
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    drop(agent);
    assert_eq!(networks(&lab).len(), 4, "what a crash leaves");
    // Somebody edits the file before the next start: one service is gone, the other has another prefix.
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, _) = text.split_once("[services.ntp]").unwrap();
    lab.file("config.toml", &head.replace("203.0.113.53", "203.0.113.63"));
    let agent = Agent::start(&folder, &path);
    let mut wanted = ["network 198.51.100.0/24", "network 203.0.113.63/32", "network 2001:db8::53/128"];
    wanted.sort_unstable();
    until("only what the file names, and the stranger's", async || {
        let mut found = networks(&lab);
        found.sort_unstable();
        found == wanted
    })
    .await;
    // Whoever takes over a prefix that was ours and is withdrawn keeps it.
    crate::frr::network(&lab, "network 203.0.113.53/32");
    let calls = lab.log("calls").lines().count();
    until("three more looks at FRR", async || lab.log("calls").lines().count() >= calls + 6).await;
    assert!(networks(&lab).contains(&"network 203.0.113.53/32".to_owned()), "{:?}", networks(&lab));
    let (code, log) = agent.stop();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(networks(&lab), ["network 198.51.100.0/24", "network 203.0.113.53/32"]);
}
