//! The way from a step of a plan to the routes: an order, and the answer when the clouds say what it wants.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::model::{Detail, FailureKind, Outcome, RoutePin};

/// Orders that may wait: a plan has one at a time.
const QUEUE: usize = 8;

/// One order.
#[derive(Debug)]
pub struct PinOrder {
    /// What is wanted.
    pub pin: RoutePin,
    answer: oneshot::Sender<Outcome>,
}

impl PinOrder {
    /// Says how it ended. Nobody may be listening any more: the routes are steered all the same.
    pub fn answer(self, outcome: Outcome) {
        let _ = self.answer.send(outcome);
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_forgotten(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Hands orders to the task; clones share it.
#[derive(Clone, Debug)]
pub struct RoutePinner {
    orders: mpsc::Sender<PinOrder>,
}

/// Where the task takes them from, over its restarts.
pub type PinOrders = Arc<Mutex<mpsc::Receiver<PinOrder>>>;

impl RoutePinner {
    /// A way and its other end.
    pub fn new() -> (Self, PinOrders) {
        let (orders, received) = mpsc::channel(QUEUE);
        (Self { orders }, Arc::new(Mutex::new(received)))
    }

    /// Gives the routes to the passive site or back to health; ends when router and Cloudflare were seen to say so.
    /// The caller bounds the time. Doing it twice does no harm.
    pub async fn pin(&self, pin: RoutePin) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        if self.orders.send(PinOrder { pin, answer }).await.is_err() {
            return gone("route_watch does not run");
        }
        outcome.await.unwrap_or_else(|_| gone("route_watch ended before the routes were steered"))
    }
}

/// The routes say what was asked for.
pub fn steered(changed: bool) -> Outcome {
    Outcome::Done(if changed { Detail::Nothing } else { Detail::AlreadySo })
}

/// They do not, yet.
pub fn not_yet(reason: impl Into<String>) -> Outcome {
    Outcome::Failed { kind: FailureKind::Transient, reason: reason.into() }
}

fn gone(reason: &str) -> Outcome {
    not_yet(reason)
}
