//! The engine's corners: operators' single actions, refusals, messages that come at the wrong time, gates, restarts,
//! plans in every variant.

use std::collections::BTreeSet;

use switchover_agent::model::{
    Action, ConsentTag, Effect, Event, Generation, Mono, Note, Now, OperatorRequest, OutboxId, PatroniSample,
    PeerMessage, PeerStatus, Phase, Record, RecordSeen, RoutePin, Side, Traffic, Transition, Wall,
};
use switchover_agent::plan::{self, Facts, Failure, Step, Work, transitions};
use switchover_agent::rules::Engine;
use switchover_agent::rules::policy::{DestructionGate, Policy};
use switchover_agent::rules::refusal::Refusal;
use switchover_agent::rules::state::Origin;
use switchover_agent::verify::pair::{Pair, policy};
use switchover_agent::verify::site::Role;

const MINUTE: u64 = 60_000;

fn pair_with(adjust: impl Fn(&mut Policy)) -> Pair {
    let mut pair = Pair::new(adjust);
    pair.run(5_000);
    pair
}

fn quiet_pair() -> Pair {
    pair_with(|_| {})
}

fn operate(pair: &mut Pair, side: Side, request: OperatorRequest) -> (bool, String) {
    pair.inject(side, Event::Operator { ticket: 77, who: "operator".to_owned(), request });
    pair.run(100);
    let answers = pair.half(side).notes.iter().rev().find_map(|(_, note)| match note {
        Note::Answer { ticket: 77, accepted, message } => Some((*accepted, message.clone())),
        _ => None,
    });
    answers.expect("an answer")
}

fn transition(transition: Transition) -> OperatorRequest {
    OperatorRequest::Transition { transition, accept_data_loss: None }
}

fn send(pair: &mut Pair, side: Side, message: PeerMessage, authenticated: bool) {
    pair.inject(side, Event::PeerMessage { id: None, message, authenticated });
    pair.run(100);
}

fn order(state: &str, generation: Option<u64>) -> PeerMessage {
    PeerMessage::TransitionTo {
        state: state.to_owned(),
        generation: generation.map(Generation),
        accept_data_loss: None,
    }
}

fn refusals(pair: &Pair, side: Side) -> Vec<String> {
    let named = pair.half(side).notes.iter().filter_map(|(_, note)| match note {
        Note::Refused(refusal) => Some(refusal.refusal.clone()),
        _ => None,
    });
    named.collect()
}

fn to(pair: &mut Pair, wanted: Transition, phase: &str) {
    pair.ask(Side::Active, wanted);
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in(phase)), "{wanted}");
}

#[test]
fn every_single_action_of_an_operator_becomes_its_effect() {
    let cases = [
        (OperatorRequest::SetPrimary, vec!["promote the database"]),
        (OperatorRequest::SetReadonly, vec!["make the database read-only"]),
        (OperatorRequest::RestartGateway, vec!["restart the gateway"]),
        (OperatorRequest::StartApplication, vec!["start the application"]),
        (OperatorRequest::ServiceFlow(true), vec!["route the service to the application"]),
        (OperatorRequest::ServiceFlow(false), vec!["route the service to the maintenance page"]),
        (
            OperatorRequest::Maintenance(true),
            vec![
                "restart the maintenance page",
                "route the service to the maintenance page",
                "set the maintenance portal on",
            ],
        ),
        (
            OperatorRequest::Maintenance(false),
            vec![
                "route the service to the application",
                "restart the maintenance page",
                "set the maintenance portal off",
            ],
        ),
        (
            OperatorRequest::RollbackActiveDown,
            vec![
                "route the service to the application",
                "restart the maintenance page",
                "set the maintenance portal off",
                "scale the health deployment to 2",
                "set the health disruption budget to 1",
                "set in_recovery=false in_maintenance=false",
            ],
        ),
    ];
    for (request, wanted) in cases {
        let mut pair = quiet_pair();
        let (accepted, message) = operate(&mut pair, Side::Active, request.clone());
        assert!(accepted, "{request:?}: {message}");
        pair.run(5_000);
        assert_eq!(pair.half(Side::Active).site.asked, wanted, "{request:?}");
    }
}

#[test]
fn what_there_is_nothing_to_do_for_is_refused() {
    let mut pair = quiet_pair();
    for request in [OperatorRequest::Resume, OperatorRequest::Abort, OperatorRequest::Acknowledge] {
        let (accepted, message) = operate(&mut pair, Side::Active, request.clone());
        assert!(!accepted && message.starts_with("nothing-to-do"), "{request:?}: {message}");
    }
    let (accepted, message) = operate(&mut pair, Side::Active, transition(Transition::ActivePassive));
    assert!(!accepted && message.starts_with("already-there"), "{message}");
    let (accepted, message) = operate(&mut pair, Side::Passive, transition(Transition::GoldStandby));
    assert!(!accepted && message.starts_with("not-from-this-phase"), "{message}");
}

