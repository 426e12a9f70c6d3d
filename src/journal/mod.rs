//! The journal: every intent before the act, every outcome after it.
