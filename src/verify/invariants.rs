//! The named invariants, judged over one move: the state before, what the engines said, the state after.

use super::model::{Move, Said, World};
use crate::model::{Action, Effect, Note, PeerMessage, Side};
use crate::rules::state::State;

/// An invariant: its name, what it says, and whether a move keeps it.
pub struct Invariant {
    /// Stable name.
    pub name: &'static str,
    /// The sentence.
    pub says: &'static str,
    keeps: fn(&World, Move, &Said, &World) -> bool,
}

/// All of them.
pub const INVARIANTS: [Invariant; 13] = [
    Invariant {
        name: "one-writer",
        says: "never two writable sites (fencing on, network never cut on the path)",
        keeps: one_writer,
    },
    Invariant {
        name: "proof-before-destruction",
        says: "data is deleted only while the other site's database really takes writes at or past it",
        keeps: proof,
    },
    Invariant {
        name: "destruction-by-run",
        says: "a deletion is only asked for by a run that nothing has halted",
        keeps: by_run,
    },
    Invariant {
        name: "generation-grows",
        says: "no engine forgets a generation, not by a restart either",
        keeps: |a, _, _, b| each(a, b, |a, b| b.generation >= a.generation),
    },
    Invariant {
        name: "stale-never-starts",
        says: "no run starts with a generation below the known one",
        keeps: not_stale,
    },
    Invariant { name: "one-run", says: "no run starts while another one goes on", keeps: one_run },
    Invariant { name: "halt-is-told", says: "a run that halts says so to people", keeps: halt_told },
    Invariant {
        name: "nonce-once",
        says: "the nonce counter never goes back",
        keeps: |a, _, _, b| each(a, b, |a, b| b.last_nonce >= a.last_nonce),
    },
    Invariant {
        name: "unknown-dns-moves-nothing",
        says: "resolvers that do not answer cause no call",
        keeps: unknown_dns,
    },
    Invariant {
        name: "outbox-in-order",
        says: "messages wait in the order of their numbers",
        keeps: |_, _, _, b| {
            Side::ALL
                .into_iter()
                .all(|side| b.part(side).engine.state().outbox.windows(2).all(|two| two[0].id < two[1].id))
        },
    },
    Invariant {
        name: "order-not-lost",
        says: "an order leaves the outbox only when acknowledged, superseded, or with a new run",
        keeps: order_kept,
    },
    Invariant {
        name: "rules-come-to-rest",
        says: "evaluation ends",
        keeps: |_, _, said, _| {
            !said.iter().any(|(_, action)| match action {
                Action::Report(Note::Remark { text, .. }) => text.contains("did not come to rest"),
                Action::Report(_) | Action::Perform(_) => false,
            })
        },
    },
    Invariant {
        name: "record-knows-its-words",
        says: "the record only ever shows known phases",
        keeps: |_, _, _, b| {
            Side::ALL
                .into_iter()
                .all(|side| b.part(side).site.recorded().0.parse::<crate::model::Phase>().is_ok())
        },
    },
];

/// The first invariant that a move breaks.
pub fn broken(before: &World, step: Move, said: &Said, after: &World) -> Option<&'static str> {
    INVARIANTS.iter().find(|invariant| !(invariant.keeps)(before, step, said, after)).map(|found| found.name)
}

fn state(world: &World, side: Side) -> &State {
    world.part(side).engine.state()
}

fn each(before: &World, after: &World, holds: fn(&State, &State) -> bool) -> bool {
    Side::ALL.into_iter().all(|side| holds(state(before, side), state(after, side)))
}

fn one_writer(_: &World, _: Move, _: &Said, after: &World) -> bool {
    after.was_cut || !Side::ALL.into_iter().all(|side| after.part(side).site.is_writable())
}

fn proof(before: &World, step: Move, _: &Said, _: &World) -> bool {
    let (Move::Carry(side, index) | Move::LoseAnswer(side, index)) = step else { return true };
    let Some(command) = before.part(side).calls.get(usize::from(index)) else { return true };
    let (ours, other) = (&before.part(side).site, &before.part(side.other()).site);
    !command.effect.is_destructive() || other.is_writable() && other.database.lsn >= ours.database.lsn
}

fn by_run(_: &World, _: Move, said: &Said, after: &World) -> bool {
    said.iter().all(|(side, action)| match action {
        Action::Perform(command) if command.effect.is_destructive() => {
            state(after, *side).run.as_ref().is_some_and(|run| run.halted.is_none())
        }
        Action::Perform(_) | Action::Report(_) => true,
    })
}

fn started(said: &Said) -> impl Iterator<Item = (Side, crate::model::Generation)> + '_ {
    said.iter().filter_map(|(side, action)| match action {
        Action::Report(Note::TransitionStarted { generation, .. }) => Some((*side, *generation)),
        Action::Report(_) | Action::Perform(_) => None,
    })
}

fn not_stale(before: &World, _: Move, said: &Said, _: &World) -> bool {
    started(said).all(|(side, generation)| generation >= state(before, side).generation)
}

fn one_run(before: &World, _: Move, said: &Said, _: &World) -> bool {
    started(said).all(|(side, _)| {
        let over = |run: &crate::rules::state::Run| run.halted.is_some() || run.lane.is_finished();
        let ended = said.iter().any(|(at, action)| {
            *at == side && matches!(action, Action::Report(Note::TransitionDone { .. } | Note::Halted { .. }))
        });
        ended || state(before, side).run.as_ref().is_none_or(over)
    })
}

fn halt_told(before: &World, _: Move, said: &Said, after: &World) -> bool {
    let halted =
        |world: &World, side| state(world, side).run.as_ref().is_some_and(|run| run.halted.is_some());
    Side::ALL.into_iter().all(|side| {
        halted(before, side)
            || !halted(after, side)
            || said
                .iter()
                .any(|(at, action)| *at == side && matches!(action, Action::Report(Note::Halted { .. })))
    })
}

fn unknown_dns(_: &World, step: Move, said: &Said, _: &World) -> bool {
    let Move::DnsUnknown(_) = step else { return true };
    !said.iter().any(|(_, action)| match action {
        Action::Perform(command) => {
            !matches!(&command.effect, Effect::SendPeer { message: PeerMessage::Dns { .. }, .. })
        }
        Action::Report(_) => false,
    })
}

fn order_kept(before: &World, step: Move, said: &Said, after: &World) -> bool {
    Side::ALL.into_iter().all(|side| {
        let orders = |world: &World| {
            let outbox = &state(world, side).outbox;
            outbox.iter().filter(|entry| matches!(entry.message, PeerMessage::TransitionTo { .. })).count()
        };
        let sent = matches!(step, Move::Carry(at, _) | Move::KeepCopy(at, _) if at == side);
        orders(after) >= orders(before) || sent || started(said).any(|(at, _)| at == side)
    })
}
