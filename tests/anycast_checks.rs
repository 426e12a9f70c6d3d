//! Every check kind against a small server of the test's own: pass, fail, unknown, and what happens when nobody answers.

#![allow(clippy::unwrap_used, reason = "a test that panics says what it is about")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use switchover_agent::checks::trust::Trust;
use switchover_agent::checks::{Check, Facts, Report, Sample, build};
use switchover_agent::config::anycast::{ConfiguredCheck, parse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

/// The first check of a service that has this one in the Go predecessor's form.
fn configured(kind: &str, spec: &str) -> ConfiguredCheck {
    let file = format!(
        r#"{{"announcer": {{"router_id": "10.0.0.1", "local_address": "10.0.0.1", "local_asn": 65000,
        "routes": ["192.0.2.1/32"], "peers": [{{"name": "p", "remote_address": "10.0.0.2", "remote_asn": 65001}}]}},
        "services": [{{"name": "s", "check_interval": "1s", "checks": [{{"kind": "{kind}", "spec": {spec}}}]}}],
        "metrics": {{"enabled": false}}}}"#
    );
    parse(&file).unwrap_or_else(|error| panic!("{error}")).services[0].checks[0].clone()
}

fn built(kind: &str, spec: &str) -> Box<dyn Check> {
    build(&configured(kind, spec).spec, &Trust::nobody()).unwrap()
}

async fn probe(kind: &str, spec: &str) -> Report {
    built(kind, spec).probe().await
}

