//! List, then watch: the generic observer of a collection.
//!
//! Owns the life of a watch: resume after a clean end, read the list again after 410, error or silence, back off
//! where the server refuses or closes at once, and (where [`WatchPace`] wants it) fall back to a watch from the start
//! where a server's list is of no use. Never interprets objects; a re-delivered object is normal.
//!
//! ```text
//!         list ok                     closed by the server
//!  list ---------> watch from version ---------------------> watch from the last version
//!   |  ^                |  410, error, malformed, silence
//!   |  +----------------+
//!   +--- no list or no version --> watch from the start (until that fails)
//! ```

use std::time::Duration;

use ::kube::client::Body;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use prometheus::{IntCounterVec, Opts, Registry};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::pace::{Waits, WatchPace};
use super::request::chain;
use super::{Kube, KubeError, encode};

/// Changes that may wait for a slow receiver; then the watch stops reading and the server holds back.
const CAPACITY: usize = 64;
/// Bytes of one event; etcd stores at most 1.5 MiB per object.
const LINE_LIMIT: usize = 4 << 20;
/// Failing for this long is an outage and reported once.
const OUTAGE: Duration = Duration::from_secs(4);

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchTarget {
    /// Name in logs and in the label `watch`; a fixed word.
    pub name: &'static str,
    /// Path of the collection, without query.
    pub path: String,
    /// Label selector.
    pub selector: Option<String>,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The whole collection, at the start and after every interruption: what is not in it is gone.
    Listed(Vec<Value>),
    /// An object was added, or is delivered again.
    Added(Value),
    /// An object changed.
    Modified(Value),
    /// An object was deleted.
    Deleted(Value),
    /// The collection could not be read for some seconds, and why. Told once per outage; the next list or event
    /// ends it.
    Lost(String),
}

/// Why a round ended.
enum End {
    Closed,
    Expired,
    Stalled,
    Failed(KubeError),
    ReceiverGone,
}

/// Starts watching at the usual pace. The watch ends when the receiver is dropped, never by itself.
pub fn list_then_watch(kube: &Kube, target: WatchTarget) -> mpsc::Receiver<Change> {
    list_then_watch_at(kube, target, WatchPace::default())
}

/// As [`list_then_watch`], at a pace of the caller's.
pub fn list_then_watch_at(kube: &Kube, target: WatchTarget, pace: WatchPace) -> mpsc::Receiver<Change> {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let watcher = Watcher {
        kube: kube.clone(),
        target,
        waits: Waits::new(&pace),
        pace,
        sender: sender.clone(),
        version: None,
        from_start: false,
        good_since: None,
        failing_since: None,
        lost: false,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = watcher.run() => {}
        }
    });
    receiver
}

/// Registers `switchover_watch_restarts_total{watch,reason}`; an older counter of that name makes room.
///
/// # Errors
/// Where the registry refuses the name.
pub(super) fn register_restarts(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let options = Opts::new(
        "switchover_watch_restarts_total",
        "Rounds of a Kubernetes watch that ended, by watch and reason",
    );
    let counter = IntCounterVec::new(options, &["watch", "reason"])?;
    if let Err(prometheus::Error::AlreadyReg) = registry.register(Box::new(counter.clone())) {
        registry.unregister(Box::new(counter.clone()))?;
        registry.register(Box::new(counter.clone()))?;
    }
    Ok(counter)
}

