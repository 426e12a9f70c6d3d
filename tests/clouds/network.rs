//! The same clients over real sockets: statuses, cut bodies, closed connections, kept connections, limits.

use std::time::Duration;

use switchover_agent::adapters::cloudflare_routes::{MagicRoutes, MagicSettings};
use switchover_agent::adapters::gcp::{Compute, CredentialSource, GcpSettings, Overrides};
use switchover_agent::config::Secret;
use switchover_agent::lab::compute::{API_PATH, Tokens};
use switchover_agent::lab::front::{CloudFault, Front};
use switchover_agent::lab::magic_transit;
use switchover_agent::rules::breaker::BreakerSettings;

use crate::bench::{
    FILTER, OTHER, PRIMARY, SECONDARY, all_healthy, attempts, cloud, deadline, east_router, magic, policy,
    scope, settings, wanted,
};

fn quick() -> switchover_agent::adapters::attempts::RetryPolicy {
    let wait = Duration::from_millis(20);
    switchover_agent::adapters::attempts::RetryPolicy { initial: wait, max: wait, ..policy(4, 60) }
}

#[tokio::test]
async fn the_whole_way_over_sockets_with_every_damage_once() {
    let cloud = Front::new(cloud());
    let served = cloud.serve().await.unwrap();
    let settings = GcpSettings {
        endpoint: format!("{}{API_PATH}", served.base()),
        health_retry: quick(),
        bgp_retry: quick(),
        update_retry: quick(),
        poll: Duration::from_millis(10),
        ..settings()
    };
    let content = Secret::new(Tokens::key_file(&served.base()).to_string());
    let source = CredentialSource::Json { content, token_endpoint: None };
    let (attempts, _, _) = attempts(BreakerSettings::default());
    let compute = Compute::over_network(settings, source, attempts).unwrap();
    for fault in [
        CloudFault::Reset,
        CloudFault::DoneReset,
        CloudFault::Truncated,
        CloudFault::NotJson,
        CloudFault::Html(502),
        CloudFault::Refused(503, "backendError"),
    ] {
        cloud.fail("GET", "backendServices", 1, fault);
        cloud.fail("POST", "getHealth", 1, fault);
        cloud.fail("PATCH", "routers", 1, fault);
        cloud.fail("GET", "getRouterStatus", 1, fault);
        let region = compute.backend_health(&scope(crate::bench::EAST), deadline()).await;
        assert!(region.as_ref().is_ok_and(all_healthy), "{fault:?}: {region:?}");
        let status = compute.sessions(&east_router(), deadline()).await;
        assert_eq!(status.unwrap().up_of(), (2, 2), "{fault:?}");
        for announce in [true, false] {
            let wanted = wanted(true, announce);
            compute.steer(&east_router(), &wanted, Overrides::Refuse, deadline()).await.unwrap();
            let listed = cloud.with(|cloud| cloud.listed(&east_router()));
            assert_eq!(listed.contains(&SECONDARY.to_owned()), announce, "{fault:?}");
            assert_eq!(listed[..2], [OTHER, PRIMARY]);
        }
        cloud.heal();
    }
}

#[tokio::test]
async fn routes_over_sockets() {
    let magic = magic();
    let served = magic.account.serve().await.unwrap();
    let base = format!("{}{}", served.base(), magic_transit::API_PATH);
    let token = Secret::new(magic_transit::TOKEN);
    let settings =
        MagicSettings { retry: quick(), ..MagicSettings::new(base, token, magic_transit::ACCOUNT, FILTER) };
    let (attempts, _, _) = attempts(BreakerSettings::default());
    let routes = MagicRoutes::over_network(settings, attempts).unwrap();
    routes.verify_token().await.unwrap();
    for (priority, fault) in [
        (100, CloudFault::Truncated),
        (200, CloudFault::DoneReset),
        (100, CloudFault::Refused(500, "internal")),
    ] {
        magic.account.fail("PUT", "routes", 1, fault);
        assert_eq!(routes.prioritise(priority, deadline()).await.unwrap().matching, 2, "{fault:?}");
        assert_eq!(magic.account.with(|account| account.priorities(FILTER)), [priority].into());
    }
}
