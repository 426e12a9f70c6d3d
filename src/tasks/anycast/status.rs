//! What the outside sees of services, checks and routes: plain data for JSON and for people.

use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Services by name.
    pub services: Vec<ServiceStatus>,
    /// Routes in order.
    pub routes: Vec<RouteStatus>,
    /// Whether fail-open is in force.
    pub fail_open: bool,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// INIT, RISING, UP, FALLING, DOWN, DISABLED, DRAINING or UNKNOWN.
    pub state: String,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// Why.
    pub reason: String,
    /// Times it fell.
    pub flaps: u64,
    /// For how much longer flap damping holds it down, in milliseconds.
    pub held_for_ms: Option<u64>,
    /// Its checks.
    pub checks: Vec<CheckStatus>,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Its name within the service.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Last sample: pass, fail, unknown; `pending` before the first.
    pub sample: String,
    /// Verdict of its window.
    pub verdict: String,
    /// Why the last sample was not a pass.
    pub reason: String,
    /// How long ago the last run ended, in milliseconds.
    pub age_ms: Option<u64>,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Prefix, with its VRF.
    pub prefix: String,
    /// Its announcer.
    pub announcer: String,
    /// Whether it is wanted.
    pub wanted: bool,
    /// Whether the announcer has it; `None` = not known, the last call failed.
    pub announced: Option<bool>,
    /// Why it is wanted or not.
    pub reason: String,
    /// What the announcer knows to be wrong with it.
    pub diagnosis: Option<String>,
}

/// Why a prefix is announced or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The routes of the prefix.
    pub routes: Vec<RouteStatus>,
    /// The services that have it.
    pub services: Vec<ServiceStatus>,
}
