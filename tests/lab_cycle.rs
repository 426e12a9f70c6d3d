//! The README's first command, on free ports: exit 0 and a timeline of all three transitions at both sites.

use std::process::Command;

#[test]
fn the_cycle_ends_well_and_tells_what_it_did() {
    let output = Command::new(env!("CARGO_BIN_EXE_switchover-agent"))
        .args(["lab", "--cycle", "--free-ports"])
        .env_remove("LOG_LEVEL")
        .output()
        .expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    for transition in ["golddr-primary", "gold-standby", "active-passive"] {
        for site in ["gold", "golddr"] {
            let begun = text.lines().any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.get(2..5) == Some(&[site, transition, "begins"][..])
            });
            assert!(begun, "{transition} at {site}\n{text}");
        }
        assert!(text.contains(&format!("both sites are in {transition}, settled")), "{text}");
    }
}
