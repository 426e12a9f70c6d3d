//! What DNS answers mean: quorum over resolvers, kind of the answer, damping over time.
//!
//! An error is no answer. Resolvers that disagree give no answer. A resolver round in which our own network cannot
//! even look up the self-test name says something about our network and nothing about the global load balancer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{DnsSample, Mono, ResolverAnswer};

/// The answer of a quorum of resolvers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// These addresses.
    Addresses(BTreeSet<IpAddr>),
    /// The name has no address.
    None,
    /// No quorum, and why.
    Unknown(String),
}

impl fmt::Display for Answer {
    /// The first address, `none` or `error`, as the predecessor tells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(addresses) => match addresses.first() {
                Some(first) => first.fmt(f),
                None => f.write_str("none"),
            },
            Self::None => f.write_str("none"),
            Self::Unknown(_) => f.write_str("error"),
        }
    }
}

/// What an answer means for the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DnsKind {
    /// Traffic goes to the active site.
    Active,
    /// Traffic goes to the passive site.
    Passive,
    /// Addresses of both sites.
    Both,
    /// Addresses of neither.
    Other,
    /// No address.
    None,
    /// Not known.
    Unknown,
}

/// More than half of `count`.
pub fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// The answer that at least `need` resolvers gave alike; 0 = more than half of those asked.
pub fn quorum(sample: &DnsSample, need: usize) -> Answer {
    let need = if need == 0 { majority(sample.answers.len()) } else { need };
    if sample.self_test == Some(false) {
        return Answer::Unknown("own network".to_owned());
    }
    let mut votes: BTreeMap<Answer, usize> = BTreeMap::new();
    for answer in sample.answers.values() {
        match answer {
            ResolverAnswer::Addresses(set) if !set.is_empty() => {
                *votes.entry(Answer::Addresses(set.clone())).or_default() += 1;
            }
            ResolverAnswer::Addresses(_) | ResolverAnswer::NoAddress => {
                *votes.entry(Answer::None).or_default() += 1;
            }
            ResolverAnswer::Unknown(_) => {}
        }
    }
    let mut enough = votes.iter().filter(|(_, count)| **count >= need);
    match (enough.next(), enough.next()) {
        (Some((answer, _)), None) => answer.clone(),
        _ => Answer::Unknown(format!(
            "{} of {} resolvers answered, no {} of them alike",
            votes.values().sum::<usize>(),
            sample.answers.len(),
            need
        )),
    }
}

/// How many resolvers gave this very answer.
pub fn agreeing(sample: &DnsSample, answer: &Answer) -> usize {
    let gave = |given: &&ResolverAnswer| match (given, answer) {
        (ResolverAnswer::Addresses(set), Answer::Addresses(wanted)) => set == wanted,
        (ResolverAnswer::Addresses(set), Answer::None) => set.is_empty(),
        (ResolverAnswer::NoAddress, Answer::None) => true,
        _ => false,
    };
    sample.answers.values().filter(gave).count()
}

/// What an answer means.
pub fn kind(answer: &Answer, active: &BTreeSet<IpAddr>, passive: &BTreeSet<IpAddr>) -> DnsKind {
    let addresses = match answer {
        Answer::Addresses(addresses) => addresses,
        Answer::None => return DnsKind::None,
        Answer::Unknown(_) => return DnsKind::Unknown,
    };
    match (addresses.is_disjoint(active), addresses.is_disjoint(passive)) {
        (false, true) => DnsKind::Active,
        (true, false) => DnsKind::Passive,
        (false, false) => DnsKind::Both,
        (true, true) => DnsKind::Other,
    }
}

/// What a sample means after those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// As before.
    Steady,
    /// Different from before, not yet long enough.
    Odd {
        /// Agreeing samples so far.
        seen: u32,
        /// Samples that are needed.
        need: u32,
    },
    /// Different from before for long enough; this is now what holds.
    Lasting(DnsKind),
    /// It was odd and is as before again.
    Healed,
}

/// Damping: an answer holds only after `need` agreeing samples that span `span_ms`. Unknown samples neither count nor
/// reset: the last valid answer stays, and an odd one must be seen again to count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Damping {
    need: u32,
    span_ms: u64,
    holds: Option<DnsKind>,
    odd: Option<(DnsKind, u32, Mono)>,
}

impl Damping {
    /// Nothing seen yet.
    pub fn new(need: u32, span_ms: u64) -> Self {
        Self { need: need.max(1), span_ms, holds: None, odd: None }
    }

    /// Forgets what was seen, keeps the settings.
    pub fn forget(&mut self) {
        (self.holds, self.odd) = (None, None);
    }

    /// The kind that holds.
    pub fn holds(&self) -> Option<DnsKind> {
        self.holds
    }

