//! Names and sentences of the invariants; [`super::invariants`] and [`super::pair_rules`] judge them.

macro_rules! invariants {
    ($($rule:ident $name:literal $says:literal)*) => {
        /// An invariant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Rule { $(#[doc = $says] $rule,)* }

        impl Rule {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$rule,)*];
            /// Stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$rule => $name,)* }
            }
            /// The sentence.
            pub fn says(self) -> &'static str {
                match self { $(Self::$rule => $says,)* }
            }
        }
    };
}

invariants! {
    OneWriter "one-writer" "never two writable sites, where the assumptions hold (see below)"
    Proof "proof-before-destruction" "when data is deleted the other database holds all of it, at or past ours on a later timeline, or a person accepted the loss"
    ProofAsked "proof-when-asked" "a deletion is asked for only on a fresh word of the peer that its database takes writes, or a person accepted the loss"
    ByRun "destruction-by-run" "a deletion is only asked for by a run that nothing has halted"
    PlannedKeepsAll "planned-move-loses-nothing" "when a consented failback promotes, the other database takes no writes and holds none that this one lacks"
    GenerationGrows "generation-grows" "no engine forgets a generation, and none begins a run of its own under one twice"
    StaleNeverActs "stale-never-acts" "an order of an older generation changes nothing"
    ConsentOnce "consent-once" "what needs consent begins only by a fresh yes to the outstanding request, each nonce once"
    ConsentSound "consent-is-sound" "a yes is given idle, in the asked phase, to a newer generation, in time, holding the data or read-only as it implies"
    VetoHolds "veto-holds" "a no begins nothing"
    OneRun "one-run" "no run starts while another one goes on"
    DoneIsDone "done-means-done" "a transition is done only when the database is what it promises"
    FenceAwaited "fence-is-awaited" "a failover promotes only after the old primary was seen read-only or lost, or a person's whole wait is over"
    HaltTold "halt-is-told" "a run that halts says so to people"
    ResumeThere "resume-where-halted" "a resumed run goes on at the step that halted"
    UnknownStill "unknown-moves-nothing" "resolvers that do not answer, or one alone, cause nothing"
    OneAutomatic "one-automatic-failover" "automation acts only where it may, on news, and not again before a person acknowledged"
    SendsInOrder "outbox-in-order" "messages are sent in the order in which they were said"
    OrderKept "order-not-lost" "an order stays until it is acknowledged, superseded, or a new run begins"
    HeardOnce "heard-once" "a second copy of a message changes nothing"
    OnceOnly "once-only" "what must not happen twice is not asked for again after its success was known"
    RestartKeeps "restart-keeps" "a restart forgets no generation, message, consent, promise or run"
    SettledTold "settled-is-settled" "settled is said only when the pipeline is over"
    ComesToRest "rules-come-to-rest" "evaluation ends"
    SitesAgree "record-and-database-agree" "at rest both records show one phase and both databases are what it says, or a named halt or refusal stands"
    GoalReached "goal-reached" "without further faults everything accepted comes to its end or to a named halt"
    OneServes "never-both-demoted" "at rest one site takes writes or a halt or warning says why not; in between both are demoted for a bounded time"
}
