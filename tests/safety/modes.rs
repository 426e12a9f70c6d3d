//! Each mode under the partitions that it is made for, on virtual time, with the world counting the writers.

use switchover_agent::model::{Event, Note, OperatorRequest, ResolverAnswer, Side, Transition};
use switchover_agent::rules::policy::{Automation, Policy};
use switchover_agent::verify::pair::Pair;
use switchover_agent::verify::site::Role;
use switchover_agent::verify::witness::SimulatedWitness;

const MINUTE: u64 = 60_000;

fn self_fencing(policy: &mut Policy) {
    policy.automation = Automation::SelfFencing;
    policy.fence_old_primary = true;
    policy.promote_first = true;
}

fn cut_link(pair: &mut Pair) {
    pair.cut.from_active = true;
    pair.cut.from_passive = true;
}

fn heal_link(pair: &mut Pair) {
    pair.cut.from_active = false;
    pair.cut.from_passive = false;
}

/// The load balancer cannot be asked from anywhere.
fn no_dns(pair: &mut Pair) {
    pair.dns_override = Some(ResolverAnswer::Unknown("time-out".to_owned()));
}

fn moved_dns(pair: &mut Pair) {
    pair.dns_override = Some(ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, 2])].into()));
}

/// Sites that know no load balancer, so that the lease alone decides.
fn self_fencing_pair(with_witness: bool) -> Pair {
    let mut pair = Pair::new(|policy| {
        self_fencing(policy);
        policy.safety.witness = with_witness;
    });
    no_dns(&mut pair);
    pair.witness = with_witness.then(SimulatedWitness::default);
    pair.run(10_000);
    pair
}

fn refusals(pair: &Pair, side: Side) -> Vec<String> {
    let named = pair.half(side).notes.iter().filter_map(|(_, note)| match note {
        Note::Refused(refusal) => Some(refusal.refusal.clone()),
        _ => None,
    });
    named.collect()
}

fn phase(pair: &Pair, side: Side) -> String {
    pair.half(side).site.recorded().0
}

#[test]
fn without_a_witness_a_cut_link_moves_the_service_after_lease_and_grace_with_never_two_writers() {
    let mut pair = self_fencing_pair(false);
    cut_link(&mut pair);
    pair.run(20_000);
    assert!(!pair.half(Side::Active).site.is_writable(), "the active site let go after its lease");
    assert!(!pair.half(Side::Passive).site.is_writable(), "the passive one waits for the grace");
    assert!(pair.run_until(5 * MINUTE, |pair| phase(pair, Side::Passive) == "golddr-primary"));
    assert!(pair.half(Side::Passive).site.is_writable());
    heal_link(&mut pair);
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary")));
    assert_eq!(pair.split_brain_ms, 0);
    assert!(refusals(&pair, Side::Active).contains(&"no-lease".to_owned()));
}

#[test]
fn a_link_that_heals_within_the_grace_gives_the_service_back_to_the_active_site() {
    let mut pair = self_fencing_pair(false);
    cut_link(&mut pair);
    pair.run(20_000);
    heal_link(&mut pair);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).site.is_writable()));
    pair.run(5 * MINUTE);
    assert!(pair.is_settled_in("active-passive"));
    assert_eq!(pair.split_brain_ms, 0);
    assert!(pair.half(Side::Active).site.health > 0, "traffic came back");
}

#[test]
fn with_a_witness_a_cut_link_alone_moves_nothing() {
    let mut pair = self_fencing_pair(true);
    cut_link(&mut pair);
    pair.run(10 * MINUTE);
    assert!(pair.half(Side::Active).site.is_writable(), "the witness renews its lease");
    assert_eq!(phase(&pair, Side::Passive), "active-passive");
    assert!(refusals(&pair, Side::Passive).contains(&"witness-veto".to_owned()));
    assert_eq!((pair.split_brain_ms, pair.no_writer_ms), (0, 0));
}

#[test]
fn an_active_site_that_is_cut_off_from_both_is_replaced_with_never_two_writers() {
    let mut pair = self_fencing_pair(true);
    cut_link(&mut pair);
    pair.witness.as_mut().unwrap().cut_active = true;
    assert!(pair.run_until(5 * MINUTE, |pair| phase(pair, Side::Passive) == "golddr-primary"));
    assert!(pair.half(Side::Passive).site.is_writable());
    assert!(!pair.half(Side::Active).site.is_writable());
    // The old active site sees the witness again before it sees the peer: somebody else holds the lease.
    pair.witness.as_mut().unwrap().cut_active = false;
    pair.run(5 * MINUTE);
    assert!(!pair.half(Side::Active).site.is_writable());
    assert_eq!(pair.split_brain_ms, 0);
}

#[test]
fn a_passive_site_that_is_cut_off_from_both_does_nothing() {
    let mut pair = self_fencing_pair(true);
    cut_link(&mut pair);
    pair.witness.as_mut().unwrap().cut_passive = true;
    pair.run(30 * MINUTE);
    assert!(pair.half(Side::Active).site.is_writable());
    assert_eq!(phase(&pair, Side::Passive), "active-passive");
    assert!(refusals(&pair, Side::Passive).contains(&"witness-unknown".to_owned()));
}

