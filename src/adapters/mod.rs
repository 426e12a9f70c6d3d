//! Clients of the systems around us; each knows its protocol and nothing of phases.

pub mod attempts;
pub mod cloudflare;
pub mod cloudflare_routes;
pub mod gcp;
pub mod http_client;
pub mod kube;
pub mod patroni;
pub mod portal;
pub mod resolver;
pub mod tekton;
pub mod wire;
pub mod witness;
