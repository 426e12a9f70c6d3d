//! Every combination of the three inputs, through every transition to every other, against a table in the tree.
//! `BLESS=1 cargo test --test routes golden` rewrites it.

use std::path::Path;

use super::rig::{Poll, Rig};
use switchover_agent::rules::route_health::Verdict;
use switchover_agent::rules::route_health::actuate::Write;

const WORDS: [char; 3] = ['T', 'F', 'U'];

fn combinations() -> Vec<String> {
    let mut all = Vec::new();
    for local in WORDS {
        for remote in WORDS {
            for bgp in WORDS {
                all.push([local, remote, bgp].iter().collect());
            }
        }
    }
    all
}

fn shown(poll: &Poll) -> String {
    let verdict = match poll.decision.verdict {
        Verdict::Act(state) => format!("act {}", state.code()),
        Verdict::Skip(skip) => format!("skip {}", skip.word()),
    };
    let writes: Vec<String> = poll
        .plan
        .writes
        .iter()
        .map(|write| match write {
            Write::Router { list } => {
                format!(
                    "router {}{}",
                    if list.primary { "P" } else { "-" },
                    if list.secondary { "S" } else { "-" }
                )
            }
            Write::Cloudflare { priority } => format!("cf {priority:?}").to_lowercase(),
        })
        .collect();
    let dwell = if poll.decision.dwell_left_ms > 0 { " dwell" } else { "" };
    format!(
        "{}:{verdict}{dwell}{}{}",
        poll.decision.seen_code(),
        if writes.is_empty() { "" } else { " > " },
        writes.join(", ")
    )
}

/// Ten polls of one combination, then ten of the other; runs of equal cycles are written once with their number.
fn journey(from: &str, to: &str) -> String {
    let mut rig = Rig::new();
    rig.polls(from, 10);
    let mut cells: Vec<(String, u32)> = Vec::new();
    for _ in 0..10 {
        let cell = shown(&rig.poll(to));
        match cells.last_mut() {
            Some((last, times)) if *last == cell => *times += 1,
            _ => cells.push((cell, 1)),
        }
    }
    let cells: Vec<String> = cells.iter().map(|(cell, times)| format!("{times}x {cell}")).collect();
    format!(
        "{from} -> {to} | {} | ends {} {}{} {:?}\n",
        cells.join(" | "),
        rig.active(),
        if rig.router.primary { "P" } else { "-" },
        if rig.router.secondary { "S" } else { "-" },
        rig.priority
    )
}

#[test]
fn golden_table_of_all_transitions_between_all_inputs() {
    let all = combinations();
    let mut table = String::from(
        "Ten polls of one combination of local, remote, bgp (T healthy, F unhealthy, U unknown), then ten of another, with\n\
         the defaults, beginning with P announced and priority primary. Cells: number of cycles, code seen, verdict, writes.\n\n",
    );
    for from in &all {
        for to in &all {
            table.push_str(&journey(from, to));
        }
    }
    assert_eq!(table.lines().count(), 3 + 27 * 27);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/route_transitions.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &table).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    for (found, wanted) in table.lines().zip(wanted.lines()) {
        assert_eq!(found, wanted);
    }
    assert_eq!(table, wanted, "BLESS=1 cargo test --test routes golden");
}
