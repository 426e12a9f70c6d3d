//! From the wanted outcome and what the world says to the writes of one cycle, with everything that may refuse them.
//!
//! Announcing more is the safe direction and is never refused. Taking away is: while the other router is not seen
//! announcing the prefix, and where the hour's writes are used up.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Outcome, Priority, RoutePolicy, WithdrawGuard};
use crate::model::{Mono, RoutePin};

const HOUR_MS: u64 = 3_600_000;
/// Writes that stay in reserve for undoing what is taken away: the router's and Cloudflare's.
const RESERVE: usize = 2;

/// Which of the two prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefix {
    /// `PRIMARY_PREFIX`.
    Primary,
    /// `SECONDARY_PREFIX`.
    Secondary,
}

/// Something for each of the two prefixes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Both<T> {
    /// Of the own prefix.
    pub primary: T,
    /// Of the other region's prefix.
    pub secondary: T,
}

/// What a cycle saw of the things it can change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seen {
    /// Whether the own router's list has the prefix; `None` = the router could not be read.
    pub router: Option<Both<bool>>,
    /// Whether the other router announces the prefix; `None` = it does not say.
    pub peer: Both<Option<bool>>,
    /// Own Cloudflare routes whose priority is not the wanted one; `None` = they could not be read.
    pub priorities_to_change: Option<usize>,
}

/// Something that a cycle should write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Write {
    /// One patch of the own router, both prefixes in it.
    Router {
        /// Whether each prefix is in the list afterwards.
        list: Both<bool>,
    },
    /// The own Cloudflare routes get this priority.
    Cloudflare {
        /// Which one.
        priority: Priority,
    },
}

/// Why something wanted is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// The other router is not seen announcing this prefix.
    PeerNotAnnouncing(Prefix),
    /// The hour's writes are used up.
    Budget,
}

impl Refused {
    /// The word in events and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::PeerNotAnnouncing(_) => "peer_not_announcing",
            Self::Budget => "write_budget",
        }
    }
}

/// The writes of a cycle, in the order in which they are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// What to write.
    pub writes: Vec<Write>,
    /// What was wanted and refused.
    pub refused: Vec<Refused>,
}

/// Times of the last hour's writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Budget {
    at: VecDeque<Mono>,
}

impl Budget {
    /// Counts a write.
    pub fn note(&mut self, now: Mono) {
        self.forget(now);
        self.at.push_back(now);
    }

    /// Writes of the last hour.
    pub fn used(&mut self, now: Mono) -> usize {
        self.forget(now);
        self.at.len()
    }

    fn forget(&mut self, now: Mono) {
        while self.at.front().is_some_and(|at| now.since(*at) >= HOUR_MS) {
            self.at.pop_front();
        }
    }

    /// Whether `writes` that take something away fit, with what undoing them needs.
    fn allows(&mut self, limit: Option<u32>, writes: usize, now: Mono) -> bool {
        limit.is_none_or(|limit| self.used(now) + writes + RESERVE <= limit as usize)
    }
}

/// What to write so that the world says `wanted`.
///
/// Takeovers: the router first, then Cloudflare. Withdrawals: Cloudflare first, so that traffic has left before the
/// route goes. A router that could not be read is left alone; Cloudflare is read again by its own writer anyway.
pub fn plan(
    policy: &RoutePolicy,
    wanted: Outcome,
    pin: RoutePin,
    seen: &Seen,
    budget: &mut Budget,
    now: Mono,
) -> Plan {
    let mut plan = Plan::default();
    let guard = match (policy.guard, pin) {
        (WithdrawGuard::Off, _) => WithdrawGuard::Off,
        // People moved the service: the routes follow when the other site has them, not before.
        (_, RoutePin::Passive) => WithdrawGuard::Strict,
        (guard, RoutePin::Health) => guard,
    };
    let mut list = Both { primary: wanted.primary, secondary: wanted.secondary };
    if let Some(router) = seen.router {
        for (prefix, want, has, peer) in [
            (Prefix::Primary, &mut list.primary, router.primary, seen.peer.primary),
            (Prefix::Secondary, &mut list.secondary, router.secondary, seen.peer.secondary),
        ] {
            if has && !*want && !may_withdraw(guard, peer) {
                plan.refused.push(Refused::PeerNotAnnouncing(prefix));
                *want = true;
            }
        }
    }
    let announces =
        seen.router.is_some_and(|had| (list.primary && !had.primary) || (list.secondary && !had.secondary));
    let withdraws =
        seen.router.is_some_and(|had| (!list.primary && had.primary) || (!list.secondary && had.secondary));
    let demotes = wanted.priority == Priority::Secondary;
    let cloudflare = seen.priorities_to_change.is_none_or(|count| count > 0)
        // While routes wait for the other site, so does the traffic that people want moved.
        && !(demotes && pin == RoutePin::Passive && !may_withdraw(guard, seen.peer.primary));
    let takes_away = usize::from(withdraws && !announces) + usize::from(cloudflare && demotes);
    let affordable = takes_away == 0 || budget.allows(policy.writes_per_hour, takes_away, now);
    if !affordable {
        plan.refused.push(Refused::Budget);
    }
    let router_write = (announces || (withdraws && affordable)).then_some(Write::Router {
        // A patch that also announces goes out; what it would take away waits if the budget says so.
        list: match seen.router {
            Some(had) if !affordable => {
                Both { primary: list.primary || had.primary, secondary: list.secondary || had.secondary }
            }
            _ => list,
        },
    });
    let priority_write =
        (cloudflare && (!demotes || affordable)).then_some(Write::Cloudflare { priority: wanted.priority });
    plan.writes = if announces || !demotes {
        router_write.into_iter().chain(priority_write).collect()
    } else {
        priority_write.into_iter().chain(router_write).collect()
    };
    plan
}

fn may_withdraw(guard: WithdrawGuard, peer: Option<bool>) -> bool {
    match guard {
        WithdrawGuard::Off => true,
        WithdrawGuard::Auto => peer != Some(false),
        WithdrawGuard::Strict => peer == Some(true),
    }
}
