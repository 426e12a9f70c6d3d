//! Several agents at one site: the holder of the Lease acts, the other waits, takes over when the holder dies, and at
//! once when the holder gives the Lease back.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use switchover_agent::lab::agents::{Lab, LabSettings, TOKEN};
use switchover_agent::model::Side;

const LIMIT: Duration = Duration::from_secs(120);

/// An agent of the active site as a process of its own; ends with its guard.
struct Replica {
    child: Child,
    http: u16,
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    // Below the range from which the system gives ports away, so that nobody gets it before the agent does.
    let candidates = std::iter::repeat_with(|| 10_000 + rand::random::<u16>() % 20_000).take(100);
    candidates.into_iter().find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

fn start(lab: &Lab) -> Replica {
    let http = free_port();
    let child = Command::new(env!("CARGO_BIN_EXE_switchover-agent"))
        .arg("run")
        .env_clear()
        .envs(&lab.env[Side::Active as usize])
        .envs([
            ("AGENT_LEASE", "true".to_owned()),
            ("JOURNAL", "configmap".to_owned()),
            ("HTTP_LISTEN", format!("127.0.0.1:{http}")),
            ("PEER_LISTEN", format!("127.0.0.1:{}", free_port())),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Replica { child, http }
}

impl Replica {
    async fn get(&self, path: &str) -> Option<(u16, Value)> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let answer = client.get(format!("http://127.0.0.1:{}{path}", self.http)).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.unwrap_or(Value::Null)))
    }

    async fn acts(&self) -> bool {
        matches!(self.get("/ready").await, Some((200, _)))
    }

    async fn waits(&self) -> bool {
        matches!(self.get("/health").await, Some((200, body)) if body["standby"] == true)
    }
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < LIMIT, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_one_acts_and_the_other_takes_over_when_it_dies_or_ends() {
    let mut lab = Lab::start(LabSettings::on_free_ports()).await.unwrap();
    lab.agents.remove(Side::Active as usize).stop().await;
    let mut first = start(&lab);
    until("the first agent to act", || first.acts()).await;
    let mut second = start(&lab);
    until("the second agent to wait", || second.waits()).await;
    assert_eq!(second.get("/ready").await.unwrap().0, 503, "nobody sends the peer to it");
    assert!(first.acts().await);
    // Killed: the Lease runs out, and the second goes on with the same journal and record.
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    until("the second agent to act", || second.acts()).await;
    let third = start(&lab);
    until("the third agent to wait", || third.waits()).await;
    // Ended in order: the Lease is given back, and the process says that all is well.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(second.child.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(second.child.wait().unwrap().success());
    until("the third agent to act", || third.acts()).await;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    let asked = client
        .put(format!("http://127.0.0.1:{}/phase/transition-to-golddr-primary", third.http))
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();
    assert!(asked.status().is_success(), "{}", asked.status());
    until("the transition to be recorded", || async {
        matches!(third.get("/status").await, Some((_, body)) if body["phase"] == "golddr-primary")
    })
    .await;
}
