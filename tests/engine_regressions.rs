//! One test for each defect of the rules that a checker found: the search of `verify`, the simulation, the kill matrix.

use switchover_agent::model::{
    Action, Command, Detail, Effect, Event, Generation, Mono, Note, Now, Outcome, PatroniSample, PeerMessage,
    PeerStatus, Record, RecordSeen, ResolverAnswer, Side, Transition, Wall,
};
use switchover_agent::rules::Engine;
use switchover_agent::rules::policy::{Automation, Policy};
use switchover_agent::verify::pair::{Cut, EPOCH_MS, Pair, policy};
use switchover_agent::verify::site::Role;

const MINUTE: u64 = 60_000;
const APART: Cut = Cut { from_active: true, from_passive: true };

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
    pair.cut = APART;
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

/// The agent of a side dies and is started again with what it had saved.
fn restart(pair: &mut Pair, side: Side) {
    let now = pair.now;
    let half = pair.half_mut(side);
    let (settings, saved) = (half.engine.policy().clone(), half.engine.state().durable());
    half.engine = Engine::restore(settings, saved.after_restart(now));
    half.running = true;
}

fn is_given_consent(pair: &Pair) -> bool {
    pair.half(Side::Passive).engine.state().grant.is_some()
}

fn in_gold_standby_with_fencing() -> Pair {
    let mut pair = pair_with(|policy| policy.fence_old_primary = true);
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    to(&mut pair, Transition::GoldStandby, "gold-standby");
    pair
}

/// Found by the search; that such a rebuild deletes nothing where the copies have diverged stands in
/// `engine_cases`: `an_order_before_the_first_look_at_the_database_deletes_no_diverged_copy`.
#[test]
fn a_rebuild_that_begins_before_the_first_look_compares_timelines_when_it_has_looked() {
    let mut pair = pair_with(|_| {});
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    to(&mut pair, Transition::GoldStandby, "gold-standby");
    pair.ask(Side::Active, Transition::ActivePassive);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).engine.state().run.is_some()));
    pair.half_mut(Side::Passive).running = false;
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).site.recorded().0 == "active-passive"));
    pair.run(1_500 - pair.now.0 % 1_000);
    restart(&mut pair, Side::Passive);
    let record = pair.half(Side::Passive).site.record_seen();
    pair.inject(Side::Passive, Event::Record(record));
    let generation = Some(pair.half(Side::Active).engine.state().generation);
    let state = "active-passive".to_owned();
    let message = PeerMessage::TransitionTo { state, generation, accept_data_loss: None };
    pair.inject(Side::Passive, Event::PeerMessage { id: None, message, authenticated: true });
    pair.run(100);
    let begun = pair.half(Side::Passive).engine.state().run.as_ref().expect("the order is obeyed");
    assert_eq!(begun.timeline_before, None, "nobody has looked yet");
    assert!(pair.run_until(10 * MINUTE, |pair| pair.is_settled_in("active-passive")));
    assert_eq!(pair.half(Side::Passive).site.database.role, Role::Standby);
}

#[test]
fn a_database_that_tells_no_timeline_keeps_the_destruction_gate_closed() {
    let mut pair = pair_with(|_| {});
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    to(&mut pair, Transition::GoldStandby, "gold-standby");
    pair.half_mut(Side::Passive).running = false;
    pair.ask(Side::Active, Transition::ActivePassiveForce);
    assert!(pair.run_until(5 * MINUTE, |pair| pair.half(Side::Active).site.recorded().0 == "active-passive"));
    pair.run(1_050 - pair.now.0 % 1_000);
    restart(&mut pair, Side::Passive);
    let (active, passive) = (pair.half(Side::Active), pair.half(Side::Passive));
    let PatroniSample::Seen(mut view) = passive.site.patroni_seen() else { panic!("it runs") };
    view.timeline = None;
    let status = active.engine.peer_status(pair.now);
    let record = passive.site.record_seen();
    for event in [
        Event::Record(record),
        Event::Patroni(PatroniSample::Seen(view)),
        Event::PeerLink { up: true, reason: String::new() },
        Event::PeerStatus(status),
    ] {
        pair.inject(Side::Passive, event);
    }
    let state = "active-passive".to_owned();
    let message = PeerMessage::TransitionTo { state, generation: None, accept_data_loss: None };
    pair.inject(Side::Passive, Event::PeerMessage { id: None, message, authenticated: true });
    pair.run(800);
    let run = pair.half(Side::Passive).engine.state().run.as_ref().expect("the order is obeyed");
    assert_eq!(run.gate_closed.as_ref().map(|closed| closed.refusal.as_str()), Some("database-unknown"));
    assert_eq!(pair.half(Side::Passive).site.database.replicas, 3);
}

