//! `kube_watch`: tells the engine what the record says.
//!
//! Watches the record and also reads it again at an interval, so that a missed event heals and an engine that was
//! restarted learns the record anew. Never decides anything; a read that failed is "unknown", never "missing".

use crate::adapters::kube::watch::{self, Change, WatchTarget};
use crate::adapters::kube::{Kube, choose_record, name_of, record_from_object};
use crate::model::{Event, RecordSeen};

use super::{Ctx, Exit};

/// Runs until cancelled.
pub async fn run(ctx: Ctx, kube: Kube) -> Exit {
    let cancel = ctx.cancel.clone();
    tokio::select! {
        () = cancel.cancelled() => Exit::Cancelled,
        () = follow(ctx, kube) => Exit::Failed("the engine no longer takes events".to_owned()),
    }
}

/// Ends only where the engine is gone.
async fn follow(ctx: Ctx, kube: Kube) {
    let settings = kube.settings();
    let target = WatchTarget {
        name: "record",
        path: kube.record_path(),
        selector: Some(settings.record_selector.clone()),
    };
    let mut changes = watch::list_then_watch(&kube, target);
    let mut resync = tokio::time::interval_at(
        tokio::time::Instant::now() + settings.record_resync,
        settings.record_resync,
    );
    resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last: Option<RecordSeen> = None;
    let mut failed_reads = 0_u32;
    loop {
        let (seen, even_if_same) = tokio::select! {
            change = changes.recv() => match change {
                Some(change) => (seen_in(&kube, change, last.as_ref()).await, false),
                None => return,
            },
            _ = resync.tick() => match kube.read_record().await {
                Ok(seen) => {
                    failed_reads = 0;
                    (Some(seen), true)
                }
                Err(error) => {
                    // One failed read is a hiccup; a second one, an interval later, is an outage that the watch
                    // may not have noticed yet.
                    failed_reads += 1;
                    let outage = failed_reads > 1 && !matches!(last, Some(RecordSeen::Unknown(_)));
                    (outage.then(|| RecordSeen::Unknown(error.to_string())), false)
                }
            },
        };
        let Some(seen) = seen else { continue };
        if !even_if_same && last.as_ref() == Some(&seen) {
            continue;
        }
        last = Some(seen.clone());
        if !ctx.bus.send(Event::Record(seen)).await {
            return;
        }
    }
}

/// What a change says about the record; `None` = nothing new.
async fn seen_in(kube: &Kube, change: Change, last: Option<&RecordSeen>) -> Option<RecordSeen> {
    let (object, deleted) = match change {
        Change::Listed(objects) => return Some(choose_record(kube.settings(), &objects)),
        Change::Lost(reason) => return Some(RecordSeen::Unknown(reason)),
        Change::Added(object) | Change::Modified(object) => (object, false),
        Change::Deleted(object) => (object, true),
    };
    if name_of(&object).is_some_and(|name| name != kube.settings().record_name) {
        // Another object of the selector: which of them is the record, the whole list says.
        return kube.read_record().await.ok();
    }
    if deleted {
        return Some(RecordSeen::Missing);
    }
    let record = record_from_object(&object);
    let number = |version: Option<&String>| version.and_then(|version| version.parse::<u64>().ok());
    if let Some(RecordSeen::Present(known)) = last
        && let (Some(old), Some(new)) =
            (number(known.resource_version.as_ref()), number(record.resource_version.as_ref()))
        && new < old
    {
        // Waited in the queue while a direct read was faster.
        return None;
    }
    Some(RecordSeen::Present(record))
}