#[test]
fn one_transition_at_a_time() {
    let mut pair = quiet_pair();
    pair.half_mut(Side::Passive).site.faults.insert("promote".to_owned(), 1_000);
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Passive).engine.state().run.is_some()));
    for request in [
        transition(Transition::ActivePassive),
        OperatorRequest::SetPrimary,
        OperatorRequest::Abort,
        transition(Transition::GolddrPrimary),
    ] {
        let (accepted, message) = operate(&mut pair, Side::Passive, request.clone());
        assert!(!accepted && message.starts_with("transition-in-progress"), "{request:?}: {message}");
    }
}

#[test]
fn a_halted_transition_is_resumed_or_given_up_by_a_person() {
    let mut pair = quiet_pair();
    pair.half_mut(Side::Passive).site.faults.insert("promote".to_owned(), 10_000);
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    let halted = |pair: &Pair| {
        pair.half(Side::Passive).engine.state().run.as_ref().is_some_and(|run| run.halted.is_some())
    };
    assert!(pair.run_until(20 * MINUTE, halted), "a step that never succeeds halts at its limit");
    let shown = pair.half(Side::Passive).engine.snapshot(Now { mono: pair.now, wall: Wall(0) });
    let run = shown.run.expect("the run is shown");
    assert!(run.halted.is_some_and(|why| why.starts_with("promote-database")));
    assert!(!shown.settled);
    let mut given_up = pair.clone();
    assert!(operate(&mut given_up, Side::Passive, OperatorRequest::Abort).0);
    given_up.run(5_000);
    assert!(given_up.half(Side::Passive).engine.state().run.is_none());
    assert_eq!(given_up.half(Side::Passive).site.recorded().1, "");
    pair.half_mut(Side::Passive).site.faults.clear();
    assert!(
        operate(&mut pair, Side::Passive, transition(Transition::GolddrPrimary)).0,
        "asking again resumes"
    );
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

#[test]
fn a_halted_transition_gives_way_to_a_failover() {
    let mut pair = quiet_pair();
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.half_mut(Side::Active).site.faults.insert("scale the database to 1".to_owned(), 10_000);
    pair.ask(Side::Active, Transition::GoldStandby);
    let halted = |pair: &Pair| {
        pair.half(Side::Active).engine.state().run.as_ref().is_some_and(|run| run.halted.is_some())
    };
    assert!(pair.run_until(30 * MINUTE, halted));
    let (accepted, message) = operate(&mut pair, Side::Active, transition(Transition::ActivePassiveForce));
    assert!(accepted, "{message}");
    pair.run(MINUTE);
    let run = pair.half(Side::Active).engine.state().run.as_ref().map(|run| run.transition);
    assert_ne!(run, Some(Transition::GoldStandby));
}

#[test]
fn waiting_for_consent_can_be_given_up() {
    let mut pair = quiet_pair();
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.cut.from_active = true;
    pair.ask(Side::Active, Transition::GoldStandby);
    pair.run(500);
    let shown = pair.half(Side::Active).engine.snapshot(Now { mono: pair.now, wall: Wall(0) });
    assert_eq!(shown.waiting_for_consent, Some("gold-standby"));
    assert!(operate(&mut pair, Side::Active, OperatorRequest::Abort).0);
    pair.cut.from_active = false;
    pair.run(5 * MINUTE);
    assert!(pair.is_settled_in("golddr-primary"));
}

#[test]
fn an_automatic_failover_is_acknowledged_before_the_next_one() {
    let mut pair = quiet_pair();
    let passive = switchover_agent::model::ResolverAnswer::Addresses(
        [std::net::IpAddr::from([10, 0, 0, 2])].into_iter().collect(),
    );
    pair.dns_override = Some(passive.clone());
    assert!(pair.run_until(MINUTE, |pair| pair.is_settled_in("golddr-primary")));
    let waits = |pair: &Pair| {
        Side::ALL
            .into_iter()
            .filter(|side| pair.half(*side).engine.state().automation.unacknowledged)
            .collect()
    };
    let waiting: Vec<Side> = waits(&pair);
    assert!(!waiting.is_empty(), "whoever began it waits for a person");
    pair.dns_override = None;
    for side in Side::ALL {
        pair.half_mut(side).site.health = 2;
        pair.edit_record(side, "last_stable_state", "active-passive");
    }
    pair.run(10_000);
    pair.dns_override = Some(passive);
    pair.run(10 * MINUTE);
    assert!(refusals(&pair, waiting[0]).contains(&"not-acknowledged".to_owned()));
    for side in waiting {
        assert!(operate(&mut pair, side, OperatorRequest::Acknowledge).0);
    }
    assert!(pair.run_until(MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

#[test]
fn the_peers_orders_are_judged() {
    let mut pair = quiet_pair();
    send(&mut pair, Side::Passive, order("silver", None), true);
    send(&mut pair, Side::Passive, order("gold-standby", None), true);
    send(&mut pair, Side::Passive, order("gold-standby", None), false);
    assert_eq!(
        refusals(&pair, Side::Passive),
        ["unknown-transition", "not-from-this-phase", "not-from-this-phase"]
    );
    assert!(pair.half(Side::Passive).site.asked.is_empty(), "nothing was written");
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let asked = pair.half(Side::Passive).site.asked.len();
    for _ in 0..5 {
        send(&mut pair, Side::Passive, order("golddr-primary", None), true);
    }
    assert_eq!(pair.half(Side::Passive).site.asked.len(), asked, "copies of an old order change nothing");
    send(&mut pair, Side::Passive, order("active-passive", Some(0)), true);
    assert_eq!(refusals(&pair, Side::Passive).last().map(String::as_str), Some("stale-generation"));
    send(&mut pair, Side::Active, PeerMessage::Unknown { event: "hello".to_owned() }, true);
    send(&mut pair, Side::Active, PeerMessage::No { item: "{}".to_owned(), reason: "x".to_owned() }, true);
    send(&mut pair, Side::Active, PeerMessage::Yes { item: "nonsense".to_owned(), evidence: None }, true);
    assert_eq!(refusals(&pair, Side::Active).last().map(String::as_str), Some("consent-not-asked"));
}

#[test]
fn orders_need_a_record_that_can_be_read() {
    let mut pair = quiet_pair();
    pair.half_mut(Side::Passive).site.record = None;
    pair.run(2_000);
    send(&mut pair, Side::Passive, order("golddr-primary", None), true);
    let (accepted, message) = operate(&mut pair, Side::Passive, transition(Transition::GolddrPrimary));
    assert!(!accepted && message.starts_with("record-missing"), "{message}");
    assert_eq!(refusals(&pair, Side::Passive)[..2], ["record-missing", "record-missing"]);
    let mut fresh = Engine::new(policy(Side::Passive));
    let confirm = |required: &str| PeerMessage::Confirm {
        required_state: required.to_owned(),
        item: "{\"event\":\"switchover_state\"}".to_owned(),
    };
    let now = Now { mono: Mono(1), wall: Wall(1) };
    let event = Event::PeerMessage { id: None, message: confirm("golddr-primary"), authenticated: true };
    let refused = |actions: Vec<Action>| {
        actions.into_iter().any(
            |action| matches!(action, Action::Report(Note::Refused(note)) if note.refusal == "record-unknown"),
        )
    };
    assert!(refused(fresh.handle(event, now)));
    let event = Event::PeerMessage { id: None, message: order("golddr-primary", None), authenticated: true };
    assert!(
        !refused(fresh.handle(event, now)),
        "an order that comes before the record was read waits for it"
    );
    assert!(fresh.state().waiting_order.is_some());
}

#[test]
fn consent_is_refused_with_its_reason() {
    let mut pair = quiet_pair();
    let tag = |generation: u64, expires: u64, wanted: &str| ConsentTag {
        nonce: "n-1".to_owned(),
        generation: Generation(generation),
        expires: Wall(expires),
        transition: wanted.to_owned(),
        site: "gold".to_owned(),
    };
    let record = std::collections::BTreeMap::new();
    let confirm = |tag: &ConsentTag, required: &str| PeerMessage::Confirm {
        required_state: required.to_owned(),
        item: tag.item(&record),
    };
    let far = switchover_agent::verify::pair::EPOCH_MS * 2;
    for (tag, required) in [
        (tag(9, far, "gold-standby"), "golddr-primary"),
        (tag(0, far, "gold-standby"), "active-passive"),
        (tag(9, 1, "gold-standby"), "active-passive"),
    ] {
        send(&mut pair, Side::Passive, confirm(&tag, required), true);
    }
    assert_eq!(
        refusals(&pair, Side::Passive),
        ["required-phase-differs", "stale-generation", "consent-expired"]
    );
    send(&mut pair, Side::Passive, confirm(&tag(9, far, "test-ping-pong"), "active-passive"), true);
    assert!(pair.half(Side::Passive).engine.state().grant.as_ref().is_some_and(|grant| grant.given));
    pair.run(5 * MINUTE);
    assert!(pair.half(Side::Passive).engine.state().grant.is_none(), "a consent that is not used ends");
}

#[test]
fn a_rehearsed_consent_changes_nothing() {
    let mut pair = quiet_pair();
    for side in Side::ALL {
        pair.edit_record(side, "last_stable_state", "independent");
    }
    pair.run(1_000);
    pair.edit_record(Side::Active, "transition", "test-ping-pong");
    pair.run(MINUTE);
    assert_eq!(pair.half(Side::Active).site.recorded(), ("independent".to_owned(), String::new()));
    let said = pair.half(Side::Active).notes.iter().any(
        |(_, note)| matches!(note, Note::Remark { text, .. } if text.contains("consents to test-ping-pong")),
    );
    assert!(said);
}

#[test]
fn a_fenced_site_whose_peer_never_comes_takes_writes_again() {
    let mut pair = pair_with(|policy| policy.fence_old_primary = true);
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    to(&mut pair, Transition::GoldStandby, "gold-standby");
    let tag = ConsentTag {
        nonce: "other-1".to_owned(),
        generation: Generation(50),
        expires: Wall(switchover_agent::verify::pair::EPOCH_MS * 2),
        transition: "active-passive".to_owned(),
        site: "gold".to_owned(),
    };
    let item = tag.item(&std::collections::BTreeMap::new());
    let required_state = "gold-standby".to_owned();
    send(&mut pair, Side::Passive, PeerMessage::Confirm { required_state, item }, true);
    assert!(pair.run_until(MINUTE, |pair| !pair.half(Side::Passive).site.is_writable()));
    assert!(pair.run_until(10 * MINUTE, |pair| pair.half(Side::Passive).site.is_writable()));
    assert!(!pair.half(Side::Active).site.is_writable());
}

#[test]
fn a_predecessor_peer_needs_the_weaker_gate() {
    let build = |gate: DestructionGate| {
        let mut pair = pair_with(|policy| policy.gate = gate);
        to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
        // A predecessor sends no facts: what was known of it is gone.
        let half = pair.half_mut(Side::Active);
        let mut state = half.engine.state().clone();
        state.peer.status = None;
        half.engine = Engine::restore(half.engine.policy().clone(), state);
        pair
    };
    let item_of = |pair: &Pair| {
        pair.half(Side::Active).engine.state().outbox.iter().find_map(|entry| match &entry.message {
            PeerMessage::Confirm { item, .. } => Some(item.clone()),
            _ => None,
        })
    };
    for (gate, begins) in [(DestructionGate::Strict, false), (DestructionGate::Consent, true)] {
        let mut pair = build(gate);
        pair.cut = switchover_agent::verify::pair::Cut { from_active: true, from_passive: true };
        let event = Event::Operator {
            ticket: 1,
            who: "operator".to_owned(),
            request: transition(Transition::GoldStandby),
        };
        pair.inject(Side::Active, event);
        pair.run(300);
        let item = item_of(&pair).expect("the request for consent waits");
        send(&mut pair, Side::Active, PeerMessage::Yes { item, evidence: None }, true);
        let run = pair.half(Side::Active).engine.state().run.is_some();
        assert_eq!(run, begins, "{gate:?}: {:?}", refusals(&pair, Side::Active));
    }
}

#[test]
fn a_gate_without_positions_stays_closed() {
    let mut pair = quiet_pair();
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let facts = PeerStatus {
        instance: "passive-1".to_owned(),
        phase: "golddr-primary".to_owned(),
        writable: Some(true),
        timeline: Some(9),
        generation: Generation(1),
        ..PeerStatus::default()
    };
    for (change, refusal) in [
        (PeerStatus { lsn: None, ..facts.clone() }, "peer-not-verified"),
        (PeerStatus { lsn: Some(1), ..facts.clone() }, "peer-behind"),
        (PeerStatus { lsn: Some(1 << 40), timeline: Some(1), ..facts.clone() }, "diverged"),
        (PeerStatus { writable: None, ..facts }, "peer-not-verified"),
    ] {
        let mut pair = pair.clone();
        pair.cut = switchover_agent::verify::pair::Cut { from_active: true, from_passive: true };
        pair.ask(Side::Active, Transition::GoldStandby);
        pair.run(300);
        let outbox = &pair.half(Side::Active).engine.state().outbox;
        let item = outbox.iter().find_map(|entry| match &entry.message {
            PeerMessage::Confirm { item, .. } => Some(item.clone()),
            _ => None,
        });
        let yes = PeerMessage::Yes { item: item.expect("waits"), evidence: Some(change) };
        send(&mut pair, Side::Active, yes, true);
        assert_eq!(refusals(&pair, Side::Active).last().map(String::as_str), Some(refusal));
        assert!(pair.half(Side::Active).engine.state().run.is_none());
    }
}

#[test]
fn sites_without_a_pipeline_scale_the_application_themselves() {
    let mut pair = pair_with(|policy| {
        policy.pipeline = None;
        policy.portal = false;
    });
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let asked = &pair.half(Side::Passive).site.asked;
    assert!(asked.contains(&"scale the application to 1 and wait".to_owned()), "{asked:?}");
    assert_eq!(pair.half(Side::Passive).site.traffic, Traffic::Application);
    to(&mut pair, Transition::GoldStandby, "gold-standby");
    let asked = &pair.half(Side::Active).site.asked;
    assert!(asked.contains(&"scale the application to 0 and wait".to_owned()), "{asked:?}");
    assert!(!asked.iter().any(|words| words.contains("portal")));
}

#[test]
fn the_passive_site_is_detached_for_maintenance_and_comes_back() {
    let mut pair = quiet_pair();
    for side in Side::ALL {
        pair.ask(side, Transition::GolddrMaintenance);
        pair.run(MINUTE);
    }
    assert!(pair.is_settled_in("golddr-maintenance"));
    assert_eq!(pair.half(Side::Passive).site.health, 0);
    let status = PeerStatus::default();
    assert_ne!(pair.half(Side::Active).engine.peer_status(pair.now), status);
    pair.ask(Side::Active, Transition::ActivePassive);
    pair.run(10 * MINUTE);
    assert_eq!(pair.half(Side::Active).site.recorded().0, "active-passive");
}

#[test]
fn a_restarted_agent_goes_on_with_what_was_under_way() {
    let mut pair = quiet_pair();
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.ask(Side::Active, Transition::GoldStandby);
    let mut restarts = 0;
    for _ in 0..200 {
        pair.run(25);
        let half = pair.half_mut(Side::Active);
        if half.engine.state().run.is_some() && restarts < 30 {
            restarts += 1;
            let (settings, saved) = (half.engine.policy().clone(), half.engine.state().durable());
            let now = pair.now;
            pair.half_mut(Side::Active).engine = Engine::restore(settings, saved.after_restart(now));
        }
    }
    assert!(restarts > 5, "it was restarted in mid-transition {restarts} times");
    assert!(pair.run_until(10 * MINUTE, |pair| pair.is_settled_in("gold-standby")));
    assert_eq!(pair.half(Side::Active).site.database.role, Role::Standby);
}

/// Found by the kill matrix: an agent that obeyed an order before its first look at the database did not know its own
/// timeline, and the gate took that for consent to delete a copy that had diverged.
#[test]
fn an_order_before_the_first_look_at_the_database_deletes_no_diverged_copy() {
    let mut pair = quiet_pair();
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let now = pair.now;
    let half = pair.half_mut(Side::Passive);
    let (settings, saved) = (half.engine.policy().clone(), half.engine.state().durable());
    half.engine = Engine::restore(settings, saved.after_restart(now));
    let order = PeerMessage::TransitionTo {
        state: "active-passive-force".to_owned(),
        generation: Some(Generation(9)),
        accept_data_loss: None,
    };
    // The record is read and the order is there; nobody has looked at the database.
    let record = pair.half(Side::Passive).site.record_seen();
    pair.inject(Side::Passive, Event::Record(record));
    pair.inject(Side::Passive, Event::PeerMessage { id: None, message: order, authenticated: true });
    pair.ask(Side::Active, Transition::ActivePassiveForce);
    pair.run(45);
    let begun = pair.half(Side::Passive).engine.state().run.as_ref().expect("the order is obeyed");
    assert_eq!(begun.timeline_before, None, "nobody has looked yet");
    pair.run(10 * MINUTE);
    assert!(pair.half(Side::Active).site.is_writable());
    let passive = pair.half(Side::Passive);
    assert_eq!(passive.site.database.volumes, 3, "{:?}", passive.site.asked);
    assert!(!passive.site.asked.iter().any(|asked| asked.starts_with("delete")), "{:?}", passive.site.asked);
    let halted = passive.engine.state().run.as_ref().and_then(|run| run.halted.clone());
    assert!(halted.is_some_and(|halt| halt.reason.contains("timeline")), "{:?}", passive.engine.state().run);
}

#[test]
fn a_rebuild_that_only_the_record_remembers_is_finished() {
    let mut pair = quiet_pair();
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    to(&mut pair, Transition::GoldStandby, "gold-standby");
    pair.edit_record(Side::Active, "last_stable_state", "gold-standby-partial");
    pair.run(5 * MINUTE);
    assert!(pair.is_settled_in("gold-standby"), "{:?}", refusals(&pair, Side::Active));
    let resumed =
        pair.half(Side::Active).notes.iter().any(
            |(_, note)| matches!(note, Note::TransitionStarted { rule, .. } if rule == "rebuild-resumed"),
        );
    assert!(resumed);
}

#[test]
fn the_outbox_drops_nothing_without_a_word() {
    let mut pair = quiet_pair();
    pair.cut = switchover_agent::verify::pair::Cut { from_active: true, from_passive: true };
    for number in 0..40 {
        let item = format!("{{\"consent\":{{}},\"n\":{number}}}");
        let required_state = "golddr-primary".to_owned();
        let message = PeerMessage::Confirm { required_state, item };
        pair.inject(Side::Passive, Event::PeerMessage { id: None, message, authenticated: true });
    }
    pair.run(3 * MINUTE);
    assert!(pair.half(Side::Passive).engine.state().outbox.len() <= 32);
    let id = Some(("active-1".to_owned(), OutboxId(5)));
    for _ in 0..2 {
        let message = order("silver", None);
        pair.inject(Side::Passive, Event::PeerMessage { id: id.clone(), message, authenticated: true });
    }
    pair.run(100);
    let unknown = refusals(&pair, Side::Passive).iter().filter(|name| *name == "unknown-transition").count();
    assert_eq!(unknown, 1, "a second copy of a numbered message is not heard");
}

#[test]
fn every_refusal_has_its_own_name_and_a_sentence() {
    let all = [
        Refusal::NotFromPhase { transition: Transition::GoldStandby, phase: Phase::Independent },
        Refusal::AlreadyThere(Phase::GoldStandby),
        Refusal::NotAtThisSide,
        Refusal::TransitionInProgress("x".to_owned()),
        Refusal::PeerLost,
        Refusal::ConsentTimedOut,
        Refusal::PeerRefused("x".to_owned()),
        Refusal::ConsentNotAsked,
        Refusal::ConsentExpired,
        Refusal::StaleGeneration,
        Refusal::RecordUnknown,
        Refusal::RecordMissing,
        Refusal::RecordPhaseUnknown("x".to_owned()),
        Refusal::UnknownTransition("x".to_owned()),
        Refusal::RecordEdited("x".to_owned()),
        Refusal::DatabaseUnknown,
        Refusal::DatabaseNotPrimary,
        Refusal::DatabaseIsPrimary,
        Refusal::PeerNotVerified("x".to_owned()),
        Refusal::PeerBehind { ours: 1, theirs: 2 },
        Refusal::Diverged { ours: 1, theirs: 2 },
        Refusal::AutomationOff,
        Refusal::NotAcknowledged,
        Refusal::NotAuthenticated,
        Refusal::RequiredPhaseDiffers("x".to_owned()),
        Refusal::JournalDamaged("x".to_owned()),
        Refusal::NothingToDo,
    ];
    let names: BTreeSet<&str> = all.iter().map(Refusal::name).collect();
    assert_eq!(names.len(), all.len());
    assert!(all.iter().all(|refusal| refusal.why().len() > 10));
}

fn facts(side: Side) -> Facts {
    let engine = Engine::new(policy(side));
    engine.facts(Origin::Operator, false, Now::default())
}

#[test]
fn every_plan_is_sound_in_every_variant() {
    for side in Side::ALL {
        for wanted in Transition::ALL {
            for bits in 0..128_u32 {
                let bit = |n: u32| bits >> n & 1 == 1;
                let variant = Facts {
                    database_is_primary: bit(0),
                    database_is_stopped: false,
                    database_is_standby: bit(1),
                    catch_up: bit(2),
                    promote_first: bit(3),
                    fence: bit(4),
                    tekton: bit(5),
                    routes: bit(6),
                    ordered_by_peer: bit(0),
                    automatic: bit(1),
                    ..facts(side)
                };
                let steps = plan::build(wanted, &variant);
                check_plan(&steps, wanted);
            }
        }
    }
    let rest = transitions::build_rest_of_rebuild(Phase::GoldStandby, &facts(Side::Active));
    check_plan(&rest, Transition::GoldStandby);
}

fn check_plan(steps: &[Step], wanted: Transition) {
    let names: BTreeSet<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names.len(), steps.len(), "{wanted}: step names are unique");
    for step in steps {
        assert!(!step.work.to_string().is_empty() && !step.done.to_string().is_empty());
        assert!(step.limit_ms > 0);
        assert!(!step.is_destructive() || step.gated, "{wanted}: {} stands behind the gate", step.name);
        if let Failure::Beside { patience_ms } = step.on_failure {
            assert!(patience_ms < step.limit_ms);
        }
    }
    let position = |name: &str| steps.iter().position(|step| step.name == name);
    if let (Some(promote), Some(pipeline)) = (position("promote-database"), position("start-pipeline")) {
        assert!(promote < pipeline, "{wanted}: nothing is deployed on a standby");
    }
    if let Some(target) = wanted.target().filter(|_| !steps.is_empty()) {
        let last = steps.last().map(|step| &step.work);
        let records = matches!(last, Some(Work::Record { phase: Some(phase), .. }) if *phase == target);
        assert!(records, "{wanted}: the record comes last");
    }
    if let Some(pin) = position("pin-routes-to-passive") {
        assert_eq!(steps[pin].work, Work::Do(Effect::PinRoutes(RoutePin::Passive)));
    }
}

#[test]
fn snapshots_tell_every_stage_in_words() {
    let mut pair = quiet_pair();
    pair.half_mut(Side::Active).site.faults.insert("route the service".to_owned(), 1_000);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    let mut seen = BTreeSet::new();
    for _ in 0..2_000 {
        pair.run(20);
        for side in Side::ALL {
            let shown = pair.half(side).engine.snapshot(Now { mono: pair.now, wall: Wall(0) });
            let steps = shown.run.iter().flat_map(|run| &run.steps).chain(&shown.beside).chain(&shown.chores);
            seen.extend(steps.map(|step| step.status));
            assert!(serde_json::to_value(&shown).is_ok_and(|json| json["site"].is_string()));
        }
    }
    for status in ["pending", "running", "retrying", "done", "observing"] {
        assert!(seen.contains(status), "{status} in {seen:?}");
    }
    let mut engine = Engine::new(policy(Side::Active));
    let now = Now::default();
    assert!(engine.snapshot(now).phase.starts_with("unknown"));
    engine.handle(Event::Record(RecordSeen::Missing), now);
    assert!(engine.snapshot(now).phase.starts_with("missing"));
    engine.handle(Event::Record(RecordSeen::Unknown("no answer".to_owned())), now);
    engine.handle(Event::Patroni(PatroniSample::Unknown("closed".to_owned())), now);
    assert!(!engine.patroni_answers());
    let data = [("last_stable_state".to_owned(), "silver".to_owned())].into();
    engine.handle(Event::Record(RecordSeen::Present(Record::from_data(data, None))), now);
    assert_eq!(
        engine.snapshot(now).refusals.last().map(|(_, note)| note.refusal.clone()).as_deref(),
        Some("record-phase-unknown")
    );
}

#[test]
fn a_gate_that_closes_in_mid_rebuild_waits_and_opens_again() {
    let mut pair = quiet_pair();
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.ask(Side::Active, Transition::GoldStandby);
    let stopped = |pair: &Pair| pair.half(Side::Active).site.database.role == Role::Stopped;
    pair.half_mut(Side::Active).site.faults.insert("delete database volume 0".to_owned(), 3);
    assert!(pair.run_until(MINUTE, stopped));
    pair.cut = switchover_agent::verify::pair::Cut { from_active: true, from_passive: true };
    pair.run(MINUTE);
    let closed = |pair: &Pair| {
        let run = pair.half(Side::Active).engine.state().run.clone();
        run.and_then(|run| run.gate_closed).map(|closed| closed.refusal)
    };
    let deleted = |pair: &Pair| pair.half(Side::Active).site.database.volumes == 0;
    assert!(deleted(&pair) || closed(&pair).as_deref() == Some("peer-not-verified"), "{:?}", closed(&pair));
    let mut never = pair.clone();
    never.run(10 * MINUTE);
    if !deleted(&never) {
        let run = never.half(Side::Active).engine.state().run.clone().expect("it stands still");
        assert!(run.halted.is_some_and(|halt| halt.reason.contains("not verified")));
    }
    pair.cut = switchover_agent::verify::pair::Cut::default();
    assert!(pair.run_until(10 * MINUTE, |pair| pair.is_settled_in("gold-standby")));
}

#[test]
fn a_call_without_an_outcome_is_tried_again_after_its_limit() {
    let mut engine = Engine::new(policy(Side::Active));
    let at = |ms: u64| Now { mono: Mono(ms), wall: Wall(ms) };
    let data = [("last_stable_state", "active-passive"), ("transition", "golddr-primary")];
    let data = data.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let record = RecordSeen::Present(Record::from_data(data, None));
    let first = engine.handle(Event::Record(record), at(0));
    let performs =
        |actions: &[Action]| actions.iter().filter(|action| matches!(action, Action::Perform(_))).count();
    assert!(performs(&first) > 0);
    let mut tried = 0;
    for second in 1..60 {
        let actions = engine.handle(Event::Tick, at(second * 1_000));
        tried += performs(&actions);
    }
    let said = engine.state().beside.iter().any(|step| step.last_error.is_some());
    assert!(tried > 0 && said, "{tried} tries, {:?}", engine.state().beside);
}

#[test]
fn what_is_left_beside_a_plan_is_given_up_with_a_word() {
    let mut pair = quiet_pair();
    pair.half_mut(Side::Active).site.faults.insert("set the maintenance portal".to_owned(), 100_000);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).site.recorded().0 == "golddr-primary"));
    assert!(!pair.half(Side::Active).engine.state().beside.is_empty());
    pair.run(20 * MINUTE);
    assert!(pair.half(Side::Active).engine.state().beside.is_empty());
    let said = pair.half(Side::Active).notes.iter().any(
        |(_, note)| matches!(note, Note::Remark { level, text } if level == "error" && text.contains("portal")),
    );
    assert!(said);
}

