//! Bidirectional Forwarding Detection, asynchronous mode: tells within a fraction of a second that a neighbour, or
//! the way to it, is gone, and tells the neighbour the same about us.
//!
//! ```text
//!  speaker -- settings --> driver (1x per local address and port) --> watch<State> --> neighbour (Nx)
//!                             `-- session (Nx, pure): packets and a clock in, packets and a state out
//! ```
//!
//! RFC 5880 (protocol, without echo, demand mode and authentication), RFC 5881 (single hop, port 3784, TTL 255),
//! RFC 5883 (multi hop, port 4784). What a lost session means for BGP is the speaker's (RFC 5882, RFC 9384).

use tokio::sync::watch;

pub mod driver;
pub mod packet;
pub mod session;

pub use driver::{Driver, SessionSpec};
pub use packet::{Diagnostic, Packet, State};
pub use session::Session;

/// Waits for a session to be lost after it was up.
#[derive(Debug, Clone)]
pub struct Watch {
    states: watch::Receiver<State>,
    was_up: bool,
}

impl Watch {
    /// A watch of these states.
    pub fn new(states: watch::Receiver<State>) -> Self {
        Self { states, was_up: false }
    }

    /// The state now.
    pub fn state(&self) -> State {
        *self.states.borrow()
    }

    /// Returns when the session went from Up to Down. A session that was never up, or that the neighbour took down on
    /// purpose (AdminDown, RFC 5882 §3.2), says nothing about the path. Never returns once the driver is gone.
    pub async fn down(&mut self) {
        loop {
            let state = *self.states.borrow_and_update();
            match state {
                State::Up => self.was_up = true,
                State::Down if self.was_up => {
                    self.was_up = false;
                    return;
                }
                State::AdminDown => self.was_up = false,
                State::Down | State::Init => {}
            }
            if self.states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Like [`Watch::down`]; without a watch it never returns.
pub async fn went_down(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.down().await,
        None => std::future::pending().await,
    }
}
