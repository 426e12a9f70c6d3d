//! One agent, put together: settings in, running tasks out.
//!
//! Owns: who is connected to whom, and the order of stopping (watchers, peer link, engine, HTTP last). Never: decides
//! or talks to anything itself. The command line starts one, the lab two, tests as many as they like.

pub(crate) mod memory;
mod parts;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::adapters::kube::Kube;
use crate::bus::Bus;
use crate::config::Config;
use crate::http::{Auth, HttpState, OperatorDesk, Ready};
use crate::model::{Event, Note, PeerStatus};
use crate::peer::{PeerShared, new_instance};
use crate::tasks::anycast::Station;
use crate::tasks::clock::Clock;
use crate::tasks::geo_sync::GeoHealth;
use crate::tasks::kill_switch::KillSwitch;
use crate::tasks::kube_store::KubeStore;
use crate::tasks::logic_handler::{Logic, Windows};
use crate::tasks::recorder::Recorder;
use crate::tasks::route_watch::RouteParts;
use crate::tasks::sensor_watch::Observers;
use crate::tasks::supervisor::{Policy, Supervisor, SupervisorEnd, TaskFuture};
use crate::tasks::{
    Ctx, TaskName, dns_watch, geo_sync, kube_watch, logic_handler, patroni_worker, peer_client,
    peer_client_fwd, peer_server, route_watch, sensor_watch, tekton_watch, tick_producer, with,
};
use crate::telemetry::Metrics;
use parts::{Parts, parts};

/// Notes that a slow listener may fall behind before it misses some.
const NOTES_KEPT: usize = 1_024;

/// Longest time that routes may take to be drained and taken back at the end, whatever the file says.
const ANYCAST_STOP_LIMIT: Duration = Duration::from_secs(3_600);

/// Why an agent could not be started. Nothing was begun.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct StartError {
    /// What was being set up.
    pub what: &'static str,
    /// What went wrong.
    pub reason: String,
}

impl StartError {
    fn new(what: &'static str, error: &dyn std::fmt::Display) -> Self {
        Self { what, reason: error.to_string() }
    }
}

