//! The checker's teeth: every seeded fault of [`Mutant`] searched for until an invariant breaks.
//!
//! Each fault runs through the same small searches, cheapest first, and counts as killed by the first invariant that
//! breaks. A fault that no search kills is a hole in the invariants or in the model.

use std::time::{Duration, Instant};

use super::configurations::{Configuration, all};
use super::explore::{Limits, explore};
use super::model::Bounds;
use super::part::Setting;
use crate::model::Phase;
use crate::rules::mutant::Mutant;

/// How a fault fared.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The fault.
    pub mutant: Mutant,
    /// The invariant that broke, and the length of the shortest way there.
    pub killed: Option<(String, usize)>,
    /// The search in which it broke, or the last one.
    pub search: String,
    /// States looked at.
    pub states: usize,
    /// Time it took.
    pub took: Duration,
    /// The way there in words.
    pub trace: Vec<String>,
}

/// Only what `verify` closes without a fault: a search that the shipped engine fails would kill everything.
const SMALL: &[Bounds] = &[
    Bounds { faults: 0, requests: 1, writes: 0 },
    Bounds { faults: 1, requests: 0, writes: 0 },
    Bounds { faults: 0, requests: 2, writes: 1 },
    Bounds { faults: 1, requests: 1, writes: 0 },
];
/// Budget of the last searches, closed from every phase but `gold-standby`.
const DEEP: Bounds = Bounds { faults: 1, requests: 2, writes: 0 };

/// The searches, cheapest first.
pub fn searches() -> Vec<Configuration> {
    let deep = all(DEEP).into_iter().filter(|one| one.from != Phase::GoldStandby);
    SMALL.iter().flat_map(|bounds| all(*bounds)).chain(deep).collect()
}

/// Tries a fault in every search until it is killed or the time is over.
pub fn try_mutant(mutant: Mutant, searches: &[Configuration], most: Limits) -> Trial {
    let began = Instant::now();
    let mut trial = Trial {
        mutant,
        killed: None,
        search: String::new(),
        states: 0,
        took: Duration::ZERO,
        trace: Vec::new(),
    };
    for search in searches {
        let left = most.time.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        let setting = Setting { mutant: Some(mutant), ..Setting::new(search.mode, search.witness) };
        let (store, start) = search.begin_with(setting);
        let found = explore(&store, start, Limits { time: left, ..most });
        trial.states += found.states;
        let bounds = search.bounds;
        trial.search = format!(
            "{}, {} faults, {} requests, {} writes",
            search.name, bounds.faults, bounds.requests, bounds.writes
        );
        if let Some((name, trace)) = found.violation {
            trial.killed = Some((name, found.depth + 1));
            trial.trace = trace;
            break;
        }
    }
    trial.took = began.elapsed();
    trial
}
