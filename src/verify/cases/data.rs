//! Stories of data that is deleted or left behind, of orders that are, and of steps that are passed over.

use super::{APART, Case, MINUTE, asked, in_gold_standby, in_golddr_primary, pair, runs};
use crate::model::{Event, Generation, Note, PeerStatus, Phase, Side, Transition};
use crate::rules::mutant::Mutant;
use crate::rules::policy::Automation;

pub(super) const CASES: &[Case] = &[
    Case {
        mutant: Mutant::GateIgnoresConsent,
        harm: "a person's word at one site deletes its copy while the other one has not taken the service",
        shows: deletes_unasked,
    },
    Case {
        mutant: Mutant::StandbyUnobserved,
        harm: "the other members' copies are deleted although the first one follows nobody",
        shows: deletes_beside_a_primary,
    },
    Case {
        mutant: Mutant::CatchUpSkipped,
        harm: "a failback promotes a copy that lacks the last writes",
        shows: promotes_behind,
    },
    Case {
        mutant: Mutant::ResumesPastStep,
        harm: "a failback that a person lets go on ends without the promotion at which it stood",
        shows: ends_without_promotion,
    },
    Case {
        mutant: Mutant::ForgetsUnwrittenOrders,
        harm: "the peer's failover, acknowledged here, is forgotten because the record could not be written for minutes",
        shows: forgets_an_order,
    },
    Case {
        mutant: Mutant::GenerationOwnOnly,
        harm: "a failover is numbered below what the other site has seen, which takes its order for an old one",
        shows: numbers_below_the_peer,
    },
];

fn deletes_unasked(fault: Option<Mutant>) -> bool {
    let mut pair = in_gold_standby(fault);
    let ours = pair.half(Side::Passive).engine.peer_status(pair.now);
    // The other site is seen with a newer copy that takes writes, and still says that it stands by.
    let seen = PeerStatus {
        writable: Some(true),
        timeline: ours.timeline.map(|timeline| timeline + 1),
        lsn: ours.lsn.map(|lsn| lsn + 1_000_000),
        phase: Phase::GoldStandby.wire().to_owned(),
        transition: String::new(),
        ..pair.half(Side::Active).engine.peer_status(pair.now)
    };
    pair.cut = APART;
    pair.ask(Side::Passive, Transition::ActivePassive);
    for _ in 0..300 {
        pair.inject(Side::Passive, Event::PeerLink { up: true, reason: String::new() });
        pair.inject(Side::Passive, Event::PeerStatus(seen.clone()));
        pair.run(200);
    }
    asked(&pair, Side::Passive, "delete") > 0
}

fn deletes_beside_a_primary(fault: Option<Mutant>) -> bool {
    let mut pair = in_golddr_primary(fault);
    pair.ask(Side::Active, Transition::GoldStandby);
    pair.run_until(5 * MINUTE, |pair| pair.half(Side::Active).site.database.replicas == 0);
    // Somebody points the pods at nobody in the meantime.
    pair.half_mut(Side::Active).site.database.follows_peer = false;
    pair.run(5 * MINUTE);
    asked(&pair, Side::Active, "delete database volume 1") > 0
}

fn promotes_behind(fault: Option<Mutant>) -> bool {
    let mut pair = in_gold_standby(fault);
    pair.replicates = false;
    pair.run(MINUTE);
    let before = asked(&pair, Side::Active, "promote");
    pair.ask(Side::Active, Transition::ActivePassive);
    pair.run_until(MINUTE, |pair| runs(pair, Side::Active));
    pair.run(10_000);
    asked(&pair, Side::Active, "promote") > before
}

fn ends_without_promotion(fault: Option<Mutant>) -> bool {
    let mut pair = in_gold_standby(fault);
    pair.half_mut(Side::Active).site.faults.insert("promote".to_owned(), 1_000_000);
    pair.ask(Side::Active, Transition::ActivePassive);
    pair.run(10 * MINUTE);
    pair.half_mut(Side::Active).site.faults.clear();
    pair.ask(Side::Active, Transition::ActivePassive);
    pair.run(5 * MINUTE);
    let site = &pair.half(Side::Active).site;
    site.recorded().0 == Phase::ActivePassive.wire() && !site.is_writable()
}

fn forgets_an_order(fault: Option<Mutant>) -> bool {
    let mut pair = pair(fault, |policy| policy.automation = Automation::Advise);
    pair.half_mut(Side::Passive).site.faults.insert("record transition".to_owned(), 1_000_000);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    pair.run(5 * MINUTE);
    pair.half_mut(Side::Passive).site.faults.clear();
    !pair.run_until(10 * MINUTE, |pair| pair.half(Side::Passive).site.is_writable())
}

fn numbers_below_the_peer(fault: Option<Mutant>) -> bool {
    let mut pair = pair(fault, |policy| policy.fence_old_primary = true);
    let seen = Generation(7);
    let status = PeerStatus { generation: seen, ..pair.half(Side::Active).engine.peer_status(pair.now) };
    pair.inject(Side::Passive, Event::PeerStatus(status));
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    pair.run(500);
    pair.half(Side::Passive)
        .notes
        .iter()
        .any(|(_, note)| matches!(note, Note::TransitionStarted { generation, .. } if *generation <= seen))
}
