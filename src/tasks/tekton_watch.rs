//! `tekton_watch`: tells the engine about PipelineRuns.
//!
//! Every run of the namespace is told at the start and after each interruption, then every change. Never judges a
//! run; a run without labels, parameters or conditions is told with what it has.

use std::time::Duration;

use crate::adapters::kube::watch::{self, Change, WatchTarget};
use crate::adapters::kube::{Kube, run_from_object};
use crate::model::{Event, RunEvent};

use super::{Ctx, Exit};

/// Wait before the API version is asked for again.
const DISCOVERY_RETRY: Duration = Duration::from_secs(5);

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
    let mut path = discovered_path(&kube).await;
    loop {
        let selector = kube.settings().tekton_selector.clone();
        let target = WatchTarget { name: "pipelineruns", path: path.clone(), selector };
        let mut changes = watch::list_then_watch(&kube, target);
        path = loop {
            let Some(change) = changes.recv().await else { return };
            let (kind, objects) = match change {
                Change::Listed(objects) => (RunEvent::Added, objects),
                Change::Added(object) => (RunEvent::Added, vec![object]),
                Change::Modified(object) => (RunEvent::Modified, vec![object]),
                Change::Deleted(object) => (RunEvent::Deleted, vec![object]),
                // Tekton may have been installed or upgraded meanwhile; the engine's own limits cover a run of
                // which nothing is heard.
                Change::Lost(_) => match kube.pipeline_runs_path().await {
                    Ok(new) if new != path => break new,
                    _ => continue,
                },
            };
            for object in &objects {
                if !ctx.bus.send(Event::PipelineRun(run_from_object(kind, object))).await {
                    return;
                }
            }
        };
    }
}

/// The path in the API version that is served; asks until there is an answer.
async fn discovered_path(kube: &Kube) -> String {
    let mut warned = false;
    loop {
        match kube.pipeline_runs_path().await {
            Ok(path) => return path,
            Err(error) if !warned => tracing::warn!(%error, "the version of Tekton's API is not known yet"),
            Err(_) => {}
        }
        warned = true;
        tokio::time::sleep(DISCOVERY_RETRY).await;
    }
}
