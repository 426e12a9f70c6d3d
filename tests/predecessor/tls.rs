//! TLS 1.2 and 1.3 as the predecessor's library does them: a server that asks for no client certificate, a client
//! that checks the authority and the name it dialled.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::Credentials;

/// An open connection of the client role.
pub type ClientSocket = WebSocketStream<TlsStream<TcpStream>>;

/// Connects and upgrades; usable on its own for scripted clients.
pub async fn connect(
    peer: SocketAddr,
    name: &str,
    credentials: &Credentials,
) -> Result<ClientSocket, Box<dyn std::error::Error + Send + Sync>> {
    let connector = TlsConnector::from(Arc::new(client_config(credentials)));
    let stream = TcpStream::connect(peer).await?;
    let stream = connector.connect(ServerName::try_from(name.to_owned())?, stream).await?;
    let url = format!("wss://{name}:{}/", peer.port());
    let (socket, _) = tokio_tungstenite::client_async_with_config(url, stream, Some(limits())).await?;
    Ok(socket)
}

pub(super) fn limits() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(1 << 20)).max_frame_size(Some(1 << 20))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn parse(own: &(String, String)) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(own.0.as_bytes()).collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_slice(own.1.as_bytes()).unwrap())
}

pub(super) fn server_config(credentials: &Credentials) -> rustls::ServerConfig {
    let (chain, key) = parse(credentials.own.as_ref().expect("a server has a certificate"));
    rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

fn client_config(credentials: &Credentials) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(credentials.ca.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let versions = if credentials.only_tls12 { &[&rustls::version::TLS12][..] } else { rustls::ALL_VERSIONS };
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match &credentials.own {
        Some(own) => {
            let (chain, key) = parse(own);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    }
}
