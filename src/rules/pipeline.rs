//! The deployment pipeline: which run is ours, when it is over, when it is tried again, when it is given up.
//!
//! Every state has an end: a run that never reports is cancelled at the attempt's time-out, and a cancelled run that
//! never ends counts as failed a minute later.

use serde::{Deserialize, Serialize};

use super::policy::PipelinePolicy;
use crate::model::{Mono, Now, PipelineRunSeen, RunEvent, Wall};

/// How long a cancelled run may take to end before it counts as failed.
const CANCEL_GRACE_MS: u64 = 60_000;

/// A run that we started.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tracked {
    /// Event id that the listener gave.
    pub event_id: String,
    /// When it was started.
    pub started: Mono,
    /// Name of the run, once seen.
    pub name: Option<String>,
    /// Since when it is being cancelled.
    pub cancelling: Option<Mono>,
}

/// A transition's pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Nothing started, or all over.
    Idle,
    /// A run is under way.
    Running(Tracked),
    /// The last run failed; the next try is at this moment.
    Waiting {
        /// When.
        until: Mono,
    },
    /// The next try is being started.
    Starting,
    /// Given up at this moment; a later successful run of somebody else ends it.
    GivenUp {
        /// When.
        at: Wall,
    },
}

/// The pipeline of the last transition that started one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pipeline {
    /// How far it is.
    pub stage: Stage,
    /// Whether maintenance is to be on after success.
    pub maintenance: bool,
    /// When the first try was started.
    pub first: Mono,
    /// Retries so far.
    pub retries: u32,
    /// `release-namespace` as the runs say it.
    pub release: Option<String>,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self { stage: Stage::Idle, maintenance: false, first: Mono(0), retries: 0, release: None }
    }
}

/// What follows from an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Nothing,
    /// Our run succeeded, or somebody else's did after ours was given up.
    Succeeded,
    /// A run of ours failed for this reason and is tried again later.
    FailedOnce(String),
    /// A run of ours failed and no try is left.
    GaveUp(String),
    /// Cancel the run of this name.
    Cancel(String),
    /// Start it again.
    StartAgain,
}

impl Pipeline {
    /// A run was started for a transition.
    pub fn started(&mut self, event_id: String, maintenance: bool, now: Now) {
        let first_try = self.stage != Stage::Starting;
        if first_try {
            self.first = now.mono;
            self.retries = 0;
            self.maintenance = maintenance;
        }
        self.stage = Stage::Running(Tracked { event_id, started: now.mono, name: None, cancelling: None });
    }

    /// The application was scaled directly, with the consequences of a successful run.
    pub fn scaled_directly(&mut self, maintenance: bool) {
        *self = Self { maintenance, ..Self::default() };
    }

    /// A try could not even be started.
    pub fn start_failed(&mut self, reason: &str, policy: &PipelinePolicy, now: Now) -> Verdict {
        self.after_failure(reason.to_owned(), policy, now)
    }

    /// A run was seen.
    pub fn seen(
        &mut self,
        run: &PipelineRunSeen,
        release: &str,
        policy: &PipelinePolicy,
        now: Now,
    ) -> Verdict {
        if run.kind == RunEvent::Deleted {
            return Verdict::Nothing;
        }
        if let Stage::GivenUp { at } = self.stage {
            let later = run.created.is_some_and(|created| created > at.0);
            let ours = run.release.as_deref() == Some(release);
            if later && ours && has_succeeded(run) == Some(true) {
                self.stage = Stage::Idle;
                return Verdict::Succeeded;
            }
            return Verdict::Nothing;
        }
        let Stage::Running(tracked) = &mut self.stage else { return Verdict::Nothing };
        if run.event_id.as_deref() != Some(tracked.event_id.as_str()) {
            return Verdict::Nothing;
        }
        tracked.name = Some(run.name.clone());
        if run.release.is_some() {
            self.release.clone_from(&run.release);
        }
        match has_succeeded(run) {
            None => Verdict::Nothing,
            Some(true) => {
                self.stage = Stage::Idle;
                Verdict::Succeeded
            }
            Some(false) => {
                let reason = run.reason.clone().unwrap_or_else(|| "Undefined".to_owned());
                self.after_failure(reason, policy, now)
            }
        }
    }

