//! The FRR announcer against FRRouting, and against a `vtysh` that misbehaves.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use switchover_agent::announce::frr::{FrrAnnouncer, Standing, Vtysh};
use switchover_agent::announce::{Announcer, PrefixKey, RouteAttributes, Shutdown};

use crate::bgp_lab::daemons::Peering;
use crate::bgp_lab::{FRR, Lab, asn, until};
use crate::{plain, routes};

fn vtysh(lab: &Lab) -> Vtysh {
    Vtysh { arguments: vec!["-N".to_owned(), lab.frr_name()], ..Vtysh::default() }
}

fn started(globals: &str) -> Option<(Lab, FrrAnnouncer)> {
    let mut lab = Lab::new(&["bgpd", "zebra", "vtysh"])?;
    lab.start_frr(&Peering { globals: globals.to_owned(), ..Peering::with(65001) }, &["zebra", "bgpd"]);
    let managed = plain(&["203.0.113.1/32", "203.0.113.2/32", "2001:db8:53::/48"]).into_keys().collect();
    let announcer = FrrAnnouncer::new("frr", vtysh(&lab), managed);
    Some((lab, announcer))
}

fn networks(lab: &Lab) -> Vec<String> {
    let text = lab.vtysh(&["show running-config bgpd"]).unwrap();
    text.lines().filter(|l| l.trim().starts_with("network")).map(|l| l.trim().to_owned()).collect()
}

#[tokio::test]
async fn case_01_02_03_prefixes_of_both_families_and_a_vrf_come_and_go_and_rest_in_between() {
    let Some((lab, mut announcer)) = started(&format!("router bgp {} vrf red\n", asn(FRR))) else { return };
    let mut desired = plain(&["203.0.113.1/32", "2001:db8:53::/48"]);
    let red = PrefixKey { prefix: "203.0.113.2/32".parse().unwrap(), vrf: Some("red".to_owned()) };
    desired.insert(red.clone(), RouteAttributes::default());
    let changes = announcer.set(&desired).await.unwrap();
    assert_eq!(changes.announced.len(), 3);
    assert_eq!(
        networks(&lab),
        ["network 203.0.113.1/32", "network 2001:db8:53::/48", "network 203.0.113.2/32"]
    );
    assert_eq!(announcer.current().await.unwrap(), desired.keys().cloned().collect());
    let again = announcer.set(&desired).await.unwrap();
    assert!(again.announced.is_empty() && again.withdrawn.is_empty(), "nothing to do: {again:?}");
    let changes = announcer.set(&BTreeMap::new()).await.unwrap();
    assert!(changes.withdrawn.contains(&red) && changes.withdrawn.len() == 3);
    assert_eq!(networks(&lab), Vec::<String>::new());
}

#[tokio::test]
async fn case_04_a_prefix_that_somebody_else_removed_is_no_error() {
    let Some((lab, mut announcer)) = started("") else { return };
    announcer.set(&plain(&["203.0.113.1/32"])).await.unwrap();
    lab.vtysh(&[
        "configure terminal",
        &format!("router bgp {}", asn(FRR)),
        "address-family ipv4 unicast",
        "no network 203.0.113.1/32",
    ])
    .unwrap();
    let changes = announcer.set(&BTreeMap::new()).await.unwrap();
    assert!(changes.withdrawn.is_empty());
}

