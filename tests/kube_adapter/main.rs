//! The Kubernetes adapter against a scripted API server: exact requests, verdicts, waits and watches.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calls;
mod server;
mod watches;
