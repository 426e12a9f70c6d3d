//! DNS, ICMP, TFTP and NTP.

use super::*;

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
    assert!(check.deadline <= Duration::from_millis(1300), "{:?}", check.deadline);
    let mut taken = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let report = build(&check.spec, &Trust::nobody()).unwrap().probe().await;
        assert_eq!(report.sample, Sample::Fail);
        assert!(report.reason.contains("300ms"), "{}", report.reason);
        taken.push(began.elapsed());
        assert!(began.elapsed() >= Duration::from_millis(1100), "three tries and two pauses: {taken:?}");
        // A busy machine may wake us late, but not every time.
        if began.elapsed() <= Duration::from_millis(1300) {
            return;
        }
    }
    panic!("never within 1.3 s: {taken:?}");
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
        r#"{{"url":"tftp://{}/x","tries":3,"interval":"10ms","timeout":"1s"}}"#,
        dead.local_addr().unwrap()
    );
    let began = Instant::now();
    let report = probe("tftp_rrq", &spec).await;
    assert_eq!(report.sample, Sample::Fail);
    // The predecessor sends each datagram six times: 27 s.
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    // Without its own limits the scheduler's would end it, a moment later than the time that a whole transfer may take.
    let check = configured("tftp_rrq", &spec.replace("\"timeout\"", "\"transfer_limit\":\"2s\",\"timeout\""));
    assert!(check.deadline <= Duration::from_secs(7), "{:?}", check.deadline);
    assert!(
        report.reason.contains("3 tries") && report.reason.contains("no answer within 1s"),
        "{}",
        report.reason
    );
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
