//! The simulations refuse what the real APIs refuse: a simulation that takes everything proves nothing.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use switchover_agent::adapters::wire::{Got, Sent, Wire};
use switchover_agent::lab::compute::{API_PATH, Cloud, LAB_BASE};
use switchover_agent::lab::front::Front;
use switchover_agent::lab::magic_transit;

use crate::bench::{Bench, EAST, NETWORK, OTHER, PRIMARY, SERVICES, deadline, group, magic};

const ROUTER: &str = "/projects/net-project/regions/us-east4/routers/router-east";

async fn call(wire: &Wire, method: Method, url: String, token: &str, body: Option<&Value>) -> Got {
    let sent = Sent::new(method, url).bearer(token);
    let sent = match body {
        Some(body) => sent.json(body),
        None => sent,
    };
    wire.send(sent, "test", Duration::from_secs(5)).await.unwrap()
}

/// A cloud and a token that is good for it.
async fn ready() -> (Front<Cloud>, String) {
    let bench = Bench::new();
    bench.compute.check_project(SERVICES, deadline()).await.unwrap();
    let mut token = String::new();
    for n in 1..10 {
        let candidate = format!("ya29.lab-{n}");
        let url = format!("{LAB_BASE}{API_PATH}/projects/{SERVICES}");
        if call(&bench.cloud.wire(), Method::GET, url, &candidate, None).await.status == 200 {
            token = candidate;
        }
    }
    (bench.cloud, token)
}

#[tokio::test(start_paused = true)]
async fn compute_refuses_patches_that_the_api_refuses() {
    let (cloud, token) = ready().await;
    let ranges = |list: Value| json!({"bgp": {"advertisedIpRanges": list}});
    let many: Vec<Value> = (0..201).map(|n| json!({"range": format!("10.{n}.0.0/16")})).collect();
    for (body, status, reason) in [
        (json!({"fingerprint": "x"}), 400, "badRequest"),
        (json!({"bgp": {"advertisedRanges": []}}), 400, "badRequest"),
        (ranges(json!([{"range": PRIMARY, "priority": 1}])), 400, "badRequest"),
        (ranges(json!([{"range": "10.0.0.5/24"}])), 400, "invalid"),
        (ranges(json!([{"range": "nonsense"}])), 400, "invalid"),
        (ranges(json!([{"range": PRIMARY}, {"range": PRIMARY}])), 400, "invalid"),
        (ranges(json!({"range": PRIMARY})), 400, "badRequest"),
        (ranges(Value::Array(many)), 400, "invalid"),
        (json!({"bgp": {"advertiseMode": "DEFAULT"}}), 400, "invalid"),
        (json!({"bgp": {"asn": 1}}), 400, "invalid"),
        (json!({"name": "another"}), 400, "invalid"),
        (json!({"bgpPeers": [{"name": "x", "peerAsn": 1, "interfaceName": "nowhere"}]}), 400, "invalid"),
        (json!({"bgpPeers": [{"name": "x", "interfaceName": "if-peer-a"}]}), 400, "required"),
    ] {
        let url = format!("{LAB_BASE}{API_PATH}{ROUTER}");
        let got = call(&cloud.wire(), Method::PATCH, url, &token, Some(&body)).await;
        let said = got.json().unwrap();
        assert_eq!(
            (got.status, said["error"]["errors"][0]["reason"].as_str()),
            (status, Some(reason)),
            "{body}"
        );
    }
    assert_eq!(cloud.with(|cloud| cloud.listed(&crate::bench::east_router())), [OTHER, PRIMARY]);
}

