//! The metrics listener of `metrics.address`: `GET /metrics`, and 404 for everything else.
//!
//! Owns the socket only. An address that is taken is an error at start-up, not a silence.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Binds the address.
///
/// # Errors
/// An address that is taken or is none.
pub(super) fn bind(address: &str) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until cancelled.
pub(super) async fn serve(
    listener: TcpListener,
    registry: Arc<prometheus::Registry>,
    cancel: CancellationToken,
) {
    let router = Router::new().route("/metrics", get(scrape)).with_state(registry);
    let served = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, router).await
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        result = served => if let Err(error) = result {
            warn!(%error, "metrics listener");
        },
    }
}

async fn scrape(State(registry): State<Arc<prometheus::Registry>>) -> Response {
    match prometheus::TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
