//! How quickly a watch comes back: back-off with jitter from a seed, and the size of a list's pages.
//!
//! Pure but for the seeded source. Used by [`super::watch`]; the seed comes from the task that watches.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How a watch reads its list and how long it waits between two rounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchPace {
    /// First and longest wait between two rounds; it doubles while rounds are short.
    pub backoff: (Duration, Duration),
    /// A watch that lived this long was a good one: the next wait is the shortest again.
    pub healthy: Duration,
    /// Seed of full jitter: a wait is drawn from zero to what it would be. `None` = no jitter.
    pub jitter: Option<u64>,
    /// Objects of a page of the list; `None` = the whole list at once.
    pub page: Option<u32>,
    /// Whether a list of no use is replaced by a watch from the start, for servers whose lists are sloppy.
    pub from_start: bool,
}

impl Default for WatchPace {
    fn default() -> Self {
        Self {
            backoff: (Duration::from_millis(200), Duration::from_secs(5)),
            healthy: Duration::from_secs(5),
            jitter: None,
            page: None,
            from_start: true,
        }
    }
}

/// The waits between rounds.
pub(super) struct Waits {
    /// The last one, before jitter.
    last: Duration,
    source: Option<StdRng>,
}

impl Waits {
    /// None yet.
    pub(super) fn new(pace: &WatchPace) -> Self {
        Self { last: Duration::ZERO, source: pace.jitter.map(StdRng::seed_from_u64) }
    }

    /// The wait after a round: doubling while rounds are short, the shortest after a long one.
    pub(super) fn next(&mut self, pace: &WatchPace, lived: Duration) -> Duration {
        let (first, longest) = pace.backoff;
        self.last = if lived >= pace.healthy { first } else { (self.last * 2).clamp(first, longest) };
        match &mut self.source {
            Some(source) => self.last.mul_f64(source.random::<f64>()),
            None => self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(pace: &WatchPace, rounds: usize) -> Vec<Duration> {
        let mut waits = Waits::new(pace);
        let mut list: Vec<Duration> =
            (0..rounds).map(|_| waits.next(pace, pace.healthy - Duration::from_millis(1))).collect();
        list.push(waits.next(pace, pace.healthy));
        list
    }

    #[test]
    fn short_rounds_wait_longer_and_longer_up_to_the_cap() {
        let ms: Vec<u128> = waits(&WatchPace::default(), 7).iter().map(Duration::as_millis).collect();
        assert_eq!(ms, [200, 400, 800, 1600, 3200, 5000, 5000, 200]);
    }

    #[test]
    fn b30_jitter_spreads_the_waits_below_growing_caps_and_differs_by_seed() {
        let second = Duration::from_secs(1);
        let pace = |seed| WatchPace {
            backoff: (second, second * 60),
            healthy: second * 60,
            jitter: Some(seed),
            ..WatchPace::default()
        };
        let caps = [1, 2, 4, 8, 16, 32, 60, 60, 1];
        let mut longest = [Duration::ZERO; 9];
        for seed in 0..200 {
            for (index, wait) in waits(&pace(seed), 8).into_iter().enumerate() {
                assert!(wait <= second * caps[index], "wait {index} of seed {seed}: {wait:?}");
                longest[index] = longest[index].max(wait);
            }
        }
        for (index, cap) in caps.into_iter().enumerate() {
            assert!(longest[index] > second * cap * 9 / 10, "the whole range is used: {longest:?}");
        }
        assert_eq!(waits(&pace(1), 8), waits(&pace(1), 8));
        assert_ne!(waits(&pace(1), 8), waits(&pace(2), 8));
    }
}
