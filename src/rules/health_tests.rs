//! Tables for windows, strategies and service states.

use super::*;

const PASS: Sample = Sample::Pass;
const FAIL: Sample = Sample::Fail;
const UNKNOWN: Sample = Sample::Unknown;

fn health(policy: Policy) -> Health {
    Health::new(policy, Mono(0))
}

fn policy() -> Policy {
    Policy { unknown_after_ms: 10_000, ..Policy::default() }
}

#[test]
fn a_window_turns_after_the_full_run_only() {
    let mut window = Window::new(3, 2);
    let seen: Vec<Sample> = [PASS, PASS, FAIL, PASS, PASS, PASS, FAIL, PASS, FAIL, UNKNOWN, FAIL, FAIL]
        .into_iter()
        .map(|sample| window.push(sample, false))
        .collect();
    let want = [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, PASS, PASS, PASS, PASS, PASS, PASS, FAIL];
    assert_eq!(seen, want);
}

#[test]
fn a_decisive_failure_does_not_wait() {
    let mut window = Window::new(1, 3);
    window.push(PASS, false);
    assert_eq!(window.push(FAIL, true), FAIL);
}

#[test]
fn case_32_the_strategies_say_when_the_service_is_down() {
    let half = Strategy::MoreThanFraction(0.5);
    type Row = (Strategy, &'static [(&'static str, Sample)], Sample);
    let rows: [Row; 15] = [
        (Strategy::AnyFailed, &[("", PASS), ("", PASS)], PASS),
        (Strategy::AnyFailed, &[("", PASS), ("", FAIL)], FAIL),
        (Strategy::AllFailed, &[("", PASS), ("", FAIL)], PASS),
        (Strategy::AllFailed, &[("", FAIL), ("", FAIL)], FAIL),
        (half, &[("", FAIL), ("", FAIL), ("", PASS), ("", PASS)], PASS),
        (half, &[("", FAIL), ("", FAIL), ("", FAIL), ("", PASS)], FAIL),
        (Strategy::MoreThanFraction(0.0), &[("", FAIL), ("", PASS)], FAIL),
        (Strategy::GroupFailed, &[("g1", PASS), ("g2", FAIL), ("g2", PASS)], PASS),
        (Strategy::GroupFailed, &[("g1", PASS), ("g2", FAIL), ("g2", FAIL)], FAIL),
        (Strategy::GroupFailed, &[("g1", FAIL)], FAIL),
        (Strategy::FewerThanPass(2), &[("", PASS), ("", PASS), ("", FAIL)], PASS),
        (Strategy::FewerThanPass(2), &[("", PASS), ("", FAIL), ("", FAIL)], FAIL),
        (Strategy::AnyFailed, &[("", UNKNOWN), ("", PASS)], UNKNOWN),
        (Strategy::AnyFailed, &[("", UNKNOWN), ("", FAIL)], FAIL),
        (Strategy::AllFailed, &[("", UNKNOWN), ("", PASS)], PASS),
    ];
    for (strategy, checks, want) in rows {
        assert_eq!(strategy.combine(checks), want, "{strategy:?} {checks:?}");
    }
}

#[test]
fn a_service_walks_through_its_states() {
    let mut service = health(policy());
    assert_eq!(service.state(), ServiceState::Init);
    service.observe(PASS, UNKNOWN, Mono(1));
    assert_eq!(service.state(), ServiceState::Rising);
    service.observe(PASS, PASS, Mono(2));
    assert_eq!(service.state(), ServiceState::Up);
    service.observe(FAIL, PASS, Mono(3));
    assert_eq!(service.state(), ServiceState::Falling);
    service.observe(FAIL, FAIL, Mono(4));
    assert_eq!(service.state(), ServiceState::Down);
    service.observe(PASS, FAIL, Mono(5));
    assert_eq!(service.state(), ServiceState::Rising);
    assert_eq!(
        service.observe(PASS, PASS, Mono(6)),
        Some(Change { from: ServiceState::Rising, to: ServiceState::Up })
    );
    assert_eq!(service.flaps(), 1);
}

#[test]
fn an_unknown_verdict_holds_until_it_expires() {
    let mut service = health(policy());
    service.observe(PASS, PASS, Mono(0));
    assert_eq!(service.observe(UNKNOWN, UNKNOWN, Mono(100)), None);
    assert_eq!(service.tick(Mono(10_100)), None);
    service.tick(Mono(10_101));
    assert_eq!(service.state(), ServiceState::Unknown);
    service.observe(PASS, PASS, Mono(10_200));
    assert_eq!(service.state(), ServiceState::Up);
}

#[test]
fn a_service_that_never_answers_ends_as_unknown() {
    let mut service = health(policy());
    service.tick(Mono(10_001));
    assert_eq!(service.state(), ServiceState::Unknown);
}

#[test]
fn disable_beats_drain_and_both_end() {
    let mut service = health(policy());
    service.observe(PASS, PASS, Mono(0));
    service.drain(Some(1000), Mono(1));
    assert_eq!(service.state(), ServiceState::Draining);
    service.disable(true, Mono(2));
    assert_eq!(service.state(), ServiceState::Disabled);
    service.disable(false, Mono(3));
    assert_eq!(service.state(), ServiceState::Draining);
    service.tick(Mono(1001));
    assert_eq!(service.state(), ServiceState::Up);
}

#[test]
fn the_start_delay_keeps_a_service_from_rising() {
    let mut service = health(Policy { start_delay_ms: 500, ..policy() });
    service.observe(PASS, PASS, Mono(10));
    assert_eq!(service.state(), ServiceState::Rising);
    service.tick(Mono(500));
    assert_eq!(service.state(), ServiceState::Up);
}

#[test]
fn damping_doubles_the_hold_down_to_its_cap_and_forgets() {
    let damping = Damping { hold_ms: 100, cap_ms: 300, forget_ms: 1000 };
    let mut service = health(Policy { damping: Some(damping), ..policy() });
    let mut now = Mono(0);
    let mut held = Vec::new();
    for _ in 0..4 {
        service.observe(PASS, PASS, now);
        assert_eq!(service.state(), ServiceState::Up);
        service.observe(FAIL, FAIL, now);
        let until = service.held_until(now).unwrap();
        held.push(until.since(now));
        service.observe(PASS, PASS, now);
        assert_eq!(service.state(), ServiceState::Rising);
        now = until;
    }
    assert_eq!(held, [100, 200, 300, 300]);
    service.observe(PASS, PASS, now);
    service.tick(now.plus(1000));
    service.observe(FAIL, FAIL, now.plus(1001));
    assert_eq!(service.held_until(now.plus(1001)), Some(now.plus(1101)));
}

#[test]
fn case_40_a_thousand_flips_move_nothing_with_rise_and_fall() {
    let mut window = Window::new(3, 3);
    for _ in 0..3 {
        window.push(PASS, false);
    }
    for flip in 0..1000 {
        window.push(if flip % 2 == 0 { FAIL } else { PASS }, false);
        assert_eq!(window.verdict(), PASS);
    }
}
