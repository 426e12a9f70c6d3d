//! Holds src/ to its own rules: sizes, headers, layers, forbidden words and names. Prints all offenders at once.

use std::path::{Path, PathBuf};

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;
const WIDTH: usize = 110;
/// Comments may be wider: rustfmt does not wrap them, and tables need the room.
const COMMENT_WIDTH: usize = 130;
/// Files that may be longer than [`FILE_LINES`], each with a reason beside it.
const LONG_FILES: &[&str] = &[];
/// What decisions and vocabulary never mention.
const IMPURE: &[&str] = &[
    "tokio",
    "reqwest",
    "kube::",
    "k8s_openapi",
    "std::time::Instant",
    "SystemTime",
    "std::time::{",
    "rand::",
    "HashMap",
    "HashSet",
    "std::net::Tcp",
    "std::fs",
    "std::process",
    "std::env",
    "std::thread",
];
/// Modules from the lowest layer up; one never imports a module of a higher layer.
const LAYERS: &[&[&str]] = &[
    &["model"],
    &["rules", "plan"],
    &["adapters", "announce", "bfd", "bgp", "checks", "journal", "peer"],
    &["bus", "http", "tasks", "telemetry"],
    &["agent", "cli", "lab", "verify"],
];
/// Functions that are one list: an arm or a line for each of something.
const FLAT_FUNCTIONS: &[(&str, &str)] =
    &[("telemetry/log.rs", "fn note_line("), ("telemetry/metrics.rs", "fn new(")];
const FORBIDDEN_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "misc"];

/// The line without its comment; text inside quotation marks goes too.
fn code(line: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::new(), false, false);
    let line = line.replace("'\"'", "' '").replace("'{'", "' '").replace("'}'", "' '");
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            _ if !quoted => out.push(c),
            _ => {}
        }
    }
    out
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&module))
}

fn check_size(path: &str, text: &str, found: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > FILE_LINES && !LONG_FILES.contains(&path) {
        found.push(format!("{path}: {lines} lines, {FILE_LINES} allowed"));
    }
    for (n, line) in text.lines().enumerate() {
        let comment = line.trim_start().starts_with("//");
        let table = ["//! |", "r#\""].iter().any(|start| line.trim_start().starts_with(start));
        let allowed = if comment { COMMENT_WIDTH } else { WIDTH };
        // rustfmt breaks code, not the texts in it, and a row of a table or a raw text is one line.
        let columns = if table {
            0
        } else if comment {
            line.chars().count()
        } else {
            code(line).chars().count()
        };
        if columns > allowed {
            found.push(format!("{path}:{}: {columns} columns, {allowed} allowed", n + 1));
        }
    }
    if !text.starts_with("//!") {
        found.push(format!("{path}: no //! header"));
    }
}

fn check_functions(path: &str, text: &str, found: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let words = code(line);
        if !words.split_whitespace().any(|word| word == "fn") || words.contains("fn(") {
            continue;
        }
        // rustfmt puts the closing brace of an item in the column where the item begins.
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let ends = |l: &&str| {
            *l == format!("{indent}}}")
                || (l.starts_with(&indent)
                    && code(l).ends_with(';')
                    && l.len() > indent.len()
                    && !l[indent.len()..].starts_with(' '))
        };
        let opens = words.trim_end().ends_with('{') || words.trim_end().ends_with('(');
        let Some(length) = lines[start..].iter().position(ends) else { continue };
        let flat = FLAT_FUNCTIONS.iter().any(|(file, name)| *file == path && words.contains(name));
        if opens && length + 1 > FUNCTION_LINES && !flat {
            found.push(format!(
                "{path}:{}: function of {} lines, {FUNCTION_LINES} allowed",
                start + 1,
                length + 1
            ));
        }
    }
}

fn check_words(path: &str, text: &str, found: &mut Vec<String>) {
    for (n, line) in text.lines().enumerate() {
        let marked = ["TODO", "FIXME", "XXX:"].iter().any(|word| line.contains(word));
        let unfinished = ["unimplemented!", "todo!"].iter().any(|word| code(line).contains(word));
        if marked || unfinished {
            found.push(format!("{path}:{}: unfinished: {}", n + 1, line.trim()));
        }
    }
    let path_ = Path::new(path);
    if path_.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| FORBIDDEN_NAMES.contains(&stem)) {
        found.push(format!("{path}: a name that says nothing"));
    }
}

