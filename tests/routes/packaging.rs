//! The installer, the unit and the example of settings: nothing live is ever deleted, and every name is known.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn install(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(root().join("scripts/install-routes.sh"))
        .args(arguments)
        .arg("--root")
        .arg(folder)
        .arg("--binary")
        .arg(env!("CARGO_BIN_EXE_switchover-agent"))
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn the_installer_never_touches_a_live_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    install(folder.path(), &[]);
    assert!(at("etc/systemd/system/switchover-routes.service").exists());
    assert!(at("etc/logrotate.d/switchover-routes").exists());
    std::fs::write(at("etc/switchover-routes/routes.env"), "LIVE=1\n").unwrap();
    std::fs::write(at("etc/switchover-routes/gcp-key.json"), "{}").unwrap();
    let said = install(folder.path(), &[]);
    assert!(said.contains("kept"), "{said}");
    install(folder.path(), &["--uninstall"]);
    assert!(!at("etc/systemd/system/switchover-routes.service").exists());
    assert_eq!(std::fs::read_to_string(at("etc/switchover-routes/routes.env")).unwrap(), "LIVE=1\n");
    assert!(at("etc/switchover-routes/gcp-key.json").exists());
}

#[test]
fn the_example_and_the_unit_set_only_what_is_read() {
    let known = std::fs::read_to_string(root().join("docs/settings.md")).unwrap();
    let names = |file: &str, start: &str| -> Vec<String> {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(start) && line.contains('='));
        let pairs = lines.flat_map(|line| line.trim_start_matches("Environment=").split_whitespace());
        pairs.filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.to_owned()).collect()
    };
    let mut all = names("systemd/switchover-routes.service", "Environment=");
    let example = names("systemd/switchover-routes.env.example", "");
    all.extend(example.into_iter().filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')));
    assert!(all.len() > 15, "{all:?}");
    for name in all {
        let bare = name.strip_suffix("_FILE").unwrap_or(&name);
        let is_known = [name.as_str(), bare].iter().any(|name| known.contains(&format!("| `{name}` |")));
        assert!(is_known, "{name} is read by nobody");
    }
}

#[test]
fn the_example_of_settings_is_good_and_a_misspelt_name_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.json");
    std::fs::write(&key, "{}").unwrap();
    let example = std::fs::read_to_string(root().join("systemd/switchover-routes.env.example")).unwrap();
    let file = folder.path().join("routes.env");
    std::fs::write(&file, format!("{example}GCP_API_TIMOUT=5\nCLOUDFLARE_API_TOKEN=t   # a comment\n"))
        .unwrap();
    let check = |extra: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_switchover-agent"))
            .arg("--env-file")
            .arg(&file)
            .args(["routes", "--check"])
            .env_clear()
            .env("GOOGLE_APPLICATION_CREDENTIALS", &key)
            .env("STRUCTURED_LOG_FILE", folder.path().join("events.jsonl"))
            .envs(extra.iter().copied())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = check(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("GCP_API_TIMOUT"), "{said}");
    assert!(said.contains("comment behind its value"), "{said}");
    let (code, said) = check(&[("HEALTH_CHECK_WINDOW", "11"), ("MIN_STATE_DWELL_TIME", "20")]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("HEALTH_CHECK_WINDOW") && said.contains("MIN_STATE_DWELL_TIME"), "{said}");
}
