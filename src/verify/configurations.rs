//! What `verify` searches: every automation mode from every phase in which a pair may rest.

use super::model::{Bounds, Move, World, begin};
use super::part::{Setting, requests};
use super::store::Store;
use crate::model::{OperatorRequest, Phase, Side, Transition};
use crate::rules::policy::Automation;

/// The modes, and whether there is a witness; one more is one line.
pub const MODES: &[(Automation, bool, &str)] = &[
    (Automation::Witnessed, false, "witnessed"),
    (Automation::Advise, false, "advise"),
    (Automation::SelfFencing, false, "self-fencing"),
    (Automation::SelfFencing, true, "self-fencing with witness"),
];

/// Phases from which a search starts, and the requests that lead there without a fault.
const STARTS: &[(Phase, &[Transition])] = &[
    (Phase::ActivePassive, &[]),
    (Phase::GolddrPrimary, &[Transition::GolddrPrimary]),
    (Phase::GoldStandby, &[Transition::GolddrPrimary, Transition::GoldStandby]),
];

/// One search.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Mode of both sides.
    pub mode: Automation,
    /// Whether there is a witness.
    pub witness: bool,
    /// Its name.
    pub name: String,
    /// Phase in which the pair rests at the start.
    pub from: Phase,
    /// Budget.
    pub bounds: Bounds,
}

/// Number of a request among those that operators make in the model.
pub fn request(transition: Transition) -> u8 {
    let plain = OperatorRequest::Transition { transition, accept_data_loss: None };
    requests().iter().position(|known| *known == plain).unwrap_or_default() as u8
}

/// All of them, with one budget.
pub fn all(bounds: Bounds) -> Vec<Configuration> {
    let mut list = Vec::new();
    for (mode, witness, word) in MODES {
        for (from, _) in STARTS {
            let name = format!("{word} from {from}");
            list.push(Configuration { mode: *mode, witness: *witness, name, from: *from, bounds });
        }
    }
    list
}

impl Configuration {
    /// The store and the first world.
    pub fn begin(&self) -> (Store, World) {
        self.begin_with(Setting::new(self.mode, self.witness))
    }

    /// The same with other settings.
    pub fn begin_with(&self, setting: Setting) -> (Store, World) {
        let (store, mut world) = begin(setting, self.bounds);
        let way = STARTS.iter().find(|(phase, _)| *phase == self.from).map_or(&[][..], |(_, way)| way);
        for transition in way {
            world.left = Bounds { faults: 0, requests: 1, writes: 0 };
            world = world.after(&store, Move::Ask(Side::Active, request(*transition)), &mut Vec::new());
            world = world.calm(&store, 2_000).0;
        }
        (world.left, world.flags) = (self.bounds, 0);
        (store, world)
    }
}
