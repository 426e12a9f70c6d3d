//! Whom the checks trust: the system's certificate authorities, read once, and the TLS client settings made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::BuildError;

/// Where distributions keep their bundle.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificate authorities of this machine.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
}

/// TLS settings of one check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Accept any certificate.
    pub insecure: bool,
    /// Bundle to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key, both PEM files.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    /// Reads `bundle`, or the first bundle of the distribution that exists. A machine without any trusts nobody.
    pub fn system(bundle: Option<&Path>) -> Self {
        let found = bundle
            .map(Path::to_owned)
            .or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()));
        let roots = found.and_then(|path| read_roots(&path).ok()).unwrap_or_else(RootCertStore::empty);
        Self { roots: Arc::new(roots) }
    }

    /// Trusts nobody; for checks without TLS and for tests.
    pub fn nobody() -> Self {
        Self { roots: Arc::new(RootCertStore::empty()) }
    }

    /// Client settings for one check.
    ///
    /// # Errors
    /// A file that cannot be read or holds nothing usable.
    pub fn client(&self, options: &Options) -> Result<ClientConfig, BuildError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| BuildError(format!("TLS settings: {error}")))?;
        let builder = if options.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        } else {
            let roots = match &options.ca_file {
                Some(path) => Arc::new(read_roots(path)?),
                None => Arc::clone(&self.roots),
            };
            builder.with_root_certificates(roots)
        };
        let Some((cert, key)) = &options.identity else { return Ok(builder.with_no_client_auth()) };
        let chain = read_certificates(cert)?;
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
        builder.with_client_auth_cert(chain, key_der).map_err(|error| unusable(cert, &error))
    }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> BuildError {
    BuildError(format!("{}: {error}", path.display()))
}

fn read_roots(path: &Path) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(read_certificates(path)?);
    if added == 0 { Err(unusable(path, &"no usable certificate")) } else { Ok(roots) }
}

/// All certificates of a PEM file.
///
/// # Errors
/// A file that cannot be read, or a block that is not PEM.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    CertificateDer::pem_file_iter(path)
        .map_err(|error| unusable(path, &error))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(path, &error))
}

/// Accepts any certificate, and still demands that the server holds its key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
