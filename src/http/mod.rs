//! The HTTP interface on port 8000: probes, metrics, a look at the state, and what operators ask for.
//!
//! | method, path | does | success |
//! |---|---|---|
//! | GET `/health` | whether every task works | 200 `{"status":"up",...}`, else 503 `{"status":"down","down":[...]}` |
//! | GET `/ready` | whether the record was read once and the agent is not stopping (and, where `geo_sync` runs without the engine, it saw both sides once) | 200, else 503 |
//! | GET `/metrics` | Prometheus text 0.0.4 | 200 |
//! | GET `/status` | the engine's snapshot | 200 |
//! | GET `/history?limit=N` | the journal's newest entries and whether its hash chain holds; needs the token | 200 text, else 503 |
//! | GET `/configmap` | the record's data | 200 `{"data":{...},"other":"<last_stable_state>"}`, else 503 |
//! | PUT, POST `/phase/transition-to-<name>` | asks for a transition; body `{"accept_data_loss":"reason"}` or none | 202, else 409 |
//! | PUT, POST `/maintenance/on`, `/maintenance/off` | the maintenance page | 200 `{"maintenance":true\|false}`, else 409 |
//! | PUT, POST `/rollback-active-down`, `/set-primary`, `/set-readonly`, `/restart-kong`, `/keycloak_start`, `/keycloak_service_flow`, `/keycloak_service_block` | the predecessor's actions | 200 `{"done":"true"}`, else 409 |
//! | PUT, POST `/transition/resume`, `/transition/abort`, `/acknowledge` | a halted transition, a completed failover | 202, else 409 |
//!
//! Side effects need authentication ([`auth`]) and are only ever requests to the engine ([`desk`]): 504 where it does
//! not answer in 5 s. Everything else is 404 or 405 in the predecessor's words. Decides nothing.

pub mod auth;
pub mod desk;
pub mod listen;
mod look;
mod operate;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, put};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;

pub use auth::{Auth, TokenReviewer};
pub use desk::{Answer, DeskError, OperatorDesk};

use crate::tasks::diary::Diary;
use crate::tasks::geo_sync::GeoHealth;
use crate::tasks::supervisor::TaskTable;
use crate::telemetry::Metrics;

/// Largest request body in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;
/// Longest time for a request; longer than the engine's answer may take.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Time that open requests get when the agent stops.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What `/ready` needs to know besides the record.
#[derive(Debug, Default)]
pub struct Ready {
    /// Whether the record is watched at all; without it the agent is ready at once.
    pub needs_record: AtomicBool,
    /// The agent stops.
    pub stopping: AtomicBool,
    /// `geo_sync`, where it runs.
    pub geo: Option<Arc<GeoHealth>>,
    /// Whether the agent is there for `geo_sync` alone. Beside the engine it never holds back readiness: the peer link
    /// comes through the same Service, and a load balancer's trouble must not cut it.
    pub needs_geo: bool,
}

impl Ready {
    /// Not stopping; `needs_record` where `kube_watch` is on.
    pub fn new(needs_record: bool) -> Self {
        Self { needs_record: AtomicBool::new(needs_record), ..Self::default() }
    }

    /// Shows `geo_sync` as well; `alone` = no engine runs beside it.
    pub fn with_geo(self, geo: Option<Arc<GeoHealth>>, alone: bool) -> Self {
        Self { needs_geo: alone && geo.is_some(), geo, ..self }
    }

    /// The agent stops: not ready from now on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// What the handlers see.
#[derive(Clone)]
pub struct HttpState {
    /// The engine's snapshot.
    pub snapshot: watch::Receiver<serde_json::Value>,
    /// The supervisor's table.
    pub tasks: watch::Receiver<TaskTable>,
    /// The agent's registry.
    pub registry: Arc<prometheus::Registry>,
    /// Counts refused requests.
    pub metrics: Metrics,
    /// The way to the engine.
    pub operator: OperatorDesk,
    /// Who may ask.
    pub auth: Auth,
    /// The record's data as last read; `None` = never read.
    pub record: watch::Receiver<Option<BTreeMap<String, String>>>,
    /// Readiness.
    pub ready: Arc<Ready>,
    /// The journal, for `GET /history`.
    pub diary: Arc<Diary>,
}

/// Binds the address.
///
/// # Errors
/// With the setting's name and the address in the text.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("HTTP_LISTEN={address}: cannot listen: {error}"))
    })
}

/// All endpoints.
pub fn router(state: HttpState) -> Router {
    let mut router = Router::new()
        .route("/health", get(look::health))
        .route("/ready", get(look::ready))
        .route("/metrics", get(look::metrics))
        .route("/status", get(look::status))
        .route("/configmap", get(look::configmap))
        .route("/history", get(look::history))
        .route("/phase/{name}", put(operate::phase).post(operate::phase));
    for path in operate::PATHS {
        router = router.route(path, put(operate::action).post(operate::action));
    }
    router
        .method_not_allowed_fallback(operate::wrong_method)
        .fallback(look::not_found)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_LIMIT))
        .layer(CatchPanicLayer::custom(look::panicked))
        .with_state(state)
}

/// Serves until cancelled; open requests then get [`STOP_LIMIT`].
///
/// # Errors
/// Where the listener itself fails.
pub async fn serve(listener: TcpListener, state: HttpState, cancel: CancellationToken) -> io::Result<()> {
    let ready = Arc::clone(&state.ready);
    let asked = cancel.clone();
    let server = axum::serve(listen::Bounded::new(listener), router(state))
        .with_graceful_shutdown(async move { asked.cancelled().await });
    tokio::select! {
        result = server => result,
        () = async {
            cancel.cancelled().await;
            ready.stop();
            tokio::time::sleep(STOP_LIMIT).await;
        } => {
            tracing::warn!("http requests were still open when the agent stopped");
            Ok(())
        }
    }
}
