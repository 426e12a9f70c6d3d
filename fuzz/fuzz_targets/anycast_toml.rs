//! The anycast configuration as TOML, of either dialect: never a panic, one problem for each thing that is wrong, and
//! the same model when the same tree comes as JSON.
//!
//! `TARGETS=anycast_toml scripts/fuzz.sh`
#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use switchover_agent::config::anycast::{environment, parse};

fuzz_target!(|text: &str| -> Corpus {
    let Ok(tree) = toml::from_str::<toml::Value>(text) else {
        // Something that is no TOML goes the way of an error; only what is close to TOML is worth keeping.
        let _ = parse(text);
        return if text.contains('=') { Corpus::Keep } else { Corpus::Reject };
    };
    let _ = environment(text);
    let read = parse(text);
    if let Err(error) = &read {
        assert!(!error.problems(Path::new("file")).is_empty());
    }
    // An empty table is an empty document, and a brace begins JSON.
    if let Ok(json) = serde_json::to_string(&tree)
        && let Ok(config) = read
    {
        assert_eq!(parse(&json).expect("the same tree as JSON"), config);
    }
    Corpus::Keep
});
