//! What observers beyond DNS, the peer and Patroni say.

use serde::{Deserialize, Serialize};

use super::Mono;

/// An observer that gives a plain reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SensorName {
    /// The application of this site, asked by this site.
    Application,
    /// The cloud's health checks and BGP sessions of the active site.
    Cloud,
}

/// A plain reading. A look that failed is unknown, never bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// It works.
    Good,
    /// It is seen not to work.
    Bad,
    /// The look failed.
    Unknown,
}

/// Who holds the witness's lease on the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseHolder {
    /// This site.
    Us,
    /// The other site.
    Peer,
    /// Nobody: it was given back, or has lapsed.
    Nobody,
}

/// A look at the witness.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WitnessSample {
    /// It answered.
    Answered {
        /// Who holds the lease.
        holder: LeaseHolder,
        /// When the question was sent, by the clock of the engine: a renewal counts from there.
        asked: Mono,
    },
    /// It did not answer, and why.
    Unknown(String),
}