    fn after_failure(&mut self, reason: String, policy: &PipelinePolicy, now: Now) -> Verdict {
        let in_time = now.mono.since(self.first) < policy.total_cap_ms;
        if self.retries < policy.max_retries && in_time {
            self.stage = Stage::Waiting { until: now.mono.plus(policy.retry_interval_ms) };
            Verdict::FailedOnce(reason)
        } else {
            self.stage = Stage::GivenUp { at: now.wall };
            Verdict::GaveUp(reason)
        }
    }

    /// Time has passed. Call until it gives [`Verdict::Nothing`].
    pub fn tick(&mut self, policy: &PipelinePolicy, now: Now) -> Verdict {
        match &mut self.stage {
            Stage::Idle | Stage::Starting | Stage::GivenUp { .. } => Verdict::Nothing,
            Stage::Waiting { until } => {
                if now.mono.since(self.first) >= policy.total_cap_ms {
                    self.stage = Stage::GivenUp { at: now.wall };
                    Verdict::GaveUp("the time for all tries is over".to_owned())
                } else if now.mono >= *until {
                    self.stage = Stage::Starting;
                    self.retries += 1;
                    Verdict::StartAgain
                } else {
                    Verdict::Nothing
                }
            }
            Stage::Running(tracked) => {
                let overdue = now.mono.since(tracked.started) >= policy.attempt_timeout_ms;
                match (tracked.cancelling, tracked.name.clone()) {
                    (Some(since), _) if now.mono.since(since) >= CANCEL_GRACE_MS => {
                        self.after_failure("CancelTimeout".to_owned(), policy, now)
                    }
                    (None, Some(name)) if overdue => {
                        tracked.cancelling = Some(now.mono);
                        Verdict::Cancel(name)
                    }
                    (None, None) if overdue => self.after_failure("NeverSeen".to_owned(), policy, now),
                    _ => Verdict::Nothing,
                }
            }
        }
    }

    /// The next moment at which [`Pipeline::tick`] has something to say.
    pub fn deadline(&self, policy: &PipelinePolicy) -> Option<Mono> {
        match &self.stage {
            Stage::Idle | Stage::Starting | Stage::GivenUp { .. } => None,
            Stage::Waiting { until } => Some((*until).min(self.first.plus(policy.total_cap_ms))),
            Stage::Running(Tracked { cancelling: Some(since), .. }) => Some(since.plus(CANCEL_GRACE_MS)),
            Stage::Running(tracked) => Some(tracked.started.plus(policy.attempt_timeout_ms)),
        }
    }

    /// Whether a run is under way or will be tried again.
    pub fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::Running(_) | Stage::Waiting { .. } | Stage::Starting)
    }
}

