//! Cloud Routers: what one is configured to announce, what its sessions say, and changing the former.
//!
//! A change is one `PATCH` from one fresh read, its operation polled to its end, and a read-back. The resource has no
//! fingerprint, so a change by somebody else in between is only found by the read-back; then it starts over.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::{Compute, GcpError, canonical, escape, patch};
use crate::adapters::attempts::RetryPolicy;
use crate::model::FailureKind;

/// Where a router is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouterPlace {
    /// Its project.
    pub project: String,
    /// Its region.
    pub region: String,
    /// Its name.
    pub name: String,
}

impl RouterPlace {
    fn path(&self) -> String {
        let (project, region) = (escape(&self.project), escape(&self.region));
        format!("/projects/{project}/regions/{region}/routers/{}", escape(&self.name))
    }
}

/// What decides which prefixes are announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdvertiseMode {
    /// All subnets; a list of prefixes is not allowed. Also what a missing word means.
    Default,
    /// The groups and prefixes listed.
    Custom,
    /// A word that is not known here.
    Other(String),
}

/// A prefix that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedRange {
    /// As written.
    pub range: String,
    /// As a prefix with host bits cleared; `None` where the text is none.
    pub prefix: Option<IpNet>,
    /// Its description.
    pub description: Option<String>,
}

/// A BGP peer as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BgpPeer {
    /// Its name.
    pub name: String,
    /// Whether its session is switched on (`enable` is not `FALSE`).
    pub enabled: bool,
    /// Whether it has a list of its own (`CUSTOM`), which hides the router's.
    pub own_list: bool,
    /// That list.
    pub ranges: Vec<AdvertisedRange>,
}

/// A router as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterView {
    /// Its mode.
    pub mode: AdvertiseMode,
    /// Groups such as `ALL_SUBNETS`.
    pub groups: Vec<String>,
    /// The router's list.
    pub ranges: Vec<AdvertisedRange>,
    /// Its peers.
    pub peers: Vec<BgpPeer>,
    pub(super) raw: Value,
}

/// What to do about peers with a list of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overrides {
    /// Refuse to steer the router: its list would have no effect for them.
    #[default]
    Refuse,
    /// Write the prefixes into their lists as well, with the complete array of peers that `PATCH` needs.
    Manage,
}

impl RouterView {
    /// Whether the prefix is announced as far as the configuration goes: in the router's list and in every list of an
    /// enabled peer that has its own.
    pub fn lists(&self, prefix: IpNet) -> bool {
        let has =
            |ranges: &[AdvertisedRange]| ranges.iter().any(|range| range.prefix == Some(prefix.trunc()));
        has(&self.ranges)
            && self.peers.iter().all(|peer| !peer.own_list || !peer.enabled || has(&peer.ranges))
    }

    /// Why writing the router's list would not do what is wanted, where that is so.
    pub fn obstacle(&self, overrides: Overrides) -> Option<String> {
        match &self.mode {
            AdvertiseMode::Custom => {}
            AdvertiseMode::Default => {
                return Some(
                    "its bgp.advertiseMode is DEFAULT, where no list of prefixes is allowed; set it to CUSTOM with the \
                     group ALL_SUBNETS, or the subnets stop being announced"
                        .to_owned(),
                );
            }
            AdvertiseMode::Other(word) => {
                return Some(format!("its bgp.advertiseMode is {word:?}, not CUSTOM"));
            }
        }
        let own: Vec<&str> = self.peers.iter().filter(|p| p.own_list).map(|p| p.name.as_str()).collect();
        (overrides == Overrides::Refuse && !own.is_empty()).then(|| {
            format!(
                "its peers {} have advertiseMode CUSTOM, so the router's list means nothing to them; set them to \
                 DEFAULT, or let their lists be managed",
                own.join(", ")
            )
        })
    }
}

/// A prefix and whether it should be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedPrefix {
    /// The prefix.
    pub prefix: IpNet,
    /// Whether it should be announced.
    pub announce: bool,
}

/// What a change did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steered {
    /// What was different; empty = nothing was written.
    pub changed: Vec<WantedPrefix>,
    /// Name of the last operation.
    pub operation: Option<String>,
    /// `PATCH`es that were sent, refused ones too.
    pub patches: u32,
}

