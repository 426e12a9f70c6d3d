//! What may be given to a side, and what the invariants remember of it.

use crate::model::{Generation, LeaseHolder, OperatorRequest, OutboxId, PeerMessage, PeerStatus, Transition};

/// A message on its way, with the number under which it was sent.
pub type Letter = (Option<(String, OutboxId)>, PeerMessage);

/// What the invariants remember of a side; no engine sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// Nonces of consents that began a run.
    pub spent: Vec<String>,
    /// Once-only effects that were answered with success, with the generation of their run.
    pub once: Vec<(Generation, String)>,
    /// An automatic failover ended here and no person has acknowledged it or ordered a failback since.
    pub automatic: bool,
    /// The latest run was begun by automation.
    pub by_itself: bool,
    /// The site came home and traffic has not been seen there since.
    pub old_news: bool,
    /// The peer's order or question was refused here since the last run.
    pub refused: bool,
    /// The run under way stopped waiting for the old primary to be fenced.
    pub waited_out: bool,
    /// Automation may not begin anything in this mode.
    pub quiet: bool,
    /// Highest generation under which a run began here.
    pub ran: Generation,
}

/// What a round of look-ups gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Every resolver names the active site.
    Active,
    /// Every resolver names the passive site.
    Passive,
    /// One of three names the passive site, the others do not answer.
    OneLies,
    /// No resolver answers.
    Silence,
}

/// One thing that happens to one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A call is carried out; its answer comes, or is lost with an error.
    Carry(u8, bool),
    /// A call fails and does nothing.
    Fail(u8),
    /// A call is carried out (or not) and no answer ever comes.
    Hang(u8, bool),
    /// A call will stay under way while time goes on.
    Delay(u8),
    /// The call that delivers a letter ends.
    Delivered(u8, bool),
    /// A letter arrives.
    Hear(Letter),
    /// A letter will arrive once more.
    Keep(Letter),
    /// The second copy arrives.
    HearCopy,
    /// The agent dies; the call of this index takes effect all the same.
    Crash(Option<u8>),
    /// The agent starts again.
    Start,
    /// Own record, database, resolvers and pipeline are looked at.
    Observe,
    /// A look at the witness; `None` = it does not answer.
    Witness(Option<LeaseHolder>),
    /// A heartbeat is answered.
    Status(PeerStatus),
    /// Heartbeats are lost.
    Lost,
    /// So many milliseconds have passed; the site changes by itself.
    Pass(u64),
    /// The engine is woken by its deadline.
    Tick,
    /// The standby holds what its source has written.
    Follow(u64, u64),
    /// A client's write is acknowledged.
    Write,
    /// A round of look-ups.
    Dns(Answer),
    /// An operator asks, by index into [`requests`].
    Ask(u8),
    /// The pipeline run under way will fail.
    FailRun,
    /// The wall clock jumps to this many milliseconds ahead.
    Skew(i64),
}

/// What operators ask for in the model.
pub fn requests() -> Vec<OperatorRequest> {
    let plain = |transition| OperatorRequest::Transition { transition, accept_data_loss: None };
    let mut all: Vec<_> = Transition::ALL[..5].iter().map(|transition| plain(*transition)).collect();
    all.push(OperatorRequest::Transition {
        transition: Transition::GoldStandby,
        accept_data_loss: Some("drill".to_owned()),
    });
    all.extend([OperatorRequest::Resume, OperatorRequest::Abort, OperatorRequest::Acknowledge]);
    all
}
