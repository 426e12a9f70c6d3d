//! `dns_watch`: asks the resolvers at a fixed interval and hands every round to the engine, which judges it.
//!
//! Owns the rhythm and the metric. Never decides. A look-up that fails is a sample that says so, so nothing ends it.

use std::collections::BTreeSet;

use prometheus::{IntCounterVec, Opts, Registry};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::{Ctx, Exit};
use crate::adapters::resolver::Resolvers;
use crate::model::Event;
use crate::rules::dns::quorum;

/// Different addresses that get a series of their own; further ones count as `other`, so that a resolver gone mad
/// cannot fill the memory.
const MOST_SERIES: usize = 32;

/// Polls until cancelled. Every round is posted; a full bus makes it wait, and missed rounds are skipped.
pub async fn run(ctx: Ctx, resolvers: Resolvers) -> Exit {
    let total = match counter(&ctx.registry) {
        Ok(total) => total,
        Err(error) => return Exit::Failed(format!("metric switchover_dns_total: {error}")),
    };
    let mut series = BTreeSet::new();
    let mut ticks = interval(resolvers.poll_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    if resolvers.quorum() > resolvers.count() {
        warn!(quorum = resolvers.quorum(), resolvers = resolvers.count(), "dns quorum can never be reached");
    }
    let work = async {
        loop {
            ticks.tick().await;
            let sample = resolvers.look_up().await;
            let answer = quorum(&sample, resolvers.quorum());
            debug!(%answer, ?sample, "dns round");
            let label = answer.to_string();
            if series.contains(&label) || series.len() < MOST_SERIES {
                total.with_label_values(&[&label]).inc();
                series.insert(label);
            } else {
                total.with_label_values(&["other"]).inc();
            }
            if !ctx.bus.send(Event::Dns(sample)).await {
                return Exit::Failed("the engine is gone".to_owned());
            }
        }
    };
    tokio::select! {
        () = ctx.cancel.cancelled() => Exit::Cancelled,
        exit = work => exit,
    }
}

/// Registers the counter anew: one of the task's earlier life is replaced, as after a restart of the process.
fn counter(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let opts =
        Opts::new("switchover_dns_total", "Rounds of look-ups of the GSLB name, by what the quorum answered");
    let total = IntCounterVec::new(opts, &["ip"])?;
    // An error here only says that there was none.
    let _ = registry.unregister(Box::new(total.clone()));
    registry.register(Box::new(total.clone()))?;
    Ok(total)
}
