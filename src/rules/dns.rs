//! What DNS answers mean: which answer the resolvers agree on, which site it names, and when an odd one has lasted.
//! Pure; no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{DnsSample, Mono, ResolverAnswer};

/// What a round of look-ups amounts to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// A quorum gives exactly these addresses.
    Addresses(BTreeSet<IpAddr>),
    /// A quorum says that there is no address.
    None,
    /// No quorum, and why; nothing follows from it.
    Unknown(String),
}

/// The first address, `none`, or `error`: the words of the metric and of the message to the peer.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(addresses) => match addresses.first() {
                Some(first) => write!(f, "{first}"),
                None => f.write_str("none"),
            },
            Self::None => f.write_str("none"),
            Self::Unknown(_) => f.write_str("error"),
        }
    }
}

/// More than half of `count`; at least 1.
pub fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// The answer that at least `need` resolvers give alike, sets of addresses compared as sets; `need` 0 = more than
/// half of those asked.
///
/// Two answers that both reach it are a split, thus unknown. "No address" while the self-test fails is our own
/// network's fault, thus unknown.
pub fn quorum(sample: &DnsSample, need: usize) -> Answer {
    let asked = sample.answers.len();
    let need = if need == 0 { majority(asked) } else { need };
    let mut votes: BTreeMap<&ResolverAnswer, Vec<&str>> = BTreeMap::new();
    for (name, answer) in &sample.answers {
        if !matches!(answer, ResolverAnswer::Unknown(_)) {
            votes.entry(answer).or_default().push(name);
        }
    }
    let reached: Vec<&ResolverAnswer> =
        votes.iter().filter(|(_, names)| names.len() >= need).map(|(answer, _)| *answer).collect();
    let answer = match reached.as_slice() {
        [ResolverAnswer::Addresses(addresses)] if !addresses.is_empty() => {
            Answer::Addresses(addresses.clone())
        }
        [_] => Answer::None,
        _ if votes.len() > 1 => Answer::Unknown(split(&votes)),
        _ => {
            let alike = votes.values().map(Vec::len).max().unwrap_or(0);
            Answer::Unknown(format!(
                "{alike} of {asked} resolvers answered, {need} needed{}",
                reasons(sample)
            ))
        }
    };
    match answer {
        Answer::Addresses(_) => answer,
        _ if sample.self_test == Some(false) => Answer::Unknown("own network".to_owned()),
        other => other,
    }
}

/// Who says what, where they disagree.
fn split(votes: &BTreeMap<&ResolverAnswer, Vec<&str>>) -> String {
    let sides: Vec<String> = votes
        .iter()
        .map(|(answer, names)| {
            let said = match answer {
                ResolverAnswer::Addresses(addresses) => {
                    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                }
                ResolverAnswer::NoAddress | ResolverAnswer::Unknown(_) => "none".to_owned(),
            };
            format!("{said} by {}", names.join(" "))
        })
        .collect();
    format!("resolvers disagree: {}", sides.join("; "))
}

fn reasons(sample: &DnsSample) -> String {
    sample
        .answers
        .iter()
        .filter_map(|(name, answer)| match answer {
            ResolverAnswer::Unknown(why) => Some(format!("; {name}: {why}")),
            ResolverAnswer::Addresses(_) | ResolverAnswer::NoAddress => None,
        })
        .collect()
}

/// Which site an answer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsKind {
    /// An address of the active site and none of the passive one.
    Active,
    /// An address of the passive site and none of the active one.
    Passive,
    /// Addresses of both.
    Both,
    /// Only addresses of neither.
    Other,
    /// No address.
    None,
    /// Not known.
    Unknown,
}

impl DnsKind {
    /// All kinds, in a fixed order.
    pub const ALL: [Self; 6] =
        [Self::Active, Self::Passive, Self::Both, Self::Other, Self::None, Self::Unknown];

    /// The word in notes and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::Both => "both",
            Self::Other => "other",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// Which site the answer names. A strange address beside a known one does not count: traffic still reaches the known
/// site, and moving because of it would be the greater harm.
pub fn kind(answer: &Answer, active: &BTreeSet<IpAddr>, passive: &BTreeSet<IpAddr>) -> DnsKind {
    match answer {
        Answer::Unknown(_) => DnsKind::Unknown,
        Answer::None => DnsKind::None,
        Answer::Addresses(found) if found.is_empty() => DnsKind::None,
        Answer::Addresses(found) => match (!found.is_disjoint(active), !found.is_disjoint(passive)) {
            (true, true) => DnsKind::Both,
            (true, false) => DnsKind::Active,
            (false, true) => DnsKind::Passive,
            (false, false) => DnsKind::Other,
        },
    }
}

/// What an answer amounts to after those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The name points at the active site, or nothing is known yet.
    Steady,
    /// It points elsewhere, and this has to be seen more often or for longer. Also every unknown answer while an
    /// odd one stands: nothing may be begun on one.
    Odd {
        /// Agreeing answers so far.
        seen: u32,
        /// Answers that are needed.
        need: u32,
    },
    /// It has pointed elsewhere for long enough. Repeated with each further agreeing answer.
    Lasting,
    /// It points at the active site again; said once.
    Healed,
}

/// Odd answers of one kind in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Run {
    kind: DnsKind,
    seen: u32,
    since: Mono,
}

/// Counts agreeing answers, so that one odd answer moves nothing.
///
/// An answer that is unknown neither counts nor resets: the last valid answer stays, and a resolver that fails now
/// and then can neither cause a move nor hide one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Damping {
    need: u32,
    need_ms: u64,
    last: Option<DnsKind>,
    run: Option<Run>,
}

impl Damping {
    /// Needs `need` agreeing answers (at least 1) over at least `need_ms` milliseconds.
    pub fn new(need: u32, need_ms: u64) -> Self {
        Self { need: need.max(1), need_ms, last: None, run: None }
    }

    /// The last valid answer; `None` before the first.
    pub fn last(&self) -> Option<DnsKind> {
        self.last
    }

    /// Takes the next answer.
    pub fn feed(&mut self, kind: DnsKind, now: Mono) -> Standing {
        match kind {
            DnsKind::Unknown => match self.run {
                Some(run) => Standing::Odd { seen: run.seen, need: self.need },
                None => Standing::Steady,
            },
            DnsKind::Active => {
                self.last = Some(kind);
                if self.run.take().is_some() { Standing::Healed } else { Standing::Steady }
            }
            DnsKind::Passive | DnsKind::Both | DnsKind::Other | DnsKind::None => self.feed_odd(kind, now),
        }
    }

    fn feed_odd(&mut self, kind: DnsKind, now: Mono) -> Standing {
        self.last = Some(kind);
        let run = match self.run {
            // Counting on beyond what is needed would only make equal situations look different.
            Some(run) if run.kind == kind => Run { seen: run.seen.saturating_add(1).min(self.need), ..run },
            _ => Run { kind, seen: 1, since: now },
        };
        self.run = Some(run);
        if run.seen >= self.need && now.since(run.since) >= self.need_ms {
            Standing::Lasting
        } else {
            Standing::Odd { seen: run.seen, need: self.need }
        }
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
