//! Answers of time servers: never a panic, and never a figure that is none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchover_agent::checks::ntp::read_answer;

fuzz_target!(|input: (u64, u64, bool, &[u8])| {
    let (sent, received, allow, bytes) = input;
    let origin =
        bytes.get(24..32).map_or(0, |field| u64::from_be_bytes(field.try_into().expect("eight octets")));
    if let Ok(measured) = read_answer(bytes, origin, sent, received, allow) {
        assert!(measured.offset_ms.is_finite() && measured.rtt_ms.is_finite());
    }
});
