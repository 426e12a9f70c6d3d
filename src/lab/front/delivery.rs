//! How a simulated cloud's answers get to the caller: over sockets, with damage done to the connection itself, or as
//! the return of a function, where damage is the error that a client would have seen.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Front, Reply, Simulated, Then};
use crate::adapters::http_client::HttpError;
use crate::adapters::wire::{Got, Sent};
use crate::lab::http::{Answer, Connection, Request, Sockets, text_answer};

/// Largest body in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// How long a silent call is kept open.
const SILENCE: Duration = Duration::from_secs(600);

impl<S: Simulated> Front<S> {
    /// Serves the cloud on a free port of the loopback address.
    ///
    /// # Errors
    /// Where no socket can be had.
    pub async fn serve(&self) -> io::Result<ServedCloud> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let cancel = CancellationToken::new();
        let router = Router::new().fallback(answer::<S>).with_state((self.clone(), cancel.clone()));
        let sockets = Sockets::new(listener, Arc::new(Semaphore::new(1024)));
        let server = axum::serve(sockets, router.into_make_service_with_connect_info::<Connection>());
        let stop = cancel.clone();
        tokio::spawn(async move {
            // Kept connections would hold a graceful stop up.
            tokio::select! {
                result = async { server.await } => {
                    if let Err(error) = result {
                        tracing::error!(%error, "a simulated cloud ended");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
        Ok(ServedCloud { address, cancel })
    }

    pub(super) async fn direct(&self, sent: Sent) -> Result<Got, HttpError> {
        let what = || format!("{} in the lab", sent.method);
        let closed = || HttpError::NoAnswer { what: what(), reason: "connection closed".to_owned() };
        let url = reqwest::Url::parse(&sent.url)
            .map_err(|error| HttpError::Malformed { what: what(), reason: error.to_string() })?;
        let mut headers = sent.headers.clone();
        if let Ok(host) = HeaderValue::try_from(url.authority()) {
            headers.insert(header::HOST, host);
        }
        let request = Request {
            method: sent.method.clone(),
            path: url.path().to_owned(),
            query: url.query().map(str::to_owned),
            headers,
            body: sent.body.clone(),
        };
        let delivery = self.take(&request);
        if !delivery.wait.is_zero() {
            tokio::time::sleep(delivery.wait).await;
        }
        match delivery.then {
            Then::Answer(reply) => {
                let mut headers = HeaderMap::new();
                put_headers(&mut headers, &reply);
                Ok(Got { status: reply.status, headers, body: Bytes::from(reply.body) })
            }
            Then::Cut(_) | Then::Close => Err(closed()),
            Then::Silence => {
                tokio::time::sleep(SILENCE).await;
                Err(closed())
            }
        }
    }
}

/// A cloud behind a socket. Ends when it is dropped.
pub struct ServedCloud {
    address: SocketAddr,
    cancel: CancellationToken,
}

impl ServedCloud {
    /// Its address, without a trailing slash.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for ServedCloud {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn answer<S: Simulated>(
    State((front, cancel)): State<(Front<S>, CancellationToken)>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: http::Request<Body>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return text_answer(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", String::new());
    };
    let request = Request {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body,
    };
    let delivery = front.take(&request);
    let wait = if matches!(delivery.then, Then::Silence) { SILENCE } else { delivery.wait };
    if !wait.is_zero() {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    let (reply, cut) = match delivery.then {
        Then::Answer(reply) => (reply, false),
        Then::Cut(reply) => (reply, true),
        Then::Close | Then::Silence => return connection.abort(),
    };
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = text_answer(status, reply.kind, String::new());
    put_headers(answer.headers_mut(), &reply);
    if cut {
        // The length of the whole, and half of it.
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
        let half = Bytes::copy_from_slice(&reply.body.as_bytes()[..reply.body.len() / 2]);
        let broken = Err(io::Error::from(io::ErrorKind::BrokenPipe));
        *answer.body_mut() = Body::from_stream(futures_util::stream::iter([Ok(half), broken]));
    } else {
        *answer.body_mut() = Body::from(reply.body);
    }
    answer
}

fn put_headers(headers: &mut HeaderMap, reply: &Reply) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(reply.kind));
    for (name, value) in &reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
