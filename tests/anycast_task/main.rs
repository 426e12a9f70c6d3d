//! The `anycast` task as a whole, with an announcer that only remembers: what is announced when, and what survives.

#![allow(clippy::unwrap_used, reason = "a test that panics says what it is about")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use switchover_agent::announce::recorder::{Call, Recording};
use switchover_agent::announce::{Announcer, PrefixKey, Recorder, Shutdown};
use switchover_agent::checks::trust::Trust;
use switchover_agent::config::anycast::{AnnouncerRef, Anycast, parse};
use switchover_agent::tasks::Exit;
use switchover_agent::tasks::anycast::command::{self, What};
use switchover_agent::tasks::anycast::neighbours::{Neighbour, NeighbourMetrics};
use switchover_agent::tasks::anycast::{Control, Running, Setup, StartError, socket, start};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod lifecycle;
mod strategies;

struct Lab {
    folder: tempfile::TempDir,
    recording: Recording,
    registry: Arc<prometheus::Registry>,
    control: Control,
    cancel: CancellationToken,
    task: JoinHandle<Exit>,
}

/// Services whose one check is a file in a folder: `text` may name it as `{DIR}`.
fn config(folder: &Path, text: &str) -> Anycast {
    parse(&text.replace("{DIR}", &folder.display().to_string())).unwrap_or_else(|error| panic!("{error}"))
}

fn setup(config: Anycast, recorder: Recorder) -> Setup {
    let mut announcers: BTreeMap<AnnouncerRef, Box<dyn Announcer>> = BTreeMap::new();
    let which = config.announcers().pop_first().unwrap_or(AnnouncerRef::Bgp);
    announcers.insert(which, Box::new(recorder));
    let registry = Arc::new(prometheus::Registry::new());
    Setup { config, announcers, trust: Trust::nobody(), registry, socket: None }
}

impl Lab {
    fn start(text: &str, files: &[&str]) -> Self {
        Self::start_with(text, files, |_| {})
    }

    fn start_with(text: &str, files: &[&str], prepare: impl FnOnce(&Recording)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        let (recorder, recording) = Recorder::new();
        prepare(&recording);
        let setup = setup(config(folder.path(), text), recorder);
        let (registry, cancel) = (Arc::clone(&setup.registry), CancellationToken::new());
        let Running { control, task } = start(setup, cancel.clone()).unwrap();
        Self { folder, recording, registry, control, cancel, task }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn put(&self, file: &str) {
        std::fs::write(self.path(file), "").unwrap();
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.path(file)).unwrap();
    }

    async fn announced(&self, want: &[&str]) {
        until(&format!("{want:?} announced"), || self.recording.prefixes() == want).await;
    }

    async fn state(&self, service: &str, want: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.control.status().await.unwrap();
            let found = status.services.iter().find(|one| one.name == service).unwrap();
            if found.state == want {
                return;
            }
            assert!(Instant::now() < deadline, "{service} is {}, not {want}", found.state);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics().lines().any(|found| found == line)
    }

    fn metrics(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }

