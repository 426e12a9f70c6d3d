//! The engine in pairs on virtual time: every transition, the order of what is asked of each site, and the hazards of
//! the predecessor shown absent.

use switchover_agent::model::{
    Event, Note, OperatorRequest, PeerMessage, ResolverAnswer, Side, Traffic, Transition,
};
use switchover_agent::rules::policy::Automation;
use switchover_agent::verify::pair::Pair;
use switchover_agent::verify::site::Role;

const MINUTE: u64 = 60_000;

fn quiet_pair() -> Pair {
    let mut pair = Pair::new(|_| {});
    pair.run(5_000);
    pair
}

fn cycle_to(pair: &mut Pair, transition: Transition, phase: &str) {
    pair.ask(Side::Active, transition);
    let reached = pair.run_until(5 * MINUTE, |pair| pair.is_settled_in(phase));
    assert!(
        reached,
        "{transition}: {:#?}\n{:#?}",
        last_notes(pair, Side::Active),
        last_notes(pair, Side::Passive)
    );
}

fn last_notes(pair: &Pair, side: Side) -> Vec<String> {
    let notes = &pair.half(side).notes;
    notes.iter().rev().take(12).rev().map(|(at, note)| format!("{} {note:?}", at.0)).collect()
}

fn refusals(pair: &Pair, side: Side) -> Vec<String> {
    let named = pair.half(side).notes.iter().filter_map(|(_, note)| match note {
        Note::Refused(refusal) => Some(refusal.refusal.clone()),
        _ => None,
    });
    named.collect()
}

#[test]
fn the_three_transitions_bring_the_pair_around() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    assert!(pair.half(Side::Passive).site.is_writable());
    assert_eq!(pair.half(Side::Passive).site.traffic, Traffic::Application);
    assert_eq!(pair.half(Side::Active).site.traffic, Traffic::MaintenancePage);
    cycle_to(&mut pair, Transition::GoldStandby, "gold-standby");
    assert_eq!(pair.half(Side::Active).site.database.role, Role::Standby);
    cycle_to(&mut pair, Transition::ActivePassive, "active-passive");
    assert!(pair.half(Side::Active).site.is_writable());
    assert_eq!(pair.half(Side::Passive).site.database.role, Role::Standby);
    for side in Side::ALL {
        assert_eq!(refusals(&pair, side), Vec::<String>::new(), "{side}");
    }
}

#[test]
fn the_order_of_a_failover_is_the_specifications() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let active = &pair.half(Side::Active).site.asked;
    assert_eq!(
        active[1..],
        [
            "set in_recovery=true in_maintenance=false",
            "scale the health deployment to 0",
            "set the health disruption budget to 0",
            "restart the maintenance page",
            "route the service to the maintenance page",
            "set the maintenance portal on",
            "restart the gateway",
            "record phase golddr-primary, transition \"\"",
        ]
    );
    assert_eq!(
        pair.half(Side::Passive).site.asked,
        [
            "record transition \"golddr-primary\"",
            "set in_recovery=true in_maintenance=false",
            "restart the maintenance page",
            "route the service to the maintenance page",
            "set the maintenance portal on",
            "scale the health deployment to 2",
            "set the health disruption budget to 1",
            "promote the database",
            "point the database pods at nobody",
            "start the deployment pipeline",
            "record phase golddr-primary, transition \"\"",
            "route the service to the application",
            "restart the maintenance page",
            "set the maintenance portal off",
        ]
    );
}

