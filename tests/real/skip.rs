//! What happens when a component is not installed: a named skip, or a failure under `CI=true`.
//!
//! Owns: that one decision. Never: installs anything (that is `scripts/install-test-packages.sh`).

use std::path::Path;

/// Where each component's programs lie on Debian 12.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("patroni", &["/usr/bin/patroni", "/usr/lib/postgresql/15/bin/postgres", "/usr/bin/psql"]),
    ("etcd", &["/usr/bin/etcd", "/usr/bin/etcdctl"]),
    ("knot", &["/usr/sbin/knotd", "/usr/bin/nsupdate", "/usr/bin/dig"]),
    ("frr", &["/usr/lib/frr/bgpd", "/usr/bin/vtysh"]),
    ("bird", &["/usr/sbin/bird"]),
    ("gobgp", &["/usr/bin/gobgpd", "/usr/bin/gobgp"]),
    ("exabgp", &["/usr/sbin/exabgp"]),
    ("tftp", &["/usr/sbin/in.tftpd", "/usr/bin/tftp"]),
];

/// What a test does about a component.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there: run.
    Run,
    /// It is not there: say so and return.
    Skip(String),
    /// It is not there and may not be skipped.
    Fail(String),
}

/// The decision alone: `missing` says why the component cannot be used.
pub fn verdict(component: &str, missing: Option<String>, ci: bool) -> Verdict {
    match missing {
        None => Verdict::Run,
        Some(why) if ci => Verdict::Fail(format!("{component}: {why}; under CI=true nothing is skipped")),
        Some(why) => Verdict::Skip(format!("SKIPPED: {component}: {why}")),
    }
}

/// Whether the component can be used. Under `CI=true` a missing one panics, otherwise the skip is printed.
pub fn require(component: &str) -> bool {
    #[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting of the agent")]
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    match verdict(component, missing(component), ci) {
        Verdict::Run => true,
        Verdict::Skip(line) => {
            eprintln!("{line}");
            false
        }
        Verdict::Fail(line) => panic!("{line}"),
    }
}

fn missing(component: &str) -> Option<String> {
    let (_, files) = COMPONENTS
        .iter()
        .find(|(name, _)| *name == component)
        .unwrap_or_else(|| panic!("{component} is not in the table of components"));
    if let Some(file) = files.iter().find(|file| !Path::new(file).exists()) {
        return Some(format!("{file} is not installed"));
    }
    (!nix::unistd::geteuid().is_root()).then(|| "needs root (port 53, user postgres)".to_owned())
}