#[test]
fn a_failover_asked_for_while_a_fence_for_a_consent_is_on_its_way_ends_writable() {
    let mut pair = in_gold_standby_with_fencing();
    // Just after a look at the database, so that the next one comes after the plan is made.
    pair.run(1_050 - pair.now.0 % 1_000);
    pair.ask(Side::Active, Transition::ActivePassive);
    assert!(pair.run_until(MINUTE, is_given_consent));
    pair.run(300);
    let passive = pair.half(Side::Passive);
    assert!(passive.site.is_writable(), "the fence has not taken effect");
    pair.cut = APART;
    pair.inject(Side::Passive, Event::PeerLink { up: false, reason: "no answer".to_owned() });
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    pair.run(35_000);
    let refused =
        |note: &Note| matches!(note, Note::Refused(refused) if refused.refusal == "transition-in-progress");
    let notes = &pair.half(Side::Passive).notes;
    assert!(notes.iter().any(|(_, note)| refused(note)), "the peer may be promoting on the consent");
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    pair.run(5 * MINUTE);
    let passive = pair.half(Side::Passive);
    assert_eq!(passive.site.recorded().0, "golddr-primary");
    assert!(passive.site.is_writable(), "{:?}", passive.site.asked);
}

#[test]
fn a_failover_asked_for_while_the_peer_may_promote_on_our_consent_is_refused() {
    let mut pair = in_gold_standby_with_fencing();
    pair.ask(Side::Active, Transition::ActivePassive);
    assert!(pair.run_until(MINUTE, is_given_consent));
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("active-passive")));
    let refused = pair.half(Side::Passive).notes.iter().any(
        |(_, note)| matches!(note, Note::Answer { accepted: false, message, .. } if message.starts_with("transition-in-progress")),
    );
    assert!(refused);
    assert_eq!(pair.split_brain_ms, 0);
}

#[test]
fn the_note_of_a_refusal_leaves_the_peers_order_in_the_record() {
    let mut pair = in_gold_standby_with_fencing();
    pair.cut = Cut { from_active: true, from_passive: false };
    pair.ask(Side::Active, Transition::ActivePassive);
    pair.run(500);
    let confirm =
        pair.half(Side::Active).engine.state().outbox.iter().find_map(|entry| match &entry.message {
            PeerMessage::Confirm { item, .. } => Some(item.clone()),
            _ => None,
        });
    let item = confirm.expect("it asks for consent");
    let state = "golddr-primary".to_owned();
    let order = PeerMessage::TransitionTo { state, generation: Some(Generation(50)), accept_data_loss: None };
    let no = PeerMessage::No { item, reason: "not now".to_owned() };
    for message in [order, no] {
        pair.inject(Side::Active, Event::PeerMessage { id: None, message, authenticated: true });
    }
    pair.run(2 * MINUTE);
    assert_eq!(pair.half(Side::Active).site.recorded(), ("golddr-primary".to_owned(), String::new()));
}

#[test]
fn a_failover_leaves_a_standby_its_source() {
    let mut pair = in_gold_standby_with_fencing();
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let active = &pair.half(Side::Active).site;
    assert_eq!(active.database.role, Role::Standby);
    let fences = active.asked.iter().filter(|asked| *asked == "make the database read-only").count();
    assert_eq!(fences, 1, "of the first failover, in which it was the primary");
}

