//! B4, B5, B7, B8, B10 to B16, B36: what pools and load balancer look like.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use switchover_agent::rules::geo::address::Refused;
use switchover_agent::rules::geo::names::pool_name;
use switchover_agent::rules::geo::select::{Ignored, select};

use crate::bench::{HOST, Instance, POOL, account, addresses, ingress};

#[tokio::test]
async fn b04_a_fresh_account_gets_a_pool_then_a_load_balancer() {
    let server = account().await;
    let report = Instance::eu(&server).pass(&[ingress("c1", &["203.0.113.5"])]).await;
    assert!(report.is_good(), "{report:?}");
    let writes = server.writes();
    let shown: Vec<(&str, &str)> =
        writes.iter().map(|call| (call.method.as_str(), call.target.rsplit('/').next().unwrap())).collect();
    assert_eq!(shown, [("POST", "pools"), ("POST", "load_balancers")]);
    let pool = writes[0].body.clone().unwrap();
    assert_eq!(pool["name"], POOL);
    assert_eq!(
        pool["origins"],
        json!([{"name": "origin-eu", "address": "203.0.113.5", "enabled": true, "weight": 1.0}])
    );
    assert_eq!((&pool["latitude"], &pool["longitude"]), (&json!(50.1109), &json!(8.6821)));
    let id = server.with(|account| account.pool(POOL).unwrap()["id"].clone());
    let balancer = writes[1].body.clone().unwrap();
    assert_eq!(
        balancer,
        json!({"name": HOST, "default_pools": [id], "fallback_pool": id, "proxied": true,
            "steering_policy": "proximity", "ttl": 30})
    );
}

#[tokio::test]
async fn b05_nothing_new_writes_nothing() {
    let server = account().await;
    let instance = Instance::eu(&server);
    let ingresses = [ingress("c1", &["203.0.113.5"])];
    instance.pass(&ingresses).await;
    server.forget();
    for _ in 0..10 {
        assert!(instance.pass(&ingresses).await.is_good());
    }
    assert_eq!(server.writes(), []);
    assert_eq!(server.seen().len(), 20, "two reads each");
}

#[tokio::test]
async fn b06_each_location_s_pool_has_its_coordinates() {
    for (place, latitude, longitude) in [
        ("eu", 50.1109, 8.6821),
        ("us_east", 40.7128, -74.0060),
        ("us_west", 34.0522, -118.2437),
        ("asia", 35.6762, 139.6503),
    ] {
        let server = account().await;
        let instance = Instance::new(&server, place, "o", &[]);
        instance.pass(&[ingress("c1", &["203.0.113.5"])]).await;
        let pool = server.with(|account| account.pools[0].clone());
        assert_eq!(pool["name"], format!("k8s-pool-c1-{place}"));
        assert_eq!((&pool["latitude"], &pool["longitude"]), (&json!(latitude), &json!(longitude)), "{place}");
        // Moved by hand, they are set back, and nothing else is.
        server.with(|account| account.pools[0]["latitude"] = json!(1.5));
        server.forget();
        instance.pass(&[ingress("c1", &["203.0.113.5"])]).await;
        let writes = server.writes();
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].body, Some(json!({"latitude": latitude, "longitude": longitude})), "{place}");
    }
}

#[tokio::test]
async fn b08_a_label_with_a_dot_is_published_and_found_again_by_the_next_start() {
    let server = account().await;
    let given = [ingress("prod.eu", &["203.0.113.5"])];
    assert!(Instance::eu(&server).pass(&given).await.is_good(), "the strict account takes the name");
    server.forget();
    assert!(Instance::eu(&server).pass(&given).await.is_good());
    assert_eq!(server.writes(), [], "another start finds its pool");
}