    async fn stop(self) -> (Exit, Recording) {
        self.cancel.cancel();
        (self.task.await.unwrap(), self.recording)
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets at least so many runs of a service's first check pass.
async fn runs(lab: &Lab, service: &str, check: &str, count: f64) {
    let total = |lab: &Lab| -> f64 {
        let start = format!("anycastd_check_runs_total{{check=\"{check}\",");
        let of_service = format!("service=\"{service}\"");
        let text = lab.metrics();
        let lines = text.lines().filter(|line| line.starts_with(&start) && line.contains(&of_service));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let before = total(lab);
    until("enough runs", || total(lab) >= before + count).await;
}

const TWO: &str = r#"
[services.a]
prefixes.frrouting = ["192.0.2.1", "2001:db8::1"]
checks.file = [{ path = "{DIR}/a", interval = "50ms", fast_interval = "20ms" }]
[services.b]
prefixes.frrouting = [{ prefix = "192.0.2.2", vrf = "EDGE" }]
checks.file = [{ path = "{DIR}/b", interval = "50ms", fast_interval = "20ms" }]
"#;

const ALL: [&str; 3] = ["192.0.2.1/32", "192.0.2.2/32 vrf EDGE", "2001:db8::1/128"];

#[tokio::test]
async fn case_2_a_failed_check_withdraws_every_prefix_of_its_service() {
    let lab = Lab::start(TWO, &["a", "b"]);
    lab.announced(&ALL).await;
    lab.remove("a");
    lab.announced(&["192.0.2.2/32 vrf EDGE"]).await;
    lab.put("a");
    lab.announced(&ALL).await;
}

#[tokio::test]
async fn case_3_nothing_is_sent_while_nothing_changes() {
    let lab = Lab::start(TWO, &["a", "b"]);
    lab.announced(&ALL).await;
    let (calls, sets) = (lab.recording.calls().len(), lab.recording.sets());
    runs(&lab, "a", "file", 20.0).await;
    assert_eq!((lab.recording.calls().len(), lab.recording.sets()), (calls, sets));
}

#[tokio::test]
async fn case_5_a_failed_call_is_repeated_and_nothing_else_suffers() {
    let lab = Lab::start_with(TWO, &["a", "b"], |recording| recording.fail_next(3));
    lab.announced(&ALL).await;
    lab.recording.fail_next(2);
    lab.remove("b");
    lab.announced(&["192.0.2.1/32", "2001:db8::1/128"]).await;
    assert!(lab.metric("anycastd_withdraw_failures_total{announcer=\"recorder\"} 5"), "{}", lab.metrics());
}

#[tokio::test]
async fn case_6_routes_that_the_router_lost_come_back_without_a_flap() {
    let lab = Lab::start(&format!("reconcile_interval = \"100ms\"\n{TWO}"), &["a", "b"]);
    lab.announced(&ALL).await;
    lab.recording.forget_routes();
    lab.announced(&ALL).await;
    assert!(
        lab.metric("anycastd_service_flaps{service=\"a\"} 0")
            || !lab.metrics().contains("flaps{service=\"a\"} 1")
    );
}

fn stale() -> PrefixKey {
    PrefixKey { prefix: "192.0.2.1/32".parse().unwrap(), vrf: None }
}

const GO: &str = r#"
announcer:
  router_id: 10.0.0.1
  local_address: 10.0.0.1
  local_asn: 65000
  routes: []
  peers: [{ name: p, remote_address: 10.0.0.2, remote_asn: 65001 }]
services:
  - { name: a, check_interval: 50ms, prefixes: ["192.0.2.1/32"], checks: [{ kind: file, spec: { path: "{DIR}/a" } }] }
  - { name: b, check_interval: 50ms, prefixes: ["192.0.2.2/32"], checks: [{ kind: file, spec: { path: "{DIR}/b" } }] }
metrics: { enabled: false }
"#;

#[tokio::test]
async fn case_33_one_services_failure_leaves_the_others_prefixes() {
    let lab = Lab::start(GO, &["a", "b"]);
    lab.announced(&["192.0.2.1/32", "192.0.2.2/32"]).await;
    lab.remove("a");
    lab.announced(&["192.0.2.2/32"]).await;
    runs(&lab, "b", "file", 5.0).await;
    assert_eq!(lab.recording.prefixes(), ["192.0.2.2/32"]);
}

#[tokio::test]
async fn a_prefix_that_two_services_share_is_up_while_both_are_or_any_where_configured() {
    let shared = TWO.replace("{ prefix = \"192.0.2.2\", vrf = \"EDGE\" }", "\"192.0.2.1\"");
    let lab = Lab::start(&shared, &["a", "b"]);
    lab.announced(&["192.0.2.1/32", "2001:db8::1/128"]).await;
    lab.remove("b");
    lab.announced(&["2001:db8::1/128"]).await;
    let any = shared.replace("prefixes.frrouting", "sharing = \"any\"\nprefixes.frrouting");
    let lab = Lab::start(&any, &["b"]);
    lab.announced(&["192.0.2.1/32"]).await;
}

#[tokio::test]
async fn case_40_a_flapping_check_moves_little_with_rise_fall_and_hold_down() {
    let text = r#"
[services.a]
prefixes.frrouting = ["192.0.2.1"]
damping = { hold = "1h", cap = "2h" }
checks.file = [{ path = "{DIR}/a", interval = "50ms", fast_interval = "10ms", rise = 3, fall = 3 }]
"#;
    let lab = Lab::start(text, &["a"]);
    lab.announced(&["192.0.2.1/32"]).await;
    for _ in 0..20 {
        lab.remove("a");
        runs(&lab, "a", "file", 4.0).await;
        lab.put("a");
        runs(&lab, "a", "file", 4.0).await;
    }
    let moves = lab.recording.calls().len();
    assert!(moves <= 2, "one announcement and one withdrawal, then held down: {:?}", lab.recording.calls());
    assert!(lab.metric("anycastd_service_flaps{service=\"a\"} 1"), "{}", lab.metrics());
    let status = lab.control.status().await.unwrap();
    assert!(status.services[0].held_for_ms.is_some());
}

#[tokio::test]
async fn case_40_a_thousand_flips_in_a_row_are_at_most_five_changes_of_a_route() {
    let text = r#"
[services.a]
prefixes.frrouting = ["192.0.2.1"]
damping = { hold = "1h", cap = "2h" }
checks.file = [{ path = "{DIR}/a", interval = "50ms", fast_interval = "10ms", rise = 3, fall = 3 }]
"#;
    let lab = Lab::start(text, &["a"]);
    lab.announced(&["192.0.2.1/32"]).await;
    // Of every length, so that some outlast rise and fall and some do not.
    for flip in 0..1_000_u64 {
        if flip % 2 == 0 {
            lab.remove("a")
        } else {
            lab.put("a")
        }
        tokio::time::sleep(Duration::from_millis(flip % 7)).await;
    }
    for _ in 0..10 {
        lab.remove("a");
        runs(&lab, "a", "file", 5.0).await;
        lab.put("a");
        runs(&lab, "a", "file", 5.0).await;
    }
    let calls = lab.recording.calls();
    assert!((2..=5).contains(&calls.len()), "{} changes: {calls:?}", calls.len());
}

#[tokio::test]
async fn an_end_does_not_wait_for_a_call_that_hangs() {
    let lab = Lab::start_with(TWO, &["a", "b"], |recording| recording.hang_next());
    until("it hangs", || lab.recording.sets() > 0).await;
    let began = Instant::now();
    let (exit, recording) = lab.stop().await;
    assert_eq!((exit, recording.prefixes().len()), (Exit::Cancelled, 0));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_drain_marks_then_withdraws_and_an_undrain_brings_back() {
    let lab = Lab::start(&TWO.replace("[services.a]", "[services.a]\ndrain_delay = \"300ms\""), &["a", "b"]);
    lab.announced(&ALL).await;
    lab.control.drain("a", None).await.unwrap();
    let marked =
        |lab: &Lab| lab.recording.routes().get(&stale()).is_some_and(|route| route.graceful_shutdown);
    until("marked", || marked(&lab)).await;
    lab.announced(&["192.0.2.2/32 vrf EDGE"]).await;
    lab.state("a", "DRAINING").await;
    lab.control.undrain("a").await.unwrap();
    lab.announced(&ALL).await;
    assert!(!marked(&lab));
    lab.control.drain("b", Some(Duration::from_millis(300))).await.unwrap();
    lab.announced(&["192.0.2.1/32", "2001:db8::1/128"]).await;
    lab.announced(&ALL).await;
    let error = lab.control.drain("x", None).await.unwrap_err().to_string();
    assert_eq!(error, "there is no service \"x\"; there are a, b");
}

#[tokio::test]
async fn a_disable_file_takes_a_service_out_or_makes_it_worse() {
    let text = TWO.replace(
        "[services.a]",
        "[services.a]\ndisable_file = \"{DIR}/off\"\ndisabled_attributes = { med = 500 }",
    );
    let text = text.replace("[services.b]", "[services.b]\ndisable_file = \"{DIR}/off\"");
    let lab = Lab::start(&text, &["a", "b"]);
    lab.announced(&ALL).await;
    lab.put("off");
    lab.announced(&["192.0.2.1/32", "2001:db8::1/128"]).await;
    until("worse", || lab.recording.routes()[&stale()].med == Some(500)).await;
    lab.state("b", "DISABLED").await;
    lab.remove("off");
    lab.announced(&ALL).await;
}

#[tokio::test]
async fn fail_open_keeps_routes_with_worse_attributes_when_everything_fails_at_once() {
    let text = format!("fail_open = {{ min_healthy_percent = 50 }}\n{TWO}");
    let text = text.replace("]\nprefixes", "]\nfail_open = true\nprefixes");
    let lab = Lab::start(&text, &["a", "b"]);
    lab.announced(&ALL).await;
    lab.remove("a");
    lab.state("a", "DOWN").await;
    lab.announced(&["192.0.2.2/32 vrf EDGE"]).await;
    lab.remove("b");
    lab.state("b", "DOWN").await;
    until("worse", || lab.recording.routes().values().all(|route| route.as_path_prepend == 3)).await;
    assert_eq!(lab.recording.prefixes(), ["192.0.2.2/32 vrf EDGE"]);
}

#[tokio::test]
async fn a_check_that_cannot_be_done_makes_its_service_unknown_and_its_routes_go() {
    let text = r#"
[services.a]
prefixes.frrouting = ["192.0.2.1"]
unknown_after = "300ms"
checks.command = [{ command = "{DIR}/tool", interval = "50ms", rise = 1 }]
"#;
    let lab = Lab::start(text, &[]);
    let tool = lab.path("tool");
    std::os::unix::fs::symlink("/bin/true", &tool).unwrap();
    lab.announced(&["192.0.2.1/32"]).await;
    std::fs::remove_file(&tool).unwrap();
    lab.announced(&[]).await;
    lab.state("a", "UNKNOWN").await;
}

#[tokio::test]
async fn a_process_that_ends_withdraws_without_waiting_for_the_next_poll() {
    let text = r#"
[services.a]
prefixes.frrouting = ["192.0.2.1"]
checks.process = [{ pid_file = "{DIR}/pid", interval = "1h", rise = 1 }]
"#;
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(folder.path().join("pid"), child.id().to_string()).unwrap();
    let (recorder, recording) = Recorder::new();
    let running = start(setup(config(folder.path(), text), recorder), CancellationToken::new()).unwrap();
    until("announced", || !recording.prefixes().is_empty()).await;
    child.kill().unwrap();
    until("withdrawn", || recording.prefixes().is_empty()).await;
    child.wait().unwrap();
    running.task.abort();
}

#[tokio::test]
async fn a_reset_connection_withdraws_without_waiting_for_the_next_poll() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "[services.a]\nprefixes.frrouting = [\"192.0.2.1\"]\nchecks.tcp = [{{ target = \"{}\", hold = true, interval = \"1h\", rise = 1 }}]\n",
        listener.local_addr().unwrap()
    );
    let lab = Lab::start(&text, &[]);
    let (stream, _) = listener.accept().await.unwrap();
    lab.announced(&["192.0.2.1/32"]).await;
    drop((stream, listener));
    lab.announced(&[]).await;
}
