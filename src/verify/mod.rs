//! Proof: the shipped engine explored in small worlds that can be searched, simulated and replayed.
//!
//! [`site`] is one simulated site: record, database, traffic, pipeline. [`pair`] puts two engines and two sites on
//! virtual time with a network that can be cut. The checker is [`part`] (one side), [`canon`] (when two are alike),
//! [`store`] (each computed once), [`model`] (both sides and what happens between them), [`explore`] (the search) and
//! [`invariants`]; [`mutants`] and [`cases`] show that a fault would be found. Nothing here copies a rule; it only plays
//! the world's part.

pub mod canon;
pub mod cases;
pub mod clockwork;
pub mod configurations;
pub mod explore;
pub mod face;
pub mod given;
pub mod invariants;
pub mod model;
pub mod moves;
pub mod mutants;
pub mod pair;
pub mod pair_rules;
pub mod part;
pub mod routes;
pub mod rule;
pub mod settings;
pub mod site;
pub mod stage;
pub mod store;
pub mod table;
pub mod witness;
