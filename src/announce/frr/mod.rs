//! The announcer on FRRouting: `network` statements through one serial, batched `vtysh` worker.
//!
//! Owns the prefixes that the configuration names and those that it made statements for, and no other: a `network`
//! statement that is ours but not wanted is removed, also one that a crashed process left; anybody else's stays. Never
//! writes FRR's configuration file.
//! Only typed values reach a command line: prefixes as [`ipnet::IpNet`], communities as numbers, VRF names after
//! [`valid_interface`].
//!
//! ```text
//!  set(desired) -> read running-config -> difference -> batches of commands -> read again -> compare
//!                        ^------------- lock held, or somebody else changed it: again, until the limit -'
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{AnnounceError, Announcer, Changes, PrefixKey, RouteAttributes, Shutdown};
use crate::config::bgp::valid_interface;

pub mod commands;
pub mod memory;
pub mod running_config;
pub mod vtysh;

use commands::{Difference, RouteMap};
use memory::Memory;
use running_config::RunningConfig;
pub use vtysh::{Vtysh, VtyshError};

/// Longest time for one change with all its attempts.
const SET_LIMIT: Duration = Duration::from_secs(30);

/// Wait between attempts.
const RETRY: Duration = Duration::from_millis(250);

/// Prefixes asked about in one `vtysh`.
const DIAGNOSE_BATCH: usize = 50;

/// Prefixes asked about in one change: what is not known to be well first, and of the others some in turn, so that
/// ten thousand prefixes cost a second and not a minute.
const DIAGNOSE_URGENT: usize = 100;
const DIAGNOSE_TURN: usize = 50;

/// Where a wanted prefix stands in FRR.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The `network` statement is there and the route is used.
    Advertised,
    /// The statement is there, but `bgp network import-check` finds no such route in the routing table.
    NoRibRoute,
    /// There is no such statement.
    NotConfigured,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Advertised => "advertised",
            Self::NoRibRoute => "configured, not advertised: no RIB route",
            Self::NotConfigured => "not configured",
        })
    }
}

/// FRRouting as an announcer.
#[derive(Debug)]
pub struct FrrAnnouncer {
    name: String,
    vtysh: Vtysh,
    /// The time that one process usually has.
    usual: Duration,
    /// What the configuration names.
    managed: BTreeSet<PrefixKey>,
    /// What was made here, by this process or a former one.
    memory: Memory,
    desired: BTreeMap<PrefixKey, RouteAttributes>,
    standing: BTreeMap<PrefixKey, Standing>,
    /// The last prefix that was asked about in its turn.
    turn: Option<PrefixKey>,
}

impl FrrAnnouncer {
    /// An announcer that owns the `managed` prefixes. Contacts nothing yet.
    pub fn new(name: &str, vtysh: Vtysh, managed: BTreeSet<PrefixKey>) -> Self {
        Self {
            name: name.to_owned(),
            usual: vtysh.timeout,
            vtysh,
            managed,
            memory: Memory::default(),
            desired: BTreeMap::new(),
            standing: BTreeMap::new(),
            turn: None,
        }
    }

