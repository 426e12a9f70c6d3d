//! A1 to A17 and A36: table, windows, verification, dwell time, warm-up, passive mode, pins.

use switchover_agent::model::{Mono, RoutePin, Side};
use switchover_agent::rules::route_health::actuate::{Both, Refused, Write};
use switchover_agent::rules::route_health::window::{Window, WindowRules};
use switchover_agent::rules::route_health::{
    Health, Hold, Priority, RemoteLostAction, RoutePolicy, RouteState, Skip, Verdict, WithdrawGuard, table,
};

use super::rig::{Rig, inputs};

const EIGHT: [&str; 8] = ["TTT", "TTF", "TFT", "TFF", "FTT", "FTF", "FFT", "FFF"];

#[test]
fn a01_the_table_knows_all_eight_combinations() {
    let code = |text: &str, lost| table(inputs(text), lost).map_or(0, RouteState::code);
    assert_eq!(EIGHT.map(|text| code(text, RemoteLostAction::Hold)), [1, 6, 3, 0, 2, 5, 4, 0]);
    assert_eq!(EIGHT.map(|text| code(text, RemoteLostAction::Takeover)), [1, 6, 3, 7, 2, 5, 4, 0]);
    assert_eq!(table(inputs("TFF"), RemoteLostAction::Hold), Err(Hold::RemoteLost));
    assert_eq!(table(inputs("FFF"), RemoteLostAction::Takeover), Err(Hold::AllLost));
}

#[test]
fn a02_any_unknown_input_holds_everything() {
    let mut seen = 0;
    for local in Health::ALL {
        for remote in Health::ALL {
            for bgp in Health::ALL {
                let word = |health: Health| match health {
                    Health::Healthy => 'T',
                    Health::Unhealthy => 'F',
                    Health::Unknown => 'U',
                };
                let text: String = [local, remote, bgp].map(word).iter().collect();
                if !text.contains('U') {
                    continue;
                }
                seen += 1;
                let mut rig = Rig::settled();
                // Even where somebody else has changed everything.
                rig.router = Both { primary: false, secondary: true };
                rig.priority = Priority::Secondary;
                rig.writes.clear();
                let poll = rig.poll(&text);
                assert_eq!(poll.decision.verdict, Verdict::Skip(Skip::Hold(Hold::Unknown)), "{text}");
                assert!(rig.writes.is_empty(), "{text}");
                assert_eq!(rig.active(), 1, "{text}: unknown never clears what is applied");
            }
        }
    }
    assert_eq!(seen, 19);
}

#[test]
fn a03_each_state_has_one_outcome() {
    use Priority::{Primary, Secondary};
    let shown: Vec<_> = RouteState::ALL
        .iter()
        .map(|state| {
            (state.code(), state.outcome().primary, state.outcome().secondary, state.outcome().priority)
        })
        .collect();
    assert_eq!(
        shown,
        [
            (1, true, false, Primary),
            (2, false, false, Secondary),
            (3, true, true, Primary),
            (4, true, false, Secondary),
            (5, true, false, Secondary),
            (6, true, true, Primary),
            (7, true, true, Primary),
        ]
    );
}

fn judged(rules: WindowRules, before: &str, samples: &str) -> Health {
    let mut window = Window::default();
    let health = |word| if word == 'T' { Health::Healthy } else { Health::Unhealthy };
    for word in before.chars().chain(samples.chars()) {
        window.take(health(word), rules, Mono(0));
    }
    window.smoothed(rules)
}

fn rules(asymmetric: bool) -> WindowRules {
    WindowRules { size: 5, threshold: 3, asymmetric, stale_ms: 300_000 }
}

#[test]
fn a04_three_of_five_make_a_region_healthy() {
    assert_eq!(judged(rules(false), "", "TTTFT"), Health::Healthy);
    assert_eq!(judged(rules(false), "", "TTFFF"), Health::Unhealthy);
    assert_eq!(judged(rules(false), "", "TTTFF"), Health::Healthy);
}

