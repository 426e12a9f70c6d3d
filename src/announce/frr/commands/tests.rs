//! Exact commands for exact differences, over a configuration as FRR 8.4.4 prints it.

use super::*;

const SHOWN: &str = "{\n}\nBuilding configuration...\n\nCurrent configuration:\n!\nfrr version 8.4.4\n!\n\
router bgp 65001\n no bgp ebgp-requires-policy\n !\n \
address-family ipv4 unicast\n  network 10.1.0.0/24\n  network 10.9.0.0/24 route-map OPERATOR\n \
exit-address-family\n !\n \
address-family ipv6 unicast\n  network 2001:db8:1::/48\n exit-address-family\n\
exit\n!\nrouter bgp 1.10 vrf red\n !\n \
address-family ipv4 unicast\n  network 10.2.0.0/24\n exit-address-family\n\
exit\n!\nroute-map SWITCHOVER-00 permit 10\n set metric 5\nexit\n!\nend\n";

fn key(prefix: &str, vrf: Option<&str>) -> PrefixKey {
    PrefixKey { prefix: prefix.parse().unwrap(), vrf: vrf.map(str::to_owned) }
}

fn wanted(keys: &[PrefixKey]) -> BTreeMap<PrefixKey, RouteAttributes> {
    keys.iter().map(|k| (k.clone(), RouteAttributes::default())).collect()
}

#[test]
fn the_running_configuration_is_read_per_vrf() {
    let config = RunningConfig::parse(SHOWN).unwrap();
    assert_eq!(config.instances[&Some("red".to_owned())].asn, "1.10");
    let shown: Vec<String> = config.networks().map(|k| format!("{} {:?}", k.prefix, k.vrf)).collect();
    assert_eq!(
        shown,
        ["10.1.0.0/24 None", "10.9.0.0/24 None", "2001:db8:1::/48 None", "10.2.0.0/24 Some(\"red\")"]
    );
    assert_eq!(config.network(&key("10.9.0.0/24", None)), Some(Some("OPERATOR")));
}

#[test]
fn a_cut_configuration_is_an_error_and_never_empty() {
    assert!(RunningConfig::parse("").is_err());
    assert!(RunningConfig::parse(&SHOWN[..SHOWN.len() - 5]).is_err());
}

#[test]
fn case_01_a_vrf_and_both_families_go_where_they_belong_in_one_process() {
    let config = RunningConfig::parse(SHOWN).unwrap();
    let desired =
        wanted(&[key("10.3.0.0/24", None), key("2001:db8:3::/48", None), key("10.4.0.1/32", Some("red"))]);
    let difference = Difference::between(&config, &desired, &desired.keys().cloned().collect()).unwrap();
    let batches = difference.batches(&config).unwrap();
    assert_eq!(
        batches[0],
        [
            "configure terminal",
            "router bgp 65001",
            "address-family ipv4 unicast",
            "network 10.3.0.0/24",
            "exit-address-family",
            "exit",
            "router bgp 65001",
            "address-family ipv6 unicast",
            "network 2001:db8:3::/48",
            "exit-address-family",
            "exit",
            "router bgp 1.10 vrf red",
            "address-family ipv4 unicast",
            "network 10.4.0.1/32",
        ]
    );
}

#[test]
fn case_07_only_our_own_stale_prefixes_are_removed() {
    let config = RunningConfig::parse(SHOWN).unwrap();
    let managed =
        BTreeSet::from([key("10.1.0.0/24", None), key("10.2.0.0/24", Some("red")), key("10.8.0.0/24", None)]);
    let difference = Difference::between(&config, &BTreeMap::new(), &managed).unwrap();
    assert_eq!(difference.withdraw, [key("10.1.0.0/24", None), key("10.2.0.0/24", Some("red"))]);
    let commands = difference.batches(&config).unwrap().concat();
    assert!(!commands.iter().any(|c| c.contains("10.9.0.0") || c.contains("10.8.0.0")), "{commands:?}");
    assert_eq!(commands.last().unwrap(), "no route-map SWITCHOVER-00");
}

#[test]
fn attributes_become_a_route_map_that_is_named_after_its_lines() {
    let config = RunningConfig::parse(SHOWN).unwrap();
    let attributes = RouteAttributes {
        med: Some(50),
        communities: vec!["65001:7".into(), "1:2:3".into(), "rt:1:2".into()],
        as_path_prepend: 2,
        graceful_shutdown: true,
        ..Default::default()
    };
    let desired = BTreeMap::from([(key("10.1.0.0/24", None), attributes.clone())]);
    let difference = Difference::between(&config, &desired, &BTreeSet::new()).unwrap();
    let commands = difference.batches(&config).unwrap().concat();
    let name = RouteMap::of(&attributes).unwrap().unwrap().name("65001");
    for want in [
        format!("route-map {name} permit 10"),
        "set metric 50".to_owned(),
        "set community 65001:7 65535:0".to_owned(),
        "set large-community 1:2:3".to_owned(),
        "set extcommunity rt 1:2".to_owned(),
        "set as-path prepend 65001 65001".to_owned(),
        format!("network 10.1.0.0/24 route-map {name}"),
    ] {
        assert!(commands.contains(&want), "{want} not in {commands:?}");
    }
}

#[test]
fn many_prefixes_are_many_bounded_processes() {
    let config = RunningConfig::parse(SHOWN).unwrap();
    let keys: Vec<PrefixKey> =
        (0..1000).map(|n| key(&format!("10.50.{}.{}/32", n / 250, n % 250), None)).collect();
    let difference = Difference::between(&config, &wanted(&keys), &BTreeSet::new()).unwrap();
    let batches = difference.batches(&config).unwrap();
    assert_eq!(batches.len(), 4, "three of networks and one for the left-over route-map");
    assert!(batches.iter().all(|b| b[0] == "configure terminal" && b.len() <= BATCH + 10));
}

#[test]
fn a_vrf_without_an_instance_is_named() {
    let config = RunningConfig::parse(SHOWN).unwrap();
    let error = Difference::between(&config, &wanted(&[key("10.3.0.0/24", Some("blue"))]), &BTreeSet::new());
    assert_eq!(error.unwrap_err().to_string(), "FRR has no `router bgp` for VRF blue");
}