    /// With the memory of a former process, whose left-overs go with the first change.
    #[must_use]
    pub fn remembering(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// Prefixes that may be withdrawn.
    fn ours(&self) -> BTreeSet<PrefixKey> {
        self.managed.union(self.memory.known()).cloned().collect()
    }

    /// Where every wanted prefix stood when it was last looked at.
    pub fn standing(&self) -> &BTreeMap<PrefixKey, Standing> {
        &self.standing
    }

    fn failed(&self, attempted: &str, error: &VtyshError) -> AnnounceError {
        AnnounceError { kind: error.kind(), ..AnnounceError::transient(&self.name, attempted, error) }
    }

    async fn read(&self) -> Result<RunningConfig, VtyshError> {
        // The first command fails where bgpd is down; the second alone would then show an empty configuration.
        let text =
            self.vtysh.run(&["show bgp vrfs json".to_owned(), "show running-config bgpd".to_owned()]).await?;
        RunningConfig::parse(&text).map_err(|what| VtyshError::Unreadable { what })
    }

    /// A large configuration or a busy machine may need longer than usual, and gets it; what hangs is killed soon all
    /// the same, also the next time.
    fn learn(&mut self, error: Option<&VtyshError>, began: Instant) {
        match error {
            Some(VtyshError::Timeout { .. }) => self.vtysh.be_more_patient(),
            None if began.elapsed() < self.usual => self.vtysh.timeout = self.usual,
            _ => {}
        }
    }

    /// Reads, and once more for each time that `vtysh` was too slow, with more patience.
    async fn read_patiently(&mut self) -> Result<RunningConfig, VtyshError> {
        loop {
            let began = Instant::now();
            let read = self.read().await;
            let last = self.vtysh.timeout >= self.vtysh.longest;
            self.learn(read.as_ref().err(), began);
            match read {
                Err(VtyshError::Timeout { .. }) if !last => {}
                read => return read,
            }
        }
    }

    async fn change(
        &mut self,
        desired: &BTreeMap<PrefixKey, RouteAttributes>,
    ) -> Result<Changes, AnnounceError> {
        check(&self.name, desired)?;
        self.memory.add(desired.keys());
        let ours = self.ours();
        let end = Instant::now() + SET_LIMIT;
        let mut changes = Changes::default();
        loop {
            let began = Instant::now();
            let attempt = self.attempt(desired, &ours, &mut changes).await;
            self.learn(attempt.as_ref().err(), began);
            match attempt {
                Ok(true) => break,
                Ok(false) if Instant::now() < end => {}
                Ok(false) => {
                    let reason = "the running configuration does not become what was wanted";
                    return Err(AnnounceError::transient(&self.name, "change FRR", reason));
                }
                Err(error) if error.retriable() && Instant::now() < end => {
                    warn!(announcer = %self.name, %error, "trying again");
                }
                Err(error) => return Err(self.failed("change FRR", &error)),
            }
            tokio::time::sleep(RETRY).await;
        }
        self.memory.settle(desired.keys());
        self.desired.clone_from(desired);
        for key in changes.announced.iter().chain(&changes.updated) {
            self.standing.remove(key);
        }
        // After a change of many prefixes the next one must not wait until all were asked about: a later call asks.
        let few = self.desired.len() <= DIAGNOSE_BATCH;
        if (few || changes.is_empty())
            && let Err(error) = self.diagnose().await
        {
            warn!(announcer = %self.name, %error, "could not check whether FRR uses the routes");
        }
        changes.unsure = self.desired.keys().any(|key| !self.standing.contains_key(key));
        let useless = self.standing.iter().filter(|(_, standing)| **standing != Standing::Advertised);
        changes.diagnoses = useless.map(|(key, standing)| (key.clone(), standing.to_string())).collect();
        Ok(changes)
    }

    /// One round of read, change, read; true = the configuration is as wanted.
    async fn attempt(
        &self,
        desired: &BTreeMap<PrefixKey, RouteAttributes>,
        ours: &BTreeSet<PrefixKey>,
        changes: &mut Changes,
    ) -> Result<bool, VtyshError> {
        let config = self.read().await?;
        let difference = Difference::between(&config, desired, ours)?;
        if difference.is_empty() {
            return Ok(true);
        }
        info!(
            announcer = %self.name,
            announce = difference.announce.len(),
            withdraw = difference.withdraw.len(),
            "changing FRR"
        );
        for batch in difference.batches(&config)? {
            self.vtysh.run(&batch).await?;
        }
        let (updated, announced): (Vec<_>, Vec<_>) =
            difference.announce.keys().cloned().partition(|key| config.network(key).is_some());
        changes.announced.extend(announced);
        changes.updated.extend(updated);
        changes.withdrawn.extend(difference.withdraw.iter().cloned());
        let after = self.read().await?;
        Ok(Difference::between(&after, desired, ours)?.is_empty())
    }

    /// Asks FRR whether it uses the wanted routes. With very many prefixes
    /// each call asks about a part of those that were well before.
    ///
    /// # Errors
    /// `vtysh` failed; the last known standings stay.
    pub async fn diagnose(&mut self) -> Result<&BTreeMap<PrefixKey, Standing>, VtyshError> {
        self.standing.retain(|key, _| self.desired.contains_key(key));
        let due = self.due();
        for batch in due.chunks(DIAGNOSE_BATCH) {
            let questions: Vec<String> = batch.iter().map(commands::show_route).collect();
            let text = self.vtysh.run(&questions).await?;
            let answers =
                serde_json::Deserializer::from_str(&text).into_iter::<Value>().map_while(Result::ok);
            for (key, answer) in batch.iter().zip(answers) {
                self.standing.insert(key.clone(), judge(&answer));
            }
        }
        Ok(&self.standing)
    }

    fn due(&mut self) -> Vec<PrefixKey> {
        let well = |key: &PrefixKey| self.standing.get(key) == Some(&Standing::Advertised);
        let mut due: BTreeSet<PrefixKey> =
            self.desired.keys().filter(|key| !well(key)).take(DIAGNOSE_URGENT).cloned().collect();
        let after = self.turn.take();
        let rest = self.desired.keys().filter(|key| after.as_ref().is_none_or(|turn| *key > turn));
        let turn: Vec<PrefixKey> = rest.take(DIAGNOSE_TURN).cloned().collect();
        self.turn = turn.last().cloned();
        due.extend(turn);
        due.into_iter().collect()
    }

    async fn finish(&mut self, drain: Duration) {
        if !drain.is_zero() && !self.desired.is_empty() {
            let mut draining = self.desired.clone();
            draining.values_mut().for_each(|attributes| attributes.graceful_shutdown = true);
            match self.change(&draining).await {
                Ok(_) => tokio::time::sleep(drain).await,
                Err(error) => warn!(announcer = %self.name, %error, "no drain: withdrawing at once"),
            }
        }
        match self.change(&BTreeMap::new()).await {
            Ok(changes) => {
                info!(announcer = %self.name, withdrawn = changes.withdrawn.len(), "withdrew everything")
            }
            Err(error) => {
                let left: Vec<String> = self.ours().iter().map(|key| key.prefix.to_string()).collect();
                tracing::error!(announcer = %self.name, %error, ?left, "may still be announced: remove by hand");
            }
        }
    }
}

/// What one answer of `show bgp … P json` says.
fn judge(answer: &Value) -> Standing {
    let local =
        answer["paths"].as_array().into_iter().flatten().find(|path| path["local"] == Value::Bool(true));
    match local {
        None => Standing::NotConfigured,
        Some(path) if path["valid"] == Value::Bool(true) => Standing::Advertised,
        Some(_) => Standing::NoRibRoute,
    }
}

/// Refuses what must not or cannot become a command, before anything changes.
fn check(name: &str, desired: &BTreeMap<PrefixKey, RouteAttributes>) -> Result<(), AnnounceError> {
    for (key, attributes) in desired {
        if let Some(vrf) = key.vrf.as_deref().filter(|vrf| !valid_interface(vrf)) {
            let reason = format!("VRF name {vrf:?}: 1 to 15 of a-z A-Z 0-9 . _ -");
            return Err(AnnounceError::permanent(name, format!("announce {}", key.prefix), reason));
        }
        RouteMap::of(attributes)
            .map_err(|what| AnnounceError::permanent(name, format!("announce {key}"), what))?;
    }
    Ok(())
}

impl Announcer for FrrAnnouncer {
    fn name(&self) -> &str {
        &self.name
    }

