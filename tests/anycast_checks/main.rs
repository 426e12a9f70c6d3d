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

mod datagram;
mod http;
mod local;
mod tls;

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