#[test]
fn the_order_of_a_rebuild_and_a_failback_is_the_specifications() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let (before_active, before_passive) =
        (pair.half(Side::Active).site.asked.len(), pair.half(Side::Passive).site.asked.len());
    cycle_to(&mut pair, Transition::GoldStandby, "gold-standby");
    assert_eq!(
        pair.half(Side::Active).site.asked[before_active + 1..],
        [
            "record phase golddr-primary, transition \"\"",
            "scale the health deployment to 0",
            "set the health disruption budget to 0",
            "restart the maintenance page",
            "route the service to the maintenance page",
            "set the maintenance portal on",
            "point the database pods at the peer",
            "scale the database to 0 and wait",
            "delete database volume 0",
            "delete the database cluster state",
            "scale the database to 1 and wait",
            "record phase gold-standby-partial, transition \"\"",
            "delete database volume 1",
            "delete database volume 2",
            "scale the database to 3 and wait",
            "start the deployment pipeline",
            "record phase gold-standby, transition \"\"",
            "restart the maintenance page",
            "route the service to the maintenance page",
            "set the maintenance portal on",
        ]
    );
    assert_eq!(
        pair.half(Side::Passive).site.asked[before_passive..],
        ["record transition \"gold-standby\"", "record phase gold-standby, transition \"\""]
    );
    let before = pair.half(Side::Active).site.asked.len();
    cycle_to(&mut pair, Transition::ActivePassive, "active-passive");
    assert_eq!(
        pair.half(Side::Active).site.asked[before + 1..],
        [
            "record phase gold-standby, transition \"\"",
            "set in_recovery=false in_maintenance=false",
            "restart the maintenance page",
            "route the service to the maintenance page",
            "set the maintenance portal on",
            "scale the health deployment to 2",
            "set the health disruption budget to 1",
            "promote the database",
            "point the database pods at nobody",
            "start the deployment pipeline",
            "record phase active-passive, transition \"\"",
            "route the service to the application",
            "restart the maintenance page",
            "set the maintenance portal off",
        ]
    );
}

#[test]
fn lasting_dns_answers_move_the_pair_and_short_ones_do_not() {
    let mut pair = quiet_pair();
    let passive = ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, 2])].into());
    pair.dns_override = Some(passive.clone());
    pair.run(1_500);
    pair.dns_override = None;
    pair.run(10 * MINUTE);
    assert!(pair.is_settled_in("active-passive"), "two odd samples are not three");
    pair.dns_override = Some(passive);
    assert!(pair.run_until(MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

#[test]
fn an_hour_of_dns_errors_moves_nothing() {
    let mut pair = quiet_pair();
    for answer in [ResolverAnswer::Unknown("time-out".to_owned()), ResolverAnswer::NoAddress] {
        pair.dns_override = Some(answer);
        pair.run(60 * MINUTE);
        assert!(pair.is_settled_in("active-passive"));
        assert!(pair.half(Side::Active).site.asked.is_empty());
    }
}

#[test]
fn automation_that_only_advises_says_so_and_does_nothing() {
    let mut pair = Pair::new(|policy| policy.automation = Automation::Advise);
    pair.dns_override = Some(ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, 2])].into()));
    pair.run(10 * MINUTE);
    assert!(pair.is_settled_in("active-passive"));
    assert_eq!(refusals(&pair, Side::Active), ["automation-off"]);
}

#[test]
fn fencing_leaves_no_moment_with_two_writers() {
    let mut pair = Pair::new(|policy| {
        policy.fence_old_primary = true;
        policy.promote_first = true;
    });
    pair.run(5_000);
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    cycle_to(&mut pair, Transition::GoldStandby, "gold-standby");
    cycle_to(&mut pair, Transition::ActivePassive, "active-passive");
    assert_eq!(pair.split_brain_ms, 0);
}

#[test]
fn a_late_or_repeated_yes_starts_nothing() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.cut.from_passive = true;
    pair.ask(Side::Active, Transition::GoldStandby);
    pair.run(500);
    let item = pair
        .half(Side::Active)
        .engine
        .state()
        .outbox
        .iter()
        .find_map(|entry| match &entry.message {
            PeerMessage::Confirm { item, .. } => Some(item.clone()),
            _ => None,
        })
        .expect("the request for consent waits");
    pair.run(MINUTE);
    assert!(refusals(&pair, Side::Active).contains(&"consent-timed-out".to_owned()));
    pair.cut.from_passive = false;
    pair.run(10_000);
    let asked = pair.half(Side::Active).site.asked.len();
    for _ in 0..2 {
        let message = PeerMessage::Yes { item: item.clone(), evidence: None };
        let event = Event::PeerMessage { id: None, message, authenticated: true };
        pair.inject(Side::Active, event);
    }
    pair.run(MINUTE);
    assert_eq!(pair.half(Side::Active).site.asked.len(), asked, "{:?}", last_notes(&pair, Side::Active));
    assert!(refusals(&pair, Side::Active).contains(&"consent-expired".to_owned()));
}