    /// What a reload removed stays ours until it is withdrawn, and is anybody's afterwards.
    fn manage(&mut self, prefixes: &mut dyn Iterator<Item = &PrefixKey>) {
        self.managed = prefixes.cloned().collect();
    }

    fn set<'a>(
        &'a mut self,
        desired: &'a BTreeMap<PrefixKey, RouteAttributes>,
    ) -> Pin<Box<dyn Future<Output = Result<Changes, AnnounceError>> + Send + 'a>> {
        Box::pin(self.change(desired))
    }

    fn current<'a>(
        &'a mut self,
    ) -> Pin<Box<dyn Future<Output = Result<BTreeSet<PrefixKey>, AnnounceError>> + Send + 'a>> {
        Box::pin(async move {
            let read = self.read_patiently().await;
            let config = read.map_err(|error| self.failed("read FRR's configuration", &error))?;
            let ours = self.ours();
            Ok(config.networks().filter(|key| ours.contains(key)).collect())
        })
    }

    fn shutdown<'a>(&'a mut self, how: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            match how {
                Shutdown::KeepRoutes => {}
                Shutdown::Withdraw { drain_ms, reason } => {
                    info!(announcer = %self.name, reason, "withdrawing everything");
                    self.finish(Duration::from_millis(drain_ms)).await;
                }
            }
        })
    }
}
