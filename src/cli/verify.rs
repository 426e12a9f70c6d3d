//! `verify`: the checker's findings for a person; exit 1 on a violation or where a limit ended the search.

use std::process::ExitCode;
use std::time::Duration;

use super::{fail, say};
use crate::verify::configurations::all;
use crate::verify::explore::{Findings, Limits, explore};
use crate::verify::invariants::Rule;
use crate::rules::mutant::Mutant;
use crate::verify::model::Bounds;
use crate::verify::mutants::{searches, try_mutant};

/// `verify`.
pub(super) fn verify(bounds: Bounds, states: usize, seconds: u64, workers: usize) -> ExitCode {
    say(&format!(
        "bounds on one path: {} faults, {} requests, {} writes; time unbounded",
        bounds.faults, bounds.requests, bounds.writes
    ));
    let began = std::time::Instant::now();
    let mut total = Findings { closed: true, exercised: vec![0; Rule::ALL.len()], ..Findings::default() };
    for one in all(bounds) {
        let (store, start) = one.begin();
        let left = Duration::from_secs(seconds).saturating_sub(began.elapsed());
        let found = explore(&store, start, Limits { states, time: left, workers });
        say(&format!(
            "{:<32} {:>10} states, {:>11} moves, depth {:>3}, {:>6.1} s, {} sides, {} steps, {}",
            one.name,
            found.states,
            found.moves,
            found.depth,
            found.took.as_secs_f64(),
            found.parts.0,
            found.parts.1,
            if found.closed { "closed" } else { "not closed" }
        ));
        if let Some((name, trace)) = &found.violation {
            say(&trace.join("\n"));
            return fail(&format!("violated: {name}"));
        }
        total.states += found.states;
        total.closed &= found.closed;
        total.demoted_ms = total.demoted_ms.max(found.demoted_ms);
        total.exercised.iter_mut().zip(&found.exercised).for_each(|(sum, more)| *sum += more);
        for (name, times) in found.reached {
            *total.reached.entry(name).or_default() += times;
        }
    }
    for (rule, times) in Rule::ALL.iter().zip(&total.exercised) {
        say(&format!("  {:<28} exercised {:>11} times: {}", rule.name(), times, rule.says()));
    }
    for (what, count) in &total.reached {
        say(&format!("  reached {count:>11} times: {what}"));
    }
    let took = began.elapsed().as_secs_f64();
    say(&format!(
        "{} states in {took:.1} s ({:.0} a second), peak memory {} MiB, both read-only at most {} s on the way to rest",
        total.states,
        total.states as f64 / took,
        peak_mib(),
        total.demoted_ms / 1000
    ));
    if total.closed { ExitCode::SUCCESS } else { fail("the search ended at a limit before it closed") }
}

/// `verify --mutants`: every seeded fault until an invariant breaks.
pub(super) fn mutants(seconds_each: u64, workers: usize, only: Option<&str>) -> ExitCode {
    let searches = searches();
    let chosen: Vec<Mutant> = Mutant::ALL
        .iter()
        .copied()
        .filter(|mutant| only.is_none_or(|name| format!("{mutant:?}").eq_ignore_ascii_case(name)))
        .collect();
    let (mut killed, mut states) = (0, 0);
    for mutant in &chosen {
        let limits = Limits { states: 3_000_000, time: Duration::from_secs(seconds_each), workers };
        let trial = try_mutant(*mutant, &searches, limits);
        states += trial.states;
        let fate = match &trial.killed {
            Some((name, depth)) => {
                killed += 1;
                format!("killed by {name} at depth {depth} ({})", trial.search)
            }
            None => format!("SURVIVES (last: {})", trial.search),
        };
        let took = trial.took.as_secs_f64();
        say(&format!("{:<24} {}: {fate}, {} states, {took:.1} s", format!("{mutant:?}"), mutant.says(), trial.states));
        if only.is_some() {
            say(&trial.trace.join("\n"));
        }
    }
    say(&format!("{killed} of {} killed, {states} states", chosen.len()));
    if killed == chosen.len() { ExitCode::SUCCESS } else { fail("a fault survives") }
}

/// Peak resident memory of this process; 0 where the system does not tell.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
