//! Whatever can announce prefixes.
