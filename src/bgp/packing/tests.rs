//! Packing: exact bytes of the predecessor, sizes, order, and an independent decoder's reading.

use std::collections::BTreeMap;

use super::*;
use crate::bgp::table::Table;
use crate::config::bgp::NeighbourSettings;

fn view(ibgp: bool) -> SessionView {
    SessionView {
        local_asn: 65999,
        ibgp,
        four_octet_as: true,
        families: vec![Family::Ipv4, Family::Ipv6],
        extended_next_hop: false,
        local_address: "10.9.0.1".parse().unwrap(),
        settings: NeighbourSettings {
            next_hop_v6: Some("2001:db8::1".parse().unwrap()),
            ..NeighbourSettings::new("10.9.0.2".parse().unwrap(), 65001)
        },
    }
}

fn all(view: &SessionView, delta: Delta) -> Vec<Bytes> {
    let mut packer = Packer::new(delta);
    let messages = std::iter::from_fn(|| packer.next(view)).collect();
    assert_eq!(packer.take_refused(), []);
    messages
}

fn announce(prefixes: &[&str], attributes: RouteAttributes) -> Delta {
    let wanted: BTreeMap<IpNet, RouteAttributes> =
        prefixes.iter().map(|p| (p.parse().unwrap(), attributes.clone())).collect();
    Table::new(1, wanted.iter().map(|(p, a)| (*p, a))).since(&Table::default(), |_| true)
}

fn body(message: &Bytes) -> String {
    hex::encode(&message[19..])
}

#[test]
fn case_34_an_ebgp_route_has_the_bytes_that_the_predecessor_sends() {
    let messages = all(&view(false), announce(&["203.0.113.53/32"], RouteAttributes::default()));
    assert_eq!(messages.len(), 1);
    assert_eq!(body(&messages[0]), "00000014400101004002060201000101cf4003040a09000120cb007135");
    let gone = Delta { withdraw: vec!["203.0.113.53/32".parse().unwrap()], announce: vec![] };
    assert_eq!(body(&all(&view(false), gone)[0]), "000520cb0071350000");
}

#[test]
fn case_35_an_ibgp_route_has_an_empty_path_and_local_pref_100() {
    let messages = all(&view(true), announce(&["203.0.113.53/32"], RouteAttributes::default()));
    assert_eq!(
        body(&messages[0]),
        "00000015400101004002004003040a09000140050400000064".to_owned() + "20cb007135"
    );
}

#[test]
fn case_42_nothing_to_say_is_no_message_at_all() {
    assert!(all(&view(false), Delta::default()).is_empty());
    let never_sent = Table::default().since(&Table::default(), |_| true);
    assert!(all(&view(false), never_sent).is_empty());
}

#[test]
fn withdrawals_go_before_announcements() {
    let mut delta = announce(&["10.0.0.1/32"], RouteAttributes::default());
    delta.withdraw = vec!["10.0.0.2/32".parse().unwrap(), "2001:db8::/64".parse().unwrap()];
    let messages = all(&view(false), delta);
    assert_eq!(messages.len(), 3);
    assert!(body(&messages[0]).starts_with("0005200a000002"));
    assert!(body(&messages[1]).contains("0f"), "MP_UNREACH_NLRI");
    assert!(body(&messages[2]).ends_with("200a000001"));
}

#[test]
fn a_hundred_thousand_prefixes_fill_their_messages() {
    let wanted: Vec<IpNet> =
        (0..100_000u32).map(|n| IpNet::new(IpAddr::V4((0x0A00_0000 + n).into()), 32).unwrap()).collect();
    let attributes = RouteAttributes::default();
    let delta = Table::new(1, wanted.iter().map(|p| (*p, &attributes))).since(&Table::default(), |_| true);
    let messages = all(&view(false), delta);
    assert!(messages.iter().all(|m| m.len() <= MAX_MESSAGE));
    assert!(messages.len() <= 125, "{} messages", messages.len());
}

#[test]
fn both_families_of_one_group_are_said() {
    let messages =
        all(&view(false), announce(&["10.0.0.1/32", "2001:db8:1::/48"], RouteAttributes::default()));
    assert_eq!(messages.len(), 2);
    assert!(body(&messages[1]).contains("20010db8000000000000000000000001"), "{}", body(&messages[1]));
}

#[test]
fn a_route_without_a_next_hop_of_its_family_is_reported_and_the_rest_goes_out() {
    let mut view = view(false);
    view.settings.next_hop_v6 = None;
    let mut packer = Packer::new(announce(&["10.0.0.1/32", "2001:db8:1::/48"], RouteAttributes::default()));
    assert!(packer.next(&view).is_some());
    assert!(packer.next(&view).is_none());
    let refused = packer.take_refused();
    assert!(matches!(&refused[..], [(one, AttributeError::NoNextHop(Family::Ipv6))] if one.len() == 1));
}

#[test]
fn an_old_neighbour_gets_as_trans_and_the_true_path_beside_it() {
    let mut view = view(false);
    view.local_asn = 4_200_000_001;
    view.four_octet_as = false;
    let messages = all(&view, announce(&["10.0.0.1/32"], RouteAttributes::default()));
    let shown = body(&messages[0]);
    assert!(shown.contains("40020402015ba0"), "AS_PATH of AS_TRANS in {shown}");
    assert!(shown.contains("c011060201fa56ea01"), "AS4_PATH in {shown}");
}

#[test]
fn end_of_rib_is_what_the_rfc_says() {
    assert_eq!(body(&end_of_rib(Family::Ipv4)), "00000000");
    assert_eq!(body(&end_of_rib(Family::Ipv6)), "00000006800f03000201");
}

#[test]
fn attributes_that_fill_a_message_are_refused_and_nothing_too_long_is_made() {
    let with = |count: u32| RouteAttributes {
        communities: (0..count).map(|n| format!("1:{n}")).collect(),
        ..RouteAttributes::default()
    };
    let mut packer = Packer::new(announce(&["2001:db8:1::/128"], with(1100)));
    assert!(packer.next(&view(false)).is_none());
    assert!(matches!(&packer.take_refused()[..], [(one, AttributeError::TooLong(_))] if one.len() == 1));
    let messages = all(&view(false), announce(&["2001:db8:1::/128", "10.0.0.1/32"], with(980)));
    assert!(messages.iter().all(|m| m.len() <= MAX_MESSAGE), "{:?}", messages.iter().map(Bytes::len));
}
