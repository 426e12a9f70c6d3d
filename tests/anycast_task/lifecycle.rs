//! Start, stop, reload, metrics, command line.

use super::*;

#[tokio::test]
async fn case_7_routes_that_a_crash_left_are_withdrawn_when_checks_fail() {
    let lab = Lab::start_with(TWO, &[], |recording| recording.leave_behind(stale()));
    until("the stale route is gone", || lab.recording.prefixes().is_empty()).await;
}

#[tokio::test]
async fn case_7_routes_of_a_restart_in_place_stay_until_there_is_a_verdict() {
    let text = format!(
        "on_start = \"keep-until-verdict\"\n{}",
        TWO.replace("fast_interval", "rise = 4, fast_interval")
    );
    let lab = Lab::start_with(&text, &["a", "b"], |recording| recording.leave_behind(stale()));
    lab.announced(&ALL).await;
    let withdrawn = lab
        .recording
        .calls()
        .iter()
        .any(|call| matches!(call, Call::Set { changes, .. } if !changes.withdrawn.is_empty()));
    assert!(!withdrawn, "{:?}", lab.recording.calls());
}

#[tokio::test]
async fn case_8_a_hundred_stops_withdraw_everything_a_hundred_times() {
    for _ in 0..100 {
        let lab = Lab::start(TWO, &["a", "b"]);
        lab.announced(&ALL).await;
        let (exit, recording) = lab.stop().await;
        assert_eq!(exit, Exit::Cancelled);
        assert!(recording.prefixes().is_empty());
        assert!(matches!(recording.calls().last(), Some(Call::Shutdown(Shutdown::Withdraw { .. }))));
    }
}

#[tokio::test]
async fn case_8_a_withdrawal_that_fails_names_what_may_remain() {
    let lab = Lab::start(&format!("shutdown = {{ limit = \"300ms\" }}\n{TWO}"), &["a", "b"]);
    lab.announced(&ALL).await;
    lab.recording.fail_next(1000);
    let (exit, _) = lab.stop().await;
    let Exit::Failed(reason) = exit else { panic!("{exit:?}") };
    assert!(reason.starts_with("routes that may remain") && reason.contains("recorder"), "{reason}");
}

#[tokio::test]
async fn the_end_first_marks_the_routes_and_waits() {
    let lab = Lab::start(&format!("shutdown = {{ drain_delay = \"200ms\" }}\n{TWO}"), &["a", "b"]);
    lab.announced(&ALL).await;
    let (_, recording) = lab.stop().await;
    let sets: Vec<(usize, usize)> = recording
        .calls()
        .iter()
        .filter_map(|call| match call {
            Call::Set { changes, .. } => Some((changes.updated.len(), changes.withdrawn.len())),
            _ => None,
        })
        .collect();
    assert_eq!(sets[sets.len() - 2..], [(3, 0), (0, 3)]);
}

#[tokio::test]
async fn routes_are_left_where_the_file_says_so() {
    let lab = Lab::start(&format!("shutdown = {{ routes = \"keep\" }}\n{TWO}"), &["a", "b"]);
    lab.announced(&ALL).await;
    let (exit, recording) = lab.stop().await;
    assert_eq!((exit, recording.prefixes().len()), (Exit::Cancelled, 3));
}

