//! A process that can be stopped and continued: while the gate is closed, nothing of it is polled.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The gate of one process.
#[derive(Debug)]
pub struct Gate {
    start: Instant,
    closed_until_ms: AtomicU64,
}

impl Gate {
    /// An open gate; moments are counted from `start`.
    pub fn new(start: Instant) -> Self {
        Self { start, closed_until_ms: AtomicU64::new(0) }
    }

    /// Closes it until a moment, in milliseconds.
    pub fn close_until(&self, ms: u64) {
        self.closed_until_ms.store(ms, Ordering::Relaxed);
    }

    fn opens(&self) -> Instant {
        self.start + Duration::from_millis(self.closed_until_ms.load(Ordering::Relaxed))
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        loop {
            let opens = self.opens();
            if opens <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(opens).await;
        }
    }
}

/// A future of a process that can be stopped.
pub struct Gated<F> {
    inner: Pin<Box<F>>,
    gate: Arc<Gate>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<F> Gated<F> {
    /// The future behind the gate.
    pub fn new(gate: Arc<Gate>, inner: F) -> Self {
        Self { inner: Box::pin(inner), gate, sleep: None }
    }
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let opens = self.gate.opens();
            if opens <= Instant::now() {
                self.sleep = None;
                return self.inner.as_mut().poll(context);
            }
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(opens)));
            if sleep.deadline() != opens {
                sleep.as_mut().reset(opens);
            }
            match sleep.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.sleep = None,
            }
        }
    }
}