/// What a router's sessions say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterStatus {
    /// The sessions, in the API's order.
    pub sessions: Vec<Session>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Name of the peer.
    pub name: String,
    /// `UP`, `DOWN`, `UNKNOWN`, or empty where the answer has no word.
    pub status: String,
    /// State of its machine, such as `Established`.
    pub state: String,
    /// Why it is down, where the API says so.
    pub reason: Option<String>,
    /// Seconds since it came up.
    pub uptime_seconds: Option<u64>,
    /// Routes that were learnt.
    pub learned_routes: Option<u64>,
    /// Prefixes that are really announced on it.
    pub advertised: Vec<IpNet>,
    /// Switched off in the router's configuration. Only looked up where a session is not up.
    pub disabled: bool,
}

impl RouterStatus {
    /// Sessions that are switched on, and those of them that are up.
    pub fn up_of(&self) -> (usize, usize) {
        let on: Vec<_> = self.sessions.iter().filter(|session| !session.disabled).collect();
        (on.iter().filter(|session| session.status == "UP").count(), on.len())
    }

    /// Whether some session that is up announces the prefix.
    pub fn announces(&self, prefix: IpNet) -> bool {
        let mut up = self.sessions.iter().filter(|session| session.status == "UP");
        up.any(|session| session.advertised.contains(&prefix.trunc()))
    }
}

impl Compute {
    /// A router's configuration. Repeated as `bgp_retry` says; breaker `gcp_bgp_check/<router>`.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn router(&self, place: &RouterPlace, deadline: Instant) -> Result<RouterView, GcpError> {
        let target = format!("gcp_bgp_check/{}", place.name);
        let policy = &self.inner.settings.bgp_retry;
        let attempt = |_| self.read_router(place);
        self.inner.attempts.run((&target, "routers.get"), policy, deadline, attempt).await
    }

    /// A router's sessions. Repeated as `bgp_retry` says; breaker `gcp_bgp_check/<router>`. Where a session is not up,
    /// the router is read as well, to know which ones are switched off.
    ///
    /// # Errors
    /// As the API answers; never sessions that are down because the question failed.
    pub async fn sessions(&self, place: &RouterPlace, deadline: Instant) -> Result<RouterStatus, GcpError> {
        let target = format!("gcp_bgp_check/{}", place.name);
        let policy = &self.inner.settings.bgp_retry;
        let attempt = |_| self.read_sessions(place);
        self.inner.attempts.run((&target, "routers.getRouterStatus"), policy, deadline, attempt).await
    }

    /// Makes a router announce what is wanted, and nothing else different: one `PATCH` with the complete list, or none
    /// where nothing differs. Breaker `gcp_bgp_update/<router>`; limited by `operation_timeout` and `deadline`.
    ///
    /// # Errors
    /// Any. After a transient one, nobody knows whether the change is made.
    pub async fn steer(
        &self,
        place: &RouterPlace,
        wanted: &[WantedPrefix],
        overrides: Overrides,
        deadline: Instant,
    ) -> Result<Steered, GcpError> {
        let target = format!("gcp_bgp_update/{}", place.name);
        let settings = &self.inner.settings;
        let total = settings.update_retry.total.min(settings.operation_timeout);
        let policy = RetryPolicy { total, ..settings.update_retry };
        let intent = Mutex::new(Intent::default());
        let attempt = |deadline| self.steer_once(place, wanted, overrides, deadline, &intent);
        self.inner.attempts.run((&target, "routers.patch"), &policy, deadline, attempt).await?;
        Ok(intent.into_inner().unwrap_or_else(PoisonError::into_inner).steered)
    }

    async fn steer_once(
        &self,
        place: &RouterPlace,
        wanted: &[WantedPrefix],
        overrides: Overrides,
        deadline: Instant,
        intent: &Mutex<Intent>,
    ) -> Result<(), GcpError> {
        let view = self.read_router(place).await?;
        let unsteerable = |reason| GcpError::Unsteerable { router: place.name.clone(), reason };
        if let Some(reason) = view.obstacle(overrides) {
            return Err(unsteerable(reason));
        }
        let Some((body, changed)) = patch::patch(&view, wanted, overrides).map_err(unsteerable)? else {
            return Ok(());
        };
        let request_id = held(intent).begin(&body, changed);
        let path = format!("{}?requestId={request_id}", place.path());
        let limit = self.inner.settings.api_timeout;
        let sent = self.request(Method::PATCH, &path, Some(&body), "routers.patch", limit).await;
        if sent.as_ref().is_err_and(|error| error.status().is_some()) {
            // Refused: there is no operation behind this identifier.
            held(intent).forget();
        }
        let operation = sent?;
        let name = operation.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        held(intent).steered.operation = Some(name);
        let done = self.finish_operation(place, operation, deadline).await;
        if done.as_ref().is_err_and(|error| error.kind() == FailureKind::Permanent) {
            held(intent).forget();
        }
        done?;
        let after = self.read_router(place).await?;
        match patch::patch(&after, wanted, overrides).map_err(unsteerable)? {
            None => Ok(()),
            Some((_, differs)) => {
                held(intent).forget();
                let differs: Vec<String> = differs.iter().map(describe).collect();
                Err(GcpError::NotApplied { router: place.name.clone(), differs: differs.join(", ") })
            }
        }
    }

    async fn read_router(&self, place: &RouterPlace) -> Result<RouterView, GcpError> {
        let path = place.path();
        let raw = self.get(&path, "routers.get", self.inner.settings.api_timeout).await?;
        patch::read_router(&format!("GET {path}"), raw)
    }

    async fn read_sessions(&self, place: &RouterPlace) -> Result<RouterStatus, GcpError> {
        let path = format!("{}/getRouterStatus", place.path());
        let answer = self.get(&path, "routers.getRouterStatus", self.inner.settings.api_timeout).await?;
        let mut status = read_status(&format!("GET {path}"), &answer)?;
        if status.sessions.iter().any(|session| session.status != "UP") {
            let view = self.read_router(place).await?;
            for session in &mut status.sessions {
                session.disabled = view.peers.iter().any(|p| p.name == session.name && !p.enabled);
            }
        }
        Ok(status)
    }
}