#[tokio::test(start_paused = true)]
async fn compute_refuses_calls_that_the_api_refuses() {
    let (cloud, token) = ready().await;
    let services = format!("/projects/{SERVICES}/regions/{EAST}/backendServices");
    let health = format!("{services}/edge/getHealth");
    let body = |group: &str| Some(json!({ "group": group }));
    let good = group(EAST, 0);
    let strange = Some(json!({"group": good, "zone": "x"}));
    let patch = Some(json!({"bgp": {"advertisedIpRanges": []}}));
    for (method, path, token, body, status) in [
        ("GET", services.clone(), "ya29.unknown", None, 401),
        ("GET", services.clone(), token.as_str(), None, 200),
        ("POST", services.clone(), token.as_str(), body(&good), 404),
        ("GET", format!("{services}?maxResults=501"), token.as_str(), None, 400),
        ("GET", format!("{services}?pageToken=made-up"), token.as_str(), None, 400),
        ("GET", format!("{services}?pagetoken=1"), token.as_str(), None, 400),
        ("GET", format!("{services}?filter=colour%20%3D%20blue"), token.as_str(), None, 400),
        ("POST", health.clone(), token.as_str(), body(&good), 200),
        ("POST", health.clone(), token.as_str(), body(&group(EAST, 77)), 400),
        ("POST", health.clone(), token.as_str(), Some(json!({})), 400),
        ("POST", health.clone(), token.as_str(), strange, 400),
        ("POST", health.clone(), token.as_str(), None, 400),
        ("GET", health, token.as_str(), None, 404),
        ("GET", format!("/projects/{SERVICES}{}", &ROUTER[21..]), token.as_str(), None, 404),
        ("PUT", ROUTER.to_owned(), token.as_str(), patch.clone(), 404),
        ("PATCH", format!("{ROUTER}?requestId=1"), token.as_str(), patch, 400),
        ("GET", format!("/projects/{NETWORK}/regions/{EAST}/operations/none"), token.as_str(), None, 404),
    ] {
        let url = format!("{LAB_BASE}{API_PATH}{path}");
        let method: Method = method.parse().unwrap();
        let got = call(&cloud.wire(), method.clone(), url, token, body.as_ref()).await;
        assert_eq!(got.status, status, "{method} {path}: {:?}", got.json());
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_token_is_good_for_its_own_question_only() {
    let (cloud, token) = ready().await;
    cloud.with(|cloud| {
        cloud.page_size = 1;
        cloud.add_service(SERVICES, EAST, "second", &[]);
    });
    let services = format!("{LAB_BASE}{API_PATH}/projects/{SERVICES}/regions/{EAST}/backendServices");
    let first = call(&cloud.wire(), Method::GET, format!("{services}?maxResults=500"), &token, None).await;
    let next =
        first.json().unwrap()["nextPageToken"].as_str().unwrap().replace('=', "%3D").replace('/', "%2F");
    for (query, status) in [("maxResults=500", 200), ("maxResults=10", 400)] {
        let url = format!("{services}?{query}&pageToken={next}");
        let got = call(&cloud.wire(), Method::GET, url, &token, None).await;
        assert_eq!(got.status, status, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_and_the_same_request_is_the_same_operation() {
    let (cloud, token) = ready().await;
    let id = "0b7e3b8e-52a1-4c1c-9f0e-1f6a8f0b7e3b";
    let url = format!("{LAB_BASE}{API_PATH}{ROUTER}?requestId={id}");
    let body = json!({"bgp": {"advertisedIpRanges": [{"range": PRIMARY}]}});
    let name = async |body: &Value| {
        let got = call(&cloud.wire(), Method::PATCH, url.clone(), &token, Some(body)).await;
        (got.status, got.json().unwrap()["name"].as_str().map(str::to_owned))
    };
    let first = name(&body).await;
    assert_eq!(first, name(&body).await);
    assert_eq!(name(&json!({"bgp": {"advertisedIpRanges": []}})).await.0, 400, "another body");
    let second = format!("{LAB_BASE}{API_PATH}{ROUTER}");
    let busy = call(&cloud.wire(), Method::PATCH, second, &token, Some(&body)).await;
    assert_eq!(busy.json().unwrap()["error"]["errors"][0]["reason"], "resourceNotReady");
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(call(&cloud.wire(), Method::GET, url, &token, None).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn magic_transit_refuses_what_the_api_refuses() {
    let magic = magic();
    let routes = format!(
        "http://localhost{}/accounts/{}/magic/routes",
        magic_transit::API_PATH,
        magic_transit::ACCOUNT
    );
    let id = magic.ids[0].as_str();
    let good = json!({"id": id, "prefix": PRIMARY, "nexthop": "10.1.0.1", "priority": 100});
    let change = |field: &str, value: Value| {
        let mut entry = good.clone();
        entry[field] = value;
        json!({ "routes": [entry] })
    };
    for (body, status) in [
        (json!({}), 400),
        (json!({"routes": []}), 400),
        (json!({"routes": [good], "force": true}), 400),
        (json!({"routes": [good, good]}), 400),
        (change("id", json!("ffff")), 404),
        (change("prefix", Value::Null), 400),
        (change("prefix", json!("192.0.2.7/24")), 400),
        (change("nexthop", json!("gateway")), 400),
        (change("priority", json!("100")), 400),
        (change("weight", json!(0)), 400),
        (change("scope", json!({"colos": []})), 400),
        (change("created_on", json!("2026")), 400),
    ] {
        let got =
            call(&magic.account.wire(), Method::PUT, routes.clone(), magic_transit::TOKEN, Some(&body)).await;
        assert_eq!(got.status, status, "{body}: {:?}", got.json());
    }
    let body = json!({ "routes": [good] });
    let wrong = call(&magic.account.wire(), Method::PUT, routes.clone(), "another", Some(&body)).await;
    assert_eq!(wrong.status, 403);
    let patch =
        call(&magic.account.wire(), Method::PATCH, routes.clone(), magic_transit::TOKEN, Some(&body)).await;
    assert_eq!(patch.status, 405);
    let put = call(&magic.account.wire(), Method::PUT, routes, magic_transit::TOKEN, Some(&body)).await;
    assert_eq!(put.status, 200);
    let route = magic.account.with(|account| account.routes[0].clone());
    assert!(route["scope"].is_null() && route["weight"].is_null(), "what is not named is gone: {route}");
}
