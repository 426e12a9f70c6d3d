//! The anycast configuration files: both predecessors' forms, what they refuse, and what is new.

#![allow(clippy::unwrap_used, reason = "a test that panics says what it is about")]

use std::path::Path;
use std::time::Duration;

use switchover_agent::checks::CheckSpec;
use switchover_agent::config::anycast::{Anycast, Dialect, LoadError, environment, load, parse};
use switchover_agent::rules::health::Strategy;

const PYTHON: &str = r#"
[services.dns]
prefixes.frrouting = ["2001:DB8::53", { prefix = "203.0.113.53", vrf = "EDGE", vtysh = "/opt/vtysh" }]
checks.cabourotte = ["dns", { name = "ntp_v4", url = "http://127.0.0.1:9014", interval = 1 }]
"#;

const GO: &str = r#"
announcer:
  router_id: 10.0.0.1
  local_address: 10.0.0.1
  local_asn: 65999
  routes: ["203.0.113.53/32", "198.51.100.0/24"]
  peers:
    - name: tor
      remote_address: 10.0.0.2
      remote_asn: 65001
      enable_multihop: true
      multihop_ttl: 3
services:
  - name: web
    check_interval: 10s
    strategy: at_least_n_percentage
    strategy_options: { n: 0.5 }
    checks:
      - kind: http_2xx
        group: g1
        spec: { url: "http://127.0.0.1/", method: GET, tries: 3, interval: 100ms, timeout: 5s, headers: { Host: example.com } }
      - kind: assigned_address
        spec: { ipv4: 127.0.0.1, interface: lo }
      - kind: dns_lookup
        spec: { query: example.com, resolver: "127.0.0.1:53", tries: 3, interval: 100ms, timeout: 300ms }
      - kind: icmp_ping
        spec: { static: { host: 127.0.0.1 }, tries: 5, interval: 10ms, timeout: 1s }
      - kind: tftp_rrq
        spec: { url: "tftp://127.0.0.1:69/boot.cfg", tries: 3, interval: 1s, timeout: 1s }
      - kind: tls_certificate
        spec: { remote: { host: "127.0.0.1:443", insecure: true }, dns_names: [a.example] }
      - kind: ntpq
        spec: { server: 127.0.0.1, src_addr: 127.0.0.1, offset_threshold: 125ms, tries: 3, interval: 1s, timeout: 1s }
metrics: { enabled: true, address: "127.0.0.1:9000" }
"#;

fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems(Path::new("f")).iter().map(ToString::to_string).collect(),
    }
}

fn refused(text: &str, part: &str) {
    match parse(text) {
        Ok(_) => panic!("accepted, wanted a problem with {part:?}:\n{text}"),
        Err(error) => {
            assert_eq!(error.exit_code(), 65);
            let shown = error.to_string();
            assert!(shown.contains(part), "{shown:?} lacks {part:?}");
            assert_eq!(shown.lines().count(), 1, "one line: {shown}");
        }
    }
}

fn with_prefix(prefix: &str) -> String {
    format!("[services.a]\nprefixes.frrouting = [{prefix}]\nchecks.cabourotte = [\"c\"]\n")
}

fn routes(config: &Anycast) -> Vec<String> {
    let all = config.services.iter().flat_map(|service| &service.routes);
    all.map(|route| format!("{} {}", route.announcer, route.key)).collect()
}

#[test]
fn the_python_predecessors_file_is_read() {
    let config = parse(PYTHON).unwrap();
    assert_eq!(config.dialect, Dialect::Python);
    assert_eq!(routes(&config), ["frr 2001:db8::53/128", "frr 203.0.113.53/32 vrf EDGE"]);
    assert_eq!(config.announcers().len(), 2, "one for each vtysh");
    let service = &config.services[0];
    assert_eq!(service.strategy, Strategy::AnyFailed);
    let checks: Vec<(&str, Duration, u32)> =
        service.checks.iter().map(|check| (check.name.as_str(), check.interval, check.fall)).collect();
    assert_eq!(checks, [("dns", Duration::from_secs(5), 1), ("ntp_v4", Duration::from_secs(1), 1)]);
    let CheckSpec::Cabourotte(spec) = &service.checks[1].spec else { panic!() };
    assert_eq!(spec.max_age, Duration::from_secs(7), "twice the interval and the timeout");
}

