//! The listener: bounds the number of connections and cuts off silent clients.
//!
//! `axum::serve` offers no header-read time-out of its own, so each connection that neither sends nor is sent a byte
//! for [`IDLE_LIMIT`] is closed, and no connection lives longer than [`LIFE_LIMIT`], which bounds a client that drips
//! its request byte by byte.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Longest silence on a connection; longer than the longest request.
pub const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// Longest life of a connection; clients that keep one open connect again.
pub const LIFE_LIMIT: Duration = Duration::from_secs(300);
/// Connections at once: probes, scrapers and operators of one agent need a handful. More wait in the backlog.
pub const CONNECTIONS: usize = 128;

/// A listener with bounds.
pub(super) struct Bounded {
    inner: TcpListener,
    slots: Arc<Semaphore>,
}

impl Bounded {
    pub(super) fn new(inner: TcpListener) -> Self {
        Self { inner, slots: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        // the trait's own accept handles and retries errors
        let (stream, address) = Listener::accept(&mut self.inner).await;
        let timer = Box::pin(tokio::time::sleep(IDLE_LIMIT));
        (Connection { stream, timer, end: Instant::now() + LIFE_LIMIT, _slot: slot }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// One connection.
pub(super) struct Connection {
    stream: TcpStream,
    timer: Pin<Box<Sleep>>,
    end: Instant,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn rearm(&mut self) {
        let next = (Instant::now() + IDLE_LIMIT).min(self.end);
        self.timer.as_mut().reset(next);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if result.is_ready() {
            self.rearm();
        }
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if result.is_ready() {
            self.rearm();
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
