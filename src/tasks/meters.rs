//! The figures that only the loop around the engine can give: what succeeded, and how long a step took.
//!
//! Owns: which calls under way would change the maintenance gauge and when each step began. Never: decides, or counts
//! anything that a note alone tells (that is [`Metrics::observe_note`]).

use std::collections::BTreeMap;

use crate::model::{Action, ActionId, Effect, Event, Generation, Mono, Note, Outcome, Traffic};
use crate::rules::policy::Policy;
use crate::telemetry::Metrics;

/// The figures of one run of the loop.
pub struct Meters {
    metrics: Metrics,
    /// Calls under way after whose success maintenance is on or off.
    maintenance: BTreeMap<ActionId, bool>,
    /// First tries of steps that are not done yet.
    begun: BTreeMap<(Generation, String), Mono>,
    /// When the step before was done: a step that only waits has no try to count from.
    before: Mono,
}

impl Meters {
    /// Nothing under way; shows whether automation may act.
    pub fn new(metrics: Metrics, policy: &Policy) -> Self {
        metrics.set_automation(policy.automation.acts_alone());
        Self { metrics, maintenance: BTreeMap::new(), begun: BTreeMap::new(), before: Mono(0) }
    }

    /// An input, before the engine has it.
    pub fn event(&mut self, event: &Event) {
        self.metrics.observe_event(event);
        if let Event::ActionDone { id, outcome } = event
            && let Some(on) = self.maintenance.remove(id)
            && matches!(outcome, Outcome::Done(_))
        {
            self.metrics.set_maintenance(on);
        }
    }

    /// An output of the engine at `now`.
    pub fn action(&mut self, action: &Action, now: Mono) {
        match action {
            Action::Perform(command) => {
                if let Some(on) = maintenance_after(&command.effect) {
                    self.maintenance.insert(command.id, on);
                }
            }
            Action::Report(note) => self.note(note, now),
        }
    }

    fn note(&mut self, note: &Note, now: Mono) {
        self.metrics.observe_note(note);
        match note {
            Note::TransitionStarted { generation, .. } => {
                // Steps of earlier transitions that were given up will not be done any more.
                self.begun.retain(|(of, _), _| of >= generation);
                self.before = now;
            }
            Note::StepStarted { generation, step, .. } => {
                self.begun.entry((*generation, step.clone())).or_insert(now);
            }
            Note::StepDone { generation, step, how, .. } => {
                let begun = self.begun.remove(&(*generation, step.clone())).unwrap_or(self.before);
                if how != "beside" {
                    self.metrics.observe_step(step, now.since(begun) as f64 / 1000.0);
                }
                self.before = now;
            }
            _ => {}
        }
    }
}

/// Whether maintenance is on after this effect; `None` = it has nothing to do with it.
fn maintenance_after(effect: &Effect) -> Option<bool> {
    match effect {
        Effect::RouteService(Traffic::MaintenancePage) => Some(true),
        Effect::RouteService(Traffic::Application) => Some(false),
        Effect::SetPortal { on } => Some(*on),
        _ => None,
    }
}
