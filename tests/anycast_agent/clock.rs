//! The system's clock jumps while the real binary runs: a library loaded before libc sets the clock back for this one
//! process.

use std::process::Command;

use crate::Agent;
use crate::alone::{file, state};
use crate::bgp_lab::until;
use crate::frr::cabourotte;

/// An hour is taken off the wall clock while the file that `CLOCK_SHIFTED` names exists.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, id, time);
    const char *file = getenv("CLOCK_SHIFTED");
    if (result == 0 && id == CLOCK_REALTIME && file && access(file, F_OK) == 0) time->tv_sec -= 3600;
    return result;
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_14_a_clock_that_is_set_back_an_hour_leaves_the_checks_their_cadence() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("shim.c"), SHIM).unwrap();
    let (source, library) = (path("shim.c"), path("shim.so"));
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o", &library, &source]).status();
    if !built.is_ok_and(|status| status.success()) {
        println!("SKIPPED: a C compiler");
        return;
    }
    let cabourotte = cabourotte().await;
    let services = format!(
        "[services.a]\nprefixes.bgp = ['192.0.2.1']\n\
         checks.cabourotte = [{{ name = 'dns', url = '{}', interval = 0.2 }}]\n",
        cabourotte.url
    );
    let config = file(&folder, &services);
    let shifted = path("shifted");
    let env = [("LD_PRELOAD", library.as_str()), ("CLOCK_SHIFTED", shifted.as_str()), ("LOG_FORMAT", "json")];
    let agent = Agent::start_with(folder.path(), &["run", "--config", &config], &env);
    state(&agent, "UP         a").await;
    std::fs::write(&shifted, "").unwrap();
    let asked = cabourotte.asked();
    until("twenty more checks", async || cabourotte.asked() >= asked + 20).await;
    // The clock did go back: the log's own times say so.
    std::fs::remove_file(folder.path().join("config.toml")).unwrap();
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    until("a line of now", async || agent.log().contains("nothing was changed")).await;
    let log = agent.log();
    let time = |line: &str| -> jiff::Timestamp {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        entry["timestamp"].as_str().unwrap().parse().unwrap()
    };
    let first = time(log.lines().next().unwrap());
    let last = time(log.lines().find(|line| line.contains("nothing was changed")).unwrap());
    assert!(last < first, "the shim works: {first} and then {last}");
    assert_eq!(agent.logged("\"to\":\"DOWN\"") + agent.logged("\"to\":\"UNKNOWN\""), 0, "{log}");
    state(&agent, "UP         a").await;
}
