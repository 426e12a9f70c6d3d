//! Real components for tests: daemons that start on their own loopback addresses and die with the test.
//!
//! Owns: starting, waiting for and stopping etcd, Patroni with PostgreSQL, and knot; skipping by name what is not
//! installed. Never: knows the agent or its phases. Linux only.
#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

pub mod daemon;
pub mod etcd;
pub mod knot;
pub mod patroni;
pub mod rest;
pub mod skip;
pub mod spilo;
pub mod sql;
