//! TCP, programs, processes and files.

use super::*;

#[tokio::test]
async fn tcp_connects_or_must_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (target, extra, want) in [
        (open, "", Sample::Pass),
        (open, r#","should_fail":true"#, Sample::Fail),
        (closed, "", Sample::Fail),
        (closed, r#","should_fail":true"#, Sample::Pass),
        (open, r#","source_ip":"127.0.0.9""#, Sample::Pass),
    ] {
        let report = probe("tcp", &format!(r#"{{"target":"{target}"{extra}}}"#)).await;
        assert_eq!(report.sample, want, "{target}{extra}: {}", report.reason);
    }
}

#[tokio::test]
async fn a_held_connection_tells_its_end_and_the_failure_is_believed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let check = built("tcp", &format!(r#"{{"target":"{address}","hold":true}}"#));
    assert_eq!(check.probe().await, Report::pass());
    let (stream, _) = listener.accept().await.unwrap();
    drop((stream, listener));
    let event = tokio::time::timeout(Duration::from_secs(20), check.event().unwrap()).await.unwrap();
    assert!(event.contains("connection"), "{event}");
    let report = check.probe().await;
    assert_eq!((report.sample, report.decisive), (Sample::Fail, true));
}

#[tokio::test]
async fn a_command_passes_with_zero_and_its_whole_group_dies_at_the_timeout() {
    assert_eq!(probe("command", r#"{"command":"/bin/true"}"#).await, Report::pass());
    let failed =
        probe("command", r#"{"command":"/bin/sh","arguments":["-c","echo broken >&2; exit 3"]}"#).await;
    assert_eq!(failed.sample, Sample::Fail);
    assert!(failed.reason.contains("3") && failed.reason.contains("broken"), "{}", failed.reason);
    let missing = probe("command", r#"{"command":"/no/such/program"}"#).await;
    assert_eq!(missing.sample, Sample::Unknown, "a check that can't be done says nothing");
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
    let spec = format!(r#"{{"command":"/bin/sh","arguments":["-c","{script}"],"timeout":"2s"}}"#);
    let report = probe("command", &spec).await;
    assert!(report.reason.contains("not done within 2s"), "{}", report.reason);
    let pid = std::fs::read_to_string(&pid_file).unwrap().trim().to_owned();
    let dead = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().unwrap().trim().starts_with('Z'),
        Err(_) => true,
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !dead() {
        assert!(Instant::now() < deadline, "the grandchild {pid} lives");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_process_tells_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(&pid_file, child.id().to_string()).unwrap();
    let check = built("process", &format!(r#"{{"pid_file":"{}"}}"#, pid_file.display()));
    assert_eq!(check.probe().await, Report::pass());
    let event = check.event().unwrap();
    tokio::pin!(event);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut event).await;
    assert!(early.is_err(), "the process lives: {early:?}");
    child.kill().unwrap();
    let told = tokio::time::timeout(Duration::from_secs(20), event).await.unwrap();
    assert!(told.contains("has ended"), "{told}");
    let report = check.probe().await;
    assert_eq!((report.sample, report.decisive), (Sample::Fail, true), "{}", report.reason);
    child.wait().unwrap();
    assert_eq!(check.probe().await.sample, Sample::Fail);
    std::fs::write(&pid_file, "none").unwrap();
    assert!(check.probe().await.reason.contains("holds no process number"));
}

#[tokio::test]
async fn a_file_is_there_or_must_not_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let spec = |absent: bool| format!(r#"{{"path":"{}","absent":{absent}}}"#, path.display());
    assert_eq!(probe("file", &spec(false)).await.sample, Sample::Fail);
    assert_eq!(probe("file", &spec(true)).await.sample, Sample::Pass);
    std::fs::write(&path, "").unwrap();
    assert_eq!(probe("file", &spec(false)).await.sample, Sample::Pass);
    assert_eq!(probe("file", &spec(true)).await.sample, Sample::Fail);
}