#[test]
fn the_peer_hears_of_a_failover_even_when_it_was_away() {
    let mut pair = quiet_pair();
    pair.cut.from_active = true;
    pair.cut.from_passive = true;
    pair.run(5_000);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    pair.run(10 * MINUTE);
    assert_eq!(pair.half(Side::Active).site.recorded().0, "golddr-primary");
    pair.cut.from_active = false;
    pair.cut.from_passive = false;
    assert!(pair.run_until(MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

#[test]
fn a_failing_service_patch_does_not_block_the_failover() {
    let mut pair = quiet_pair();
    pair.half_mut(Side::Active).site.faults.insert("route the service".to_owned(), 1_000);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    assert!(pair.run_until(2 * MINUTE, |pair| {
        Side::ALL.into_iter().all(|side| pair.half(side).site.recorded().0 == "golddr-primary")
    }));
    assert!(
        !pair.half(Side::Active).engine.state().settled,
        "it is not said to be done while a step is open"
    );
    pair.half_mut(Side::Active).site.faults.clear();
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

#[test]
fn data_is_not_deleted_while_the_peer_is_not_a_writable_primary() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.half_mut(Side::Passive).site.database.role = Role::Fenced;
    pair.run(5_000);
    pair.ask(Side::Active, Transition::GoldStandby);
    pair.run(10 * MINUTE);
    assert!(!pair.half(Side::Active).site.asked.iter().any(|asked| asked.starts_with("delete")));
    assert!(refusals(&pair, Side::Active).contains(&"peer-refused".to_owned()));
    assert_eq!(pair.half(Side::Active).site.health, 0);
}

#[test]
fn a_peer_whose_database_is_behind_keeps_the_gate_closed() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.half_mut(Side::Active).site.database.lsn += 1_000_000;
    pair.run(5_000);
    pair.ask(Side::Active, Transition::GoldStandby);
    pair.run(10 * MINUTE);
    assert!(refusals(&pair, Side::Active).contains(&"peer-behind".to_owned()));
    assert!(!pair.half(Side::Active).site.asked.iter().any(|asked| asked.starts_with("delete")));
}

#[test]
fn a_failed_pipeline_is_tried_again_and_then_declared_failed() {
    let mut pair = quiet_pair();
    pair.half_mut(Side::Passive).site.failing_runs = 1;
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    assert_eq!(pair.half(Side::Passive).site.runs, 2);
    let mut pair = quiet_pair();
    pair.half_mut(Side::Passive).site.failing_runs = 100;
    pair.ask(Side::Active, Transition::GolddrPrimary);
    pair.run(20 * MINUTE);
    assert_eq!(pair.half(Side::Passive).site.runs, 3);
    assert!(!pair.half(Side::Passive).engine.state().settled);
    assert_eq!(pair.half(Side::Passive).site.traffic, Traffic::MaintenancePage);
}

#[test]
fn a_further_try_that_cannot_be_started_counts_as_failed_and_has_an_end() {
    let mut pair = quiet_pair();
    pair.half_mut(Side::Passive).site.failing_runs = 100;
    pair.ask(Side::Active, Transition::GolddrPrimary);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Passive).site.runs == 1));
    let faults = &mut pair.half_mut(Side::Passive).site.faults;
    faults.insert("start the deployment pipeline".to_owned(), u32::MAX);
    pair.run(30 * MINUTE);
    let declared = |note: &Note| matches!(note, Note::Pipeline { declared_failed: true, .. });
    assert!(pair.half(Side::Passive).notes.iter().any(|(_, note)| declared(note)), "people are told");
}

#[test]
fn a_record_with_unknown_words_is_refused_and_left_alone() {
    let mut pair = quiet_pair();
    pair.edit_record(Side::Active, "transition", "golddr-primry");
    pair.run(MINUTE);
    assert_eq!(refusals(&pair, Side::Active), ["unknown-transition"]);
    assert_eq!(pair.half(Side::Active).site.recorded().1, "golddr-primry");
    pair.edit_record(Side::Active, "last_stable_state", "silver");
    pair.run(MINUTE);
    assert_eq!(refusals(&pair, Side::Active), ["unknown-transition", "record-phase-unknown"]);
    assert!(pair.half(Side::Active).site.asked.is_empty());
}

#[test]
fn a_record_edited_in_mid_transition_is_refused_by_name() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.half_mut(Side::Active).site.faults.insert("scale the health".to_owned(), 4);
    pair.ask(Side::Active, Transition::GoldStandby);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).engine.state().run.is_some()));
    pair.edit_record(Side::Active, "last_stable_state", "active-passive");
    pair.run(10 * MINUTE);
    assert!(refusals(&pair, Side::Active).contains(&"record-edited".to_owned()));
    assert!(!pair.half(Side::Active).site.asked.iter().any(|asked| asked.starts_with("delete")));
}

