//! `verify`: the checker's findings for a person; exit 1 on a violation or where a limit ended the search.

use std::process::ExitCode;
use std::time::Duration;

use super::{fail, say};
use crate::verify::configurations::all;
use crate::verify::explore::{Findings, Limits, explore};
use crate::verify::invariants::Rule;
use crate::verify::model::Bounds;

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

/// Peak resident memory of this process; 0 where the system does not tell.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
