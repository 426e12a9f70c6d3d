//! One test for each defect of the rules that a checker found: the search of `verify`, the simulation, the kill matrix.

use switchover_agent::model::{Event, Note, PeerMessage, Side, Transition};
use switchover_agent::rules::policy::Policy;
use switchover_agent::verify::pair::{Cut, Pair};

const MINUTE: u64 = 60_000;

fn pair_with(adjust: impl Fn(&mut Policy)) -> Pair {
    let mut pair = Pair::new(adjust);
    pair.run(5_000);
    pair
}

fn to(pair: &mut Pair, wanted: Transition, phase: &str) {
    pair.ask(Side::Active, wanted);
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in(phase)), "{wanted}");
}

fn refusals(pair: &Pair, side: Side) -> Vec<String> {
    let named = pair.half(side).notes.iter().filter_map(|(_, note)| match note {
        Note::Refused(refusal) => Some(refusal.refusal.clone()),
        _ => None,
    });
    named.collect()
}

/// A pair in which the active site waits for a consent, and the passive one's yes, which never came: its agent was
/// killed over it and has not answered a heartbeat since.
fn waits_for_a_lost_yes(pair: &mut Pair, wanted: Transition) -> PeerMessage {
    pair.cut = Cut { from_active: false, from_passive: true };
    pair.ask(Side::Active, wanted);
    let yes = |pair: &Pair| {
        let outbox = &pair.half(Side::Passive).engine.state().outbox;
        outbox.iter().find_map(|entry| match &entry.message {
            yes @ PeerMessage::Yes { .. } => Some(yes.clone()),
            _ => None,
        })
    };
    assert!(pair.run_until(MINUTE, |pair| yes(pair).is_some()));
    let yes = yes(pair).expect("seen a moment ago");
    pair.cut = Cut { from_active: true, from_passive: true };
    pair.run(10_000);
    assert!(pair.half(Side::Active).engine.state().ask.is_some(), "it still waits");
    yes
}

fn comes(pair: &mut Pair, message: PeerMessage) {
    pair.inject(Side::Active, Event::PeerMessage { id: None, message, authenticated: true });
    pair.run(10);
}

#[test]
fn a_yes_that_overtakes_the_first_heartbeats_of_a_restarted_peer_is_taken() {
    let mut pair = pair_with(|policy| policy.fence_old_primary = true);
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let yes = waits_for_a_lost_yes(&mut pair, Transition::GoldStandby);
    comes(&mut pair, yes);
    assert_eq!(refusals(&pair, Side::Active), Vec::<String>::new());
    assert!(pair.half(Side::Active).engine.state().run.is_some());
    let volumes = pair.half(Side::Active).site.database.volumes;
    pair.run(10_000);
    assert_eq!(
        pair.half(Side::Active).site.database.volumes,
        volumes,
        "nothing is deleted while the peer is lost"
    );
    pair.cut = Cut::default();
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("gold-standby")));
}

#[test]
fn a_yes_of_a_lost_peer_that_shows_no_fence_starts_no_failback_that_relies_on_one() {
    let mut pair = pair_with(|policy| policy.fence_old_primary = policy.side == Side::Active);
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    to(&mut pair, Transition::GoldStandby, "gold-standby");
    let yes = waits_for_a_lost_yes(&mut pair, Transition::ActivePassive);
    comes(&mut pair, yes);
    assert_eq!(refusals(&pair, Side::Active), ["peer-lost"]);
    pair.run(MINUTE);
    assert_eq!(pair.split_brain_ms, 0);
}
