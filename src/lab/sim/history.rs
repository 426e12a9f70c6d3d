//! What happened in the simulated world, as the world itself saw it; the checker judges this and nothing else.

use std::fmt;

use super::nemesis::Kind;
use crate::model::{Note, Side, Transition};

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A database began or ceased to take writes.
    Writable {
        /// Where.
        side: Side,
        /// Whether it does now.
        on: bool,
    },
    /// A standby became a primary.
    Promoted {
        /// Where.
        side: Side,
        /// Acknowledged writes that it does not have.
        missing: usize,
        /// Age of the oldest of them in milliseconds.
        oldest_ms: u64,
    },
    /// Acknowledged writes exist nowhere any more.
    Lost {
        /// How many.
        rows: usize,
    },
    /// An effect was carried out.
    Effect {
        /// Where.
        side: Side,
        /// In words.
        words: String,
    },
    /// Something that must happen once happened twice.
    Doubled {
        /// Where.
        side: Side,
        /// In words.
        words: String,
    },
    /// Something was broken.
    Broken {
        /// What.
        kind: Kind,
        /// Where.
        side: Side,
        /// Until when, in milliseconds since the beginning.
        until: u64,
    },
    /// The last fault of an episode has been mended.
    Mended,
    /// The agent of a site began to run (again) or ceased to.
    Agent {
        /// Where.
        side: Side,
        /// Whether it runs now.
        on: bool,
    },
    /// Whether the two agents can talk to each other.
    Line {
        /// Both ways, both agents awake.
        on: bool,
    },
    /// The global load balancer sends clients elsewhere.
    Traffic {
        /// Where to; `None` = nowhere.
        to: Option<Side>,
    },
    /// A site as a whole is cut off or dead.
    Outage {
        /// Where.
        side: Side,
        /// Whether it is now.
        on: bool,
    },
    /// A person asked for something.
    Asked {
        /// Where.
        side: Side,
        /// What; `None` = not a transition.
        transition: Option<Transition>,
        /// In words.
        words: String,
        /// Whether the two sites could talk and replicate then.
        connected: bool,
    },
    /// An agent told people something.
    Told {
        /// Where.
        side: Side,
        /// What.
        note: Box<Note>,
    },
    /// The pair is in order.
    Settled {
        /// Its phase.
        phase: String,
    },
    /// The pair is not in order, and no agent has said what a person must look at.
    Silent {
        /// What is not in order.
        what: String,
    },
    /// An agent ended by itself, which it never may.
    Died {
        /// Where.
        side: Side,
        /// How.
        how: String,
    },
}

/// Facts in order of time, in milliseconds since the beginning.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The facts.
    pub facts: Vec<(u64, Fact)>,
}

impl History {
    /// Adds a fact.
    pub fn add(&mut self, at: u64, fact: Fact) {
        self.facts.push((at, fact));
    }

    /// The facts as a timeline for people, from an index on.
    pub fn lines(&self, from: usize) -> impl Iterator<Item = String> + '_ {
        self.facts.iter().skip(from).map(|(at, fact)| format!("{} {fact}", clock(*at)))
    }
}

/// Days, hours, minutes, seconds and milliseconds since the beginning.
pub fn clock(ms: u64) -> String {
    let (day, second) = (ms / 86_400_000, ms / 1_000);
    format!("{day}d {:02}:{:02}:{:02}.{:03}", second / 3600 % 24, second / 60 % 60, second % 60, ms % 1_000)
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_off = |on: &bool, yes: &'static str, no: &'static str| if *on { yes } else { no };
        match self {
            Self::Writable { side, on } => {
                write!(f, "{side:>7}  database {}", on_off(on, "takes writes", "refuses writes"))
            }
            Self::Promoted { side, missing, oldest_ms } => {
                write!(f, "{side:>7}  promoted; {missing} acknowledged writes missing, oldest {oldest_ms} ms")
            }
            Self::Lost { rows } => write!(f, "  world  {rows} acknowledged writes are gone"),
            Self::Effect { side, words } => write!(f, "{side:>7}  effect: {words}"),
            Self::Doubled { side, words } => write!(f, "{side:>7}  DOUBLED: {words}"),
            Self::Broken { kind, side, until } => {
                write!(f, "nemesis  {} at {side} until {}", kind.name(), clock(*until))
            }
            Self::Mended => f.write_str("nemesis  everything is mended"),
            Self::Agent { side, on } => write!(f, "{side:>7}  agent {}", on_off(on, "runs", "does not run")),
            Self::Line { on } => write!(f, "  world  agents {}", on_off(on, "can talk", "cannot talk")),
            Self::Traffic { to: Some(side) } => write!(f, "  world  clients go to the {side} site"),
            Self::Traffic { to: None } => f.write_str("  world  clients go nowhere"),
            Self::Outage { side, on } => write!(f, "{side:>7}  site {}", on_off(on, "OUT", "back")),
            Self::Asked { side, words, connected, .. } => {
                let line = on_off(connected, "", " (sites not connected)");
                write!(f, " person  at {side}: {words}{line}")
            }
            Self::Told { side, note } => write!(f, "{side:>7}  says: {}", told(note)),
            Self::Settled { phase } => write!(f, "  world  in order: {phase}"),
            Self::Silent { what } => write!(f, "  world  NOT in order and nobody says why: {what}"),
            Self::Died { side, how } => write!(f, "{side:>7}  agent DIED: {how}"),
        }
    }
}

fn told(note: &Note) -> String {
    crate::telemetry::log::note_line(note).1
}
