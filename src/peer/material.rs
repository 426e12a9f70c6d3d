//! Certificate files of the peer link: reading, parsing and judging them, and nothing else.
//!
//! Owns the three files (CA, own certificate, own key) as data. Never opens a connection; time is passed in. Used by
//! the configuration check at start and by [`super::reload`] whenever a file changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::Wall;

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaterialPaths {
    /// Certificates of the authorities that both sites trust, PEM.
    pub ca: PathBuf,
    /// Our certificate and its intermediates, PEM.
    pub certificate: PathBuf,
    /// Our private key, PEM.
    pub key: PathBuf,
}

impl MaterialPaths {
    /// The three files with the settings that name them.
    pub fn each(&self) -> [(MaterialFile, &Path); 3] {
        [
            (MaterialFile::Ca, &self.ca),
            (MaterialFile::Certificate, &self.certificate),
            (MaterialFile::Key, &self.key),
        ]
    }
}

/// One of the three files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaterialFile {
    /// `TLS_CA`.
    Ca,
    /// `TLS_LOCAL_CRT`.
    Certificate,
    /// `TLS_LOCAL_KEY`.
    Key,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct MaterialError {
    /// Which file.
    pub file: MaterialFile,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong; never contents of the file.
    pub problem: String,
}

/// The bytes of the three files, to see whether they have changed.
#[derive(Clone, PartialEq, Eq)]
pub struct RawMaterial {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl RawMaterial {
    /// Reads the three files.
    ///
    /// # Errors
    /// [`MaterialError`] for the first file that cannot be read.
    pub fn read(paths: &MaterialPaths) -> Result<Self, MaterialError> {
        Ok(Self {
            ca: read_file(MaterialFile::Ca, &paths.ca)?,
            certificate: read_file(MaterialFile::Certificate, &paths.certificate)?,
            key: read_file(MaterialFile::Key, &paths.key)?,
        })
    }
}

/// Parsed files that fit together.
#[derive(Clone)]
pub struct Material {
    /// Authorities that both sites trust.
    pub roots: Arc<RootCertStore>,
    /// Our certificate with its key.
    pub identity: Arc<CertifiedKey>,
    /// End of validity of our certificate, seconds since 1970.
    pub certificate_expiry: i64,
    /// Earliest end of validity among the authorities, seconds since 1970.
    pub ca_expiry: i64,
    /// Remarks that do not stop the agent.
    pub warnings: Vec<String>,
}

impl Material {
    /// Parses the files and checks that they fit together and are valid at `now`.
    ///
    /// # Errors
    /// [`MaterialError`] naming the first file at fault: not PEM, no certificate or key in it, not valid now, key
    /// and certificate that do not belong together, a certificate for neither TLS role.
    pub fn parse(raw: &RawMaterial, paths: &MaterialPaths, now: Wall) -> Result<Self, MaterialError> {
        let authorities = authorities(&raw.ca, &paths.ca, now)?;
        let chain = own_chain(&raw.certificate, &paths.certificate, now)?;
        let key = private_key(&raw.key, &paths.key)?;
        Self::assemble(authorities, chain, key, paths)
    }

    /// Reads and parses the files for the configuration check.
    ///
    /// # Errors
    /// As [`Material::parse`], for all files at once.
    pub fn load(paths: &MaterialPaths, now: Wall) -> Result<Self, Vec<MaterialError>> {
        let authorities =
            read_file(MaterialFile::Ca, &paths.ca).and_then(|raw| authorities(&raw, &paths.ca, now));
        let chain = read_file(MaterialFile::Certificate, &paths.certificate)
            .and_then(|raw| own_chain(&raw, &paths.certificate, now));
        let key = read_file(MaterialFile::Key, &paths.key).and_then(|raw| private_key(&raw, &paths.key));
        match (authorities, chain, key) {
            (Ok(authorities), Ok(chain), Ok(key)) => {
                Self::assemble(authorities, chain, key, paths).map_err(|error| vec![error])
            }
            (authorities, chain, key) => {
                Err([authorities.err(), chain.err(), key.err()].into_iter().flatten().collect())
            }
        }
    }

