//! Decisions: the pure engine.

pub mod health;
pub mod prefixes;
