//! The compose file, chart values, systemd unit and image agree with what the agent reads and offers.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("a map").keys().cloned().collect()
}

/// Every `"NAME"` of a `pub const X: &str = "NAME"` below src/config, and its `_FILE` form.
fn known_settings() -> BTreeSet<String> {
    fn walk(dir: &Path, out: &mut String) {
        for entry in std::fs::read_dir(dir).expect("readable settings source") {
            let path = entry.expect("readable settings source").path();
            if path.is_dir() {
                walk(&path, out);
            } else {
                out.push_str(&std::fs::read_to_string(path).expect("readable settings source"));
            }
        }
    }
    let mut text = String::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config"), &mut text);
    let constant = regex::Regex::new(r#"const\s+\w+:\s*&str\s*=\s*"([A-Z][A-Z0-9_]+)""#)
        .expect("readable settings source");
    let names: BTreeSet<String> = constant.captures_iter(&text).map(|found| found[1].to_owned()).collect();
    names.iter().map(|name| format!("{name}_FILE")).chain(names.clone()).collect()
}

fn all_known(file: &str, names: &BTreeSet<String>) {
    let known = known_settings();
    // Before the sections of the configuration exist there is nothing to compare with.
    if known.is_empty() {
        eprintln!("SKIPPED: {file}: src/config declares no settings yet");
        return;
    }
    let unknown: Vec<&String> = names.difference(&known).collect();
    assert!(unknown.is_empty(), "{file} sets what the agent does not read: {unknown:?}");
}

#[test]
fn compose_has_two_sites_and_two_agents_on_the_ports_of_the_lab() {
    let services = &yaml("docker-compose.yml")["services"];
    for (service, port) in
        [("site-gold", 6664), ("site-golddr", 6665), ("agent-gold", 6666), ("agent-golddr", 6667)]
    {
        assert_eq!(services[service]["ports"][0], format!("{port}:8000"), "{service}");
        assert_eq!(services[service]["image"], "switchover-agent:dev", "{service} merges the image");
    }
    let site = serde_json::json!([
        "lab-site",
        "--site",
        "gold",
        "--listen",
        "0.0.0.0:8000",
        "--peer-site",
        "http://site-golddr:8000"
    ]);
    assert_eq!(services["site-gold"]["command"], site);
    let certs = serde_json::json!(["certs", "/certs", "gold:agent-gold", "golddr:agent-golddr"]);
    assert_eq!(services["certs"]["command"], certs);
    assert_eq!(services["agent-gold"]["environment"]["PEER_HOST"], "agent-golddr");
    assert_eq!(services["agent-golddr"]["environment"]["PEER_HOST"], "agent-gold");
    assert_eq!(services["agent-golddr"]["environment"]["KUBE_API_URL"], "http://site-golddr:8000/k8s");
}

#[test]
fn every_setting_in_the_packages_is_one_that_the_agent_reads() {
    let compose = yaml("docker-compose.yml");
    for agent in ["agent-gold", "agent-golddr"] {
        all_known("docker-compose.yml", &keys(&compose["services"][agent]["environment"]));
    }
    all_known("values.yaml", &keys(&yaml("helm/switchover-agent/values.yaml")["env"]));
    let example = file("systemd/switchover-agent.env.example");
    let names = example.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    all_known("switchover-agent.env.example", &names.map(|(name, _)| name.to_owned()).collect());
}

#[test]
fn the_image_runs_as_a_numeric_user_without_root() {
    let text = file("Dockerfile");
    for line in ["USER 10001:10001", "EXPOSE 8000 8765", "HEALTHCHECK NONE"] {
        assert!(text.lines().any(|l| l == line), "Dockerfile lacks {line}");
    }
}

#[test]
fn the_unit_is_supervised_and_reloads_by_hup() {
    let text = file("systemd/switchover-agent.service");
    for line in
        ["Type=notify", "WatchdogSec=30", "ExecReload=/bin/kill -HUP $MAINPID", "RestartPreventExitStatus=78"]
    {
        assert!(text.lines().any(|l| l == line), "the unit lacks {line}");
    }
}

#[test]
fn the_anycast_unit_does_not_try_a_bad_file_again_and_its_grace_covers_the_drain() {
    let text = file("systemd/switchover-anycast.service");
    for line in [
        "Type=notify",
        "WatchdogSec=30",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "RestartPreventExitStatus=65 66 74 78",
        "RuntimeDirectory=anycastd",
    ] {
        assert!(text.lines().any(|l| l == line), "the unit lacks {line}");
    }
    let values = yaml("helm/switchover-agent/values.yaml");
    all_known("values.yaml", &keys(&values["anycast"]["env"]));
    let everything = yaml("helm/switchover-agent/ci/everything.yaml");
    let example = file("docs/examples/anycast.yaml");
    for text in [everything["anycast"]["config"].as_str().expect("a file"), example.as_str()] {
        let config = switchover_agent::config::anycast::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let longest = config.services.iter().map(|service| service.drain_delay).max().unwrap_or_default();
        let grace = values["anycast"]["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        let needed = config.shutdown.drain_delay.max(longest) + config.shutdown.limit;
        assert!(needed.as_secs() < grace, "{needed:?}");
    }
    switchover_agent::config::anycast::parse(&file("docs/examples/anycast.toml"))
        .unwrap_or_else(|error| panic!("{error}"));
    let compose = yaml("docker-compose.yml");
    assert_eq!(compose["services"]["anycast"]["profiles"], serde_json::json!(["anycast"]));
}