/// What one call of [`Compute::steer`] is about, across its attempts.
#[derive(Default)]
struct Intent {
    steered: Steered,
    last: Option<(Value, String)>,
}

impl Intent {
    /// The identifier of this request: the same as before where the same is asked again after a lost answer, so that
    /// the API answers with the operation that it may already have made.
    fn begin(&mut self, body: &Value, changed: Vec<WantedPrefix>) -> String {
        self.steered.patches += 1;
        for change in changed {
            if !self.steered.changed.contains(&change) {
                self.steered.changed.push(change);
            }
        }
        match &self.last {
            Some((last, id)) if last == body => id.clone(),
            _ => {
                let id = patch::request_id(rand::random());
                self.last = Some((body.clone(), id.clone()));
                id
            }
        }
    }

    fn forget(&mut self) {
        self.last = None;
    }
}

fn held(intent: &Mutex<Intent>) -> MutexGuard<'_, Intent> {
    intent.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(wanted: &WantedPrefix) -> String {
    let state = if wanted.announce { "is not listed" } else { "is still listed" };
    format!("{} {state}", wanted.prefix)
}

fn read_status(what: &str, answer: &Value) -> Result<RouterStatus, GcpError> {
    let list = match answer.pointer("/result/bgpPeerStatus") {
        None | Some(Value::Null) => return Ok(RouterStatus { sessions: Vec::new() }),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(GcpError::malformed(what, "bgpPeerStatus is no list")),
    };
    let sessions = list.iter().map(|peer| {
        let text = |field: &str| peer.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        // The API writes these numbers as numbers or as texts, by field.
        let number = |field: &str| {
            let value = peer.get(field)?;
            value.as_u64().or_else(|| value.as_str()?.parse().ok())
        };
        let routes = peer.get("advertisedRoutes").and_then(Value::as_array);
        let range = |route: &Value| canonical(route.get("destRange")?.as_str()?);
        Session {
            name: text("name"),
            status: text("status"),
            state: text("state"),
            reason: peer.get("statusReason").and_then(Value::as_str).map(str::to_owned),
            uptime_seconds: number("uptimeSeconds"),
            learned_routes: number("numLearnedRoutes"),
            advertised: routes.into_iter().flatten().filter_map(range).collect(),
            disabled: false,
        }
    });
    Ok(RouterStatus { sessions: sessions.collect() })
}
