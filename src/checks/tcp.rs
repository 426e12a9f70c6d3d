//! `tcp`: a port accepts connections, or must not.
//!
//! With `hold` one connection stays open between runs, and its end is an event: the next probe comes at once, and
//! when that is refused the failure is believed without repetition. Every run still connects anew: a machine that
//! lost its power closes nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;

use super::{Boxed, Check, Report};

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Passes when the connection can't be made.
    pub should_fail: bool,
    /// Keep the connection and notice its end.
    pub hold: bool,
    /// Limit of one run.
    pub timeout: Duration,
}

/// The check.
#[derive(Debug)]
pub struct TcpCheck {
    spec: Spec,
    held: Mutex<Option<TcpStream>>,
    was_reset: AtomicBool,
}

/// Connects, trying every address of the name, from `source` where one is given.
///
/// # Errors
/// What was tried and the last error, in one line.
pub async fn connect(host: &str, port: u16, source: Option<IpAddr>) -> Result<TcpStream, String> {
    let fail = |error: &dyn std::fmt::Display| format!("connect to {host}:{port}: {error}");
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::net::lookup_host((host, port)).await.map_err(|e| fail(&e))?.collect(),
    };
    let mut last = fail(&"the name has no address");
    for address in addresses {
        if source.is_some_and(|source| source.is_ipv4() != address.is_ipv4()) {
            continue;
        }
        let attempt = async {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(source) = source {
                socket.bind(SocketAddr::new(source, 0))?;
            }
            socket.connect(address).await
        };
        match attempt.await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = fail(&error),
        }
    }
    Err(last)
}

impl TcpCheck {
    /// A check of the port.
    pub fn new(spec: Spec) -> Self {
        Self { spec, held: Mutex::new(None), was_reset: AtomicBool::new(false) }
    }

    async fn run(&self) -> Report {
        let Spec { host, port, source, should_fail, hold, timeout } = &self.spec;
        let connected = tokio::time::timeout(*timeout, connect(host, *port, *source)).await;
        let after_reset = self.was_reset.swap(false, Ordering::Relaxed);
        let error = match connected {
            Ok(Ok(_)) if *should_fail => return Report::fail(format!("{host}:{port} accepts connections")),
            Ok(Ok(stream)) => {
                if *hold {
                    self.held.lock().await.get_or_insert(stream);
                }
                return Report::pass();
            }
            Ok(Err(error)) => error,
            Err(_) => {
                format!("connect to {host}:{port}: no answer within {}", humantime::format_duration(*timeout))
            }
        };
        if *should_fail { Report::pass() } else { Report { decisive: after_reset, ..Report::fail(error) } }
    }

    async fn until_closed(&self) -> String {
        let mut held = self.held.lock().await;
        let Some(stream) = held.as_mut() else {
            drop(held);
            return std::future::pending().await;
        };
        let mut buffer = [0_u8; 512];
        let why = loop {
            match stream.read(&mut buffer).await {
                Ok(0) => break "connection closed".to_owned(),
                Ok(_) => {}
                Err(error) => break format!("connection lost: {error}"),
            }
        };
        *held = None;
        self.was_reset.store(true, Ordering::Relaxed);
        why
    }
}

impl Check for TcpCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(self.run())
    }

    fn event(&self) -> Option<Boxed<'_, String>> {
        self.spec.hold.then(|| Box::pin(self.until_closed()) as Boxed<'_, String>)
    }
}
