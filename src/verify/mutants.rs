//! The checker's teeth: every seeded fault of [`Mutant`] searched for until an invariant breaks.
//!
//! Each fault runs through the same small searches, cheapest first, and counts as killed by the first invariant that
//! breaks. What they do not reach has a story of its own in [`super::cases`]. A fault that neither kills is a hole in the
//! invariants, in the model or in the stories.

use std::time::{Duration, Instant};

use super::cases;
use super::configurations::{Configuration, all};
use super::explore::{Limits, explore};
use super::model::Bounds;
use super::part::Setting;
use crate::rules::mutant::Mutant;

/// How a fault fared.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The fault.
    pub mutant: Mutant,
    /// What killed it: the invariant that broke at which depth, or the harm that a story showed.
    pub killed: Option<String>,
    /// The search in which it broke, or the last one.
    pub search: String,
    /// States looked at.
    pub states: usize,
    /// Time it took.
    pub took: Duration,
    /// The way there in words.
    pub trace: Vec<String>,
}

/// Cheapest first. Only what `verify` closes without a fault: a search that the shipped engine fails would kill
/// everything.
const BUDGETS: &[Bounds] = &[
    Bounds { faults: 0, requests: 1, writes: 0 },
    Bounds { faults: 1, requests: 0, writes: 0 },
    Bounds { faults: 0, requests: 2, writes: 1 },
    Bounds { faults: 1, requests: 1, writes: 0 },
    Bounds { faults: 1, requests: 2, writes: 0 },
];

/// The searches, cheapest first.
pub fn searches() -> Vec<Configuration> {
    BUDGETS.iter().flat_map(|bounds| all(*bounds)).collect()
}

/// Tries a fault in its story, or else in every search until it is killed or the time is over.
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
    if let Some(case) = cases::kills(mutant) {
        (trial.killed, trial.search) = (Some(case.harm.to_owned()), "a story of its own".to_owned());
        trial.took = began.elapsed();
        return trial;
    }
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
            trial.killed = Some(format!("{name} at depth {}", found.depth + 1));
            trial.trace = trace;
            break;
        }
    }
    trial.took = began.elapsed();
    trial
}
