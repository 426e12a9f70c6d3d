//! Resolvers in every mood, the look-up service, the self-test, and the task that asks them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use switchover_agent::adapters::resolver::{LOOKUP_SERVICE, Resolvers};
use switchover_agent::bus::Bus;
use switchover_agent::config::dns::{DnsFamily, DnsSettings};
use switchover_agent::model::{DnsSample, Event, ResolverAnswer};
use switchover_agent::rules::dns::{Answer, quorum};
use switchover_agent::tasks::{Ctx, Exit, dns_watch};
use tokio_util::sync::CancellationToken;

use super::fake::{Dns, Mood, Site};

const NAME: &str = "www.dr.test.";
const PROBE: &str = "probe.dr.test.";

fn settings(resolvers: &[SocketAddr]) -> DnsSettings {
    DnsSettings {
        domain: "www.dr.test".to_owned(),
        service_url: None,
        resolvers: Some(resolvers.to_vec()),
        family: DnsFamily::Ipv4,
        timeout_ms: 20_000,
        poll_ms: 20,
        quorum: 0,
        agree_samples: 3,
        agree_ms: 0,
        self_test: None,
        active: BTreeSet::new(),
        passive: BTreeSet::new(),
    }
}

fn addresses(list: &[&str]) -> ResolverAnswer {
    ResolverAnswer::Addresses(list.iter().map(|ip| ip.parse().unwrap()).collect())
}

async fn only_answer(settings: &DnsSettings) -> ResolverAnswer {
    let sample = Resolvers::new(settings).unwrap().look_up().await;
    assert_eq!(sample.answers.len(), 1);
    sample.answers.into_values().next().unwrap()
}

#[tokio::test]
async fn answers_are_sets_and_nothing_is_remembered() {
    let dns = Dns::start().await;
    let resolvers = Resolvers::new(&settings(&[dns.address])).unwrap();
    for list in [&["192.0.2.1", "192.0.2.2"][..], &["192.0.2.2", "192.0.2.1"], &["198.51.100.1"]] {
        dns.points(NAME, list);
        let sample = resolvers.look_up().await;
        assert_eq!(sample.answers[&dns.address.to_string()], addresses(list));
        assert_eq!(sample.self_test, None);
    }
    dns.set(NAME, Mood::Code(ResponseCode::NXDomain));
    assert_eq!(resolvers.look_up().await.answers[&dns.address.to_string()], ResolverAnswer::NoAddress);
    dns.points(NAME, &["192.0.2.1"]);
    assert_eq!(resolvers.look_up().await.answers[&dns.address.to_string()], addresses(&["192.0.2.1"]));
    assert!(dns.asked().iter().all(|name| name == NAME), "no search list: {:?}", dns.asked());
}

