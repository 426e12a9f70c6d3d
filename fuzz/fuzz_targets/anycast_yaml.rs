//! The anycast configuration as YAML, of either dialect: never a panic, one problem for each thing that is wrong.
//!
//! `TARGETS=anycast_yaml scripts/fuzz.sh`
#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use switchover_agent::config::anycast::{environment, parse};

fuzz_target!(|text: &str| -> Corpus {
    // JSON has its own target, and what is TOML never reaches the YAML reader.
    if text.trim_start().starts_with('{') || toml::from_str::<toml::Value>(text).is_ok() {
        return Corpus::Reject;
    }
    let _ = environment(text);
    if let Err(error) = parse(text) {
        assert!(!error.problems(Path::new("file")).is_empty());
    }
    Corpus::Keep
});
