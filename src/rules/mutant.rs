//! Faults that can be seeded into the rules, so that the checker shows that it would find them.
//!
//! An engine carries one only where [`super::Engine::with_mutant`] put it: the checker and its tests do, nothing else
//! (`tests/tidy.rs` holds that). No setting names a mutant, no state or journal contains one, and an agent's engine
//! answers [`super::Engine::mutated`] with `false` every time.

use super::state::{State, StepStatus};
use crate::model::Generation;

macro_rules! mutants {
    ($($name:ident $says:literal)*) => {
        /// One seeded fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $(#[doc = $says] $name,)*
        }

        impl Mutant {
            /// All of them, in a fixed order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What it does wrong.
            pub fn says(self) -> &'static str {
                match self {
                    $(Self::$name => $says,)*
                }
            }
        }
    };
}

mutants! {
    GateIgnoresPosition "deletes although the other database has not reached our position"
    GateIgnoresTimeline "deletes although both databases were promoted from one timeline"
    GateIgnoresRole "deletes although the other database does not take writes"
    GateIgnoresConsent "deletes without consent"
    GateOpen "does not look at the destruction gate between the steps"
    TrustsStaleFacts "believes what the peer said however long ago"
    PeerAlwaysFenced "promotes without waiting until the old primary is fenced"
    FenceOfBefore "takes the old primary for fenced although it has not heard of the failover"
    TellsOldRole "tells the peer that its database is read-only while it is being promoted or fenced"
    OverlapsRoleCalls "promotes or deletes while a call of before may still change the role of the database"
    LenderUnseen "promotes in a failback without seeing again that the other site is still read-only"
    FenceUnobserved "takes an answered fence for a fenced database"
    StandbyUnobserved "takes any database for a working standby"
    CatchUpSkipped "promotes in a failback before the last write has come"
    PromotionUnobserved "takes an answered promotion for a promoted database"
    FailureIsDone "takes a failed call for a done step"
    AnyNonce "takes a yes for an answer whatever it answers"
    ConsentKept "leaves a used consent outstanding"
    ConsentNeverExpires "lets a request for consent stand for ever"
    ConsentForAnyGeneration "uses a consent of an old generation"
    ConsentForAnyPhase "uses a consent although the phase no longer allows it"
    VetoIgnored "goes on although the peer said no"
    GrantsInAnyPhase "consents from a phase that was not asked for"
    GrantsWhileBusy "consents in the middle of a transition of its own"
    GrantsOldGenerations "consents to an old generation"
    GrantsLate "consents to a request that has expired"
    GrantsUnseen "consents to a rebuild without holding the data"
    GrantsUnfenced "consents to a failback without making its database read-only"
    GrantsBeforeFence "consents to a failback before its database is read-only"
    GrantsOnFailedFence "consents to a failback although the fence failed"
    PromisesUncounted "begins a transition under the number that it promised to the peer"
    UnfencesBlindly "takes writes again without seeing what the peer did"
    NeverUnfences "stays read-only for a failback that never came"
    ObeysOldOrders "obeys an order of an old generation"
    ForgetsEarlyOrders "drops an order that comes while it is busy"
    ForgetsUnwrittenOrders "drops an order that it could not write into its record"
    GenerationOwnOnly "numbers a transition without regard to the peer's"
    GenerationNotRaised "does not remember the generation of its own run"
    RunsOverRun "begins a transition while another one goes on"
    UnknownDnsIsMoved "takes resolvers that do not answer for moved traffic"
    OneResolverDecides "believes a single resolver"
    Unacknowledged "fails over by itself again before a person acknowledged the first time"
    Rearmed "takes the old DNS answer after a failback for news"
    AdviceActs "acts in the mode that only advises"
    AssumesFenced "lets an automatic failover go on when the old primary was never seen fenced"
    HaltUntold "stands still without a word"
    HaltPassed "goes on after a step that must halt"
    ResumesPastStep "resumes at the step after the one that halted"
    RepeatsDone "does an answered step again"
    OverdueWaits "waits for an outcome for ever"
    PipelineForgotten "calls a transition settled while its pipeline runs"
    OutboxNewestFirst "sends the newest message first"
    OutboxTriesOnce "gives a message up after one failed delivery"
    HearsTwice "takes a second copy of a message for a new one"
    RestartFinishesCalls "takes calls that a restart interrupted for done"
    ForgetsJournal "starts without its journal"
    ForgetsGeneration "forgets its generation in a restart"
    ForgetsOutbox "forgets its outbox in a restart"
    ForgetsGrant "forgets in a restart that it is read-only for a consent"
    ForgetsHandled "forgets in a restart which messages it has heard"
    ForgetsAutomatic "forgets in a restart that an automatic failover waits for a person"
}

impl Mutant {
    /// The faults of the restart: what of the saved state is lost or misread.
    pub fn spoil_restart(self, state: &mut State) {
        match self {
            Self::ForgetsGeneration => state.generation = Generation::default(),
            Self::ForgetsOutbox => state.outbox.clear(),
            Self::ForgetsGrant => state.grant = None,
            Self::ForgetsHandled => state.handled.clear(),
            Self::ForgetsAutomatic => state.automation.unacknowledged = false,
            Self::RestartFinishesCalls => {
                for step in state.run.iter_mut().flat_map(|run| &mut run.lane.steps) {
                    if matches!(step.status, StepStatus::Backoff { .. }) {
                        step.status = StepStatus::Finished;
                    }
                }
            }
            _ => {}
        }
    }
}
