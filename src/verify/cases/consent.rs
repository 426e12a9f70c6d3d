//! Stories of consents asked for, given and used.

use super::{APART, Case, MINUTE, in_gold_standby, in_golddr_primary, runs};
use crate::model::{
    ConsentTag, Event, Generation, Note, PatroniSample, PeerMessage, Phase, Side, Transition, Wall,
};
use crate::rules::mutant::Mutant;
use crate::verify::pair::{Cut, EPOCH_MS, Pair};

pub(super) const CASES: &[Case] = &[
    Case {
        mutant: Mutant::AnyNonce,
        harm: "a yes to another question begins a rebuild",
        shows: |fault| begins_on(fault, |tag| tag.nonce = "gold-1-another".to_owned()),
    },
    Case {
        mutant: Mutant::ConsentForAnyGeneration,
        harm: "a yes for another generation begins a rebuild",
        shows: |fault| begins_on(fault, |tag| tag.generation = Generation(tag.generation.0 - 1)),
    },
    Case {
        mutant: Mutant::ConsentKept,
        harm: "a consent that was used is called out of time in the middle of its transition",
        shows: times_out_after_use,
    },
    Case {
        mutant: Mutant::GrantsWhileBusy,
        harm: "a site consents in the middle of a transition of its own",
        shows: consents_while_busy,
    },
    Case {
        mutant: Mutant::GrantsOldGenerations,
        harm: "a site consents to a generation that it has left behind",
        shows: consents_to_the_past,
    },
    Case {
        mutant: Mutant::GrantsUnseen,
        harm: "a site that does not see its database lets the other one delete its copy",
        shows: consents_unseen,
    },
    Case {
        mutant: Mutant::PromisesUncounted,
        harm: "a site begins a transition of its own under the number that it has promised to the other one",
        shows: begins_under_the_promised_number,
    },
    Case {
        mutant: Mutant::GrantsOnFailedFence,
        harm: "a site that could not be made read-only consents to a failback",
        shows: consents_unfenced,
    },
];

/// A pair in which the active site waits for an answer that is kept from it, and the answer.
fn waits_for_yes(fault: Option<Mutant>) -> (Pair, ConsentTag) {
    let mut pair = in_golddr_primary(fault);
    pair.cut = Cut { from_active: false, from_passive: true };
    pair.ask(Side::Active, Transition::GoldStandby);
    pair.run_until(MINUTE, |pair| yes(pair).is_some());
    let tag = yes(&pair).as_deref().and_then(ConsentTag::from_item);
    (pair, tag.unwrap_or_else(|| tag_for(Transition::GoldStandby, Generation(0), Wall(0))))
}

/// The consent that the passive site has given and not delivered.
fn yes(pair: &Pair) -> Option<String> {
    pair.half(Side::Passive).engine.state().outbox.iter().find_map(|entry| match &entry.message {
        PeerMessage::Yes { item, .. } => Some(item.clone()),
        _ => None,
    })
}

fn tag_for(transition: Transition, generation: Generation, expires: Wall) -> ConsentTag {
    let (nonce, site) = ("gold-1-question".to_owned(), "gold".to_owned());
    ConsentTag { nonce, generation, expires, transition: transition.wire().to_owned(), site }
}

fn says_yes(pair: &mut Pair, tag: &ConsentTag) {
    let evidence = Some(pair.half(Side::Passive).engine.peer_status(pair.now));
    let message = PeerMessage::Yes { item: tag.item(&std::collections::BTreeMap::new()), evidence };
    pair.inject(Side::Active, Event::PeerMessage { id: None, message, authenticated: true });
    pair.run(10);
}

fn begins_on(fault: Option<Mutant>, alter: impl Fn(&mut ConsentTag)) -> bool {
    let (mut pair, mut tag) = waits_for_yes(fault);
    alter(&mut tag);
    says_yes(&mut pair, &tag);
    runs(&pair, Side::Active)
}

fn times_out_after_use(fault: Option<Mutant>) -> bool {
    let (mut pair, tag) = waits_for_yes(fault);
    pair.cut = Cut::default();
    pair.half_mut(Side::Active).site.faults.insert("scale the health".to_owned(), 1_000);
    says_yes(&mut pair, &tag);
    pair.run(MINUTE);
    pair.half(Side::Active)
        .notes
        .iter()
        .any(|(_, note)| matches!(note, Note::Refused(refusal) if refusal.refusal == "consent-timed-out"))
}

/// Whether the passive site consents to what it is asked, as far as nobody hears it.
fn consents(pair: &mut Pair, required: Phase, transition: Transition, ahead: u64, wait_ms: u64) -> bool {
    let known = pair.half(Side::Passive).engine.state().generation;
    let expires = Wall(EPOCH_MS + pair.now.0 + 60 * MINUTE);
    let tag = tag_for(transition, Generation(known.0 + ahead), expires);
    let item = tag.item(&std::collections::BTreeMap::new());
    let message = PeerMessage::Confirm { required_state: required.wire().to_owned(), item };
    pair.cut = APART;
    pair.inject(Side::Passive, Event::PeerMessage { id: None, message, authenticated: true });
    pair.run_until(wait_ms, |pair| yes(pair).is_some())
}

fn consents_while_busy(fault: Option<Mutant>) -> bool {
    let mut pair = in_golddr_primary(fault);
    pair.half_mut(Side::Passive).site.faults.insert("record phase".to_owned(), 1_000);
    pair.ask(Side::Passive, Transition::GoldStandby);
    pair.run_until(MINUTE, |pair| runs(pair, Side::Passive));
    consents(&mut pair, Phase::GolddrPrimary, Transition::GoldStandby, 5, 500)
}

fn consents_to_the_past(fault: Option<Mutant>) -> bool {
    consents(&mut in_golddr_primary(fault), Phase::GolddrPrimary, Transition::GoldStandby, 0, 500)
}

fn begins_under_the_promised_number(fault: Option<Mutant>) -> bool {
    let mut pair = in_golddr_primary(fault);
    let promised = Generation(pair.half(Side::Passive).engine.state().generation.0 + 1);
    consents(&mut pair, Phase::GolddrPrimary, Transition::GoldStandby, 1, 500);
    pair.run(2 * MINUTE);
    pair.cut = Cut::default();
    pair.run(MINUTE);
    pair.ask(Side::Passive, Transition::GoldStandby);
    pair.run(MINUTE);
    pair.half(Side::Passive).notes.iter().any(
        |(_, note)| matches!(note, Note::TransitionStarted { generation, .. } if *generation == promised),
    )
}

fn consents_unseen(fault: Option<Mutant>) -> bool {
    let mut pair = in_golddr_primary(fault);
    let unseen = PatroniSample::Unknown("no answer".to_owned());
    pair.inject(Side::Passive, Event::Patroni(unseen));
    consents(&mut pair, Phase::GolddrPrimary, Transition::GoldStandby, 1, 50)
}

fn consents_unfenced(fault: Option<Mutant>) -> bool {
    let mut pair = in_gold_standby(fault);
    pair.half_mut(Side::Passive).site.faults.insert("make the database read-only".to_owned(), 1_000_000);
    consents(&mut pair, Phase::GoldStandby, Transition::ActivePassive, 1, 30 * MINUTE)
}
