//! Proof: the shipped engine explored in small worlds that can be searched, simulated and replayed.
//!
//! [`site`] is one simulated site: record, database, traffic, pipeline. [`pair`] puts two engines and two sites on
//! virtual time with a network that can be cut. Nothing here copies a rule; it only plays the world's part.

pub mod explore;
pub mod invariants;
pub mod model;
pub mod pair;
pub mod settings;
pub mod site;
pub mod witness;
