//! Many seeds: runs them on a few threads, adds up what they gave, and writes the report.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::checker::Judgement;
use super::history::clock;
use super::plan::{DAY_MS, EPISODE_MS, Plan};
use super::{Outcome, run};

/// Facts before a violation that are shown.
const SHOWN: usize = 25;
/// Violations that are shown with their facts.
const SHOWN_VIOLATIONS: usize = 5;

/// What is asked of a campaign.
#[derive(Debug, Clone)]
pub struct Order {
    /// One plan per seed.
    pub plans: Vec<Plan>,
    /// Each one is run a second time and must give the same journals.
    pub twice: bool,
    /// Threads.
    pub threads: usize,
    /// The whole timeline is shown.
    pub trace: bool,
    /// Called with a line after each run.
    pub tell: fn(&str),
}

/// The sum of all runs.
#[derive(Debug, Default)]
pub struct Sum {
    /// Runs.
    pub runs: u64,
    /// Episodes.
    pub episodes: u64,
    /// Broken promises.
    pub violations: u64,
    /// Runs whose second run gave another journal.
    pub different: u64,
    /// Everything else.
    pub all: Judgement,
    /// Journal bytes.
    pub bytes: u64,
    /// Real milliseconds of the campaign.
    pub took_ms: u64,
    /// What to print before the sum.
    pub said: String,
}

impl Sum {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.violations == 0 && self.different == 0
    }
}

/// Runs everything.
///
/// # Errors
/// See [`run`].
pub fn campaign(order: &Order) -> io::Result<Sum> {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let results: Mutex<BTreeMap<usize, (Outcome, bool)>> = Mutex::default();
    let failed: Mutex<Option<io::Error>> = Mutex::default();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(plan) = order.plans.get(index) else { return };
            let result = run(plan.clone()).and_then(|outcome| {
                let same = !order.twice || run(plan.clone())?.journals == outcome.journals;
                Ok((outcome, same))
            });
            match result {
                Ok((mut outcome, same)) => {
                    (order.tell)(&outcome.summary());
                    if outcome.judgement.violations.is_empty() && !order.trace {
                        outcome.history.facts.clear();
                    }
                    let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    results.insert(index, (outcome, same));
                }
                Err(error) => {
                    *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..order.threads.max(1) {
            scope.spawn(work);
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    let mut sum = Sum::default();
    for (_, (outcome, same)) in results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        sum.add(&outcome, same, order.trace);
    }
    sum.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(sum)
}

fn merge<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

impl Sum {
    fn add(&mut self, outcome: &Outcome, same: bool, trace: bool) {
        let (plan, found) = (&outcome.plan, &outcome.judgement);
        self.runs += 1;
        self.episodes += plan.episodes;
        self.bytes += outcome.journals.iter().map(|(bytes, _)| bytes).sum::<u64>();
        if trace {
            outcome.history.lines(0).for_each(|line| self.say(&line));
            for (side, (bytes, hash)) in ["active", "passive"].iter().zip(&outcome.journals) {
                self.say(&format!("journal {side}: {bytes} bytes, sha256 {hash}"));
            }
        }
        if !same {
            self.different += 1;
            self.say(&format!("seed {}: the second run gave another journal", plan.seed));
            self.say(&format!("  again: {}", plan.command()));
        }
        for violation in found.violations.iter().take(SHOWN_VIOLATIONS) {
            self.say(&format!("seed {} broke {:?} at {}", plan.seed, violation.promise, clock(violation.at)));
            self.say(&format!("  {}", violation.what));
            let from = violation.index.saturating_sub(SHOWN);
            let lines: Vec<String> = outcome.history.lines(from).take(SHOWN + 1).collect();
            lines.iter().for_each(|line| self.say(&format!("    {line}")));
            self.say(&format!("  again: {}", plan.command()));
        }
        self.violations += found.violations.len() as u64;
        let all = &mut self.all;
        merge(&mut all.faults, &found.faults);
        merge(&mut all.transitions, &found.transitions);
        merge(&mut all.assumed_ms, &found.assumed_ms);
        merge(&mut all.missing, &found.missing);
        merge(&mut all.promotions, &found.promotions);
        all.split_ms += found.split_ms;
        all.convergence.extend(&found.convergence);
        all.reaction.extend(&found.reaction);
        all.outage.extend(&found.outage);
    }

    fn say(&mut self, line: &str) {
        self.said.push_str(line);
        self.said.push('\n');
    }

    /// The report.
    pub fn report(&mut self) -> String {
        let mut out = std::mem::take(&mut self.said);
        let all = &mut self.all;
        let simulated = self.episodes * EPISODE_MS;
        let days = simulated as f64 / DAY_MS as f64;
        let speed = simulated / self.took_ms.max(1);
        let faults: u64 = all.faults.values().sum();
        let per_day = faults as f64 / days.max(0.001);
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        line(format!(
            "{} runs, {:.1} days of a pair ({:.1} site-days) in {:.1} s: {} times real time, {} journal bytes",
            self.runs,
            days,
            2.0 * days,
            self.took_ms as f64 / 1_000.0,
            speed,
            self.bytes
        ));
        line(format!("faults: {faults}, {per_day:.1} a day"));
        table(&mut line, "  ", &all.faults);
        line("transitions begun, by rule:".to_owned());
        table(&mut line, "  ", &all.transitions);
        line("promotions:".to_owned());
        table(&mut line, "  ", &all.promotions);
        line("acknowledged writes missing at promotions:".to_owned());
        table(&mut line, "  ", &all.missing);
        line(format!("ms with two writable sites where the design promises none: {}", all.split_ms));
        line("ms with two writable sites where it only assumes:".to_owned());
        table(&mut line, "  ", &all.assumed_ms);
        line(format!("after the last fault until order or a named halt: {}", spread(&mut all.convergence)));
        line(format!("real outage until the failover began: {}", spread(&mut all.reaction)));
        line(format!("moved traffic until writes were taken there: {}", spread(&mut all.outage)));
        line(format!("violations: {}; runs that differed: {}", self.violations, self.different));
        out
    }
}

fn table<K: std::fmt::Display>(line: &mut impl FnMut(String), indent: &str, rows: &BTreeMap<K, u64>) {
    let mut text = String::new();
    for (key, count) in rows {
        let _ = write!(text, "{indent}{key} {count}");
    }
    if !text.is_empty() {
        line(text);
    }
}

fn spread(values: &mut [u64]) -> String {
    values.sort_unstable();
    let at =
        |percent: usize| values.get((values.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(0);
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    format!(
        "{} times, p50 {:.1} s, p99 {:.1} s, max {:.1} s",
        values.len(),
        seconds(at(50)),
        seconds(at(99)),
        seconds(at(100))
    )
}
