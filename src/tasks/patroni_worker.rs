//! `patroni_worker`: polls Patroni at a fixed interval and hands every poll to the engine, failed ones included.
//!
//! Owns the rhythm. Never decides and never changes anything.

use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::{Ctx, Exit};
use crate::adapters::patroni::Patroni;
use crate::model::Event;

/// Polls until cancelled. One poll takes at most two time-outs; missed turns are skipped, so it never drifts.
pub async fn run(ctx: Ctx, patroni: Patroni) -> Exit {
    let mut ticks = interval(patroni.poll_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let work = async {
        loop {
            ticks.tick().await;
            let sample = patroni.poll().await;
            debug!(?sample, "patroni poll");
            if !ctx.bus.send(Event::Patroni(sample)).await {
                return Exit::Failed("the engine is gone".to_owned());
            }
        }
    };
    tokio::select! {
        () = ctx.cancel.cancelled() => Exit::Cancelled,
        exit = work => exit,
    }
}
