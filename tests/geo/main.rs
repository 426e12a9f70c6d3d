//! The geo load balancer: acceptance cases B1 to B37, all interleavings of several instances, the cost of a resync.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its builders too")]
#![allow(clippy::print_stdout, reason = "counts and tables are part of what these tests are for")]

mod bench;
mod cost;
mod failures;
mod interleavings;
mod pools;
mod process;
mod removal;
mod replicas;
mod settings;
mod sharing;
