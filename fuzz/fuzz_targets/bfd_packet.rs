//! Any bytes as BFD control packets to one session.
//!
//! `TARGETS=bfd_packet scripts/fuzz.sh`
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use switchover_agent::bfd::{Packet, Session};
use switchover_agent::config::bgp::BfdSettings;

fuzz_target!(|data: &[u8]| {
    let mut now = Instant::now();
    let mut session = Session::new(BfdSettings::default(), 1, now);
    for chunk in data.chunks(24) {
        if let Ok(packet) = Packet::decode(chunk) {
            assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            session.received(&packet, now, 0.5);
        }
        now += Duration::from_millis(u64::from(chunk[0]));
        session.poll(now, 0.5);
        assert!(session.next_deadline() >= now);
    }
});