    /// Joins the parts; the key must be the certificate's.
    fn assemble(
        (roots, ca_expiry): (RootCertStore, i64),
        (chain, own): (Vec<CertificateDer<'static>>, Facts),
        key: PrivateKeyDer<'static>,
        paths: &MaterialPaths,
    ) -> Result<Self, MaterialError> {
        let provider = rustls::crypto::ring::default_provider();
        let identity = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            let problem = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("must be the key of the certificate {}", paths.certificate.display())
                }
                other => format!("must be an ECDSA, RSA or Ed25519 key ({other})"),
            };
            MaterialError { file: MaterialFile::Key, path: paths.key.clone(), problem }
        })?;
        let mut warnings = Vec::new();
        let certificate = paths.certificate.display();
        if !own.client_auth {
            warnings.push(format!(
                "{certificate}: extendedKeyUsage lacks clientAuth: a peer that requires client certificates will \
                 refuse us; issue it with serverAuth and clientAuth"
            ));
        }
        if !own.server_auth {
            warnings.push(format!(
                "{certificate}: extendedKeyUsage lacks serverAuth: the peer will not connect to us"
            ));
        }
        Ok(Self {
            roots: Arc::new(roots),
            identity: Arc::new(identity),
            certificate_expiry: own.expiry,
            ca_expiry,
            warnings,
        })
    }
}

fn read_file(file: MaterialFile, path: &Path) -> Result<Vec<u8>, MaterialError> {
    std::fs::read(path).map_err(|error| MaterialError {
        file,
        path: path.to_owned(),
        problem: format!("must be a readable PEM file ({error})"),
    })
}

/// The authorities and the end of validity of the one that ends first. An expired one beside a valid one is what a
/// replacement of the authority looks like near its end, so only a file without a valid authority is at fault.
fn authorities(raw: &[u8], path: &Path, now: Wall) -> Result<(RootCertStore, i64), MaterialError> {
    let fault = |problem| MaterialError { file: MaterialFile::Ca, path: path.to_owned(), problem };
    let (mut roots, mut expiry, mut complaint) = (RootCertStore::empty(), i64::MAX, String::new());
    for authority in certificates(raw).map_err(fault)? {
        match facts(&authority, now) {
            Ok(facts) => {
                expiry = expiry.min(facts.expiry);
                roots
                    .add(authority)
                    .map_err(|error| fault(format!("holds an unusable authority ({error})")))?;
            }
            Err(problem) => complaint = problem,
        }
    }
    if roots.is_empty() { Err(fault(complaint)) } else { Ok((roots, expiry)) }
}

/// Our certificate with its intermediates, and what it says about itself.
fn own_chain(
    raw: &[u8],
    path: &Path,
    now: Wall,
) -> Result<(Vec<CertificateDer<'static>>, Facts), MaterialError> {
    let fault = |problem| MaterialError { file: MaterialFile::Certificate, path: path.to_owned(), problem };
    let chain = certificates(raw).map_err(fault)?;
    let own = facts(&chain[0], now).map_err(fault)?;
    if !own.server_auth && !own.client_auth {
        let want = "its extendedKeyUsage must hold serverAuth and clientAuth, and holds neither";
        return Err(fault(want.to_owned()));
    }
    Ok((chain, own))
}

fn private_key(raw: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, MaterialError> {
    PrivateKeyDer::from_pem_slice(raw).map_err(|_| MaterialError {
        file: MaterialFile::Key,
        path: path.to_owned(),
        problem: "must hold a private key in PEM form".to_owned(),
    })
}

/// What a certificate says about itself.
struct Facts {
    expiry: i64,
    server_auth: bool,
    client_auth: bool,
}

/// The PEM certificates of a file, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("must hold certificates in PEM form ({error})"))?;
    if found.is_empty() {
        return Err("must hold at least one certificate in PEM form".to_owned());
    }
    Ok(found)
}

/// Reads validity and purposes; a certificate without extendedKeyUsage serves every purpose (RFC 5280, 4.2.1.12).
fn facts(der: &CertificateDer<'_>, now: Wall) -> Result<Facts, String> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| format!("holds a malformed certificate ({error})"))?;
    let validity = certificate.validity();
    let now_seconds = (now.0 / 1000) as i64;
    if now_seconds > validity.not_after.timestamp() {
        return Err(format!("must be valid now, and expired on {}", validity.not_after));
    }
    if now_seconds < validity.not_before.timestamp() {
        return Err(format!("must be valid now, and is not before {}", validity.not_before));
    }
    let usage = certificate
        .extended_key_usage()
        .map_err(|error| format!("holds a malformed extendedKeyUsage ({error})"))?
        .map(|extension| (extension.value.any, extension.value.server_auth, extension.value.client_auth));
    let (any, server_auth, client_auth) = usage.unwrap_or((true, true, true));
    Ok(Facts {
        expiry: validity.not_after.timestamp(),
        server_auth: any || server_auth,
        client_auth: any || client_auth,
    })
}
