//! Patroni as it answers in 3.0.2 and 4.1.5, and as it fails.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use switchover_agent::adapters::patroni::Patroni;
use switchover_agent::bus::Bus;
use switchover_agent::config::Secret;
use switchover_agent::config::patroni::PatroniSettings;
use switchover_agent::model::{Event, FailureKind, MemberRole, PatroniSample, PatroniView};
use switchover_agent::rules::database::{Role, concerns, is_writable, role};
use switchover_agent::tasks::{Ctx, Exit, patroni_worker};
use tokio_util::sync::CancellationToken;

use super::fake::{Site, closing, silent};

fn settings(base: &str) -> PatroniSettings {
    PatroniSettings {
        base: Some(base.to_owned()),
        credentials: None,
        timeout_ms: 20_000,
        poll_ms: 20,
        peer_host: None,
        peer_port: "5432".to_owned(),
        fence_restore_command: "false".to_owned(),
        fence_create_replica_methods: vec!["basebackup".to_owned()],
    }
}

fn client(base: &str) -> Patroni {
    Patroni::new(&settings(base)).unwrap()
}

async fn view(base: &str) -> PatroniView {
    match client(base).poll().await {
        PatroniSample::Seen(view) => view,
        PatroniSample::Unknown(why) => panic!("{why}"),
    }
}

async fn unknown(base: &str) -> String {
    match client(base).poll().await {
        PatroniSample::Seen(view) => panic!("{view:?}"),
        PatroniSample::Unknown(why) => why,
    }
}

const STANDBY_CONFIG: &str =
    r#"{"ttl":20,"standby_cluster":{"host":"127.41.1.11","port":5432},"postgresql":{}}"#;
const PRIMARY_CONFIG: &str = r#"{"ttl":20,"loop_wait":1,"postgresql":{}}"#;

/// A member: what it answers to the role questions and of itself.
async fn member(primary: u16, standby: u16, itself: &str) -> Site {
    let site = Site::start().await;
    site.on("GET /primary", primary, itself).on("GET /standby-leader", standby, itself);
    site.on("GET /patroni", 200, itself);
    site
}

/// Scripts `/config` and `/cluster` at the first member; `{0}` and `{1}` in the body are the members' addresses.
fn cluster(sites: &[&Site], config: &str, body: &str) {
    let body = sites
        .iter()
        .enumerate()
        .fold(body.to_owned(), |body, (n, site)| body.replace(&format!("{{{n}}}"), &site.base));
    sites[0].on("GET /config", 200, config).on("GET /cluster", 200, body);
}