#[test]
fn prefixes_are_read_with_length_netmask_and_hostmask() {
    for (text, want) in [
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.0/255.255.255.0", "203.0.113.0/24"),
        ("203.0.113.0/0.0.0.255", "203.0.113.0/24"),
        ("2001:DB8:0::/48", "2001:db8::/48"),
        ("192.0.2.7", "192.0.2.7/32"),
    ] {
        let config = parse(&with_prefix(&format!("{text:?}"))).unwrap();
        assert_eq!(routes(&config), [format!("frr {want}")]);
    }
    for (text, part) in [
        ("203.0.113.1/24", "host bits"),
        ("0.0.0.0/0", "default route"),
        ("::/0", "default route"),
        ("127.0.0.1", "beyond this machine"),
        ("fe80::1", "beyond this machine"),
        ("224.0.0.1", "beyond this machine"),
        ("203.0.113.0/33", "a network is wanted"),
        ("203.0.113.0/255.0.255.0", "a network is wanted"),
    ] {
        refused(&with_prefix(&format!("{text:?}")), part);
    }
}

#[test]
fn case_15_a_file_that_cannot_be_used_has_the_predecessors_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(&folder.path().join("none.toml")).unwrap_err();
    assert_eq!((missing.exit_code(), matches!(missing, LoadError::Missing { .. })), (66, true));
    assert_eq!(load(folder.path()).unwrap_err().exit_code(), 74);
    refused("[services", "TOML");
    refused("other = 1\n", "services");
    refused(&format!("{}prefixs = 1\n", with_prefix("\"192.0.2.1\"")), "did you mean prefixes?");
    refused(&with_prefix("{ prefix = \"192.0.2.1\", vfr = \"x\" }"), "did you mean vrf?");
    refused(&with_prefix("{ prefix = \"192.0.2.1/24\" }"), "host bits");
    refused(&with_prefix("{ prefix = \"192.0.2.1\", vrf = 1 }"), "a text is wanted");
    let suffixed = "[services.a]\nprefixes = {}\nchecks.cabourotte = [{ name = \"c\", interval = \"5s\" }]\n";
    assert_eq!(parse(suffixed).unwrap().services[0].checks[0].interval, Duration::from_secs(5));
}

#[test]
fn case_16_shapes_that_the_predecessor_misread_are_refused() {
    refused("[services.a]\nprefixes.ospf = [\"192.0.2.1\"]\nchecks.cabourotte = [\"c\"]\n", "prefix type");
    refused("[services.a]\nprefixes = 5\nchecks.cabourotte = [\"c\"]\n", "a table is wanted");
    refused("[services.a]\nprefixes = {}\nchecks.cabourotte = \"dns\"\n", "a list is wanted");
    refused("[services.a]\nprefixes.frrouting = [\"192.0.2.1\"]\nchecks = {}\n", "always_announce");
    refused("[services.a]\nprefixes = {}\nchecks.nagios = [\"x\"]\n", "check type");
    let explicit =
        "[services.a]\nprefixes.frrouting = [\"192.0.2.1\"]\nchecks = {}\nalways_announce = true\n";
    assert!(parse(explicit).unwrap().services[0].always_announce);
}

#[test]
fn a_vrf_that_would_become_a_command_is_refused() {
    refused(&with_prefix("{ prefix = \"192.0.2.1\", vrf = \"x\\nno router bgp\" }"), "VRF");
}

#[test]
fn case_17_yaml_and_json_give_the_same_model_and_other_extensions_are_named() {
    let from_yaml = parse(GO).unwrap();
    let tree: serde_json::Value = serde_saphyr::from_str(GO).unwrap();
    assert_eq!(from_yaml, parse(&serde_json::to_string_pretty(&tree).unwrap()).unwrap());
    assert_eq!(from_yaml.dialect, Dialect::Go);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.unknown");
    std::fs::write(&path, GO).unwrap();
    let error = load(&path).unwrap_err();
    assert!(error.to_string().contains(".unknown"), "{error}");
    for name in ["config.YML", "config.yaml", "config"] {
        let path = folder.path().join(name);
        std::fs::write(&path, GO).unwrap();
        assert_eq!(load(&path).unwrap(), from_yaml, "{name}");
    }
}

