//! Task `tick_producer`: posts a tick every 30 s, as old configurations expect. The engine wakes by its own
//! deadlines and does not need it.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Ctx, Exit};
use crate::model::Event;

/// The predecessor's interval.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// Runs until the token is cancelled or the engine is gone.
pub async fn run(ctx: Ctx) -> Exit {
    let mut interval = tokio::time::interval(INTERVAL);
    // after a pause of the machine one tick is enough
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        loop {
            interval.tick().await;
            if !ctx.bus.send(Event::Tick).await {
                return Exit::Failed("the engine does not take events".to_owned());
            }
        }
    };
    ctx.cancel.run_until_cancelled(work).await.unwrap_or(Exit::Cancelled)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::bus::Bus;

    #[tokio::test(start_paused = true)]
    async fn it_ticks_at_once_and_then_every_thirty_seconds_until_cancelled() {
        let (bus, mut events) = Bus::new();
        let cancel = CancellationToken::new();
        let ctx = Ctx { cancel: cancel.clone(), bus, registry: Arc::default() };
        let task = tokio::spawn(run(ctx));
        let start = tokio::time::Instant::now();
        for _ in 0..3 {
            assert_eq!(events.recv().await, Some(Event::Tick));
        }
        assert_eq!(start.elapsed(), 2 * INTERVAL);
        cancel.cancel();
        assert_eq!(task.await.unwrap(), Exit::Cancelled);
    }
}
