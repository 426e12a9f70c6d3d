//! The agent's HTTP interface in front of a living site: what it lets through, what it says about its tasks, what it
//! counts; and the end of the real binary.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;
use switchover_agent::lab::agents::LabSettings;
use switchover_agent::lab::cycle;
use switchover_agent::lab::faults::Fault;
use switchover_agent::model::Side;
use tokio::net::TcpListener;

use super::stage::{BOTH, Stage, asked_by_agent};

const FAILOVER: &str = "/phase/transition-to-golddr-primary";

#[tokio::test]
async fn a_transition_needs_the_token_and_a_verb_that_changes_things() {
    let stage = Stage::up().await;
    let url = stage.agent_url(Side::Active, FAILOVER);
    let refused = stage.client.put(&url).send().await.unwrap().status();
    assert_eq!(refused, 401, "without a token");
    let refused = stage.client.put(&url).bearer_auth("guessed").send().await.unwrap().status();
    assert!([401, 403].contains(&refused.as_u16()), "with a wrong token: {refused}");
    let old_forms =
        ["/set-primary", "/set-readonly", "/restart-kong", "/keycloak_start", "/keycloak_service_flow"];
    for path in old_forms.into_iter().chain(["/keycloak_service_block", FAILOVER]) {
        let answer = stage.client.get(stage.agent_url(Side::Active, path)).send().await.unwrap();
        assert_eq!(answer.status(), 405, "GET {path}");
        assert!(answer.text().await.unwrap().contains("PUT"), "GET {path} names the right verb");
    }
    stage.database_looks(Side::Active, 10).await;
    for side in BOTH {
        assert_eq!(asked_by_agent(&stage, side).await, [], "{side}");
    }
    let (status, body) = stage.ask(Side::Active, FAILOVER, None).await;
    assert_eq!((status, &body["accepted"]), (202, &Value::Bool(true)), "{body}");
    let (status, body) = stage.ask(Side::Active, FAILOVER, None).await;
    assert_eq!((status, &body["accepted"]), (409, &Value::Bool(false)), "a second one: {body}");
    stage.settled("golddr-primary").await;
}

#[tokio::test]
async fn defect_27_health_names_the_task_that_is_down_and_its_return() {
    let mut settings = LabSettings::on_free_ports();
    // Somebody else has the port of the peer link when the agents start.
    let thief = TcpListener::bind("127.0.0.1:0").await.unwrap();
    settings.env.insert("PEER_LISTEN".to_owned(), thief.local_addr().unwrap().to_string());
    let stage = Stage::bare(settings).await;
    stage
        .until_async("the health of the peer server", || async {
            let (status, body) = stage.get(Side::Active, "/health").await;
            let body: Value = serde_json::from_str(&body).unwrap();
            let down = body["down"].as_array().cloned().unwrap_or_default();
            status == 503
                && down.iter().any(|task| task["task"] == "peer_server" && task["last_error"].is_string())
        })
        .await;
    assert_eq!(stage.metric(Side::Active, "switchover_task_up", &["peer_server"]), 0.0);
    stage.until("the rest to work", || stage.phase(Side::Active) == "active-passive").await;
    drop(thief);
    // Both agents of this lab want the port; whoever is first has it and is whole again.
    stage
        .until_async("one of them to be whole again", || async {
            for side in BOTH {
                if stage.metric(side, "switchover_task_up", &["peer_server"]) == 1.0 {
                    return stage.get(side, "/health").await.0 == 200;
                }
            }
            false
        })
        .await;
}

#[tokio::test]
async fn defect_27_a_refusing_api_server_ends_no_watch() {
    let stage = Stage::up().await;
    stage.initiate(Side::Active, Fault::ApiRefused);
    stage.initiate(Side::Active, Fault::PatroniDown);
    stage.database_looks(Side::Active, 20).await;
    let (status, body) = stage.get(Side::Active, "/health").await;
    assert_eq!(status, 200, "the site is broken, the agent is not: {body}");
    assert_eq!(stage.metric(Side::Active, "switchover_task_restarts_total", &[]), 0.0);
    assert_eq!(stage.metric(Side::Active, "switchover_patroni{", &[]), 0.0);
    assert_eq!(stage.phase(Side::Active), "active-passive", "a failed read is not an empty record");
    stage.lift(Side::Active, Fault::ApiRefused);
    stage.lift(Side::Active, Fault::PatroniDown);
    stage.put_site(Side::Active, FAILOVER).await;
    stage.settled("golddr-primary").await;
}

#[tokio::test]
async fn defect_27_a_dns_service_that_is_down_at_start_is_asked_until_it_is_there() {
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let settings = LabSettings::on_free_ports()
        .with("DNS_SERVICE_URL", &format!("http://{address}/dns"))
        .with("DNS_RESOLVERS", "")
        .with("DNS_SELF_TEST_NAME", "")
        .with("DNS_POLL_SECONDS", "0.2");
    let stage = Stage::bare(settings).await;
    stage.until("the record", || stage.phase(Side::Active) == "active-passive").await;
    stage.dns_rounds(Side::Active, 5).await;
    assert_eq!(stage.get(Side::Active, "/health").await.0, 200);
    let service = stage.lab.world.serve(Side::Active, TcpListener::bind(address).await.unwrap()).unwrap();
    let active = stage.lab.world.settings().active_ip.to_string();
    stage.until("its answer", || stage.shown(Side::Active)["dns"] == active).await;
    service.stop().await;
}

