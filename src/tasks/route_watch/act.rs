//! The writes of a cycle: read what can be changed, compare it with what is wanted, correct the difference.
//!
//! Level-triggered: nothing is remembered about what was written before. A failure of one actuator does not stop the
//! other; both are tried again with the next cycle.

use ipnet::IpNet;
use serde_json::json;
use tokio::time::Instant;
use tracing::Level;

use super::Watch;
use super::events::{Ended, Fact};
use super::observe::place;
use crate::adapters::cloudflare_routes::MagicError;
use crate::adapters::gcp::{GcpError, Overrides, RouterStatus, RouterView, WantedPrefix};
use crate::model::{FailureKind, RoutePin};
use crate::rules::route_health::actuate::{Both, Plan, Prefix, Refused, Seen, Write, plan};
use crate::rules::route_health::{Outcome, Priority};

/// How the writes of a cycle ended.
#[derive(Debug, Clone, Default)]
pub struct Acted {
    /// Changes that were made.
    pub changes: usize,
    /// Changes that only would have been made.
    pub planned: usize,
    /// The router says what it should; `None` = it was not looked at.
    pub router: Option<bool>,
    /// So does Cloudflare.
    pub cloudflare: Option<bool>,
    /// What went wrong, and how to take it.
    pub failures: Vec<(FailureKind, String)>,
    /// What was refused.
    pub refused: Vec<Refused>,
}

impl Acted {
    /// Whether the world says what is wanted.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty() && self.refused.is_empty() && self.planned == 0
    }
}

impl Watch {
    /// Makes the world say `wanted`. `peer` is what the other router just told.
    pub(super) async fn actuate(
        &mut self,
        wanted: Outcome,
        pin: RoutePin,
        peer: Option<&RouterStatus>,
        own: Option<&RouterStatus>,
    ) -> Acted {
        let mut acted = Acted::default();
        let deadline = Instant::now() + self.settings.deadline;
        let router = place(&self.settings.gcp.local_router);
        let (view, routes) =
            tokio::join!(self.clouds.compute.router(&router, deadline), self.clouds.routes.routes(deadline));
        let priority = self.priority(wanted.priority);
        if let Err(error) = &view {
            acted.router = Some(false);
            acted.failures.push((error.kind(), format!("router {}: {error}", router.name)));
        }
        let to_change = match &routes {
            Ok(routes) => {
                self.metrics.matching.set(routes.len() as i64);
                if routes.is_empty() && !self.settings.cloudflare.allow_no_routes {
                    let filter = &self.settings.cloudflare.filter;
                    let text = format!("no Cloudflare route has {filter:?} in its description");
                    acted.failures.push((FailureKind::Permanent, text));
                    acted.cloudflare = Some(false);
                }
                Some(routes.iter().filter(|route| route.priority != priority).count())
            }
            Err(error) => {
                acted.cloudflare = Some(false);
                acted.failures.push((error.kind(), error.to_string()));
                // Asked and not answered: a write would begin with the same question.
                Some(0)
            }
        };
        self.peer_tells |=
            peer.is_some_and(|peer| peer.sessions.iter().any(|session| !session.advertised.is_empty()));
        let seen = Seen {
            router: view.as_ref().ok().map(|view| self.listed(view)),
            peer: self.announced(peer),
            priorities_to_change: to_change,
        };
        self.metrics.prefixes(Some(wanted), seen.router);
        self.tell_silent_router(seen.router, own);
        let now = self.clock.now().mono;
        let made = plan(&self.settings.policy, wanted, pin, &seen, &mut self.budget, now);
        self.tell_drift(wanted, &made, &seen);
        for refused in &made.refused {
            self.metrics.refused.with_label_values(&[refused.word()]).inc();
        }
        acted.refused.clone_from(&made.refused);
        acted.router =
            acted.router.or(Some(!made.refused.iter().any(|it| matches!(it, Refused::PeerNotAnnouncing(_)))));
        acted.cloudflare = acted.cloudflare.or(Some(true));
        self.carry_out(&made, &mut acted).await;
        self.last_wanted = Some(wanted);
        acted
    }

