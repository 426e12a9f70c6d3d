//! Every fault bites and is lifted: DNS, API, watches, the line between the agents.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use http::StatusCode;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::json;
use switchover_agent::lab::cut;
use switchover_agent::lab::faults::Fault;
use switchover_agent::lab::names::{View, view};
use switchover_agent::model::Side;

use crate::*;

async fn ask(server: SocketAddr, name: &str) -> Result<Vec<Ipv4Addr>, String> {
    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    let mut servers = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut servers.connections {
        connection.port = server.port();
    }
    let config = ResolverConfig::from_parts(None, vec![], vec![servers]);
    let mut builder =
        hickory_resolver::TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.options_mut().attempts = 1;
    builder.options_mut().timeout = Duration::from_millis(500);
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let answer = resolver.ipv4_lookup(format!("{name}.")).await.map_err(|error| error.to_string())?;
    Ok(answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            hickory_resolver::proto::rr::RData::A(address) => Some(address.0),
            _ => None,
        })
        .collect())
}

#[tokio::test]
async fn dns_follows_the_health_deployments_and_its_faults() {
    let lab = Lab::start(quick()).await;
    let (world, side) = (&lab.world, Side::Passive);
    let liar = world.serve_dns(side, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let honest = world.serve_dns(side, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (active, passive) = (world.settings().active_ip, world.settings().passive_ip);
    let gslb = "sso.lab.test";
    assert_eq!(ask(honest.address(), gslb).await, Ok(vec![active]));
    world.initiate(side, Fault::DnsOneResolverLies, None);
    assert_eq!(ask(liar.address(), gslb).await, Ok(vec![passive]));
    assert_eq!(ask(honest.address(), gslb).await, Ok(vec![active]));
    world.lift(side, Fault::DnsOneResolverLies);
    assert_eq!(ask(liar.address(), gslb).await, Ok(vec![active]));
    for (fault, self_test_works) in
        [(Fault::DnsLookupError, true), (Fault::DnsServfail, false), (Fault::DnsTimeout, false)]
    {
        world.initiate(side, fault, None);
        assert!(ask(honest.address(), gslb).await.is_err(), "{fault:?}");
        assert_eq!(ask(honest.address(), "self-test.lab.test").await.is_ok(), self_test_works, "{fault:?}");
        assert_eq!(view(world, Side::Active, None), View::Addresses(vec![active]));
        world.lift(side, fault);
        assert_eq!(ask(honest.address(), gslb).await, Ok(vec![active]), "{fault:?} lifted");
    }
    let health = "/k8s/apis/apps/v1/namespaces/health-dev/deployments/bcgov-health-api-dev-generic-api/scale";
    lab.merge(Side::Active, health, json!({"spec": {"replicas": 0}})).await;
    eventually("the balancer moves", || view(world, side, None) == View::Addresses(vec![passive])).await;
    assert_eq!(ask(honest.address(), gslb).await, Ok(vec![passive]));
    let (_, list) = lab.get(side, "/dns").await;
    assert_eq!(list[0][4][0], passive.to_string());
    lab.put(side, "/initiate/dns_lookup_error").await;
    assert_eq!(lab.get(side, "/dns").await.1, json!([]));
}

#[tokio::test]
async fn faults_of_the_api_and_of_patroni_bite_and_are_lifted() {
    let lab = Lab::start(quick()).await;
    let side = Side::Active;
    let short = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(400)).build().unwrap();
    for (fault, path) in [
        ("api_down", RECORD),
        ("api_refused", RECORD),
        ("api_hang", RECORD),
        ("api_slow", RECORD),
        ("patroni_down", "/patroni/cluster"),
        ("patroni_no_leader", "/patroni/leader"),
        ("database_down", "/patroni/primary"),
        ("portal_down", "/maintenance/maintenance"),
    ] {
        assert_eq!(lab.put(side, &format!("/initiate/{fault}")).await, StatusCode::NO_CONTENT);
        let end = Instant::now() + Duration::from_secs(20);
        while short.get(lab.url(side, path)).send().await.is_ok_and(|answer| answer.status() == 200) {
            assert!(Instant::now() < end, "{fault} does not bite");
        }
        assert_eq!(lab.put(side, "/lift/all").await, StatusCode::NO_CONTENT);
        let end = Instant::now() + Duration::from_secs(20);
        while !lab.http.get(lab.url(side, path)).send().await.is_ok_and(|answer| answer.status() == 200) {
            assert!(Instant::now() < end, "{fault} is not lifted");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let service = "/k8s/api/v1/namespaces/sso-dev/services/keycloak";
    lab.put(side, "/initiate/service_patch_500?count=1").await;
    assert_eq!(lab.merge(side, service, json!({})).await.0.as_u16(), 500);
    assert_eq!(lab.merge(side, service, json!({})).await.0.as_u16(), 200);
}

#[tokio::test]
async fn faults_of_watches_break_open_streams() {
    let lab = Lab::start(quick()).await;
    let api: Api<ConfigMap> = Api::namespaced(lab.kube(Side::Active), "health-dev");
    let open = || async {
        let mut stream = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
        stream
    };
    let mut stream = open().await;
    lab.world.initiate(Side::Active, Fault::Watch410, None);
    let event = stream.try_next().await.unwrap();
    assert!(matches!(&event, Some(WatchEvent::Error(status)) if status.code == 410), "{event:?}");
    lab.world.lift(Side::Active, Fault::Watch410);

    let mut stream = open().await;
    lab.world.initiate(Side::Active, Fault::WatchClose, None);
    assert!(stream.try_next().await.unwrap().is_none());
    lab.world.lift(Side::Active, Fault::WatchClose);

    let mut stream = open().await;
    lab.world.initiate(Side::Active, Fault::WatchStall, None);
    lab.merge(Side::Active, RECORD, json!({"data": {"note": "unseen"}})).await;
    let silent = tokio::time::timeout(Duration::from_millis(200), stream.try_next()).await;
    assert!(silent.is_err(), "{silent:?}");
    lab.world.lift(Side::Active, Fault::WatchStall);
    assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Modified(_))));
}

