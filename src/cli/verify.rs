//! `verify`: the checker's findings for a person; exit 1 on a violation or where a limit ended the search.

use std::process::ExitCode;
use std::time::Duration;

use super::{fail, say};
use crate::verify::explore::explore;
use crate::verify::invariants::INVARIANTS;
use crate::verify::model::Bounds;

/// `verify`.
pub(super) fn verify(bounds: Bounds, states: usize, seconds: u64) -> ExitCode {
    let found = explore(bounds, states, Duration::from_secs(seconds));
    say(&format!(
        "bounds: {} faults, {} requests, {} advances of time",
        bounds.faults, bounds.requests, bounds.ticks
    ));
    say(&format!(
        "{} states, {} moves, depth {}, {:.1} s, {}",
        found.states,
        found.moves,
        found.depth,
        found.took.as_secs_f64(),
        if found.closed { "closed" } else { "not closed" }
    ));
    for invariant in &INVARIANTS {
        say(&format!("  {:<26} {}", invariant.name, invariant.says));
    }
    for (what, count) in &found.reached {
        say(&format!("  reached {count:>9} times: {what}"));
    }
    if let Some((name, trace)) = &found.violation {
        say(&trace.join("\n"));
        return fail(&format!("violated: {name}"));
    }
    if found.closed { ExitCode::SUCCESS } else { fail("the search ended at a limit before it closed") }
}