#[test]
fn one_way_cuts_end_with_one_writer() {
    for from_active in [true, false] {
        let mut pair = self_fencing_pair(false);
        pair.cut.from_active = from_active;
        pair.cut.from_passive = !from_active;
        pair.run(10 * MINUTE);
        assert_eq!(pair.split_brain_ms, 0, "from_active={from_active}");
        heal_link(&mut pair);
        pair.run(10 * MINUTE);
        let writers = Side::ALL.into_iter().filter(|side| pair.half(*side).site.is_writable()).count();
        assert_eq!(writers, 1, "from_active={from_active}");
    }
}

#[test]
fn a_dead_active_site_is_replaced_in_self_fencing() {
    for with_witness in [false, true] {
        let mut pair = self_fencing_pair(with_witness);
        pair.half_mut(Side::Active).running = false;
        pair.half_mut(Side::Active).site.database.replicas = 0;
        let moved = pair.run_until(5 * MINUTE, |pair| phase(pair, Side::Passive) == "golddr-primary");
        assert!(moved, "witness={with_witness} {:?}", refusals(&pair, Side::Passive));
    }
}

#[test]
fn a_load_balancer_that_still_answers_with_the_active_site_keeps_the_service_there() {
    let mut pair = Pair::new(self_fencing);
    pair.run(10_000);
    pair.dns_override = Some(ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, 1])].into()));
    cut_link(&mut pair);
    pair.run(5 * MINUTE);
    assert_eq!(phase(&pair, Side::Passive), "active-passive");
    assert!(refusals(&pair, Side::Passive).contains(&"traffic-stays-home".to_owned()));
}

#[test]
fn a_person_may_let_a_cut_off_site_serve_and_the_next_contact_ends_the_waiver() {
    let mut pair = self_fencing_pair(false);
    // The other site is dead for good, so nobody will ever answer.
    pair.half_mut(Side::Passive).running = false;
    pair.run(MINUTE);
    assert!(!pair.half(Side::Active).site.is_writable());
    let event = Event::Operator { ticket: 1, who: "on call".to_owned(), request: OperatorRequest::Resume };
    pair.inject(Side::Active, event);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).site.is_writable()));
    pair.run(10 * MINUTE);
    assert!(pair.half(Side::Active).site.is_writable(), "it keeps serving on the person's word");
    pair.half_mut(Side::Passive).running = true;
    pair.run(10_000);
    assert!(!pair.half(Side::Active).engine.state().lease.waived);
}