#[test]
fn orders_that_come_too_early_wait_for_the_record_and_for_the_run_before_them() {
    let mut pair = Pair::new(|_| {});
    let message = order("golddr-primary", Some(3));
    pair.inject(Side::Passive, Event::PeerMessage { id: None, message, authenticated: true });
    let followed = |pair: &Pair| pair.half(Side::Passive).site.recorded().0 == "golddr-primary";
    assert!(pair.run_until(2 * MINUTE, followed));
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.half_mut(Side::Active).site.faults.insert("scale the health".to_owned(), 4);
    pair.ask(Side::Active, Transition::GoldStandby);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).engine.state().run.is_some()));
    send(&mut pair, Side::Active, order("active-passive-force", Some(90)), true);
    send(&mut pair, Side::Active, order("test-ping-pong", Some(91)), true);
    pair.run(10 * MINUTE);
    assert!(pair.half(Side::Active).engine.state().waiting_order.is_none());
}

#[test]
fn requests_that_cannot_be_written_are_not_forgotten_and_not_stuck() {
    for origin_is_peer in [true, false] {
        let mut pair = quiet_pair();
        pair.half_mut(Side::Passive).site.faults.insert("record transition".to_owned(), 10_000);
        if origin_is_peer {
            send(&mut pair, Side::Passive, order("golddr-primary", Some(5)), true);
        } else {
            assert!(operate(&mut pair, Side::Passive, transition(Transition::GolddrPrimary)).0);
            let (accepted, _) = operate(&mut pair, Side::Passive, transition(Transition::GolddrMaintenance));
            assert!(!accepted, "one request at a time");
        }
        pair.run(5 * MINUTE);
        pair.half_mut(Side::Passive).site.faults.clear();
        pair.run(5 * MINUTE);
        let reached = pair.half(Side::Passive).site.recorded().0 == "golddr-primary";
        let said = refusals(&pair, Side::Passive);
        assert!(reached || !said.is_empty(), "peer {origin_is_peer}: {said:?}");
    }
}

