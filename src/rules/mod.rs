//! Decisions: the pure engine.
