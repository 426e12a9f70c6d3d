//! Every name of the Go predecessor's metrics with its labels, out of the real process.

use std::net::TcpListener as StdListener;
use std::net::UdpSocket;

use serde_json::json;

use crate::bgp_lab::{BIRD, until};
use crate::own_speaker::{file, lab, routes};
use crate::{Agent, fetch};

/// A time server that tells the time.
fn time_server() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut question = [0_u8; 512];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let unix = std::time::UNIX_EPOCH.elapsed().unwrap();
            let seconds = (unix.as_secs() + 2_208_988_800) as u32;
            let fraction = ((u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000) as u32;
            let now = [seconds.to_be_bytes(), fraction.to_be_bytes()].concat();
            let mut answer = [0_u8; 48];
            answer[..4].copy_from_slice(&[0x24, 2, 4, 0xE8]);
            answer[16..24].copy_from_slice(&now);
            answer[24..32].copy_from_slice(&question[40..48]);
            answer[32..40].copy_from_slice(&now);
            answer[40..48].copy_from_slice(&now);
            let _ = socket.send_to(&answer, from);
        }
    });
    address.to_string()
}

#[tokio::test]
async fn case_41_every_name_comes_out_of_the_real_process_with_its_labels() {
    let Some(lab) = lab() else { return };
    let free = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let authority = rcgen::generate_simple_self_signed(vec!["example.test".to_owned()]).unwrap();
    let pem = lab.file("cert.pem", &authority.cert.pem());
    let server = time_server();
    let mut text = file(&lab, BIRD);
    text["metrics"] = json!({ "enabled": true, "address": free });
    let checks = text["services"][0]["checks"].as_array_mut().unwrap();
    checks.push(json!({ "kind": "icmp_ping", "spec": {
        "static": { "host": "127.0.0.1" }, "tries": 2, "interval": "10ms", "timeout": "5s" } }));
    checks.push(json!({ "kind": "tls_certificate", "spec": { "local": { "path": pem } } }));
    checks.push(json!({ "kind": "ntpq", "spec": { "server": server, "src_addr": "127.0.0.1",
        "offset_threshold": "10s", "tries": 1, "interval": "10ms", "timeout": "5s" } }));
    let agent = Agent::start(lab.dir.path(), &lab.file("config.json", &text.to_string()));
    routes(&lab, &["203.0.113.1/32", "203.0.113.2/32"]).await;
    let scrape = || fetch(&free, "/metrics").unwrap_or_default();
    let established = |text: &str| {
        text.lines().any(|line| line.starts_with("anycastd_gobgp_peer_session_state") && line.ends_with(" 6"))
            && text.contains("anycastd_check_last_ntp_rtt_ms")
            && text.contains("anycastd_session_established")
            && text
                .lines()
                .any(|line| line.starts_with("anycastd_advertised_prefixes{") && line.ends_with(" 2"))
    };
    until("everything was shown once", async || established(&scrape())).await;
    let text = scrape();
    let labels_of = |name: &str| -> Option<Vec<String>> {
        let line = text.lines().find(|line| line.split(['{', ' ']).next() == Some(name))?;
        let inside = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let mut names: Vec<String> =
            inside.split("\",").filter_map(|pair| pair.split_once('=')).map(|(n, _)| n.to_owned()).collect();
        names.sort();
        Some(names)
    };
    let want = |name: &str, labels: &[&str]| {
        let found = labels_of(name).unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
        assert_eq!(found, labels, "labels of {name}");
    };
    want("anycastd_up", &["version"]);
    want("anycastd_service_up", &["service"]);
    want("anycastd_check_duration_seconds", &["check", "service"]);
    want("anycastd_certificate_expires_in_seconds", &["check", "path"]);
    let of_host =
        ["max_rtt_seconds", "min_rtt_seconds", "avg_rtt_seconds", "std_dev_rtt_seconds", "loss_percent"];
    let packets = ["packets_sent_total", "packets_received_total", "packets_received_duplicates_total"];
    let ntp = ["last_ntp_offset_ms", "last_ntp_rtt_ms", "ntp_packets_sent_total"];
    for name in of_host.iter().chain(&packets).chain(&ntp) {
        want(&format!("anycastd_check_{name}"), &["check", "host"]);
    }
    want("anycastd_gobgp_peer_count", &["router_id"]);
    for name in [
        "admin_state",
        "session_state",
        "type",
        "flops_count",
        "out_queue_count",
        "send_community_flag",
        "remove_private_flag",
        "password_set_flag",
    ] {
        want(&format!("anycastd_gobgp_peer_{name}"), &["peer", "router_id"]);
    }
    for direction in ["received", "sent"] {
        for name in [
            "total",
            "notification",
            "update",
            "open",
            "keepalive",
            "refresh",
            "withdraw_update",
            "withdraw_prefix",
        ] {
            want(&format!("anycastd_gobgp_{direction}_messages_{name}"), &["peer", "router_id"]);
        }
    }
    // The same told right, beside them.
    want("anycastd_certificate_expiry_timestamp_seconds", &["check", "service", "target"]);
    want("anycastd_prefix_announced", &["announcer", "prefix"]);
    want("anycastd_advertised_prefixes", &["peer", "router_id"]);
    want("anycastd_session_established_timestamp_seconds", &["peer", "router_id"]);
    want("anycastd_check_up", &["check", "kind", "service"]);
    want("anycastd_state_changes_total", &["service", "to"]);
    want("anycastd_build_info", &["version"]);
    want("process_start_time_seconds", &[]);
    want("promhttp_metric_handler_requests_total", &["code"]);
    // Values that dashboards rely on: negative while valid, and the counters are counters.
    let value = |start: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("anycastd_certificate_expires_in_seconds{") < 0.0);
    assert_eq!(value("anycastd_advertised_prefixes{"), 2.0);
    for name in packets.iter().chain(&ntp[2..]) {
        let counter = format!("# TYPE anycastd_check_{name} counter");
        assert!(text.contains(&counter), "{counter}");
    }
    assert!(fetch(&free, "/").is_some_and(|body| !body.contains("anycastd")), "no other path");
    // A notification and failed withdrawals exist only once they happened.
    lab.birdc("disable agent");
    until("the notification", async || {
        labels_of_now(&scrape(), "anycastd_last_notification").is_some_and(|line| line.contains("received"))
    })
    .await;
    drop(agent);
}

fn labels_of_now(text: &str, name: &str) -> Option<String> {
    text.lines().find(|line| line.starts_with(name)).map(str::to_owned)
}
