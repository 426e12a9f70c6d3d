//! `verify`: the checker's findings for a person; exit 1 on a violation or where a limit ended the search.

use std::process::ExitCode;
use std::time::Duration;

use super::{fail, say};
use crate::rules::mutant::Mutant;
use crate::verify::configurations::{Configuration, all};
use crate::verify::explore::{Findings, Limits, explore};
use crate::verify::model::Bounds;
use crate::verify::mutants::{searches, try_mutant};
use crate::verify::rule::Rule;

/// Budgets of the search.
const WHOLE: &[Bounds] = &[
    Bounds { faults: 1, requests: 1, writes: 0 },
    Bounds { faults: 0, requests: 2, writes: 1 },
    Bounds { faults: 1, requests: 2, writes: 0 },
];
/// Budgets of `--small`.
const SMALL: &[Bounds] =
    &[Bounds { faults: 1, requests: 0, writes: 0 }, Bounds { faults: 0, requests: 1, writes: 1 }];

/// What `verify` searches and how long.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only this budget: faults, requests of operators and clients' writes on one path
    #[arg(long, num_args = 3, value_names = ["FAULTS", "REQUESTS", "WRITES"])]
    budget: Option<Vec<u8>>,
    /// Only searches whose name has these words, such as `self-fencing from gold-standby`
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// Go on with the next search after a violation
    #[arg(long)]
    keep_going: bool,
    /// Two small budgets, for seconds
    #[arg(long)]
    small: bool,
    /// Seed every fault of `rules::mutant` in turn and search until an invariant breaks
    #[arg(long)]
    mutants: bool,
    /// Only this fault, with its trace
    #[arg(long, value_name = "NAME", requires = "mutants")]
    only: Option<String>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Stop a search after this many states
    #[arg(long, default_value_t = 200_000_000)]
    states: usize,
    /// Stop after this many seconds (`--mutants`: for each fault)
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

/// `verify`.
pub(super) fn verify(arguments: &Arguments) -> ExitCode {
    if arguments.mutants {
        return mutants(arguments.seconds.min(120), arguments.workers, arguments.only.as_deref());
    }
    let bounds = match (&arguments.budget, arguments.small) {
        (Some(given), _) => {
            vec![Bounds { faults: given[0], requests: given[1], writes: given[2] }]
        }
        (None, true) => SMALL.to_vec(),
        (None, false) => WHOLE.to_vec(),
    };
    // Small and always whole, so first.
    if let Err(why) = super::routes::verify() {
        return fail(&why);
    }
    let configurations: Vec<Configuration> = bounds.iter().flat_map(|bounds| all(*bounds)).collect();
    search(&configurations, arguments)
}

fn search(configurations: &[Configuration], arguments: &Arguments) -> ExitCode {
    let began = std::time::Instant::now();
    let mut total = Findings { closed: true, exercised: vec![0; Rule::ALL.len()], ..Findings::default() };
    let wanted = |one: &Configuration| arguments.search.as_ref().is_none_or(|words| one.name.contains(words));
    for one in configurations.iter().filter(|one| wanted(one)) {
        let (store, start) = one.begin();
        let left = Duration::from_secs(arguments.seconds).saturating_sub(began.elapsed());
        let limits = Limits { states: arguments.states, time: left, workers: arguments.workers };
        let found = explore(&store, start, limits);
        say(&line(one, &found));
        if let Some((name, trace)) = &found.violation {
            say(&trace.join("\n"));
            let code = fail(&format!("violated: {name}"));
            if !arguments.keep_going {
                return code;
            }
        }
        add(&mut total, found);
    }
    sum_up(&total, began.elapsed().as_secs_f64());
    if total.closed { ExitCode::SUCCESS } else { fail("the search ended at a limit before it closed") }
}

fn line(one: &Configuration, found: &Findings) -> String {
    let bounds = one.bounds;
    format!(
        "{:<42} {} faults, {} requests, {} writes: {:>9} states, {:>10} moves, depth {:>3}, {:>6.1} s, {} sides, \
         {} steps, {}",
        one.name,
        bounds.faults,
        bounds.requests,
        bounds.writes,
        found.states,
        found.moves,
        found.depth,
        found.took.as_secs_f64(),
        found.parts.0,
        found.parts.1,
        if found.closed { "closed" } else { "not closed" }
    )
}

fn add(total: &mut Findings, found: Findings) {
    total.states += found.states;
    total.closed &= found.closed;
    total.demoted_ms = total.demoted_ms.max(found.demoted_ms);
    total.exercised.iter_mut().zip(&found.exercised).for_each(|(sum, more)| *sum += more);
    for (name, times) in found.reached {
        *total.reached.entry(name).or_default() += times;
    }
}

fn sum_up(total: &Findings, took: f64) {
    for (rule, times) in Rule::ALL.iter().zip(&total.exercised) {
        say(&format!("  {:<28} exercised {times:>11} times: {}", rule.name(), rule.says()));
    }
    for (what, count) in &total.reached {
        say(&format!("  reached {count:>11} times: {what}"));
    }
    say(&format!(
        "{} states in {took:.1} s ({:.0} a second), peak memory {} MiB, time unbounded; both read-only at most {} s \
         on a way to rest",
        total.states,
        total.states as f64 / took,
        peak_mib(),
        total.demoted_ms / 1000
    ));
}

/// `verify --mutants`: every seeded fault until an invariant breaks.
fn mutants(seconds_each: u64, workers: usize, only: Option<&str>) -> ExitCode {
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
            Some(what) => {
                killed += 1;
                format!("killed: {what} ({})", trial.search)
            }
            None => format!("SURVIVES (last: {})", trial.search),
        };
        let took = trial.took.as_secs_f64();
        say(&format!(
            "{:<24} {}: {fate}, {} states, {took:.1} s",
            format!("{mutant:?}"),
            mutant.says(),
            trial.states
        ));
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
