//! The machine against OPENs good and bad, and against every way a connection ends.

use bytes::BytesMut;
use rustbgpd_wire::GracefulRestartFamily;

use super::*;
use crate::bgp::codec::{Decoder, Open};

fn settings() -> (SpeakerSettings, NeighbourSettings) {
    let neighbour = NeighbourSettings::new("10.0.0.2".parse().unwrap(), 65002);
    let router_id = "10.0.0.1".parse().unwrap();
    let speaker = SpeakerSettings {
        router_id,
        local_asn: 4_200_000_001,
        local_address: None,
        neighbours: vec![neighbour.clone()],
    };
    (speaker, neighbour)
}

fn open(asn: u32, hold: u16, id: &str, capabilities: bool) -> Input {
    let mut list = vec![];
    if capabilities {
        list.push(Capability::MultiProtocol { afi: Afi::Ipv4, safi: Safi::Unicast });
        list.push(Capability::MultiProtocol { afi: Afi::Ipv6, safi: Safi::Unicast });
        list.push(Capability::FourOctetAs { asn });
    }
    Input::Received(Incoming::Open(Open(OpenMessage {
        version: 4,
        my_as: u16::try_from(asn).unwrap_or(23456),
        hold_time: hold,
        bgp_identifier: id.parse().unwrap(),
        capabilities: list,
    })))
}

fn sent_open(outputs: &[Output]) -> OpenMessage {
    let Some(Output::Send(bytes)) = outputs.iter().find(|o| matches!(o, Output::Send(_))) else {
        panic!("no OPEN in {outputs:?}")
    };
    match Decoder::new(false).next(&mut BytesMut::from(&bytes[..])) {
        Ok(Some(Incoming::Open(open))) => open.0,
        other => panic!("{other:?}"),
    }
}

fn notified(outputs: &[Output]) -> Option<(u8, u8)> {
    outputs.iter().find_map(|o| match o {
        Output::Notify(notice, _) => Some((notice.code, notice.subcode)),
        _ => None,
    })
}

fn established() -> Machine {
    let (speaker, neighbour) = settings();
    let mut machine = Machine::new(&speaker, &neighbour, false);
    machine.handle(Input::Connected);
    machine.handle(open(65002, 9, "10.0.0.2", true));
    let outputs = machine.handle(Input::Received(Incoming::Keepalive));
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, Output::Established(n) if n.hold_time == 9 && n.families.len() == 2))
    );
    machine
}

#[test]
fn our_open_carries_as_trans_and_the_true_as() {
    let (speaker, neighbour) = settings();
    let mut machine = Machine::new(&speaker, &neighbour, true);
    let open = sent_open(&machine.handle(Input::Connected));
    assert_eq!((open.my_as, open.four_byte_as(), open.hold_time), (23456, 4_200_000_001, 30));
    assert!(
        !open.capabilities.iter().any(|c| matches!(c, Capability::GracefulRestart { .. })),
        "off unless asked for"
    );
}

#[test]
fn graceful_restart_sets_restart_and_forwarding_but_not_the_notification_bit() {
    let (speaker, mut neighbour) = settings();
    neighbour.graceful_restart_secs = Some(60);
    let mut machine = Machine::new(&speaker, &neighbour, true);
    let open = sent_open(&machine.handle(Input::Connected));
    let family = |afi| GracefulRestartFamily { afi, safi: Safi::Unicast, forwarding_preserved: true };
    let want = Capability::GracefulRestart {
        restart_state: true,
        notification: false,
        restart_time: 60,
        families: vec![family(Afi::Ipv4), family(Afi::Ipv6)],
    };
    assert!(open.capabilities.contains(&want), "{:?}", open.capabilities);
}

#[test]
fn an_unacceptable_open_is_answered_with_its_code_and_the_connection_closed() {
    for (input, want) in [
        (open(65003, 90, "10.0.0.2", true), (2, 2)),
        (open(0, 90, "10.0.0.2", true), (2, 2)),
        (open(65002, 1, "10.0.0.2", true), (2, 6)),
        (open(65002, 90, "0.0.0.0", true), (2, 3)),
    ] {
        let (speaker, neighbour) = settings();
        let mut machine = Machine::new(&speaker, &neighbour, false);
        machine.handle(Input::Connected);
        let outputs = machine.handle(input);
        assert_eq!(notified(&outputs), Some(want));
        assert_eq!(outputs.last(), Some(&Output::State(NeighbourState::Idle)), "{outputs:?}");
        assert!(outputs.contains(&Output::Close));
    }
}