#[tokio::test]
async fn case_41_every_name_of_the_predecessor_is_there_with_its_labels() {
    let ping = "    - { kind: icmp_ping, spec: { static: { host: 127.0.0.1 }, tries: 1, interval: 1ms, timeout: 20s } }\n";
    let lab = Lab::start(
        &GO.replace("{ kind: file,", &format!("{}, {{ kind: file,", ping.trim().trim_start_matches("- "))),
        &["a", "b"],
    );
    lab.announced(&["192.0.2.1/32", "192.0.2.2/32"]).await;
    let neighbours = NeighbourMetrics::register(&lab.registry).unwrap();
    let neighbour = Neighbour {
        address: "10.0.0.2".to_owned(),
        session_state: 6,
        external: true,
        ..Neighbour::default()
    };
    neighbours.set("10.0.0.1", &[neighbour]);
    let text = lab.metrics();
    for line in [
        concat!("anycastd_up{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "anycastd_service_up{service=\"a\"} 1",
        "anycastd_check_loss_percent{check=\"icmp_ping\",host=\"127.0.0.1\"} 0",
        "anycastd_gobgp_peer_count{router_id=\"10.0.0.1\"} 1",
        "anycastd_gobgp_peer_session_state{peer=\"10.0.0.2\",router_id=\"10.0.0.1\"} 6",
        "anycastd_gobgp_peer_type{peer=\"10.0.0.2\",router_id=\"10.0.0.1\"} 1",
        "anycastd_prefix_announced{announcer=\"recorder\",prefix=\"192.0.2.1/32\"} 1",
        "anycastd_service_state{service=\"a\",state=\"UP\"} 1",
        "anycastd_check_up{check=\"file\",kind=\"file\",service=\"a\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    for start in [
        "anycastd_check_duration_seconds{check=\"icmp_ping\",service=\"a\"} ",
        "anycastd_check_max_rtt_seconds{check=\"icmp_ping\",host=\"127.0.0.1\"} ",
        "anycastd_check_min_rtt_seconds{",
        "anycastd_check_avg_rtt_seconds{",
        "anycastd_check_std_dev_rtt_seconds{",
        "anycastd_check_packets_sent_total{",
        "anycastd_check_packets_received_total{",
        "anycastd_check_packets_received_duplicates_total{",
        "anycastd_gobgp_peer_admin_state{",
        "anycastd_gobgp_peer_flops_count{",
        "anycastd_gobgp_received_messages_withdraw_prefix{",
        "anycastd_gobgp_sent_messages_total{",
    ] {
        assert!(text.lines().any(|line| line.starts_with(start)), "{start} is missing in\n{text}");
    }
}

#[tokio::test]
async fn metrics_survive_a_restart_of_the_task_in_the_same_registry() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "").unwrap();
    let registry = Arc::new(prometheus::Registry::new());
    for _ in 0..2 {
        let (recorder, recording) = Recorder::new();
        let mut setup = setup(config(folder.path(), TWO), recorder);
        setup.registry = Arc::clone(&registry);
        let cancel = CancellationToken::new();
        let running = start(setup, cancel.clone()).unwrap();
        until("announced", || recording.prefixes().len() == 2).await;
        cancel.cancel();
        running.task.await.unwrap();
    }
}

#[tokio::test]
async fn case_43_a_second_agent_is_refused_with_the_holders_process_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let begin = || {
        let (recorder, _) = Recorder::new();
        let mut setup = setup(config(folder.path(), TWO), recorder);
        setup.socket = Some(path.clone());
        start(setup, CancellationToken::new())
    };
    let first = begin().unwrap();
    let Err(StartError::Socket(error)) = begin() else { panic!("a second agent runs") };
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    first.task.abort();
}

#[tokio::test]
async fn case_44_a_reload_keeps_what_did_not_change_and_a_broken_file_changes_nothing() {
    let lab = Lab::start(TWO, &["a", "b"]);
    lab.announced(&ALL).await;
    let calls = lab.recording.calls().len();
    let unbuildable = TWO.replace(
        "checks.file = [{ path = \"{DIR}/a\"",
        "checks.http = [{ url = \"http://x/\", cacert = \"/no/such\"",
    );
    let error = lab.control.reload(config(lab.folder.path(), &unbuildable)).await.unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    let elsewhere = format!(
        "bird.file = \"/x\"\n{TWO}\n[services.c]\nprefixes.bird = [\"192.0.2.9\"]\nchecks.file = [\"/\"]\n"
    );
    assert!(lab.control.reload(config(lab.folder.path(), &elsewhere)).await.is_err());
    // The same text, one interval changed: the routes stay, the state stays.
    let slower = TWO.replace("{DIR}/b\", interval = \"50ms\"", "{DIR}/b\", interval = \"60ms\"");
    let told = lab.control.reload(config(lab.folder.path(), &slower)).await.unwrap();
    assert_eq!(told, "1 services kept, 1 started, 1 ended");
    lab.state("b", "UP").await;
    runs(&lab, "b", "file", 4.0).await;
    assert_eq!(lab.recording.calls().len(), calls, "{:?}", lab.recording.calls());
    // A service that is gone takes its routes along, and a new one brings its own.
    let other = TWO.replace("[services.b]", "[services.c]").replace("192.0.2.2", "192.0.2.3");
    lab.control.reload(config(lab.folder.path(), &other)).await.unwrap();
    lab.announced(&["192.0.2.1/32", "192.0.2.3/32 vrf EDGE", "2001:db8::1/128"]).await;
    assert!(!lab.metrics().contains("service=\"b\""), "series of a service that is gone are gone");
}

