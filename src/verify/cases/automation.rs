//! Stories of what the agent begins by itself.

use super::{Case, MINUTE, asked, pair};
use crate::model::{Note, ResolverAnswer, Side, Transition};
use crate::rules::Engine;
use crate::rules::mutant::Mutant;
use crate::rules::policy::Automation;
use crate::verify::pair::Pair;

pub(super) const CASES: &[Case] = &[
    Case {
        mutant: Mutant::Unacknowledged,
        harm: "automation fails over again although nobody has looked at the first time",
        shows: |fault| fails_over_twice(fault, false),
    },
    Case {
        mutant: Mutant::ForgetsAutomatic,
        harm: "the same after both agents were started again",
        shows: |fault| fails_over_twice(fault, true),
    },
    Case {
        mutant: Mutant::Rearmed,
        harm: "a failback is undone at once because resolvers still give the answer of before it",
        shows: undoes_a_failback,
    },
    Case {
        mutant: Mutant::AssumesFenced,
        harm: "an automatic failover promotes although the old primary answers and was not seen read-only",
        shows: promotes_on_a_guess,
    },
];

fn resolvers_answer(pair: &mut Pair, last: u8) {
    let address = std::net::IpAddr::from([10, 0, 0, last]);
    pair.dns_override = Some(ResolverAnswer::Addresses([address].into()));
}

fn automatic_failovers(pair: &Pair) -> usize {
    let begun =
        |note: &Note| matches!(note, Note::TransitionStarted { rule, .. } if rule == "failover-by-traffic");
    let notes = Side::ALL.into_iter().flat_map(|side| &pair.half(side).notes);
    notes.filter(|(_, note)| begun(note)).count()
}

/// The agent of a side dies and is started again with what it had saved, as the fault leaves it.
fn restart(pair: &mut Pair, side: Side, fault: Option<Mutant>) {
    let now = pair.now;
    let half = pair.half_mut(side);
    let mut saved = half.engine.state().durable().after_restart(now);
    fault.iter().for_each(|fault| fault.spoil_restart(&mut saved));
    half.engine = Engine::restore(half.engine.policy().clone(), saved);
}

fn fails_over_twice(fault: Option<Mutant>, restarts: bool) -> bool {
    let mut pair = pair(fault, |policy| policy.fence_old_primary = true);
    resolvers_answer(&mut pair, 2);
    pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary"));
    let first = automatic_failovers(&pair);
    for side in Side::ALL.into_iter().filter(|_| restarts) {
        restart(&mut pair, side, fault);
    }
    pair.run(5_000);
    // Somebody writes into both records that all is as it was; then traffic comes and goes once more.
    for side in Side::ALL {
        pair.edit_record(side, "last_stable_state", "active-passive");
    }
    resolvers_answer(&mut pair, 1);
    pair.run(MINUTE);
    resolvers_answer(&mut pair, 2);
    pair.run(MINUTE);
    automatic_failovers(&pair) > first.max(1)
}

fn undoes_a_failback(fault: Option<Mutant>) -> bool {
    let mut pair = pair(fault, |policy| policy.fence_old_primary = true);
    resolvers_answer(&mut pair, 2);
    pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary"));
    let first = automatic_failovers(&pair);
    for (transition, goal) in
        [(Transition::GoldStandby, "gold-standby"), (Transition::ActivePassive, "active-passive")]
    {
        pair.ask(Side::Active, transition);
        pair.run_until(5 * MINUTE, |pair| pair.is_settled_in(goal));
    }
    pair.run(2 * MINUTE);
    automatic_failovers(&pair) > first.max(1)
}

fn promotes_on_a_guess(fault: Option<Mutant>) -> bool {
    let mut pair = pair(fault, |policy| {
        policy.fence_old_primary = true;
        policy.automation =
            if policy.side == Side::Active { Automation::Advise } else { Automation::Witnessed };
    });
    let site = &mut pair.half_mut(Side::Active).site;
    // Its agent answers and no longer sees its database.
    site.database.replicas = 0;
    site.faults.insert("make the database read-only".to_owned(), 1_000_000);
    resolvers_answer(&mut pair, 2);
    pair.run(5 * MINUTE);
    asked(&pair, Side::Passive, "promote") > 0
}
