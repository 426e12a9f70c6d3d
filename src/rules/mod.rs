//! Decisions: the pure engine that owns the state of one agent.
//!
//! ```text
//! Event ──▶ absorb ──▶ State ──▶ evaluate (until nothing changes) ──▶ Vec<Action>
//!                        ▲           intake · consent · automation · lanes · pipeline · outbox
//!                        └──────────────────────── ActionDone, observations
//! ```
//!
//! Three verbs: [`Engine::handle`], [`Engine::next_deadline`], [`Engine::snapshot`]. No clock, no I/O, no randomness:
//! the same events at the same moments give the same actions, which is what makes the shipped code the code that is
//! model-checked, simulated and replayed.

mod absorb;
pub mod automation;
pub mod breaker;
pub mod database;
pub mod dns;
mod gate;
pub mod geo;
mod handshake;
pub mod health;
pub mod lag;
mod lanes;
pub mod lease;
pub mod mutant;
mod operator;
mod orders;
mod outbox;
pub mod pipeline;
pub mod policy;
pub mod prefixes;
mod progress;
pub mod refusal;
mod requests;
mod role_calls;
pub mod route_health;
pub mod route_pin;
mod runs;
mod saved;
pub mod sensors;
pub mod snapshot;
pub mod state;
pub mod table;

#[cfg(test)]
mod tests;

use crate::model::{
    Action, ActionId, Command, Effect, Event, Mono, Note, Now, PeerStatus, RefusalNote, Transition,
};
use crate::plan::limits;
use policy::Policy;
use refusal::Refusal;
use state::{Origin, REFUSALS_KEPT, State};

/// Rounds of evaluation after one event. Every round that changes something finishes a step, a message or a request,
/// of which there are far fewer than this; reaching it would be a loop in the rules.
const MAX_ROUNDS: usize = 200;

/// The engine: settings, state, and the actions of the event at hand.
#[derive(Debug, Clone)]
pub struct Engine {
    policy: Policy,
    state: State,
    out: Vec<Action>,
    changed: bool,
    mutant: Option<mutant::Mutant>,
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(policy: Policy) -> Self {
        let state = State::new(policy.dns.agree_samples, policy.dns.agree_ms);
        Self::restore(policy, state)
    }

    /// An engine that goes on from a saved state.
    pub fn restore(policy: Policy, state: State) -> Self {
        Self { policy, state, out: Vec::new(), changed: false, mutant: None }
    }

    /// The same engine with a fault seeded, for the checker only.
    pub fn with_mutant(mut self, mutant: mutant::Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }

    /// Whether this fault is seeded; never in an agent.
    fn mutated(&self, mutant: mutant::Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The settings.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The state, for the journal, the model checker and tests.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes one input in and says what is to be done now.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        self.absorb(event, now);
        self.evaluate(now);
        std::mem::take(&mut self.out)
    }

    fn evaluate(&mut self, now: Now) {
        for _ in 0..MAX_ROUNDS {
            self.changed = false;
            self.keep_lease(now);
            self.expire_ask(now);
            self.take_waiting_order(now);
            self.intake(now);
            self.automate(now);
            self.advance_chores(now);
            self.advance_grant(now);
            self.advance_run(now);
            self.advance_followup(now);
            self.advance_beside(now);
            self.advance_pipeline(now);
            self.advance_outbox(now);
            self.settle();
            if !self.changed {
                return;
            }
        }
        self.remark("error", "the rules did not come to rest; this is a defect".to_owned());
    }

    fn report(&mut self, note: Note) {
        self.out.push(Action::Report(note));
    }

    fn remark(&mut self, level: &str, text: String) {
        self.report(Note::Remark { level: level.to_owned(), text });
    }

    fn perform(&mut self, step: &str, effect: Effect) -> (ActionId, u64) {
        self.state.last_action = ActionId(self.state.last_action.0 + 1);
        let id = self.state.last_action;
        let limit_ms = match &effect {
            Effect::ScaleDatabase { .. } | Effect::ScaleApplication { .. } => limits::SCALE_CALL_MS,
            Effect::PinRoutes(_) => limits::ROUTES_CALL_MS,
            _ => limits::CALL_MS,
        };
        self.out.push(Action::Perform(Command { id, step: step.to_owned(), effect, limit_ms }));
        (id, limit_ms)
    }

    /// Says no, once: to the log, the metrics and `/status`.
    fn refuse(&mut self, asked: &str, origin: Origin, refusal: &Refusal, now: Now) {
        let note = RefusalNote {
            asked: asked.to_owned(),
            origin: origin.word().to_owned(),
            refusal: refusal.name().to_owned(),
            why: refusal.why(),
        };
        if self.state.refusals.len() == REFUSALS_KEPT {
            self.state.refusals.remove(0);
        }
        self.state.refusals.push((now.wall, note.clone()));
        self.report(Note::Refused(note));
    }

    /// What this agent tells its peer about its site with every heartbeat.
    pub fn peer_status(&self, now: Mono) -> PeerStatus {
        let (writable, standby, timeline, lsn) = self.database_facts(now);
        // While its role is being changed, a look that shows it read-only may be the last one of before.
        let writable = writable.filter(|writable| *writable || !self.is_changing_role());
        let ordered = self.is_ordered_away().then_some(Transition::GolddrPrimary);
        let transition = self.state.run.as_ref().map(|run| run.transition).or(ordered);
        PeerStatus {
            instance: self.policy.instance.clone(),
            site: self.policy.site.0.clone(),
            phase: self.state.phase().map(|phase| phase.wire().to_owned()).unwrap_or_default(),
            transition: transition.map(|transition| transition.wire().to_owned()).unwrap_or_default(),
            generation: self.state.generation,
            writable,
            standby,
            timeline,
            lsn,
            settled: self.state.settled,
            dns: self.state.dns_result.clone().unwrap_or_default(),
        }
    }
}