#[tokio::test]
async fn no_such_name_is_an_answer_and_a_failure_is_not() {
    let dns = Dns::start().await;
    let settings = settings(&[dns.address]);
    for mood in [Mood::Code(ResponseCode::NXDomain), Mood::Empty] {
        dns.set(NAME, mood.clone());
        assert_eq!(only_answer(&settings).await, ResolverAnswer::NoAddress, "{mood:?}");
    }
    for mood in [Mood::Code(ResponseCode::ServFail), Mood::Code(ResponseCode::Refused), Mood::Referral] {
        dns.set(NAME, mood.clone());
        let answer = only_answer(&settings).await;
        assert!(matches!(answer, ResolverAnswer::Unknown(_)), "{mood:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_silent_resolver_and_a_dead_one_are_unknown_within_the_time_out() {
    let dns = Dns::start().await;
    dns.set(NAME, Mood::Silent);
    let mut hurried = settings(&[dns.address, "127.0.0.1:1".parse().unwrap()]);
    hurried.timeout_ms = 200;
    let resolvers = Resolvers::new(&hurried).unwrap();
    let sample = tokio::time::timeout(std::time::Duration::from_secs(30), resolvers.look_up()).await.unwrap();
    assert!(sample.answers.values().all(|answer| matches!(answer, ResolverAnswer::Unknown(_))), "{sample:?}");
    assert_eq!(sample.answers.len(), 2);
    assert!(matches!(quorum(&sample, 0), Answer::Unknown(_)));
}

#[tokio::test]
async fn one_of_three_resolvers_may_fail_or_lie() {
    let [a, b, c] = [Dns::start().await, Dns::start().await, Dns::start().await];
    let resolvers = Resolvers::new(&settings(&[a.address, b.address, c.address])).unwrap();
    a.points(NAME, &["192.0.2.1"]);
    b.points(NAME, &["192.0.2.1"]);
    c.set(NAME, Mood::Code(ResponseCode::ServFail));
    let want = Answer::Addresses(BTreeSet::from(["192.0.2.1".parse().unwrap()]));
    assert_eq!(quorum(&resolvers.look_up().await, 0), want);
    c.points(NAME, &["198.51.100.1"]);
    assert_eq!(quorum(&resolvers.look_up().await, 0), want);
    b.set(NAME, Mood::Code(ResponseCode::NXDomain));
    assert!(matches!(quorum(&resolvers.look_up().await, 0), Answer::Unknown(_)));
}

#[tokio::test]
async fn both_families_are_one_answer() {
    let dns = Dns::start().await;
    dns.points(NAME, &["192.0.2.1", "2001:db8::1"]);
    let mut both = settings(&[dns.address]);
    for (family, want) in [
        (DnsFamily::Ipv4, &["192.0.2.1"][..]),
        (DnsFamily::Ipv6, &["2001:db8::1"]),
        (DnsFamily::Both, &["192.0.2.1", "2001:db8::1"]),
    ] {
        both.family = family;
        assert_eq!(only_answer(&both).await, addresses(want));
    }
    dns.points(NAME, &["192.0.2.1"]);
    assert_eq!(only_answer(&both).await, addresses(&["192.0.2.1"]));
}

#[tokio::test]
async fn the_self_test_is_asked_only_for_an_answer_that_is_no_address() {
    let dns = Dns::start().await;
    let mut with = settings(&[dns.address]);
    with.self_test = Some("probe.dr.test".to_owned());
    let resolvers = Resolvers::new(&with).unwrap();
    dns.points(NAME, &["192.0.2.1"]);
    assert_eq!(resolvers.look_up().await.self_test, Some(true));
    assert!(!dns.asked().contains(&PROBE.to_owned()));
    dns.set(NAME, Mood::Empty).points(PROBE, &["203.0.113.1"]);
    let sample = resolvers.look_up().await;
    assert_eq!((quorum(&sample, 0), sample.self_test), (Answer::None, Some(true)));
    dns.set(PROBE, Mood::Code(ResponseCode::NXDomain));
    let sample = resolvers.look_up().await;
    assert_eq!(sample.self_test, Some(false));
    assert_eq!(quorum(&sample, 0), Answer::Unknown("own network".to_owned()));
}

#[tokio::test]
async fn the_look_up_service_has_one_vote_and_an_empty_list_moves_nothing() {
    let site = Site::start().await;
    let mut by_service = settings(&[]);
    by_service.resolvers = None;
    by_service.service_url = Some(format!("{}/dns", site.base));
    site.on("GET /dns", 200, r#"[[2,1,6,"",["192.0.2.1",0]],[2,2,17,"",["192.0.2.1",0]]]"#);
    let sample = Resolvers::new(&by_service).unwrap().look_up().await;
    assert_eq!(sample.answers[LOOKUP_SERVICE], addresses(&["192.0.2.1"]));
    assert_eq!(sample.answers.len(), 1, "the system's resolvers are not asked beside it");
    for (status, body) in [(200, "[]"), (200, "null"), (200, "<html>"), (500, "[]"), (404, "")] {
        site.on("GET /dns", status, body);
        assert!(matches!(only_answer(&by_service).await, ResolverAnswer::Unknown(_)), "{status} {body}");
    }
    by_service.service_url = Some("http://127.0.0.1:1/dns".to_owned());
    assert!(matches!(only_answer(&by_service).await, ResolverAnswer::Unknown(_)));
}

async fn next(events: &mut tokio::sync::mpsc::Receiver<Event>) -> DnsSample {
    match events.recv().await {
        Some(Event::Dns(sample)) => sample,
        other => panic!("{other:?}"),
    }
}

fn counted(registry: &prometheus::Registry) -> String {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

#[tokio::test]
async fn the_task_posts_every_round_counts_it_and_can_be_started_again() {
    let dns = Dns::start().await;
    dns.points(NAME, &["192.0.2.1"]);
    let registry = Arc::new(prometheus::Registry::new());
    for _ in 0..2 {
        let (bus, mut events) = Bus::new();
        let ctx = Ctx { cancel: CancellationToken::new(), bus, registry: Arc::clone(&registry) };
        let cancel = ctx.cancel.clone();
        let resolvers = Resolvers::new(&settings(&[dns.address])).unwrap();
        let task = tokio::spawn(dns_watch::run(ctx, resolvers));
        next(&mut events).await;
        dns.set(NAME, Mood::Code(ResponseCode::ServFail));
        while !matches!(quorum(&next(&mut events).await, 0), Answer::Unknown(_)) {}
        dns.set(NAME, Mood::Empty);
        while quorum(&next(&mut events).await, 0) != Answer::None {}
        dns.points(NAME, &["192.0.2.1"]);
        while !matches!(quorum(&next(&mut events).await, 0), Answer::Addresses(_)) {}
        let text = counted(&registry);
        for label in ["192.0.2.1", "error", "none"] {
            assert!(text.contains(&format!("switchover_dns_total{{ip=\"{label}\"}}")), "{label} in {text}");
        }
        cancel.cancel();
        assert_eq!(task.await.unwrap(), Exit::Cancelled);
    }
}
