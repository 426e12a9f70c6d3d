//! The bus: the one bounded queue through which everything reaches the engine.
//!
//! ```text
//!  dns_watch, kube_watch, tekton_watch, patroni_worker (1x each) --+
//!  peer_server (1x per connection), peer_client (1x) --------------+--> bus --> logic_handler (1x)
//!  http (1x per request), executor (1x per action) ----------------+
//! ```
//!
//! A full queue makes the sender wait, so a slow engine slows its watchers instead of growing memory; nothing is
//! dropped silently. It also tells its senders the time as the engine counts it.

use tokio::sync::mpsc;

use crate::model::{Event, Mono};
use crate::tasks::clock::Clock;

/// Events that may wait: two rounds of every watcher, every action of a plan and a burst of peer messages; more
/// than that means that the engine stands still, and then waiting is right.
pub const BUS_CAPACITY: usize = 256;

/// Sending end of the bus.
#[derive(Debug, Clone)]
pub struct Bus {
    sender: mpsc::Sender<Event>,
    clock: Clock,
}

impl Bus {
    /// A bus and its receiving end.
    pub fn new() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(BUS_CAPACITY);
        (Self { sender, clock: Clock::starting_at(Mono(0)) }, receiver)
    }

    /// The same bus with the clock of an engine that goes on from an earlier process.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The engine's monotonic count, for events that say when something was asked.
    pub fn now(&self) -> Mono {
        self.clock.now().mono
    }

    /// Hands an event to the engine, waiting while the queue is full. `false` = the engine is gone.
    pub async fn send(&self, event: Event) -> bool {
        self.sender.send(event).await.is_ok()
    }

    /// Events that wait now.
    pub fn depth(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }
}