fn check_layers(path: &str, text: &str, found: &mut Vec<String>) {
    let module = path.split('/').next().unwrap_or(path).trim_end_matches(".rs");
    let Some(own) = layer(module) else { return };
    // A file's tests come last and may use anything.
    for (n, line) in text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]")) {
        let code = code(line);
        let pure = matches!(module, "model" | "rules" | "plan");
        for word in IMPURE.iter().filter(|word| pure && code.contains(**word)) {
            found.push(format!("{path}:{}: decisions never mention {word}", n + 1));
        }
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            let used: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let adapter_decides = module == "adapters" && used == "plan";
            let pure_reads_settings = pure && used == "config";
            if layer(&used).is_some_and(|other| other > own) || adapter_decides || pure_reads_settings {
                found.push(format!("{path}:{}: {module} never imports {used}", n + 1));
            }
        }
    }
}

fn check(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rule in [check_size, check_functions, check_words, check_layers] {
        rule(path, text, &mut found);
    }
    found
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("readable directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn the_source_tree_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 10, "src/ was read");
    let found: Vec<String> = paths
        .iter()
        .flat_map(|path| {
            let name = path.strip_prefix(&root).expect("inside src").to_str().expect("utf-8");
            check(name, &std::fs::read_to_string(path).expect("readable file"))
        })
        .collect();
    assert!(found.is_empty(), "{} offenders:\n{}", found.len(), found.join("\n"));
}

fn complains(path: &str, text: &str, about: &str) {
    let found = check(path, text);
    assert!(found.iter().any(|line| line.contains(about)), "{about:?} not in {found:?}");
}

#[test]
fn each_rule_finds_its_offender() {
    complains("peer/a.rs", &"//! x\n".repeat(401), "401 lines");
    complains("peer/a.rs", &format!("//! x\nconst A: u8 = {};\n", "1".repeat(110)), "110 allowed");
    complains("peer/a.rs", "fn a() {}\n", "header");
    complains("peer/a.rs", &format!("//! x\nfn a() {{\n{}}}\n", "    b();\n".repeat(80)), "82 lines");
    let method = format!(
        "//! x\nimpl A {{\n    fn a(\n        b: u8,\n    ) {{\n{}    }}\n}}\n",
        "        b();\n".repeat(80)
    );
    complains("peer/a.rs", &method, "function of 84 lines");
    complains("peer/a.rs", "//! x\n// TODO later\n", "unfinished");
    complains("peer/a.rs", "//! x\nfn a() { todo!() }\n", "unfinished");
    complains("peer/util.rs", "//! x\n", "says nothing");
    complains("rules/a.rs", "//! x\nuse tokio::time;\n", "never mention tokio");
    complains("plan/a.rs", "//! x\nuse std::collections::HashMap;\n", "never mention HashMap");
    complains("model/a.rs", "//! x\nuse std::time::Instant;\n", "never mention std::time::Instant");
    complains("rules/a.rs", "//! x\nuse crate::adapters::kube;\n", "never imports adapters");
    complains("rules/a.rs", "//! x\nuse crate::config::Reader;\n", "never imports config");
    complains("adapters/a.rs", "//! x\nuse crate::plan::Step;\n", "never imports plan");
    complains("peer/a.rs", "//! x\nuse crate::tasks::Task;\n", "never imports tasks");
}

#[test]
fn good_code_passes() {
    let text =
        "//! x\nuse crate::model::Site;\n\nfn a() -> &'static str {\n    \"tokio // TODO-free {\"\n}\n";
    assert_eq!(check("rules/a.rs", &text.replace("TODO-free", "text")), Vec::<String>::new());
    let test_part = "//! x\n#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}\n";
    assert_eq!(check("rules/a.rs", test_part), Vec::<String>::new());
}

#[test]
fn only_the_rules_and_the_checker_name_a_seeded_fault() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let may = |name: &str| ["rules/", "verify/", "cli/verify.rs"].iter().any(|start| name.starts_with(start));
    for path in paths {
        let name = path.strip_prefix(&root).expect("inside src").to_str().expect("utf-8").to_owned();
        let text = std::fs::read_to_string(&path).expect("readable file").to_lowercase();
        assert!(may(&name) || !text.contains("mutant"), "{name} names a seeded fault");
    }
}
