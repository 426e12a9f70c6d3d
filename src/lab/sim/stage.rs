//! The hands of a simulated site: carries out effects with the delays and faults of the day, as the adapters would
//! see them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::gate::Gate;
use super::history::Fact;
use super::plan::Planted;
use super::world::Shared;
use crate::model::{Aim, Detail, Effect, FailureKind, Outcome, PipelineRunSeen, Side};
use crate::tasks::executor::SimulatedSite;

/// How often a call that waits for pods looks again.
const LOOK_MS: u64 = 1_000;

/// The hands of one agent's life.
pub struct Stage {
    /// The world.
    pub shared: Shared,
    /// Where.
    pub side: Side,
    /// While it is closed the process stands still.
    pub gate: Arc<Gate>,
}

/// How long a look before a second try takes.
const LOOK_UP_MS: u64 = 10;

/// What becomes of a call on its way.
struct Way {
    there: u64,
    back: u64,
    refused: Option<(FailureKind, &'static str)>,
    answer_lost: bool,
}

impl SimulatedSite for Stage {
    fn carry_out<'a>(&'a self, effect: &'a Effect) -> BoxFuture<'a, Outcome> {
        async move {
            self.gate.pass().await;
            let outcome = self.call(effect).await;
            self.gate.pass().await;
            outcome
        }
        .boxed()
    }

    fn aim(&self, effect: &Effect) -> Aim {
        let world = self.shared.lock();
        let identity = world.look(self.side).identity(effect);
        match effect {
            Effect::PromoteDatabase => Aim::Standby,
            Effect::TriggerPipeline => {
                Aim::Run { delivery: identity, asked_ms: world.true_now().1.0, before: None }
            }
            _ => Aim::Object { uid: identity },
        }
    }

    fn run_of<'a>(&'a self, event_id: &'a str) -> BoxFuture<'a, Option<PipelineRunSeen>> {
        async move {
            self.gate.pass().await;
            tokio::time::sleep(Duration::from_millis(LOOK_UP_MS)).await;
            let world = self.shared.lock();
            let site = world.look(self.side);
            if site.broken.api_down {
                return None;
            }
            site.list_runs().into_iter().find(|run| run.event_id.as_deref() == Some(event_id))
        }
        .boxed()
    }

    fn look_up<'a>(&'a self, effect: &'a Effect, aim: &'a Aim) -> BoxFuture<'a, Option<Outcome>> {
        self.has_happened(effect, aim).boxed()
    }
}

impl Stage {
    async fn has_happened(&self, effect: &Effect, aim: &Aim) -> Option<Outcome> {
        self.gate.pass().await;
        tokio::time::sleep(Duration::from_millis(LOOK_UP_MS)).await;
        let world = self.shared.lock();
        let site = world.look(self.side);
        if site.broken.api_down && *effect != Effect::PromoteDatabase {
            return Some(failed(FailureKind::Transient, "503: the API server is down"));
        }
        let now = site.identity(effect);
        match aim {
            Aim::Object { uid } => (now != *uid).then_some(Outcome::Done(Detail::AlreadySo)),
            Aim::Run { delivery, .. } if now != *delivery => {
                site.newest_event().map(|event_id| Outcome::Done(Detail::PipelineStarted { event_id }))
            }
            Aim::Run { .. } | Aim::Nameless | Aim::Standby => None,
        }
    }

    fn way(&self, effect: &Effect) -> Way {
        let mut world = self.shared.lock();
        let broken = world.look(self.side).broken.clone();
        let plain = !matches!(
            effect,
            Effect::PromoteDatabase
                | Effect::FenceDatabase
                | Effect::TriggerPipeline
                | Effect::SetPortal { .. }
        );
        let dice = world.dice();
        let slow = if plain { broken.api_slow } else { 0 };
        let (there, back) = (dice.between(2, 15) + slow / 2, dice.between(2, 15) + slow / 2);
        let down = broken.api_down && plain;
        let conflict = plain && dice.chance(broken.api_flaky);
        let refused = match (down, conflict, matches!(effect, Effect::WriteRecord(_))) {
            (true, ..) => Some((FailureKind::Transient, "503: the API server is down")),
            (_, true, true) => Some((FailureKind::Conflict, "409: somebody else was faster")),
            (_, true, false) => Some((FailureKind::Transient, "500: Internal Server Error")),
            _ => None,
        };
        let answer_lost = dice.chance(broken.api_flaky);
        Way { there, back, refused, answer_lost }
    }

    async fn call(&self, effect: &Effect) -> Outcome {
        let way = self.way(effect);
        tokio::time::sleep(Duration::from_millis(way.there)).await;
        let result = match way.refused {
            Some((kind, reason)) => Err((kind, reason.to_owned())),
            None => self.apply(effect),
        };
        if result.is_ok() && matches!(effect, Effect::ScaleDatabase { .. }) {
            self.await_pods().await;
        }
        tokio::time::sleep(Duration::from_millis(way.back)).await;
        match result {
            Ok(_) if way.answer_lost => {
                failed(FailureKind::Transient, "the connection broke before the answer")
            }
            Ok(detail) => Outcome::Done(detail),
            Err((kind, reason)) => failed(kind, &reason),
        }
    }

    fn apply(&self, effect: &Effect) -> Result<Detail, super::site::Refused> {
        let mut world = self.shared.lock();
        let (now, (_, wall), side) = (world.now, world.true_now(), self.side);
        let mut result = world.site(side).apply(effect, now, wall);
        let twice = self.shared.plan.planted == Planted::DoubledCall && *effect == Effect::TriggerPipeline;
        if twice && result.is_ok() {
            result = world.site(side).apply(effect, now, wall);
        }
        let words = effect.to_string();
        let (detail, doubled) = result?;
        world.note(Fact::Effect { side, words: words.clone() });
        if doubled {
            world.note(Fact::Doubled { side, words });
        }
        world.touch();
        Ok(detail)
    }

    /// The adapter answers a scale when the pods are there or gone; the executor's limit ends a vain wait.
    async fn await_pods(&self) {
        while !self.shared.lock().look(self.side).database_scaled() {
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }
}

fn failed(kind: FailureKind, reason: &str) -> Outcome {
    Outcome::Failed { kind, reason: reason.to_owned() }
}
