//! The task on a paused clock in front of simulated clouds that it reaches without sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use switchover_agent::bus::Bus;
use switchover_agent::config::{Reader, routes};
use switchover_agent::lab::compute::Cloud;
use switchover_agent::lab::route_clouds::{RouteClouds, direct_bases, environment, router, write_key};
use switchover_agent::model::{Event, Outcome, RoutePin, Side};
use switchover_agent::tasks::route_watch::{self, PinSource, RouteParts, RoutePinner};
use switchover_agent::tasks::{Ctx, Exit};
use switchover_agent::telemetry::metrics::render;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// More virtual time than any case needs.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

pub struct Stage {
    pub clouds: RouteClouds,
    pub registry: Arc<prometheus::Registry>,
    pub folder: tempfile::TempDir,
    pub side: Side,
    pub env: BTreeMap<String, String>,
    pub snapshot: tokio::sync::watch::Sender<Value>,
    running: Option<Running>,
}

struct Running {
    cancel: CancellationToken,
    task: JoinHandle<Exit>,
    pinner: RoutePinner,
    _events: mpsc::Receiver<Event>,
}

impl Stage {
    /// The active side's instance on a normal day, not started.
    pub fn new(more: &[(&str, &str)]) -> Self {
        Self::at(Side::Active, RouteClouds::new(), more)
    }

    pub fn at(side: Side, clouds: RouteClouds, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = write_key(folder.path(), &direct_bases()[0]).unwrap();
        let mut env = environment(side, &direct_bases(), &key, folder.path());
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let registry = Arc::new(prometheus::Registry::new());
        let (snapshot, _) = tokio::sync::watch::channel(Value::Null);
        Self { clouds, registry, folder, side, env, snapshot, running: None }
    }

    pub fn parts(&self, pins: PinSource) -> (RouteParts, RoutePinner) {
        let mut reader = Reader::new(&self.env);
        let settings = routes::read(&mut reader, self.side);
        let problems = reader.into_problems();
        assert!(problems.is_empty(), "{problems:?}");
        let (mut parts, pinner) = RouteParts::new(settings, pins);
        parts.wire = Some(self.clouds.wire());
        (parts, pinner)
    }

    pub fn start(&mut self) {
        self.start_with(PinSource::Health);
    }

    /// With an engine whose snapshot the test writes.
    pub fn start_with_engine(&mut self) {
        let snapshot = self.snapshot.subscribe();
        self.start_with(PinSource::Engine(snapshot));
    }

    fn start_with(&mut self, pins: PinSource) {
        let (parts, pinner) = self.parts(pins);
        let (bus, events) = Bus::new();
        let cancel = CancellationToken::new();
        let ctx = Ctx { cancel: cancel.clone(), bus, registry: self.registry.clone() };
        let task = tokio::spawn(route_watch::run(ctx, parts));
        self.running = Some(Running { cancel, task, pinner, _events: events });
    }

    /// Waits for this many further cycles.
    pub async fn cycles(&self, number: u64) {
        let before = self.metric("cycle_total", &[]);
        self.until("cycles", || self.metric("cycle_total", &[]) >= before + number as f64).await;
    }

    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Sum of a metric's series whose labels hold all of these texts.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = render(&self.registry).unwrap();
        let name = format!("switchover_routes_{name}");
        let is_it = |line: &str| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines()
            .filter(|line| is_it(line) && labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    pub async fn pin(&self, pin: RoutePin) -> Outcome {
        self.running.as_ref().unwrap().pinner.pin(pin).await
    }

    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.task.is_finished())
    }

    /// How the task ends by itself.
    pub async fn ends(&mut self) -> Exit {
        self.running.take().unwrap().task.await.unwrap()
    }

    /// Asks it to end and waits.
    pub async fn stop(&mut self) -> Exit {
        let running = self.running.take().unwrap();
        running.cancel.cancel();
        running.task.await.unwrap()
    }

    /// All events that were written; the task must have ended.
    pub fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.env["STRUCTURED_LOG_FILE"]).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The own router as it is.
    pub fn router<T>(&self, change: impl FnOnce(&mut Value) -> T) -> T {
        self.clouds
            .compute
            .with(|cloud: &mut Cloud| change(&mut cloud.router_mut(&router(self.side)).unwrap().resource))
    }

    /// Bodies of the patches so far.
    pub fn patches(&self) -> Vec<Value> {
        let calls = self.clouds.compute.seen();
        calls
            .iter()
            .filter(|call| call.operation == "routers.patch")
            .filter_map(|call| call.body.clone())
            .collect()
    }

    /// Bodies of the writes to Cloudflare so far.
    pub fn puts(&self) -> Vec<Value> {
        self.clouds.magic.writes().iter().filter_map(|call| call.body.clone()).collect()
    }
}

/// Events of a type.
pub fn of_type<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event_type"] == kind).collect()
}
