//! Named refusals: why something that was asked for is not done.

use serde::{Deserialize, Serialize};

use super::sensors::Doubt;
use crate::model::{Phase, Transition};

/// A reason for saying no. The name is an interface: logs, metrics, annotations and scripts use it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The transition does not start from this phase.
    NotFromPhase {
        /// What was asked for.
        transition: Transition,
        /// Where the site is.
        phase: Phase,
    },
    /// The site is in the target phase already.
    AlreadyThere(Phase),
    /// The trigger has no meaning at this side.
    NotAtThisSide,
    /// Another transition is being carried out.
    TransitionInProgress(String),
    /// The peer's agent does not answer.
    PeerLost,
    /// The peer did not answer the request for consent in time.
    ConsentTimedOut,
    /// The peer refused, with its reason.
    PeerRefused(String),
    /// A consent that answers no outstanding request of ours.
    ConsentNotAsked,
    /// A consent that came after its expiry.
    ConsentExpired,
    /// A consent or order of an older generation.
    StaleGeneration,
    /// The record cannot be read or written.
    RecordUnknown,
    /// There is no record.
    RecordMissing,
    /// The record's phase is empty or not one we know.
    RecordPhaseUnknown(String),
    /// The record's transition is not one we know.
    UnknownTransition(String),
    /// The record was edited while a transition was under way.
    RecordEdited(String),
    /// The local database cannot be seen.
    DatabaseUnknown,
    /// The local database is not what the request needs.
    DatabaseNotPrimary,
    /// Our database takes writes, so the other site cannot be told that it may.
    DatabaseIsPrimary,
    /// The peer is not seen as a writable primary, or its facts are too old.
    PeerNotVerified(String),
    /// The peer's database has not reached our last position.
    PeerBehind {
        /// Our last position in bytes.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// The peer's database is not on a later timeline than ours: both may hold writes that the other lacks.
    Diverged {
        /// Our timeline.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// Automation is switched off or only advises.
    AutomationOff,
    /// A completed automatic failover has not been acknowledged yet.
    NotAcknowledged,
    /// The sender did not prove to be the peer.
    NotAuthenticated,
    /// The phase that the peer requires is not ours.
    RequiredPhaseDiffers(String),
    /// The journal was found damaged at the start: what was under way is not known.
    JournalDamaged(String),
    /// This site may not serve at the moment, and has stopped doing so.
    NoLease(String),
    /// Neither site takes writes, for longer than the bound.
    BothDemoted,
    /// The standby is too far behind for a planned move, in bytes.
    LagTooHigh {
        /// Bytes behind.
        behind: u64,
        /// `MAX_LAG_BYTES`.
        limit: u64,
    },
    /// The standby has been behind for too long for a planned move.
    LagTooLong {
        /// Milliseconds behind.
        behind_ms: u64,
        /// `MAX_LAG_SECONDS`, in milliseconds.
        limit_ms: u64,
    },
    /// The site that is to take the service says that its database could not.
    StandbyNotReady,
    /// The observers do not agree.
    Doubtful(Doubt),
    /// There is nothing to resume, abort or acknowledge.
    NothingToDo,
}

impl Refusal {
    /// Its stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotFromPhase { .. } => "not-from-this-phase",
            Self::AlreadyThere(_) => "already-there",
            Self::NotAtThisSide => "not-at-this-side",
            Self::TransitionInProgress(_) => "transition-in-progress",
            Self::PeerLost => "peer-lost",
            Self::ConsentTimedOut => "consent-timed-out",
            Self::PeerRefused(_) => "peer-refused",
            Self::ConsentNotAsked => "consent-not-asked",
            Self::ConsentExpired => "consent-expired",
            Self::StaleGeneration => "stale-generation",
            Self::RecordUnknown => "record-unknown",
            Self::RecordMissing => "record-missing",
            Self::RecordPhaseUnknown(_) => "record-phase-unknown",
            Self::UnknownTransition(_) => "unknown-transition",
            Self::RecordEdited(_) => "record-edited",
            Self::DatabaseUnknown => "database-unknown",
            Self::DatabaseNotPrimary => "database-not-primary",
            Self::DatabaseIsPrimary => "database-is-primary",
            Self::PeerNotVerified(_) => "peer-not-verified",
            Self::PeerBehind { .. } => "peer-behind",
            Self::Diverged { .. } => "diverged",
            Self::AutomationOff => "automation-off",
            Self::NotAcknowledged => "not-acknowledged",
            Self::NotAuthenticated => "not-authenticated",
            Self::RequiredPhaseDiffers(_) => "required-phase-differs",
            Self::JournalDamaged(_) => "journal-damaged",
            Self::NoLease(_) => "no-lease",
            Self::BothDemoted => "both-demoted",
            Self::LagTooHigh { .. } => "lag-too-high",
            Self::LagTooLong { .. } => "lag-too-long",
            Self::StandbyNotReady => "standby-not-ready",
            Self::Doubtful(doubt) => doubt.name(),
            Self::NothingToDo => "nothing-to-do",
        }
    }

    /// The sentence for a person.
    pub fn why(&self) -> String {
        match self {
            Self::NotFromPhase { transition, phase } => {
                format!("{transition} does not start from {phase}")
            }
            Self::AlreadyThere(phase) => format!("the site is in {phase} already"),
            Self::NotAtThisSide => "this side has no part in it".to_owned(),
            Self::TransitionInProgress(what) => {
                format!("{what} is being carried out; abort it or let it end")
            }
            Self::PeerLost => "the peer's agent does not answer heartbeats".to_owned(),
            Self::ConsentTimedOut => "the peer did not answer the request for consent in time".to_owned(),
            Self::PeerRefused(reason) => format!("the peer refused: {reason}"),
            Self::ConsentNotAsked => "the consent answers no outstanding request of this process".to_owned(),
            Self::ConsentExpired => "the consent came after its expiry".to_owned(),
            Self::StaleGeneration => "a newer generation is known".to_owned(),
            Self::RecordUnknown => "the record could not be read or written".to_owned(),
            Self::RecordMissing => "the record ConfigMap does not exist".to_owned(),
            Self::RecordPhaseUnknown(text) => {
                format!("last_stable_state is {text:?}, which is no phase: set it to the true one")
            }
            Self::UnknownTransition(text) => {
                let known = Transition::ALL.map(Transition::wire).join(", ");
                format!("{text:?} is no transition; known are {known}")
            }
            Self::RecordEdited(what) => {
                format!("the record was edited while a transition was under way: {what}")
            }
            Self::DatabaseUnknown => "the local database cannot be seen".to_owned(),
            Self::DatabaseNotPrimary => "the local database does not take writes".to_owned(),
            Self::DatabaseIsPrimary => "the local database takes writes".to_owned(),
            Self::PeerNotVerified(what) => format!("the peer is not verified as a writable primary: {what}"),
            Self::PeerBehind { ours, theirs } => {
                format!("the peer's database is at {theirs}, ours wrote up to {ours}")
            }
            Self::Diverged { ours, theirs } => format!(
                "the peer's database is on timeline {theirs}, ours on {ours}: each may hold writes that the other \
                 lacks; ask again with accept_data_loss and a reason to give ours up"
            ),
            Self::AutomationOff => "automation is off or only advises".to_owned(),
            Self::NotAcknowledged => {
                "the last automatic failover has not been acknowledged by a person".to_owned()
            }
            Self::NotAuthenticated => "the sender showed no valid certificate of the peer".to_owned(),
            Self::RequiredPhaseDiffers(phase) => format!("this site is in {phase}"),
            Self::JournalDamaged(what) => {
                format!("{what}; look at both sites, then resume to let the agent act again")
            }
            other => other.why_of_safety(),
        }
    }

    /// The sentences of the guards that compare the sites.
    fn why_of_safety(&self) -> String {
        match self {
            Self::NoLease(why) => format!("{why}; the database is read-only and the site takes no traffic"),
            Self::BothDemoted => {
                "neither site takes writes: find out which one holds the newest data and make it primary"
                    .to_owned()
            }
            Self::LagTooHigh { behind, limit } => format!(
                "the standby is {behind} bytes behind, MAX_LAG_BYTES allows {limit}; wait, or ask again with \
                 accept_data_loss and a reason"
            ),
            Self::LagTooLong { behind_ms, limit_ms } => format!(
                "the standby is {} s behind, MAX_LAG_SECONDS allows {}; wait, or ask again with accept_data_loss \
                 and a reason",
                behind_ms / 1_000,
                limit_ms / 1_000
            ),
            Self::StandbyNotReady => {
                "the database that is to take the service is no working standby; ask again \
                                      with accept_data_loss and a reason to move all the same"
                    .to_owned()
            }
            Self::Doubtful(doubt) => doubt.why().to_owned(),
            _ => "there is nothing that this would act on".to_owned(),
        }
    }
}
