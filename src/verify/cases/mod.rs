//! Faults that the budgets of the searches do not reach, or that two rules guard against at once: each in a story of its
//! own, on the pair in virtual time.
//!
//! A story tells whether the harm shows. It must not with the engine that ships, and must with the fault seeded: the
//! same words for both, so that a story that proves nothing is seen.
//!
//! To add one: a function in the file of its subject, a row in its `CASES`.

mod automation;
mod consent;
mod data;
mod fences;

use super::pair::{Cut, Pair};
use crate::model::{Side, Transition};
use crate::rules::mutant::Mutant;
use crate::rules::policy::{Automation, Policy};

const MINUTE: u64 = 60_000;
const APART: Cut = Cut { from_active: true, from_passive: true };

/// One story.
#[derive(Clone, Copy)]
pub struct Case {
    /// The fault that it is about.
    pub mutant: Mutant,
    /// What must not happen.
    pub harm: &'static str,
    /// Plays it with the fault, or without one; whether the harm shows.
    pub shows: fn(Option<Mutant>) -> bool,
}

/// All stories.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [automation::CASES, consent::CASES, data::CASES, fences::CASES].into_iter().flatten()
}

/// The story in which a fault shows while the shipped engine does well.
pub fn kills(mutant: Mutant) -> Option<&'static Case> {
    all().find(|case| case.mutant == mutant && !(case.shows)(None) && (case.shows)(Some(mutant)))
}

/// A pair on a normal day whose engines carry the fault.
fn pair(fault: Option<Mutant>, adjust: impl Fn(&mut Policy)) -> Pair {
    let mut pair = Pair::new(adjust);
    pair.run(5_000);
    let Some(fault) = fault else { return pair };
    for side in Side::ALL {
        let half = pair.half_mut(side);
        half.engine = half.engine.clone().with_mutant(fault);
    }
    pair
}

/// The same, with fencing, brought to the end of transitions that people ask for at the active site.
fn pair_after(fault: Option<Mutant>, way: &[Transition]) -> Pair {
    let mut pair = pair(fault, |policy| policy.fence_old_primary = true);
    for transition in way {
        let goal = transition.target().map_or("", crate::model::Phase::wire);
        pair.ask(Side::Active, *transition);
        pair.run_until(5 * MINUTE, |pair| pair.is_settled_in(goal));
    }
    pair
}

fn in_golddr_primary(fault: Option<Mutant>) -> Pair {
    pair_after(fault, &[Transition::GolddrPrimary])
}

fn in_gold_standby(fault: Option<Mutant>) -> Pair {
    pair_after(fault, &[Transition::GolddrPrimary, Transition::GoldStandby])
}

fn self_fencing(fault: Option<Mutant>) -> Pair {
    pair(fault, |policy| {
        policy.fence_old_primary = true;
        policy.automation = Automation::SelfFencing;
    })
}

/// How often a site was asked for something.
fn asked(pair: &Pair, side: Side, words: &str) -> usize {
    pair.half(side).site.asked.iter().filter(|asked| asked.starts_with(words)).count()
}

fn runs(pair: &Pair, side: Side) -> bool {
    pair.half(side).engine.state().run.is_some()
}
