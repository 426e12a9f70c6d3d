//! B1 to B3, B6: settings.

use std::collections::BTreeMap;

use switchover_agent::config::Reader;
use switchover_agent::config::geo::read;

use crate::bench::settings;

#[test]
fn b01_all_missing_keys_are_named_at_once() {
    let env = BTreeMap::new();
    let mut reader = Reader::new(&env);
    read(&mut reader);
    let problems = reader.into_problems();
    for name in ["CF_API_TOKEN", "CF_ACCOUNT_ID", "CF_ZONE_ID", "GEO_LOCATION", "CF_LB_HOSTNAME"] {
        assert!(problems.iter().any(|problem| problem.setting == name), "{name}: {problems:?}");
    }
}

/// The real command: one message, exit 78, and neither API hears of it.
#[test]
fn b01_the_command_says_so_and_contacts_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for arguments in [vec!["geo"], vec!["geo", "--dry-run"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_switchover-agent"))
            .args(arguments)
            .env_clear()
            .envs([("CF_API_BASE", &url), ("KUBE_API_URL", &url), ("GEO_LOCATION", &"mars".to_owned())])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{text}");
        for name in ["CF_API_TOKEN", "CF_ACCOUNT_ID", "CF_ZONE_ID", "CF_LB_HOSTNAME", "GEO_LOCATION=\"mars\""]
        {
            assert!(text.contains(name), "{name}: {text}");
        }
        assert!(text.contains("eu, us_east, us_west or asia"), "{text}");
    }
    assert!(listener.accept().is_err(), "nothing was contacted");
}

#[test]
fn b02_a_wrong_location_names_the_legal_ones() {
    for text in ["EU", "mars"] {
        let problems = settings("http://h", text, "o", &[]).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        for legal in [text, "eu", "us_east", "us_west", "asia"] {
            assert!(problems[0].contains(legal), "{problems:?}");
        }
    }
}

#[test]
fn b03_weights_are_checked_and_old_ones_divided() {
    for text in ["abc", "-1", "101", "nan"] {
        assert!(settings("http://h", "eu", "o", &[("CF_ORIGIN_WEIGHT", text)]).is_err(), "{text}");
    }
    for (text, hundredths, warns) in
        [("33", 33, true), ("0.5", 50, false), ("0", 0, false), ("1", 100, false)]
    {
        let settings = settings("http://h", "eu", "o", &[("CF_ORIGIN_WEIGHT", text)]).unwrap();
        assert_eq!(settings.policy.weight, hundredths, "{text}");
        assert_eq!(settings.warnings.iter().any(|w| w.contains("CF_ORIGIN_WEIGHT")), warns, "{text}");
    }
}

#[test]
fn b06_each_location_has_its_coordinates() {
    for (name, latitude, longitude) in [
        ("eu", 501_109, 86_821),
        ("us_east", 407_128, -740_060),
        ("us_west", 340_522, -1_182_437),
        ("asia", 356_762, 1_396_503),
    ] {
        let policy = settings("http://h", name, "o", &[]).unwrap().policy;
        assert_eq!((policy.latitude, policy.longitude), (latitude, longitude), "{name}");
    }
}

#[test]
fn a_custom_site_needs_both_coordinates() {
    let both = [("GEO_LATITUDE", "48.2082"), ("GEO_LONGITUDE", "16.3738")];
    let policy = settings("http://h", "vienna", "o", &both).unwrap().policy;
    assert_eq!((policy.geo.as_str(), policy.latitude, policy.longitude), ("vienna", 482_082, 163_738));
    assert!(settings("http://h", "vienna", "o", &both[..1]).is_err());
    assert!(settings("http://h", "vienna", "o", &[("GEO_LATITUDE", "91"), both[1]]).is_err());
}

#[test]
fn other_malformed_settings_are_refused() {
    for (name, value) in [
        ("CF_LB_HOSTNAME", "nodots"),
        ("CF_ACCOUNT_ID", "abc"),
        ("ON_EMPTY", "explode"),
        ("LABEL_SELECTOR", "a=(b"),
        ("GEO_ALLOWED_CIDRS", "203.0.113.0"),
        ("CF_STEERING_POLICY", "magic"),
        ("CF_MONITOR_TYPE", "tcp"),
        ("GEO_OWNER", "a b"),
        ("CLUSTER_NAME", "my cluster"),
        ("LEADER_ELECT", "true"),
    ] {
        assert!(settings("http://h", "eu", "o", &[(name, value)]).is_err(), "{name}={value}");
    }
}
