//! The machine against the table of RFC 5880 §6.8.6, and against itself over a wire without delay.

use super::*;

fn session(discriminator: u32, now: Instant) -> Session {
    Session::new(
        BfdSettings { transmit_ms: 100, receive_ms: 100, multiplier: 3, multihop: false },
        discriminator,
        now,
    )
}

fn heard(state: State) -> Packet {
    Packet {
        state,
        multiplier: 3,
        my_discriminator: 9,
        your_discriminator: 1,
        desired_min_tx_us: 100_000,
        required_min_rx_us: 100_000,
        ..Packet::default()
    }
}

fn in_state(state: State, now: Instant) -> Session {
    let mut session = session(1, now);
    session.state = state;
    session
}

#[test]
fn the_transition_table_is_that_of_the_rfc() {
    let now = Instant::now();
    for (from, hears, to) in [
        (State::Down, State::AdminDown, State::Down),
        (State::Down, State::Down, State::Init),
        (State::Down, State::Init, State::Up),
        (State::Down, State::Up, State::Down),
        (State::Init, State::AdminDown, State::Down),
        (State::Init, State::Down, State::Init),
        (State::Init, State::Init, State::Up),
        (State::Init, State::Up, State::Up),
        (State::Up, State::AdminDown, State::Down),
        (State::Up, State::Down, State::Down),
        (State::Up, State::Init, State::Up),
        (State::Up, State::Up, State::Up),
    ] {
        let mut session = in_state(from, now);
        session.received(&heard(hears), now, 0.0);
        assert_eq!(session.state, to, "{from:?} hears {hears:?}");
    }
}

/// Runs two sessions against each other for a while of virtual time; returns when both were up.
fn run(a: &mut Session, b: &mut Session, mut now: Instant, limit: Duration) -> Option<Instant> {
    let end = now + limit;
    while now < end {
        now = a.next_deadline().min(b.next_deadline()).max(now);
        for turn in [true, false] {
            let (from, to) = if turn { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            let mut flying = from.poll(now, 0.5);
            let mut towards_b = turn;
            let _ = to;
            while let Some(packet) = flying.take() {
                let target = if towards_b { &mut *b } else { &mut *a };
                flying = target.received(&packet, now, 0.5);
                towards_b = !towards_b;
            }
        }
        if a.state() == State::Up && b.state() == State::Up && !a.polling && !b.polling {
            return Some(now);
        }
    }
    None
}

#[test]
fn two_sessions_come_up_and_settle_on_the_fast_pace() {
    let now = Instant::now();
    let (mut a, mut b) = (session(1, now), session(2, now));
    let up = run(&mut a, &mut b, now, Duration::from_secs(10)).expect("both up");
    assert!(up - now < Duration::from_secs(2));
    assert_eq!(a.desired_min_tx_us(), 100_000);
    assert_eq!(a.detection_time(), Some(Duration::from_millis(300)));
}

#[test]
fn silence_for_the_detection_time_takes_the_session_down() {
    let now = Instant::now();
    let (mut a, mut b) = (session(1, now), session(2, now));
    let up = run(&mut a, &mut b, now, Duration::from_secs(10)).expect("both up");
    a.received(&heard(State::Up), up, 0.0);
    a.poll(up + Duration::from_millis(299), 0.0);
    assert_eq!(a.state(), State::Up);
    a.poll(up + Duration::from_millis(300), 0.0);
    assert_eq!((a.state(), a.diagnostic), (State::Down, Diagnostic::DetectionTimeExpired));
    assert_eq!(a.remote_discriminator, 0, "a restarted neighbour is found again");
}

#[test]
fn a_neighbour_taken_down_on_purpose_is_not_a_failure() {
    let now = Instant::now();
    let mut session = in_state(State::Up, now);
    session.received(&heard(State::AdminDown), now, 0.0);
    assert_eq!(session.state(), State::AdminDown);
    let goodbye = session.administratively_down();
    assert_eq!((goodbye.state, goodbye.diagnostic), (State::AdminDown, Diagnostic::AdministrativelyDown));
}

#[test]
fn a_poll_is_answered_at_once_and_a_silent_receiver_gets_nothing() {
    let now = Instant::now();
    let mut session = in_state(State::Up, now);
    let answer = session.received(&Packet { poll: true, ..heard(State::Up) }, now, 0.0).unwrap();
    assert!(answer.final_bit && !answer.poll);
    session.received(&Packet { required_min_rx_us: 0, ..heard(State::Up) }, now, 0.0);
    assert_eq!(session.poll(now + Duration::from_millis(200), 0.0), None);
}
