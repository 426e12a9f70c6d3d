//! Settings of the pipeline: how a run is started, and how long and how often it is tried.
//!
//! Never contacts Tekton. Read by `adapters::tekton` and by the rules that follow the runs.

use super::{Reader, Secret};

/// Address of the Tekton EventListener; unset = this site has no Tekton.
pub const TEKTON_URL: &str = "TEKTON_URL";
/// `repository.clone_url` of the event.
pub const TEKTON_GITHUB_REPO: &str = "TEKTON_GITHUB_REPO";
/// `ref` of the event.
pub const TEKTON_GITHUB_REF: &str = "TEKTON_GITHUB_REF";
/// Secret that signs the event (or `TEKTON_HMAC_SECRET_FILE`); must be set with `TEKTON_URL`, may be empty.
pub const TEKTON_HMAC_SECRET: &str = "TEKTON_HMAC_SECRET";
/// Seconds the listener may take to answer.
pub const TEKTON_TIMEOUT_SECONDS: &str = "TEKTON_TIMEOUT_SECONDS";
/// Seconds for which the run of a trigger whose answer was lost is waited for before it is triggered again.
pub const TEKTON_SETTLE_SECONDS: &str = "TEKTON_SETTLE_SECONDS";
/// Seconds between a failed run and the next try.
pub const PIPELINE_RETRY_INTERVAL_SECONDS: &str = "PIPELINE_RETRY_INTERVAL_SECONDS";
/// Seconds one run may take before it is cancelled.
pub const PIPELINE_ATTEMPT_TIMEOUT_SECONDS: &str = "PIPELINE_ATTEMPT_TIMEOUT_SECONDS";
/// Tries after the first; 0 = none.
pub const PIPELINE_MAX_RETRIES: &str = "PIPELINE_MAX_RETRIES";
/// Seconds from the first try after which no further one is begun.
pub const PIPELINE_RETRY_TOTAL_CAP_SECONDS: &str = "PIPELINE_RETRY_TOTAL_CAP_SECONDS";

/// How a pipeline run is started.
#[derive(Debug, Clone)]
pub struct TektonSettings {
    /// Address of the listener, exactly as set.
    pub url: String,
    /// `repository.clone_url`.
    pub repository: String,
    /// `ref`.
    pub git_ref: String,
    /// Signs the body.
    pub secret: Secret,
    /// Milliseconds the listener may take.
    pub timeout_ms: u64,
    /// Milliseconds after a trigger in which its run may still appear.
    pub settle_ms: u64,
}

/// How runs are followed and tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineLimits {
    /// Milliseconds between a failed run and the next try.
    pub retry_interval_ms: u64,
    /// Milliseconds one run may take.
    pub attempt_timeout_ms: u64,
    /// Tries after the first.
    pub max_retries: u32,
    /// Milliseconds from the first try after which no further one is begun.
    pub total_cap_ms: u64,
}

/// The section.
#[derive(Debug, Clone)]
pub struct TektonSection {
    /// How a run is started; `None` = no Tekton at this site.
    pub trigger: Option<TektonSettings>,
    /// How runs are followed.
    pub pipeline: PipelineLimits,
    /// Lines for the log at start: allowed, and worth a second look.
    pub warnings: Vec<String>,
}

/// Reads the section.
pub fn read(reader: &mut Reader<'_>) -> TektonSection {
    let mut warnings = Vec::new();
    let trigger = trigger(reader, &mut warnings);
    TektonSection { trigger, pipeline: pipeline(reader), warnings }
}

fn trigger(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> Option<TektonSettings> {
    let text = reader.text(TEKTON_URL)?;
    let url = reader.http_url(TEKTON_URL);
    let repository = reader.required(TEKTON_GITHUB_REPO, "the repository that the pipeline deploys");
    let git_ref =
        reader.required(TEKTON_GITHUB_REF, "the ref that the pipeline deploys, such as refs/heads/main");
    let timeout_ms = reader.seconds(TEKTON_TIMEOUT_SECONDS, 10_000, 0.1, 300.0);
    let settle_ms = reader.seconds(TEKTON_SETTLE_SECONDS, 5_000, 0.0, 10.0);
    let given = reader.present(TEKTON_HMAC_SECRET) || reader.present(&format!("{TEKTON_HMAC_SECRET}_FILE"));
    let secret = reader.secret(TEKTON_HMAC_SECRET);
    if !given {
        reader.problem(TEKTON_HMAC_SECRET, None, "the secret that the listener checks; may be empty");
    }
    let secret = secret?;
    if secret.is_empty() {
        warnings.push(format!(
            "{TEKTON_HMAC_SECRET} is empty: anyone who reaches the listener can start pipelines"
        ));
    }
    url.map(|_| TektonSettings { url: text, repository, git_ref, secret, timeout_ms, settle_ms })
}

fn pipeline(reader: &mut Reader<'_>) -> PipelineLimits {
    let day = 86_400;
    PipelineLimits {
        retry_interval_ms: reader.integer(PIPELINE_RETRY_INTERVAL_SECONDS, 30, 0, day) * 1000,
        attempt_timeout_ms: reader.integer(PIPELINE_ATTEMPT_TIMEOUT_SECONDS, 360, 1, day) * 1000,
        max_retries: u32::try_from(reader.integer(PIPELINE_MAX_RETRIES, 2, 0, 1000)).unwrap_or(2),
        total_cap_ms: reader.integer(PIPELINE_RETRY_TOTAL_CAP_SECONDS, 900, 1, day) * 1000,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_from(pairs: &[(&str, &str)]) -> (TektonSection, Vec<String>) {
        let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut reader = Reader::new(&map);
        let section = read(&mut reader);
        (section, reader.into_problems().into_iter().map(|problem| problem.setting).collect())
    }

    #[test]
    fn no_listener_is_a_choice_and_half_a_listener_is_a_problem() {
        let (section, problems) = read_from(&[]);
        assert!(section.trigger.is_none() && problems.is_empty());
        let (section, problems) = read_from(&[(TEKTON_URL, "http://t")]);
        assert!(section.trigger.is_none());
        assert_eq!(problems, [TEKTON_GITHUB_REPO, TEKTON_GITHUB_REF, TEKTON_HMAC_SECRET]);
    }

    #[test]
    fn an_empty_secret_is_allowed_and_warned_of() {
        let mut env = vec![
            (TEKTON_URL, "http://t/"),
            (TEKTON_GITHUB_REPO, "r"),
            (TEKTON_GITHUB_REF, "m"),
            (TEKTON_HMAC_SECRET, ""),
        ];
        let (section, problems) = read_from(&env);
        assert!(problems.is_empty() && section.trigger.is_some() && section.warnings.len() == 1);
        env[3].1 = "s";
        let (section, _) = read_from(&env);
        assert!(section.warnings.is_empty());
        assert_eq!(section.trigger.unwrap().url, "http://t/", "the path is the user's");
    }

    #[test]
    fn a_knob_that_is_no_number_is_reported() {
        let (section, problems) =
            read_from(&[(PIPELINE_MAX_RETRIES, "two"), (PIPELINE_RETRY_INTERVAL_SECONDS, "")]);
        assert_eq!(problems, [PIPELINE_MAX_RETRIES]);
        let want = PipelineLimits {
            retry_interval_ms: 30_000,
            attempt_timeout_ms: 360_000,
            max_retries: 2,
            total_cap_ms: 900_000,
        };
        assert_eq!(section.pipeline, want);
    }
}
