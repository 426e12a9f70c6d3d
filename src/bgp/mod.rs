//! Our own BGP speaker: originates, imports nothing, re-advertises nothing.
//!
//! ```text
//!  announce::speaker (1x) -- Table --> watch --+--> neighbour (Nx): dial, back-off
//!                         -- Order --> watch --+      `-- session: one TCP connection, timers
//!                 status <-- watch, one per neighbour        |-- fsm: who may do what (pure)
//!                                                            |-- codec: bytes to messages (pure)
//!                                                            `-- packing: table difference to UPDATEs (pure)
//! ```
//!
//! | RFC | where |
//! |---|---|
//! | 4271 messages, 5492 capabilities, 6793 four-octet AS, 9072 | [`codec`], [`fsm`] over `rustbgpd-wire`, `rustbgpd-fsm` |
//! | 4760, 8950 families and next hops; 1997, 4360, 8092 communities; 8326 | [`attributes`], [`community`] |
//! | 2918, 7313 route refresh; 7606 malformed UPDATEs; 9687 send hold timer | [`session`] |
//! | 4724 graceful restart; 4486, 9003 shutdown texts; 9384 BFD down | [`fsm`], [`speaker`] |
//! | 2385 TCP-MD5, 5082 GTSM | [`socket`] |
//!
//! Connection collisions (RFC 4271 §6.8) are avoided, not resolved: the speaker only dials and never listens, so a
//! neighbour and we can never have two connections. Received UPDATEs are checked for errors and forgotten.

pub mod attributes;
pub mod codec;
pub mod community;
pub mod fsm;
pub mod neighbour;
pub mod packing;
pub mod session;
pub mod socket;
pub mod speaker;
pub mod status;
pub mod table;

pub use attributes::SessionView;
pub use community::{Community, CommunityError};
pub use speaker::Speaker;
pub use status::{NeighbourState, NeighbourStatus};
