//! A window of known samples: one odd sample changes nothing, old ones mean nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Health;
use crate::model::Mono;

/// Fewer healthy samples than this make a healthy region unhealthy in asymmetric mode.
const LEAVE_BELOW: usize = 2;
/// This many healthy samples make an unhealthy region healthy in asymmetric mode.
const RETURN_AT: usize = 4;

/// How a window judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WindowRules {
    /// Samples that it holds.
    pub size: usize,
    /// Healthy samples that it takes to be healthy (symmetric mode).
    pub threshold: usize,
    /// Constants 2 and 4 instead of the threshold.
    pub asymmetric: bool,
    /// A newest sample older than this makes the input unknown and the window empty, in milliseconds.
    pub stale_ms: u64,
}

/// The last known samples of one input.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    samples: VecDeque<bool>,
    newest: Option<Mono>,
    /// What the full window said last; asymmetric judgement depends on it.
    judged: Option<bool>,
}

impl Window {
    /// Takes a sample in. Unknown leaves everything as it is, until what is there is too old to mean anything.
    pub fn take(&mut self, sample: Health, rules: WindowRules, now: Mono) {
        if self.newest.is_some_and(|newest| now.since(newest) > rules.stale_ms) {
            *self = Self::default();
        }
        let Some(good) = sample.known() else { return };
        self.samples.push_back(good);
        while self.samples.len() > rules.size {
            self.samples.pop_front();
        }
        self.newest = Some(now);
        if self.is_full(rules) {
            self.judged = Some(self.judge(rules));
        }
    }

    fn judge(&self, rules: WindowRules) -> bool {
        let healthy = self.healthy_count();
        if !rules.asymmetric {
            return healthy >= rules.threshold;
        }
        let needed = if self.judged == Some(true) { LEAVE_BELOW } else { RETURN_AT };
        healthy >= needed
    }

    /// The smoothed value: the newest sample until the window is full, then the judgement.
    pub fn smoothed(&self, rules: WindowRules) -> Health {
        let value = if self.is_full(rules) { self.judged } else { self.samples.back().copied() };
        value.map_or(Health::Unknown, Health::from)
    }

    /// Whether it holds as many samples as it can.
    pub fn is_full(&self, rules: WindowRules) -> bool {
        self.samples.len() >= rules.size
    }

    /// Samples that it holds.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Healthy ones among them.
    pub fn healthy_count(&self) -> usize {
        self.samples.iter().filter(|good| **good).count()
    }

    /// Age of the newest known sample, in milliseconds.
    pub fn age_ms(&self, now: Mono) -> Option<u64> {
        self.newest.map(|newest| now.since(newest))
    }

    /// The same number of samples, all good and of no age: for a search over states in which only the newest counts.
    pub fn forget_samples(mut self) -> Self {
        self.samples.iter_mut().for_each(|sample| *sample = true);
        self.newest = self.newest.map(|_| Mono(0));
        self.judged = self.judged.map(|_| true);
        self
    }
}