#[test]
fn a05_asymmetric_a_healthy_region_is_left_below_two() {
    assert_eq!(judged(rules(true), "TTTTT", "TTFFF"), Health::Healthy);
    assert_eq!(judged(rules(true), "TTTTT", "TFFFF"), Health::Unhealthy);
}

#[test]
fn a06_asymmetric_an_unhealthy_region_comes_back_at_four() {
    assert_eq!(judged(rules(true), "FFFFF", "FFTTT"), Health::Unhealthy);
    assert_eq!(judged(rules(true), "FFFFF", "FTTTT"), Health::Healthy);
}

#[test]
fn a08_a_failing_region_is_left_on_the_fourth_bad_poll_in_one_patch() {
    let mut rig = Rig::settled();
    rig.writes.clear();
    for poll in 1..=2 {
        assert_eq!(rig.poll("FTT").decision.seen_code(), 1, "poll {poll}");
    }
    let third = rig.poll("FTT").decision;
    assert_eq!(third.seen, Ok(RouteState::LocalDown));
    assert_eq!(third.verdict, Verdict::Skip(Skip::Verifying));
    assert!(rig.writes.is_empty());
    rig.router.secondary = true;
    let fourth = rig.poll("FTT");
    assert_eq!(fourth.decision.changed_from, Some(Some(RouteState::AllGood)));
    // Traffic leaves before the routes do.
    assert_eq!(
        fourth.plan.writes,
        [
            Write::Cloudflare { priority: Priority::Secondary },
            Write::Router { list: Both { primary: false, secondary: false } },
        ]
    );
}

#[test]
fn a09_a_region_that_is_well_again_is_announced_on_the_third_good_poll() {
    let mut rig = Rig::settled();
    rig.polls("FTT", 4);
    assert_eq!(rig.active(), 2);
    rig.writes.clear();
    rig.polls("TTT", 2);
    assert!(rig.writes.is_empty());
    let third = rig.poll("TTT");
    assert_eq!(rig.active(), 1, "state 1 is an exception of the dwell time");
    assert_eq!(
        third.plan.writes,
        [
            Write::Router { list: Both { primary: true, secondary: false } },
            Write::Cloudflare { priority: Priority::Primary },
        ]
    );
}

/// A rig without smoothing, so that a poll is a detection.
fn raw() -> Rig {
    let policy = RoutePolicy {
        window: 1,
        threshold: 1,
        bgp_window: 1,
        bgp_threshold: 1,
        ..RoutePolicy::new(Side::Active)
    };
    let mut rig = Rig::with(policy);
    rig.poll("TTT");
    assert_eq!(rig.active(), 1);
    rig.writes.clear();
    rig
}

#[test]
fn a10_a_state_that_goes_away_between_is_counted_anew() {
    let mut rig = raw();
    assert_eq!(rig.poll("FTT").decision.candidate.unwrap().count, 1);
    rig.poll("TTT");
    assert_eq!(rig.poll("FTT").decision.candidate.unwrap().count, 1);
    assert!(rig.writes.is_empty());
}

#[test]
fn a11_the_verification_threshold_says_which_detection_acts() {
    for (threshold, acts_on) in [(1, 1), (2, 2), (3, 3)] {
        let mut rig = raw();
        rig.policy.verification[1] = threshold;
        for detection in 1..=3 {
            rig.poll("FTT");
            assert_eq!(
                rig.active() == 2,
                detection >= acts_on,
                "threshold {threshold}, detection {detection}"
            );
        }
    }
}

#[test]
fn a12_a_state_seen_once_is_never_applied() {
    let mut rig = raw();
    rig.poll("FFT");
    rig.poll("TTT");
    rig.polls("TTT", 3);
    assert!(rig.writes.is_empty());
}

