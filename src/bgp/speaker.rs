//! The speaker: one wanted table, one task per neighbour.
//!
//! Owns the neighbour tasks, the BFD driver and the numbering of tables. Setting a table returns at once; sessions
//! follow on their own, and [`Speaker::settled`] waits for them where somebody has to know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::neighbour::{self, Feeds, Order};
use super::status::{NeighbourState, NeighbourStatus};
use super::table::{Delta, Table};
use crate::announce::RouteAttributes;
use crate::bfd;
use crate::config::bgp::{NeighbourSettings, SpeakerSettings};

/// Longest time for the neighbours to take the withdrawals before the sessions end all the same.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(5);

/// Longest time for sessions to end after the order.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running speaker. Dropped, it drops its connections without a word; [`Speaker::shutdown`] is the orderly way.
#[derive(Debug)]
pub struct Speaker {
    settings: Arc<SpeakerSettings>,
    table: watch::Sender<Arc<Table>>,
    neighbours: Vec<Running>,
    /// The driver, and the states of its sessions by neighbour.
    bfd: Option<(bfd::Driver, BTreeMap<IpAddr, watch::Receiver<bfd::State>>)>,
}

/// The BFD sessions that these settings ask for.
fn bfd_sessions(settings: &SpeakerSettings) -> Vec<bfd::SessionSpec> {
    let session = |n: &NeighbourSettings| {
        Some(bfd::SessionSpec {
            remote: n.address,
            local: n.local_address.or(settings.local_address),
            interface: n.interface.clone(),
            settings: n.bfd.clone()?,
        })
    };
    settings.neighbours.iter().filter_map(session).collect()
}

#[derive(Debug)]
struct Running {
    settings: NeighbourSettings,
    order: watch::Sender<Order>,
    status: watch::Receiver<NeighbourStatus>,
    task: AbortOnDropHandle<()>,
}

impl Speaker {
    /// Starts a task for every neighbour. Needs a tokio runtime; the settings must have passed their validation.
    ///
    /// # Errors
    /// A BFD socket could not be made.
    pub fn start(settings: SpeakerSettings) -> Result<Self, bfd::driver::DriverError> {
        let (table, _) = watch::channel(Arc::new(Table::default()));
        let mut speaker = Self { settings: Arc::new(settings), table, neighbours: Vec::new(), bfd: None };
        speaker.start_neighbours(&speaker.settings.neighbours.clone())?;
        Ok(speaker)
    }

    fn start_neighbours(&mut self, wanted: &[NeighbourSettings]) -> Result<(), bfd::driver::DriverError> {
        let specs = bfd_sessions(&self.settings);
        if !specs.is_empty() && self.bfd.is_none() {
            let remotes: Vec<IpAddr> = specs.iter().map(|spec| spec.remote).collect();
            let (driver, states) = bfd::Driver::start(specs)?;
            self.bfd = Some((driver, remotes.into_iter().zip(states).collect()));
        }
        for settings in wanted {
            let (order, orders) = watch::channel(Order::Run);
            let (status, seen) = watch::channel(NeighbourStatus {
                name: settings.label(),
                address: Some(settings.address),
                remote_asn: settings.remote_asn,
                ibgp: settings.remote_asn == self.settings.local_asn,
                password_set: settings.password.is_some(),
                ..NeighbourStatus::default()
            });
            let states = self.bfd.as_ref().and_then(|(_, states)| states.get(&settings.address));
            let bfd = states.cloned().map(bfd::Watch::new);
            let feeds = Feeds { table: self.table.subscribe(), order: orders, bfd };
            let task =
                tokio::spawn(neighbour::run(Arc::clone(&self.settings), settings.clone(), feeds, status));
            let task = AbortOnDropHandle::new(task);
            self.neighbours.push(Running { settings: settings.clone(), order, status: seen, task });
        }
        Ok(())
    }

