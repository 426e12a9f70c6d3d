//! Two agents in the lab, over real HTTP, DNS and the real peer link: what each transition asks of each site, word for
//! word as the specification has it, and the hazards and defects of the predecessor shown absent.
//!
//! `docs/hazards.md` says which test shows which of them absent.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot be set up should panic")]

#[path = "lab_agents/stage.rs"]
mod stage;

#[path = "lab_agents/golden.rs"]
mod golden;