    async fn carry_out(&mut self, made: &Plan, acted: &mut Acted) {
        for write in &made.writes {
            if self.dry_run {
                acted.planned += 1;
                self.events.say(Level::INFO, &format!("would write: {}", self.words(write)));
                continue;
            }
            self.budget.note(self.clock.now().mono);
            match write {
                Write::Router { list } => acted.router = Some(self.write_router(*list, acted).await),
                Write::Cloudflare { priority } => {
                    acted.cloudflare = Some(self.write_cloudflare(*priority, acted).await);
                }
            }
        }
    }

    async fn write_router(&self, list: Both<bool>, acted: &mut Acted) -> bool {
        let router = place(&self.settings.gcp.local_router);
        let deadline = Instant::now() + self.settings.gcp.operation_timeout;
        let wanted = [
            WantedPrefix { prefix: self.settings.primary, announce: list.primary },
            WantedPrefix { prefix: self.settings.secondary, announce: list.secondary },
        ];
        let began = Instant::now();
        let result = self.clouds.compute.steer(&router, &wanted, Overrides::Refuse, deadline).await;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (ended, changed, operation, error) = match &result {
            Ok(steered) if steered.changed.is_empty() => (Ended::NoChange, Vec::new(), None, None),
            Ok(steered) => (Ended::Success, steered.changed.clone(), steered.operation.clone(), None),
            Err(error) => (Ended::Failure, wanted.to_vec(), None, Some(error)),
        };
        self.metrics.writes.with_label_values(&["router", ended.word()]).inc();
        for change in changed {
            self.tell_prefix(change, ended, took, operation.as_deref(), error);
        }
        acted.changes += usize::from(ended == Ended::Success);
        if let Some(error) = error {
            acted.failures.push((error.kind(), error.to_string()));
            self.events.say(Level::ERROR, &format!("the router was not changed: {error}"));
        } else if ended == Ended::Success {
            self.events.say(Level::WARN, &format!("router: {}", self.words(&Write::Router { list })));
        }
        error.is_none()
    }

    fn tell_prefix(
        &self,
        change: WantedPrefix,
        ended: Ended,
        took: u64,
        operation: Option<&str>,
        error: Option<&GcpError>,
    ) {
        let (word, action) =
            if change.announce { ("advertise_prefix", "advertise") } else { ("withdraw_prefix", "withdraw") };
        let gcp = &self.settings.gcp.local_router;
        let details = json!({
            "gcp_project": gcp.project,
            "gcp_region": gcp.region,
            "router_name": gcp.router,
            "ip_prefix": change.prefix.to_string(),
            "action": action,
            "operation_id": operation,
        });
        let mut fact = Fact::new("bgp_advertisement_change", "gcp_bgp", word, ended, details);
        fact.duration_ms = Some(took);
        self.events.emit(&fact.because(error.map(ToString::to_string)));
    }