/// A cluster whose name is spelt as another one's cleaned name: never one pool for both.
#[tokio::test]
async fn names_that_meet_after_cleaning_do_not_share_a_pool() {
    let server = account().await;
    let cleaned = pool_name("prod.eu", "eu");
    let twin = cleaned.strip_prefix("k8s-pool-").unwrap().strip_suffix("-eu").unwrap().to_owned();
    assert_eq!(pool_name(&twin, "eu"), cleaned);
    let given = [ingress("prod.eu", &["203.0.113.5"]), ingress(&twin, &["203.0.113.6"])];
    let instance = Instance::eu(&server);
    let selected = select(&instance.settings.policy, &BTreeSet::new(), &given);
    assert_eq!(selected.clusters.keys().collect::<Vec<_>>(), [&twin]);
    let why: Vec<_> = selected.ignored.iter().map(|(_, name, why)| (name.as_str(), why.clone())).collect();
    assert_eq!(why, [("prod.eu-203.0.113.5", Ignored::NameTaken(twin.clone()))]);
    instance.pass(&given).await;
    assert_eq!(addresses(&server, &cleaned), ["203.0.113.6"]);
    server.forget();
    instance.pass(&given).await;
    assert_eq!(server.writes(), []);
}

/// Cluster `a` at `b-c` and cluster `a-b` at `c` ask for one name: the second keeps off.
#[tokio::test]
async fn a_pool_of_another_cluster_name_is_left_alone() {
    let server = account().await;
    let site = |geo, owner| {
        let coordinates = [("GEO_LATITUDE", "1"), ("GEO_LONGITUDE", "2")];
        Instance::new(&server, geo, owner, &coordinates)
    };
    site("b-c", "owner-a").pass(&[ingress("a", &["203.0.113.5"])]).await;
    server.forget();
    let other = site("c", "owner-b");
    let report = other.pass(&[ingress("a-b", &["203.0.113.6"])]).await;
    assert!(report.foreign.contains("k8s-pool-a-b-c"), "{report:?}");
    assert_eq!(server.writes(), []);
    assert_eq!(addresses(&server, "k8s-pool-a-b-c"), ["203.0.113.5"]);
}

#[tokio::test]
async fn odd_objects_of_others_do_not_stop_us() {
    let server = account().await;
    let instance = Instance::eu(&server);
    let given = [ingress("c1", &["203.0.113.5"])];
    instance.pass(&given).await;
    server.with(|account| {
        account.pools.push(json!({"id": "odd", "name": "somebody-s", "enabled": true, "origins": null}));
    });
    server.forget();
    assert!(instance.pass(&given).await.is_good());
    assert_eq!(server.writes(), []);
    // Our own pool without its origins is another matter: they are not known, so nothing is written.
    edit(&server, POOL, |pool| pool["origins"] = Value::Null);
    assert!(!instance.pass(&[ingress("c1", &["203.0.113.6"])]).await.is_good());
    assert_eq!(server.writes(), []);
}

#[test]
fn b08_illegal_characters_give_a_stable_legal_name() {
    let name = pool_name("prod.eu/1", "eu");
    // Written down: it must never change, or a restart would orphan the pool.
    assert_eq!(name, "k8s-pool-prod-eu-1-ec481c-eu");
    assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
}

#[tokio::test]
async fn b10_names_are_published_unless_they_lead_back() {
    let server = account().await;
    let instance = Instance::eu(&server);
    let loops = BTreeSet::from(["proxied.x.test".to_owned()]);
    let given = [ingress("c1", &["lb.cloud.test", HOST, "proxied.x.test", "a.cdn.cloudflare.net"])];
    let selected = select(&instance.settings.policy, &loops, &given);
    assert_eq!(selected.clusters["c1"], BTreeSet::from(["lb.cloud.test".to_owned()]));
    let why: Vec<_> = selected.ignored.iter().map(|(_, _, why)| why.clone()).collect();
    assert_eq!(why.len(), 3);
    assert!(why.iter().all(|why| matches!(why, Ignored::Address(_, Refused::Loop)) && why.is_mistake()));
    instance.pass(&[ingress("c1", &["LB.cloud.test."])]).await;
    assert_eq!(addresses(&server, POOL), ["lb.cloud.test"]);
}

