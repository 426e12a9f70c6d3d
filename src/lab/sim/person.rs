//! The person on call: follows the runbook after a disturbance, and acts only on what people see.
//!
//! Looks at both records once a minute; asks again where an agent said no, accepts a loss of data where an agent
//! demands that, and never touches a database directly.

use super::history::Fact;
use super::world::World;
use crate::model::{Note, OperatorRequest, Phase, Side, Transition};

/// Looks in vain before the person accepts that data is lost.
const PATIENT: u32 = 3;
/// Looks in vain before the person takes the service back by force.
const FED_UP: u32 = 8;

/// What the person remembers.
#[derive(Debug, Clone, Default)]
pub struct Person {
    seen: String,
    looks: u32,
    read: usize,
    halted: [bool; 2],
    unacknowledged: bool,
}

/// What is asked, and where.
pub type Wish = (Side, OperatorRequest);

impl Person {
    /// Whether an agent has said, since it was last at rest, that a person must look at something.
    pub fn knows_of_halt(&mut self, world: &World) -> bool {
        self.read_notes(world);
        self.halted.contains(&true)
    }

    /// Looks once and decides what to ask for.
    pub fn look(&mut self, world: &World) -> Option<Wish> {
        self.read_notes(world);
        let (first, second) = (world.look(Side::Active).recorded(), world.look(Side::Passive).recorded());
        let seen = format!("{first:?} {second:?}");
        self.looks = if seen == self.seen { self.looks + 1 } else { 1 };
        self.seen = seen;
        if let Some(wish) = self.about_halts() {
            return Some(wish);
        }
        for (side, transition) in [(Side::Active, first.1), (Side::Passive, second.1)] {
            if !transition.is_empty() && self.looks < FED_UP {
                // Under way; or a mistake in the record, which only a person can take out.
                let mistaken = transition.parse::<Transition>().is_err();
                return mistaken.then_some((side, OperatorRequest::Abort));
            }
        }
        let phases = (first.0.parse::<Phase>().ok()?, second.0.parse::<Phase>().ok()?);
        self.next_move(phases)
    }

    fn read_notes(&mut self, world: &World) {
        for (_, fact) in world.history.facts.iter().skip(self.read) {
            let Fact::Told { side, note } = fact else { continue };
            let halted = &mut self.halted[*side as usize];
            match note.as_ref() {
                Note::Halted { .. } => *halted = true,
                Note::TransitionStarted { rule, .. } => {
                    *halted = false;
                    self.unacknowledged |= rule == "failover-by-traffic";
                }
                Note::TransitionDone { .. } => *halted = false,
                _ => {}
            }
        }
        self.read = world.history.facts.len();
    }

    fn about_halts(&mut self) -> Option<Wish> {
        let side = Side::ALL.into_iter().find(|side| self.halted[*side as usize])?;
        // Once it is let go on; where that does not help, it is given up and asked for anew.
        if self.looks <= PATIENT {
            return Some((side, OperatorRequest::Resume));
        }
        self.halted[side as usize] = false;
        Some((side, OperatorRequest::Abort))
    }

    fn next_move(&mut self, phases: (Phase, Phase)) -> Option<Wish> {
        use Phase::{ActivePassive, GoldStandby, GolddrPrimary};
        let loss = (self.looks > PATIENT).then(|| "the other site has what counts".to_owned());
        let ask = |side, transition| {
            Some((side, OperatorRequest::Transition { transition, accept_data_loss: loss.clone() }))
        };
        match phases {
            (ActivePassive, ActivePassive) => std::mem::take(&mut self.unacknowledged)
                .then_some((Side::Passive, OperatorRequest::Acknowledge)),
            (GolddrPrimary, GolddrPrimary) => ask(Side::Active, Transition::GoldStandby),
            (GoldStandby, GoldStandby) => ask(Side::Active, Transition::ActivePassive),
            // One site moves alone only for a moment; after that a person helps.
            _ if self.looks < 2 => None,
            _ if self.looks >= FED_UP => ask(Side::Active, Transition::ActivePassiveForce),
            (GoldStandby, GolddrPrimary) => ask(Side::Passive, Transition::GoldStandby),
            (ActivePassive, GoldStandby) => ask(Side::Passive, Transition::ActivePassive),
            (ActivePassive, GolddrPrimary) => ask(Side::Active, Transition::GolddrPrimary),
            (GolddrPrimary, _) => ask(Side::Passive, Transition::GolddrPrimary),
            _ => None,
        }
    }
}
