//! The speaker, BFD and the announcers against FRRouting, BIRD, GoBGP and ExaBGP as Debian ships them.
//!
//! Each test makes its own network; see `tests/bgp_lab/mod.rs` for what is skipped when.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code, outside of #[test] functions")]

#[path = "../bgp_lab/mod.rs"]
mod bgp_lab;

mod bfd;
mod bird;
mod frr;
mod interop;
mod speaker;

use std::collections::BTreeMap;

use bgp_lab::{Lab, asn, until};
use switchover_agent::announce::speaker::SpeakerAnnouncer;
use switchover_agent::announce::{PrefixKey, RouteAttributes, Shutdown};
use switchover_agent::bgp::NeighbourState;
use switchover_agent::config::bgp::{NeighbourSettings, SpeakerSettings};

const OUR_ASN: u32 = 4_200_000_001;

fn neighbour(lab: &Lab, host: u8) -> NeighbourSettings {
    NeighbourSettings {
        hold_time: 9,
        retry_min_ms: 300,
        retry_max_ms: 2_000,
        next_hop_v6: Some(lab.v6(1)),
        ..NeighbourSettings::new(lab.addr(host), asn(host))
    }
}

fn settings(lab: &Lab, our_asn: u32, neighbours: Vec<NeighbourSettings>) -> SpeakerSettings {
    SpeakerSettings { router_id: lab.v4(1), local_asn: our_asn, local_address: Some(lab.addr(1)), neighbours }
}

fn speaker(lab: &Lab, our_asn: u32, neighbours: Vec<NeighbourSettings>) -> SpeakerAnnouncer {
    let settings = settings(lab, our_asn, neighbours);
    let mut problems = Vec::new();
    settings.validate("bgp", &mut problems);
    assert_eq!(problems, []);
    SpeakerAnnouncer::start("speaker", settings).unwrap()
}

fn routes(list: &[(&str, RouteAttributes)]) -> BTreeMap<PrefixKey, RouteAttributes> {
    list.iter().map(|(p, a)| (PrefixKey { prefix: p.parse().unwrap(), vrf: None }, a.clone())).collect()
}

fn plain(prefixes: &[&str]) -> BTreeMap<PrefixKey, RouteAttributes> {
    routes(&prefixes.iter().map(|p| (*p, RouteAttributes::default())).collect::<Vec<_>>())
}

async fn all_up(announcer: &SpeakerAnnouncer) {
    until("all sessions are up", async || {
        announcer.neighbours().iter().all(|n| n.state == NeighbourState::Established)
    })
    .await;
}

fn withdraw(reason: &str) -> Shutdown {
    Shutdown::Withdraw { drain_ms: 0, reason: reason.to_owned() }
}
