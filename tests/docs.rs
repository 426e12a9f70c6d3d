//! Documents and code agree: every setting is in `docs/settings.md`, every refusal in the runbook, and every file that
//! the documents name exists. `BLESS=1 cargo test --test docs` rewrites the settings table.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir).expect("readable").map(|entry| entry.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// Settings of a source file: name and the doc comment above its constant.
fn settings(text: &str) -> Vec<(String, String)> {
    let (mut doc, mut found) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("///") {
            doc.push(comment.trim().to_owned());
            continue;
        }
        let constant = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(": &str = \""));
        if let Some((_, value)) = constant {
            let name = value.trim_end_matches("\";");
            if name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
                found.push((name.to_owned(), doc.join(" ")));
            }
        }
        doc.clear();
    }
    found
}

fn settings_document() -> String {
    let mut sources = Vec::new();
    files(&root().join("src/config"), &mut sources);
    let mut sections: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for source in sources {
        let found = settings(&fs::read_to_string(&source).expect("source"));
        let below = source.strip_prefix(root().join("src/config")).expect("below").with_extension("");
        let section = below.iter().next().expect("a name").to_string_lossy().into_owned();
        sections.entry(section).or_default().extend(found);
    }
    let mut out = String::from(
        "# Settings\n\nEvery environment variable that the agent reads, by section (`src/config/`). A secret `NAME` may \
         instead be given as\n`NAME_FILE`, a file that holds it. `switchover-agent check-config` reports every problem \
         at once. This file is generated:\n`BLESS=1 cargo test --test docs`.\n",
    );
    for (section, found) in sections.into_iter().filter(|(_, found)| !found.is_empty()) {
        out.push_str(&format!("\n## {section}\n\n| variable | meaning |\n|---|---|\n"));
        for (name, doc) in found {
            out.push_str(&format!("| `{name}` | {} |\n", doc.replace('|', "\\|")));
        }
    }
    out
}

#[test]
fn the_settings_table_is_the_one_in_the_code() {
    let (path, wanted) = (root().join("docs/settings.md"), settings_document());
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &wanted).expect("writable");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/settings.md is not up to date: BLESS=1 cargo test --test docs");
}

#[test]
fn every_refusal_is_in_the_runbook() {
    let read = |file: &str| fs::read_to_string(root().join(file)).expect("source");
    let source = read("src/rules/refusal.rs") + &read("src/rules/sensors.rs");
    let runbook = fs::read_to_string(root().join("docs/runbook.md")).expect("runbook");
    let names = source.lines().filter_map(|line| line.split_once("=> \"")).map(|(_, rest)| rest);
    let names: Vec<&str> =
        names.filter_map(|rest| rest.strip_suffix("\",")).filter(|name| !name.contains(' ')).collect();
    assert!(names.len() > 20, "the refusals were found: {names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !runbook.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/runbook.md does not explain {missing:?}");
}

#[test]
fn documents_name_only_files_that_exist() {
    let mut missing = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/runbook.md"] {
        let text = fs::read_to_string(root().join(document)).expect(document);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                let base = root().join(document).parent().expect("parent").to_path_buf();
                if !base.join(target).exists() {
                    missing.push(format!("{document}: {target}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
