//! The checker on a model small enough for every test run.

use std::time::Duration;

use switchover_agent::verify::explore::explore;
use switchover_agent::verify::model::Bounds;

#[test]
fn a_small_world_closes_without_a_violation() {
    let bounds = Bounds { faults: 1, requests: 1, ticks: 3, fenced: true };
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

#[test]
fn without_fencing_the_checker_finds_the_moment_with_two_writers() {
    let bounds = Bounds { faults: 0, requests: 1, ticks: 40, fenced: false };
    let found = explore(bounds, 2_000_000, Duration::from_secs(300));
    let (name, trace) = found.violation.expect("both databases take writes");
    assert_eq!(name, "one-writer");
    assert!(!trace.is_empty());
}

#[test]
fn without_faults_a_failover_ends_at_both_sites() {
    let bounds = Bounds { faults: 0, requests: 1, ticks: 12, fenced: true };
    let found = explore(bounds, 2_000_000, Duration::from_secs(300));
    assert_eq!(found.violation, None);
    for side in ["active", "passive"] {
        assert!(found.reached.contains_key(&format!("{side}: golddr-primary done")), "{found:?}");
    }
}
