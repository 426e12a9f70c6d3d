//! The world: what both sites share, its clock, the built-in client that writes rows, and the sites' servers.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::database::Interval;
use super::faults::Fault;
use super::peer_view::{self, PeerView, SiteFacts, SourceFacts};
use super::settings::WorldSettings;
use super::site::Site;
use super::{http, names, seed};
use crate::model::{Phase, Side, Wall};

/// Milliseconds between two steps of the world.
const STEP_MS: u64 = 10;
/// Rows that the built-in client writes at most.
const ROW_LIMIT: u64 = 200_000;

/// A simulated world; a clone is the same world.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    settings: WorldSettings,
    peer: PeerView,
    started: Instant,
    started_ms: u64,
    state: Mutex<State>,
    ticking: AtomicBool,
    responders: [AtomicUsize; 2],
    cancel: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Everything that changes.
pub struct State {
    /// The sites that live in this world.
    pub sites: BTreeMap<Side, Site>,
    /// Facts about a site in another process, and when they came (ms since 1970).
    remote: Option<(SiteFacts, u64)>,
    acknowledged: Vec<u64>,
    next_row: u64,
    next_write_ms: u64,
}

/// A served site; dropping it ends its server.
#[derive(Debug)]
pub struct SiteHandle {
    address: SocketAddr,
    cancel: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl SiteHandle {
    pub(super) fn new(
        address: SocketAddr,
        cancel: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    ) -> Self {
        Self { address, cancel, task: Some(task) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends the server and waits until its socket is closed.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for SiteHandle {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl World {
    /// Both sites on a normal day, in one process.
    pub fn new(settings: WorldSettings) -> Self {
        Self::build(settings, &Side::ALL, PeerView::InProcess)
    }

    /// One site; the other one is a process of its own behind `peer_url` (`http://host:port`).
    pub fn single(settings: WorldSettings, side: Side, peer_url: String) -> Self {
        Self::build(settings, &[side], PeerView::Http { url: peer_url })
    }

    fn build(settings: WorldSettings, sides: &[Side], peer: PeerView) -> Self {
        let started_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let mut sites = BTreeMap::new();
        for side in sides {
            let mut site = Site::new(*side, &settings);
            seed::settle(&mut site, Phase::ActivePassive, Wall(started_ms), &settings);
            sites.insert(*side, site);
        }
        let state = State { sites, remote: None, acknowledged: Vec::new(), next_row: 1, next_write_ms: 0 };
        let inner = Inner {
            settings,
            peer,
            started: Instant::now(),
            started_ms,
            state: Mutex::new(state),
            ticking: AtomicBool::new(false),
            responders: [AtomicUsize::new(0), AtomicUsize::new(0)],
            cancel: CancellationToken::new(),
        };
        let world = Self { inner: Arc::new(inner) };
        world.step();
        world
    }

    /// The settings that the world was made of.
    pub fn settings(&self) -> &WorldSettings {
        &self.inner.settings
    }

    /// Serves a site over HTTP until the handle is dropped. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The site does not live in this world, or the listener has no address.
    pub fn serve(&self, side: Side, listener: TcpListener) -> io::Result<SiteHandle> {
        self.expect_site(side)?;
        self.start_ticking();
        http::serve(self.clone(), side, listener)
    }

    /// Serves the DNS view of a site on UDP and TCP until the handle is dropped. Port 0 picks a free one. The first
    /// responder of a site is the one that [`Fault::DnsOneResolverLies`] makes a liar.
    ///
    /// # Errors
    /// The site does not live in this world, or the address can't be bound.
    pub async fn serve_dns(&self, side: Side, address: SocketAddr) -> io::Result<SiteHandle> {
        self.expect_site(side)?;
        self.start_ticking();
        let counter = &self.inner.responders[usize::from(side == Side::Passive)];
        let number = counter.fetch_add(1, Ordering::Relaxed);
        names::serve(self.clone(), side, number, address).await
    }

    /// Times in which the database of a site accepted writes, in milliseconds since 1970, oldest first.
    pub fn writable_intervals(&self, side: Side) -> Vec<Interval> {
        self.lock().sites.get(&side).map(|site| site.database.intervals.clone()).unwrap_or_default()
    }

    /// Whether the agents' line between the sites is cut.
    pub fn partitioned(&self) -> bool {
        self.lock().sites.values().any(|site| site.faults.on(Fault::PeerPartition))
    }

    /// Rows that the built-in client got acknowledged.
    pub fn acknowledged_rows(&self) -> usize {
        self.lock().acknowledged.len()
    }

    /// Acknowledged rows that the database which serves now does not have: the writable one, or where none or both
    /// are, the one on the highest timeline. Only knows what happens within this process.
    pub fn lost_rows(&self) -> Vec<u64> {
        let state = self.lock();
        let databases = state.sites.values().map(|site| &site.database);
        let best = databases
            .filter_map(|database| {
                let data = database
                    .leader_data()
                    .or_else(|| database.volumes.values().max_by_key(|data| (data.timeline, data.lsn)))?;
                Some((database.writable(), data))
            })
            .max_by_key(|(writable, data)| (*writable, data.timeline, data.lsn));
        let kept: std::collections::BTreeSet<u64> =
            best.map(|(_, data)| data.rows.iter().copied().collect()).unwrap_or_default();
        state.acknowledged.iter().copied().filter(|row| !kept.contains(row)).collect()
    }

    /// Breaks something at a site, for good or `count` times.
    pub fn initiate(&self, side: Side, fault: Fault, count: Option<u64>) {
        self.with(side, |site, _| super::control::initiate(site, fault, count));
    }

    /// Mends something at a site.
    pub fn lift(&self, side: Side, fault: Fault) {
        self.with(side, |site, _| super::control::lift(site, fault));
    }

    /// Puts every site into the settled situation of a phase.
    pub fn settle(&self, phase: Phase) {
        self.each(|site, now| seed::settle(site, phase, now, &self.inner.settings));
        self.forget_rows();
    }

    /// What `GET /activity` of a site shows.
    pub fn activity(&self, side: Side) -> Value {
        self.with(side, |site, _| site.activity.to_json()).unwrap_or(Value::Null)
    }

    /// What `GET /lab/state` of a site shows.
    pub fn describe(&self, side: Side) -> Value {
        let gslb = format!("{:?}", names::view(self, side, None));
        let mut shown = self.with(side, |site, _| site.describe(&self.inner.settings)).unwrap_or(Value::Null);
        shown["dns"] = Value::String(gslb);
        shown["partitioned"] = Value::Bool(self.partitioned());
        shown["acknowledged_rows"] = self.acknowledged_rows().into();
        shown["lost_rows"] = self.lost_rows().len().into();
        shown
    }

    /// Brings the world up to now and looks at or changes a site.
    pub(super) fn with<T>(&self, side: Side, look: impl FnOnce(&mut Site, Wall) -> T) -> Option<T> {
        let now = self.now();
        let mut state = self.lock();
        state.sites.get_mut(&side).map(|site| look(site, now))
    }

    /// Forgets which rows were acknowledged: the databases were replaced by hand.
    pub(super) fn forget_rows(&self) {
        self.lock().acknowledged.clear();
    }

    /// Does something to every site of this world.
    pub(super) fn each(&self, mut change: impl FnMut(&mut Site, Wall)) {
        let now = self.now();
        for site in self.lock().sites.values_mut() {
            change(site, now);
        }
    }

    /// Facts about a site, where they are known.
    pub(super) fn facts(&self, side: Side) -> Option<SiteFacts> {
        let now = self.now();
        let state = self.lock();
        match state.sites.get(&side) {
            Some(site) => Some(site.facts(&self.inner.settings)),
            None => match &state.remote {
                Some((facts, at)) if now.0 <= at + peer_view::STALE_MS => Some(facts.clone()),
                // It was there and is not any more: to the load balancer it is down.
                Some(_) => Some(SiteFacts::default()),
                None => None,
            },
        }
    }

    /// The wall clock of the world, which never goes back.
    pub fn now(&self) -> Wall {
        let passed = u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Wall(self.inner.started_ms.saturating_add(passed))
    }

    /// One step: controllers, databases, pipelines, client.
    pub(super) fn step(&self) {
        let now = self.now();
        let settings = &self.inner.settings;
        let mut guard = self.lock();
        let state = &mut *guard;
        let cut = state
            .sites
            .values()
            .any(|site| site.faults.on(Fault::PeerPartition) || site.faults.on(Fault::ReplicationCut));
        for side in Side::ALL {
            let source = if cut { None } else { source(state, side.other(), now) };
            if let Some(site) = state.sites.get_mut(&side) {
                site.advance(now, settings, source.as_ref());
            }
        }
        if let Some(interval) = settings.writer_interval_ms
            && now.0 >= state.next_write_ms
        {
            state.next_write_ms = now.0 + interval;
            write_rows(state, settings);
        }
    }

    fn expect_site(&self, side: Side) -> io::Result<()> {
        if self.lock().sites.contains_key(&side) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("the {side} site is not part of this world")))
    }

    fn start_ticking(&self) {
        if self.inner.ticking.swap(true, Ordering::SeqCst) {
            return;
        }
        let (weak, cancel) = (Arc::downgrade(&self.inner), self.inner.cancel.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(STEP_MS)) => {}
                }
                match weak.upgrade() {
                    Some(inner) => World { inner }.step(),
                    None => return,
                }
            }
        });
        if let PeerView::Http { url } = self.inner.peer.clone() {
            self.start_polling(url);
        }
    }

    fn start_polling(&self, url: String) {
        let (weak, cancel) = (Arc::downgrade(&self.inner), self.inner.cancel.clone());
        tokio::spawn(async move {
            let client = match client() {
                Ok(client) => client,
                Err(error) => return tracing::error!(%error, "the other site can't be watched"),
            };
            loop {
                let answer = peer_view::fetch(&client, &url).await;
                match (weak.upgrade(), answer) {
                    (None, _) => return,
                    (Some(inner), Ok(facts)) => {
                        let world = World { inner };
                        let now = world.now();
                        world.lock().remote = Some((facts, now.0));
                    }
                    (Some(_), Err(error)) => tracing::debug!(%error, url, "the other site does not answer"),
                }
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(peer_view::POLL_MS)) => {}
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client() -> reqwest::Result<reqwest::Client> {
    // reqwest needs a default provider even where nothing is encrypted; an earlier choice stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(1000)).build()
}

/// The database of a site as the other one can reach it.
fn source(state: &State, side: Side, now: Wall) -> Option<SourceFacts> {
    match state.sites.get(&side) {
        Some(site) => site.database.as_source(),
        None => {
            let (facts, at) = state.remote.as_ref()?;
            (now.0 <= at + peer_view::STALE_MS).then(|| facts.database.clone())?
        }
    }
}

fn write_rows(state: &mut State, settings: &WorldSettings) {
    for site in state.sites.values_mut() {
        if state.next_row <= ROW_LIMIT
            && site.serves_application(settings)
            && site.database.write(state.next_row)
        {
            state.acknowledged.push(state.next_row);
            state.next_row += 1;
        }
    }
}
