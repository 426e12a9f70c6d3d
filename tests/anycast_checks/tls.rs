//! Certificates and TLS servers.

use super::*;

struct Made {
    folder: tempfile::TempDir,
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
}

/// A certificate valid from `from` to `to` days from now, in a file `cert.pem`.
fn certificate(from_hours: i64, to_hours: i64, name: &str, ca: bool) -> Made {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let at = |hours: i64| {
        let ts = jiff::Timestamp::from_second(now + hours * 3600).unwrap();
        let date = ts.to_zoned(jiff::tz::TimeZone::UTC).date();
        let day = rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8);
        day + Duration::from_secs(u64::try_from((now + hours * 3600).rem_euclid(86_400)).unwrap())
    };
    params.not_before = at(from_hours);
    params.not_after = at(to_hours);
    params.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
    if ca {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    Made {
        folder,
        chain: vec![certificate.der().clone()],
        key: rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

async fn certificate_check(made: &Made, extra: &str) -> Report {
    let path = made.folder.path().join("cert.pem");
    probe("tls_certificate", &format!(r#"{{"local":{{"path":"{}"}}{extra}}}"#, path.display())).await
}

#[tokio::test]
async fn case_29_certificates_are_judged_by_dates_names_and_authority() {
    let good = certificate(-24, 720, "*.example.com", false);
    let report = certificate_check(&good, "").await;
    assert_eq!(report.sample, Sample::Pass, "{}", report.reason);
    let Facts::Certificate { not_after, .. } = report.facts else { panic!() };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((not_after - now - 720 * 3600).abs() < 60);
    for (extra, want) in [
        (r#","dns_names":["www.example.com"]"#, Sample::Pass),
        (r#","dns_names":["www.example.com"],"literal_names":true"#, Sample::Fail),
        (r#","dns_names":["a.b.example.com"]"#, Sample::Fail),
        (r#","ip_addresses":["127.0.0.1"],"common_name":"leaf","issuer":"leaf""#, Sample::Pass),
        (r#","ip_addresses":["127.0.0.2"]"#, Sample::Fail),
        (r#","common_name":"other""#, Sample::Fail),
        (r#","expires_within":"1000h""#, Sample::Fail),
    ] {
        let report = certificate_check(&good, extra).await;
        assert_eq!(report.sample, want, "{extra}: {}", report.reason);
    }
    let expired = certificate_check(&certificate(-24, -1, "a.example", false), "").await;
    assert!(expired.reason.contains("expired 1h"), "{}", expired.reason);
    let early = certificate(2, 24, "a.example", false);
    assert_eq!(certificate_check(&early, "").await.sample, Sample::Fail);
    assert_eq!(certificate_check(&early, r#","ignore_not_before":true"#).await.sample, Sample::Pass);
    let authority = certificate(-24, 24, "a.example", true);
    assert_eq!(certificate_check(&authority, "").await.sample, Sample::Fail);
    assert_eq!(certificate_check(&authority, r#","allow_ca":true"#).await.sample, Sample::Pass);
}

#[tokio::test]
async fn case_30_a_tls_server_that_never_speaks_fails_at_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let spec = format!(r#"{{"remote":{{"host":"{address}","insecure":true}},"timeout":"300ms"}}"#);
    let report = probe("tls_certificate", &spec).await;
    assert_eq!(report.sample, Sample::Fail);
    assert!(report.reason.contains("not done within 300ms"), "{}", report.reason);
}

#[tokio::test]
async fn a_remote_certificate_is_trusted_only_with_its_authority() {
    let made = certificate(-24, 720, "localhost", false);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(made.chain.clone(), made.key.clone_key())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0]).await;
                }
            });
        }
    });
    let timeout = r#""timeout":"20s""#;
    let insecure = format!(r#"{{"target":"localhost","port":{port},"insecure":true,{timeout}}}"#);
    let report = probe("tls", &insecure).await;
    assert_eq!(report.sample, Sample::Pass, "{}", report.reason);
    let strict = format!(r#"{{"target":"localhost","port":{port},{timeout}}}"#);
    assert_eq!(probe("tls", &strict).await.sample, Sample::Fail);
    let path = made.folder.path().join("cert.pem");
    let trusted =
        format!(r#"{{"target":"localhost","port":{port},"cacert":"{}",{timeout}}}"#, path.display());
    let report = probe("tls", &trusted).await;
    assert_eq!(report.sample, Sample::Pass, "{}", report.reason);
    let renewed = format!(
        r#"{{"target":"localhost","port":{port},"insecure":true,"expiration_delay":"1000h",{timeout}}}"#
    );
    assert_eq!(probe("tls", &renewed).await.sample, Sample::Fail);
}
