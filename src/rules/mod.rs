//! Decisions: the pure engine.

pub mod database;
pub mod dns;
