//! The pulse of a task, by which `/health` tells a stalled one from a working one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A pulse: a task that touches it is seen to go round. Clones share the pulse.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    begun: Instant,
    last_ms: Arc<AtomicU64>,
    limit: Duration,
}

impl Heartbeat {
    /// A pulse that counts as silent after `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { begun: Instant::now(), last_ms: Arc::default(), limit }
    }

    /// Says that the task goes round.
    pub fn touch(&self) {
        self.last_ms.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether the last touch (or the beginning) is too long ago.
    pub fn silent(&self) -> bool {
        let now = self.begun.elapsed().as_millis() as u64;
        now.saturating_sub(self.last_ms.load(Ordering::Relaxed)) > self.limit.as_millis() as u64
    }
}
