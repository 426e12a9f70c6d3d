//! A site and its home: names are settings, sides never change while the agent runs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Name of a data centre as the settings spell it (`gold`, `golddr` by default).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SiteName(pub String);

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The home of a site in the pair: where the service lives on a normal day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Serves on a normal day (`gold`).
    Active,
    /// Stands by on a normal day (`golddr`).
    Passive,
}

impl Side {
    /// Both sides, in a fixed order.
    pub const ALL: [Self; 2] = [Self::Active, Self::Passive];

    /// The other side.
    pub fn other(self) -> Self {
        match self {
            Self::Active => Self::Passive,
            Self::Passive => Self::Active,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Passive => "passive",
        })
    }
}