#[test]
fn the_time_for_a_step_stands_still_while_the_agent_is_dead() {
    let mut pair = pair_with(|_| {});
    pair.half_mut(Side::Passive).site.faults.insert("promote".to_owned(), 1_000);
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    let promotes = |pair: &Pair| {
        let run = pair.half(Side::Passive).engine.state().run.clone();
        run.and_then(|run| run.lane.current().map(|step| step.step.name.clone()))
            == Some("promote-database".to_owned())
    };
    assert!(pair.run_until(MINUTE, promotes));
    pair.half_mut(Side::Passive).running = false;
    pair.run(60 * MINUTE);
    restart(&mut pair, Side::Passive);
    pair.run(MINUTE);
    let run = pair.half(Side::Passive).engine.state().run.clone().expect("it goes on");
    assert_eq!(run.halted, None);
    pair.half_mut(Side::Passive).site.faults.clear();
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("golddr-primary")));
}

fn commands(actions: Vec<Action>) -> Vec<Command> {
    let commands = actions.into_iter().filter_map(|action| match action {
        Action::Perform(command) => Some(command),
        Action::Report(_) => None,
    });
    commands.collect()
}

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(EPOCH_MS + ms) }
}

#[test]
fn a_restarted_agent_looks_at_the_database_before_it_promotes_again() {
    let mut pair = pair_with(|_| {});
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    let asked =
        |pair: &Pair| pair.half(Side::Passive).site.asked.iter().any(|asked| asked == "promote the database");
    assert!(pair.run_until(MINUTE, asked));
    let half = pair.half(Side::Passive);
    let (settings, saved) = (half.engine.policy().clone(), half.engine.state().durable());
    let mut engine = Engine::restore(settings, saved.after_restart(Mono(0)));
    let promotes =
        |commands: &[Command]| commands.iter().any(|command| command.effect == Effect::PromoteDatabase);
    let mut asked = commands(engine.handle(Event::Record(half.site.record_seen()), at(0)));
    for second in 1..60 {
        asked.extend(commands(engine.handle(Event::Tick, at(second * 1_000))));
    }
    assert!(!promotes(&asked), "{asked:?}");
    let standby = switchover_agent::verify::site::Site::new(Side::Passive).patroni_seen();
    let asked = commands(engine.handle(Event::Patroni(standby), at(60_000)));
    assert!(promotes(&asked), "it is seen not to have happened: {asked:?}");
}

#[test]
fn the_outcome_of_a_step_that_was_left_behind_ends_it_there() {
    let mut engine = Engine::new(policy(Side::Active));
    let data = [("last_stable_state", "active-passive"), ("transition", "golddr-primary")];
    let data = data.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let record = RecordSeen::Present(Record::from_data(data, None));
    let vars = |commands: &[Command]| {
        let mut vars = commands.iter().filter(|command| command.step == "set-recovery-vars");
        vars.next().map(|command| command.id)
    };
    let first = vars(&commands(engine.handle(Event::Record(record), at(0)))).expect("its first step");
    let mut again = Vec::new();
    for second in 1..12 {
        again.extend(commands(engine.handle(Event::Tick, at(second * 1_000))));
    }
    assert!(engine.state().beside.iter().any(|step| step.step.name == "set-recovery-vars"));
    let outcome = Outcome::Done(Detail::Nothing);
    again.extend(commands(engine.handle(Event::ActionDone { id: first, outcome }, at(12_000))));
    assert!(!engine.state().beside.iter().any(|step| step.step.name == "set-recovery-vars"));
    for second in 13..120 {
        again.extend(commands(engine.handle(Event::Tick, at(second * 1_000))));
    }
    assert_eq!(vars(&again), None, "done is done");
}