#[test]
fn the_go_predecessors_file_is_read() {
    let config = parse(GO).unwrap();
    assert_eq!(routes(&config), ["bgp 203.0.113.53/32", "bgp 198.51.100.0/24"]);
    assert_eq!(config.metrics_listen.as_deref(), Some("127.0.0.1:9000"));
    let bgp = config.bgp.unwrap();
    let neighbour = &bgp.expose()["neighbours"][0];
    assert_eq!(
        (neighbour["address"].as_str(), neighbour["multihop_ttl"].as_u64()),
        (Some("10.0.0.2"), Some(3))
    );
    let service = &config.services[0];
    assert_eq!(service.strategy, Strategy::MoreThanFraction(0.5));
    assert_eq!((service.checks[0].group.as_str(), service.checks.len()), ("g1", 7));
    assert!(service.checks.iter().all(|check| check.interval == Duration::from_secs(10) && check.fall == 1));
}

#[test]
fn case_18_an_empty_document_lists_every_missing_key_at_once() {
    for text in ["", "{}", "---\n"] {
        let shown = parse(text).unwrap_err().to_string();
        for key in
            ["router_id", "local_address", "local_asn", "routes", "peers", "enabled", "address", "services"]
        {
            assert!(shown.contains(key), "{text:?}: {shown} lacks {key}");
        }
    }
}

#[test]
fn case_19_metrics_can_be_switched_off() {
    let off = GO.replace("enabled: true, address: \"127.0.0.1:9000\"", "enabled: false");
    assert_eq!(parse(&off).unwrap().metrics_listen, None);
}

#[test]
fn case_20_a_misspelt_key_and_a_bare_number_are_refused_with_a_hint() {
    refused(&GO.replace("multihop_ttl", "multihope_ttl"), "did you mean multihop_ttl?");
    refused(&GO.replace("check_interval: 10s", "check_interval: 5"), "write \"5s\"");
    refused(&GO.replace("interval: 10ms", "interval: 5"), "write \"5s\"");
}

#[test]
fn keys_are_compared_without_regard_to_case_and_durations_must_be_positive() {
    assert!(parse(&GO.replace("router_id", "Router_ID").replace("check_interval", "Check_Interval")).is_ok());
    refused(&GO.replace("check_interval: 10s", "check_interval: 0s"), "above zero");
    refused(&GO.replace("check_interval: 10s", "check_interval: -1s"), "negative");
}

#[test]
fn own_prefixes_are_not_shared_and_host_bits_are_cleared_with_a_warning() {
    let own = "  - name: web\n    prefixes: [\"192.0.2.9/24\", \"2001:db8::1/128\"]\n";
    let config = parse(&GO.replace("  - name: web\n", own)).unwrap();
    assert_eq!(routes(&config), ["bgp 192.0.2.0/24", "bgp 2001:db8::1/128"]);
    assert!(config.warnings.iter().any(|warning| warning.contains("host bits")), "{:?}", config.warnings);
}

const NATIVE: &str = r#"
[services.a]
prefixes.bgp = ["192.0.2.1"]
[services.a.checks]
http = ["http://127.0.0.1/", { target = "::1", port = 8080, path = "/x", query = { a = "b c" }, valid_status = [200, "300-399"], body_regexp = ["ok"], name = "second" }]
tcp = [{ target = "127.0.0.1:80", hold = true }, { target = "127.0.0.1", port = 81, should_fail = true }]
tls = [{ target = "example.com", port = 443, expiration_delay = "7 days" }]
dns = [{ domain = "example.com", server = "127.0.0.1:53", type = "MX", rcode = "NXDOMAIN", transport = "tcp" }]
command = [{ command = "/bin/true", arguments = ["x"], timeout = 2 }]
process = ["/run/x.pid"]
file = [{ path = "/x", absent = true }]
assigned_address = [{ ipv4 = "::1" }]
[announcer]
router_id = "10.0.0.1"
local_address = "10.0.0.1"
local_asn = 65000
peers = [{ name = "x", remote_address = "10.0.0.2", remote_asn = 65001, hold_time = 9 }]
"#;

