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
use prometheus::{CounterVec, Gauge, Opts};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::metrics::replace;

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
    let scrapes = match scrape_counter(&registry) {
        Ok(scrapes) => scrapes,
        Err(error) => {
            warn!(%error, "metrics listener");
            return;
        }
    };
    let router = Router::new().route("/metrics", get(scrape)).with_state((registry, scrapes));
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

/// Scrapes by status code, as Go programs count them.
fn scrape_counter(registry: &prometheus::Registry) -> prometheus::Result<CounterVec> {
    let opts = Opts::new("promhttp_metric_handler_requests_total", "Scrapes by HTTP status code.");
    let scrapes = CounterVec::new(opts, &["code"])?;
    replace(registry, &scrapes)?;
    for code in ["200", "500", "503"] {
        scrapes.with_label_values(&[code]).inc_by(0.0);
    }
    let opts = Opts::new("promhttp_metric_handler_requests_in_flight", "Scrapes being answered.");
    let in_flight = Gauge::with_opts(opts)?;
    replace(registry, &in_flight)?;
    // Whoever reads it is being answered, and answers are made one after the other.
    in_flight.set(1.0);
    Ok(scrapes)
}

async fn scrape(State((registry, scrapes)): State<(Arc<prometheus::Registry>, CounterVec)>) -> Response {
    scrapes.with_label_values(&["200"]).inc();
    match prometheus::TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
