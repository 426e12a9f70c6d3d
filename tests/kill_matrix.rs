//! kill -9 at every step: real agents as processes, sites simulated here, every transition, every step of each side's
//! plan, before its intent, after its intent, after its effect, after its record, at gold, at golddr and at both.
//!
//! A fair sample runs with every test; `make test-kill` runs the whole and prints the table. `KILL_CASE=<case>` runs
//! one case (a failing case prints its own), `KILL_KEEP=1` keeps its logs and journals, `KILL_AGENT=<file>` runs another
//! binary than the one just built.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that cannot be set up should panic"
)]
#![allow(clippy::disallowed_methods, reason = "which cases run is a choice of whoever starts the test")]

#[path = "kill_matrix/cases.rs"]
mod cases;
#[path = "kill_matrix/damage.rs"]
mod damage;
#[path = "kill_matrix/drive.rs"]
mod drive;
#[path = "kill_matrix/rig.rs"]
mod rig;
#[path = "kill_matrix/routes.rs"]
mod routes;
#[path = "kill_matrix/survive.rs"]
mod survive;
#[path = "kill_matrix/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cases::{Case, SCENARIOS};
use drive::{Reference, Verdict};
use futures_util::StreamExt;
use switchover_agent::model::Side;

/// Labs at one time.
const AT_ONCE: usize = 5;
/// What an agent may take after a restart until it acts.
const RESUMED_WITHIN: Duration = Duration::from_secs(2);
/// Further runs of a case whose restart took longer, each with the machine to itself as far as this test goes.
const LATE_AGAIN: usize = 3;
/// Kills of the sample that runs with every test.
const SAMPLE: usize = 64;

type Results = Vec<(Case, Result<Verdict, String>)>;

async fn references(names: &[&'static str]) -> BTreeMap<&'static str, Arc<Reference>> {
    let runs = names.iter().map(|name| async move { (*name, drive::reference(drive::scenario(name)).await) });
    let runs: Vec<_> = futures_util::stream::iter(runs).buffer_unordered(AT_ONCE).collect().await;
    runs.into_iter().map(|(name, run)| (name, Arc::new(run.unwrap_or_else(|why| panic!("{why}"))))).collect()
}

fn all_cases(references: &BTreeMap<&'static str, Arc<Reference>>) -> Vec<Case> {
    let of_scenario = |(name, reference): (&&'static str, &Arc<Reference>)| {
        let steered = drive::scenario(name).routes;
        let [gold, golddr] = Side::ALL.map(|side| {
            let mut places = cases::places(&reference.journals[side as usize]);
            // How often a site that waits for the other one's announcement has to ask differs from run to run.
            places.retain(|place| !steered || place.contains("routes") && place.ends_with(":1"));
            places
        });
        cases::cases(name, [&gold, &golddr])
    };
    references.iter().flat_map(of_scenario).collect()
}

/// The same cases in an order of which every beginning is a fair sample: all transitions, sides and points.
fn spread(all: Vec<Case>) -> Vec<Case> {
    let count = all.len();
    // About the golden section of the list, and without a factor in common with its length.
    let common = |a: usize, b: usize| (2..=a.min(b)).any(|by| a.is_multiple_of(by) && b.is_multiple_of(by));
    let step = (count * 618 / 1000..count).find(|step| !common(*step, count)).unwrap_or(1);
    (0..count).map(|index| all[index * step % count].clone()).collect()
}

async fn run_all(cases: Vec<Case>, references: &BTreeMap<&'static str, Arc<Reference>>) -> Results {
    let total = cases.len();
    let runs = cases.into_iter().enumerate().map(|(index, case)| {
        let reference = Arc::clone(&references[case.scenario]);
        async move {
            let begun = std::time::Instant::now();
            let result = drive::run(&case, &reference).await;
            let word = match &result {
                Ok(verdict) => format!("{:?}", verdict.end),
                Err(_) => "FAILED".to_owned(),
            };
            println!("{:>4}/{total} {case}: {word} {:.1} s", index + 1, begun.elapsed().as_secs_f64());
            if let Err(why) = &result {
                println!("  repeat: make test-kill KILL_CASE='{case}'\n{why}\n");
            }
            (case, result)
        }
    });
    futures_util::stream::iter(runs).buffer_unordered(AT_ONCE).collect().await
}

fn is_late(result: &Result<Verdict, String>) -> bool {
    result.as_ref().is_ok_and(|verdict| verdict.resumed.iter().any(|took| *took > RESUMED_WITHIN))
}

/// Five labs on a busy machine can make any start slow: a case whose restart took too long runs again by itself, and
/// has failed where it is never in time.
async fn run_late_again(results: &mut Results, references: &BTreeMap<&'static str, Arc<Reference>>) {
    for (case, result) in results.iter_mut().filter(|(_, result)| is_late(result)) {
        for _ in 0..LATE_AGAIN {
            println!("again, its restart took too long: {case}");
            *result = drive::run(case, &references[case.scenario]).await;
            if !is_late(result) {
                break;
            }
        }
        if is_late(result) {
            *result = Err(format!("no restart within {RESUMED_WITHIN:?}: {:?}", result.as_ref().ok()));
        }
    }
}

fn judge(results: &Results) {
    println!("\n{}", table::render(results));
    let mut failed = 0;
    for (case, result) in results {
        if let Err(why) = result {
            failed += 1;
            let first = why.lines().next().unwrap_or_default();
            println!("FAILED {case}: {first}\n  repeat: make test-kill KILL_CASE='{case}'");
        }
    }
    assert_eq!(failed, 0, "of {} cases", results.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_step_goes_on_and_does_nothing_twice() {
    if let Ok(text) = std::env::var("KILL_CASE") {
        let case = Case::parse(&text).unwrap_or_else(|| panic!("KILL_CASE={text} is no case"));
        let references = references(&[case.scenario]).await;
        let mut results = run_all(vec![case], &references).await;
        run_late_again(&mut results, &references).await;
        return judge(&results);
    }
    let only = std::env::var("KILL_SCENARIO").unwrap_or_default();
    let names: Vec<&str> =
        SCENARIOS.iter().map(|known| known.name).filter(|name| only.is_empty() || *name == only).collect();
    let references = references(&names).await;
    let mut cases = spread(all_cases(&references));
    let wanted = match std::env::var("KILL_CASES").as_deref() {
        Ok("all") => cases.len(),
        Ok(number) => number.parse().unwrap(),
        Err(_) => SAMPLE,
    };
    println!("{} cases, of which {} run", cases.len(), wanted.min(cases.len()));
    cases.truncate(wanted);
    let mut results = run_all(cases, &references).await;
    run_late_again(&mut results, &references).await;
    judge(&results);
}
