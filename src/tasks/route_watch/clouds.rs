//! The clients of both clouds from the settings, with what they tell on the way: events, lines, counters.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::events::{Ended, Events, Fact};
use crate::adapters::attempts::{Attempts, Onlooker, RetryPolicy, Told};
use crate::adapters::cloudflare_routes::{MagicRoutes, MagicSettings};
use crate::adapters::gcp::{COMPUTE, Compute, CredentialSource, Credentials, GcpSettings, credentials};
use crate::adapters::wire::Wire;
use crate::config::routes::RouteSettings;
use crate::config::routes::clouds::GcpAuth;
use crate::rules::breaker::{BreakerChange, BreakerSettings};

/// What the clients count.
#[derive(Clone)]
struct CallMetrics {
    requests: IntCounterVec,
    retries: IntCounterVec,
    breakers: IntGaugeVec,
}

impl CallMetrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("switchover_routes_{name}"), help);
        let metrics = Self {
            requests: IntCounterVec::new(
                opts("api_requests_total", "Calls of cloud APIs"),
                &["api", "op", "code"],
            )?,
            retries: IntCounterVec::new(
                opts("retry_total", "Calls that were tried again"),
                &["target", "op"],
            )?,
            breakers: IntGaugeVec::new(
                opts("breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open"),
                &["target"],
            )?,
        };
        let all = || -> [Box<dyn Collector>; 3] {
            [
                Box::new(metrics.requests.clone()),
                Box::new(metrics.retries.clone()),
                Box::new(metrics.breakers.clone()),
            ]
        };
        for (old, new) in all().into_iter().zip(all()) {
            let _ = registry.unregister(old);
            registry.register(new)?;
        }
        Ok(metrics)
    }
}

/// The clients.
#[derive(Clone)]
pub struct Clouds {
    /// Google Compute.
    pub compute: Compute,
    /// Cloudflare Magic Transit.
    pub routes: MagicRoutes,
}

impl Clouds {
    /// Sets them up; contacts nothing. `wire` is the network unless a test says otherwise; `stop` ends every wait.
    ///
    /// # Errors
    /// What is wrong with a client's settings, or with the registry.
    pub fn new(
        settings: &RouteSettings,
        wire: Option<Wire>,
        stop: CancellationToken,
        registry: &Registry,
        events: &Events,
    ) -> Result<Self, String> {
        let metrics = CallMetrics::register(registry).map_err(|error| error.to_string())?;
        let gcp = gcp_settings(settings);
        let magic = magic_settings(settings);
        let longest = [gcp.api_timeout, gcp.health_timeout, magic.read_timeout, magic.write_timeout];
        let wire = match wire {
            Some(wire) => wire,
            None => Wire::network(longest.into_iter().max().unwrap_or_default(), settings.parallel + 4)
                .map_err(|error| error.to_string())?,
        };
        let breaker = BreakerSettings {
            threshold: settings.retries.breaker_threshold,
            timeout_ms: u64::try_from(settings.retries.breaker_timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let attempts = Attempts::new(breaker, stop, onlooker(metrics, events.clone()));
        let credentials = Credentials::new(source(settings), wire.clone(), attempts.clone());
        let compute = Compute::new(gcp, wire.clone(), credentials, attempts.clone());
        let routes = MagicRoutes::new(magic, wire, attempts).map_err(|error| error.to_string())?;
        Ok(Self { compute, routes })
    }
}

fn retry(settings: &RouteSettings, retries: u32, total: Duration) -> RetryPolicy {
    let (initial, max) = (settings.retries.initial, settings.retries.max);
    RetryPolicy { retries, initial, max, total, jitter: true }
}

fn gcp_settings(settings: &RouteSettings) -> GcpSettings {
    let (gcp, times) = (&settings.gcp, &settings.retries);
    GcpSettings {
        api_timeout: gcp.api_timeout,
        health_timeout: gcp.health_timeout,
        operation_timeout: gcp.operation_timeout,
        health_retry: retry(settings, times.health, settings.deadline),
        bgp_retry: retry(settings, times.bgp, settings.deadline),
        update_retry: retry(settings, times.update, gcp.operation_timeout),
        parallel: settings.parallel,
        ..GcpSettings::new(gcp.compute_endpoint.clone().unwrap_or_else(|| COMPUTE.to_owned()))
    }
}

fn magic_settings(settings: &RouteSettings) -> MagicSettings {
    let cloudflare = &settings.cloudflare;
    MagicSettings {
        read_timeout: cloudflare.api_timeout,
        write_timeout: cloudflare.bulk_timeout,
        retry: retry(settings, settings.retries.cloudflare, settings.deadline.max(cloudflare.bulk_timeout)),
        ..MagicSettings::new(
            cloudflare.base.clone(),
            cloudflare.token.clone(),
            &cloudflare.account,
            &cloudflare.filter,
        )
    }
}

/// Where tokens come from.
pub(super) fn source(settings: &RouteSettings) -> CredentialSource {
    let gcp = &settings.gcp;
    match &gcp.auth {
        GcpAuth::File(path) => {
            CredentialSource::File { path: path.clone(), token_endpoint: gcp.token_endpoint.clone() }
        }
        GcpAuth::Metadata => CredentialSource::Metadata {
            endpoint: gcp.metadata_endpoint.clone().unwrap_or_else(|| credentials::METADATA.to_owned()),
        },
    }
}

fn onlooker(metrics: CallMetrics, events: Events) -> Onlooker {
    Arc::new(move |told| match told {
        Told::Call { api, operation, code, .. } => {
            metrics.requests.with_label_values(&[api, operation, code.as_str()]).inc();
        }
        Told::Retry { target, operation, number, wait, reason } => {
            metrics.retries.with_label_values(&[target.as_str(), operation]).inc();
            let wait = wait.as_secs_f64();
            events.say(
                Level::WARN,
                &format!("{operation} of {target}: {reason}; retry {number} in {wait:.1} s"),
            );
        }
        Told::Breaker { target, change, failures } => {
            let state = match change {
                BreakerChange::Opened | BreakerChange::CallBlocked => 2,
                BreakerChange::HalfOpen => 1,
                BreakerChange::Closed | BreakerChange::FailureRecorded => 0,
            };
            metrics.breakers.with_label_values(&[target.as_str()]).set(state);
            let details = json!({"service": target, "failure_count": failures});
            let word = change.word();
            events.emit(&Fact::new(
                "circuit_breaker_event",
                "circuit_breaker",
                word,
                Ended::Success,
                details,
            ));
            if matches!(change, BreakerChange::Opened | BreakerChange::Closed) {
                events.say(
                    Level::WARN,
                    &format!("circuit breaker of {target}: {word} after {failures} failures"),
                );
            }
        }
    })
}