/// A running agent.
pub struct Agent {
    /// Address of the HTTP interface; port 0 where there is none.
    pub http: SocketAddr,
    /// Cancel to stop it.
    pub cancel: CancellationToken,
    /// The engine's snapshot.
    pub snapshot: watch::Receiver<serde_json::Value>,
    /// Notes as they come.
    pub notes: broadcast::Sender<Note>,
    /// Its metrics.
    pub registry: Arc<Registry>,
    /// The anycast task, where it runs.
    pub anycast: Option<Arc<Station>>,
    supervisor: JoinHandle<SupervisorEnd>,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

/// Receiving ends of what the engine shows.
pub(crate) struct Views {
    pub(crate) snapshot: watch::Receiver<serde_json::Value>,
    pub(crate) status: watch::Receiver<PeerStatus>,
    pub(crate) handled: watch::Receiver<BTreeMap<String, crate::model::OutboxId>>,
    pub(crate) record: watch::Receiver<Option<BTreeMap<String, String>>>,
    pub(crate) wants_lease: watch::Receiver<Option<bool>>,
}

/// Both ends of what the engine shows.
pub(crate) fn windows() -> (Windows, Views) {
    let (snapshot, snapshot_view) = watch::channel(serde_json::Value::Null);
    let (status, status_view) = watch::channel(PeerStatus::default());
    let (handled, handled_view) = watch::channel(BTreeMap::new());
    let (record, record_view) = watch::channel(None);
    let (wants_lease, wants_lease_view) = watch::channel(None);
    let (notes, _) = broadcast::channel(NOTES_KEPT);
    let views = Views {
        snapshot: snapshot_view,
        status: status_view,
        handled: handled_view,
        record: record_view,
        wants_lease: wants_lease_view,
    };
    (Windows { snapshot, status, handled, record, wants_lease, notes }, views)
}

impl Agent {
    /// Starts an agent that serves HTTP on `listener`, or none.
    ///
    /// # Errors
    /// Where an adapter, the journal, the certificates or the anycast task cannot be set up.
    pub async fn start(
        mut config: Config,
        listener: impl Into<Option<TcpListener>>,
    ) -> Result<Self, StartError> {
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let listener = listener.into();
        let http = match &listener {
            Some(listener) => listener.local_addr().map_err(|error| StartError::new("HTTP", &error))?,
            None => SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let registry = Arc::new(Registry::new());
        let metrics = Metrics::new(&registry);
        metrics.set_release(&config.kube.namespace);
        let cancel = CancellationToken::new();
        let (bus, events) = Bus::new();
        let (windows, views) = windows();
        let parts = parts(&config, &registry, &views.snapshot).await?;
        let notes = windows.notes.clone();
        let instance = new_instance();
        let desk = OperatorDesk::new(bus.clone());
        let logic = logic(&config, &instance, events, &parts, windows, &desk, &metrics).await?;
        let bus = bus.with_clock(logic.clock.clone());
        let shared = match &config.peer {
            Some(peer) => {
                let shared =
                    PeerShared::new(peer, &registry, instance, views.status.clone(), views.handled.clone());
                Some(shared.map_err(|error| StartError::new("the peer link", &error))?)
            }
            None => None,
        };
        let diary = logic.diary.clone();
        let auth = Auth::from_settings(&config.http.auth, parts.kube.clone().map(kube_reviewer));
        let on = |task: TaskName| config.site.tasks.contains(&task);
        let geo = config.geo.as_ref().map(|_| Arc::new(GeoHealth::default()));
        let ready = Ready::new(on(TaskName::KubeWatch)).with_geo(geo.clone(), !on(TaskName::LogicHandler));
        // Last, because it is the one that touches something at its start.
        let anycast = match config.anycast.take() {
            Some(settings) => {
                let station = Station::open(settings, registry.clone());
                Some(station.map_err(|error| StartError::new("anycast", &error))?)
            }
            None => None,
        };
        let wiring = Wiring {
            config: &config,
            bus,
            registry: registry.clone(),
            cancel: cancel.clone(),
            wants_lease: views.wants_lease,
            geo,
        };
        let supervisor = wiring.supervise(&metrics, logic, parts, shared, anycast.clone());
        let state = HttpState {
            snapshot: views.snapshot.clone(),
            tasks: supervisor.statuses(),
            registry: registry.clone(),
            metrics,
            operator: desk,
            auth,
            record: views.record,
            ready: Arc::new(ready),
            diary,
        };
        let serve = |listener| tokio::spawn(crate::http::serve(listener, state, cancel.clone()));
        let server = listener.map(serve);
        let supervisor = tokio::spawn(supervisor.run());
        Ok(Self { http, cancel, snapshot: views.snapshot, notes, registry, anycast, supervisor, server })
    }

    /// Waits until it has ended by itself or was stopped.
    pub async fn wait(self) -> SupervisorEnd {
        let end = self.supervisor.await.unwrap_or_else(|error| SupervisorEnd::VitalTaskLost {
            task: TaskName::LogicHandler,
            reason: error.to_string(),
        });
        self.cancel.cancel();
        if let Some(server) = self.server {
            match server.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the HTTP interface ended"),
                Err(error) => tracing::error!(%error, "the HTTP interface panicked"),
            }
        }
        end
    }

    /// Stops it and waits for the end.
    pub async fn stop(self) -> SupervisorEnd {
        self.cancel.cancel();
        self.wait().await
    }
}

fn kube_reviewer(kube: Kube) -> Arc<dyn crate::http::TokenReviewer> {
    Arc::new(KubeStore::new(kube, String::new(), String::new()))
}

async fn logic(
    config: &Config,
    instance: &str,
    events: mpsc::Receiver<Event>,
    parts: &Parts,
    windows: Windows,
    desk: &OperatorDesk,
    metrics: &Metrics,
) -> Result<Arc<Logic>, StartError> {
    let policy = config.policy(instance);
    let memory = memory::open(config, parts.kube.clone(), &policy).await?;
    Ok(Arc::new(Logic {
        policy,
        events: Mutex::new(events),
        saved: Mutex::new(memory.state),
        clock: Clock::starting_at(memory.mono),
        hands: Arc::new(parts.hands.clone()),
        diary: Arc::new(memory.diary),
        recorder: Recorder::open(config.recorder.as_ref())
            .map_err(|error| StartError::new("the recording of events (RECORD_EVENTS)", &error))?,
        kill: KillSwitch::new(config.faults.kill_at.clone()),
        windows,
        desk: desk.clone(),
        metrics: metrics.clone(),
        status_every: logic_handler::STATUS_EVERY,
    }))
}

/// What the spawn table needs.
struct Wiring<'a> {
    config: &'a Config,
    bus: Bus,
    registry: Arc<Registry>,
    cancel: CancellationToken,
    wants_lease: watch::Receiver<Option<bool>>,
    geo: Option<Arc<GeoHealth>>,
}

