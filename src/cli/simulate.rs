//! `lab --seed N`: whole agents on virtual time. Exit code 1 where a promise was broken.

use std::process::ExitCode;

use super::{fail, say};
use crate::lab::sim::campaign::{Order, campaign};
use crate::lab::sim::plan::{EPISODES_A_DAY, Plan, Scenario};

/// Arguments of the simulation.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Simulate on virtual time with this seed instead of running the lab
    #[arg(long, value_name = "N", conflicts_with_all = ["cycle", "seeds"])]
    seed: Option<u64>,
    /// The same with several seeds: 1..20 (both included)
    #[arg(long, value_name = "A..B", value_parser = range, conflicts_with = "cycle")]
    seeds: Option<(u64, u64)>,
    /// Simulated days per seed
    #[arg(long, default_value_t = 1)]
    days: u64,
    /// What breaks: nemesis, sensors or outages
    #[arg(long, default_value = "nemesis", value_parser = scenario)]
    faults: Scenario,
    /// Run each seed twice and compare the journals
    #[arg(long)]
    twice: bool,
    /// Print the whole timeline
    #[arg(long)]
    trace: bool,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Arguments {
    /// Whether a simulation is asked for.
    pub fn wanted(&self) -> bool {
        self.seed.is_some() || self.seeds.is_some()
    }
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text:?} is no range; right would be 1..20");
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let last = last.trim_start_matches('=');
    let (first, last): (u64, u64) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first > last { Err(wrong()) } else { Ok((first, last)) }
}

fn scenario(text: &str) -> Result<Scenario, String> {
    Scenario::from_name(text).ok_or_else(|| {
        let known: Vec<&str> = Scenario::ALL.iter().map(|(_, name)| *name).collect();
        format!("known are {}", known.join(", "))
    })
}

/// `lab --seed`.
pub(super) fn simulate(arguments: &Arguments) -> ExitCode {
    let (first, last) = arguments.seeds.or(arguments.seed.map(|seed| (seed, seed))).unwrap_or((1, 1));
    let plan = |seed| Plan { scenario: arguments.faults, ..Plan::of(seed, arguments.days * EPISODES_A_DAY) };
    let order = Order {
        plans: (first..=last).map(plan).collect(),
        twice: arguments.twice,
        threads: arguments.threads,
        trace: arguments.trace,
        tell: super::remark,
    };
    match campaign(&order) {
        Ok(mut sum) => {
            say(sum.report().trim_end());
            if sum.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&format!("the simulation could not run: {error}")),
    }
}
