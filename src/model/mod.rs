//! Vocabulary: the plain data that every layer speaks. Owns the words and their invariants, decides nothing.
//!
//! No clock, no I/O, no randomness, ordered collections only: all of it can be hashed, stored and replayed.

pub mod action;
pub mod aim;
pub mod event;
pub mod note;
pub mod observation;
pub mod peer;
pub mod phase;
pub mod record;
pub mod sensor;
pub mod site;
pub mod time;

pub use action::{Action, ActionId, Command, Detail, Effect, FailureKind, Outcome, RoutePin, Traffic};
pub use aim::{Aim, RunsBefore};
pub use event::{Event, OperatorRequest};
pub use note::{Note, RefusalNote};
pub use observation::{
    DnsSample, Member, MemberRole, PatroniSample, PatroniView, PipelineRunSeen, ResolverAnswer, RunEvent,
};
pub use peer::{ConsentTag, OutboxId, PeerLink, PeerMessage, PeerStatus};
pub use phase::{Generation, Phase, Transition};
pub use record::{Record, RecordPhase, RecordSeen, RecordTransition, RecordWrite};
pub use sensor::{LeaseHolder, Reading, SensorName, WitnessSample};
pub use site::{Side, SiteName};
pub use time::{Mono, Now, Wall};