#[test]
fn witnessed_automation_wants_a_second_observer_beside_one_resolver() {
    // One resolver, a peer that answers and sees traffic at home: nothing; a peer that sees it moved too: failover.
    let mut pair = Pair::new(|policy| policy.dns.quorum = 1);
    pair.run(5_000);
    let moved = ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, 2])].into());
    for _ in 0..20 {
        let answers = [("only".to_owned(), moved.clone())].into();
        let sample = switchover_agent::model::DnsSample { answers, self_test: None };
        pair.inject(Side::Passive, Event::Dns(sample));
        pair.run(50);
    }
    assert!(pair.is_settled_in("active-passive"));
    assert!(refusals(&pair, Side::Passive).contains(&"peer-sees-otherwise".to_owned()));
    moved_dns(&mut pair);
    assert!(pair.run_until(MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

#[test]
fn the_witness_vetoes_a_failover_of_a_site_that_lives() {
    let mut pair = Pair::new(|policy| policy.safety.witness = true);
    pair.witness = Some(SimulatedWitness::default());
    pair.run(10_000);
    cut_link(&mut pair);
    pair.run(10_000);
    // Only the passive site's resolvers lie: the active one must not see the odd answer.
    pair.half_mut(Side::Active).running = true;
    let moved = ResolverAnswer::Addresses([std::net::IpAddr::from([10, 0, 0, 2])].into());
    for _ in 0..40 {
        let answers = ["a", "b", "c"].map(|name| (name.to_owned(), moved.clone())).into();
        let sample = switchover_agent::model::DnsSample { answers, self_test: None };
        pair.inject(Side::Passive, Event::Dns(sample));
        pair.run(10);
    }
    assert!(refusals(&pair, Side::Passive).contains(&"witness-veto".to_owned()));
    assert_eq!(phase(&pair, Side::Passive), "active-passive");
}

#[test]
fn advice_comes_with_the_plan_and_touches_nothing() {
    let mut pair = Pair::new(|policy| policy.automation = Automation::Advise);
    pair.run(5_000);
    moved_dns(&mut pair);
    pair.run(10 * MINUTE);
    let advice: Vec<_> = pair
        .half(Side::Passive)
        .notes
        .iter()
        .filter_map(|(_, note)| match note {
            Note::Advised { transition, steps, .. } => Some((transition.clone(), steps.len())),
            _ => None,
        })
        .collect();
    assert_eq!(advice.len(), 1, "told once");
    assert!(advice[0].0 == "golddr-primary" && advice[0].1 > 3);
    assert!(pair.half(Side::Passive).site.asked.is_empty());
}

#[test]
fn a_site_that_was_out_starts_read_only_until_it_knows_the_peers_generation() {
    let mut pair = Pair::new(|policy| {
        policy.fence_old_primary = true;
        policy.promote_first = true;
        policy.safety.boot_fence = true;
    });
    pair.run(10_000);
    no_dns(&mut pair);
    let saved = pair.half(Side::Active).engine.state().durable();
    pair.half_mut(Side::Active).running = false;
    cut_link(&mut pair);
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    pair.half_mut(Side::Active).site.database.replicas = 0;
    assert!(pair.run_until(10 * MINUTE, |pair| phase(pair, Side::Passive) == "golddr-primary"));
    pair.run(MINUTE);
    // Power is back, the link is not.
    let policy = pair.half(Side::Active).engine.policy().clone();
    let now = pair.now;
    pair.half_mut(Side::Active).site.database.replicas = 3;
    pair.half_mut(Side::Active).engine =
        switchover_agent::rules::Engine::restore(policy, saved.after_restart(now));
    pair.half_mut(Side::Active).running = true;
    assert!(pair.run_until(10_000, |pair| !pair.half(Side::Active).site.is_writable()));
    pair.run(10 * MINUTE);
    assert!(!pair.half(Side::Active).site.is_writable(), "nothing was learned");
    heal_link(&mut pair);
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary")));
    assert_eq!(pair.half(Side::Active).site.database.role, Role::Fenced);
}

#[test]
fn an_agent_that_was_away_for_a_moment_does_not_fence() {
    let mut pair = Pair::new(|policy| {
        policy.fence_old_primary = true;
        policy.safety.boot_fence = true;
    });
    pair.run(30_000);
    let saved = pair.half(Side::Active).engine.state().durable();
    let policy = pair.half(Side::Active).engine.policy().clone();
    pair.half_mut(Side::Active).running = false;
    pair.run(3_000);
    let now = pair.now;
    pair.half_mut(Side::Active).engine =
        switchover_agent::rules::Engine::restore(policy, saved.after_restart(now));
    pair.half_mut(Side::Active).running = true;
    cut_link(&mut pair);
    pair.run(MINUTE);
    assert!(pair.half(Side::Active).site.is_writable());
    assert_eq!(pair.no_writer_ms, 0);
}

#[test]
fn a_standby_that_is_too_far_behind_refuses_a_planned_move_until_a_person_accepts_the_loss() {
    let mut pair = Pair::new(|policy| policy.safety.max_lag_bytes = Some(1_000));
    pair.run(5_000);
    pair.half_mut(Side::Active).site.database.lsn += 1_000_000;
    pair.replicates = false;
    pair.run(3_000);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    pair.run(10_000);
    assert_eq!(phase(&pair, Side::Active), "active-passive");
    assert!(refusals(&pair, Side::Active).contains(&"lag-too-high".to_owned()));
    let request = OperatorRequest::Transition {
        transition: Transition::GolddrPrimary,
        accept_data_loss: Some("the active site burns".to_owned()),
    };
    pair.inject(Side::Active, Event::Operator { ticket: 1, who: "on call".to_owned(), request });
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

#[test]
fn people_are_told_once_when_neither_site_takes_writes_for_too_long() {
    let mut pair = Pair::new(|policy| policy.automation = Automation::Off);
    pair.run(5_000);
    let request = OperatorRequest::SetReadonly;
    pair.inject(Side::Active, Event::Operator { ticket: 1, who: "on call".to_owned(), request });
    pair.run(20 * MINUTE);
    for side in Side::ALL {
        let told = refusals(&pair, side).iter().filter(|name| *name == "both-demoted").count();
        assert_eq!(told, 1, "{side}");
    }
}

#[test]
fn a_person_who_moves_a_cut_off_site_waits_for_its_lease_to_end_and_makes_no_second_writer() {
    let mut pair = self_fencing_pair(false);
    cut_link(&mut pair);
    pair.run(5_000);
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    assert!(pair.run_until(5 * MINUTE, |pair| phase(pair, Side::Passive) == "golddr-primary"));
    assert!(pair.half(Side::Passive).site.is_writable());
    assert_eq!(pair.split_brain_ms, 0);
}

#[test]
fn a_passive_site_that_can_no_longer_ask_anybody_takes_itself_for_cut_off() {
    let mut pair = Pair::new(self_fencing);
    pair.run(10_000);
    no_dns(&mut pair);
    cut_link(&mut pair);
    pair.run(10 * MINUTE);
    assert_eq!(phase(&pair, Side::Passive), "active-passive");
    assert!(refusals(&pair, Side::Passive).contains(&"cut-off".to_owned()));
    heal_link(&mut pair);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).site.is_writable()));
}
