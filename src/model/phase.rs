//! Phases of the pair and transitions between them, with the names that the record and the wire use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A named stable condition of a site, kept in its record as `last_stable_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Never part of a pair yet.
    Independent,
    /// The normal day: the active site serves, the passive site stands by.
    ActivePassive,
    /// The passive site is being rebuilt as standby on the way to `active-passive`.
    ActivePassivePartial,
    /// The passive site serves.
    GolddrPrimary,
    /// The passive site is detached for maintenance.
    GolddrMaintenance,
    /// The passive site serves and the active site stands by.
    GoldStandby,
    /// The active site is being rebuilt as standby on the way to `gold-standby`.
    GoldStandbyPartial,
}

impl Phase {
    /// Every phase, in a fixed order.
    pub const ALL: [Self; 7] = [
        Self::Independent,
        Self::ActivePassive,
        Self::ActivePassivePartial,
        Self::GolddrPrimary,
        Self::GolddrMaintenance,
        Self::GoldStandby,
        Self::GoldStandbyPartial,
    ];

    /// The name in the record and on the wire.
    pub fn wire(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::ActivePassive => "active-passive",
            Self::ActivePassivePartial => "active-passive-partial",
            Self::GolddrPrimary => "golddr-primary",
            Self::GolddrMaintenance => "golddr-maintenance",
            Self::GoldStandby => "gold-standby",
            Self::GoldStandbyPartial => "gold-standby-partial",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wire())
    }
}

/// A text that names no phase or transition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of {1}")]
pub struct UnknownName(pub String, pub String);

impl FromStr for Phase {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.wire() == text)
            .ok_or_else(|| UnknownName(text.to_owned(), Self::ALL.map(Self::wire).join(", ")))
    }
}

/// A move between two phases that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transition {
    /// Fail over: the passive site takes the service.
    GolddrPrimary,
    /// Rebuild the active site as standby of the passive one.
    GoldStandby,
    /// Fail back: the active site takes the service, the passive one becomes its standby.
    ActivePassive,
    /// Fail back without asking the peer and from any phase.
    ActivePassiveForce,
    /// Detach the passive site for maintenance.
    GolddrMaintenance,
    /// Ask the peer for its consent and do nothing with it.
    TestPingPong,
}

impl Transition {
    /// Every transition, in a fixed order.
    pub const ALL: [Self; 6] = [
        Self::GolddrPrimary,
        Self::GoldStandby,
        Self::ActivePassive,
        Self::ActivePassiveForce,
        Self::GolddrMaintenance,
        Self::TestPingPong,
    ];

    /// The name in the record, on the wire and in `PUT /phase/transition-to-<name>`.
    pub fn wire(self) -> &'static str {
        match self {
            Self::GolddrPrimary => "golddr-primary",
            Self::GoldStandby => "gold-standby",
            Self::ActivePassive => "active-passive",
            Self::ActivePassiveForce => "active-passive-force",
            Self::GolddrMaintenance => "golddr-maintenance",
            Self::TestPingPong => "test-ping-pong",
        }
    }

    /// The phase in which the pair is when the transition is complete; `None` where it changes no phase.
    pub fn target(self) -> Option<Phase> {
        match self {
            Self::GolddrPrimary => Some(Phase::GolddrPrimary),
            Self::GoldStandby => Some(Phase::GoldStandby),
            Self::ActivePassive | Self::ActivePassiveForce => Some(Phase::ActivePassive),
            Self::GolddrMaintenance => Some(Phase::GolddrMaintenance),
            Self::TestPingPong => None,
        }
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wire())
    }
}

impl FromStr for Transition {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|transition| transition.wire() == text)
            .ok_or_else(|| UnknownName(text.to_owned(), Self::ALL.map(Self::wire).join(", ")))
    }
}

/// Fencing number of a transition: grows with every accepted transition of the pair and never goes back. A
/// message, consent or outcome that carries an older one is stale and changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_name_reads_back_as_itself() {
        for phase in Phase::ALL {
            assert_eq!(phase.wire().parse(), Ok(phase));
        }
        for transition in Transition::ALL {
            assert_eq!(transition.wire().parse(), Ok(transition));
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "silver".parse::<Phase>().unwrap_err().to_string();
        assert!(error.contains("\"silver\"") && error.contains("gold-standby-partial"), "{error}");
    }
}
