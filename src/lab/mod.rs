//! The lab: simulated sites that are strict where the real ones are.
