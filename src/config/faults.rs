//! Settings that break the agent on purpose, for tests. Nothing here works unless fault injection is switched on.

use super::Reader;

/// `true` = the settings below are allowed. For tests only: an agent that serves anybody never has it.
pub const FAULT_INJECTION: &str = "FAULT_INJECTION";
/// `STEP:POINT[:N]`: the process kills itself (SIGKILL) when a step reaches a point for the N-th time. Points:
/// `before-intent`, `after-intent`, `after-aim`, `after-effect`, `after-record`, `before-done`, `after-done`.
pub const FAULT_KILL_AT: &str = "FAULT_KILL_AT";
/// `torn:N` = the process dies in the middle of the journal's N-th write; `full:N` = the disk is full from that one on.
pub const FAULT_JOURNAL: &str = "FAULT_JOURNAL";

/// A moment in the life of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KillPoint {
    /// Decided, nothing written.
    BeforeIntent,
    /// The intent is in the journal, nothing was done.
    AfterIntent,
    /// What a once-only action is aimed at is in the journal, nothing was done.
    AfterAim,
    /// The call was answered, the answer is not in the journal.
    AfterEffect,
    /// The outcome is in the journal.
    AfterRecord,
    /// The step is seen to be done, which is not in the journal.
    BeforeDone,
    /// That it is done is in the journal.
    AfterDone,
}

impl KillPoint {
    /// Every point with its word.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::BeforeIntent, "before-intent"),
        (Self::AfterIntent, "after-intent"),
        (Self::AfterAim, "after-aim"),
        (Self::AfterEffect, "after-effect"),
        (Self::AfterRecord, "after-record"),
        (Self::BeforeDone, "before-done"),
        (Self::AfterDone, "after-done"),
    ];
}

/// Where the process kills itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillAt {
    /// The step; messages to the peer are `tell-peer-confirm`, `tell-peer-yes`, `tell-peer-no`, `tell-peer-order`
    /// and `tell-peer-dns`.
    pub step: String,
    /// The moment.
    pub point: KillPoint,
    /// Which time, from 1.
    pub nth: u64,
}

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// The process dies when half of this write (from 1) is on the disk.
    Torn(u64),
    /// From this write on nothing fits.
    Full(u64),
}

/// The section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultSettings {
    /// Where the process kills itself.
    pub kill_at: Option<KillAt>,
    /// What is wrong with the journal's disk.
    pub journal: Option<DiskFault>,
}

/// Reads the section.
pub fn read(reader: &mut Reader<'_>) -> FaultSettings {
    let allowed = reader.flag(FAULT_INJECTION, false);
    let mut settings = FaultSettings::default();
    for name in [FAULT_KILL_AT, FAULT_JOURNAL] {
        let Some(text) = reader.text(name) else { continue };
        let want = if !allowed {
            format!("only with {FAULT_INJECTION}=true, which is for tests")
        } else if name == FAULT_KILL_AT {
            settings.kill_at = kill_at(&text);
            let points: Vec<&str> = KillPoint::ALL.iter().map(|(_, word)| *word).collect();
            format!("STEP:POINT[:N], POINT one of {}", points.join(", "))
        } else {
            settings.journal = disk_fault(&text);
            "torn:N or full:N, N from 1".to_owned()
        };
        let understood =
            if name == FAULT_KILL_AT { settings.kill_at.is_some() } else { settings.journal.is_some() };
        if !understood {
            reader.problem(name, Some(&text), want);
        }
    }
    settings
}

fn kill_at(text: &str) -> Option<KillAt> {
    let parts: Vec<&str> = text.split(':').collect();
    let (step, point, nth) = match parts[..] {
        [step, point] => (step, point, 1),
        [step, point, nth] => (step, point, nth.parse().ok().filter(|nth| *nth > 0)?),
        _ => return None,
    };
    let point = KillPoint::ALL.iter().find(|(_, word)| *word == point)?.0;
    (!step.is_empty()).then(|| KillAt { step: step.to_owned(), point, nth })
}

fn disk_fault(text: &str) -> Option<DiskFault> {
    let (word, number) = text.split_once(':')?;
    let number = number.parse().ok().filter(|number| *number > 0)?;
    match word {
        "torn" => Some(DiskFault::Torn(number)),
        "full" => Some(DiskFault::Full(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_from(pairs: &[(&str, &str)]) -> (FaultSettings, Vec<String>) {
        let env: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut reader = Reader::new(&env);
        let settings = read(&mut reader);
        (settings, reader.into_problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nothing_is_broken_on_purpose_where_that_is_not_switched_on() {
        let (settings, problems) =
            read_from(&[(FAULT_KILL_AT, "scale-health:after-intent"), (FAULT_JOURNAL, "torn:1")]);
        assert_eq!(settings, FaultSettings::default());
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().all(|problem| problem.contains("FAULT_INJECTION=true")), "{problems:?}");
    }

    #[test]
    fn steps_points_and_counts_are_read_and_everything_else_is_a_problem() {
        let on = (FAULT_INJECTION, "true");
        let (settings, problems) =
            read_from(&[on, (FAULT_KILL_AT, "tell-peer-yes:after-effect:2"), (FAULT_JOURNAL, "full:3")]);
        assert!(problems.is_empty(), "{problems:?}");
        let at = KillAt { step: "tell-peer-yes".to_owned(), point: KillPoint::AfterEffect, nth: 2 };
        assert_eq!(settings, FaultSettings { kill_at: Some(at), journal: Some(DiskFault::Full(3)) });
        for bad in ["x", ":after-intent", "x:sometime", "x:after-intent:0", "x:after-intent:1:2"] {
            assert_eq!(read_from(&[on, (FAULT_KILL_AT, bad)]).1.len(), 1, "{bad}");
        }
        for bad in ["torn", "torn:0", "wet:1"] {
            assert_eq!(read_from(&[on, (FAULT_JOURNAL, bad)]).1.len(), 1, "{bad}");
        }
    }
}
