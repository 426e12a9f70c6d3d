//! Clients of the systems around us; each knows its protocol and nothing of phases.

pub mod kube;