#[test]
fn the_same_identifier_is_refused_inside_our_own_as_only() {
    let (mut speaker, mut neighbour) = settings();
    speaker.local_asn = 65002;
    neighbour.remote_asn = 65002;
    let mut machine = Machine::new(&speaker, &neighbour, false);
    machine.handle(Input::Connected);
    assert_eq!(notified(&machine.handle(open(65002, 90, "10.0.0.1", true))), Some((2, 3)));
}

#[test]
fn a_neighbour_without_capabilities_gets_ipv4_and_two_octets() {
    let (speaker, neighbour) = settings();
    let mut machine = Machine::new(&speaker, &neighbour, false);
    machine.handle(Input::Connected);
    machine.handle(open(65002, 0, "10.0.0.2", false));
    let outputs = machine.handle(Input::Received(Incoming::Keepalive));
    let negotiated = outputs.iter().find_map(|o| match o {
        Output::Established(n) => Some(n.clone()),
        _ => None,
    });
    let negotiated = negotiated.unwrap();
    assert_eq!((negotiated.families, negotiated.four_octet_as), (vec![Family::Ipv4], false));
    assert_eq!(negotiated.hold_time, 0);
}

#[test]
fn hold_expiry_stop_and_bfd_end_with_their_own_notifications() {
    assert_eq!(notified(&established().handle(Input::HoldExpired)), Some((4, 0)));
    assert_eq!(notified(&established().handle(Input::BfdDown)), Some((6, 10)));
    let outputs = established().handle(Input::Stop("moved to the other site".to_owned()));
    let text = outputs.iter().find_map(|o| match o {
        Output::Notify(notice, _) => Some((notice.code, notice.subcode, notice.text.clone())),
        _ => None,
    });
    assert_eq!(text, Some((6, 2, Some("moved to the other site".to_owned()))));
}

#[test]
fn an_update_before_the_session_is_up_is_an_fsm_error() {
    let (speaker, neighbour) = settings();
    let mut machine = Machine::new(&speaker, &neighbour, false);
    machine.handle(Input::Connected);
    let bad = Notice { code: 3, subcode: 1, text: None, data: Bytes::new() };
    assert_eq!(notified(&machine.handle(Input::Received(Incoming::BadUpdate(bad)))), Some((5, 0)));
}

#[test]
fn a_lost_connection_or_a_notification_closes_without_an_answer() {
    let outputs = established().handle(Input::ConnectionLost);
    assert_eq!((notified(&outputs), outputs.contains(&Output::Close)), (None, true));
    let cease = Notice { code: 6, subcode: 4, text: None, data: Bytes::new() };
    let outputs = established().handle(Input::Received(Incoming::Notification(cease)));
    assert_eq!((notified(&outputs), outputs.contains(&Output::Close)), (None, true));
}

proptest::proptest! {
    #[test]
    fn no_order_of_events_panics_and_only_an_accepted_open_and_a_keepalive_establish(
        steps in proptest::collection::vec(0u8..12, 0..40),
        ibgp in proptest::bool::ANY,
    ) {
        let (speaker, mut neighbour) = settings();
        if ibgp {
            neighbour.remote_asn = speaker.local_asn;
        }
        let mut machine = Machine::new(&speaker, &neighbour, false);
        let notice = Notice { code: 3, subcode: 1, text: None, data: Bytes::new() };
        let mut accepted = false;
        for step in steps {
            let outputs = machine.handle(match step {
                0 => Input::Connected,
                1 => open(neighbour.remote_asn, 9, "10.0.0.2", true),
                2 => open(1, 9, "10.0.0.2", false),
                3 | 4 => Input::Received(Incoming::Keepalive),
                5 => Input::Received(Incoming::Update(super::super::codec::UpdateSeen::default())),
                6 => Input::Received(Incoming::BadUpdate(notice.clone())),
                7 => Input::Received(Incoming::Notification(notice.clone())),
                8 => Input::Received(Incoming::Refresh(None)),
                9 => Input::HoldExpired,
                10 => Input::KeepaliveDue,
                _ => Input::ConnectionLost,
            });
            accepted |= step == 1 && machine.state() == NeighbourState::OpenConfirm;
            if outputs.iter().any(|o| matches!(o, Output::Established(_))) {
                proptest::prop_assert!(accepted && matches!(step, 3 | 4), "{outputs:?}");
            }
        }
    }
}
