//! Structured events: one JSON object per fact, with the names that the predecessor's readers know.
//!
//! Owns the common fields, the levels and the way to the sinks. The facts themselves come from the cycle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tracing::Level;

use super::cloud_log::CloudLog;
use super::files::Files;
use crate::config::routes::EventSettings;
use crate::tasks::clock::wall_now;

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As wanted.
    Success,
    /// Not.
    Failure,
    /// There was nothing to do.
    NoChange,
    /// It was left out on purpose.
    Skipped,
}

impl Ended {
    /// The word in events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::NoChange => "no_change",
            Self::Skipped => "skipped",
        }
    }

    fn level(self) -> Level {
        match self {
            Self::Failure => Level::ERROR,
            Self::NoChange => Level::DEBUG,
            Self::Success | Self::Skipped => Level::INFO,
        }
    }
}

/// One fact.
#[derive(Debug, Clone)]
pub struct Fact {
    /// `event_type`.
    pub kind: &'static str,
    /// `component`.
    pub component: &'static str,
    /// `operation`.
    pub operation: &'static str,
    /// `result`.
    pub ended: Ended,
    /// `details`.
    pub details: Value,
    /// `duration_ms`.
    pub duration_ms: Option<u64>,
    /// `error_message`.
    pub error: Option<String>,
}

impl Fact {
    /// A fact without duration and error.
    pub fn new(
        kind: &'static str,
        component: &'static str,
        operation: &'static str,
        ended: Ended,
        details: Value,
    ) -> Self {
        Self { kind, component, operation, ended, details, duration_ms: None, error: None }
    }

    /// With what went wrong.
    pub fn because(mut self, error: Option<String>) -> Self {
        self.error = error;
        self
    }
}

/// The sinks; clones share them.
#[derive(Clone)]
pub struct Events {
    files: Files,
    cloud: Option<CloudLog>,
    settings: Arc<EventSettings>,
    /// Lowest level that is shown.
    level: Level,
    correlation: Arc<Mutex<Option<String>>>,
}

impl Events {
    /// Opens the sinks.
    ///
    /// # Errors
    /// Where the system gives no thread for the files.
    pub fn open(settings: &EventSettings, cloud: Option<CloudLog>) -> std::io::Result<Self> {
        let level = if tracing::enabled!(Level::DEBUG) { Level::DEBUG } else { Level::INFO };
        let files = Files::start(settings)?;
        Ok(Self { files, cloud, settings: Arc::new(settings.clone()), level, correlation: Arc::default() })
    }

    /// Begins a cycle: a new correlation id, `hc-<seconds>-<8 hex digits>`.
    pub fn begin_cycle(&self) {
        let id = format!("hc-{}-{:08x}", wall_now().0 / 1000, rand::random::<u32>());
        *self.lock() = Some(id);
    }

    /// The cycle's id, absent before the first one.
    pub fn correlation(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.correlation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to the files, to open them anew.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Tells a fact to every sink whose level it has.
    pub fn emit(&self, fact: &Fact) {
        let level = fact.ended.level();
        if level > self.level {
            return;
        }
        let mut event = json!({
            "structured_event": true,
            "event_type": fact.kind,
            "timestamp": wall_now().0 as f64 / 1000.0,
            "result": fact.ended.word(),
            "component": fact.component,
            "operation": fact.operation,
            "details": fact.details,
            "duration_ms": fact.duration_ms,
            "error_message": fact.error,
        });
        if let Some(id) = self.correlation() {
            event["correlation_id"] = Value::from(id);
        }
        if self.settings.console {
            show(&event);
        }
        if let Some(cloud) = &self.cloud {
            cloud.send(level, event.clone());
        }
        self.files.event(event.to_string());
    }

    /// A line for people: on the console and in the log file.
    pub fn say(&self, level: Level, text: &str) {
        if !self.settings.console {
            match level {
                Level::ERROR => tracing::error!("{text}"),
                Level::WARN => tracing::warn!("{text}"),
                Level::INFO => tracing::info!("{text}"),
                _ => tracing::debug!("{text}"),
            }
        }
        if level <= self.level {
            let word = if level == Level::WARN { "WARNING".to_owned() } else { level.to_string() };
            let now = jiff::Zoned::now();
            let time = now.strftime("%Y-%m-%d %H:%M:%S");
            let name = &self.settings.logger;
            let text = text.replace(['\n', '\r'], " ");
            self.files.human(format!("{time},{:03} {word} [{name}] {text}", now.millisecond()));
        }
    }
}

#[expect(clippy::print_stderr, reason = "the console of structured events is standard error")]
fn show(event: &Value) {
    eprintln!("{event}");
}