#[tokio::test]
async fn case_44_a_broken_file_is_refused_whole_and_a_good_one_taken() {
    let lab = Lab::start(TWO, &["a", "b"]);
    lab.announced(&ALL).await;
    let calls = lab.recording.calls().len();
    let file = lab.path("anycast.toml");
    let dir = lab.folder.path().display().to_string();
    std::fs::write(&file, TWO.replace("{DIR}", &dir).replace("[services.b]", "[services.b")).unwrap();
    let error = lab.control.reload_file(&file).await.unwrap_err().to_string();
    assert!(error.starts_with("nothing was changed: TOML"), "{error}");
    assert!(lab.control.reload_file(&lab.path("none.toml")).await.is_err());
    std::fs::write(&file, TWO.replace("{DIR}", &dir)).unwrap();
    let told = lab.control.reload_file(&file).await.unwrap();
    assert_eq!(told, "2 services kept, 0 started, 0 ended");
    runs(&lab, "a", "file", 4.0).await;
    assert_eq!(lab.recording.calls().len(), calls);
}

#[tokio::test]
async fn the_command_line_asks_over_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "").unwrap();
    let path = folder.path().join("run/control.sock");
    let (recorder, recording) = Recorder::new();
    let mut setup = setup(config(folder.path(), TWO), recorder);
    setup.socket = Some(path.clone());
    let cancel = CancellationToken::new();
    let running = start(setup, cancel.clone()).unwrap();
    until("announced", || recording.prefixes().len() == 2).await;
    let status = command::ask(&path, &What::Status, false).await.unwrap();
    assert!(status.contains("UP         a for"), "{status}");
    assert!(status.contains("announced  192.0.2.1/32 by frr: service a up"), "{status}");
    let explain = What::Explain { prefix: "192.0.2.2".to_owned() };
    let why = command::ask(&path, &explain, false).await.unwrap();
    assert!(why.contains("192.0.2.2/32 vrf EDGE by frr: service b"), "{why}");
    assert!(why.contains("b is not there"), "{why}");
    let unknown = What::Explain { prefix: "192.0.2.77".to_owned() };
    assert!(command::ask(&path, &unknown, false).await.unwrap_err().contains("never announced"));
    let check = What::Check { name: "b".to_owned() };
    assert_eq!(command::ask(&path, &check, false).await.unwrap(), "1 checks of b run now\n");
    let drain = What::Drain { name: "a".to_owned(), how_long: None };
    command::ask(&path, &drain, false).await.unwrap();
    until("drained", || recording.prefixes().is_empty()).await;
    let json = command::ask(&path, &What::Status, true).await.unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["services"][0]["state"], "DRAINING");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    cancel.cancel();
    running.task.await.unwrap();
    assert!(!path.exists(), "the socket is removed at the end");
    assert!(socket::ask(&path, &socket::Request::Status).await.is_err());
}

#[tokio::test]
async fn the_metrics_listener_knows_one_path_and_a_taken_address_is_an_error() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = GO.replace("enabled: false", &format!("enabled: true, address: \"{free}\""));
    let lab = Lab::start(&text, &["a", "b"]);
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(Trust::nobody().client(&Default::default()).unwrap())
        .no_proxy()
        .build()
        .unwrap();
    let get = |path: &str| client.get(format!("http://{free}{path}")).send();
    let answer = get("/metrics").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("anycastd_up{"));
    assert_eq!(get("/other").await.unwrap().status(), 404);
    let (recorder, _) = Recorder::new();
    let second = start(setup(config(lab.folder.path(), &text), recorder), CancellationToken::new());
    assert!(matches!(second, Err(StartError::Listener { .. })));
}
