//! Route steering: the acceptance cases A1 to A40 by their numbers, the golden table of all transitions, two mirrored
//! instances against one cloud, and the phases of a switchover that pin the routes.
//!
//! The decision runs on a virtual clock ([`rig`]); where a case is about a cloud, the task or the adapters run against
//! the strict simulators.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot be set up should panic")]

mod cloud_cases;
mod decision;
mod golden;
mod grading;
mod lab;
mod mirrored;
mod packaging;
mod process;
mod rig;
mod settings;
mod stage;
