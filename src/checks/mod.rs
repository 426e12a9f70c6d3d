//! Service checks: one kind per file.