struct Watcher {
    kube: Kube,
    target: WatchTarget,
    pace: WatchPace,
    waits: Waits,
    sender: mpsc::Sender<Change>,
    /// Where the next watch resumes; `None` = at a list or at the start.
    version: Option<String>,
    /// The last list was of no use.
    from_start: bool,
    /// Since when the current watch is established.
    good_since: Option<Instant>,
    failing_since: Option<Instant>,
    lost: bool,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            let began = Instant::now();
            self.good_since = None;
            let end = self.round().await;
            let good_since = self.good_since;
            let reason = match &end {
                End::Closed => "closed",
                End::Expired => "expired",
                End::Stalled => "stalled",
                End::Failed(_) => "error",
                End::ReceiverGone => return,
            };
            self.kube.inner.restarts.with_label_values(&[self.target.name, reason]).inc();
            tracing::debug!(watch = self.target.name, reason, "watch ended");
            if !matches!(end, End::Closed) {
                self.version = None;
                self.from_start = false;
            }
            if let End::Failed(error) = end {
                // An established watch failed when it broke, an attempt when it began.
                let since = if good_since.is_some() { Instant::now() } else { began };
                self.failed(since, &error).await;
            }
            self.pause(good_since).await;
        }
    }

    async fn round(&mut self) -> End {
        if self.version.is_none()
            && !self.from_start
            && let Err(end) = self.list().await
        {
            return end;
        }
        match self.watch().await {
            Ok(end) => end,
            Err(KubeError::Gone { .. }) => End::Expired,
            Err(error) => End::Failed(error),
        }
    }

    async fn list(&mut self) -> Result<(), End> {
        let (path, selector) = (&self.target.path, self.target.selector.as_deref());
        let why = match self.kube.list_pages(path, selector, self.pace.page).await {
            Ok((objects, version)) => {
                self.version = version;
                self.from_start = self.version.is_none();
                self.recovered();
                return self.tell(Change::Listed(objects)).await;
            }
            // The first page is too old for the next one: what was read so far is no list.
            Err(KubeError::Gone { .. }) => return Err(End::Expired),
            Err(error @ (KubeError::Timeout { .. } | KubeError::Malformed { .. }))
                if self.pace.from_start =>
            {
                error.to_string()
            }
            Err(error) => return Err(End::Failed(error)),
        };
        tracing::warn!(watch = self.target.name, why, "no usable list, watching from the start");
        self.from_start = true;
        Ok(())
    }

    async fn watch(&mut self) -> Result<End, KubeError> {
        let target = self.watch_target();
        let mut lines = Lines {
            call: format!("GET {} (watch {})", self.target.path, self.target.name),
            body: self.kube.open(&target).await?.into_body(),
            buffer: BytesMut::new(),
            searched: 0,
        };
        self.good_since = Some(Instant::now());
        let stall = self.kube.settings().watch_stall;
        let mut unknown_seen = false;
        loop {
            let line = match tokio::time::timeout(stall, lines.next()).await {
                Err(_) => return Ok(End::Stalled),
                Ok(line) => match line? {
                    Some(line) => line,
                    None => return Ok(End::Closed),
                },
            };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let mut event: Value = serde_json::from_slice(&line).map_err(|_| KubeError::Malformed {
                call: lines.call.clone(),
                reason: "an event is not JSON".to_owned(),
            })?;
            let object = event.get_mut("object").map(Value::take).unwrap_or(Value::Null);
            let version = version_of(&object);
            let change = match event.get("type").and_then(Value::as_str) {
                Some("ADDED") => Change::Added(object),
                Some("MODIFIED") => Change::Modified(object),
                Some("DELETED") => Change::Deleted(object),
                Some("BOOKMARK") => {
                    self.version = version.or(self.version.take());
                    self.recovered();
                    continue;
                }
                Some("ERROR") => {
                    let code = object.get("code").and_then(Value::as_u64).unwrap_or(500);
                    let status = u16::try_from(code).unwrap_or(500);
                    let secret = self.target.path.ends_with("/secrets");
                    return Err(KubeError::from_status(lines.call.clone(), status, &object, secret));
                }
                other => {
                    if !unknown_seen {
                        let kind: String = other.unwrap_or("(none)").escape_debug().take(40).collect();
                        tracing::warn!(watch = self.target.name, kind, "unknown watch events are ignored");
                    }
                    unknown_seen = true;
                    continue;
                }
            };
            self.recovered();
            if self.tell(change).await.is_err() {
                return Ok(End::ReceiverGone);
            }
            self.version = version.or(self.version.take());
        }
    }

    fn watch_target(&self) -> String {
        let mut target = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}",
            self.target.path,
            self.kube.settings().watch_length.as_secs().max(1)
        );
        if let Some(selector) = &self.target.selector {
            target.push_str("&labelSelector=");
            target.push_str(&encode(selector));
        }
        if let Some(version) = &self.version {
            target.push_str("&resourceVersion=");
            target.push_str(&encode(version));
        }
        target
    }

    async fn tell(&self, change: Change) -> Result<(), End> {
        self.sender.send(change).await.map_err(|_| End::ReceiverGone)
    }

    fn recovered(&mut self) {
        if self.lost {
            tracing::info!(watch = self.target.name, "the API server answers again");
        }
        self.failing_since = None;
        self.lost = false;
    }

    async fn failed(&mut self, since: Instant, error: &KubeError) {
        let since = *self.failing_since.get_or_insert(since);
        if !self.lost && since.elapsed() >= OUTAGE {
            tracing::warn!(watch = self.target.name, %error, "watch is out of service");
            self.lost = true;
            // A receiver that is gone ends the task from outside.
            let _ = self.tell(Change::Lost(error.to_string())).await;
        }
    }

    async fn pause(&mut self, good_since: Option<Instant>) {
        let lived = good_since.map_or(Duration::ZERO, |since| since.elapsed());
        tokio::time::sleep(self.waits.next(&self.pace, lived)).await;
    }
}

/// `metadata.resourceVersion`, where it can be used to resume; "0" would mean "any version".
pub(super) fn version_of(object: &Value) -> Option<String> {
    let version = object.pointer("/metadata/resourceVersion")?.as_str()?;
    (!version.is_empty() && version != "0").then(|| version.to_owned())
}

/// Splits a streaming body into lines of bounded length.
struct Lines {
    call: String,
    body: Body,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to hold no line break.
    searched: usize,
}

impl Lines {
    /// The next line, `None` at the end of the body; a last line that was cut off is dropped.
    async fn next(&mut self) -> Result<Option<Bytes>, KubeError> {
        loop {
            if let Some(offset) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + offset).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_LIMIT {
                return Err(KubeError::TooLarge { call: self.call.clone(), limit: LINE_LIMIT });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return Err(KubeError::Connection { call: self.call.clone(), reason: chain(&error) });
                }
                None => {
                    let rest = self.buffer.split().freeze();
                    self.searched = 0;
                    let whole = serde_json::from_slice::<serde::de::IgnoredAny>(&rest).is_ok();
                    return Ok(whole.then_some(rest));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_means_any_is_no_version() {
        for value in [serde_json::json!({}), serde_json::json!({"metadata": {"resourceVersion": "0"}})] {
            assert_eq!(version_of(&value), None);
        }
    }

    #[test]
    fn registering_twice_does_not_fail() {
        let registry = Registry::new();
        register_restarts(&registry).unwrap();
        register_restarts(&registry).unwrap().with_label_values(&["a", "b"]).inc();
        assert_eq!(registry.gather().len(), 1);
    }
}