#[test]
fn only_a_fence_that_holds_gives_a_consent() {
    let mut pair = pair_with(|policy| policy.fence_old_primary = true);
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    to(&mut pair, Transition::GoldStandby, "gold-standby");
    pair.half_mut(Side::Passive).site.faults.insert("make the database read-only".to_owned(), 10_000);
    pair.ask(Side::Active, Transition::ActivePassive);
    pair.run(3 * MINUTE);
    let refused = refusals(&pair, Side::Active);
    assert!(refused.iter().any(|name| name == "consent-timed-out" || name == "peer-refused"), "{refused:?}");
    assert!(pair.half(Side::Passive).site.is_writable(), "nothing was taken away");
    assert!(!pair.half(Side::Active).site.is_writable());
}

#[test]
fn a_fenced_site_that_hears_the_peer_and_is_not_heard_stays_fenced() {
    // Found by the simulation (seed 13): fenced and unfenced in turns within one event, a chore each time.
    let mut settings = policy(Side::Active);
    settings.automation = switchover_agent::rules::policy::Automation::SelfFencing;
    settings.safety.lease_ms = 15_000;
    let mut engine = Engine::new(settings);
    let at = |ms: u64| Now { mono: Mono(ms), wall: Wall(1_767_225_600_000 + ms) };
    let keys = [("last_stable_state", "active-passive"), ("transition", "")];
    let data = keys.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
    engine.handle(Event::Record(RecordSeen::Present(Record::from_data(data, Some("1".to_owned())))), at(0));
    let status = PeerStatus {
        phase: "active-passive".to_owned(),
        writable: Some(false),
        standby: Some(true),
        ..PeerStatus::default()
    };
    for second in 1..20 {
        let actions = engine.handle(Event::PeerStatus(status.clone()), at(second * 1_000));
        let loops = actions.iter().any(|action| {
            matches!(action, Action::Report(Note::Remark { text, .. }) if text.contains("did not come to rest"))
        });
        assert!(!loops, "second {second}");
    }
    assert!(engine.state().lease.fenced.is_some());
    assert!(engine.state().chores.steps.len() < 10, "{}", engine.state().chores.steps.len());
}