/// An HTTP server that answers each request with the next of these (the last one for ever), and keeps the requests.
async fn http_server(
    answers: Vec<(u16, String)>,
) -> (SocketAddr, Arc<AtomicUsize>, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let (counter, requests) = (Arc::clone(&count), Arc::clone(&seen));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let number = counter.fetch_add(1, Ordering::SeqCst);
            let (status, body) = answers[number.min(answers.len() - 1)].clone();
            let requests = Arc::clone(&requests);
            tokio::spawn(async move {
                let mut text = String::new();
                let mut buffer = [0_u8; 4096];
                while !text.contains("\r\n\r\n")
                    || (text.contains("ontent-length: 4") && !text.ends_with("ping"))
                {
                    let length = stream.read(&mut buffer).await.unwrap();
                    if length == 0 {
                        return;
                    }
                    text.push_str(&String::from_utf8_lossy(&buffer[..length]));
                }
                requests.lock().unwrap().push(text);
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (address, count, seen)
}

fn status(code: u16) -> (u16, String) {
    (code, String::new())
}

#[tokio::test]
async fn case_21_http_passes_on_the_third_try() {
    let (address, count, _) = http_server(vec![status(503), status(503), status(200)]).await;
    let spec =
        format!(r#"{{"url":"http://{address}/","method":"GET","tries":3,"interval":"1ms","timeout":"5s"}}"#);
    assert_eq!(probe("http_2xx", &spec).await, Report::pass());
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn case_22_http_that_always_fails_says_tries_interval_and_status() {
    let (address, count, _) = http_server(vec![status(503)]).await;
    let spec =
        format!(r#"{{"url":"http://{address}/","method":"GET","tries":2,"interval":"1ms","timeout":"5s"}}"#);
    let report = probe("http_2xx", &spec).await;
    assert_eq!(report.sample, Sample::Fail);
    for part in ["2 tries", "1ms", "503"] {
        assert!(report.reason.contains(part), "{}", report.reason);
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn case_23_http_sends_host_agent_method_and_payload() {
    let (address, _, seen) = http_server(vec![status(204)]).await;
    let spec = format!(
        r#"{{"url":"http://{address}/x","method":"POST","headers":{{"Host":"example.com"}},"payload":"ping",
        "tries":1,"interval":"1ms","timeout":"5s"}}"#
    );
    assert_eq!(probe("http_2xx", &spec).await.sample, Sample::Pass);
    let request = seen.lock().unwrap()[0].to_lowercase();
    assert!(request.starts_with("post /x http/1.1"), "{request}");
    assert!(
        request.contains("host: example.com") && !request.contains(&format!("host: {address}")),
        "{request}"
    );
    assert!(request.contains("user-agent: anycastd/1.0 (http_2xx checker)"), "{request}");
    assert!(request.ends_with("ping"), "{request}");
}

#[tokio::test]
async fn http_judges_status_sets_and_body_patterns() {
    let (address, ..) = http_server(vec![(404, "all is well".to_owned())]).await;
    for (extra, want) in [
        (r#""valid_status":[404]"#, Sample::Pass),
        (r#""valid_status":["400-499"],"body_regexp":["is w.ll$","^all"]"#, Sample::Pass),
        (r#""valid_status":[404],"body_regexp":["broken"]"#, Sample::Fail),
        (r#""valid_status":[200]"#, Sample::Fail),
    ] {
        let report = probe("http", &format!(r#"{{"url":"http://{address}/",{extra}}}"#)).await;
        assert_eq!(report.sample, want, "{extra}: {}", report.reason);
    }
}

fn cabourotte_answer(success: bool, age_secs: i64) -> (u16, String) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let stamp = now - age_secs;
    let body = format!(
        r#"{{"name":"dns","summary":"s","success":{success},"healthcheck-timestamp":{stamp},"message":"m","duration":3,"source":"configuration"}}"#
    );
    (200, body)
}

#[tokio::test]
async fn case_10_both_api_paths_of_cabourotte_are_healthy() {
    for known in ["GET /api/v1/result/dns ", "GET /result/dns "] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let mut buffer = [0_u8; 4096];
                let length = stream.read(&mut buffer).await.unwrap();
                let found = String::from_utf8_lossy(&buffer[..length]).starts_with(known);
                let (status, body) = if found { cabourotte_answer(true, 0) } else { (404, "{}".to_owned()) };
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let check = built("cabourotte", &format!(r#"{{"name":"dns","url":"http://{address}"}}"#));
        assert_eq!(check.probe().await, Report::pass(), "{known}");
        let before = requests.load(Ordering::SeqCst);
        assert_eq!(check.probe().await, Report::pass());
        assert_eq!(requests.load(Ordering::SeqCst), before + 1, "the path that answered is remembered");
    }
}

#[tokio::test]
async fn case_11_and_12_cabourotte_errors_are_one_request_and_unhealthy() {
    let (address, count, _) = http_server(vec![status(500)]).await;
    let report = probe("cabourotte", &format!(r#"{{"name":"dns","url":"http://{address}"}}"#)).await;
    assert_eq!((report.sample, count.load(Ordering::SeqCst)), (Sample::Fail, 1));
    assert!(report.reason.contains("status 500"), "{}", report.reason);
    let (address, ..) = http_server(vec![status(404)]).await;
    let report = probe("cabourotte", &format!(r#"{{"name":"dns","url":"http://{address}"}}"#)).await;
    assert_eq!(report.reason, "cabourotte knows no check dns");
    let (address, ..) = http_server(vec![(200, r#"{"success":true}"#.to_owned())]).await;
    let report = probe("cabourotte", &format!(r#"{{"name":"dns","url":"http://{address}"}}"#)).await;
    assert_eq!(report.sample, Sample::Fail, "an answer without its fields is none");
}

#[tokio::test]
async fn case_13_an_old_result_of_cabourotte_is_unhealthy() {
    let (address, ..) = http_server(vec![cabourotte_answer(true, 600)]).await;
    let report = probe("cabourotte", &format!(r#"{{"name":"dns","url":"http://{address}"}}"#)).await;
    assert_eq!(report.sample, Sample::Fail);
    assert!(report.reason.contains("600 s old") || report.reason.contains("601 s old"), "{}", report.reason);
}

#[tokio::test]
async fn case_14_results_that_are_renewed_stay_healthy_whatever_the_clock_says() {
    let answers = [0, 3600, 3599, -3600].into_iter().map(|age| cabourotte_answer(true, age)).collect();
    let (address, ..) = http_server(answers).await;
    let check = built("cabourotte", &format!(r#"{{"name":"dns","url":"http://{address}"}}"#));
    for _ in 0..4 {
        assert_eq!(check.probe().await, Report::pass());
    }
}

/// A DNS server that answers every question with these octets after its header and question, or not at all.
async fn dns_server(rcode: u8, addresses: &'static [[u8; 4]]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0_u8; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut end = 12;
            while buffer[end] != 0 {
                end += usize::from(buffer[end]) + 1;
            }
            let question = &buffer[12..end + 5];
            let is_a = buffer[end + 2] == 1;
            assert!(length > end);
            let records: &[[u8; 4]] = if is_a { addresses } else { &[] };
            let mut answer =
                vec![buffer[0], buffer[1], 0x81, 0x80 | rcode, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
            answer.extend(question);
            for record in records {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
                answer.extend(record);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

fn lookup(name: &str, resolver: SocketAddr, extra: &str) -> String {
    format!(
        r#"{{"query":"{name}","resolver":"{resolver}","tries":3,"interval":"100ms","timeout":"300ms"{extra}}}"#
    )
}

#[tokio::test]
async fn case_24_the_hosts_file_does_not_answer_for_the_server() {
    let server = dns_server(3, &[]).await;
    let report = probe("dns_lookup", &lookup("localhost", server, "")).await;
    assert_eq!(report.sample, Sample::Fail, "{}", report.reason);
    let report = probe("dns_lookup", &lookup("localhost", server, r#","hosts_file":true"#)).await;
    assert_eq!(report.sample, Sample::Pass, "as the predecessor, where asked for: {}", report.reason);
}

#[tokio::test]
async fn case_25_a_silent_dns_server_fails_in_bounded_time() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let check = configured("dns_lookup", &lookup("example.com", silent.local_addr().unwrap(), ""));
    assert!(check.deadline <= Duration::from_millis(1400), "{:?}", check.deadline);
    let began = Instant::now();
    let report = build(&check.spec, &Trust::nobody()).unwrap().probe().await;
    assert_eq!(report.sample, Sample::Fail);
    assert!(report.reason.contains("300ms"), "{}", report.reason);
    assert!(
        began.elapsed() >= Duration::from_millis(1100),
        "three tries and two pauses: {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn dns_judges_values_codes_and_exactness() {
    let server = dns_server(0, &[[192, 0, 2, 1], [192, 0, 2, 2]]).await;
    assert_eq!(probe("dns_lookup", &lookup("example.com", server, "")).await, Report::pass());
    for (extra, want) in [
        (r#""expected_ips":["192.0.2.1"]"#, Sample::Pass),
        (r#""expected_ips":["192.0.2.1"],"exact":true,"type":"A""#, Sample::Fail),
        (r#""expected_ips":["192.0.2.2","192.0.2.1"],"exact":true,"type":"A""#, Sample::Pass),
        (r#""expected_ips":["192.0.2.3"]"#, Sample::Fail),
        (r#""type":"AAAA""#, Sample::Fail),
        (r#""rcode":"NXDOMAIN""#, Sample::Fail),
    ] {
        let report =
            probe("dns", &format!(r#"{{"domain":"example.com","server":"{server}",{extra}}}"#)).await;
        assert_eq!(report.sample, want, "{extra}: {}", report.reason);
    }
    let server = dns_server(3, &[]).await;
    let spec = format!(r#"{{"domain":"example.com","server":"{server}","rcode":"NXDOMAIN"}}"#);
    assert_eq!(probe("dns", &spec).await, Report::pass());
}

#[tokio::test]
async fn case_27_ping_falls_back_to_a_raw_socket_and_says_what_is_missing_otherwise() {
    let check = configured(
        "icmp_ping",
        r#"{"static":{"host":"127.0.0.1"},"tries":5,"interval":"10ms","timeout":"10s"}"#,
    );
    match build(&check.spec, &Trust::nobody()) {
        Ok(check) => {
            let report = check.probe().await;
            assert_eq!(report.sample, Sample::Pass, "{}", report.reason);
            let Facts::Ping(figures) = report.facts else { panic!() };
            assert_eq!((figures.sent, figures.received, figures.duplicates), (5, 5, 0));
            assert!(figures.rtt_secs.is_some());
        }
        Err(error) => assert!(error.to_string().contains("ping_group_range"), "{error}"),
    }
}

/// A TFTP server that sends this file, blocks that `lose` names only when asked for the second time.
async fn tftp_server(file: Vec<u8>, lose: u16) -> SocketAddr {
    let listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0_u8; 600];
        loop {
            let (length, from) = listener.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"\x00\x01/boot.cfg\0octet\0");
            let file = file.clone();
            tokio::spawn(async move {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                let mut lost = lose;
                let mut number: u16 = 1;
                loop {
                    let start = usize::from(number - 1) * 512;
                    let block = &file[start.min(file.len())..(start + 512).min(file.len())];
                    let packet = [&[0, 3], &number.to_be_bytes()[..], block].concat();
                    if lost == number {
                        lost = 0;
                    } else {
                        socket.send_to(&packet, from).await.unwrap();
                    }
                    let mut answer = [0_u8; 600];
                    let (got, _) = socket.recv_from(&mut answer).await.unwrap();
                    if answer[..got] == [&[0, 4], &number.to_be_bytes()[..]].concat() {
                        if block.len() < 512 {
                            return;
                        }
                        number += 1;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn case_28_tftp_checks_the_digest_in_either_case_and_a_dead_server_costs_bounded_time() {
    use sha2::Digest as _;
    let file: Vec<u8> = (0..1300_u32).map(|n| n as u8).collect();
    let digest = hex::encode(sha2::Sha256::digest(&file));
    for (lose, digest, want) in [
        (0, digest.to_uppercase(), Sample::Pass),
        (2, digest.clone(), Sample::Pass),
        (0, "0".repeat(64), Sample::Fail),
    ] {
        let address = tftp_server(file.clone(), lose).await;
        let spec = format!(
            r#"{{"url":"tftp://{address}/boot.cfg","expected_sha256":"{digest}","tries":1,"interval":"1ms","timeout":"4s"}}"#
        );
        let report = probe("tftp_rrq", &spec).await;
        assert_eq!(report.sample, want, "{}", report.reason);
    }
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let spec = format!(
        r#"{{"url":"tftp://{}/x","tries":3,"interval":"10ms","timeout":"300ms"}}"#,
        dead.local_addr().unwrap()
    );
    let began = Instant::now();
    let report = probe("tftp_rrq", &spec).await;
    assert_eq!(report.sample, Sample::Fail);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(
        report.reason.contains("3 tries") && report.reason.contains("no answer within 300ms"),
        "{}",
        report.reason
    );
}

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

#[tokio::test]
async fn case_31_a_time_server_is_judged_by_offset_and_synchronisation() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    let stratum = Arc::new(AtomicUsize::new(2));
    let answered = Arc::clone(&stratum);
    tokio::spawn(async move {
        let mut buffer = [0_u8; 100];
        loop {
            let (_, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut answer = [0_u8; 48];
            (answer[0], answer[1]) = (0x24, answered.load(Ordering::SeqCst) as u8);
            answer[24..32].copy_from_slice(&buffer[40..48]);
            let ahead = std::time::SystemTime::now() + Duration::from_secs(100);
            let secs = ahead.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 2_208_988_800;
            answer[32..36].copy_from_slice(&(secs as u32).to_be_bytes());
            answer[40..44].copy_from_slice(&(secs as u32).to_be_bytes());
            let _ = socket.send_to(&answer, from).await;
        }
    });
    let spec = |threshold: &str, extra: &str| {
        format!(
            r#"{{"server":"{server}","src_addr":"127.0.0.1","offset_threshold":"{threshold}","tries":1,"interval":"1ms","timeout":"10s"{extra}}}"#
        )
    };
    let far = probe("ntpq", &spec("50s", "")).await;
    assert_eq!(far.sample, Sample::Fail);
    assert!(
        matches!(far.facts, Facts::Ntp { offset_ms, .. } if (offset_ms - 100_000.0).abs() < 10_000.0),
        "{far:?}"
    );
    assert_eq!(probe("ntpq", &spec("200s", "")).await.sample, Sample::Pass);
    stratum.store(16, Ordering::SeqCst);
    assert_eq!(probe("ntpq", &spec("200s", "")).await.sample, Sample::Fail);
    assert_eq!(probe("ntpq", &spec("200s", r#","allow_unsynchronised":true"#)).await.sample, Sample::Pass);
}

#[tokio::test]
async fn tcp_connects_or_must_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (target, extra, want) in [
        (open, "", Sample::Pass),
        (open, r#","should_fail":true"#, Sample::Fail),
        (closed, "", Sample::Fail),
        (closed, r#","should_fail":true"#, Sample::Pass),
        (open, r#","source_ip":"127.0.0.9""#, Sample::Pass),
    ] {
        let report = probe("tcp", &format!(r#"{{"target":"{target}"{extra}}}"#)).await;
        assert_eq!(report.sample, want, "{target}{extra}: {}", report.reason);
    }
}

#[tokio::test]
async fn a_held_connection_tells_its_end_and_the_failure_is_believed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let check = built("tcp", &format!(r#"{{"target":"{address}","hold":true}}"#));
    assert_eq!(check.probe().await, Report::pass());
    let (stream, _) = listener.accept().await.unwrap();
    drop((stream, listener));
    let event = tokio::time::timeout(Duration::from_secs(20), check.event().unwrap()).await.unwrap();
    assert!(event.contains("connection"), "{event}");
    let report = check.probe().await;
    assert_eq!((report.sample, report.decisive), (Sample::Fail, true));
}

#[tokio::test]
async fn a_command_passes_with_zero_and_its_whole_group_dies_at_the_timeout() {
    assert_eq!(probe("command", r#"{"command":"/bin/true"}"#).await, Report::pass());
    let failed =
        probe("command", r#"{"command":"/bin/sh","arguments":["-c","echo broken >&2; exit 3"]}"#).await;
    assert_eq!(failed.sample, Sample::Fail);
    assert!(failed.reason.contains("3") && failed.reason.contains("broken"), "{}", failed.reason);
    let missing = probe("command", r#"{"command":"/no/such/program"}"#).await;
    assert_eq!(missing.sample, Sample::Unknown, "a check that can't be done says nothing");
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
    let spec = format!(r#"{{"command":"/bin/sh","arguments":["-c","{script}"],"timeout":"2s"}}"#);
    let report = probe("command", &spec).await;
    assert!(report.reason.contains("not done within 2s"), "{}", report.reason);
    let pid = std::fs::read_to_string(&pid_file).unwrap().trim().to_owned();
    let dead = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().unwrap().trim().starts_with('Z'),
        Err(_) => true,
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !dead() {
        assert!(Instant::now() < deadline, "the grandchild {pid} lives");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_process_tells_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(&pid_file, child.id().to_string()).unwrap();
    let check = built("process", &format!(r#"{{"pid_file":"{}"}}"#, pid_file.display()));
    assert_eq!(check.probe().await, Report::pass());
    let event = check.event().unwrap();
    tokio::pin!(event);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut event).await;
    assert!(early.is_err(), "the process lives: {early:?}");
    child.kill().unwrap();
    let told = tokio::time::timeout(Duration::from_secs(20), event).await.unwrap();
    assert!(told.contains("has ended"), "{told}");
    let report = check.probe().await;
    assert_eq!((report.sample, report.decisive), (Sample::Fail, true), "{}", report.reason);
    child.wait().unwrap();
    assert_eq!(check.probe().await.sample, Sample::Fail);
    std::fs::write(&pid_file, "none").unwrap();
    assert!(check.probe().await.reason.contains("holds no process number"));
}

#[tokio::test]
async fn a_file_is_there_or_must_not_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let spec = |absent: bool| format!(r#"{{"path":"{}","absent":{absent}}}"#, path.display());
    assert_eq!(probe("file", &spec(false)).await.sample, Sample::Fail);
    assert_eq!(probe("file", &spec(true)).await.sample, Sample::Pass);
    std::fs::write(&path, "").unwrap();
    assert_eq!(probe("file", &spec(false)).await.sample, Sample::Pass);
    assert_eq!(probe("file", &spec(true)).await.sample, Sample::Fail);
}

mod no_answer_breaks_a_reader {
    use hickory_proto::rr::{Name, RecordType};
    use proptest::prelude::*;
    use switchover_agent::checks::{dns, icmp, ntp, tftp};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_octets(mut bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = tftp::read_packet(&bytes);
            let _ = ntp::read_answer(&bytes, 1, 2, 3, false);
            let _ = icmp::read_reply(&bytes, true, true, [0; 8]);
            if bytes.len() > 12 {
                bytes[..4].copy_from_slice(&[0, 7, 0x81, 0x80]);
            }
            let _ = dns::read_answer(&bytes, 7, &Name::from_ascii("a.example.").unwrap(), RecordType::A);
        }
    }
}
