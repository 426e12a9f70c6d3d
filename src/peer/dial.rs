//! Outgoing connections: name look-up, TCP, TLS, websocket, all under one time limit.
//!
//! Owns nothing that lasts. Never decides whether to try again (that is the task's business).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use super::reload::PeerTls;
use crate::config::peer::PeerSettings;

/// A connection to the peer's server.
pub type PeerSocket = WebSocketStream<TlsStream<TcpStream>>;

/// A host with several addresses must not spend the whole limit on the first one that swallows packets.
const PER_ADDRESS: Duration = Duration::from_secs(2);

/// How long to wait for the peer's half of a close.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("look-up of {host} failed: {why}")]
    Lookup {
        /// The name.
        host: String,
        /// The resolver's word.
        why: String,
    },
    /// No address took the connection.
    #[error("no TCP connection to {0}")]
    Connect(String),
    /// The handshake failed: one side did not like the other's certificate or version.
    #[error("TLS with {address} failed: {why}")]
    Tls {
        /// The address that was dialled.
        address: SocketAddr,
        /// What failed.
        why: io::Error,
    },
    /// The other side is no websocket server, or refused us after the TLS handshake (TLS 1.3 tells only then).
    #[error("websocket with {address} failed: {why}")]
    Websocket {
        /// The address that was dialled.
        address: SocketAddr,
        /// What failed.
        why: Box<tungstenite::Error>,
    },
    /// It took longer than the limit.
    #[error("no connection to {address} within {limit_ms} ms")]
    TimedOut {
        /// The address as configured.
        address: String,
        /// The limit.
        limit_ms: u128,
    },
}

/// Connects to the peer; every address of its name is tried.
///
/// # Errors
/// [`DialError`] after at most `limit`.
pub async fn dial(settings: &PeerSettings, tls: &PeerTls, limit: Duration) -> Result<PeerSocket, DialError> {
    match timeout(limit, connect(settings, tls)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::TimedOut { address: settings.address(), limit_ms: limit.as_millis() }),
    }
}

async fn connect(settings: &PeerSettings, tls: &PeerTls) -> Result<PeerSocket, DialError> {
    let (stream, address) = reach(settings).await?;
    let name = ServerName::try_from(settings.host.clone()).unwrap_or_else(|_| settings.san.clone());
    let stream = TlsConnector::from(tls.client())
        .connect(name, stream)
        .await
        .map_err(|why| DialError::Tls { address, why })?;
    let url = format!("wss://{}/", settings.address());
    let (socket, _) =
        tokio_tungstenite::client_async_with_config(url, stream, Some(super::websocket_config()))
            .await
            .map_err(|why| DialError::Websocket { address, why: Box::new(why) })?;
    Ok(socket)
}

/// Looks the peer's name up and connects to one of its addresses.
async fn reach(settings: &PeerSettings) -> Result<(TcpStream, SocketAddr), DialError> {
    let lookup = tokio::net::lookup_host((settings.host.as_str(), settings.port));
    let addresses: Vec<SocketAddr> = lookup
        .await
        .map_err(|error| DialError::Lookup { host: settings.host.clone(), why: error.to_string() })?
        .collect();
    if addresses.is_empty() {
        return Err(DialError::Lookup { host: settings.host.clone(), why: "it has no address".to_owned() });
    }
    first_open(&addresses).await
}

/// A TCP connection to the first address that takes one.
async fn first_open(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut tried = Vec::new();
    for address in addresses {
        match timeout(PER_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Frames are small and each waits for its answer; Nagle would only delay them.
                stream.set_nodelay(true).ok();
                return Ok((stream, *address));
            }
            Ok(Err(error)) => tried.push(format!("{address} ({error})")),
            Err(_) => tried.push(format!("{address} (no answer)")),
        }
    }
    Err(DialError::Connect(tried.join(", ")))
}

/// The next text or binary frame.
///
/// # Errors
/// How the connection ended, in words.
pub async fn next_frame(socket: &mut PeerSocket) -> Result<Bytes, String> {
    loop {
        match socket.next().await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => return Ok(message.into_data()),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(Some(frame)))) => {
                return Err(format!("the peer closed the connection with {}", u16::from(frame.code)));
            }
            Some(Ok(Message::Close(None))) | None => return Err("the peer closed the connection".to_owned()),
            Some(Err(error)) => return Err(error.to_string()),
        }
    }
}

/// Closes with 1000 and waits a moment for the peer's half.
pub async fn close(mut socket: PeerSocket) {
    let farewell = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let goodbye = async {
        if socket.send(Message::Close(Some(farewell))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    timeout(CLOSE_WAIT, goodbye).await.ok();
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn every_address_is_tried_and_named_where_none_answers() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = (open.local_addr().unwrap(), open);
        // Bound and not listening: a connection is refused, and nobody else can take the port.
        let closed = tokio::net::TcpSocket::new_v4().unwrap();
        closed.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let refused = closed.local_addr().unwrap();
        let (_, reached) = first_open(&[refused, open.0]).await.unwrap();
        assert_eq!(reached, open.0);
        let error = first_open(&[refused, refused]).await.unwrap_err().to_string();
        assert_eq!(error.matches(&refused.to_string()).count(), 2, "{error}");
    }
}
