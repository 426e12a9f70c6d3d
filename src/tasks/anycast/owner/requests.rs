//! What operators ask of the owner: status, explain, check now, drain, undrain, reload.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Owner, build};
use crate::config::anycast::{Anycast, Graded, Route, Service};
use crate::rules::health::ServiceState;
use crate::rules::prefixes::Decision;
use crate::tasks::anycast::control::{ControlError, NewAnnouncers, Request};
use crate::tasks::anycast::status::{Explanation, RouteStatus, Status};

/// Whether something changed that only a new start takes over. BGP neighbours are not of that sort.
fn needs_restart(old: &Anycast, new: &Anycast) -> bool {
    let bird = old.bird.is_some() && old.bird != new.bird;
    bird || (&old.metrics_listen, &old.control_socket) != (&new.metrics_listen, &new.control_socket)
}

impl Owner {
    pub(super) fn request(&mut self, request: Request) {
        // Whoever asked may have gone; then nobody needs the answer.
        match request {
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Explain(prefix, reply) => drop(reply.send(self.explain(&prefix))),
            Request::CheckNow(name, reply) => drop(reply.send(self.check_now(&name))),
            Request::Drain(name, how_long, reply) => drop(reply.send(self.drain(&name, how_long))),
            Request::Undrain(name, reply) => drop(reply.send(self.undrain(&name))),
            Request::Reload(config, new, reply) => drop(reply.send(self.reload(*config, new))),
            Request::Alive(reply) => drop(reply.send(())),
        }
    }

    fn find(&self, name: &str) -> Result<u64, ControlError> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let known: Vec<&str> = self.by_name.keys().take(20).map(String::as_str).collect();
            ControlError::NoService { name: name.to_owned(), known: known.join(", ") }
        })
    }

    fn check_now(&mut self, name: &str) -> Result<String, ControlError> {
        let service = &self.services[&self.find(name)?];
        service.nudges.iter().for_each(|nudge| nudge.notify_one());
        Ok(format!("{} checks of {name} run now", service.nudges.len()))
    }

    fn drain(&mut self, name: &str, how_long: Option<Duration>) -> Result<String, ControlError> {
        let (id, now) = (self.find(name)?, self.now());
        let mut change = None;
        let mut delay = Duration::ZERO;
        if let Some(service) = self.services.get_mut(&id) {
            delay = service.config.drain_delay;
            if service.health.state() != ServiceState::Draining {
                service.drain_waits_until = (!delay.is_zero()).then(|| Instant::now() + delay);
            }
            let for_ms = how_long.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
            change = service.health.drain(for_ms, now);
        }
        self.changed(id, change, now);
        let until = how_long
            .map_or("until undrained".to_owned(), |d| format!("for {}", humantime::format_duration(d)));
        Ok(format!("{name} is drained {until}; its routes go after {}", humantime::format_duration(delay)))
    }

    fn undrain(&mut self, name: &str) -> Result<String, ControlError> {
        let (id, now) = (self.find(name)?, self.now());
        let change = self.services.get_mut(&id).and_then(|service| {
            service.drain_waits_until = None;
            service.health.undrain(now)
        });
        self.changed(id, change, now);
        Ok(format!("{name} is no longer drained"))
    }

    fn reload(&mut self, config: Anycast, new: NewAnnouncers) -> Result<String, ControlError> {
        for needed in config.announcers() {
            if !self.outlets.contains_key(&needed) && !new.0.contains_key(&needed) {
                let reason = format!("announcer {needed} is not running; a restart is needed");
                return Err(ControlError::Reload(reason));
            }
        }
        let same = |service: &Service| {
            let id = self.by_name.get(&service.name)?;
            self.services.get(id).filter(|runtime| *runtime.config == *service).map(|runtime| runtime.id)
        };
        let kept: BTreeSet<u64> = config.services.iter().filter_map(same).collect();
        let fresh = config.services.iter().filter(|service| same(service).is_none());
        let built = fresh
            .map(|service| build(service, &self.trust))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ControlError::Reload(error.to_string()))?;
        // From here on nothing can fail.
        let gone: Vec<u64> = self.services.keys().filter(|id| !kept.contains(id)).copied().collect();
        let mut former = BTreeMap::new();
        for id in &gone {
            if let Some(service) = self.services.remove(id) {
                service.cancel.cancel();
                self.by_name.remove(&service.config.name);
                self.metrics.forget(&service.config);
                former.insert(service.config.name.clone(), service);
            }
        }
        let mut told = format!("{} services kept, {} started, {} ended", kept.len(), built.len(), gone.len());
        if needs_restart(&self.config, &config) {
            warn!(
                "settings of BIRD, the metrics listener or the control socket changed: they need a restart"
            );
            told.push_str("; settings of BIRD or of listeners changed and need a restart");
        }
        self.config = config;
        self.open_outlets(new.0);
        self.begin(built, &former);
        for outlet in self.outlets.values() {
            outlet.every.send_replace(self.config.reconcile);
        }
        self.look_at_disable_files();
        self.redo_everything();
        info!(kept = kept.len(), "configuration reloaded");
        Ok(told)
    }

    fn route_status(&self, route: &Route, decision: &Decision<Graded>) -> RouteStatus {
        let outlet = self.outlets.get(&route.announcer);
        RouteStatus {
            prefix: route.key.to_string(),
            announcer: route.announcer.to_string(),
            wanted: decision.announce.is_some(),
            announced: outlet
                .and_then(|o| o.announced.as_ref())
                .map(|announced| announced.routes.contains_key(&route.key)),
            reason: decision.reason.clone(),
            diagnosis: outlet.and_then(|outlet| outlet.diagnoses.get(&route.key).cloned()),
        }
    }

    fn status(&self) -> Status {
        let now = self.now();
        let services = self.by_name.values().filter_map(|id| self.services.get(id));
        Status {
            services: services.map(|service| service.status(now)).collect(),
            routes: self
                .decisions
                .iter()
                .map(|(route, decision)| self.route_status(route, decision))
                .collect(),
            fail_open: self.fail_open,
        }
    }

    fn explain(&self, prefix: &str) -> Result<Explanation, ControlError> {
        let net = match prefix.parse::<ipnet::IpNet>() {
            Ok(net) => net,
            Err(_) => match prefix.parse::<std::net::IpAddr>() {
                Ok(ip) => ip.into(),
                Err(_) => return Err(ControlError::Prefix(format!("{prefix:?} is not a prefix"))),
            },
        };
        let found = self.decisions.iter().filter(|(route, _)| route.key.prefix == net);
        let routes: Vec<RouteStatus> =
            found.map(|(route, decision)| self.route_status(route, decision)).collect();
        if routes.is_empty() {
            return Err(ControlError::Prefix(format!(
                "no service has {net}; it is never announced by this agent"
            )));
        }
        let now = self.now();
        let services = self.services.values();
        let owners =
            services.filter(|service| service.config.routes.iter().any(|route| route.key.prefix == net));
        Ok(Explanation { routes, services: owners.map(|service| service.status(now)).collect() })
    }
}
