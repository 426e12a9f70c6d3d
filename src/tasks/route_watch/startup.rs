//! The start: what must be right before routes are steered.
//!
//! What can't work (a missing permission, a router whose list has no effect, a filter that matches nothing) ends the
//! start with a sentence. What does not answer now is looked at again with every cycle: a cloud that is down for a
//! moment must not keep the other one from being steered.

use serde_json::json;
use tokio::time::Instant;
use tracing::Level;

use super::Watch;
use super::events::{Ended, Fact};
use super::observe::place;
use crate::adapters::gcp::{GcpError, Overrides};
use crate::config::routes::clouds::GcpAuth;
use crate::model::FailureKind;

/// What a check found.
enum Check {
    Passed,
    /// Nobody knows yet.
    Later(String),
    /// It can't work.
    Refused(String),
}

impl Watch {
    /// Tells the settings and looks at both clouds.
    ///
    /// # Errors
    /// A sentence that says what can't work.
    pub(super) async fn start(&mut self) -> Result<(), String> {
        self.tell_settings("startup", Ended::Success);
        for warning in &self.settings.warnings {
            self.events.say(Level::WARN, warning);
        }
        self.check().await?;
        self.tell_settings("startup_complete", Ended::Success);
        Ok(())
    }

    /// The same checks again, beside the cycles. What they refuse now is told; the process goes on.
    pub(super) async fn check_again(&mut self) {
        if let Err(reason) = self.check().await {
            self.events.say(Level::ERROR, &reason);
        }
    }

    async fn check(&mut self) -> Result<(), String> {
        let (google, cloudflare) = tokio::join!(self.check_google(), self.check_cloudflare());
        self.tell_check("gcp", &google);
        self.tell_check("cloudflare", &cloudflare);
        self.unchecked = !matches!((&google, &cloudflare), (Check::Passed, Check::Passed));
        let refusals: Vec<String> = [google, cloudflare]
            .into_iter()
            .filter_map(|check| match check {
                Check::Refused(reason) => Some(reason),
                Check::Passed | Check::Later(_) => None,
            })
            .collect();
        if refusals.is_empty() { Ok(()) } else { Err(refusals.join("; ")) }
    }

    async fn check_google(&self) -> Check {
        let gcp = &self.settings.gcp;
        let compute = &self.clouds.compute;
        let deadline = Instant::now() + self.settings.deadline;
        let (local, remote) = (place(&gcp.local_router), place(&gcp.remote_router));
        let (project, here, there, own, other, status) = tokio::join!(
            compute.check_project(&gcp.project, deadline),
            compute.check_region(&gcp.project, &gcp.local_region, deadline),
            compute.check_region(&gcp.project, &gcp.remote_region, deadline),
            compute.router(&local, deadline),
            compute.router(&remote, deadline),
            compute.sessions(&remote, deadline),
        );
        let region = |result: Result<(), GcpError>, region: &str| {
            result.map_err(|error| match error.status() {
                Some(404) => {
                    (FailureKind::Permanent, format!("region {region} is not in project {}", gcp.project))
                }
                _ => (error.kind(), error.to_string()),
            })
        };
        let plain = |error: GcpError| (error.kind(), error.to_string());
        let obstacle = match own.as_ref().ok().and_then(|view| view.obstacle(Overrides::Refuse)) {
            Some(reason) => Err((FailureKind::Permanent, format!("router {}: {reason}", local.name))),
            None => Ok(()),
        };
        first(vec![
            project.map_err(plain),
            region(here, &gcp.local_region),
            region(there, &gcp.remote_region),
            own.map(|_| ()).map_err(plain),
            obstacle,
            other.map(|_| ()).map_err(plain),
            status.map(|_| ()).map_err(plain),
        ])
    }

