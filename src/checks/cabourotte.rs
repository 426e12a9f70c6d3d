//! `cabourotte`: a check that Cabourotte runs passes. Asks `/api/v1/result/NAME` (2.x) and `/result/NAME` (1.x) and
//! remembers which one answered.
//!
//! A result older than its maximal age counts as a failure: a checker that stands still vouches for nothing. Only the
//! first result is judged by the wall clock; after that a result is as old as its time stamp has been the same, so
//! that a clock which is set back or forth changes no verdict.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use super::certificate::unix_now;
use super::{Boxed, BuildError, Check, Report, http, trust};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name of the check in Cabourotte.
    pub name: String,
    /// Base URL.
    pub url: String,
    /// Oldest result that counts.
    pub max_age: Duration,
    /// Limit of one run.
    pub timeout: Duration,
    /// Trust and client certificate.
    pub options: trust::Options,
}

/// Paths, newer first.
const PATHS: [&[&str]; 2] = [&["api", "v1", "result"], &["result"]];

/// Bytes of an answer that are read.
const ANSWER_LIMIT: usize = 256 * 1024;

/// The parts of a result that count, with the types that the predecessor demands.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "summary")]
    _summary: String,
    success: bool,
    #[serde(rename = "healthcheck-timestamp")]
    timestamp: i64,
    message: String,
    #[serde(rename = "duration")]
    _duration: i64,
    #[serde(rename = "source")]
    _source: String,
}

/// The check.
pub struct CabourotteCheck {
    spec: Spec,
    client: Client,
    urls: Vec<Url>,
    preferred: AtomicU8,
    /// Time stamp of the last result, when it was first seen, and how old it was then.
    seen: Mutex<Option<(i64, Instant, Duration)>>,
}

enum Asked {
    Found(Answer),
    NotFound,
}

impl CabourotteCheck {
    /// A check by Cabourotte's word.
    ///
    /// # Errors
    /// A URL that is none, or unusable files.
    pub fn new(spec: Spec, trust: &trust::Trust) -> Result<Self, BuildError> {
        let base: Url = spec.url.parse().map_err(|_| BuildError(format!("{:?} is not a URL", spec.url)))?;
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(BuildError(format!("{:?} is not an http or https URL", spec.url)));
        }
        let names_path = base.path().trim_end_matches('/').ends_with("/api/v1");
        let paths = if names_path { &PATHS[1..] } else { &PATHS[..] };
        let urls = paths
            .iter()
            .map(|path| {
                let mut url = base.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().extend(path.iter()).push(&spec.name);
                }
                url
            })
            .collect();
        let client = http::client(&spec.options, trust, spec.timeout, |builder| builder)?;
        Ok(Self { spec, client, urls, preferred: AtomicU8::new(0), seen: Mutex::new(None) })
    }

    async fn ask(&self, url: &Url) -> Result<Asked, String> {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", url.path());
        let mut response = self.client.get(url.clone()).send().await.map_err(|e| at(&http::cause(&e)))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(Asked::NotFound),
            other => return Err(at(&format!("status {}", other.as_u16()))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| at(&http::cause(&e)))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_LIMIT {
                return Err(at(&"the answer is too long"));
            }
        }
        serde_json::from_slice(&body).map(Asked::Found).map_err(|error| at(&format!("not a result: {error}")))
    }

    /// One request while the remembered path answers; the other path only where the first says 404.
    async fn run(&self) -> Report {
        let first = usize::from(self.preferred.load(Ordering::Relaxed)).min(self.urls.len() - 1);
        for index in (first..self.urls.len()).chain(0..first) {
            match self.ask(&self.urls[index]).await {
                Ok(Asked::Found(answer)) => {
                    self.preferred.store(index as u8, Ordering::Relaxed);
                    return self.judge(&answer, unix_now());
                }
                Ok(Asked::NotFound) => {}
                Err(error) => return Report::fail(format!("cabourotte check {}: {error}", self.spec.name)),
            }
        }
        Report::fail(format!("cabourotte knows no check {}", self.spec.name))
    }

    fn judge(&self, answer: &Answer, now: i64) -> Report {
        let name = &self.spec.name;
        let age = self.age(answer.timestamp, now);
        if !answer.success {
            return Report::fail(format!("cabourotte check {name}: {}", answer.message));
        }
        // Time stamps are whole seconds, cut off: up to a second of the age may be that.
        if age > self.spec.max_age + Duration::from_secs(1) {
            return Report::fail(format!(
                "cabourotte check {name}: its last result is {} s old",
                age.as_secs()
            ));
        }
        Report::pass()
    }

    fn age(&self, timestamp: i64, now: i64) -> Duration {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((same, since, age_then)) if same == timestamp => since.elapsed() + age_then,
            previous => {
                let wall_age = Duration::from_secs(u64::try_from(now.saturating_sub(timestamp)).unwrap_or(0));
                let age = if previous.is_none() { wall_age } else { Duration::ZERO };
                *seen = Some((timestamp, Instant::now(), age));
                age
            }
        }
    }
}

impl Check for CabourotteCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(self.run())
    }
}