#[tokio::test]
async fn a_partition_silences_the_line_between_the_agents_until_it_is_lifted() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let lab = Lab::start(quick()).await;
    let far = loopback().await;
    let line = cut::Line::open(loopback().await, far.local_addr().unwrap(), Some(lab.world.clone())).unwrap();
    let mut near = tokio::net::TcpStream::connect(line.address()).await.unwrap();
    let (mut far_end, _) = far.accept().await.unwrap();
    near.write_all(b"a").await.unwrap();
    assert_eq!(far_end.read_u8().await.unwrap(), b'a');
    lab.put(Side::Passive, "/initiate/peer_partition").await;
    assert!(lab.world.partitioned());
    near.write_all(b"b").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), far_end.read_u8()).await.is_err());
    lab.put(Side::Passive, "/lift/peer_partition").await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), far_end.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty(), "what was swallowed never comes: {rest:?}");
    let mut near = tokio::net::TcpStream::connect(line.address()).await.unwrap();
    let (mut far_end, _) = far.accept().await.unwrap();
    near.write_all(b"c").await.unwrap();
    assert_eq!(far_end.read_u8().await.unwrap(), b'c');
}

#[tokio::test]
async fn a_line_cut_in_one_direction_still_carries_the_other() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let far = loopback().await;
    let line = cut::Line::open(loopback().await, far.local_addr().unwrap(), None).unwrap();
    let mut near = tokio::net::TcpStream::connect(line.address()).await.unwrap();
    let (mut far_end, _) = far.accept().await.unwrap();
    line.set(cut::Cut::Forth);
    far_end.write_all(b"x").await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), b'x');
    near.write_all(b"y").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), far_end.read_u8()).await.is_err());
    line.set(cut::Cut::Refused);
    assert!(tokio::time::timeout(Duration::from_secs(20), near.read_u8()).await.unwrap().is_err());
}