    async fn check_cloudflare(&self) -> Check {
        let deadline = Instant::now() + self.settings.deadline;
        let (token, routes) =
            tokio::join!(self.clouds.routes.verify_token(), self.clouds.routes.routes(deadline));
        if let Err(error) = token {
            // It only knows tokens of the account; the list is the test that counts.
            self.events.say(Level::INFO, &format!("the token could not be verified: {error}"));
        }
        match routes {
            Ok(routes) if routes.is_empty() && !self.settings.cloudflare.allow_no_routes => {
                Check::Refused(format!(
                    "no Cloudflare route has {:?} in its description (CLOUDFLARE_ALLOW_NO_ROUTES=true allows that)",
                    self.settings.cloudflare.filter
                ))
            }
            Ok(routes) => {
                self.metrics.matching.set(routes.len() as i64);
                self.events.say(Level::INFO, &format!("{} Cloudflare routes match", routes.len()));
                Check::Passed
            }
            Err(error) => first(vec![Err((error.kind(), error.to_string()))]),
        }
    }

    fn tell_check(&self, component: &'static str, check: &Check) {
        let (ended, error) = match check {
            Check::Passed => (Ended::Success, None),
            Check::Later(reason) | Check::Refused(reason) => (Ended::Failure, Some(reason.clone())),
        };
        let (gcp, cloudflare) = (&self.settings.gcp, &self.settings.cloudflare);
        let details = if component == "gcp" {
            json!({
                "project": gcp.project,
                "regions": [gcp.local_region, gcp.remote_region],
                "routers": [gcp.local_router.router, gcp.remote_router.router],
                "error_type": matches!(check, Check::Later(_)).then_some("transient"),
            })
        } else {
            json!({
                "account": cloudflare.account,
                "filter": cloudflare.filter,
                "priorities": [cloudflare.primary_priority, cloudflare.secondary_priority],
                "error_type": matches!(check, Check::Later(_)).then_some("transient"),
            })
        };
        if let Some(error) = &error {
            self.events.say(Level::ERROR, &format!("{component}: {error}"));
        }
        let fact = Fact::new("connectivity_test", component, "connectivity_validation", ended, details);
        self.events.emit(&fact.because(error));
    }

    fn tell_settings(&self, operation: &'static str, ended: Ended) {
        let settings = &self.settings;
        let (gcp, policy) = (&settings.gcp, &settings.policy);
        let auth = match gcp.auth {
            GcpAuth::File(_) => "file",
            GcpAuth::Metadata => "metadata",
        };
        let details = json!({"configuration": {
            "passive_mode": policy.passive,
            "dry_run": self.dry_run,
            "project": gcp.project,
            "credentials": auth,
            "local_region": gcp.local_region,
            "remote_region": gcp.remote_region,
            "bgp_peer_project": gcp.local_router.project,
            "local_router": gcp.local_router.router,
            "remote_router": gcp.remote_router.router,
            "primary_prefix": settings.primary.to_string(),
            "secondary_prefix": settings.secondary.to_string(),
            "description_filter": settings.cloudflare.filter,
            "priorities": [settings.cloudflare.primary_priority, settings.cloudflare.secondary_priority],
            "check_interval_seconds": settings.interval.as_secs(),
            "window": policy.window,
            "threshold": policy.threshold,
            "asymmetric": policy.asymmetric,
            "min_state_dwell_seconds": policy.dwell_ms / 1000,
            "remote_lost_action": policy.remote_lost,
            "withdraw_guard": policy.guard,
        }});
        self.events.emit(&Fact::new("daemon_lifecycle", "daemon", operation, ended, details));
        let passive = if policy.passive { ", PASSIVE: nothing is ever changed" } else { "" };
        let text = format!(
            "{operation}: {} and {} by the health of {} and {}{passive}",
            settings.primary, settings.secondary, gcp.local_region, gcp.remote_region
        );
        self.events.say(if policy.passive { Level::WARN } else { Level::INFO }, &text);
    }
}

/// The first refusal, else the first that must be looked at again.
fn first(results: Vec<Result<(), (FailureKind, String)>>) -> Check {
    let mut later = None;
    for result in results {
        match result {
            Ok(()) => {}
            Err((FailureKind::Permanent, reason)) => return Check::Refused(reason),
            Err((_, reason)) => later = later.or(Some(reason)),
        }
    }
    later.map_or(Check::Passed, Check::Later)
}
