//! The switchover agent: one process per data centre that moves a live service to the other site and back.
//!
//! Tasks observe, the engine decides, the executor acts, and the world answers only by being observed again.
//!
//! | layer | modules | may use |
//! |---|---|---|
//! | L0 vocabulary | [`model`] | serde, std |
//! | L1 decisions | [`rules`], [`plan`] | L0 only: no clock, no I/O, no randomness, ordered maps |
//! | L2 hands and eyes | [`adapters`], [`announce`], [`bfd`], [`bgp`], [`checks`], [`journal`], [`peer`] | L0, L1, libraries |
//! | L3 wiring | [`bus`], [`http`], [`tasks`], [`telemetry`] | all below |
//! | L4 entry | [`agent`], [`cli`], [`lab`], [`verify`] | all below |
//!
//! [`config`] is read by every layer above L1; it alone knows the names of settings.

pub mod adapters;
pub mod agent;
pub mod announce;
pub mod bfd;
pub mod bgp;
pub mod bus;
pub mod checks;
pub mod cli;
pub mod config;
pub mod http;
pub mod journal;
pub mod lab;
pub mod model;
pub mod peer;
pub mod plan;
pub mod rules;
pub mod tasks;
pub mod telemetry;
pub mod verify;
