//! `geo --dry-run`: what would be changed now, from one fresh look. Writes nothing, neither here nor there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ingresses::Ingresses;
use super::publisher::Publisher;
use super::{GeoHealth, INGRESSES, PAGE};
use crate::adapters::kube::{Change, Kube};
use crate::config::geo::GeoSettings;
use crate::rules::geo::OnEmpty;
use crate::rules::geo::pass::Report;
use crate::rules::geo::select::Selected;
use crate::tasks::jitter::Jitter;

/// What a dry run found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DryRun {
    /// The changes that would be made now, in order.
    pub changes: Vec<String>,
    /// What else a person should know: ingresses that are left out, pools that would go later, conflicts.
    pub notes: Vec<String>,
}

/// The changes that the settings ask for right now.
///
/// # Errors
/// Whatever keeps them from being computed, in one line.
pub async fn dry_run(
    settings: GeoSettings,
    kube: Kube,
    registry: &prometheus::Registry,
) -> Result<DryRun, String> {
    let settings = GeoSettings { dry_run: true, ..settings };
    let (selector, seed) = (settings.selector.clone(), settings.seed);
    let health = Arc::new(GeoHealth::default());
    let mut publisher = Publisher::new(settings, kube.clone(), registry, health, Jitter::new(seed))?;
    let mut changes = publisher.prepare().await.map_err(|trouble| trouble.reason)?;
    let list = kube.list_pages(INGRESSES, Some(&selector), Some(PAGE)).await;
    let (objects, _) = list.map_err(|error| error.to_string())?;
    let mut ingresses = Ingresses::default();
    ingresses.take(Change::Listed(objects));
    let selected = publisher.select(&ingresses).await.map_err(|trouble| trouble.reason)?;
    let pass = publisher.pass(&selected, BTreeSet::new(), true).await;
    let report = pass.report();
    if let Some(failure) = report.failures.first() {
        return Err(failure.reason.clone());
    }
    changes.extend(report.planned.iter().cloned());
    Ok(DryRun { changes, notes: notes(&publisher, &selected, report) })
}

fn notes(publisher: &Publisher, selected: &Selected, report: &Report) -> Vec<String> {
    let mut notes: Vec<String> = selected
        .ignored
        .iter()
        .map(|(namespace, name, why)| format!("ingress {namespace}/{name} {}", why.sentence()))
        .collect();
    let seconds = publisher.settings.grace.as_secs();
    let then = match publisher.policy.on_empty {
        OnEmpty::Disable => "would be disabled",
        OnEmpty::Delete => "would be taken out and deleted",
        OnEmpty::Keep => "would only be reported",
    };
    let more: [(&BTreeSet<String>, String); 4] = [
        (&report.orphans, format!("has no address: {then} after {seconds} s, unless it is the last one")),
        (&report.conflicts, "is written by another cluster too: nothing is removed from it".to_owned()),
        (&report.foreign, "belongs to another load balancer or cluster name: hands off".to_owned()),
        (&report.unmonitored, "has no monitor: it never fails over".to_owned()),
    ];
    for (pools, what) in more {
        notes.extend(pools.iter().map(|pool| format!("pool {pool} {what}")));
    }
    notes
}
