//! Events in Cloud Logging (`entries.write`): a bounded queue, batches, and never a reason to wait.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::clouds::source;
use crate::adapters::attempts::Attempts;
use crate::adapters::gcp::Credentials;
use crate::adapters::wire::{Sent, Wire};
use crate::config::routes::RouteSettings;
use crate::rules::breaker::BreakerSettings;

/// Google's own address.
const ENDPOINT: &str = "https://logging.googleapis.com";
/// What tokens for it need.
const SCOPE: &str = "https://www.googleapis.com/auth/logging.write";
/// Name of the log, as before.
const LOG: &str = "radius_healthcheck_daemon";
/// Events that may wait.
const QUEUE: usize = 1000;
/// Events in one call.
const BATCH: usize = 100;
/// Limit of one call, and the pause after one that failed.
const LIMIT: Duration = Duration::from_secs(10);

/// The way to the log. Events that find a full queue are left out: the file has them.
#[derive(Clone)]
pub struct CloudLog {
    queue: mpsc::Sender<(Level, Value)>,
}

impl CloudLog {
    /// Hands an event over without waiting.
    pub fn send(&self, level: Level, event: Value) {
        // A full queue means that the log is out of reach; the file is complete.
        let _ = self.queue.try_send((level, event));
    }
}

/// Starts the sender, where events should go there.
///
/// # Errors
/// Where the HTTP client cannot be made.
pub fn start(
    settings: &RouteSettings,
    wire: Option<Wire>,
    stop: CancellationToken,
) -> Result<Option<CloudLog>, String> {
    if !settings.events.cloud {
        return Ok(None);
    }
    let wire = match wire {
        Some(wire) => wire,
        None => Wire::network(LIMIT, 1).map_err(|error| error.to_string())?,
    };
    let attempts = Attempts::new(BreakerSettings::default(), stop.clone(), std::sync::Arc::new(|_| {}));
    let credentials = Credentials::with_scope(source(settings), SCOPE, wire.clone(), attempts);
    let endpoint = settings.gcp.logging_endpoint.clone().unwrap_or_else(|| ENDPOINT.to_owned());
    let (queue, events) = mpsc::channel(QUEUE);
    let sender = Sender {
        wire,
        credentials,
        url: format!("{endpoint}/v2/entries:write"),
        log: format!("projects/{}/logs/{LOG}", settings.gcp.project),
        complained: false,
    };
    tokio::spawn(sender.run(events, stop));
    Ok(Some(CloudLog { queue }))
}

struct Sender {
    wire: Wire,
    credentials: Credentials,
    url: String,
    log: String,
    complained: bool,
}

impl Sender {
    async fn run(mut self, mut events: mpsc::Receiver<(Level, Value)>, stop: CancellationToken) {
        let mut batch = Vec::new();
        while events.recv_many(&mut batch, BATCH).await > 0 {
            let sent = self.write(&batch).await;
            if let Err(reason) = sent {
                // A failure of the log is a line of the log that is left, once.
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(reason, "Cloud Logging does not take events");
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(LIMIT) => {}
                }
            } else {
                self.complained = false;
            }
            batch.clear();
        }
    }

    async fn write(&self, batch: &[(Level, Value)]) -> Result<(), String> {
        let entries: Vec<Value> = batch
            .iter()
            .map(|(level, event)| json!({"severity": severity(*level), "jsonPayload": event}))
            .collect();
        let body = json!({
            "logName": self.log,
            "resource": {"type": "global"},
            "entries": entries,
            "partialSuccess": true,
        });
        let token = self.credentials.token().await.map_err(|error| error.to_string())?;
        let sent = Sent::new(Method::POST, &self.url).bearer(token.expose()).json(&body);
        let got =
            self.wire.send(sent, "POST entries:write", LIMIT).await.map_err(|error| error.to_string())?;
        match got.status {
            200..=299 => Ok(()),
            401 => {
                self.credentials.forget(&token).await;
                Err("POST entries:write: status 401".to_owned())
            }
            status => Err(format!("POST entries:write: status {status}")),
        }
    }
}

/// The word that Cloud Logging has for a level.
fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}
