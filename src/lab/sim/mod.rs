//! The whole agent on virtual time: two of them, two simulated sites, and everything that breaks, out of one seed.
//!
//! ```text
//!  director ── nemesis, person ──▶ world ◀── stage (effects) ◀── shipped loop: bus, engine, journal, executor
//!                                    │  └──▶ senses (looks) ──▶ bus             │
//!                                    ▼                                           └── courier ─ link ─ other agent
//!                                 history ──▶ checker ──▶ campaign
//! ```
//!
//! `docs/simulation.md` says which code is the shipped one and what is replaced. A run is one thread with a paused
//! clock, so that the same seed gives the same journal byte for byte.

mod agent;
pub mod campaign;
pub mod checker;
pub mod dice;
mod director;
mod disk;
mod gate;
pub mod history;
mod link;
pub mod nemesis;
mod order;
mod patroni;
mod person;
pub mod plan;
mod senses;
mod site;
mod stage;
mod strike;
mod world;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use checker::{Judgement, Violation, judge};
use history::History;
use plan::Plan;

/// What a simulation gave.
pub struct Outcome {
    /// What was simulated.
    pub plan: Plan,
    /// What happened.
    pub history: History,
    /// What the checker says.
    pub judgement: Judgement,
    /// Bytes of both journals and their SHA-256.
    pub journals: [(u64, String); 2],
    /// Real milliseconds that it took.
    pub took_ms: u64,
}

impl Outcome {
    /// One line.
    pub fn summary(&self) -> String {
        let faults: u64 = self.judgement.faults.values().sum();
        let broken: Vec<&str> = self.judgement.violations.iter().map(|violation| violation.promise).collect();
        let mode = format!("{:?}{}", self.plan.mode, if self.plan.witness { " with a witness" } else { "" });
        format!(
            "seed {} ({mode}): {faults} faults, {:.1} s, violations: {broken:?}",
            self.plan.seed,
            self.took_ms as f64 / 1_000.0
        )
    }
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let folder = base.join(format!("switchover-simulation-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a plan to its end on this thread.
///
/// # Errors
/// Where the folder for the journals or the runtime cannot be made.
pub fn run(plan: Plan) -> io::Result<Outcome> {
    let begun = Instant::now();
    let folder = Folder::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let (history, journals, damage) = runtime.block_on(async {
        let mut director = director::Director::new(plan.clone(), &folder.0);
        director.run().await;
        director.into_result()
    });
    drop(runtime);
    let mut judgement = judge(&plan, &history);
    for what in damage {
        let (at, index) = (history.facts.last().map_or(0, |(at, _)| *at), history.facts.len());
        let promise = "a journal survives crashes, torn lines and full disks";
        judgement.violations.push(Violation { at, index, promise, what });
    }
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Outcome { plan, history, judgement, journals, took_ms })
}
