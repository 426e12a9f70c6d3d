//! Two agents in the lab, over real HTTP, DNS and the real peer link: what each transition asks of each site, word for
//! word as the specification has it, and the hazards and defects of the predecessor shown absent.
//!
//! `docs/hazards.md` says which test shows which of them absent.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot be set up should panic")]

#[path = "lab_agents/stage.rs"]
mod stage;

#[path = "lab_agents/evidence.rs"]
mod evidence;
#[path = "lab_agents/golden.rs"]
mod golden;
#[path = "lab_agents/http.rs"]
mod http;
#[path = "lab_agents/link.rs"]
mod link;
#[path = "lab_agents/once.rs"]
mod once;
#[path = "lab_agents/pipeline.rs"]
mod pipeline;
mod predecessor;
#[path = "lab_agents/record.rs"]
mod record;
#[path = "lab_agents/requests.rs"]
mod requests;
#[path = "lab_agents/steps.rs"]
mod steps;