#[test]
fn an_empty_record_becomes_independent_and_the_pair_can_be_made_from_there() {
    let mut pair = Pair::new(|_| {});
    for side in Side::ALL {
        pair.edit_record(side, "last_stable_state", "");
    }
    assert!(pair.run_until(MINUTE, |pair| pair.is_settled_in("independent")));
    cycle_to(&mut pair, Transition::ActivePassive, "active-passive");
}

#[test]
fn a_forced_failback_leaves_one_primary_and_keeps_the_other_copy() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    pair.ask(Side::Active, Transition::ActivePassiveForce);
    pair.run(10 * MINUTE);
    assert!(pair.half(Side::Active).site.is_writable());
    assert_eq!(pair.half(Side::Passive).site.database.role, Role::Fenced);
    assert_eq!(pair.half(Side::Passive).site.database.volumes, 3);
    let halted = pair.half(Side::Passive).engine.state().run.as_ref().and_then(|run| run.halted.clone());
    assert!(halted.is_some_and(|halt| halt.reason.contains("accept_data_loss")));
}

#[test]
fn a_forced_failback_with_accepted_loss_ends_in_the_normal_day() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let request = OperatorRequest::Transition {
        transition: Transition::ActivePassiveForce,
        accept_data_loss: Some("the writes at golddr were a test".to_owned()),
    };
    let event = Event::Operator { ticket: 7, who: "operator".to_owned(), request };
    pair.inject(Side::Active, event);
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("active-passive")));
    assert_eq!(pair.half(Side::Passive).site.database.role, Role::Standby);
}

#[test]
fn after_a_failback_the_old_answer_of_dns_is_no_news() {
    let mut pair = quiet_pair();
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    cycle_to(&mut pair, Transition::GoldStandby, "gold-standby");
    pair.dns_override = Some(ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, 2])].into()));
    cycle_to(&mut pair, Transition::ActivePassive, "active-passive");
    pair.run(30 * MINUTE);
    assert!(pair.is_settled_in("active-passive"));
    assert!(pair.half(Side::Active).engine.state().automation.disarmed);
}

#[test]
fn a_damaged_journal_keeps_the_agent_still_until_a_person_resumes_it() {
    let mut pair = quiet_pair();
    let half = pair.half_mut(Side::Active);
    let mut state = half.engine.state().clone();
    state.safe_halt = Some("line 7 was altered".to_owned());
    half.engine = switchover_agent::rules::Engine::restore(half.engine.policy().clone(), state);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    pair.run(MINUTE);
    assert_eq!(refusals(&pair, Side::Active), ["journal-damaged"]);
    assert!(pair.half(Side::Active).site.asked.is_empty());
    let request = OperatorRequest::Resume;
    pair.inject(Side::Active, Event::Operator { ticket: 2, who: "operator".to_owned(), request });
    pair.run(1_000);
    cycle_to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
}

#[test]
fn a_persons_move_never_promotes_beside_a_primary_that_is_seen() {
    // Found by the simulation (seed 12): the order reaches the active site, whose API server is down for minutes.
    let mut pair = Pair::new(|policy| {
        policy.fence_old_primary = true;
        policy.promote_first = true;
    });
    pair.run(5_000);
    pair.half_mut(Side::Active).site.api_up = false;
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    pair.run(10 * 60_000);
    assert_eq!(pair.split_brain_ms, 0);
    assert!(!pair.half(Side::Passive).site.is_writable());
    let halted = pair.half(Side::Passive).notes.iter().any(|(_, note)| matches!(note, Note::Halted { .. }));
    assert!(halted, "a person is told what stands in the way");
}

#[test]
fn an_order_to_give_up_the_service_fences_even_where_the_record_cannot_be_written() {
    // Found by the simulation (seeds 67, 92, 305): the API server of the active site was down and its Patroni was not.
    let mut pair = Pair::new(|policy| {
        policy.fence_old_primary = true;
        policy.promote_first = true;
    });
    pair.run(5_000);
    pair.half_mut(Side::Active).site.faults.insert("record".to_owned(), 1_000);
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    assert!(pair.run_until(60_000, |pair| pair.half(Side::Passive).site.is_writable()));
    assert!(!pair.half(Side::Active).site.is_writable());
    assert_eq!(pair.split_brain_ms, 0);
}