#[tokio::test]
async fn case_05_a_slow_or_locked_vtysh_is_waited_for_and_tried_again() {
    let Some((lab, mut announcer)) = started("") else { return };
    let count = lab.path("count");
    let script = lab.file(
        "vtysh.sh",
        &format!(
            "#!/bin/sh\necho x >> {count}\ncase $(wc -l < {count}) in\n1) sleep 4;;\n\
             2) echo 'Another process holds the configuration lock' >&2; exit 1;;\n3) sleep 60;;\nesac\n\
             exec /usr/bin/vtysh \"$@\"\n"
        ),
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let slow = Vtysh { path: script.into(), timeout: Duration::from_secs(6), ..vtysh(&lab) };
    let mut other = FrrAnnouncer::new("slow", slow, announcer.current().await.unwrap());
    let changes = other.set(&plain(&["203.0.113.1/32"])).await.unwrap();
    assert_eq!(changes.announced.len(), 1);
    assert_eq!(networks(&lab), ["network 203.0.113.1/32"]);
}

#[tokio::test]
async fn case_06_a_restarted_bgpd_gets_its_prefixes_again_and_a_stopped_one_is_not_empty() {
    let Some((mut lab, mut announcer)) = started("") else { return };
    let desired = plain(&["203.0.113.1/32"]);
    announcer.set(&desired).await.unwrap();
    lab.kill("bgpd");
    until("FRR is seen to be down", async || announcer.current().await.is_err()).await;
    let error = announcer.set(&desired).await.unwrap_err();
    assert_eq!(error.kind, switchover_agent::model::FailureKind::Transient, "{error}");
    lab.start_frr_daemon("bgpd");
    until("bgpd is back", async || lab.vtysh(&["show bgp vrfs"]).is_ok()).await;
    lab.vtysh(&["configure terminal", &format!("router bgp {}", asn(FRR))]).unwrap();
    let changes = announcer.set(&desired).await.unwrap();
    assert_eq!(changes.announced.len(), 1);
}

#[tokio::test]
async fn case_07_a_prefix_left_by_a_crash_goes_and_a_foreign_one_stays() {
    let Some((lab, mut announcer)) = started("") else { return };
    lab.vtysh(&[
        "configure terminal",
        &format!("router bgp {}", asn(FRR)),
        "address-family ipv4 unicast",
        "network 203.0.113.1/32",
        "network 198.51.100.0/24",
    ])
    .unwrap();
    announcer.set(&BTreeMap::new()).await.unwrap();
    assert_eq!(networks(&lab), ["network 198.51.100.0/24"]);
}

#[tokio::test]
async fn case_08_shutdown_withdraws_every_prefix() {
    let Some((lab, mut announcer)) = started("") else { return };
    announcer.set(&plain(&["203.0.113.1/32", "203.0.113.2/32", "2001:db8:53::/48"])).await.unwrap();
    let how = Shutdown::Withdraw { drain_ms: 2_000, reason: "test".to_owned() };
    let ending = tokio::spawn(async move { announcer.shutdown(how).await });
    until("the routes carry GRACEFUL_SHUTDOWN", async || {
        lab.frr_route("203.0.113.2/32").to_string().contains("gracefulShutdown")
    })
    .await;
    ending.await.unwrap();
    assert_eq!(networks(&lab), Vec::<String>::new());
    assert!(!lab.vtysh(&["show running-config"]).unwrap().contains("SWITCHOVER-"));
}

#[tokio::test]
async fn case_09_import_check_without_the_route_is_told() {
    let Some((lab, mut announcer)) = started("") else { return };
    lab.vtysh(&["configure terminal", &format!("router bgp {}", asn(FRR)), "bgp network import-check"])
        .unwrap();
    let desired = plain(&["203.0.113.1/32"]);
    announcer.set(&desired).await.unwrap();
    let key = desired.keys().next().unwrap();
    until("FRR has looked for the route", async || {
        announcer.diagnose().await.is_ok_and(|s| s[key] == Standing::NoRibRoute)
    })
    .await;
    assert_eq!(announcer.standing()[key].to_string(), "configured, not advertised: no RIB route");
    lab.inside(&["ip", "addr", "add", "203.0.113.1/32", "dev", "lo"]).unwrap();
    until("the address makes the route valid", async || {
        announcer.diagnose().await.is_ok_and(|s| s[key] == Standing::Advertised)
    })
    .await;
}

#[tokio::test]
async fn attributes_reach_frr_as_a_route_map_and_leave_with_the_route() {
    let Some((lab, mut announcer)) = started("") else { return };
    let attributes = RouteAttributes {
        med: Some(50),
        communities: vec!["65001:7".into(), "1:2:3".into(), "rt:1:2".into()],
        as_path_prepend: 2,
        ..RouteAttributes::default()
    };
    lab.vtysh(&["configure terminal", &format!("router bgp {}", asn(FRR)), "no bgp network import-check"])
        .unwrap();
    announcer.set(&routes(&[("203.0.113.1/32", attributes)])).await.unwrap();
    until("FRR has the attributes", async || {
        let route = lab.frr_route("203.0.113.1/32");
        route["metric"] == 50
            && route["community"]["string"] == "65001:7"
            && route["largeCommunity"]["string"] == "1:2:3"
            && route["extendedCommunity"]["string"] == "RT:1:2"
            && route["aspath"]["string"] == "65002 65002"
    })
    .await;
    announcer.set(&BTreeMap::new()).await.unwrap();
    assert!(!lab.vtysh(&["show running-config"]).unwrap().contains("SWITCHOVER-"));
}
