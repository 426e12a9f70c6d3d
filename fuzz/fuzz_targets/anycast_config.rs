//! The anycast configuration in every syntax and dialect: told by content, never a panic, one line per error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchover_agent::config::anycast::parse;

fuzz_target!(|text: &str| {
    if let Err(error) = parse(text) {
        assert!(!error.problems().is_empty());
    }
});
