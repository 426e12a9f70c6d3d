//! Bad settings: the real binary reports all of them at once, exits 78 and contacts nothing.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn agent(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchover-agent"));
    command.args(arguments).env_clear().envs(env.iter().copied());
    command.output().expect("the binary starts")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_problem_is_reported_at_once_and_nothing_is_contacted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let env = [
        ("KUBE_CLUSTER", "silver"),
        ("ENVIRONMENT", "dev"),
        ("KUBE_API_URL", url.as_str()),
        ("PATRONI_LOCAL_API", "not a url"),
        ("MAINTENANCE_URL", url.as_str()),
        ("TEKTON_URL", url.as_str()),
        ("PROCESS_LIST", "logic_handler,dns_watch,peer_client,dns_wach"),
        ("ACTIVE_IP", "10.0.0.1"),
        ("PASSIVE_IP", "10.0.0.1"),
        ("DNS_AGREE_SAMPLES", "many"),
        ("DESTRUCTION_GATE", "perhaps"),
        ("JOURNAL", "paper"),
        ("API_TOKEN", "a"),
        ("API_TOKEN_FILE", "/nowhere"),
    ];
    let output = agent(&["run"], &env);
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(78), "{text}");
    for name in [
        "KUBE_CLUSTER=\"silver\"",
        "KUBE_NAMESPACE is not set",
        "PATRONI_LOCAL_API",
        "TEKTON_GITHUB_REPO is not set",
        "PROCESS_LIST=\"dns_wach\"",
        "tick_producer",
        "GSLB_DOMAIN is not set",
        "PASSIVE_IP",
        "DNS_AGREE_SAMPLES=\"many\"",
        "DESTRUCTION_GATE=\"perhaps\"",
        "JOURNAL=\"paper\"",
        "API_TOKEN_FILE",
        "TLS_CA is not set",
    ] {
        assert!(text.contains(name), "{name} in\n{text}");
    }
    assert!(listener.accept().is_err(), "nothing was contacted");
    let checked = agent(&["check-config"], &env);
    assert_eq!((checked.status.code(), errors(&checked)), (Some(78), text), "check-config says the same");
}

#[test]
fn an_agent_with_an_environment_only_runs_and_says_what_it_lacks() {
    let output = agent(&[], &[]);
    let text = errors(&output);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("KUBE_CLUSTER is not set") && text.contains("ENVIRONMENT is not set"), "{text}");
}

#[test]
fn certificates_that_cannot_work_are_named_with_their_setting() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let made = agent(&["certs", &at("certs")], &[]);
    assert!(made.status.success(), "{}", errors(&made));
    std::fs::write(at("garbage.pem"), "no certificate").unwrap();
    let (ca, garbage, key) = (at("certs/ca.crt"), at("garbage.pem"), at("certs/golddr.key"));
    let env = |certificate: &str, key: &str| {
        let output = agent(
            &["check-config"],
            &[
                ("PROCESS_LIST", "peer_server"),
                ("TLS_CA", &ca),
                ("TLS_LOCAL_CRT", certificate),
                ("TLS_LOCAL_KEY", key),
                ("PEER_HOST", "golddr"),
            ],
        );
        (output.status.code(), errors(&output))
    };
    let (code, text) = env(&garbage, &key);
    assert_eq!(code, Some(78));
    assert!(text.contains("TLS_LOCAL_CRT"), "{text}");
    let (code, text) = env(&at("certs/gold.crt"), &key);
    assert_eq!(code, Some(78), "a key of another certificate: {text}");
    let (code, text) = env(&at("certs/gold.crt"), &at("certs/gold.key"));
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_port_that_is_taken_and_a_word_that_is_no_command_are_clear_errors() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = agent(&["run"], &[("PROCESS_LIST", "tick_producer"), ("HTTP_LISTEN", &address)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("HTTP_LISTEN"), "{}", errors(&output));
    assert_eq!(agent(&["fly"], &[]).status.code(), Some(2));
}
