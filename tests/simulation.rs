//! Whole agents on virtual time: a sample of what `lab --seeds` does at length, and proof that its checker has teeth.

use std::collections::BTreeSet;

use switchover_agent::lab::sim::plan::{MODES, Plan, Planted, Scenario};
use switchover_agent::lab::sim::{Outcome, run};

fn simulate(plan: Plan) -> Outcome {
    run(plan).expect("a plan that can be carried out")
}

fn promises(outcome: &Outcome) -> BTreeSet<&'static str> {
    outcome.judgement.violations.iter().map(|violation| violation.promise).collect()
}

fn assert_clean(outcome: &Outcome) {
    let last = outcome.judgement.violations.first().map(|violation| {
        let from = violation.index.saturating_sub(25);
        outcome.history.lines(from).take(26).collect::<Vec<_>>().join("\n")
    });
    assert!(
        outcome.judgement.violations.is_empty(),
        "{}\n{:#?}\n{}",
        outcome.plan.command(),
        outcome.judgement.violations,
        last.unwrap_or_default()
    );
}

#[test]
fn hours_of_more_than_twenty_faults_a_day_break_no_promise_and_replay_byte_for_byte() {
    let outcome = simulate(Plan::of(1, 3));
    assert_clean(&outcome);
    let faults: u64 = outcome.judgement.faults.values().sum();
    assert!(faults >= 8, "{faults} faults in nine hours");
    let again = simulate(Plan::of(1, 3));
    assert_eq!(again.journals, outcome.journals);
    assert_eq!(again.history.facts, outcome.history.facts);
    assert!(outcome.journals.iter().all(|(bytes, _)| *bytes > 10_000));
}

#[test]
fn another_seed_is_another_day() {
    let first = simulate(Plan::of(4, 1));
    assert_clean(&first);
    let second = simulate(Plan { seed: 3, ..first.plan.clone() });
    assert_ne!(first.journals, second.journals);
}

#[test]
fn every_mode_is_what_some_seed_stands_for() {
    let modes: BTreeSet<_> =
        (0..10).map(|seed| (Plan::of(seed, 3).mode, Plan::of(seed, 3).witness)).collect();
    assert_eq!(modes, MODES.into_iter().collect());
}

#[test]
fn bad_sensors_alone_move_nothing() {
    let outcome = simulate(Plan { scenario: Scenario::Sensors, ..Plan::of(5, 2) });
    assert_clean(&outcome);
    assert!(outcome.judgement.promotions.is_empty(), "{:?}", outcome.judgement.promotions);
    assert!(outcome.judgement.faults["gslb-flap"] >= 8);
}

#[test]
fn real_outages_are_acted_on() {
    let outcome = simulate(Plan { scenario: Scenario::Outages, ..Plan::of(5, 2) });
    assert_clean(&outcome);
    assert_eq!(outcome.judgement.reaction.len(), 2, "{:?}", outcome.judgement.reaction);
}

fn assert_seen(planted: Planted, scenario: Scenario, episodes: u64, promise: &str) {
    let found = promises(&simulate(Plan { planted, scenario, ..Plan::of(5, episodes) }));
    assert!(found.contains(promise), "{planted:?} gave {found:?}");
}

#[test]
fn the_checker_sees_agents_that_do_not_fence() {
    assert_seen(Planted::NoFencing, Scenario::Outages, 2, "never two writable sites");
}

#[test]
fn the_checker_sees_a_standby_that_promotes_itself() {
    assert_seen(Planted::RogueStandby, Scenario::Sensors, 1, "never two writable sites");
}

#[test]
fn the_checker_sees_a_call_that_is_carried_out_twice() {
    assert_seen(Planted::DoubledCall, Scenario::Outages, 1, "once-only effects happen once");
}

#[test]
fn the_checker_sees_a_pair_that_does_not_come_to_rest() {
    assert_seen(Planted::Stuck, Scenario::Sensors, 1, "comes to rest or says why not");
}

#[test]
fn the_checker_sees_a_resolver_that_is_believed_alone() {
    assert_seen(Planted::Gullible, Scenario::Sensors, 1, "no false failover");
}
