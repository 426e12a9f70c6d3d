//! What the process tells about itself: log lines on stdout and metrics for Prometheus.
//!
//! Owns the log format, the phrases of notes and the names of the engine's metrics. Decides nothing and contacts
//! nothing. Called by the wiring with every event and note; the HTTP interface prints the metrics.

mod guards;
pub mod log;
pub mod metrics;

pub use log::{Guard, init, note_line};
pub use metrics::Metrics;