    async fn write_cloudflare(&self, priority: Priority, acted: &mut Acted) -> bool {
        let number = self.priority(priority);
        let deadline = Instant::now() + self.settings.cloudflare.bulk_timeout.max(self.settings.deadline);
        let began = Instant::now();
        let result = self.clouds.routes.prioritise(number, deadline).await;
        let (ended, modified, error) = match &result {
            Ok(done) if done.modified.is_empty() => (Ended::NoChange, 0, None),
            Ok(done) => (Ended::Success, done.modified.len(), None),
            Err(MagicError::NoMatch { .. }) if self.settings.cloudflare.allow_no_routes => {
                (Ended::NoChange, 0, None)
            }
            Err(error) => (Ended::Failure, 0, Some(error)),
        };
        self.metrics.writes.with_label_values(&["cloudflare", ended.word()]).inc();
        let details = json!({
            "account_id": self.settings.cloudflare.account,
            "description_filter": self.settings.cloudflare.filter,
            "desired_priority": number,
            "routes_modified": modified,
        });
        let mut fact =
            Fact::new("cloudflare_route_update", "cloudflare", "update_route_priorities", ended, details);
        fact.duration_ms = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.events.emit(&fact.because(error.map(ToString::to_string)));
        acted.changes += usize::from(ended == Ended::Success);
        if let Some(error) = error {
            acted.failures.push((error.kind(), error.to_string()));
            self.events.say(Level::ERROR, &format!("Cloudflare was not changed: {error}"));
        } else if ended == Ended::Success {
            self.events.say(Level::WARN, &format!("Cloudflare: {modified} routes to priority {number}"));
        }
        error.is_none()
    }

    /// What differs although nothing new is wanted: somebody else has changed it.
    fn tell_drift(&self, wanted: Outcome, made: &Plan, seen: &Seen) {
        if self.last_wanted != Some(wanted) || made.writes.is_empty() || self.last_failed {
            return;
        }
        for write in &made.writes {
            let (component, details) = match write {
                Write::Router { list } => (
                    "gcp_bgp",
                    json!({
                        "router_name": self.settings.gcp.local_router.router,
                        "wanted": {"primary": list.primary, "secondary": list.secondary},
                        "found": seen.router,
                    }),
                ),
                Write::Cloudflare { priority } => (
                    "cloudflare",
                    json!({
                        "desired_priority": self.priority(*priority),
                        "routes_that_differ": seen.priorities_to_change,
                    }),
                ),
            };
            let fact = Fact::new("route_drift", component, "drift_detected", Ended::Success, details);
            self.events.emit(&fact);
            self.events.say(Level::WARN, &format!("somebody else changed it: {}", self.words(write)));
        }
    }

    /// A prefix that is listed and that no session announces goes nowhere.
    fn tell_silent_router(&self, listed: Option<Both<bool>>, own: Option<&RouterStatus>) {
        let (Some(listed), Some(own)) = (listed, own) else { return };
        // Only where the router tells at all what it announces.
        if own.sessions.iter().all(|session| session.advertised.is_empty()) {
            return;
        }
        for (prefix, is_listed, network) in [
            (Prefix::Primary, listed.primary, self.settings.primary),
            (Prefix::Secondary, listed.secondary, self.settings.secondary),
        ] {
            if is_listed && !own.announces(network) {
                let text = format!("the own router lists {network} ({prefix:?}) and no session announces it");
                self.events.say(Level::WARN, &text);
            }
        }
    }

    fn listed(&self, view: &RouterView) -> Both<bool> {
        Both { primary: view.lists(self.settings.primary), secondary: view.lists(self.settings.secondary) }
    }

    /// What the other router announces, where it tells at all.
    fn announced(&self, peer: Option<&RouterStatus>) -> Both<Option<bool>> {
        let told = |network: IpNet| peer.filter(|_| self.peer_tells).map(|peer| peer.announces(network));
        Both { primary: told(self.settings.primary), secondary: told(self.settings.secondary) }
    }

    pub(super) fn priority(&self, priority: Priority) -> i64 {
        i64::from(match priority {
            Priority::Primary => self.settings.cloudflare.primary_priority,
            Priority::Secondary => self.settings.cloudflare.secondary_priority,
        })
    }

    fn words(&self, write: &Write) -> String {
        match write {
            Write::Router { list } => {
                let word = |on: bool| if on { "announce" } else { "withdraw" };
                let settings = &self.settings;
                format!(
                    "{} {}, {} {}",
                    word(list.primary),
                    settings.primary,
                    word(list.secondary),
                    settings.secondary
                )
            }
            Write::Cloudflare { priority } => format!("routes to priority {}", self.priority(*priority)),
        }
    }
}