#[test]
fn every_native_kind_is_read_in_both_forms() {
    let config = parse(NATIVE).unwrap();
    let checks = &config.services[0].checks;
    let mut names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    names.sort_unstable();
    let want =
        ["assigned_address", "command", "dns", "file", "http", "process", "second", "tcp", "tcp#2", "tls"];
    assert_eq!(names, want);
    let by_name = |name: &str| checks.iter().find(|check| check.name == name).unwrap();
    let http = by_name("http");
    assert_eq!((http.rise, http.fall, http.fast_interval), (2, 2, Duration::from_millis(200)));
    let CheckSpec::Http(spec) = &by_name("second").spec else { panic!() };
    assert_eq!(spec.url, "http://[::1]:8080/x?a=b+c");
    assert_eq!(spec.valid_status, [(200, 200), (300, 399)]);
    let tcp = "    checks:\n      - kind: tcp\n        interval: 1s\n        rise: 3\n        spec: { target: \"127.0.0.1:80\" }\n";
    let check = parse(&GO.replace("    checks:\n", tcp)).unwrap().services[0].checks[0].clone();
    assert_eq!((check.rise, check.interval), (3, Duration::from_secs(1)));
}

#[test]
fn the_env_table_holds_settings_of_the_whole_agent() {
    let (settings, services) = environment("env = { A = \"x\", B = 5, C = true }\n").unwrap();
    let shown: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!((shown.join(" ").as_str(), services), ("A=x B=5 C=true", false));
    assert!(environment(GO).unwrap().1);
    let error = environment("env = { A = [\"secret\"] }").unwrap_err().to_string();
    assert!(error.contains("env.A") && !error.contains("secret"), "{error}");
    assert!(parse(&format!("env = {{ A = 1 }}\n{PYTHON}")).unwrap().warnings.is_empty());
}

#[test]
fn bird_needs_its_section_and_only_sensible_names() {
    let file = "[services.a]\nprefixes.bird = [\"192.0.2.1\"]\nchecks.cabourotte = [\"c\"]\n";
    refused(file, "bird is not set");
    refused(&format!("bird = {{ file = \"/x\", v4 = \"a b\" }}\n{file}"), "a symbol of BIRD");
    let config = parse(&format!("bird = {{ file = \"/x\", style = \"sets\" }}\n{file}")).unwrap();
    assert!(config.bird.unwrap().sets);
}

#[test]
fn a_password_of_a_neighbour_never_shows() {
    let file = GO.replace("enable_multihop: true", "enable_multihop: true\n      password: hunter2");
    let config = parse(&file).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.bgp.unwrap().expose()["neighbours"][0]["password"], "hunter2");
}

#[test]
fn bad_values_are_all_reported_at_once() {
    let bad = "strategy = \"most\"\nsharing = \"some\"\ndrain_delay = \"x\"\nstart_delay = -1\n";
    let found = problems(&format!("{}{bad}", with_prefix("\"192.0.2.1\"")));
    assert_eq!(found.len(), 4, "{found:?}");
}

mod no_text_breaks_the_reader {
    use proptest::prelude::*;
    use switchover_agent::config::anycast::parse;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_text(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_damaged_file(cut in 0_usize..1500, fill in "[ -~\\n]{0,12}", which in 0..4) {
            let whole = match which {
                0 => super::PYTHON.to_owned(),
                1 => super::GO.to_owned(),
                2 => super::NATIVE.to_owned(),
                _ => serde_json::to_string(&serde_saphyr::from_str::<serde_json::Value>(super::GO).unwrap()).unwrap(),
            };
            let at = cut.min(whole.len());
            let end = (at + fill.len()).min(whole.len());
            let _ = parse(&format!("{}{fill}{}", &whole[..at], &whole[end..]));
        }
    }
}
