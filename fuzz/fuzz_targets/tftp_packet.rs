//! Packets of TFTP servers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchover_agent::checks::tftp::{Packet, read_packet};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Packet::Data(_, block)) = read_packet(bytes) {
        assert!(block.len() <= 512);
    }
});
