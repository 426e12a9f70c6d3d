//! The simulated sites of the lab: as strict as real ones, and breakable on request.

#![allow(clippy::unwrap_used)] // a helper that fails here is a failed test

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use switchover_agent::lab::{Delays, SiteHandle, World, WorldSettings};
use switchover_agent::model::Side;
use tokio::net::TcpListener;

#[path = "lab_site/breakage.rs"]
mod breakage;
#[path = "lab_site/control.rs"]
mod control;
#[path = "lab_site/database.rs"]
mod database;
#[path = "lab_site/kube_api.rs"]
mod kube_api;

const RECORD: &str = "/k8s/api/v1/namespaces/health-dev/configmaps/switchover-state-dev";
const DATABASE: &str = "/k8s/apis/apps/v1/namespaces/sso-dev/statefulsets/patroni-spilo";
const CLAIMS: &str = "/k8s/api/v1/namespaces/sso-dev/persistentvolumeclaims";

struct Lab {
    world: World,
    gold: SiteHandle,
    golddr: SiteHandle,
    http: reqwest::Client,
}

fn quick() -> WorldSettings {
    let delays = Delays {
        controller_ms: 5,
        pod_start_ms: 10,
        pod_stop_ms: 30,
        clone_ms: 10,
        promote_ms: 60,
        demote_ms: 30,
        follow_ms: 20,
        rewind_ms: 20,
        run_start_ms: 10,
        run_ms: 30,
    };
    WorldSettings { delays, ..WorldSettings::default() }
}

async fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

impl Lab {
    async fn start(settings: WorldSettings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let world = World::new(settings);
        let gold = world.serve(Side::Active, loopback().await).unwrap();
        let golddr = world.serve(Side::Passive, loopback().await).unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { world, gold, golddr, http }
    }

    fn url(&self, side: Side, path: &str) -> String {
        let site = if side == Side::Active { &self.gold } else { &self.golddr };
        format!("{}{path}", site.url())
    }

    async fn get(&self, side: Side, path: &str) -> (StatusCode, Value) {
        read(self.http.get(self.url(side, path)).send().await.unwrap()).await
    }

    async fn put(&self, side: Side, path: &str) -> StatusCode {
        self.http.put(self.url(side, path)).send().await.unwrap().status()
    }

    async fn delete(&self, side: Side, path: &str) -> (StatusCode, Value) {
        read(self.http.delete(self.url(side, path)).send().await.unwrap()).await
    }

    async fn patch(&self, side: Side, path: &str, kind: &str, body: &str) -> (StatusCode, Value) {
        let request =
            self.http.patch(self.url(side, path)).header("content-type", kind).body(body.to_owned());
        read(request.send().await.unwrap()).await
    }

    async fn merge(&self, side: Side, path: &str, body: Value) -> (StatusCode, Value) {
        self.patch(side, path, "application/merge-patch+json", &body.to_string()).await
    }

    async fn trigger(&self, side: Side) -> Value {
        let request = self.http.post(self.url(side, "/tekton")).header("X-GitHub-Event", "push").body("{}");
        let (status, body) = read(request.send().await.unwrap()).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        body
    }

    fn kube(&self, side: Side) -> kube::Client {
        let uri = self.url(side, "/k8s").parse().unwrap();
        let mut config = kube::Config::new(uri);
        config.default_retry = false;
        kube::Client::try_from(config).unwrap()
    }

    async fn until(
        &self,
        side: Side,
        path: &str,
        what: &str,
        good: impl Fn(StatusCode, &Value) -> bool,
    ) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            // Where no database pod listens the connection itself fails; the wait goes on.
            let (status, body) = match self.http.get(self.url(side, path)).send().await {
                Ok(response) => read(response).await,
                Err(error) => (StatusCode::BAD_GATEWAY, json!(error.to_string())),
            };
            if good(status, &body) {
                return body;
            }
            assert!(Instant::now() < end, "{what}: still {status} {body}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn read(response: reqwest::Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn eventually(what: &str, good: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !good() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