    /// Takes the whole wanted set; returns what it changes. Does nothing where nothing changes.
    pub fn set<'a>(&self, wanted: impl Iterator<Item = (IpNet, &'a RouteAttributes)>) -> Delta {
        let old = self.table.borrow().clone();
        let new = Table::new(old.generation() + 1, wanted);
        let delta = new.since(&old, |_| true);
        if delta != Delta::default() || old.generation() == 0 {
            self.table.send_replace(Arc::new(new));
        }
        delta
    }

    /// The wanted table now.
    pub fn wanted(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    /// A snapshot of every neighbour, in the order of the settings.
    pub fn status(&self) -> Vec<NeighbourStatus> {
        self.neighbours.iter().map(|n| n.status.borrow().clone()).collect()
    }

    /// A change of any neighbour's status can be awaited on these.
    pub fn watch_status(&self) -> Vec<watch::Receiver<NeighbourStatus>> {
        self.neighbours.iter().map(|n| n.status.clone()).collect()
    }

    /// Prefixes that at least one neighbour has from us now.
    pub fn advertised(&self) -> BTreeSet<IpNet> {
        self.neighbours.iter().flat_map(|n| n.status.borrow().advertised()).collect()
    }

    /// Waits until every neighbour with a session has the present table; false where the limit came first.
    pub async fn settled(&self, limit: Duration) -> bool {
        let generation = self.table.borrow().generation();
        let waiting = async {
            for neighbour in &self.neighbours {
                let mut status = neighbour.status.clone();
                let done = |s: &NeighbourStatus| s.state != NeighbourState::Established || s.has(generation);
                let _ = status.wait_for(done).await;
            }
        };
        tokio::time::timeout(limit, waiting).await.is_ok()
    }

    /// Takes over new settings: unchanged neighbours keep their sessions, the others are stopped and started. A change
    /// of our AS, identifier or address, or of any BFD setting, touches all.
    ///
    /// # Errors
    /// A BFD socket could not be made; the neighbours of the old settings are then stopped.
    pub async fn reconfigure(&mut self, settings: SpeakerSettings) -> Result<(), bfd::driver::DriverError> {
        self.detach(&settings).stop().await;
        self.attach(settings)
    }

    /// The first half of [`Self::reconfigure`]: takes out what the new settings have no place for. Those that stay
    /// keep following the wanted table while the others end.
    pub fn detach(&mut self, settings: &SpeakerSettings) -> Leaving {
        let all = settings.local_asn != self.settings.local_asn
            || settings.router_id != self.settings.router_id
            || settings.local_address != self.settings.local_address
            || bfd_sessions(settings) != bfd_sessions(&self.settings);
        let keep = |n: &Running| !all && settings.neighbours.contains(&n.settings);
        let (kept, gone): (Vec<Running>, Vec<Running>) = self.neighbours.drain(..).partition(keep);
        self.neighbours = kept;
        let bfd = if all { self.bfd.take().map(|(driver, _)| driver) } else { None };
        Leaving { neighbours: gone, bfd }
    }

    /// The second half of [`Self::reconfigure`]: takes over the settings and starts what they add.
    ///
    /// # Errors
    /// A BFD socket could not be made; the new neighbours are then not started.
    pub fn attach(&mut self, settings: SpeakerSettings) -> Result<(), bfd::driver::DriverError> {
        let has = |n: &&NeighbourSettings| !self.neighbours.iter().any(|running| running.settings == **n);
        let added: Vec<NeighbourSettings> = settings.neighbours.iter().filter(has).cloned().collect();
        self.settings = Arc::new(settings);
        self.start_neighbours(&added)?;
        let place = |n: &Running| self.settings.neighbours.iter().position(|s| *s == n.settings);
        self.neighbours.sort_by_key(place);
        Ok(())
    }

    /// Ends in order: GRACEFUL_SHUTDOWN and the drain time if wanted, withdrawals, Cease with the reason, close.
    pub async fn withdraw_and_stop(self, drain: Duration, reason: &str) {
        let table = self.table.borrow().clone();
        if !drain.is_zero() && !table.is_empty() {
            info!(prefixes = table.len(), drain_ms = drain.as_millis() as u64, "draining");
            self.table.send_replace(Arc::new(table.draining(table.generation() + 1)));
            tokio::time::sleep(drain).await;
        }
        info!(prefixes = table.len(), reason, "withdrawing everything");
        self.table.send_replace(Arc::new(Table::new(table.generation() + 2, std::iter::empty())));
        if !self.settled(WITHDRAW_LIMIT).await {
            warn!("not every neighbour took the withdrawals in time; the sessions end now");
        }
        stop(self.neighbours, &Order::Stop(reason.to_owned())).await;
        if let Some((driver, _)) = self.bfd {
            driver.shutdown().await;
        }
    }

    /// Drops every connection without a NOTIFICATION: where graceful restart was negotiated the routes stay, for as
    /// long as the neighbour was told; elsewhere they go.
    pub async fn abandon(self) {
        // BFD first and without a word to BGP: AdminDown tells the neighbour that this is no failure of the path.
        if let Some((driver, _)) = self.bfd {
            driver.shutdown().await;
        }
        stop(self.neighbours, &Order::Abandon).await;
    }
}

/// Sessions that a change of settings ends.
#[must_use]
#[derive(Debug)]
pub struct Leaving {
    neighbours: Vec<Running>,
    bfd: Option<bfd::Driver>,
}

impl Leaving {
    /// Ends them in order and waits for that.
    pub async fn stop(self) {
        stop(self.neighbours, &Order::Stop("configuration changed".to_owned())).await;
        if let Some(driver) = self.bfd {
            driver.shutdown().await;
        }
    }
}

async fn stop(neighbours: Vec<Running>, order: &Order) {
    for neighbour in &neighbours {
        neighbour.order.send_replace(order.clone());
    }
    let ends = neighbours.into_iter().map(|n| n.task);
    if tokio::time::timeout(STOP_LIMIT, futures_util::future::join_all(ends)).await.is_err() {
        warn!("a session did not end in time and was dropped");
    }
}