#[tokio::test]
async fn b11_every_address_becomes_an_origin_in_one_write() {
    let server = account().await;
    let given = [ingress("c1", &["203.0.113.5", "203.0.113.6", "lb.cloud.test"])];
    Instance::eu(&server).pass(&given).await;
    assert_eq!(addresses(&server, POOL).len(), 3);
    let names: BTreeSet<String> = server.with(|account| {
        let origins = account.pool(POOL).unwrap()["origins"].as_array().unwrap().clone();
        origins.iter().map(|o| o["name"].as_str().unwrap().to_owned()).collect()
    });
    assert_eq!(names.len(), 3);
    assert_eq!(server.writes().iter().filter(|call| call.target.contains("/pools")).count(), 1);
}

#[tokio::test]
async fn b12_a_new_address_replaces_the_old_one() {
    let server = account().await;
    let instance = Instance::eu(&server);
    instance.pass(&[ingress("c1", &["203.0.113.5"])]).await;
    server.forget();
    instance.pass(&[ingress("c1", &["203.0.113.6"])]).await;
    assert_eq!(addresses(&server, POOL), ["203.0.113.6"]);
    let writes = server.writes();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(writes[0].method, "PATCH");
}

fn edit(server: &switchover_agent::lab::cloudflare::Server, pool: &str, change: impl FnOnce(&mut Value)) {
    server.with(|account| change(account.pool_mut(pool).unwrap()));
}

#[tokio::test]
async fn b13_foreign_origins_stay() {
    let server = account().await;
    let instance = Instance::eu(&server);
    instance.pass(&[ingress("c1", &["203.0.113.5"])]).await;
    let manual = json!({"name": "manual-1", "address": "198.51.100.7", "enabled": true, "weight": 0.3,
        "header": {"Host": ["m.test"]}, "flatten_cname": true});
    let kept = manual.clone();
    edit(&server, POOL, |pool| pool["origins"].as_array_mut().unwrap().push(manual));
    for address in ["203.0.113.6", "203.0.113.7"] {
        instance.pass(&[ingress("c1", &[address])]).await;
        assert_eq!(addresses(&server, POOL), ["198.51.100.7", address]);
    }
    assert_eq!(server.with(|account| account.pool(POOL).unwrap()["origins"][0].clone()), kept);
}

#[tokio::test]
async fn b14_a_person_s_drain_and_weight_stay_unless_enforced() {
    let server = account().await;
    let given = [ingress("c1", &["203.0.113.5"])];
    let instance = Instance::eu(&server);
    instance.pass(&given).await;
    edit(&server, POOL, |pool| {
        pool["origins"][0]["enabled"] = json!(false);
        pool["origins"][0]["weight"] = json!(0.2);
    });
    server.forget();
    instance.pass(&given).await;
    assert_eq!(server.writes(), []);
    Instance::new(&server, "eu", "owner-a", &[("CF_ENFORCE", "true")]).pass(&given).await;
    let origin = server.with(|account| account.pool(POOL).unwrap()["origins"][0].clone());
    assert_eq!((&origin["enabled"], &origin["weight"]), (&json!(false), &json!(1.0)));
}

#[tokio::test]
async fn b15_operators_settings_survive_every_change() {
    let server = account().await;
    let instance = Instance::eu(&server);
    instance.pass(&[ingress("c1", &["203.0.113.5"])]).await;
    server.with(|account| {
        account.monitors.push(json!({"id": "m1", "type": "https"}));
        let pool = account.pool_mut(POOL).unwrap();
        pool["monitor"] = json!("m1");
        pool["notification_email"] = json!("ops@x.test");
        pool["minimum_origins"] = json!(2);
        let id = pool["id"].clone();
        let balancer = &mut account.balancers[0];
        balancer["session_affinity"] = json!("cookie");
        balancer["rules"] = json!([{"name": "r", "condition": "true"}]);
        balancer["region_pools"] = json!({"WEU": [id]});
    });
    let rest = |mut value: Value, changed: &[&str]| {
        for field in changed {
            value[*field] = Value::Null;
        }
        value.to_string()
    };
    let pool = || server.with(|account| account.pool(POOL).unwrap().clone());
    let balancer = || server.with(|account| account.balancers[0].clone());
    let (pool_before, balancer_before) = (pool(), balancer());
    instance.pass(&[ingress("c1", &["203.0.113.6"])]).await;
    let east = Instance::new(&server, "us_east", "owner-b", &[]);
    east.pass(&[ingress("c2", &["203.0.113.9"])]).await;
    let changed = ["origins", "modified_on"];
    assert_eq!(rest(pool(), &changed), rest(pool_before, &changed));
    let changed = ["default_pools", "modified_on"];
    assert_eq!(rest(balancer(), &changed), rest(balancer_before, &changed));
    assert_eq!(server.with(|account| account.default_pools(HOST)).len(), 2);
}

