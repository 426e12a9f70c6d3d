//! The `bird` section: the file that BIRD includes and how it is told to read it again.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::fields::Fields;

/// BIRD's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BirdSection {
    /// The file that BIRD includes.
    pub file: PathBuf,
    /// Sets of prefixes for the operator's own filter, in place of static protocols with all attributes.
    pub sets: bool,
    /// Name of the IPv4 protocol or set; `None` = the announcer's default.
    pub v4: Option<String>,
    /// Name of the IPv6 protocol or set; `None` = the announcer's default.
    pub v6: Option<String>,
    /// Prefixes that stand in the sets always, because BIRD refuses an empty one: IPv4 and IPv6.
    pub dummies: [Option<IpNet>; 2],
    /// The program.
    pub birdc: PathBuf,
    /// BIRD's control socket; `None` = its default.
    pub socket: Option<PathBuf>,
    /// Longest run time of one `birdc`.
    pub timeout: Duration,
}

/// Reads the section.
pub(super) fn read(table: &Fields<'_>) -> BirdSection {
    let sets = match table.text("style").as_deref() {
        None | Some("static") => false,
        Some("sets") => true,
        Some(other) => {
            table.problem("style", Some(&other), "one of static and sets is wanted");
            false
        }
    };
    let symbol = |key| {
        let name = table.text(key)?;
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(valid) {
            table.problem(key, Some(&name), "a symbol of BIRD: letters, digits and _");
        }
        Some(name)
    };
    let section = BirdSection {
        file: PathBuf::from(table.required("file", "the file that BIRD includes")),
        sets,
        v4: symbol("v4"),
        v6: symbol("v6"),
        dummies: ["dummy_v4", "dummy_v6"].map(|key| table.parsed(key, "a prefix is wanted")),
        birdc: PathBuf::from(table.text("birdc").unwrap_or_else(|| "/usr/sbin/birdc".to_owned())),
        socket: table.text("socket").map(PathBuf::from),
        timeout: table.duration("timeout").unwrap_or(Duration::from_secs(5)),
    };
    table.finish();
    section
}
