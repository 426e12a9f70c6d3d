//! Answers of DNS servers.
#![no_main]

use hickory_proto::rr::{Name, RecordType};
use libfuzzer_sys::fuzz_target;
use switchover_agent::checks::dns::read_answer;

fuzz_target!(|bytes: &[u8]| {
    let id = bytes.get(..2).map_or(0, |head| u16::from_be_bytes([head[0], head[1]]));
    let name = Name::from_ascii("a.example.").expect("a name");
    for record_type in [RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::SOA] {
        let _ = read_answer(bytes, id, &name, record_type);
    }
});
