//! A18, A20 to A23: what answers amount to.

use switchover_agent::model::Side;
use switchover_agent::rules::route_health::grade::{
    BackendSeen, EmptyRegion, InstanceSeen, SessionSeen, grade_region, grade_sessions,
};
use switchover_agent::rules::route_health::{BgpUp, Health, RoutePolicy};

fn policy() -> RoutePolicy {
    RoutePolicy::new(Side::Active)
}

fn backend(service: &str, states: &[&str]) -> BackendSeen {
    let instance =
        |(n, state): (usize, &&str)| InstanceSeen { name: format!("vm-{n}"), state: (*state).to_owned() };
    BackendSeen {
        service: service.to_owned(),
        group: format!("{service}-group"),
        drained: false,
        failover: false,
        answer: Ok(states.iter().enumerate().map(instance).collect()),
    }
}

fn unanswered(service: &str) -> BackendSeen {
    BackendSeen { answer: Err("api_error_http_503".to_owned()), ..backend(service, &[]) }
}

fn sessions(states: &[&str]) -> Vec<SessionSeen> {
    let session = |state: &&str| SessionSeen {
        name: format!("peer-{state}"),
        status: (*state).to_owned(),
        disabled: false,
    };
    states.iter().map(session).collect()
}

#[test]
fn a18_one_session_up_is_enough_and_none_is_down() {
    for (states, want) in [
        (vec!["UP", "DOWN"], Health::Healthy),
        (vec!["IDLE", "CONNECT"], Health::Unhealthy),
        (vec![], Health::Unhealthy),
        (vec!["UNKNOWN", "DOWN"], Health::Unknown),
    ] {
        assert_eq!(grade_sessions(&policy(), &sessions(&states)), want, "{states:?}");
    }
}

#[test]
fn a18_more_than_one_session_can_be_asked_for_and_disabled_ones_do_not_count() {
    let states = sessions(&["UP", "DOWN"]);
    for (up, want) in [
        (BgpUp::All, Health::Unhealthy),
        (BgpUp::AtLeast(1), Health::Healthy),
        (BgpUp::AtLeast(2), Health::Unhealthy),
    ] {
        assert_eq!(grade_sessions(&RoutePolicy { bgp_up: up, ..policy() }, &states), want, "{up:?}");
    }
    let mut states = states;
    states[1].disabled = true;
    assert_eq!(grade_sessions(&RoutePolicy { bgp_up: BgpUp::All, ..policy() }, &states), Health::Healthy);
}

#[test]
fn a20_one_unanswered_backend_of_six_is_unknown_not_bad() {
    let mut seen: Vec<BackendSeen> = (0..5).map(|n| backend(&format!("s{n}"), &["HEALTHY"])).collect();
    seen.push(unanswered("s5"));
    let grade = grade_region(&policy(), 6, &seen);
    assert_eq!((grade.health, grade.unanswered, grade.healthy), (Health::Unknown, 1, 5));
    for sick in seen.iter_mut().take(4) {
        sick.answer = backend("x", &["UNHEALTHY"]).answer;
    }
    let grade = grade_region(&policy(), 6, &seen);
    assert_eq!(grade.health, Health::Unhealthy, "a proven majority is a proof");
}

#[test]
fn a21_one_sick_instance_decides_unless_the_quorum_is_lower() {
    let seen = [backend("a", &["HEALTHY"]), backend("b", &["HEALTHY", "HEALTHY", "HEALTHY", "DRAINING"])];
    assert_eq!(grade_region(&policy(), 2, &seen).health, Health::Unhealthy);
    let lower = RoutePolicy { min_healthy_percent: 75, ..policy() };
    assert_eq!(grade_region(&lower, 2, &seen).health, Health::Healthy);
    // The quorum is each service's own: a large one does not hide a small one.
    let seen = [backend("a", &["UNHEALTHY"]), backend("b", &["HEALTHY"; 50])];
    assert_eq!(grade_region(&lower, 2, &seen).health, Health::Unhealthy);
}

#[test]
fn a22_a_region_without_services_is_what_the_setting_says() {
    for (empty, want) in [
        (EmptyRegion::Unknown, Health::Unknown),
        (EmptyRegion::Healthy, Health::Healthy),
        (EmptyRegion::Unhealthy, Health::Unhealthy),
    ] {
        assert_eq!(grade_region(&RoutePolicy { empty_region: empty, ..policy() }, 0, &[]).health, want);
    }
}

#[test]
fn a23_an_answer_without_instances_is_bad_and_a_drained_backend_is_not_judged() {
    let grade = grade_region(&policy(), 1, &[backend("a", &[])]);
    assert_eq!(grade.health, Health::Unhealthy);
    assert_eq!(grade.sick[0].reason, "incomplete_health_response");
    let drained = BackendSeen { drained: true, ..backend("a", &["UNHEALTHY"]) };
    let grade = grade_region(&policy(), 1, &[drained, backend("a", &["HEALTHY"])]);
    assert_eq!((grade.health, grade.backends), (Health::Healthy, 1));
}

#[test]
fn a_failover_backend_counts_only_where_the_usual_ones_fail() {
    let spare = |states: &[&str]| BackendSeen { failover: true, ..backend("a", states) };
    for (usual, reserve, want) in [
        ("HEALTHY", "UNHEALTHY", Health::Healthy),
        ("UNHEALTHY", "HEALTHY", Health::Healthy),
        ("UNHEALTHY", "UNHEALTHY", Health::Unhealthy),
    ] {
        let grade = grade_region(&policy(), 1, &[backend("a", &[usual]), spare(&[reserve])]);
        assert_eq!(grade.health, want, "{usual} {reserve}");
    }
}
