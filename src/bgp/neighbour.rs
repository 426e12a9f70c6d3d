//! One neighbour's task: dials, runs a session, waits, dials again.
//!
//! Owns the back-off: the first new attempt after `retry_min_ms`, doubled with every failure up to `retry_max_ms`,
//! each wait shortened by up to a quarter so that many speakers do not dial in step. A session that lasted half a
//! minute clears the failures. Ends when it is ordered to.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::session::{End, Session, jittered};
use super::socket;
use super::status::{NeighbourState, NeighbourStatus};
use super::table::Table;
use crate::bfd;
use crate::config::bgp::{NeighbourSettings, SpeakerSettings};

/// A session shorter than this is a flap.
const STABLE: Duration = Duration::from_secs(30);

/// What the speaker wants of a neighbour task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Keep a session up.
    Run,
    /// Cease with this text, then end.
    Stop(String),
    /// Drop the connection without a word, so that graceful restart keeps the routes, then end.
    Abandon,
}

/// What a neighbour task listens to.
#[derive(Debug, Clone)]
pub(super) struct Feeds {
    pub(super) table: watch::Receiver<Arc<Table>>,
    pub(super) order: watch::Receiver<Order>,
    pub(super) bfd: Option<bfd::Watch>,
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Keeps a session to a neighbour until ordered otherwise.
pub(super) async fn run(
    speaker: Arc<SpeakerSettings>,
    neighbour: NeighbourSettings,
    mut feeds: Feeds,
    status: watch::Sender<NeighbourStatus>,
) {
    let label = neighbour.label();
    if neighbour.graceful_restart_secs.is_some() && !primed(&neighbour, &mut feeds).await {
        return;
    }
    let mut failures: u32 = 0;
    let mut restarting = true;
    while *feeds.order.borrow_and_update() == Order::Run {
        status.send_modify(|s| s.state = NeighbourState::Connect);
        let began = Instant::now();
        let up_before = status.borrow().established_count;
        let failure = match attempt(&speaker, &neighbour, &mut feeds, &status, restarting).await {
            End::Ordered => break,
            End::Failed(reason) => reason,
        };
        let came_up = status.borrow().established_count > up_before;
        restarting &= !came_up;
        let stable = came_up && began.elapsed() >= STABLE;
        failures = if stable { 1 } else { failures.saturating_add(1) };
        let wait = back_off(&neighbour, failures);
        if came_up {
            warn!(neighbour = %label, reason = %failure, wait_ms = wait.as_millis() as u64, "session down");
        } else {
            info!(neighbour = %label, reason = %failure, wait_ms = wait.as_millis() as u64, "no session yet");
        }
        status.send_modify(|s| down(s, failure, came_up && !stable));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = feeds.order.changed() => if changed.is_err() { break },
        }
    }
    status.send_modify(|s| {
        down(s, "stopped".to_owned(), false);
        s.state = NeighbourState::Idle;
    });
}

/// With graceful restart the neighbour drops whatever we do not say before End-of-RIB: so the first session waits
/// for the first wanted table, at most for the restart time. False = ordered to end meanwhile.
async fn primed(neighbour: &NeighbourSettings, feeds: &mut Feeds) -> bool {
    let limit = Duration::from_secs(neighbour.graceful_restart_secs.unwrap_or(0).into());
    tokio::select! {
        _ = tokio::time::timeout(limit, feeds.table.wait_for(|table| table.generation() > 0)) => true,
        _ = feeds.order.wait_for(|order| *order != Order::Run) => false,
    }
}

fn down(status: &mut NeighbourStatus, reason: String, flap: bool) {
    status.state = NeighbourState::Active;
    status.established_at_ms = None;
    status.negotiated = None;
    status.table = None;
    status.refused = Arc::default();
    status.last_error = Some(reason);
    status.flaps += u64::from(flap);
}

fn back_off(neighbour: &NeighbourSettings, failures: u32) -> Duration {
    let doubled = neighbour.retry_min_ms.saturating_mul(1 << failures.saturating_sub(1).min(20));
    jittered(Duration::from_millis(doubled.min(neighbour.retry_max_ms)))
}

/// One connection, from dialling to its end.
async fn attempt(
    speaker: &SpeakerSettings,
    neighbour: &NeighbourSettings,
    feeds: &mut Feeds,
    status: &watch::Sender<NeighbourStatus>,
    restarting: bool,
) -> End {
    let ibgp = neighbour.remote_asn == speaker.local_asn;
    let source: Option<IpAddr> = neighbour.local_address.or(speaker.local_address);
    let stream = tokio::select! {
        dialled = socket::connect(neighbour, source, ibgp) => match dialled {
            Ok(stream) => stream,
            Err(error) => {
                let cause = error.source().map(|s| format!(": {s}")).unwrap_or_default();
                return End::Failed(format!("{error}{cause}"));
            }
        },
        _ = feeds.order.wait_for(|order| *order != Order::Run) => return End::Ordered,
    };
    let local = stream.local_addr().ok().map(|a| a.ip());
    status.send_modify(|s| s.local_address = local);
    match Session::new(speaker, neighbour, status, &stream, restarting) {
        Ok(session) => session.run(stream, feeds).await,
        Err(error) => End::Failed(format!("local address of the connection: {error}")),
    }
}
