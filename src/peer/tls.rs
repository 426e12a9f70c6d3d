//! Who may talk to us, and to whom we talk: rustls configurations with the peer's identity pinned by its SAN.
//!
//! Owns the two verifiers. Never reads a file ([`super::material`]) and never opens a socket. No session is ever
//! resumed, so each connection proves its identity with the certificates of the moment.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};

use super::material::Material;

/// What is asked of a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// A certificate for clientAuth that chains to our authority and carries the peer's name.
    #[default]
    Require,
    /// For a migration: none is accepted too, and one for serverAuth alone. A certificate that is wrong in another
    /// way is refused all the same.
    AcceptMissing,
}

/// Oldest TLS version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMin {
    /// TLS 1.2, for a peer that cannot do better.
    V12,
    /// TLS 1.3 only.
    #[default]
    V13,
}

impl TlsMin {
    fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::V12 => vec![&rustls::version::TLS13, &rustls::version::TLS12],
            Self::V13 => vec![&rustls::version::TLS13],
        }
    }
}

/// The rules of one link.
#[derive(Debug, Clone)]
pub struct TlsRules {
    /// Name or address that the peer's certificate must carry.
    pub peer_san: ServerName<'static>,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Oldest version.
    pub min: TlsMin,
}

/// The listener's configuration.
///
/// # Errors
/// [`rustls::Error`] where the library refuses the certificates.
pub fn server_config(material: &Material, rules: &TlsRules) -> Result<ServerConfig, Error> {
    let provider = provider();
    let clients = WebPkiClientVerifier::builder_with_provider(material.roots.clone(), provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let servers = WebPkiServerVerifier::builder_with_provider(material.roots.clone(), provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let verifier =
        PinnedClient { clients, servers, peer_san: rules.peer_san.clone(), client_auth: rules.client_auth };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&rules.min.versions())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(material.identity.clone())));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The configuration of outgoing connections.
///
/// # Errors
/// [`rustls::Error`] where the library refuses the certificates.
pub fn client_config(material: &Material, rules: &TlsRules) -> Result<ClientConfig, Error> {
    let provider = provider();
    let servers = WebPkiServerVerifier::builder_with_provider(material.roots.clone(), provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let verifier = PinnedServer { servers, peer_san: rules.peer_san.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&rules.min.versions())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(material.identity.clone())));
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Verifies the server as the library does, but for the pinned name instead of the name that was dialled; SNI still
/// carries the dialled name, by which routers in front of the peer find it.
#[derive(Debug)]
struct PinnedServer {
    servers: Arc<WebPkiServerVerifier>,
    peer_san: ServerName<'static>,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.servers.verify_server_cert(end_entity, intermediates, &self.peer_san, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.servers.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.servers.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.servers.supported_verify_schemes()
    }
}

/// Verifies a client's chain and purpose as the library does, and its name against the pinned one.
#[derive(Debug)]
struct PinnedClient {
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
    peer_san: ServerName<'static>,
    client_auth: ClientAuth,
}

impl ClientCertVerifier for PinnedClient {
    fn client_auth_mandatory(&self) -> bool {
        self.client_auth == ClientAuth::Require
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.clients.verify_client_cert(end_entity, intermediates, now) {
            Ok(_) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.peer_san)?;
            }
            Err(error) if is_wrong_purpose(&error) && self.client_auth == ClientAuth::AcceptMissing => {
                self.servers.verify_server_cert(end_entity, intermediates, &self.peer_san, &[], now)?;
            }
            Err(error) => return Err(error),
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

fn is_wrong_purpose(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
        )
    )
}

/// The name of a refusal in metrics and logs.
pub fn refusal(error: &std::io::Error) -> &'static str {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return "closed";
    };
    match tls {
        Error::NoCertificatesPresented => "no-certificate",
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "wrong-ca",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not-yet-valid",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "wrong-san"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "wrong-purpose"
            }
            _ => "bad-certificate",
        },
        Error::PeerIncompatible(_) => "tls-version",
        Error::AlertReceived(_) => "refused-by-peer",
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => "not-tls",
        _ => "tls",
    }
}
