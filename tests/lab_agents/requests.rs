//! Requests whose record cannot be written for minutes, on virtual time: none is forgotten in silence, none blocks the
//! next.

use switchover_agent::model::{Event, Note, OperatorRequest, Side, Transition};
use switchover_agent::rules::policy::Automation;
use switchover_agent::verify::pair::Pair;

const MINUTE: u64 = 60_000;
const WRITE: &str = "record transition \"golddr-primary\"";

fn pair_that_cannot_record(side: Side) -> Pair {
    let mut pair = Pair::new(|policy| policy.automation = Automation::Off);
    pair.run(5_000);
    pair.half_mut(side).site.faults.insert(WRITE.to_owned(), u32::MAX);
    pair
}

#[test]
fn defect_17_an_order_that_cannot_be_recorded_for_minutes_is_still_obeyed() {
    let mut pair = pair_that_cannot_record(Side::Passive);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    pair.run(6 * MINUTE);
    assert_eq!(pair.half(Side::Passive).site.recorded().0, "active-passive");
    pair.half_mut(Side::Passive).site.faults.clear();
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

#[test]
fn defect_17_an_order_in_a_bad_moment_waits() {
    let mut pair = pair_that_cannot_record(Side::Active);
    pair.half_mut(Side::Active).site.faults.clear();
    pair.half_mut(Side::Passive).site.faults.insert("promote the database".to_owned(), u32::MAX);
    // The passive site is busy with its own maintenance when the failover is ordered.
    pair.ask(Side::Passive, Transition::GolddrMaintenance);
    pair.run(10_000);
    assert!(pair.half(Side::Passive).engine.state().run.is_some());
    pair.ask(Side::Active, Transition::GolddrPrimary);
    pair.run(20_000);
    assert_eq!(pair.half(Side::Active).site.recorded().0, "golddr-primary");
    pair.half_mut(Side::Passive).site.faults.clear();
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

#[test]
fn defect_12_a_persons_request_that_cannot_be_recorded_is_refused_and_blocks_no_later_one() {
    let mut pair = pair_that_cannot_record(Side::Passive);
    let ask = |pair: &mut Pair, ticket: u64| {
        let request =
            OperatorRequest::Transition { transition: Transition::GolddrPrimary, accept_data_loss: None };
        pair.inject(Side::Passive, Event::Operator { ticket, who: "a person".to_owned(), request });
        pair.run(1_000);
        let notes = &pair.half(Side::Passive).notes;
        let answer = notes.iter().rev().find_map(|(_, note)| match note {
            Note::Answer { ticket: told, accepted, .. } if *told == ticket => Some(*accepted),
            _ => None,
        });
        answer.unwrap()
    };
    assert!(ask(&mut pair, 1));
    assert!(!ask(&mut pair, 2), "a second one while the first is still to be recorded");
    pair.run(5 * MINUTE);
    let refused = pair.half(Side::Passive).notes.iter().any(|(_, note)| {
        matches!(note, Note::Refused(refusal) if refusal.refusal == "record-unknown" && refusal.origin == "operator")
    });
    assert!(refused, "the person is told");
    pair.half_mut(Side::Passive).site.faults.clear();
    assert!(ask(&mut pair, 3));
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}
