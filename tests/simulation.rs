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
fn a_day_of_more_than_twenty_faults_breaks_no_promise_and_replays_byte_for_byte() {
    let outcome = simulate(Plan::of(1, 8));
    assert_clean(&outcome);
    let faults: u64 = outcome.judgement.faults.values().sum();
    assert!(faults >= 20, "{faults} faults");
    assert!(!outcome.judgement.transitions.is_empty());
    let again = simulate(Plan::of(1, 8));
    assert_eq!(again.journals, outcome.journals);
    assert_eq!(again.history.facts, outcome.history.facts);
    assert!(outcome.journals.iter().all(|(bytes, _)| *bytes > 100_000));
}

#[test]
fn another_seed_is_another_day() {
    let first = simulate(Plan::of(2, 3));
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
    let outcome = simulate(Plan { scenario: Scenario::Sensors, ..Plan::of(5, 4) });
    assert_clean(&outcome);
    assert!(outcome.judgement.promotions.is_empty(), "{:?}", outcome.judgement.promotions);
    assert!(outcome.judgement.faults["gslb-flap"] >= 20);
}

#[test]
fn real_outages_are_acted_on() {
    let outcome = simulate(Plan { scenario: Scenario::Outages, ..Plan::of(5, 4) });
    assert_clean(&outcome);
    assert!(outcome.judgement.reaction.len() >= 6, "{:?}", outcome.judgement.reaction);
}

#[test]
fn the_checker_sees_planted_faults() {
    let nemesis = |seed, planted| Plan { planted, ..Plan::of(seed, 3) };
    for (plan, promise) in [
        (nemesis(1, Planted::NoFencing), "never two writable sites"),
        (nemesis(1, Planted::RogueStandby), "never two writable sites"),
        (nemesis(1, Planted::DoubledCall), "once-only effects happen once"),
        (nemesis(1, Planted::Stuck), "comes to rest or says why not"),
    ] {
        let found = promises(&simulate(plan.clone()));
        assert!(found.contains(promise), "{:?} gave {found:?}", plan.planted);
    }
    let gullible = Plan { planted: Planted::Gullible, scenario: Scenario::Sensors, ..Plan::of(5, 4) };
    assert!(promises(&simulate(gullible)).contains("no false failover"));
}
