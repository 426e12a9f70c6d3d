//! Performs a pass: its calls, and the wait before it looks at what became of them.
//!
//! Owns no decision.

use std::time::Duration;

use super::GeoHealth;
use crate::adapters::cloudflare::Cloudflare;
use crate::adapters::cloudflare::load_balancing::Place;
use crate::rules::geo::pass::{Pass, Step};
use crate::tasks::jitter::Jitter;

/// Where and how a pass is performed.
pub struct Driver<'a> {
    /// The API.
    pub cloudflare: &'a Cloudflare,
    /// Account and zone.
    pub place: &'a Place,
    /// The shortest wait before a verification; the longest is three times it, so that instances which wrote together
    /// do not look together.
    pub verify: Duration,
    /// Where the waits come from.
    pub jitter: &'a mut Jitter,
    /// Gets a sign of life before each call.
    pub health: &'a GeoHealth,
}

impl Driver<'_> {
    /// Drives the pass to its end.
    pub async fn drive(&mut self, pass: &mut Pass) {
        loop {
            self.health.beat();
            match pass.step() {
                Step::Done => return,
                Step::Pause => {
                    tokio::time::sleep(self.jitter.between(self.verify, self.verify * 3)).await;
                    pass.resume();
                }
                Step::Call(call) => {
                    let words = call.writes().then(|| pass.describe(&call));
                    let answer = self.cloudflare.perform(self.place, &call).await;
                    match (&answer, words) {
                        (Ok(_), Some(change)) => tracing::info!(change, "Cloudflare changed"),
                        (Err(failure), _) => {
                            tracing::debug!(reason = failure.reason, "Cloudflare call failed");
                        }
                        (Ok(_), None) => {}
                    }
                    pass.answer(answer);
                }
            }
        }
    }
}