/// Found by the simulation (seed 121): both databases took writes for nine minutes, because the passive site believed a
/// fence that was being lifted at that moment, and the fence for its order waited behind other chores.
#[test]
fn a_self_fence_that_is_being_lifted_is_no_fence_for_the_site_that_takes_over() {
    for wait in [0, 20, 40, 200, 400, 600, 1_000] {
        let mut pair = pair_with(|policy| {
            policy.fence_old_primary = true;
            policy.automation = Automation::SelfFencing;
        });
        pair.cut = APART;
        let fenced = |pair: &Pair| {
            pair.half(Side::Active).engine.state().lease.fenced.is_some()
                && !pair.half(Side::Active).site.is_writable()
        };
        assert!(pair.run_until(MINUTE, fenced));
        // Another chore stands in the way of everything that is asked for after it.
        pair.half_mut(Side::Active).site.faults.insert("scale the health".to_owned(), 40);
        pair.cut = Cut::default();
        let serves = |pair: &Pair| pair.half(Side::Active).engine.state().lease.fenced.is_none();
        assert!(pair.run_until(MINUTE, serves));
        pair.run(wait);
        pair.ask(Side::Passive, Transition::GolddrPrimary);
        let reached = pair.run_until(10 * MINUTE, |pair| pair.is_settled_in("golddr-primary"));
        assert!(reached, "after {wait} ms: {:?}", refusals(&pair, Side::Passive));
        assert_eq!(pair.split_brain_ms, 0, "after {wait} ms");
        assert!(pair.half(Side::Passive).site.is_writable());
    }
}

fn self_fencing() -> Pair {
    pair_with(|policy| {
        policy.fence_old_primary = true;
        policy.automation = Automation::SelfFencing;
    })
}

fn is_fenced(pair: &Pair) -> bool {
    pair.half(Side::Active).engine.state().lease.fenced.is_some()
        && !pair.half(Side::Active).site.is_writable()
}

/// Whether a failover takes the other site for fenced before it has heard of it, and whether it does afterwards.
fn believes_a_fence() -> (bool, bool) {
    let mut pair = self_fencing();
    let read_only = |pair: &Pair, transition: &str| PeerStatus {
        writable: Some(false),
        transition: transition.to_owned(),
        ..pair.half(Side::Active).engine.peer_status(pair.now)
    };
    pair.cut = APART;
    let quiet = read_only(&pair, "");
    pair.inject(Side::Passive, Event::PeerStatus(quiet));
    pair.ask(Side::Passive, Transition::GolddrPrimary);
    pair.run(2_500);
    let early = promotes(&pair, Side::Passive);
    let told = pair.half(Side::Passive).engine.state().generation;
    let knows = PeerStatus { generation: told, ..read_only(&pair, "golddr-primary") };
    pair.inject(Side::Passive, Event::PeerStatus(knows));
    pair.run(100);
    (early, promotes(&pair, Side::Passive))
}

#[test]
fn a_self_fence_counts_for_a_failover_once_its_site_knows_of_the_failover() {
    assert_eq!(believes_a_fence(), (false, true), "it may be about to serve again");
}

/// What the active site tells of its database while its fence is being lifted.
fn told_while_unfencing() -> Option<bool> {
    let mut pair = self_fencing();
    let home = std::net::IpAddr::from([10, 0, 0, 1]);
    pair.dns_override = Some(ResolverAnswer::Addresses([home].into()));
    pair.cut = APART;
    assert!(pair.run_until(MINUTE, is_fenced));
    pair.run(1_100);
    let reported = |pair: &Pair| pair.half(Side::Active).engine.peer_status(pair.now).writable;
    assert_eq!(reported(&pair), Some(false));
    pair.half_mut(Side::Active).site.faults.insert("promote".to_owned(), 3);
    pair.cut = Cut::default();
    let serves = |pair: &Pair| pair.half(Side::Active).engine.state().lease.fenced.is_none();
    assert!(pair.run_until(MINUTE, serves));
    let told = reported(&pair);
    assert!(pair.run_until(MINUTE, |pair| reported(pair) == Some(true)));
    told
}

