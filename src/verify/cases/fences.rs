//! Stories of fences: believed too early, lifted too late, overlapped by another call.

use super::{APART, Case, MINUTE, asked, in_gold_standby, pair, runs, self_fencing};
use crate::model::{Event, PeerStatus, ResolverAnswer, Side, Transition};
use crate::rules::mutant::Mutant;
use crate::verify::pair::{Cut, Pair};

pub(super) const CASES: &[Case] = &[
    Case {
        mutant: Mutant::FenceOfBefore,
        harm: "a failover promotes on a fence that may be about to be lifted",
        shows: believes_a_fence_of_before,
    },
    Case {
        mutant: Mutant::TellsOldRole,
        harm: "a site tells that it is read-only while it is taking writes again",
        shows: tells_read_only_while_unfencing,
    },
    Case {
        mutant: Mutant::LenderUnseen,
        harm: "a failback promotes while the site that consented to it cannot be seen",
        shows: promotes_unseen,
    },
    Case {
        mutant: Mutant::OverlapsRoleCalls,
        harm: "a late fence undoes a promotion that was asked for after it",
        shows: ends_fenced,
    },
];

fn is_fenced(pair: &Pair) -> bool {
    let half = pair.half(Side::Active);
    half.engine.state().lease.fenced.is_some() && !half.site.is_writable()
}

fn believes_a_fence_of_before(fault: Option<Mutant>) -> bool {
    let mut pair = self_fencing(fault);
    let read_only = PeerStatus {
        writable: Some(false),
        transition: String::new(),
        ..pair.half(Side::Active).engine.peer_status(pair.now)
    };
    pair.cut = APART;
    pair.inject(Side::Passive, Event::PeerStatus(read_only));
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    pair.run(2_500);
    asked(&pair, Side::Passive, "promote") > 0
}

fn tells_read_only_while_unfencing(fault: Option<Mutant>) -> bool {
    let mut pair = self_fencing(fault);
    let home = std::net::IpAddr::from([10, 0, 0, 1]);
    pair.dns_override = Some(ResolverAnswer::Addresses([home].into()));
    pair.cut = APART;
    pair.run_until(MINUTE, is_fenced);
    pair.run(1_100);
    pair.half_mut(Side::Active).site.faults.insert("promote".to_owned(), 3);
    pair.cut = Cut::default();
    pair.run_until(MINUTE, |pair| pair.half(Side::Active).engine.state().lease.fenced.is_none());
    pair.half(Side::Active).engine.peer_status(pair.now).writable == Some(false)
}

fn promotes_unseen(fault: Option<Mutant>) -> bool {
    let mut pair = in_gold_standby(fault);
    pair.ask(Side::Active, Transition::ActivePassive);
    pair.half_mut(Side::Active).site.faults.insert("set in_recovery".to_owned(), 2);
    pair.run_until(MINUTE, |pair| runs(pair, Side::Active));
    pair.cut = APART;
    pair.inject(Side::Active, Event::PeerLink { up: false, reason: "no answer".to_owned() });
    let before = asked(&pair, Side::Active, "promote");
    pair.run(2 * MINUTE);
    asked(&pair, Side::Active, "promote") > before
}

/// The fence of a failover takes so long that the plan leaves it behind; meanwhile a person takes the service back.
fn ends_fenced(fault: Option<Mutant>) -> bool {
    let mut pair = pair(fault, |policy| policy.fence_old_primary = true);
    pair.half_mut(Side::Active).slow.insert("make the database read-only".to_owned(), 14_000);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    pair.run(11_500);
    pair.ask(Side::Active, Transition::ActivePassiveForce);
    pair.run(10 * MINUTE);
    !pair.half(Side::Active).site.is_writable()
}
