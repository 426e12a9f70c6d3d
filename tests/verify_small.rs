//! The checker on models small enough for every test run, and its own assumptions.

use std::time::Duration;

use switchover_agent::model::{Mono, Side};
use switchover_agent::rules::mutant::Mutant;
use switchover_agent::rules::state::State;
use switchover_agent::verify::cases;
use switchover_agent::verify::configurations::{Configuration, all};
use switchover_agent::verify::explore::{Findings, Limits, explore};
use switchover_agent::verify::model::{Bounds, Move, World};
use switchover_agent::verify::mutants::{searches, try_mutant};
use switchover_agent::verify::part::BASE_MS;
use switchover_agent::verify::rule::Rule;
use switchover_agent::verify::stage::Raw;

const LIMITS: Limits = Limits { states: 2_000_000, time: Duration::from_secs(300), workers: 2 };

fn search(one: &Configuration) -> Findings {
    let (store, start) = one.begin();
    explore(&store, start, LIMITS)
}

fn closes(bounds: Bounds) -> Vec<Findings> {
    let check = |one: &Configuration| {
        let found = search(one);
        let trace = found.violation.as_ref().map_or(String::new(), |(_, trace)| trace.join("\n"));
        assert_eq!(found.violation, None, "{}: {trace}", one.name);
        assert!(found.closed, "{}", one.name);
        found
    };
    all(bounds).iter().map(check).collect()
}

#[test]
fn every_mode_closes_with_one_fault_and_without_a_request() {
    let found = closes(Bounds { faults: 1, requests: 0, writes: 0 });
    assert!(found.iter().map(|found| found.states).sum::<usize>() > 2_000);
}

#[test]
fn every_request_without_a_fault_ends_at_both_sites_failback_included() {
    let found = closes(Bounds { faults: 0, requests: 1, writes: 1 });
    for goal in ["golddr-primary", "gold-standby", "active-passive"] {
        for side in Side::ALL {
            let name = format!("{side}: {goal} done");
            assert!(found.iter().any(|found| found.reached.contains_key(&name)), "{name}");
        }
    }
    let exercised = |rule: Rule| found.iter().map(|found| found.exercised[rule as usize]).sum::<u64>();
    for rule in [Rule::Proof, Rule::PlannedKeepsAll, Rule::ConsentOnce, Rule::OneWriter, Rule::GoalReached] {
        assert!(exercised(rule) > 0, "{} was never put to the test", rule.name());
    }
}

#[test]
fn a_sample_of_the_seeded_faults_is_found() {
    let sample = [
        Mutant::GateIgnoresTimeline,
        Mutant::GateOpen,
        Mutant::PeerAlwaysFenced,
        Mutant::PromotionUnobserved,
        Mutant::GrantsUnfenced,
        Mutant::GenerationNotRaised,
        Mutant::UnknownDnsIsMoved,
        Mutant::AdviceActs,
        Mutant::HearsTwice,
        Mutant::ForgetsJournal,
    ];
    let searches = searches();
    for mutant in sample {
        let trial = try_mutant(mutant, &searches, LIMITS);
        assert!(trial.killed.is_some(), "{mutant:?}: {} survives {}", mutant.says(), trial.search);
    }
}

#[test]
fn every_story_of_a_fault_tells_the_shipped_engine_from_the_faulty_one() {
    for case in cases::all() {
        assert!(!(case.shows)(None), "{:?} without the fault: {}", case.mutant, case.harm);
        assert!((case.shows)(Some(case.mutant)), "{:?} does not show: {}", case.mutant, case.harm);
    }
}

/// Numbers that look random and are the same in every run.
fn dice(seed: &mut u64) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize
}

fn busy(index: usize) -> Configuration {
    let bounds = Bounds { faults: 3, requests: 3, writes: 2 };
    let mut list = all(bounds);
    list.remove(index % list.len())
}

#[test]
fn the_canonical_form_behaves_as_what_it_stands_for() {
    for seed in 0..24 {
        let (store, mut world) = busy(seed).begin();
        let mut raw =
            Raw { store: &store, parts: world.parts.map(|id| store.whole(id)), now: [Mono(BASE_MS); 2] };
        let (mut dice_at, mut moves) = (seed as u64, Vec::new());
        for _ in 0..150 {
            world.moves(&store, &mut moves);
            let step = moves[dice(&mut dice_at) % moves.len()];
            let before = world;
            let mut played: World = before;
            played.play(&mut raw, step);
            world = before.after(&store, step, &mut Vec::new());
            for side in Side::ALL {
                let mut part = raw.parts[side as usize].clone();
                store.make_canonical(&mut part, raw.now[side as usize]);
                let mut known = store.whole(world.parts[side as usize]);
                // What only the invariants remember is not compared.
                part.past = known.past.clone();
                known.past = part.past.clone();
                assert_eq!(part, known, "seed {seed}, after {step:?}");
            }
        }
    }
}

#[test]
fn what_a_restart_keeps_survives_the_journals_own_form() {
    for seed in 0..12 {
        let (store, mut world) = busy(seed).begin();
        let (mut dice_at, mut moves) = (seed as u64, Vec::new());
        for _ in 0..200 {
            world.moves(&store, &mut moves);
            let step = moves[dice(&mut dice_at) % moves.len()];
            if let Move::Crash(side, _) = step {
                let durable = store.whole(world.parts[side as usize]).state.durable();
                let text = serde_json::to_string(&durable).expect("a checkpoint is JSON");
                let back: State = serde_json::from_str(&text).expect("and is read back");
                assert_eq!(back, durable);
            }
            world = world.after(&store, step, &mut Vec::new());
        }
    }
}
