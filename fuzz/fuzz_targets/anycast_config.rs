//! The anycast configuration in every syntax and dialect: told by content, never a panic, one line per error.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use switchover_agent::config::anycast::{environment, parse};

fuzz_target!(|text: &str| {
    let _ = environment(text);
    if let Err(error) = parse(text) {
        assert!(!error.problems(Path::new("file")).is_empty());
    }
});
