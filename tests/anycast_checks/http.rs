//! HTTP and Cabourotte.

use super::*;

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
        format!(r#"{{"url":"http://{address}/","method":"GET","tries":3,"interval":"2s","timeout":"5s"}}"#);
    let began = Instant::now();
    assert_eq!(probe("http_2xx", &spec).await, Report::pass());
    assert_eq!(count.load(Ordering::SeqCst), 3);
    // Two pauses and not three: none comes after a pass.
    assert!((4.0..6.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
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
