//! Chance for tasks: waits that differ between instances, from a source that a test can seed.
//!
//! Owns the random numbers of a task. Rules never draw any; adapters get a seed from here.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A source of jitter.
#[derive(Debug)]
pub struct Jitter(StdRng);

impl Jitter {
    /// A source that always gives the same numbers for the same seed; `None` = seeded by the system.
    pub fn new(seed: Option<u64>) -> Self {
        Self(StdRng::seed_from_u64(seed.unwrap_or_else(rand::random)))
    }

    /// A number for whoever needs a source or a name of its own.
    pub fn number(&mut self) -> u64 {
        self.0.random()
    }

    /// A time between the two, evenly.
    pub fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        shortest + longest.saturating_sub(shortest).mul_f64(self.0.random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_waits_within_their_bounds() {
        let draw = |seed| {
            let mut jitter = Jitter::new(Some(seed));
            (0..50)
                .map(|_| jitter.between(Duration::from_secs(1), Duration::from_secs(3)))
                .collect::<Vec<_>>()
        };
        let waits = draw(7);
        assert_eq!(waits, draw(7));
        assert_ne!(waits, draw(8));
        assert!(waits.iter().all(|wait| (1.0..=3.0).contains(&wait.as_secs_f64())), "{waits:?}");
        assert_eq!(Jitter::new(None).between(Duration::from_secs(2), Duration::from_secs(1)).as_secs(), 2);
    }
}
