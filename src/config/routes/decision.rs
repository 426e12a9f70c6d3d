//! Settings of the decision: windows, verification, dwell time, and what the predecessor could not be told.

use std::collections::BTreeSet;

use crate::config::Reader;
use crate::model::Side;
use crate::rules::route_health::grade::EmptyRegion;
use crate::rules::route_health::{BgpUp, RemoteLostAction, RoutePolicy, WithdrawGuard};

/// Whether routes are only watched and never changed; a value that cannot be read counts as on.
pub const RUN_PASSIVE: &str = "RUN_PASSIVE";
/// Samples in the window of a region, 3 to 10 (default 5).
pub const HEALTH_CHECK_WINDOW: &str = "HEALTH_CHECK_WINDOW";
/// Healthy samples that make a region healthy, 1 to 10 and less than the window (default 3).
pub const HEALTH_CHECK_THRESHOLD: &str = "HEALTH_CHECK_THRESHOLD";
/// Whether a region is left below 2 healthy samples and comes back at 4; needs a window of 4 or more.
pub const ASYMMETRIC_HYSTERESIS: &str = "ASYMMETRIC_HYSTERESIS";
/// Samples in the window of the BGP sessions, 1 to 10 (default: as `HEALTH_CHECK_WINDOW`).
pub const BGP_CHECK_WINDOW: &str = "BGP_CHECK_WINDOW";
/// Good samples that make the sessions count as up, 1 to the window (default: more than half).
pub const BGP_CHECK_THRESHOLD: &str = "BGP_CHECK_THRESHOLD";
/// Detections before state 1 applies, 1 to 10 (default 1).
pub const STATE_1_VERIFICATION_THRESHOLD: &str = "STATE_1_VERIFICATION_THRESHOLD";
/// Detections before state 2 applies, 1 to 10 (default 2).
pub const STATE_2_VERIFICATION_THRESHOLD: &str = "STATE_2_VERIFICATION_THRESHOLD";
/// Detections before state 3 (and a takeover of a dead region) applies, 1 to 10 (default 2).
pub const STATE_3_VERIFICATION_THRESHOLD: &str = "STATE_3_VERIFICATION_THRESHOLD";
/// Detections before state 4 applies, 1 to 10 (default 2).
pub const STATE_4_VERIFICATION_THRESHOLD: &str = "STATE_4_VERIFICATION_THRESHOLD";
/// Detections before state 5 applies, 1 to 10 (default 2).
pub const STATE_5_VERIFICATION_THRESHOLD: &str = "STATE_5_VERIFICATION_THRESHOLD";
/// Detections before state 6 applies, 1 to 10 (default 2).
pub const STATE_6_VERIFICATION_THRESHOLD: &str = "STATE_6_VERIFICATION_THRESHOLD";
/// Shortest stay in a state in seconds, 30 to 600 (default 120).
pub const MIN_STATE_DWELL_TIME: &str = "MIN_STATE_DWELL_TIME";
/// States that may be entered and left at once, a comma list of 0 to 6 (default `1,4`).
pub const DWELL_TIME_EXCEPTION_STATES: &str = "DWELL_TIME_EXCEPTION_STATES";
/// `takeover` (default) or `hold`: what a wholly dead other region means.
pub const REMOTE_LOST_ACTION: &str = "REMOTE_LOST_ACTION";
/// `unknown` (default), `healthy` or `unhealthy`: what a region without backends means.
pub const EMPTY_REGION_POLICY: &str = "EMPTY_REGION_POLICY";
/// Least share of healthy instances of every service in percent, 1 to 100 (default 100).
pub const MIN_HEALTHY_PERCENT: &str = "MIN_HEALTHY_PERCENT";
/// `any` (default), `all` or a number: how many BGP sessions of the other router must be up.
pub const BGP_UP_POLICY: &str = "BGP_UP_POLICY";
/// Writes in an hour that may take routes away, 4 to 1000; not set = any number. Announcing is never refused.
pub const MAX_WRITES_PER_HOUR: &str = "MAX_WRITES_PER_HOUR";
/// `auto` (default): no prefix is taken back while the other router shows what it announces and the prefix is not there;
/// `strict`: nor while it shows nothing; `off`: always.
pub const WITHDRAW_GUARD: &str = "WITHDRAW_GUARD";

