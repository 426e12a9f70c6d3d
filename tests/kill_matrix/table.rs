//! The table that a person reads.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cases::Case;
use crate::drive::{End, Verdict};

#[derive(Default)]
struct Row {
    kills: usize,
    goal: usize,
    halt: usize,
    failed: usize,
    resumed: Vec<Duration>,
}

fn percentile(sorted: &[Duration], of_hundred: usize) -> String {
    match sorted.len() {
        0 => "-".to_owned(),
        count => format!("{} ms", sorted[(count * of_hundred / 100).min(count - 1)].as_millis()),
    }
}

/// One line per transition and side, and the sum.
pub fn render(results: &[(Case, Result<Verdict, String>)]) -> String {
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    for (case, result) in results {
        for key in [(case.scenario, case.who()), ("~ all", "")] {
            let row = rows.entry(key).or_default();
            row.kills += case.kills.len();
            match result {
                Ok(verdict) => {
                    row.resumed.extend(&verdict.resumed);
                    match verdict.end {
                        End::Goal => row.goal += 1,
                        End::Halt(_) => row.halt += 1,
                    }
                }
                Err(_) => row.failed += 1,
            }
        }
    }
    let mut text = format!(
        "{:<22} {:<6} {:>5} {:>5} {:>5} {:>6} {:>7} {:>11} {:>11} {:>11}\n",
        "transition",
        "killed",
        "kills",
        "goal",
        "halt",
        "failed",
        "doubled",
        "resume p50",
        "resume p99",
        "resume max"
    );
    for ((scenario, who), mut row) in rows {
        row.resumed.sort();
        let scenario = scenario.trim_start_matches("~ ");
        let [p50, p99, max] = [50, 99, 100].map(|of_hundred| percentile(&row.resumed, of_hundred));
        text.push_str(&format!(
            "{scenario:<22} {who:<6} {:>5} {:>5} {:>5} {:>6} {:>7} {p50:>11} {p99:>11} {max:>11}\n",
            row.kills,
            row.goal,
            row.halt,
            row.failed,
            doubled(results, scenario, who),
        ));
    }
    text
}

fn doubled(results: &[(Case, Result<Verdict, String>)], scenario: &str, who: &str) -> usize {
    let of_row = |case: &Case| scenario == "all" || case.scenario == scenario && case.who() == who;
    let twice =
        |result: &Result<Verdict, String>| matches!(result, Err(why) if why.starts_with("done twice"));
    results.iter().filter(|(case, result)| of_row(case) && twice(result)).count()
}
