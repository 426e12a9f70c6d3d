//! Files that cannot be used: the predecessor's exit codes from the real binary, `run` and `check-config` alike.

use std::path::Path;

use crate::binary;

/// Exit codes of `run` and `check-config`, and what `run` says.
fn refused(path: &Path) -> (Option<i32>, Option<i32>, String) {
    let path = path.to_str().unwrap();
    let run = binary(&["run", "--config", path]);
    let check = binary(&["check-config", "--config", path]);
    assert_eq!(run.stderr, check.stderr, "check-config says what run says");
    (run.status.code(), check.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
}

const GOOD: &str = "[services.a]\nprefixes.frrouting = [\"192.0.2.1\"]\nchecks.cabourotte = [\"dns\"]\n";

#[test]
fn case_15_and_16_the_predecessors_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let missing = refused(&folder.path().join("none.toml"));
    assert_eq!((missing.0, missing.1), (Some(66), Some(66)), "{}", missing.2);
    let directory = refused(folder.path());
    assert_eq!((directory.0, directory.1), (Some(74), Some(74)), "{}", directory.2);
    let replaced = |old: &str, new: &str| GOOD.replacen(old, new, 1);
    let wrong = [
        ("syntax", "[services".to_owned(), "TOML"),
        ("no services", "[other]\n".to_owned(), "services"),
        ("unknown key", replaced("\"dns\"", "{ name = \"dns\", nam = 1 }"), "nam"),
        ("host bits", replaced("192.0.2.1", "192.0.2.1/24"), "host bits"),
        ("vrf", replaced("\"192.0.2.1\"", "{ prefix = \"192.0.2.1\", vrf = 1 }"), "vrf"),
        ("prefix type", replaced("frrouting", "quagga"), "quagga"),
        ("prefixes", replaced("prefixes.frrouting = [\"192.0.2.1\"]", "prefixes = 5"), "prefixes"),
        ("a text for a list", replaced("[\"dns\"]", "\"dns\""), "cabourotte"),
        ("no checks", replaced("checks.cabourotte = [\"dns\"]", "checks = {}"), "checks"),
    ];
    for (what, text, named) in wrong {
        let path = folder.path().join("config.toml");
        std::fs::write(&path, &text).unwrap();
        let (run, check, said) = refused(&path);
        assert_eq!((run, check), (Some(65), Some(65)), "{what}: {said}");
        assert!(said.contains(named), "{what}: {named} in {said}");
        assert!(said.lines().count() <= 3, "{what}: a line for each thing: {said}");
    }
    let path = folder.path().join("config.toml");
    std::fs::write(&path, GOOD).unwrap();
    assert_eq!(binary(&["check-config", "-c", path.to_str().unwrap()]).status.code(), Some(0));
}

#[test]
fn settings_of_the_environment_and_the_files_env_table_are_judged_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let run = |text: &str, env: &[(&str, &str)]| {
        std::fs::write(&path, text).unwrap();
        let output = std::process::Command::new(crate::BINARY)
            .args(["check-config", "--config", path.to_str().unwrap()])
            .env_clear()
            .envs(env.iter().copied())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // A wrong level beside a wrong file: both are told, and it is no longer the file's fault alone.
    let (code, said) = run(&GOOD.replace("\"dns\"", "5"), &[("LOG_LEVEL", "shout")]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("LOG_LEVEL=\"shout\"") && said.contains("cabourotte[0]"), "{said}");
    // The file's own table is the lowest layer.
    let with_table = format!("{GOOD}[env]\nLOG_LEVEL = \"shout\"\n");
    assert_eq!(run(&with_table, &[]).0, Some(78));
    assert_eq!(run(&with_table, &[("LOG_LEVEL", "debug")]), (Some(0), String::new()));
    // A file that only has settings starts the agent of a site, which lacks others.
    let (code, said) = run("[env]\nLOG_LEVEL = \"info\"\n", &[]);
    assert_eq!(code, Some(78));
    assert!(said.contains("KUBE_CLUSTER is not set"), "{said}");
    // With a site's settings the site's tasks run too, and miss what they need.
    let (code, said) = run(GOOD, &[("KUBE_CLUSTER", "gold"), ("ENVIRONMENT", "dev")]);
    assert_eq!(code, Some(78));
    assert!(said.contains("GSLB_DOMAIN is not set"), "{said}");
    for level in ["panic", "fatal", "warning", "TRACE"] {
        assert_eq!(run(GOOD, &[("LOG_LEVEL", level)]).0, Some(0), "{level}");
    }
    for format in ["human", "JSON", "logfmt"] {
        assert_eq!(run(GOOD, &[("LOG_FORMAT", format)]).0, Some(0), "{format}");
    }
}