impl Wiring<'_> {
    /// How a task is treated.
    fn policy(&self, name: TaskName, token: CancellationToken, routes: Option<&RouteParts>) -> Policy {
        let mut policy = Policy::new(token);
        let is_anycast = name == TaskName::Anycast;
        // A process that does one thing only is no use without it.
        let alone = self.config.site.tasks.len() == 1 && (is_anycast || name == TaskName::RouteWatch);
        policy.vital = name == TaskName::LogicHandler || alone;
        policy.heartbeat = match name {
            TaskName::RouteWatch => routes.map(|routes| routes.pulse.clone()),
            TaskName::GeoSync => self.geo.as_ref().map(|health| health.pulse()),
            _ => None,
        };
        if is_anycast {
            // It keeps the limits of its file, which a reload may change.
            policy.stop_limit = ANYCAST_STOP_LIMIT;
        }
        policy
    }

    /// The spawn table: one arm per task, in the order in which they are stopped.
    fn supervise(
        &self,
        metrics: &Metrics,
        logic: Arc<Logic>,
        parts: Parts,
        shared: Option<PeerShared>,
        anycast: Option<Arc<Station>>,
    ) -> Supervisor {
        let mut supervisor = Supervisor::new(self.cancel.clone(), metrics.clone());
        let order = TaskName::ALL.into_iter().rev().filter(|task| self.config.site.tasks.contains(task));
        let peer = self.config.peer.clone().map(Arc::new).zip(shared);
        let queue = parts.queue;
        let geo = self.config.geo.clone().zip(parts.kube.clone()).zip(self.geo.clone());
        let observers = (!self.config.observers.is_empty()).then(|| Observers {
            settings: self.config.observers.clone(),
            site: self.config.site.site.0.clone(),
            ttl_ms: self.config.safety.lease_ms + self.config.safety.grace_ms,
            wanted: self.wants_lease.clone(),
        });
        for name in order {
            let is_anycast = name == TaskName::Anycast;
            let own = anycast.as_ref().filter(|_| is_anycast).map(|station| station.cancel.clone());
            let token = own.unwrap_or_default();
            let ctx = Ctx { cancel: token.clone(), bus: self.bus.clone(), registry: self.registry.clone() };
            let routes = parts.routes.clone().filter(|_| name == TaskName::RouteWatch);
            let policy = self.policy(name, token, routes.as_ref());
            let (kube, patroni, resolvers) =
                (parts.kube.clone(), parts.patroni.clone(), parts.resolvers.clone());
            let (peer, queue, logic, geo) = (peer.clone(), queue.clone(), logic.clone(), geo.clone());
            let (anycast, observers) = (anycast.clone(), observers.clone());
            let factory = move || -> TaskFuture {
                let (ctx, peer) = (ctx.clone(), peer.clone());
                match name {
                    TaskName::LogicHandler => logic_handler::run(ctx, logic.clone()).boxed(),
                    TaskName::DnsWatch => with(resolvers.clone(), |it| dns_watch::run(ctx, it)),
                    TaskName::KubeWatch => with(kube.clone(), |it| kube_watch::run(ctx, it)),
                    TaskName::TektonWatch => with(kube.clone(), |it| tekton_watch::run(ctx, it)),
                    TaskName::PatroniWorker => with(patroni.clone(), |it| patroni_worker::run(ctx, it)),
                    TaskName::PeerServer => {
                        with(peer, |(settings, shared)| peer_server::run(ctx, settings, shared))
                    }
                    TaskName::PeerClient => {
                        with(peer, |(settings, shared)| peer_client::run(ctx, settings, shared))
                    }
                    TaskName::PeerClientFwd => {
                        with(peer.zip(queue.clone()), |((settings, shared), queue)| {
                            peer_client_fwd::run(ctx, settings, shared, queue)
                        })
                    }
                    TaskName::TickProducer => tick_producer::run(ctx).boxed(),
                    TaskName::SensorWatch => with(observers.clone(), |it| sensor_watch::run(ctx, it)),
                    TaskName::GeoSync => with(geo.clone(), |((settings, kube), health)| {
                        geo_sync::run(ctx, settings, kube, health)
                    }),
                    TaskName::RouteWatch => with(routes.clone(), |parts| route_watch::run(ctx, parts)),
                    TaskName::Anycast => with(anycast.clone(), Station::run),
                }
            };
            supervisor.add(name, factory, policy);
        }
        supervisor
    }
}
