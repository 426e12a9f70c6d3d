//! What states mean for routes.

use super::*;

const NONE: &str = "";

fn attributes() -> ByState<i64> {
    ByState { up: 9, down: None, disabled: None, draining: Some(5), last_resort: 1 }
}

fn view<'a>(
    name: &'a str,
    state: ServiceState,
    routes: &'a [&'a str],
    by: &'a ByState<i64>,
) -> View<'a, &'a str, i64> {
    View {
        name,
        state,
        reason: NONE,
        always: false,
        announced: true,
        hold_unknown: false,
        drain_waits: false,
        fail_open: true,
        sharing: Sharing::All,
        routes,
        attributes: by,
    }
}

fn announced(views: &[View<'_, &str, i64>], fail_open: bool) -> Vec<String> {
    decide(views, fail_open, |worth| *worth)
        .into_iter()
        .filter_map(|(route, decision)| decision.announce.map(|worth| format!("{route}={worth}")))
        .collect()
}

#[test]
fn only_up_and_falling_announce() {
    let by = attributes();
    for state in ServiceState::ALL {
        let got = announced(&[view("a", state, &["p"], &by)], false);
        let want = matches!(state, ServiceState::Up | ServiceState::Falling);
        assert_eq!(!got.is_empty(), want, "{state}");
    }
}

#[test]
fn one_services_failure_leaves_the_others_routes_alone() {
    let by = attributes();
    let views = [view("a", ServiceState::Down, &["p"], &by), view("b", ServiceState::Up, &["q"], &by)];
    assert_eq!(announced(&views, false), ["q=9"]);
}

#[test]
fn a_shared_prefix_needs_all_unless_any_is_configured() {
    let by = attributes();
    let mut views = [view("a", ServiceState::Down, &["p"], &by), view("b", ServiceState::Up, &["p"], &by)];
    assert!(announced(&views, false).is_empty());
    views[0].sharing = Sharing::Any;
    assert!(announced(&views, false).is_empty(), "one that wants all of them prevails");
    views[1].sharing = Sharing::Any;
    assert_eq!(announced(&views, false), ["p=9"]);
}

#[test]
fn worse_attributes_replace_a_withdrawal_where_configured() {
    let by = ByState { down: Some(2), disabled: Some(3), ..attributes() };
    assert_eq!(announced(&[view("a", ServiceState::Down, &["p"], &by)], false), ["p=2"]);
    assert_eq!(announced(&[view("a", ServiceState::Disabled, &["p"], &by)], false), ["p=3"]);
}

#[test]
fn a_drain_first_marks_the_routes_and_then_takes_them_back() {
    let by = attributes();
    let mut drained = view("a", ServiceState::Draining, &["p"], &by);
    drained.drain_waits = true;
    assert_eq!(announced(std::slice::from_ref(&drained), false), ["p=5"]);
    drained.drain_waits = false;
    assert!(announced(&[drained], false).is_empty());
}

#[test]
fn fail_open_keeps_what_was_announced_and_starts_nothing() {
    let by = attributes();
    let states = [ServiceState::Down, ServiceState::Down, ServiceState::Up];
    let open = FailOpen { min_healthy_percent: 50.0 };
    assert!(open.in_force(states.iter()));
    assert!(!FailOpen { min_healthy_percent: 30.0 }.in_force(states.iter()));
    assert!(!FailOpen::default().in_force([ServiceState::Down].iter()));
    let mut dead = view("a", ServiceState::Down, &["p"], &by);
    assert_eq!(announced(std::slice::from_ref(&dead), true), ["p=1"]);
    dead.announced = false;
    assert!(announced(&[dead], true).is_empty());
}

#[test]
fn unknown_withdraws_unless_told_to_hold() {
    let by = attributes();
    let mut silent = view("a", ServiceState::Unknown, &["p"], &by);
    assert!(announced(std::slice::from_ref(&silent), false).is_empty());
    silent.hold_unknown = true;
    assert_eq!(announced(&[silent], false), ["p=9"]);
}

#[test]
fn the_reason_names_the_service_and_what_its_checks_said() {
    let by = attributes();
    let mut dead = view("dns", ServiceState::Down, &["p"], &by);
    dead.reason = "tcp: refused";
    let decision = &decide(&[dead], false, |worth| *worth)["p"];
    assert_eq!(decision.reason, "service dns down: tcp: refused");
}
