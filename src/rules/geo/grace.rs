//! How long a pool has been without an address.
//!
//! Pure: time comes in. Silence of the Kubernetes API starts every wait anew, so that an outage never ends one.

use std::collections::{BTreeMap, BTreeSet};

/// Since when each pool of ours is an orphan, in milliseconds of the task's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grace {
    since: BTreeMap<String, u64>,
}

impl Grace {
    /// Notes which pools are orphans now; the others begin anew next time.
    pub fn note(&mut self, orphans: &BTreeSet<String>, now_ms: u64) {
        self.since.retain(|pool, _| orphans.contains(pool));
        for pool in orphans {
            self.since.entry(pool.clone()).or_insert(now_ms);
        }
    }

    /// Notes which pools are wanted now: whatever becomes of the pass, their waits begin anew.
    pub fn wanted<'a>(&mut self, wanted: impl IntoIterator<Item = &'a String>) {
        for pool in wanted {
            self.since.remove(pool);
        }
    }

    /// Forgets all waits: what is empty now has to be seen empty for the whole period again.
    pub fn forget(&mut self) {
        self.since.clear();
    }

    /// The pools whose grace period is over.
    pub fn due(&self, now_ms: u64, grace_ms: u64) -> BTreeSet<String> {
        let over = |since: &u64| now_ms.saturating_sub(*since) >= grace_ms;
        self.since.iter().filter(|(_, since)| over(since)).map(|(pool, _)| pool.clone()).collect()
    }

    /// When the next period ends.
    pub fn next_end(&self, now_ms: u64, grace_ms: u64) -> Option<u64> {
        self.since.values().map(|since| since + grace_ms).filter(|end| *end > now_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_was_wanted_in_between_waits_the_whole_period_again() {
        let orphans = BTreeSet::from(["p".to_owned()]);
        let mut grace = Grace::default();
        grace.note(&orphans, 1000);
        grace.note(&orphans, 1500);
        assert!(grace.due(1999, 1000).is_empty());
        assert_eq!(grace.next_end(1500, 1000), Some(2000));
        assert_eq!(grace.due(2000, 1000), orphans);
        grace.note(&BTreeSet::new(), 2000);
        grace.note(&orphans, 2100);
        assert!(grace.due(3000, 1000).is_empty());
        grace.wanted(&orphans);
        grace.note(&orphans, 3150);
        assert!(grace.due(4100, 1000).is_empty());
        assert_eq!(grace.due(4150, 1000), orphans);
        grace.forget();
        assert!(grace.due(9000, 1000).is_empty());
    }
}