    /// Takes in a sample.
    pub fn feed(&mut self, kind: DnsKind, now: Mono) -> Verdict {
        if kind == DnsKind::Unknown {
            return Verdict::Steady;
        }
        if self.holds == Some(kind) {
            return if self.odd.take().is_some() { Verdict::Healed } else { Verdict::Steady };
        }
        let (seen, since) = match self.odd {
            Some((odd, seen, since)) if odd == kind => (seen.saturating_add(1).min(self.need), since),
            _ => (1, now),
        };
        if seen >= self.need && now.since(since) >= self.span_ms {
            self.holds = Some(kind);
            self.odd = None;
            Verdict::Lasting(kind)
        } else {
            self.odd = Some((kind, seen, since));
            Verdict::Odd { seen, need: self.need }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [DnsKind; 6] =
        [DnsKind::Active, DnsKind::Passive, DnsKind::Both, DnsKind::Other, DnsKind::None, DnsKind::Unknown];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn addresses(list: &[&str]) -> ResolverAnswer {
        ResolverAnswer::Addresses(list.iter().map(|text| ip(text)).collect())
    }

    fn sample(answers: &[ResolverAnswer]) -> DnsSample {
        let named = answers.iter().enumerate().map(|(index, answer)| (format!("r{index}"), answer.clone()));
        DnsSample { answers: named.collect(), self_test: None }
    }

    fn unknown() -> ResolverAnswer {
        ResolverAnswer::Unknown("time-out".to_owned())
    }

    #[test]
    fn one_lying_resolver_of_three_is_outvoted() {
        let answers = [addresses(&["10.0.0.1"]), addresses(&["10.0.0.2"]), addresses(&["10.0.0.1"])];
        assert_eq!(quorum(&sample(&answers), 2), Answer::Addresses([ip("10.0.0.1")].into()));
    }

    #[test]
    fn errors_and_disagreement_are_unknown() {
        for answers in [
            vec![unknown(), unknown(), addresses(&["10.0.0.1"])],
            vec![addresses(&["10.0.0.1"]), addresses(&["10.0.0.2"]), ResolverAnswer::NoAddress],
            vec![unknown()],
            vec![],
        ] {
            assert!(matches!(quorum(&sample(&answers), 2), Answer::Unknown(_)), "{answers:?}");
        }
    }

    #[test]
    fn two_answers_that_both_have_a_quorum_are_unknown() {
        let answers = [addresses(&["10.0.0.1"]), addresses(&["10.0.0.2"])];
        assert!(matches!(quorum(&sample(&answers), 1), Answer::Unknown(_)));
    }

    #[test]
    fn a_failed_self_test_overrules_every_answer() {
        let mut round = sample(&[ResolverAnswer::NoAddress]);
        round.self_test = Some(false);
        assert!(matches!(quorum(&round, 1), Answer::Unknown(_)));
    }

    #[test]
    fn kinds_compare_sets_in_any_order() {
        let (active, passive) = ([ip("10.0.0.1")].into(), [ip("10.0.0.2"), ip("10.0.0.3")].into());
        let of = |list: &[&str]| {
            kind(&Answer::Addresses(list.iter().map(|text| ip(text)).collect()), &active, &passive)
        };
        assert_eq!(of(&["10.0.0.1"]), DnsKind::Active);
        assert_eq!(of(&["10.0.0.3"]), DnsKind::Passive);
        assert_eq!(of(&["10.0.0.3", "10.0.0.1"]), DnsKind::Both);
        assert_eq!(of(&["192.0.2.1"]), DnsKind::Other);
        assert_eq!(kind(&Answer::None, &active, &passive), DnsKind::None);
    }

    #[test]
    fn every_pair_of_consecutive_kinds_has_its_verdict() {
        for first in KINDS {
            for second in KINDS {
                let mut damping = Damping::new(1, 0);
                damping.feed(first, Mono(0));
                let verdict = damping.feed(second, Mono(5));
                let expected = match (first, second) {
                    (_, DnsKind::Unknown) => Verdict::Steady,
                    (a, b) if a == b => Verdict::Steady,
                    (_, b) => Verdict::Lasting(b),
                };
                assert_eq!(verdict, expected, "{first:?} then {second:?}");
            }
        }
    }

    #[test]
    fn an_answer_holds_only_after_enough_samples_over_enough_time() {
        let mut damping = Damping::new(3, 10_000);
        assert_eq!(damping.feed(DnsKind::Passive, Mono(0)), Verdict::Odd { seen: 1, need: 3 });
        assert_eq!(damping.feed(DnsKind::Unknown, Mono(2_000)), Verdict::Steady);
        assert_eq!(damping.feed(DnsKind::Passive, Mono(5_000)), Verdict::Odd { seen: 2, need: 3 });
        assert_eq!(damping.feed(DnsKind::Passive, Mono(9_999)), Verdict::Odd { seen: 3, need: 3 });
        assert_eq!(damping.feed(DnsKind::Passive, Mono(10_000)), Verdict::Lasting(DnsKind::Passive));
        assert_eq!(damping.holds(), Some(DnsKind::Passive));
    }

    #[test]
    fn a_flapping_answer_never_lasts() {
        let mut damping = Damping::new(3, 0);
        for round in 0..3 {
            damping.feed(DnsKind::Active, Mono(round));
        }
        for round in 0..1_000 {
            let kind = if round % 3 == 2 { DnsKind::Active } else { DnsKind::Passive };
            let verdict = damping.feed(kind, Mono(10 + round));
            assert!(!matches!(verdict, Verdict::Lasting(_)), "round {round}");
        }
    }
}
