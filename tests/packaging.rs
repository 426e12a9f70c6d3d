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
    let values = yaml("helm/switchover-agent/values.yaml");
    all_known("values.yaml", &keys(&values["env"]));
    all_known("values.yaml: geo", &keys(&values["geo"]["env"]));
    let template = file("helm/switchover-agent/templates/deployment.yaml");
    let name = regex::Regex::new(r"\{name: ([A-Z][A-Z0-9_]+), value:").expect("a pattern");
    let set: BTreeSet<String> = name.captures_iter(&template).map(|found| found[1].to_owned()).collect();
    assert!(set.contains("CF_API_TOKEN_FILE"), "{set:?}");
    all_known("deployment.yaml", &set);
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

/// The documents of the chart with these values; `None` where helm is not there (`make chart` fetches it).
fn rendered(values: &str) -> Option<Vec<Value>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let helm = root.join("target/tools/helm");
    if !helm.exists() {
        eprintln!("SKIPPED: rendering with {values}: no target/tools/helm (run scripts/install-helm.sh)");
        return None;
    }
    let chart = root.join("helm/switchover-agent");
    let output = std::process::Command::new(helm)
        .args(["template", "agent", "--namespace", "edge", "--kube-version", "1.35.0", "-f"])
        .arg(chart.join(values))
        .arg(&chart)
        .output()
        .expect("helm starts");
    assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("utf-8");
    let documents = text.split("\n---").filter(|part| part.contains("kind:"));
    let parse = |part: &str| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{error}: {part}"));
    Some(documents.map(parse).collect())
}

fn object<'a>(documents: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    documents.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == name)
}

/// Resource and verbs of each rule.
fn rights(role: &Value) -> BTreeSet<(String, String)> {
    let words = |value: &Value| -> String {
        let words = value.as_array().expect("a list").iter();
        words.map(|word| word.as_str().expect("a word")).collect::<Vec<_>>().join(" ")
    };
    let rules = role["rules"].as_array().expect("rules").iter();
    rules.map(|rule| (words(&rule["resources"]), words(&rule["verbs"]))).collect()
}

fn pairs(wanted: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    wanted.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn environment(documents: &[Value]) -> (&Value, std::collections::BTreeMap<String, String>) {
    let deployment = object(documents, "Deployment", "agent-switchover").expect("a deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let env = pod["containers"][0]["env"].as_array().expect("an environment").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (pod, env.map(|it| (text(&it["name"]), text(&it["value"]))).collect())
}

#[test]
fn a_geo_release_has_its_rights_its_token_and_nothing_of_the_engine() {
    let Some(documents) = rendered("ci/geo.yaml") else { return };
    let role = object(&documents, "ClusterRole", "edge-agent-switchover-geo").expect("a ClusterRole");
    let wanted = [("ingresses", "get list watch"), ("events", "create"), ("namespaces", "get")];
    assert_eq!(rights(role), pairs(&wanted));
    assert_eq!(role["rules"][2]["resourceNames"][0], "kube-system");
    let role = object(&documents, "Role", "agent-switchover-geo").expect("a Role for the Lease");
    assert_eq!(rights(role), pairs(&[("leases", "create"), ("leases", "get update")]));
    let roles = documents.iter().filter(|it| it["kind"] == "Role").count();
    assert_eq!(roles, 1, "the engine's roles are not there");
    let (pod, env) = environment(&documents);
    assert_eq!(env["PROCESS_LIST"], "geo_sync");
    assert_eq!((env["LEADER_ELECT"].as_str(), env["GEO_LEASE_NAMESPACE"].as_str()), ("true", "edge"));
    assert_eq!(env["GEO_LEASE_NAME"], role["rules"][1]["resourceNames"][0], "the role is for that Lease");
    assert_eq!(pod["volumes"].as_array().expect("volumes").len(), 1, "no certificates, no operators' token");
    assert!(!documents.iter().any(|it| it.to_string().contains("secrets\"],\"verbs")), "no right to Secrets");
    // What the chart sets is what the agent takes.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_switchover-agent"));
    let env = env.into_iter().filter(|(name, _)| name != "CF_API_TOKEN_FILE");
    command.arg("check-config").env_clear().envs(env).env("CF_API_TOKEN", "t");
    let output = command.output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `1e10...` and digits alone are numbers to YAML; the identifier would arrive mangled.
#[test]
fn an_identifier_without_quotes_is_refused_by_the_chart() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let helm = root.join("target/tools/helm");
    if !helm.exists() {
        eprintln!("SKIPPED: rendering: no target/tools/helm (run scripts/install-helm.sh)");
        return;
    }
    let output = std::process::Command::new(helm)
        .args(["template", "agent", "--kube-version", "1.35.0", "--set", "geo.env.CF_ZONE_ID=1234567890"])
        .args(["-f"])
        .arg(root.join("helm/switchover-agent/ci/geo.yaml"))
        .arg(root.join("helm/switchover-agent"))
        .output()
        .expect("helm starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("CF_ZONE_ID") && text.contains("quotes"), "{text}");
}

#[test]
fn geo_adds_to_an_engine_s_release_and_is_absent_where_it_is_off() {
    let Some(documents) = rendered("ci/everything.yaml") else { return };
    let (pod, env) = environment(&documents);
    assert!(env["PROCESS_LIST"].starts_with("logic_handler,") && env["PROCESS_LIST"].ends_with(",geo_sync"));
    assert_eq!(pod["volumes"].as_array().expect("volumes").len(), 3);
    let role = object(&documents, "ClusterRole", "edge-agent-switchover-geo").expect("a ClusterRole");
    let wanted = [("ingresses", "get list watch"), ("events", "create")];
    assert_eq!(rights(role), pairs(&wanted), "GEO_OWNER is set, so no namespace is read");
    assert!(object(&documents, "Role", "agent-switchover-solution").is_some());
    let documents = rendered("values.yaml").expect("helm is there");
    assert!(documents.iter().all(|it| !it["metadata"]["name"].to_string().contains("-geo")));
    assert!(
        environment(&documents).1.keys().all(|name| !name.starts_with("CF_") && !name.starts_with("GEO_"))
    );
}
