//! The Go predecessor's strategies, from the words in its file to what is announced.

use super::*;

/// A service whose checks are files: `group/name`, with `+` before those that are there.
fn file(strategy: &str, checks: &[&str]) -> String {
    let mut text = GO.split_once("services:").unwrap().0.to_owned();
    text.push_str("services:\n  - name: s\n    check_interval: 50ms\n    prefixes: [\"192.0.2.1/32\"]\n");
    text.push_str(strategy);
    text.push_str("    checks:\n");
    for check in checks {
        let (group, name) = check[1..].split_once('/').unwrap();
        let group = if group.is_empty() { String::new() } else { format!(", group: {group}") };
        text.push_str(&format!("      - {{ kind: file, spec: {{ path: \"{{DIR}}/{name}\" }}{group} }}\n"));
    }
    format!("{text}metrics: {{ enabled: false }}\n")
}

#[tokio::test]
async fn case_32_each_strategy_of_the_file_takes_the_service_down_when_its_table_says() {
    let none = "";
    let one = "    strategy: at_least_one\n";
    let all = "    strategy: all\n";
    let group = "    strategy: all_in_group\n";
    let half = "    strategy: at_least_n_percentage\n    strategy_options: { n: 0.5 }\n";
    let zero = "    strategy: at_least_n_percentage\n    strategy_options: {}\n";
    let rows: [(&str, &[&str], &str); 15] = [
        (none, &["+/a", "+/b"], "UP"),
        (none, &["+/a", "-/b"], "DOWN"),
        (one, &["+/a", "+/b"], "UP"),
        (one, &["+/a", "-/b"], "DOWN"),
        (all, &["+/a", "-/b"], "UP"),
        (all, &["-/a", "-/b"], "DOWN"),
        (group, &["+g1/a", "-g2/b", "+g2/c"], "UP"),
        (group, &["+g1/a", "-g2/b", "-g2/c"], "DOWN"),
        (group, &["-g1/a"], "DOWN"),
        // Checks without a group are a group too.
        (group, &["+g1/a", "-/b", "-/c"], "DOWN"),
        (group, &["+g1/a", "-/b", "+/c"], "UP"),
        (half, &["+/a", "+/b", "-/c", "-/d"], "UP"),
        (half, &["+/a", "-/b", "-/c", "-/d"], "DOWN"),
        (zero, &["+/a", "+/b"], "UP"),
        (zero, &["+/a", "-/b"], "DOWN"),
    ];
    for (strategy, checks, want) in rows {
        let there: Vec<&str> = checks
            .iter()
            .filter_map(|check| check.strip_prefix('+')?.split_once('/'))
            .map(|(_, name)| name)
            .collect();
        // The kind `file` counts two results in a row; the states on the way say nothing yet.
        let lab = Lab::start(&file(strategy, checks), &there);
        lab.state("s", want).await;
        if want == "UP" {
            lab.announced(&["192.0.2.1/32"]).await;
        }
        runs(&lab, "s", "file", 6.0).await;
        let status = lab.control.status().await.unwrap();
        assert_eq!(status.services[0].state, want, "{strategy} {checks:?}");
        assert_eq!(lab.recording.prefixes().is_empty(), want == "DOWN", "{strategy} {checks:?}");
    }
    // Without options the predecessor does not start, and no more do we.
    let without = file("    strategy: at_least_n_percentage\n", &["+/a"]).replace("{DIR}", "/");
    assert!(parse(&without).unwrap_err().to_string().contains("strategy_options"));
}
