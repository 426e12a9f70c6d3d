//! Several agents at one site: the one that holds the Lease acts, the others wait and say so.
//!
//! Nothing of an agent runs before its turn: the journal is opened only by the one who acts. One that loses the Lease
//! ends at once, and whoever started it starts it again.

use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::adapters::kube::Kube;
use crate::config::Config;
use crate::tasks::election::Election;
use crate::tasks::jitter::Jitter;

/// How long calls under way may take after the Lease was lost: less than what is left until another agent may begin.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A site's turn to act; without an election it is always ours.
#[derive(Clone)]
pub(super) struct Turn {
    held: Option<Held>,
}

#[derive(Clone)]
struct Held {
    leader: watch::Receiver<bool>,
    election: Arc<Mutex<Election>>,
    stop: CancellationToken,
    renewing: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Waits until this agent may act. `None` = asked to end before that.
///
/// # Errors
/// Where Kubernetes cannot be set up.
pub(super) async fn wait_for_turn(
    config: &Config,
    listener: Option<&TcpListener>,
    asked_to_end: impl Future<Output = ()>,
) -> Result<Option<Turn>, String> {
    let Some(settings) = config.lease.clone() else { return Ok(Some(Turn { held: None })) };
    let kube = Kube::connect(config.kube.clone(), &prometheus::Registry::new()).await;
    let kube = kube.map_err(|error| format!("Kubernetes: {error}"))?;
    let (sender, mut leader) = watch::channel(false);
    let who = format!("agent-{}", config.site.site.0);
    let election = Arc::new(Mutex::new(Election::new(kube, settings, &who, Jitter::new(None), sender)));
    let stop = CancellationToken::new();
    let renewing = tokio::spawn(renew(Arc::clone(&election), stop.clone()));
    let probes = listener.map(|listener| serve_probes(listener, stop.child_token())).transpose();
    let probes = probes.map_err(|error| format!("HTTP: {error}"))?;
    tracing::info!("waiting for the Lease: another agent of this site may be acting");
    let held =
        Held { leader: leader.clone(), election, stop, renewing: Arc::new(Mutex::new(Some(renewing))) };
    let turn = Turn { held: Some(held) };
    let got = tokio::select! {
        got = leader.wait_for(|leads| *leads) => got.is_ok(),
        () = asked_to_end => false,
    };
    if let Some((token, serving)) = probes {
        token.cancel();
        let _ = serving.await;
    }
    if got {
        return Ok(Some(turn));
    }
    turn.give_back().await;
    Ok(None)
}

async fn renew(election: Arc<Mutex<Election>>, stop: CancellationToken) {
    let mut election = election.lock().await;
    tokio::select! {
        () = stop.cancelled() => {}
        () = election.run() => {}
    }
}

type Probes = (CancellationToken, JoinHandle<()>);

/// Answers probes while waiting: alive, and not ready, so that nobody sends the peer here.
fn serve_probes(listener: &TcpListener, stop: CancellationToken) -> std::io::Result<Probes> {
    use std::os::fd::AsFd;
    let copy = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
    let copy = TcpListener::from_std(copy)?;
    let waiting = || async { Json(json!({"status": "up", "standby": true})) };
    let not_ready = || async {
        let body = json!({"ready": false, "detail": "another agent of this site holds the Lease"});
        (axum::http::StatusCode::SERVICE_UNAVAILABLE, Json(body))
    };
    let router = Router::new().route("/health", get(waiting)).route("/ready", get(not_ready));
    let token = stop.clone();
    let serving = tokio::spawn(async move {
        let served = axum::serve(copy, router).with_graceful_shutdown(async move { stop.cancelled().await });
        if let Err(error) = served.await {
            tracing::warn!(%error, "probes of a waiting agent");
        }
    });
    Ok((token, serving))
}

impl Turn {
    /// Ends the agent when the Lease is lost, and the process soon after.
    pub(super) async fn end_when_lost(self, agent: CancellationToken) {
        let Some(mut held) = self.held else { return };
        if held.leader.wait_for(|leads| !*leads).await.is_err() || agent.is_cancelled() {
            return;
        }
        tracing::error!("the Lease was lost: another agent may act now; ending");
        agent.cancel();
        tokio::time::sleep(LAST_WORDS).await;
        std::process::exit(1);
    }

    /// Whether somebody else may act by now.
    pub(super) fn is_lost(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !*held.leader.borrow())
    }

    /// Gives the Lease up, so that the next agent need not wait for its end.
    pub(super) async fn give_back(&self) {
        let Some(held) = &self.held else { return };
        held.stop.cancel();
        if let Some(renewing) = held.renewing.lock().await.take() {
            let _ = renewing.await;
        }
        held.election.lock().await.release().await;
    }
}
