//! Times and limits of the guards: lease, grace, lag, the fenced start. Contacts nothing.

use super::Reader;
use crate::rules::policy::{Automation, SafetyPolicy};

/// Seconds that the active site may serve after the last proof that peer or witness knows it to live (default 15;
/// `AUTOMATION_MODE=self-fencing`).
pub const LEASE_SECONDS: &str = "LEASE_SECONDS";
/// Seconds that the passive site waits beyond the lease; must cover the time that fencing takes (default 30).
pub const LEASE_GRACE_SECONDS: &str = "LEASE_GRACE_SECONDS";
/// Readings of sensors older than this many seconds are stale (default 30; at least three DNS rounds).
pub const SENSOR_STALE_SECONDS: &str = "SENSOR_STALE_SECONDS";
/// Most bytes that the standby may be behind before a planned move; 0 = no limit (default 16777216).
pub const MAX_LAG_BYTES: &str = "MAX_LAG_BYTES";
/// Longest time in seconds that the standby may be behind before a planned move; 0 = no limit (default).
pub const MAX_LAG_SECONDS: &str = "MAX_LAG_SECONDS";
/// Seconds for which neither site may take writes before people are told (default 300).
pub const BOTH_DEMOTED_SECONDS: &str = "BOTH_DEMOTED_SECONDS";
/// `true` = a site that was out for longer than the lease starts read-only until it knows the peer's generation
/// (default: as `FENCE_OLD_PRIMARY`, where automation acts).
pub const BOOT_FENCE: &str = "BOOT_FENCE";
/// Seconds that a restarted agent may look for peer or witness before its site counts as cut off (default 5).
pub const BOOT_GRACE_SECONDS: &str = "BOOT_GRACE_SECONDS";

/// Reads the section. `witness` = one is configured; `fence` = `FENCE_OLD_PRIMARY`; `dns_poll_ms` = pause between two
/// rounds of look-ups.
pub fn read(
    reader: &mut Reader<'_>,
    automation: Automation,
    fence: bool,
    witness: bool,
    dns_poll_ms: u64,
) -> SafetyPolicy {
    let lag_bytes = reader.integer(MAX_LAG_BYTES, 16 * 1024 * 1024, 0, u64::MAX / 2);
    let lag_ms = reader.seconds(MAX_LAG_SECONDS, 0, 0.0, 86_400.0);
    let safety = SafetyPolicy {
        witness,
        lease_ms: reader.seconds(LEASE_SECONDS, 15_000, 1.0, 3_600.0),
        grace_ms: reader.seconds(LEASE_GRACE_SECONDS, 30_000, 1.0, 3_600.0),
        stale_ms: reader.seconds(SENSOR_STALE_SECONDS, 30_000, 2.0, 3_600.0).max(dns_poll_ms * 3),
        max_lag_bytes: (lag_bytes > 0).then_some(lag_bytes),
        max_lag_ms: (lag_ms > 0).then_some(lag_ms),
        both_demoted_ms: reader.seconds(BOTH_DEMOTED_SECONDS, 300_000, 10.0, 86_400.0),
        boot_fence: reader.flag(BOOT_FENCE, fence && automation.acts_alone()),
        boot_grace_ms: reader.seconds(BOOT_GRACE_SECONDS, 5_000, 0.1, 600.0),
    };
    if automation == Automation::SelfFencing && safety.boot_grace_ms > safety.grace_ms {
        let shown = format!("{} s", safety.boot_grace_ms / 1_000);
        reader.problem(
            BOOT_GRACE_SECONDS,
            Some(&shown),
            format!("at most {LEASE_GRACE_SECONDS}: the other site waits no longer than that"),
        );
    }
    safety
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_from(pairs: &[(&str, &str)]) -> (SafetyPolicy, usize) {
        let env: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&env);
        let safety = read(&mut reader, Automation::SelfFencing, true, false, 20_000);
        (safety, reader.into_problems().len())
    }

    #[test]
    fn zero_means_no_limit_and_readings_outlive_three_rounds() {
        let (safety, problems) = read_from(&[(MAX_LAG_BYTES, "0"), (MAX_LAG_SECONDS, "2.5")]);
        assert_eq!((safety.max_lag_bytes, safety.max_lag_ms, problems), (None, Some(2_500), 0));
        assert_eq!(safety.stale_ms, 60_000);
        assert!(safety.boot_fence);
    }

    #[test]
    fn a_start_that_would_outlast_the_grace_is_a_problem() {
        let (_, problems) = read_from(&[(BOOT_GRACE_SECONDS, "60"), (LEASE_GRACE_SECONDS, "30")]);
        assert_eq!(problems, 1);
    }
}