/// Names and labels of a metric's series: `name{label,label}`.
fn forms(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, rest) = line.split_once(['{', ' ']).unwrap();
            let labels = if line.contains('{') { rest.split_once('}').unwrap().0 } else { "" };
            let names: Vec<&str> =
                labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect();
            format!("{name}{{{}}}", names.join(","))
        })
        .collect()
}

#[tokio::test]
async fn defect_33_every_old_metric_is_there_with_its_labels_and_one_series_each() {
    let stage = Stage::up().await;
    for (name, phase) in cycle::CYCLE {
        stage.put_site(Side::Active, &format!("/phase/{name}")).await;
        if phase == "golddr-primary" {
            stage.settled(phase).await;
            assert_eq!(stage.metric(Side::Active, "switchover_maintenance{", &[]), 1.0);
            assert_eq!(stage.metric(Side::Passive, "switchover_maintenance{", &[]), 0.0);
        }
        stage.settled(phase).await;
    }
    let (status, text) = stage.get(Side::Active, "/metrics").await;
    assert_eq!(status, 200);
    let forms = forms(&text);
    let old = [
        "switchover_logic_total{resource,state}",
        "switchover_logic_gauge{pid,resource}",
        "switchover_transition_failed_total{release}",
        "switchover_transition{pid,release}",
        "switchover_maintenance{pid}",
        "switchover_dns_total{ip}",
        "switchover_patroni{pid,state}",
        "switchover_peer{pid,state}",
        "switchover_request_processing_seconds_sum{}",
        "switchover_request_processing_seconds_count{}",
    ];
    for form in old {
        assert!(forms.contains(form), "{form} is missing in {forms:#?}");
    }
    let one = |start: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(start));
        let line = lines.next().unwrap_or_else(|| panic!("{start} is missing"));
        assert_eq!(lines.next(), None, "{start} has one series");
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(one("switchover_maintenance{"), "0.0");
    assert_eq!(one("switchover_transition{"), "0.0");
    assert!(
        text.lines()
            .any(|line| line.starts_with("switchover_transition{")
                && line.contains("release=\"sso-dev\"} 0.0"))
    );
    let gauge = |resource: &str| {
        stage.metric(Side::Active, "switchover_logic_gauge{", &[&format!("resource=\"{resource}\"")])
    };
    assert_eq!(
        [gauge("dns"), gauge("patroni"), gauge("peer"), gauge("automation"), gauge("transition")],
        [1.0, 1.0, 1.0, 1.0, 0.0]
    );
    for (resource, state) in [
        ("patroni", "IsStandby=True"),
        ("patroni-leader", "-standby_leader"),
        ("peer", "ok"),
        ("switchover_state", "gold-standby"),
        ("dns", "active/"),
        ("dns", "passive/"),
    ] {
        let labels = [format!("resource=\"{resource}\""), state.to_owned()];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        assert!(stage.metric(Side::Active, "switchover_logic_total{", &labels) > 0.0, "{resource} {state}");
    }
    let promotions =
        stage.metric(Side::Active, "switchover_step_seconds_count", &["step=\"promote-database\""]);
    assert_eq!(promotions, 1.0);
    assert!(stage.metric(Side::Active, "switchover_step_seconds_sum", &["step=\"promote-database\""]) > 0.0);
}

#[tokio::test]
async fn defect_30_sigterm_ends_the_real_binary_quickly_and_with_zero() {
    let mut stage = Stage::up().await;
    let passive = stage.lab.agents.pop().unwrap();
    passive.stop().await;
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let mut agent = Command::new(env!("CARGO_BIN_EXE_switchover-agent"))
        .arg("run")
        .env_clear()
        .envs(&stage.lab.env[Side::Passive as usize])
        .env("HTTP_LISTEN", address.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = || async {
        stage.client.get(format!("http://{address}/status")).send().await.ok()?.json::<Value>().await.ok()
    };
    stage
        .until_async("the binary to serve", || async {
            status().await.is_some_and(|shown| shown["phase"] == "active-passive")
        })
        .await;
    // In the middle of a transition, with a call that hangs.
    stage.initiate(Side::Passive, Fault::PatroniNoLeader);
    stage.put_site(Side::Active, FAILOVER).await;
    stage
        .until_async("the transition", || async {
            status().await.is_some_and(|shown| shown["run"].is_object())
        })
        .await;
    let asked = std::time::Instant::now();
    let signal = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let mut code = None;
    while code.is_none() && asked.elapsed() < std::time::Duration::from_secs(30) {
        code = agent.try_wait().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let Some(code) = code else {
        agent.kill().unwrap();
        agent.wait().unwrap();
        panic!("still alive 30 s after SIGTERM");
    };
    assert_eq!(code.code(), Some(0));
    assert!(asked.elapsed() < std::time::Duration::from_secs(20), "took {:?}", asked.elapsed());
}
