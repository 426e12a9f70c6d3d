//! Certificates that change under a running agent.
//!
//! Owns the current TLS configurations and swaps them when the files change (the directories are watched, which sees
//! the symlink swap of a mounted Secret, and everything is looked at every 60 s besides). A broken new file leaves
//! the old configuration in force. Never touches a connection: sessions watch [`PeerTls::generation`] and close
//! themselves when it moves.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use notify::{RecursiveMode, Watcher};
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::material::{Material, MaterialError, MaterialFile, MaterialPaths, RawMaterial};
use super::metrics::PeerMetrics;
use super::tls::{self, TlsRules};
use crate::config::peer::PeerSettings;
use crate::model::Wall;

/// Look at the files this often even where no notification came (network file systems give none).
const POLL: Duration = Duration::from_secs(60);

/// A certificate and its key are two writes; look at them when the burst is over.
const SETTLE: Duration = Duration::from_millis(200);

struct Current {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The TLS side of one agent's peer link.
pub struct PeerTls {
    paths: MaterialPaths,
    rules: TlsRules,
    metrics: PeerMetrics,
    current: ArcSwap<Current>,
    generation: watch::Sender<u64>,
    watcher: Mutex<Seen>,
}

/// File contents that were looked at, by whoever holds the watcher's lock.
struct Seen {
    loaded: RawMaterial,
    complaint: Option<String>,
}

impl PeerTls {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`MaterialError`] where a file is missing or unusable.
    pub fn load(settings: &PeerSettings, metrics: PeerMetrics) -> Result<Self, MaterialError> {
        let (paths, rules) = (settings.files.clone(), settings.tls_rules());
        let raw = RawMaterial::read(&paths)?;
        let current = build(&raw, &paths, &rules, &metrics)?;
        Ok(Self {
            paths,
            rules,
            metrics,
            current: ArcSwap::from_pointee(current),
            generation: watch::Sender::new(0),
            watcher: Mutex::new(Seen { loaded: raw, complaint: None }),
        })
    }

    /// The listener's configuration of the moment.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// The outgoing configuration of the moment.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current.load().client.clone()
    }

    /// Moves each time the certificates were replaced; connections made before must then end.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Follows the files until cancelled. Every peer task calls it; one of them watches, the others wait to take
    /// over should that task end.
    pub async fn keep_fresh(&self, cancel: &CancellationToken) {
        let mut seen = tokio::select! {
            seen = self.watcher.lock() => seen,
            () = cancel.cancelled() => return,
        };
        let (changed, mut changes) = mpsc::channel::<()>(1);
        // A full channel means that a look is already due.
        let watcher = notify::recommended_watcher(move |_| {
            let _ = changed.try_send(());
        });
        let mut watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "certificate files are polled only: no file notifications");
                None
            }
        };
        if let Some(watcher) = &mut watcher {
            for directory in self.directories() {
                if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
                    tracing::warn!(%error, directory = %directory.display(), "certificate directory is polled only");
                }
            }
        }
        loop {
            self.look(&mut seen);
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(()) = changes.recv() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(POLL) => {}
            }
            while changes.try_recv().is_ok() {}
        }
    }

    /// The directories of the files, and of what they point to where they are symlinks.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for (_, path) in self.paths.each() {
            for file in [Some(path.to_owned()), std::fs::canonicalize(path).ok()].into_iter().flatten() {
                let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
                found.insert(parent.map_or_else(|| PathBuf::from("."), PathBuf::from));
            }
        }
        found
    }

    /// Swaps the configurations where the files have changed and are good.
    fn look(&self, seen: &mut Seen) {
        let outcome = RawMaterial::read(&self.paths).and_then(|raw| {
            if raw == seen.loaded {
                return Ok(None);
            }
            build(&raw, &self.paths, &self.rules, &self.metrics).map(|current| Some((raw, current)))
        });
        match outcome {
            Ok(None) => seen.complaint = None,
            Ok(Some((raw, current))) => {
                self.current.store(Arc::new(current));
                (seen.loaded, seen.complaint) = (raw, None);
                self.generation.send_modify(|generation| *generation += 1);
                self.metrics.reloads.with_label_values(&["loaded"]).inc();
                tracing::info!("peer link: certificates were replaced, connections are made anew");
            }
            Err(error) => {
                let text = error.to_string();
                if seen.complaint.as_ref() != Some(&text) {
                    self.metrics.reloads.with_label_values(&["refused"]).inc();
                    tracing::error!(error = %text, "peer link: new certificate files are unusable, the old ones stay");
                    seen.complaint = Some(text);
                }
            }
        }
    }
}

/// Parses, judges and publishes the end of validity.
fn build(
    raw: &RawMaterial,
    paths: &MaterialPaths,
    rules: &TlsRules,
    metrics: &PeerMetrics,
) -> Result<Current, MaterialError> {
    let material = Material::parse(raw, paths, wall_now())?;
    let fault = |error: rustls::Error| MaterialError {
        file: MaterialFile::Certificate,
        path: paths.certificate.clone(),
        problem: error.to_string(),
    };
    let current = Current {
        server: Arc::new(tls::server_config(&material, rules).map_err(fault)?),
        client: Arc::new(tls::client_config(&material, rules).map_err(fault)?),
    };
    for (path, expiry) in [(&paths.ca, material.ca_expiry), (&paths.certificate, material.certificate_expiry)]
    {
        metrics.expiry.with_label_values(&[&path.display().to_string()]).set(expiry as f64);
    }
    for warning in &material.warnings {
        tracing::warn!("{warning}");
    }
    Ok(current)
}

fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