#[tokio::test]
async fn a_standby_cluster_of_3_0_2_is_read() {
    let leader = member(503, 200, r#"{"state":"running","role":"standby_leader","xlog":{"received_location":67108864,"replayed_location":67108864,"replayed_timestamp":null,"paused":false},"timeline":1}"#).await;
    let replica = member(503, 503, r#"{"state":"running","role":"replica"}"#).await;
    cluster(
        &[&leader, &replica],
        STANDBY_CONFIG,
        r#"{"members":[{"name":"dr1","role":"standby_leader","state":"running","api_url":"{0}/patroni","host":"127.41.2.11","port":5432,"timeline":1},{"name":"dr2","role":"replica","state":"running","api_url":"{1}/patroni","host":"127.41.2.12","port":5432,"timeline":1,"lag":0}]}"#,
    );
    let seen = view(&leader.base).await;
    assert!(seen.standby_configured);
    assert_eq!(seen.standby_host.as_deref(), Some("127.41.1.11"));
    assert_eq!((seen.primary_endpoint, seen.standby_endpoint), (Some(false), Some(true)));
    assert_eq!((seen.timeline, seen.lsn), (Some(1), Some(67_108_864)));
    assert_eq!((seen.members[0].role, seen.members[0].lag), (MemberRole::StandbyLeader, None));
    assert_eq!((seen.members[1].role, seen.members[1].lag), (MemberRole::Replica, Some(0)));
    assert!(concerns(&seen).is_empty());
    let sample = PatroniSample::Seen(seen);
    assert_eq!((role(&sample), is_writable(&sample)), (Role::Standby, Some(false)));
    assert!(!replica.seen("GET /primary").is_empty(), "the replica is asked for itself");
}

#[tokio::test]
async fn a_primary_cluster_of_4_1_5_behind_a_prefix_is_read() {
    let leader = member(200, 503, r#"{"state":"running","role":"primary","server_version":150018,"xlog":{"location":67366904},"timeline":10,"patroni":{"version":"4.1.5"}}"#).await;
    let front = Site::start().await;
    let body = format!(
        r#"{{"members":[{{"name":"dr1","role":"leader","state":"running","api_url":"{0}/patroni","timeline":10}},{{"name":"dr2","role":"replica","state":"streaming","timeline":10,"receive_lag":0,"receive_lsn":"0/4000000","lag":"unknown","lsn":"0/4000000"}}],"scope":"golddr"}}"#,
        leader.base
    );
    front.on("GET /patroni/config", 200, PRIMARY_CONFIG).on("GET /patroni/cluster", 200, body);
    front.on("GET /patroni/primary", 503, "{}").on("GET /patroni/standby-leader", 503, "{}");
    let seen = view(&format!("{}/patroni", front.base)).await;
    assert_eq!((seen.standby_configured, seen.standby_host.as_deref()), (false, None));
    assert_eq!(
        seen.primary_endpoint,
        Some(true),
        "the member says so, though the balanced address hit a replica"
    );
    assert_eq!(seen.standby_endpoint, None, "dr2 is streaming and could not be asked");
    assert_eq!((seen.timeline, seen.lsn), (Some(10), Some(67_366_904)));
    assert_eq!(seen.members[1].lag, None);
    assert_eq!(role(&PatroniSample::Seen(seen)), Role::Primary);
}

#[tokio::test]
async fn a_promotion_that_only_the_configuration_knows_of_is_not_believed() {
    let leader = member(
        503,
        200,
        r#"{"state":"running","role":"standby_leader","timeline":1,"xlog":{"received_location":5}}"#,
    )
    .await;
    cluster(
        &[&leader],
        PRIMARY_CONFIG,
        r#"{"members":[{"name":"dr1","role":"leader","state":"running","api_url":"{0}/patroni","timeline":1}]}"#,
    );
    let seen = view(&leader.base).await;
    assert_eq!(seen.members[0].role, MemberRole::Leader);
    assert_eq!(role(&PatroniSample::Seen(seen)), Role::Standby);
}

#[tokio::test]
async fn where_the_role_questions_are_not_offered_cluster_and_configuration_decide() {
    let site = Site::start().await; // answers 404 to everything else
    cluster(
        &[&site],
        STANDBY_CONFIG,
        r#"{"members":[{"name":"a","role":"standby_leader","state":"streaming","timeline":4,"lsn":"1/10"}]}"#,
    );
    let seen = view(&site.base).await;
    assert_eq!((seen.primary_endpoint, seen.standby_endpoint), (None, None));
    assert_eq!((seen.timeline, seen.lsn), (Some(4), Some((1 << 32) + 16)), "from /cluster instead");
    assert_eq!(role(&PatroniSample::Seen(seen)), Role::Standby);
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_seen() {
    let site = member(503, 503, r#"{"state":"running","role":"replica","cluster_unlocked":true}"#).await;
    cluster(
        &[&site],
        PRIMARY_CONFIG,
        r#"{"members":[{"name":"a","role":"replica","state":"running","api_url":"{0}/patroni","timeline":2},{"name":"b","role":"replica","state":"start failed","api_url":"http://127.0.0.1:1/patroni","lag":"unknown"}]}"#,
    );
    let seen = view(&site.base).await;
    assert_eq!((seen.primary_endpoint, seen.timeline, seen.lsn), (Some(false), None, None));
    assert_eq!(concerns(&seen), ["b: start failed"]);
    assert_eq!(role(&PatroniSample::Seen(seen)), Role::Neither);
}

#[tokio::test]
async fn whatever_is_not_a_sensible_answer_is_unknown() {
    let good = r#"{"members":[{"name":"a","role":"leader","state":"running"}]}"#;
    for (config, cluster, word) in [
        ((400, "<html>Bad Request</html>"), (200, good), "status 400"),
        ((200, "<html></html>"), (200, good), "not JSON"),
        ((200, "[]"), (200, good), "not an object"),
        ((200, r#"{"standby_cluster":7}"#), (200, good), "standby_cluster"),
        ((200, "{}"), (503, "{}"), "status 503"),
        ((200, "{}"), (204, ""), "other than 200"),
        ((200, "{}"), (200, r#"{"members":7}"#), "members"),
        ((200, "{}"), (200, r#"{"members":[{"name":"a","role":"leader","state":5}]}"#), "state"),
        ((200, "{}"), (302, ""), "status 302"),
    ] {
        let site = Site::start().await;
        site.on("GET /config", config.0, config.1).on("GET /cluster", cluster.0, cluster.1);
        let why = unknown(&site.base).await;
        assert!(why.contains(word), "{why} should say {word}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let site = Site::start().await;
    site.on("GET /config", 200, "{}").on("GET /cluster", 200, "x".repeat(2 << 20));
    assert!(unknown(&site.base).await.contains("larger than"));
}

#[tokio::test]
async fn a_lost_store_a_silent_patroni_and_none_at_all_are_unknown() {
    let base = closing().await;
    assert!(unknown(&base).await.contains("no answer"));
    assert_eq!(client(&base).promote().await.unwrap_err().kind(), FailureKind::Transient);
    assert!(unknown("http://127.0.0.1:1").await.contains("no answer"));
    let mut hurried = settings(&silent().await);
    hurried.timeout_ms = 100;
    let patroni = Patroni::new(&hurried).unwrap();
    let sample = tokio::time::timeout(Duration::from_secs(30), patroni.poll()).await.unwrap();
    assert!(matches!(sample, PatroniSample::Unknown(why) if why.contains("timed out")));
    let error = patroni.fence().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (FailureKind::Transient, "Patroni: PATCH /config: timed out")
    );
}

fn patches(site: &Site) -> Vec<String> {
    site.seen("PATCH /config").iter().map(|seen| String::from_utf8(seen.body.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn promotion_is_one_exact_patch_judged_by_its_status() {
    let site = Site::start().await;
    site.on("PATCH /config", 204, "");
    client(&site.base).promote().await.unwrap();
    assert_eq!(patches(&site), [r#"{"standby_cluster":null}"#]);
    for (status, kind) in [
        (400, FailureKind::Permanent),
        (401, FailureKind::Permanent),
        (409, FailureKind::Conflict),
        (503, FailureKind::Transient),
    ] {
        site.on("PATCH /config", status, "<html>no</html>");
        assert_eq!(client(&site.base).promote().await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn a_fence_names_no_host_and_removes_one_that_is_there() {
    let site = Site::start().await;
    site.on("PATCH /config", 200, "{}").on("GET /config", 200, PRIMARY_CONFIG);
    client(&site.base).fence().await.unwrap();
    site.on("GET /config", 200, STANDBY_CONFIG);
    client(&site.base).fence().await.unwrap();
    site.on("GET /config", 500, "");
    client(&site.base).fence().await.unwrap();
    let plain = r#"{"standby_cluster":{"create_replica_methods":["basebackup"],"restore_command":"false"}}"#;
    let nulls = r#"{"standby_cluster":{"host":null,"port":null,"create_replica_methods":["basebackup"],"restore_command":"false"}}"#;
    assert_eq!(patches(&site), [plain, nulls, plain]);
}

#[tokio::test]
async fn following_names_the_peer_and_takes_the_fence_away() {
    let site = Site::start().await;
    site.on("PATCH /config", 200, "{}").on("GET /config", 200, PRIMARY_CONFIG);
    client(&site.base).follow("h1,h2", "5432").await.unwrap();
    site.on("GET /config", 200, r#"{"standby_cluster":{"restore_command":"false"}}"#);
    client(&site.base).follow("h1", "5432").await.unwrap();
    site.on("GET /config", 200, r#"{"standby_cluster":{"restore_command":"wal-g fetch %f %p"}}"#);
    client(&site.base).follow("h1", "5432").await.unwrap();
    let plain = r#"{"standby_cluster":{"host":"h1","port":5432}}"#;
    let freed = r#"{"standby_cluster":{"host":"h1","port":5432,"restore_command":null}}"#;
    assert_eq!(patches(&site), [r#"{"standby_cluster":{"host":"h1,h2","port":5432}}"#, freed, plain]);
}

#[tokio::test]
async fn the_password_goes_with_changes_only_and_never_into_an_error() {
    let site = Site::start().await;
    site.on("PATCH /config", 401, "not authenticated");
    let mut with = settings(&site.base);
    with.credentials = Some(("patroni".to_owned(), Secret::new("hunter2")));
    let patroni = Patroni::new(&with).unwrap();
    let error = patroni.promote().await.unwrap_err();
    patroni.poll().await;
    assert!(!format!("{error} {error:?} {patroni:?}").contains("hunter2"));
    assert_eq!(site.seen("PATCH")[0].headers["authorization"], "Basic cGF0cm9uaTpodW50ZXIy");
    assert!(site.seen("GET").iter().all(|seen| !seen.headers.contains_key("authorization")));
}

#[tokio::test]
async fn the_worker_posts_every_poll_failed_ones_too_and_ends_when_asked() {
    let site = member(200, 503, "{}").await;
    cluster(
        &[&site],
        PRIMARY_CONFIG,
        r#"{"members":[{"name":"a","role":"leader","state":"running","api_url":"{0}"}]}"#,
    );
    let (bus, mut events) = Bus::new();
    let ctx = Ctx { cancel: CancellationToken::new(), bus, registry: Arc::new(prometheus::Registry::new()) };
    let cancel = ctx.cancel.clone();
    let task = tokio::spawn(patroni_worker::run(ctx, client(&site.base)));
    for _ in 0..2 {
        assert!(matches!(events.recv().await, Some(Event::Patroni(PatroniSample::Seen(_)))));
    }
    site.on("GET /cluster", 500, "");
    while !matches!(events.recv().await, Some(Event::Patroni(PatroniSample::Unknown(_)))) {}
    cluster(&[&site], PRIMARY_CONFIG, &json!({ "members": Value::Array(vec![]) }).to_string());
    while !matches!(events.recv().await, Some(Event::Patroni(PatroniSample::Seen(_)))) {}
    cancel.cancel();
    assert_eq!(task.await.unwrap(), Exit::Cancelled);
}
