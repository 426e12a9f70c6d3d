//! The lab: two simulated sites that share one world and are strict where the real ones are.
//!
//! [`World`] holds the truths; [`http`] serves a site of it; [`api`] is its Kubernetes API, [`workloads`] the
//! controllers behind it, [`database`] and [`patroni`] the database, [`pipelines`] Tekton, [`names`] the global
//! load balancer's DNS, [`faults`] what can be broken, [`cut`] the line between the agents. [`sim`] is the other
//! lab: whole agents on virtual time. Nothing here is used
//! by a running agent, and nothing here knows the agent's rules.

pub mod activity;
pub mod agents;
pub mod api;
pub mod cloudflare;
pub mod compute;
pub mod control;
pub mod cut;
pub mod cycle;
pub mod database;
pub mod dynamic_config;
pub mod faults;
pub mod front;
pub mod geo_scenario;
pub mod http;
pub mod magic_transit;
pub mod names;
pub mod patroni;
pub mod peer_view;
pub mod pipelines;
pub mod route_clouds;
pub mod route_scenario;
pub mod seed;
pub mod settings;
pub mod sim;
pub mod site;
pub mod store;
pub mod volume;
pub mod workloads;
pub mod world;

pub use peer_view::PeerView;
pub use settings::{Delays, PatroniVersion, WorldSettings};
pub use world::{SiteHandle, World};
