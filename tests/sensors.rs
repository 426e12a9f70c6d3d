//! The adapters of Patroni, Tekton, the portal and DNS, and the two tasks that watch, against scripted systems on
//! loopback: bodies of Patroni 3.0.2 and 4.1.5, lost connections, pages of HTML, silence, and DNS in every mood.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot be set up should panic")]

#[path = "sensors/dns.rs"]
mod dns;
#[path = "sensors/fake.rs"]
mod fake;
#[path = "sensors/patroni.rs"]
mod patroni;
#[path = "sensors/triggers.rs"]
mod triggers;