#[tokio::test]
async fn b16_a_foreign_pool_and_fallback_stay() {
    let server = account().await;
    server.with(|account| {
        let base = "/accounts/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/load_balancers/pools";
        let body = json!({"name": "p0", "origins": [{"name": "o", "address": "198.51.100.1"}]});
        let (status, reply) = account.handle("POST", base, Some(&body));
        assert_eq!(status, 200);
        let id = reply["result"]["id"].clone();
        let body = json!({"name": HOST, "default_pools": [id], "fallback_pool": id});
        let zone = "/zones/00000000000000000000000000000001/load_balancers";
        assert_eq!(account.handle("POST", zone, Some(&body)).0, 200);
    });
    Instance::eu(&server).pass(&[ingress("c1", &["203.0.113.5"])]).await;
    assert_eq!(server.with(|account| account.default_pools(HOST)), ["p0", POOL]);
    let same =
        server.with(|account| account.balancers[0]["fallback_pool"] == account.pool("p0").unwrap()["id"]);
    assert!(same);
}

#[tokio::test]
async fn b36_private_addresses_need_a_virtual_network() {
    let server = account().await;
    let given = [ingress("c1", &["10.0.0.5"])];
    let instance = Instance::eu(&server);
    let selected = select(&instance.settings.policy, &BTreeSet::new(), &given);
    let why = selected.ignored.iter().next().unwrap().2.clone();
    assert_eq!(why, Ignored::Address("10.0.0.5".into(), Refused::Private));
    assert!(why.sentence().contains("private"));
    instance.pass(&given).await;
    assert_eq!(server.writes(), []);
    let network = [("CF_VIRTUAL_NETWORK_ID", "vnet-1")];
    Instance::new(&server, "eu", "owner-a", &network).pass(&given).await;
    let origin = server.with(|account| account.pool(POOL).unwrap()["origins"][0].clone());
    assert_eq!(origin["virtual_network_id"], "vnet-1");
}

#[tokio::test]
async fn a_predecessor_s_pool_is_taken_over() {
    let server = account().await;
    server.with(|account| {
        let base = "/accounts/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/load_balancers/pools";
        let body = json!({"name": POOL, "description": "prod", "latitude": 50.1109, "longitude": 8.6821,
            "origins": [{"name": "origin-eu", "address": "203.0.113.4", "weight": 0.5}]});
        assert_eq!(account.handle("POST", base, Some(&body)).0, 200);
    });
    Instance::eu(&server).pass(&[ingress("c1", &["203.0.113.5"])]).await;
    assert_eq!(addresses(&server, POOL), ["203.0.113.5"]);
    let description = server.with(|account| account.pool(POOL).unwrap()["description"].clone());
    assert!(description.as_str().unwrap().starts_with("prod managed-by="), "{description}");
}

#[tokio::test]
async fn allow_lists_keep_strangers_out() {
    let server = account().await;
    let lists =
        [("NAMESPACE", "web"), ("GEO_ALLOWED_CIDRS", "203.0.113.0/24"), ("GEO_ALLOWED_CLUSTERS", "c1,c2")];
    let policy = Instance::new(&server, "eu", "owner-a", &lists).settings.policy;
    let mut elsewhere = ingress("c1", &["203.0.113.8"]);
    elsewhere.namespace = "evil".into();
    let given = [
        ingress("c1", &["203.0.113.5", "198.51.100.1", "name.test"]),
        ingress("c3", &["203.0.113.9"]),
        elsewhere,
    ];
    let selected = select(&policy, &BTreeSet::new(), &given);
    assert_eq!(selected.clusters.len(), 1);
    assert_eq!(selected.clusters["c1"], BTreeSet::from(["203.0.113.5".to_owned()]));
    assert_eq!(selected.ignored.len(), 4);
}