/// Whether a run is over, and how; the words stand in for a condition without a status.
fn has_succeeded(run: &PipelineRunSeen) -> Option<bool> {
    run.succeeded.or(match run.reason.as_deref() {
        Some("Completed" | "Succeeded") => Some(true),
        Some(
            "Failed" | "Cancelled" | "PipelineRunCancelled" | "CancelledRunFinally" | "PipelineRunTimeout",
        ) => Some(false),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: PipelinePolicy = PipelinePolicy {
        retry_interval_ms: 30_000,
        attempt_timeout_ms: 360_000,
        max_retries: 2,
        total_cap_ms: 900_000,
    };

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms), wall: Wall(1_000_000 + ms) }
    }

    fn run(event_id: &str, succeeded: Option<bool>) -> PipelineRunSeen {
        PipelineRunSeen {
            kind: RunEvent::Added,
            name: format!("run-{event_id}"),
            event_id: Some(event_id.to_owned()),
            release: Some("sso".to_owned()),
            reason: succeeded.map(|ok| if ok { "Completed" } else { "Failed" }.to_owned()),
            succeeded,
            created: Some(1_000_500),
        }
    }

    fn started() -> Pipeline {
        let mut pipeline = Pipeline::default();
        pipeline.started("a".to_owned(), false, at(0));
        pipeline
    }

    #[test]
    fn a_run_of_another_event_changes_nothing() {
        let mut pipeline = started();
        assert_eq!(pipeline.seen(&run("b", Some(true)), "sso", &POLICY, at(1)), Verdict::Nothing);
        assert!(pipeline.is_busy());
    }

    #[test]
    fn three_failures_end_it_and_each_retry_waits_its_interval() {
        let mut pipeline = started();
        let mut now = 10;
        for (retry, id) in ["a", "b"].into_iter().enumerate() {
            let verdict = pipeline.seen(&run(id, Some(false)), "sso", &POLICY, at(now));
            assert_eq!(verdict, Verdict::FailedOnce("Failed".to_owned()), "retry {retry}");
            assert_eq!(pipeline.tick(&POLICY, at(now + 29_999)), Verdict::Nothing);
            now += 30_000;
            assert_eq!(pipeline.tick(&POLICY, at(now)), Verdict::StartAgain);
            pipeline.started(if id == "a" { "b" } else { "c" }.to_owned(), true, at(now));
            assert!(!pipeline.maintenance, "a retry keeps what the first try wanted");
        }
        let verdict = pipeline.seen(&run("c", Some(false)), "sso", &POLICY, at(now + 1));
        assert_eq!(verdict, Verdict::GaveUp("Failed".to_owned()));
        assert!(!pipeline.is_busy());
    }

    #[test]
    fn a_hung_run_is_cancelled_and_a_cancelled_run_that_never_ends_counts_as_failed() {
        let mut pipeline = started();
        pipeline.seen(&run("a", None), "sso", &POLICY, at(5));
        assert_eq!(pipeline.deadline(&POLICY), Some(Mono(360_000)));
        assert_eq!(pipeline.tick(&POLICY, at(360_000)), Verdict::Cancel("run-a".to_owned()));
        assert_eq!(pipeline.tick(&POLICY, at(360_001)), Verdict::Nothing);
        assert_eq!(pipeline.tick(&POLICY, at(420_000)), Verdict::FailedOnce("CancelTimeout".to_owned()));
    }

    #[test]
    fn a_run_that_nobody_ever_sees_counts_as_failed() {
        let mut pipeline = started();
        assert_eq!(pipeline.tick(&POLICY, at(360_000)), Verdict::FailedOnce("NeverSeen".to_owned()));
    }

    #[test]
    fn the_cap_ends_the_tries_even_when_some_are_left() {
        let mut pipeline = started();
        let verdict = pipeline.seen(&run("a", Some(false)), "sso", &POLICY, at(900_000));
        assert_eq!(verdict, Verdict::GaveUp("Failed".to_owned()));
    }

    #[test]
    fn only_a_run_created_after_the_failure_clears_it() {
        let mut pipeline = started();
        pipeline.seen(&run("a", Some(false)), "sso", &POLICY, at(900_000));
        let mut old = run("z", Some(true));
        assert_eq!(pipeline.seen(&old, "sso", &POLICY, at(900_001)), Verdict::Nothing);
        old.created = Some(1_900_001);
        assert_eq!(pipeline.seen(&old, "other", &POLICY, at(900_001)), Verdict::Nothing);
        assert_eq!(pipeline.seen(&old, "sso", &POLICY, at(900_001)), Verdict::Succeeded);
    }

    #[test]
    fn a_deleted_run_says_nothing() {
        let mut pipeline = started();
        let mut gone = run("a", Some(false));
        gone.kind = RunEvent::Deleted;
        assert_eq!(pipeline.seen(&gone, "sso", &POLICY, at(1)), Verdict::Nothing);
    }
}
