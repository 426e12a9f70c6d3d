//! What the engine wants known: facts for the log, the metrics, the journal and the timeline. Notes change nothing.

use serde::{Deserialize, Serialize};

use super::{Generation, Side};

/// A named refusal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RefusalNote {
    /// What was asked for: a transition's name, a message, an operator's request.
    pub asked: String,
    /// Who asked: `record`, `operator`, `peer`, `automation`.
    pub origin: String,
    /// Name of the refusal; stable, lower-case, with dashes.
    pub refusal: String,
    /// The sentence that a person reads.
    pub why: String,
}

/// A fact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "note")]
pub enum Note {
    /// A transition or request was refused.
    Refused(RefusalNote),
    /// A rule fired and its plan begins.
    TransitionStarted {
        /// Id of the rule.
        rule: String,
        /// Name of the transition.
        transition: String,
        /// Its generation.
        generation: Generation,
        /// Side of this site.
        side: Side,
        /// Why the rule exists.
        why: String,
        /// Names of the steps in order.
        steps: Vec<String>,
    },
    /// A step began (or was tried again).
    StepStarted {
        /// Transition.
        transition: String,
        /// Generation.
        generation: Generation,
        /// Step.
        step: String,
        /// 1 for the first try.
        attempt: u32,
    },
    /// A step is done.
    StepDone {
        /// Transition.
        transition: String,
        /// Generation.
        generation: Generation,
        /// Step.
        step: String,
        /// How: `done`, `already-so`, `beside` (goes on while the plan continues).
        how: String,
    },
    /// A try of a step failed; it is tried again until its limit.
    StepFailed {
        /// Transition.
        transition: String,
        /// Generation.
        generation: Generation,
        /// Step.
        step: String,
        /// What went wrong.
        reason: String,
    },
    /// All steps are done and the record says so.
    TransitionDone {
        /// Transition.
        transition: String,
        /// Generation.
        generation: Generation,
        /// Milliseconds since it started.
        took_ms: u64,
    },
    /// The transition stands still until a person acts.
    Halted {
        /// Transition.
        transition: String,
        /// Generation.
        generation: Generation,
        /// Step that could not be done.
        step: String,
        /// What a person must look at.
        reason: String,
    },
    /// Everything that the transition asked for has happened: pipeline done, maintenance as wanted.
    Settled {
        /// Transition.
        transition: String,
        /// Generation.
        generation: Generation,
    },
    /// A pipeline run of ours ended, timed out or is tried again; `state` as the metric's label.
    Pipeline {
        /// `release-namespace`.
        release: String,
        /// State.
        state: String,
        /// Whether this is the final failure of the transition.
        declared_failed: bool,
    },
    /// The quorum's DNS answer changed.
    DnsChanged {
        /// Address, `error` or `none`.
        result: String,
        /// `active`, `passive` or `other`.
        kind: String,
    },
    /// An odd DNS answer was seen; nothing is done until it has lasted.
    DnsOdd {
        /// Address, `error` or `none`.
        result: String,
        /// Agreeing samples so far.
        seen: u32,
        /// Samples that are needed.
        need: u32,
    },
    /// An odd DNS answer went away before it was acted on.
    DnsHealed,
    /// Automation only advises: this is what it would do.
    Advised {
        /// Name of the transition.
        transition: String,
        /// On what evidence.
        why: String,
        /// Names of the steps in order.
        steps: Vec<String>,
    },
    /// The peer's agent was lost or found.
    PeerLink {
        /// Whether it answers.
        up: bool,
        /// Why not.
        reason: String,
    },
    /// What Patroni shows changed.
    PatroniChanged {
        /// `primary`, `standby`, `none` or `unknown`.
        role: String,
        /// Members that are not healthy.
        concerns: Vec<String>,
    },
    /// An answer to an operator's request.
    Answer {
        /// The request's number.
        ticket: u64,
        /// Whether it was accepted.
        accepted: bool,
        /// Refusal's name or what happens next.
        message: String,
    },
    /// Data may have been lost or left behind; the figure is for the report.
    DivergenceReported {
        /// Bytes of write-ahead log that the other site never had; `None` = unknown.
        bytes: Option<u64>,
        /// What was compared.
        basis: String,
    },
    /// Something worth a line in the log.
    Remark {
        /// `info`, `warning` or `error`.
        level: String,
        /// The line.
        text: String,
    },
}
