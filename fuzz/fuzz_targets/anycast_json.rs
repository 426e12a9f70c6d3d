//! The anycast configuration as JSON (and as a YAML flow mapping, which begins alike), of either dialect: never a
//! panic, one problem for each thing that is wrong, and the same model when the same JSON is laid out in another way.
//!
//! `TARGETS=anycast_json scripts/fuzz.sh`
#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use switchover_agent::config::anycast::{environment, parse};

fuzz_target!(|text: &str| -> Corpus {
    if !text.trim_start().starts_with('{') {
        return Corpus::Reject;
    }
    let _ = environment(text);
    match parse(text) {
        Ok(config) => {
            if let Ok(tree) = serde_json::from_str::<serde_json::Value>(text) {
                let pretty = serde_json::to_string_pretty(&tree).expect("a tree of values");
                assert_eq!(parse(&pretty).expect("the same tree"), config);
            }
        }
        Err(error) => assert!(!error.problems(Path::new("file")).is_empty()),
    }
    Corpus::Keep
});
