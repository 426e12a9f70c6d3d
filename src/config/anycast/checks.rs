//! One configured check: its schedule, its window, and the hand-over to its kind's reader.

use std::time::Duration;

use super::fields::Fields;
use super::service::Defaults;
use super::{ConfiguredCheck, check_kinds, native_kinds};
use crate::checks::{CheckSpec, Retry};

/// Where a check's keys stand.
pub(super) struct Home<'a, 'b> {
    /// Table of the schedule.
    pub(super) schedule: &'a Fields<'b>,
    /// Table of what to test.
    pub(super) spec: &'a Fields<'b>,
    /// Both are the same table (Python form): `interval` is the schedule's, and a pause between tries is called
    /// `retry_interval`.
    pub(super) flat: bool,
}

/// Every kind with the key that a bare text stands for in the Python form.
const KINDS: [(&str, &str); 15] = [
    ("assigned_address", "ipv4"),
    ("cabourotte", "name"),
    ("command", "command"),
    ("dns", "query"),
    ("dns_lookup", "query"),
    ("file", "path"),
    ("http", "url"),
    ("http_2xx", "url"),
    ("icmp_ping", "host"),
    ("ntpq", "server"),
    ("process", "pid_file"),
    ("tcp", "target"),
    ("tftp_rrq", "url"),
    ("tls", "target"),
    ("tls_certificate", "path"),
];

/// The key that a bare text stands for; `None` = there is no such kind.
pub(super) fn shorthand(kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, key)| *key)
}

/// What to say about a kind that is not known.
pub(super) fn unknown_kind() -> String {
    format!("the check type is not known; known: {}", KINDS.map(|(name, _)| name).join(", "))
}

/// What a kind's reader hands back.
pub(super) struct Kind {
    pub(super) spec: CheckSpec,
    /// The longest that a run takes by its own limits.
    pub(super) longest: Duration,
    /// What the schedule looks like where nothing is said.
    pub(super) habit: Habit,
}

/// Defaults of the schedule and the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// As the predecessors: every result counts at once.
    Predecessor,
    /// Ours: two results in a row, the second one soon after the first.
    Native,
}

/// Reads one check; `None` where its kind's own keys make no sense (the problems are remembered).
pub(super) fn read(
    kind: &str,
    name: Option<String>,
    home: &Home<'_, '_>,
    defaults: &Defaults,
    siblings: &[ConfiguredCheck],
) -> Option<ConfiguredCheck> {
    let table = home.schedule;
    let interval = table.duration("interval");
    let interval = interval.or(defaults.interval).unwrap_or(match kind {
        "cabourotte" => Duration::from_secs(5),
        _ => Duration::from_secs(1),
    });
    // The Python predecessor's zero means "as often as possible", which was every 50 ms.
    let interval = interval.max(Duration::from_millis(50));
    let read = match kind {
        "assigned_address" | "cabourotte" | "dns_lookup" | "http_2xx" | "icmp_ping" | "ntpq" | "tftp_rrq"
        | "tls_certificate" => check_kinds::read(kind, home, interval),
        _ => native_kinds::read(kind, home),
    };
    let window = |key| table.integer(key, 1, 1000).map(|value| value as u32);
    let (rise, fall, fast) = (window("rise"), window("fall"), table.duration("fast_interval"));
    let (group, advisory) = (table.text("group").unwrap_or_default(), table.flag("advisory", false));
    let deadline = table.duration("deadline");
    let read = read?;
    let usual = match read.habit {
        Habit::Predecessor => 1,
        Habit::Native => 2,
    };
    let usual_fast = match read.habit {
        Habit::Predecessor => interval,
        Habit::Native => (interval / 5).max(Duration::from_millis(50)),
    };
    let base = name.unwrap_or_else(|| match &read.spec {
        CheckSpec::Cabourotte(spec) => spec.name.clone(),
        _ => kind.to_owned(),
    });
    let taken = siblings
        .iter()
        .filter(|sibling| sibling.name == base || sibling.name.starts_with(&format!("{base}#")));
    let name = match taken.count() {
        0 => base,
        others => format!("{base}#{}", others + 1),
    };
    Some(ConfiguredCheck {
        name,
        kind: kind.to_owned(),
        group,
        advisory,
        interval,
        fast_interval: fast.unwrap_or(usual_fast).clamp(Duration::from_millis(10), interval),
        // A backstop behind the kind's own limits, which have the better messages.
        deadline: deadline.unwrap_or(read.longest + Duration::from_millis(200)).max(Duration::from_millis(1)),
        rise: rise.unwrap_or(usual),
        fall: fall.unwrap_or(usual),
        spec: read.spec,
    })
}

/// Tries, pause and limit of a kind that retries. `required` = the Go predecessor's kinds have no defaults.
pub(super) fn retry(home: &Home<'_, '_>, required: bool) -> Retry {
    let table = home.spec;
    let pause_key = if home.flat { "retry_interval" } else { "interval" };
    let required = required && !home.flat;
    if required && !table.has("tries") {
        table.problem("tries", None, "cannot be blank: a number from 1 to 255");
    }
    let tries = table.integer("tries", 1, 255).unwrap_or(1) as u8;
    let (interval, timeout) = if required {
        (table.required_duration(pause_key), table.required_duration("timeout"))
    } else {
        let timeout = table.duration("timeout").unwrap_or(Duration::from_secs(1));
        (table.duration(pause_key).unwrap_or(Duration::from_millis(100)), timeout)
    };
    Retry { tries, interval, timeout: timeout.max(Duration::from_millis(1)) }
}

/// The limit of a kind that has one try.
pub(super) fn timeout(home: &Home<'_, '_>, default: Duration) -> Duration {
    home.spec.duration("timeout").unwrap_or(default).max(Duration::from_millis(1))
}

/// `HOST:PORT`, with brackets around an IPv6 address.
pub(super) fn host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(())?;
    Some((host.to_owned(), port.parse().ok()?))
}
