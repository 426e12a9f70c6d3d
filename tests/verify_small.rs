//! The checker on a model small enough for every test run.

use std::time::Duration;

use switchover_agent::verify::explore::explore;
use switchover_agent::verify::model::Bounds;

#[test]
fn a_small_world_closes_without_a_violation() {
    let bounds = Bounds { faults: 1, requests: 1, ticks: 6 };
    let found = explore(bounds, 2_000_000, Duration::from_secs(300));
    assert_eq!(
        found.violation,
        None,
        "{}",
        found.violation.as_ref().map_or(String::new(), |(_, trace)| trace.join("\n"))
    );
    assert!(found.closed, "{found:?}");
    assert!(found.states > 1_000, "the model moves: {found:?}");
}
