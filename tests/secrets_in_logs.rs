//! Every secret that an agent is given, and everything that it and its libraries say at `trace` through a whole cycle.
//!
//! A file of its own, because the log is one for the process.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot be set up should panic")]

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use switchover_agent::lab::agents::{Lab, LabSettings};
use switchover_agent::lab::cycle;
use switchover_agent::model::Side;
use tracing_subscriber::EnvFilter;

const API_TOKEN: &str = "an-operators-token-7f3a";
const KUBE_TOKEN: &str = "a-service-accounts-token-91bc";
const PASSWORD: &str = "a-databases-password-55de";
const HMAC: &str = "a-pipelines-signature-key-c0ff";

/// All lines of the process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_logged_at_any_level_through_a_whole_cycle() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let log = Log::default();
    let lines = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("trace"))
        .with_ansi(false)
        .with_writer(move || lines.clone())
        .init();
    let mut settings = LabSettings::on_free_ports()
        .with("API_TOKEN", API_TOKEN)
        .with("KUBE_API_TOKEN", KUBE_TOKEN)
        .with("PATRONI_USERNAME", "agent")
        .with("PATRONI_PASSWORD", PASSWORD);
    settings.world.api_token = Some(KUBE_TOKEN.to_owned());
    settings.world.patroni_basic = Some(("agent".to_owned(), PASSWORD.to_owned()));
    settings.world.hmac_secret = Some(HMAC.to_owned());
    let lab = Lab::start(settings).await.unwrap();
    cycle::run(&lab, |_| ()).await.unwrap();
    let client = reqwest::Client::new();
    let url = format!("http://{}/acknowledge", lab.agent(Side::Active).http);
    for (token, known) in [(API_TOKEN, true), ("a-wrong-token-aa11", false)] {
        let answer = client.post(&url).bearer_auth(token).send().await.unwrap();
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status());
        assert_eq!(refused, !known, "{token}: {}", answer.status());
    }
    lab.stop().await;
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    for said in ["TRACE", "DEBUG", "golddr-primary", "promote-database", "hyper"] {
        assert!(text.contains(said), "the log of {} bytes does not have {said:?}", text.len());
    }
    let basic = STANDARD.encode(format!("agent:{PASSWORD}"));
    for secret in [API_TOKEN, KUBE_TOKEN, PASSWORD, HMAC, "a-wrong-token-aa11", &basic] {
        let told: Vec<&str> = text.lines().filter(|line| line.contains(secret)).take(3).collect();
        assert!(told.is_empty(), "{secret} is in the log: {told:#?}");
    }
}