/// Reads the section; the interval is the caller's.
pub fn read(reader: &mut Reader<'_>, side: Side) -> RoutePolicy {
    let window = reader.integer(HEALTH_CHECK_WINDOW, 5, 3, 10);
    let threshold = reader.integer(HEALTH_CHECK_THRESHOLD, 3, 1, 10);
    if threshold >= window {
        let want = format!("less than {HEALTH_CHECK_WINDOW} ({window})");
        reader.problem(HEALTH_CHECK_THRESHOLD, Some(&threshold.to_string()), want);
    }
    let asymmetric = reader.flag(ASYMMETRIC_HYSTERESIS, false);
    if asymmetric && window < 4 {
        let want =
            format!("4 or more with {ASYMMETRIC_HYSTERESIS}: a region comes back at 4 healthy samples");
        reader.problem(HEALTH_CHECK_WINDOW, Some(&window.to_string()), want);
    }
    let bgp_window = reader.integer(BGP_CHECK_WINDOW, window, 1, 10);
    let bgp_threshold = reader.integer(BGP_CHECK_THRESHOLD, bgp_window / 2 + 1, 1, bgp_window);
    let usual = RoutePolicy::new(side);
    RoutePolicy {
        window: window as usize,
        threshold: threshold as usize,
        asymmetric,
        bgp_window: bgp_window as usize,
        bgp_threshold: bgp_threshold as usize,
        verification: verification(reader),
        dwell_ms: reader.integer(MIN_STATE_DWELL_TIME, 120, 30, 600) * 1000,
        dwell_exceptions: exceptions(reader),
        remote_lost: word(
            reader,
            REMOTE_LOST_ACTION,
            RemoteLostAction::Takeover,
            &[("takeover", RemoteLostAction::Takeover), ("hold", RemoteLostAction::Hold)],
        ),
        // A word that nobody understands must not make the agent write.
        passive: passive(reader),
        writes_per_hour: reader
            .text(MAX_WRITES_PER_HOUR)
            .is_some()
            .then(|| u32::try_from(reader.integer(MAX_WRITES_PER_HOUR, 4, 4, 1000)).unwrap_or(4)),
        guard: word(
            reader,
            WITHDRAW_GUARD,
            WithdrawGuard::Auto,
            &[("auto", WithdrawGuard::Auto), ("strict", WithdrawGuard::Strict), ("off", WithdrawGuard::Off)],
        ),
        min_healthy_percent: reader.integer(MIN_HEALTHY_PERCENT, 100, 1, 100) as u32,
        empty_region: word(
            reader,
            EMPTY_REGION_POLICY,
            EmptyRegion::Unknown,
            &[
                ("unknown", EmptyRegion::Unknown),
                ("healthy", EmptyRegion::Healthy),
                ("unhealthy", EmptyRegion::Unhealthy),
            ],
        ),
        bgp_up: bgp_up(reader),
        ..usual
    }
}

fn passive(reader: &mut Reader<'_>) -> bool {
    reader.flag(RUN_PASSIVE, false) || {
        let known = ["true", "1", "yes", "on", "false", "0", "no", "off"];
        reader.text(RUN_PASSIVE).is_some_and(|text| !known.contains(&text.to_ascii_lowercase().as_str()))
    }
}

fn verification(reader: &mut Reader<'_>) -> [u32; 6] {
    [
        (STATE_1_VERIFICATION_THRESHOLD, 1),
        (STATE_2_VERIFICATION_THRESHOLD, 2),
        (STATE_3_VERIFICATION_THRESHOLD, 2),
        (STATE_4_VERIFICATION_THRESHOLD, 2),
        (STATE_5_VERIFICATION_THRESHOLD, 2),
        (STATE_6_VERIFICATION_THRESHOLD, 2),
    ]
    .map(|(name, default)| reader.integer(name, default, 1, 10) as u32)
}

fn exceptions(reader: &mut Reader<'_>) -> BTreeSet<u8> {
    let Some(list) = reader.list(DWELL_TIME_EXCEPTION_STATES) else { return BTreeSet::from([1, 4]) };
    let mut states = BTreeSet::new();
    for text in list {
        match text.parse::<u8>() {
            Ok(state) if state <= 6 => {
                states.insert(state);
            }
            _ => reader.problem(DWELL_TIME_EXCEPTION_STATES, Some(&text), "numbers of states, 0 to 6"),
        }
    }
    states
}

fn bgp_up(reader: &mut Reader<'_>) -> BgpUp {
    match reader.text(BGP_UP_POLICY).map(|text| text.to_ascii_lowercase()).as_deref() {
        None | Some("any") => BgpUp::Any,
        Some("all") => BgpUp::All,
        Some(text) => match text.parse::<u32>() {
            Ok(number) if number > 0 => BgpUp::AtLeast(number),
            _ => {
                reader.problem(BGP_UP_POLICY, Some(text), "any, all or a number from 1");
                BgpUp::Any
            }
        },
    }
}

/// One of a few words; the first is the default.
fn word<T: Copy>(reader: &mut Reader<'_>, name: &str, default: T, words: &[(&str, T)]) -> T {
    let Some(text) = reader.text(name).map(|text| text.to_ascii_lowercase()) else { return default };
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return *value;
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    reader.problem(name, Some(&text), known.join(", "));
    default
}