#[test]
fn a_database_whose_fence_is_being_lifted_is_not_reported_read_only() {
    assert_eq!(told_while_unfencing(), None);
}

#[test]
fn a_fenced_site_that_is_ordered_to_give_up_does_not_serve_again() {
    let mut pair = self_fencing();
    pair.cut = APART;
    assert!(pair.run_until(MINUTE, is_fenced));
    pair.half_mut(Side::Active).site.faults.insert("record transition".to_owned(), 1_000);
    let state = "golddr-primary".to_owned();
    let message =
        PeerMessage::TransitionTo { state, generation: Some(Generation(7)), accept_data_loss: None };
    pair.inject(Side::Active, Event::PeerMessage { id: None, message, authenticated: true });
    pair.run(100);
    pair.cut = Cut::default();
    pair.run(10_000);
    assert!(is_fenced(&pair));
    assert_eq!(pair.half(Side::Active).engine.peer_status(pair.now).transition, "golddr-primary");
}

fn promotes(pair: &Pair, side: Side) -> bool {
    pair.half(side).site.asked.contains(&"promote the database".to_owned())
}

#[test]
fn what_the_peer_said_before_a_silence_is_no_news_after_it() {
    for silence in [false, true] {
        let mut pair = self_fencing();
        pair.cut = APART;
        pair.half_mut(Side::Passive).site.faults.insert("set in_recovery".to_owned(), 1);
        pair.ask(Side::Passive, Transition::GolddrPrimary);
        assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Passive).engine.state().run.is_some()));
        let said = PeerStatus {
            writable: Some(false),
            generation: pair.half(Side::Passive).engine.state().generation,
            ..pair.half(Side::Active).engine.peer_status(pair.now)
        };
        pair.inject(Side::Passive, Event::PeerStatus(said));
        if silence {
            pair.inject(Side::Passive, Event::PeerLink { up: false, reason: "no answer".to_owned() });
            pair.inject(Side::Passive, Event::PeerLink { up: true, reason: String::new() });
        }
        pair.run(2_000);
        assert_eq!(promotes(&pair, Side::Passive), !silence);
    }
}

/// Whether a failback promotes while the site that consented to it cannot be seen.
fn promotes_unseen() -> bool {
    let mut pair = in_gold_standby_with_fencing();
    pair.ask(Side::Active, Transition::ActivePassive);
    pair.half_mut(Side::Active).site.faults.insert("set in_recovery".to_owned(), 2);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).engine.state().run.is_some()));
    pair.cut = APART;
    pair.inject(Side::Active, Event::PeerLink { up: false, reason: "no answer".to_owned() });
    let before = pair.half(Side::Active).site.asked.len();
    pair.run(2 * MINUTE);
    let unseen = pair.half(Side::Active).site.asked[before..].contains(&"promote the database".to_owned());
    pair.cut = Cut::default();
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("active-passive")));
    unseen
}

#[test]
fn a_consented_failback_promotes_only_while_the_lender_is_seen_read_only() {
    assert!(!promotes_unseen());
}

#[test]
fn a_failover_starts_a_database_that_a_rebuild_has_stopped() {
    let mut pair = in_gold_standby_with_fencing();
    pair.half_mut(Side::Passive).site.faults.insert("delete database volume".to_owned(), 1_000);
    pair.ask(Side::Active, Transition::ActivePassiveForce);
    let stopped = |pair: &Pair| pair.half(Side::Passive).site.database.replicas == 0;
    assert!(pair.run_until(10 * MINUTE, stopped));
    pair.run(2 * MINUTE);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    let serves = |pair: &Pair| pair.half(Side::Passive).site.is_writable();
    assert!(pair.run_until(30 * MINUTE, serves), "{:?}", pair.half(Side::Passive).site.asked);
    assert!(!pair.half(Side::Active).site.is_writable());
}

