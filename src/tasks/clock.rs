//! The clock that drives the engine: real time as the two counts that it understands.
//!
//! In the simulation both counts are virtual: the monotonic one by tokio's paused clock, the wall clock by a
//! [`SimulatedWall`] that can be stepped.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::model::{Mono, Now, Wall};

/// Real time. The monotonic count can go on from where an earlier process stopped, so that saved deadlines keep
/// their meaning.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    base: Mono,
    wall: Option<SimulatedWall>,
}

/// A wall clock of a simulated machine: virtual time plus a step that can be changed. Clones share the step.
#[derive(Debug, Clone)]
pub struct SimulatedWall {
    origin: Instant,
    start: Wall,
    step_ms: Arc<AtomicI64>,
}

impl SimulatedWall {
    /// A clock that shows `start` at `origin`.
    pub fn new(origin: Instant, start: Wall) -> Self {
        Self { origin, start, step_ms: Arc::default() }
    }

    /// Sets the clock this many milliseconds ahead of (or, below zero, behind) the true time.
    pub fn step(&self, ms: i64) {
        self.step_ms.store(ms, Ordering::Relaxed);
    }

    /// What it shows.
    pub fn now(&self) -> Wall {
        let elapsed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shown = self.start.0.saturating_add(elapsed);
        Wall(shown.saturating_add_signed(self.step_ms.load(Ordering::Relaxed)))
    }
}

impl Clock {
    /// A clock whose monotonic count stands at `base` now.
    pub fn starting_at(base: Mono) -> Self {
        Self { origin: Instant::now(), base, wall: None }
    }

    /// The same on a simulated machine.
    pub fn simulated(base: Mono, wall: SimulatedWall) -> Self {
        Self { wall: Some(wall), ..Self::starting_at(base) }
    }

    /// Both counts now.
    pub fn now(&self) -> Now {
        let elapsed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            mono: self.base.plus(elapsed),
            wall: self.wall.as_ref().map_or_else(wall_now, SimulatedWall::now),
        }
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
