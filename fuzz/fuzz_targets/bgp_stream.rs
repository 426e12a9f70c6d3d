//! Any bytes as a BGP stream: cut into messages, judged, and fed to a session's machine in every state.
//!
//! `TARGETS=bgp_stream scripts/fuzz.sh`
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use switchover_agent::bgp::codec::Decoder;
use switchover_agent::bgp::fsm::{Input, Machine};
use switchover_agent::config::bgp::{NeighbourSettings, SpeakerSettings};

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let neighbour = NeighbourSettings::new([10, 0, 0, 2].into(), 65002);
    let speaker = SpeakerSettings {
        router_id: [10, 0, 0, 1].into(),
        local_asn: if first & 1 == 0 { 65001 } else { 65002 },
        local_address: None,
        neighbours: Vec::new(),
    };
    let mut decoder = Decoder::new(first & 1 != 0);
    decoder.negotiated(first & 2 == 0);
    let mut machine = Machine::new(&speaker, &neighbour, first & 4 != 0);
    machine.handle(Input::Connected);
    // Markers make the fuzzer's life easy: every chunk becomes a framed message.
    let mut buffer = BytesMut::new();
    if first & 8 == 0 {
        buffer.extend_from_slice(rest);
    } else {
        for chunk in rest.chunks(usize::from(*first).max(16)) {
            let Some((kind, body)) = chunk.split_first() else { continue };
            buffer.extend_from_slice(&[0xFF; 16]);
            buffer.extend_from_slice(&(19 + body.len() as u16).to_be_bytes());
            buffer.extend_from_slice(&[kind % 6]);
            buffer.extend_from_slice(body);
        }
    }
    loop {
        match decoder.next(&mut buffer) {
            Ok(Some(message)) => drop(machine.handle(Input::Received(message))),
            Ok(None) => break,
            Err(fault) => {
                machine.handle(Input::Undecodable(fault));
                break;
            }
        }
    }
});
