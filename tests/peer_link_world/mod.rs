//! Harness of the peer link's tests: certificates in a directory, one running end of our link, a freezable cable.

#![allow(clippy::unwrap_used, reason = "a test helper")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use switchover_agent::bus::Bus;
use switchover_agent::config::Reader;
use switchover_agent::config::peer::PeerSettings;
use switchover_agent::model::{Event, OutboxId, PeerStatus, Wall};
use switchover_agent::peer::certs::{DevCa, Leaf, PemPair};
use switchover_agent::peer::{Courier, PeerShared, new_instance};
use switchover_agent::tasks::{Ctx, Exit, peer_client, peer_client_fwd, peer_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::predecessor::Credentials;

/// Nothing here takes this long unless it is broken.
pub const LAST_RESORT: Duration = Duration::from_secs(40);

/// Polls until the condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LAST_RESORT, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn now() -> Wall {
    Wall(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// Two sites' certificates under one authority.
pub struct Pki {
    pub ca: DevCa,
    pub dir: tempfile::TempDir,
}

pub fn sans(site: &str) -> Vec<String> {
    vec![format!("{site}.test"), "127.0.0.1".to_owned()]
}

impl Pki {
    pub fn new() -> Self {
        let pki = Self { ca: DevCa::new("test CA", 2).unwrap(), dir: tempfile::tempdir().unwrap() };
        std::fs::write(pki.path("ca.crt"), pki.ca.pem().certificate).unwrap();
        for site in ["gold", "golddr"] {
            pki.write(site, &pki.issue(&Leaf::new(site, &sans(site), 1)));
        }
        pki
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub fn issue(&self, leaf: &Leaf) -> PemPair {
        self.ca.issue(leaf).unwrap()
    }

    /// Puts a pair in place, each file at once as `mv` does.
    pub fn write(&self, site: &str, pair: &PemPair) {
        for (ending, text) in [("key", &pair.key), ("crt", &pair.certificate)] {
            let draft = self.path(&format!("{site}.{ending}.new"));
            std::fs::write(&draft, text).unwrap();
            std::fs::rename(draft, self.path(&format!("{site}.{ending}"))).unwrap();
        }
    }

    /// What a client or stand-in shows.
    pub fn credentials(&self, own: Option<PemPair>) -> Credentials {
        Credentials {
            ca: self.ca.pem().certificate,
            own: own.map(|pair| (pair.certificate, pair.key)),
            only_tls12: false,
        }
    }

    /// The credentials of a predecessor: serverAuth alone.
    pub fn old_credentials(&self, site: &str) -> Credentials {
        self.credentials(Some(self.issue(&Leaf::new(site, &sans(site), 1).server_only())))
    }
}

pub async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// One end of our link; it stops when dropped.
pub struct End {
    pub registry: Arc<prometheus::Registry>,
    pub events: Arc<Mutex<Vec<(Instant, Event)>>>,
    pub courier: Courier,
    pub status: watch::Sender<PeerStatus>,
    pub handled: watch::Sender<BTreeMap<String, OutboxId>>,
    pub instance: String,
    pub cancel: CancellationToken,
    pub tasks: Vec<JoinHandle<Exit>>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl End {
    /// Starts the server on `listener` and, where `peer` is given, both clients towards it.
    pub fn start(
        files: &Path,
        site: &str,
        listener: TcpListener,
        peer: Option<SocketAddr>,
        extra: &[(&str, &str)],
    ) -> Self {
        let other = if site == "gold" { "golddr.test" } else { "gold.test" };
        let file = |name: String| files.join(name).display().to_string();
        let port = peer.map_or(9, |peer| peer.port()).to_string();
        let mut env: BTreeMap<String, String> = [
            ("TLS_CA", file("ca.crt".to_owned())),
            ("TLS_LOCAL_CRT", file(format!("{site}.crt"))),
            ("TLS_LOCAL_KEY", file(format!("{site}.key"))),
            ("PEER_HOST", "127.0.0.1".to_owned()),
            ("PEER_PORT", port),
            ("PEER_SAN", other.to_owned()),
            ("PEER_PING_SECONDS", "0.1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        env.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut reader = Reader::new(&env);
        let settings = Arc::new(PeerSettings::read(&mut reader, true, now()));
        assert_eq!(reader.into_problems(), []);

        let (bus, mut queue) = Bus::new();
        let registry = Arc::new(prometheus::Registry::new());
        let ctx = Ctx { cancel: CancellationToken::new(), bus, registry: registry.clone() };
        let instance = new_instance();
        let (status, statuses) = watch::channel(PeerStatus {
            instance: instance.clone(),
            site: site.to_owned(),
            ..Default::default()
        });
        let (handled, numbers) = watch::channel(BTreeMap::new());
        let shared = PeerShared::new(&settings, &registry, instance.clone(), statuses, numbers).unwrap();
        let (courier, deliveries) = Courier::new(settings.forward_ms);

        let mut tasks =
            vec![tokio::spawn(peer_server::serve(ctx.clone(), listener, settings.clone(), shared.clone()))];
        if peer.is_some() {
            tasks.push(tokio::spawn(peer_client::run(ctx.clone(), settings.clone(), shared.clone())));
            tasks.push(tokio::spawn(peer_client_fwd::run(ctx.clone(), settings, shared, deliveries)));
        }
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = events.clone();
        tokio::spawn(async move {
            while let Some(event) = queue.recv().await {
                seen.lock().unwrap().push((Instant::now(), event));
            }
        });
        Self { registry, events, courier, status, handled, instance, cancel: ctx.cancel, tasks }
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }

    /// Changes of the link, in order.
    pub fn link(&self) -> Vec<bool> {
        let links = self.events().into_iter();
        links
            .filter_map(|event| if let Event::PeerLink { up, .. } = event { Some(up) } else { None })
            .collect()
    }

    pub fn messages(&self) -> Vec<Event> {
        self.events().into_iter().filter(|event| matches!(event, Event::PeerMessage { .. })).collect()
    }

    pub fn statuses(&self) -> Vec<PeerStatus> {
        let events = self.events().into_iter();
        events.filter_map(|event| if let Event::PeerStatus(s) = event { Some(s) } else { None }).collect()
    }

    /// A counter's value; the labels in the order of their names.
    pub fn count(&self, name: &str, labels: &[&str]) -> u64 {
        let families = self.registry.gather();
        let series = families.iter().filter(|family| family.name() == name).flat_map(|f| f.get_metric());
        series
            .filter(|metric| metric.get_label().iter().map(|label| label.value()).eq(labels.iter().copied()))
            .map(|metric| metric.get_counter().get_value() as u64)
            .sum()
    }

    /// A gauge's value; its label ends as told.
    pub fn gauge(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let mut series = families.iter().filter(|family| family.name() == name).flat_map(|f| f.get_metric());
        let found = series.find(|metric| metric.get_label()[0].value().ends_with(label));
        found.unwrap().get_gauge().get_value()
    }

    pub fn refused(&self, reason: &str) -> u64 {
        self.count("switchover_peer_refused_handshakes_total", &[reason])
    }
}

/// A cable between two ends that can be frozen (packets vanish, nothing is reset) and thawed.
pub struct Cable {
    pub address: SocketAddr,
    frozen: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cable {
    pub async fn to(target: SocketAddr) -> Self {
        let entrance = listener().await;
        let address = entrance.local_addr().unwrap();
        let (frozen, state) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut lines = tokio::task::JoinSet::new();
            loop {
                let Ok((near, _)) = entrance.accept().await else { continue };
                let state = state.clone();
                lines.spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(carry(near_in, far_out, state.clone()), carry(far_in, near_out, state));
                });
            }
        });
        Self { address, frozen, task }
    }

    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = [0; 8192];
    while let Ok(read) = from.read(&mut buffer).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err() || read == 0 {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
