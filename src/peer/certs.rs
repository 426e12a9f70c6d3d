//! Development certificates: an authority and one certificate per site, for the `certs` command, the lab and tests.
//!
//! Keys are ECDSA P-256, made on the spot. Not for production: the authority's key lies beside the certificates.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Why no certificates were made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// Files are there already; nothing was written.
    #[error("{} exists already: nothing was written", .0.display())]
    Exists(PathBuf),
    /// A file could not be written.
    #[error("cannot write {}: {why}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// A name that no certificate can carry.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate and its key in PEM form.
#[derive(Clone)]
pub struct PemPair {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: String,
}

/// TLS roles that a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// serverAuth and clientAuth: what the peer link needs.
    Both,
    /// serverAuth alone, as the predecessor's recipe makes them.
    ServerOnly,
}

/// What to certify.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Common name.
    pub name: String,
    /// DNS names and addresses.
    pub sans: Vec<String>,
    /// TLS roles.
    pub purpose: Purpose,
    /// Begin of validity.
    pub from: SystemTime,
    /// End of validity.
    pub until: SystemTime,
}

impl Leaf {
    /// A certificate for both roles that is valid for some days from an hour ago (clocks differ).
    pub fn new(name: &str, sans: &[String], days: u32) -> Self {
        let now = SystemTime::now();
        Self {
            name: name.to_owned(),
            sans: sans.to_vec(),
            purpose: Purpose::Both,
            from: now - Duration::from_secs(3600),
            until: now + DAY * days,
        }
    }

    /// The same for serverAuth alone.
    pub fn server_only(mut self) -> Self {
        self.purpose = Purpose::ServerOnly;
        self
    }

    /// The same, but expired a minute ago.
    pub fn expired(mut self) -> Self {
        self.from = SystemTime::now() - DAY;
        self.until = SystemTime::now() - Duration::from_secs(60);
        self
    }
}

/// An authority that lives in memory.
pub struct DevCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl DevCa {
    /// A new authority.
    ///
    /// # Errors
    /// [`CertsError::Make`].
    pub fn new(name: &str, days: u32) -> Result<Self, CertsError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = (SystemTime::now() + DAY * days).into();
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's certificate and key.
    pub fn pem(&self) -> PemPair {
        PemPair { certificate: self.issuer.pem(), key: self.issuer.key().serialize_pem() }
    }

    /// Certifies a fresh key.
    ///
    /// # Errors
    /// [`CertsError::Make`] where a name is unusable.
    pub fn issue(&self, leaf: &Leaf) -> Result<PemPair, CertsError> {
        let mut params = CertificateParams::new(leaf.sans.clone())?;
        params.distinguished_name.push(DnType::CommonName, leaf.name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match leaf.purpose {
            Purpose::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::ServerOnly => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        params.use_authority_key_identifier_extension = true;
        params.not_before = leaf.from.into();
        params.not_after = leaf.until.into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(PemPair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Names and addresses under which a site's agent is dialled on a developer's machine: the site's name, the usual
/// names of its container, loopback.
pub fn development_sans(site: &str) -> Vec<String> {
    let names = [site, &format!("agent-{site}"), &format!("switchover-agent-{site}"), "localhost"];
    names.iter().chain(&["127.0.0.1", "::1"]).map(|name| (*name).to_owned()).collect()
}

/// Certificates that were never written anywhere.
pub struct InMemory {
    /// The authority's certificate and key.
    pub ca: PemPair,
    /// One pair per site, in the order asked for.
    pub sites: Vec<PemPair>,
}

/// An authority and one certificate per site, in memory.
///
/// # Errors
/// [`CertsError::Make`].
pub fn in_memory(sites: &[(&str, Vec<String>)], days: u32) -> Result<InMemory, CertsError> {
    let ca = DevCa::new("switchover-agent development CA", days)?;
    let issued = sites.iter().map(|(name, sans)| ca.issue(&Leaf::new(name, sans, days)));
    let sites = issued.collect::<Result<_, _>>()?;
    Ok(InMemory { ca: ca.pem(), sites })
}

/// Writes `ca.crt`, `ca.key` and per site `NAME.crt`, `NAME.key` (keys readable by the owner alone) and names the
/// files written.
///
/// # Errors
/// [`CertsError::Exists`] where one of the files is there and `overwrite` is off (nothing is written then),
/// [`CertsError::Write`], [`CertsError::Make`].
pub fn write_dev_certs(
    dir: &Path,
    sites: &[(&str, Vec<String>)],
    days: u32,
    overwrite: bool,
) -> Result<Vec<PathBuf>, CertsError> {
    let made = in_memory(sites, days)?;
    let mut files = vec![("ca".to_owned(), &made.ca)];
    files.extend(sites.iter().zip(&made.sites).map(|((name, _), pair)| ((*name).to_owned(), pair)));
    let mut contents = Vec::new();
    for (name, pair) in files {
        contents.push((dir.join(format!("{name}.crt")), &pair.certificate, 0o644));
        contents.push((dir.join(format!("{name}.key")), &pair.key, 0o600));
    }
    if let Some((path, ..)) = contents.iter().find(|(path, ..)| !overwrite && path.exists()) {
        return Err(CertsError::Exists(path.clone()));
    }
    std::fs::create_dir_all(dir).map_err(|why| CertsError::Write { path: dir.to_owned(), why })?;
    let mut written = Vec::new();
    for (path, text, mode) in contents {
        write_file(&path, text, mode).map_err(|why| CertsError::Write { path: path.clone(), why })?;
        written.push(path);
    }
    Ok(written)
}

/// Writes beside the file and renames, so that a reader never sees half of it.
fn write_file(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    std::fs::remove_file(&draft).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sites() -> Vec<(&'static str, Vec<String>)> {
        vec![("gold", vec!["gold".to_owned(), "127.0.0.1".to_owned()]), ("golddr", vec!["golddr".to_owned()])]
    }

    #[test]
    fn keys_are_for_the_owner_alone_and_files_are_not_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let written = write_dev_certs(dir.path(), &sites(), 30, false).unwrap();
        assert_eq!(written.len(), 6);
        for path in &written {
            let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            let key = path.extension().is_some_and(|extension| extension == "key");
            assert_eq!(mode, if key { 0o600 } else { 0o644 }, "{}", path.display());
        }
        let before = std::fs::read(dir.path().join("gold.crt")).unwrap();
        assert!(matches!(write_dev_certs(dir.path(), &sites(), 30, false), Err(CertsError::Exists(_))));
        assert_eq!(std::fs::read(dir.path().join("gold.crt")).unwrap(), before);
        write_dev_certs(dir.path(), &sites(), 30, true).unwrap();
        assert_ne!(std::fs::read(dir.path().join("gold.crt")).unwrap(), before);
    }
}
