//! Judging a certificate, and `tls_certificate` of a local file.
//!
//! Owns: validity, names, addresses, issuer. Never: decides trust in a chain (that is the handshake's business).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

use super::{Boxed, Check, Facts, Report, trust};

/// What a certificate must be like. Empty fields demand nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expect {
    /// PEM file; empty for a remote certificate.
    pub path: PathBuf,
    /// Common name of the subject.
    pub common_name: Option<String>,
    /// DNS names that the certificate must cover.
    pub dns_names: Vec<String>,
    /// Addresses that the certificate must name.
    pub ip_addresses: Vec<IpAddr>,
    /// Common name of the issuer.
    pub issuer: Option<String>,
    /// Fails when it expires within this many seconds.
    pub expires_within_secs: i64,
    /// Accepts a certificate that is not valid yet (the Go predecessor never looked).
    pub ignore_not_before: bool,
    /// Accepts a chain that holds nothing but certificate authorities, and judges its first certificate.
    pub allow_ca: bool,
    /// DNS names must stand literally in the certificate; wildcards don't cover them (as the Go predecessor has it).
    pub literal_names: bool,
}

/// Judges the first certificate of the chain that is not an authority's, at `now` (seconds since 1970).
/// Returns NotAfter where there is a certificate to judge, and the verdict.
pub fn judge(chain: &[impl AsRef<[u8]>], expect: &Expect, now: i64) -> (Option<i64>, Result<(), String>) {
    let mut parsed = Vec::new();
    for der in chain {
        match X509Certificate::from_der(der.as_ref()) {
            Ok((_, certificate)) => parsed.push(certificate),
            Err(error) => return (None, Err(format!("a certificate is malformed: {error}"))),
        }
    }
    let leaf = parsed.iter().find(|certificate| !certificate.is_ca());
    let Some(leaf) = leaf.or_else(|| parsed.first().filter(|_| expect.allow_ca)) else {
        let why =
            if parsed.is_empty() { "there is no certificate" } else { "only certificates of authorities" };
        return (None, Err(why.to_owned()));
    };
    let not_after = leaf.validity().not_after.timestamp();
    (Some(not_after), judge_one(leaf, expect, now))
}

fn judge_one(leaf: &X509Certificate<'_>, expect: &Expect, now: i64) -> Result<(), String> {
    let left = leaf.validity().not_after.timestamp() - now;
    let from = leaf.validity().not_before.timestamp() - now;
    if left <= -1 {
        return Err(format!("expired {} ago", span(-left)));
    }
    if left < expect.expires_within_secs {
        return Err(format!("expires in {}", span(left)));
    }
    if from > 0 && !expect.ignore_not_before {
        return Err(format!("not valid for another {}", span(from)));
    }
    if let Some(wanted) = &expect.common_name
        && common_name(leaf.subject()) != Some(wanted)
    {
        return Err(format!("subject is {:?}, not {wanted:?}", common_name(leaf.subject()).unwrap_or("")));
    }
    let (names, addresses) = alternative_names(leaf);
    for wanted in &expect.dns_names {
        let literal = names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
        if !literal && (expect.literal_names || !names.iter().any(|name| covers(name, wanted))) {
            return Err(format!("does not cover {wanted:?}, only {names:?}"));
        }
    }
    for wanted in &expect.ip_addresses {
        if !addresses.contains(wanted) {
            return Err(format!("does not name {wanted}, only {addresses:?}"));
        }
    }
    if let Some(wanted) = &expect.issuer
        && common_name(leaf.issuer()) != Some(wanted)
    {
        return Err(format!("issued by {:?}, not {wanted:?}", common_name(leaf.issuer()).unwrap_or("")));
    }
    Ok(())
}

fn span(seconds: i64) -> String {
    let whole = std::time::Duration::from_secs(seconds.unsigned_abs());
    humantime::format_duration(whole).to_string()
}

fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    name.iter_common_name().next().and_then(|attribute| attribute.as_str().ok())
}

fn alternative_names(leaf: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    if let Ok(Some(extension)) = leaf.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(text) => names.push((*text).to_owned()),
                GeneralName::IPAddress(octets) => {
                    let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
                    addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from)));
                }
                _ => {}
            }
        }
    }
    (names, addresses)
}

/// Whether a wildcard pattern covers a name (RFC 6125 §6.4.3): `*` stands for exactly the left-most label.
fn covers(pattern: &str, name: &str) -> bool {
    let Some(parent) = pattern.strip_prefix("*.") else { return false };
    let Some((label, rest)) = name.trim_end_matches('.').split_once('.') else { return false };
    !label.is_empty() && rest.contains('.') && rest.eq_ignore_ascii_case(parent)
}

/// Seconds since 1970.
pub(super) fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// The check of a local file.
#[derive(Debug)]
pub struct CertificateCheck {
    expect: Expect,
}

impl CertificateCheck {
    /// A check of the file.
    pub fn new(expect: Expect) -> Self {
        Self { expect }
    }

    fn look(&self) -> Report {
        let chain = match trust::read_certificates(&self.expect.path) {
            Ok(chain) => chain,
            Err(error) => return Report::fail(error.to_string()),
        };
        let (not_after, verdict) = judge(&chain, &self.expect, unix_now());
        let path = self.expect.path.display().to_string();
        let report = Report::from(verdict.map_err(|why| format!("{path}: {why}")));
        match not_after {
            Some(not_after) => report.with(Facts::Certificate { path, host: String::new(), not_after }),
            None => report,
        }
    }
}

impl Check for CertificateCheck {
    fn probe(&self) -> Boxed<'_, Report> {
        Box::pin(async { self.look() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label_and_no_top_level_domain() {
        assert!(covers("*.example.com", "www.example.com"));
        assert!(covers("*.Example.com", "WWW.example.COM."));
        assert!(!covers("*.example.com", "a.b.example.com"));
        assert!(!covers("*.example.com", "example.com"));
        assert!(!covers("*.com", "example.com"));
        assert!(!covers("w*.example.com", "www.example.com"));
    }
}