#[test]
fn a13_the_dwell_time_refuses_and_then_lets_go() {
    let mut rig = raw();
    rig.policy.interval_ms = 15_000;
    rig.polls("FTT", 2);
    assert_eq!(rig.active(), 2);
    rig.writes.clear();
    let since = rig.core.active.unwrap().since;
    let mut polls = Vec::new();
    while rig.active() == 2 {
        let at = rig.now.since(since);
        let poll = rig.poll("TFT");
        polls.push((at, poll.decision.dwell_left_ms));
        assert!(polls.len() < 20);
    }
    let refused: Vec<u64> = polls.iter().filter(|(_, left)| *left > 0).map(|(at, _)| *at).collect();
    assert_eq!(refused, [30_000, 45_000, 60_000, 75_000, 90_000, 105_000]);
    assert_eq!(polls.last(), Some(&(120_000, 0)), "at exactly the minimum it is allowed");
    assert_eq!(rig.active(), 3);
}

#[test]
fn a14_states_one_and_four_are_entered_and_left_at_once() {
    for (text, code) in [("TTT", 1), ("FFT", 4)] {
        let mut rig = raw();
        rig.policy.interval_ms = 5_000;
        rig.polls("FTT", 2);
        rig.polls(text, 2);
        assert_eq!(rig.active(), code, "{text}");
    }
}

#[test]
fn a15_one_unknown_sample_is_one_held_cycle() {
    let mut rig = Rig::settled();
    let mut held = 0;
    for cycle in 0..12 {
        let before = rig.core.local.clone();
        let poll = rig.poll(if cycle == 4 { "UTT" } else { "TTT" });
        held += u32::from(poll.decision.verdict == Verdict::Skip(Skip::Hold(Hold::Unknown)));
        if cycle == 4 {
            assert_eq!(rig.core.local, before, "unknown never enters the window");
        }
    }
    assert_eq!((held, rig.active()), (1, 1));
}

#[test]
fn a15_samples_too_old_to_mean_anything_are_forgotten() {
    let mut rig = Rig::settled();
    rig.polls("UTT", 6);
    assert_eq!(rig.core.local.len(), 0, "an hour-old sample is no evidence");
    assert_eq!(rig.active(), 1);
    rig.writes.clear();
    rig.polls("FTT", 4);
    assert!(rig.writes.is_empty(), "few fresh samples change nothing");
    rig.polls("FTT", 2);
    assert_eq!(rig.active(), 2, "and a full fresh window does");
}

#[test]
fn a16_a_lost_answer_about_the_sessions_writes_nothing() {
    let mut rig = Rig::settled();
    rig.writes.clear();
    rig.poll("TTU");
    rig.poll("TTT");
    assert!(rig.writes.is_empty());
}

#[test]
fn a17_sessions_that_are_down_for_one_poll_write_nothing_lasting_ones_do() {
    let mut rig = Rig::settled();
    rig.writes.clear();
    rig.poll("TTF");
    rig.polls("TTT", 5);
    assert!(rig.writes.is_empty());
    rig.polls("TTF", 4);
    assert_eq!(rig.active(), 6);
    assert_eq!(rig.router, Both { primary: true, secondary: true });
}

#[test]
fn a36_passive_mode_sees_everything_and_writes_nothing() {
    let mut rig = raw();
    rig.policy.passive = true;
    rig.router = Both { primary: false, secondary: true };
    let mut codes = Vec::new();
    for text in ["TTT", "FTT", "FTT", "TTT"] {
        let decision = rig.poll(text).decision;
        codes.push(decision.seen_code());
        assert_eq!(decision.verdict, Verdict::Skip(Skip::Passive));
    }
    assert_eq!(codes, [1, 2, 2, 1]);
    assert!(rig.writes.is_empty());
}

#[test]
fn a_dead_region_is_taken_over_only_where_that_is_set() {
    let mut rig = Rig::settled();
    rig.polls("TFF", 4);
    assert_eq!((rig.active(), rig.router.secondary), (7, true));
    let mut rig = Rig::settled();
    rig.policy.remote_lost = RemoteLostAction::Hold;
    rig.polls("TFF", 20);
    assert_eq!((rig.active(), rig.router.secondary), (1, false));
}

