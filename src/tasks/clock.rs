//! The clock that drives the engine: real time as the two counts that it understands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::model::{Mono, Now, Wall};

/// Real time. The monotonic count can go on from where an earlier process stopped, so that saved deadlines keep
/// their meaning.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    base: Mono,
}

impl Clock {
    /// A clock whose monotonic count stands at `base` now.
    pub fn starting_at(base: Mono) -> Self {
        Self { origin: Instant::now(), base }
    }

    /// Both counts now.
    pub fn now(&self) -> Now {
        let elapsed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono: self.base.plus(elapsed), wall: wall_now() }
    }

    /// The moment at which the monotonic count reaches `at`, at least `least` from now so that a deadline in the
    /// past cannot spin.
    pub fn instant(&self, at: Mono, least: Duration) -> Instant {
        let wait = Duration::from_millis(at.since(self.now().mono));
        Instant::now() + wait.max(least)
    }
}

/// The wall clock.
pub fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