#[test]
fn an_order_that_has_not_begun_gives_way_to_one_of_a_later_generation() {
    let mut pair = pair_with(|policy| policy.fence_old_primary = true);
    to(&mut pair, Transition::GolddrPrimary, "golddr-primary");
    let order = |transition: Transition, generation: u64| Event::PeerMessage {
        id: None,
        message: PeerMessage::TransitionTo {
            state: transition.wire().to_owned(),
            generation: Some(Generation(generation)),
            accept_data_loss: None,
        },
        authenticated: true,
    };
    pair.half_mut(Side::Passive).site.faults.insert("record transition".to_owned(), 3);
    pair.inject(Side::Passive, order(Transition::GoldStandby, 7));
    pair.inject(Side::Passive, order(Transition::GolddrPrimary, 8));
    pair.run(MINUTE);
    let passive = pair.half(Side::Passive);
    assert_eq!(passive.site.recorded(), ("golddr-primary".to_owned(), String::new()));
    assert_eq!(passive.engine.state().generation, Generation(8));
}

#[test]
fn a_fence_is_not_seen_on_a_look_that_is_older_than_its_answer() {
    let mut pair = in_gold_standby_with_fencing();
    // Between two looks at the database, so that one comes while the call is under way and none with its answer.
    pair.run(1_100 - pair.now.0 % 1_000);
    restart(&mut pair, Side::Active);
    let record = pair.half(Side::Active).site.record_seen();
    pair.inject(Side::Active, Event::Record(record));
    pair.half_mut(Side::Active).slow.insert("make the database read-only".to_owned(), 2_500);
    pair.ask(Side::Active, Transition::GolddrPrimary);
    let asked = |pair: &Pair| {
        let asked = &pair.half(Side::Active).site.asked;
        asked.iter().filter(|words| *words == "make the database read-only").count()
    };
    let before = asked(&pair);
    assert!(pair.run_until(10_000, |pair| asked(pair) > before));
    let fencing = |pair: &Pair| {
        let run = pair.half(Side::Active).engine.state().run.as_ref();
        run.and_then(|run| run.lane.current()).is_some_and(|step| step.step.name == "fence-database")
    };
    pair.run(50);
    assert!(fencing(&pair), "a standby takes no writes, which says nothing of the fence");
    pair.run(1_000);
    assert!(!fencing(&pair));
}

#[test]
fn a_promotion_that_a_person_lets_go_on_is_looked_for_before_it_is_asked_for_again() {
    let mut pair = in_gold_standby_with_fencing();
    pair.run(340);
    pair.ask(Side::Active, Transition::ActivePassive);
    pair.half_mut(Side::Active).site.faults.insert("set in_recovery".to_owned(), 2);
    assert!(pair.run_until(MINUTE, |pair| pair.half(Side::Active).engine.state().run.is_some()));
    pair.cut = APART;
    pair.inject(Side::Active, Event::PeerLink { up: false, reason: "no answer".to_owned() });
    let promoting = |pair: &Pair| {
        let run = pair.half(Side::Active).engine.state().run.as_ref();
        let step = run.and_then(|run| run.lane.current());
        step.filter(|step| step.step.name == "promote-database").and_then(|step| step.started)
    };
    assert!(pair.run_until(MINUTE, |pair| promoting(pair).is_some()));
    let limit = promoting(&pair).expect("seen a moment ago").0 + 300_000;
    // The other site is seen again so late that the call is answered and its effect is not seen in time.
    pair.run(limit - 900 - pair.now.0);
    pair.cut = Cut::default();
    let halted = |pair: &Pair| {
        let run = pair.half(Side::Active).engine.state().run.as_ref();
        run.is_some_and(|run| run.halted.is_some())
    };
    assert!(pair.run_until(2_000, halted));
    let asked = |pair: &Pair| {
        let asked = &pair.half(Side::Active).site.asked;
        asked.iter().filter(|words| *words == "promote the database").count()
    };
    assert_eq!(asked(&pair), 1);
    pair.ask(Side::Active, Transition::ActivePassive);
    assert!(pair.run_until(5 * MINUTE, |pair| pair.is_settled_in("active-passive")));
    assert_eq!(asked(&pair), 1);
}