#[test]
fn a_start_keeps_what_was_applied_and_changes_nothing_before_it_is_warm() {
    let mut rig = Rig::settled();
    rig.polls("FTT", 4);
    assert_eq!(rig.active(), 2);
    let (active, router) = (rig.core.active, rig.router);
    rig.core = switchover_agent::rules::route_health::Core { active, ..Default::default() };
    rig.writes.clear();
    // One good raw sample after the start is no reason to announce.
    let poll = rig.poll("TTT");
    assert_eq!(poll.decision.verdict, Verdict::Skip(Skip::WarmingUp));
    assert!(rig.writes.is_empty());
    // A sample that agrees with what was applied keeps it up at once.
    rig.router = Both { primary: true, secondary: false };
    assert_eq!(rig.poll("FTT").decision.verdict, Verdict::Act(RouteState::LocalDown));
    assert_eq!(rig.router, router);
}

#[test]
fn nothing_is_taken_back_while_the_other_router_shows_that_it_does_not_have_it() {
    let mut rig = Rig::settled();
    rig.peer = Both { primary: Some(false), secondary: Some(true) };
    rig.polls("FTT", 6);
    assert_eq!(rig.active(), 2);
    assert!(rig.router.primary, "the other router does not announce it");
    let refused = rig.poll("FTT").plan.refused;
    assert!(matches!(refused[..], [Refused::PeerNotAnnouncing(_)]), "{refused:?}");
    rig.peer.primary = Some(true);
    rig.poll("FTT");
    assert!(!rig.router.primary);
    for (guard, peer, withdrawn) in [
        (WithdrawGuard::Auto, None, true),
        (WithdrawGuard::Strict, None, false),
        (WithdrawGuard::Off, Some(false), true),
    ] {
        let mut rig = Rig::settled();
        rig.policy.guard = guard;
        rig.peer.primary = peer;
        rig.polls("FTT", 6);
        assert_eq!(!rig.router.primary, withdrawn, "{guard:?} {peer:?}");
    }
}

#[test]
fn the_hour_s_writes_never_refuse_an_announcement() {
    let mut rig = raw();
    rig.policy.writes_per_hour = Some(2);
    rig.policy.interval_ms = 1_000;
    rig.policy.dwell_ms = 0;
    rig.polls("FTT", 4);
    assert!(rig.router.primary, "a withdrawal must leave room for undoing it");
    assert!(rig.poll("FTT").plan.refused.contains(&Refused::Budget));
    rig.polls("TFT", 3);
    assert!(rig.router.secondary, "announcing is never refused");
    rig.policy.writes_per_hour = Some(10);
    rig.polls("FTT", 4);
    assert!(!rig.router.primary);
}

#[test]
fn a_pin_beats_health_and_waits_for_the_other_site_before_it_takes_away() {
    for text in ["TTT", "FTT", "TFT", "FFF", "UUU", "TFF"] {
        let mut rig = Rig::settled();
        rig.pin = RoutePin::Passive;
        rig.peer = Both { primary: None, secondary: Some(true) };
        rig.polls(text, 3);
        assert!(rig.router.primary, "{text}: the passive site does not announce it yet");
        assert_eq!(rig.priority, Priority::Primary, "{text}: traffic waits too");
        rig.peer.primary = Some(true);
        rig.polls(text, 3);
        assert_eq!(rig.router, Both { primary: false, secondary: false }, "{text}");
        assert_eq!(rig.priority, Priority::Secondary, "{text}");
        let mut rig = Rig::with(RoutePolicy::new(Side::Passive));
        rig.pin = RoutePin::Passive;
        rig.polls(text, 1);
        assert_eq!(rig.router, Both { primary: true, secondary: true }, "{text}: at once, without a warm-up");
    }
}

#[test]
fn a_released_pin_gives_the_routes_back_to_health() {
    let mut rig = Rig::settled();
    rig.pin = RoutePin::Passive;
    rig.polls("TTT", 3);
    assert!(!rig.router.primary);
    rig.pin = RoutePin::Health;
    rig.polls("UTT", 2);
    assert!(!rig.router.primary, "unknown changes nothing");
    rig.poll("TTT");
    assert_eq!(rig.router, Both { primary: true, secondary: false });
    assert_eq!(rig.priority, Priority::Primary);
}
