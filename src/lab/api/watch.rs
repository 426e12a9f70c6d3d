//! Watches: a version to begin at, changes as JSON lines, bookmarks, 410 and the faults that break streams.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::paths::{Kind, api_version};
use super::selector::Selector;
use super::status::Refusal;
use super::verbs::{in_version, selector};
use crate::lab::faults::Fault;
use crate::lab::http::{Answer, Request};
use crate::lab::site::Site;
use crate::lab::store::Change;
use crate::lab::world::World;
use crate::model::Side;

/// How long a watch lasts where the request does not say, and at most.
const LONGEST: Duration = Duration::from_secs(1800);
/// Time between two bookmarks; a real server sends about one a minute.
const BOOKMARK: Duration = Duration::from_secs(5);
/// How long a watch lasts while `watch_close` is on.
const CLOSES_AFTER: Duration = Duration::from_millis(100);

struct Watch {
    world: World,
    side: Side,
    cancel: CancellationToken,
    kind: &'static Kind,
    version: &'static str,
    namespace: Option<String>,
    selector: Selector,
    signal: tokio::sync::watch::Receiver<u64>,
    /// Changes up to this version have been told.
    told: u64,
    epoch: u64,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    ended: bool,
    first: Vec<Bytes>,
}

/// Opens a watch.
pub fn open(
    world: &World,
    side: Side,
    cancel: &CancellationToken,
    kind: &'static Kind,
    version: &'static str,
    namespace: Option<&str>,
    request: &Request,
) -> Result<Answer, Refusal> {
    let selector = selector(request)?;
    let asked = match request.parameter("resourceVersion").as_deref() {
        None | Some("" | "0") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| {
            Refusal::bad_request(format!("resourceVersion: Invalid value: {text:?}: not a number"))
        })?),
    };
    let limit = match request.parameter("timeoutSeconds").map(|text| text.parse::<u64>()) {
        None | Some(Ok(0)) => LONGEST,
        Some(Ok(seconds)) => Duration::from_secs(seconds).min(LONGEST),
        Some(Err(_)) => return Err(Refusal::bad_request("timeoutSeconds is not a number")),
    };
    let bookmarks =
        matches!(request.parameter("allowWatchBookmarks").as_deref(), Some("true" | "True" | "1"));
    let opened = world.with(side, |site, _| {
        let told = begin(site, asked)?;
        let limit = if site.faults.bites(Fault::WatchClose) { CLOSES_AFTER } else { limit };
        let mut watch = Watch {
            world: world.clone(),
            side,
            cancel: cancel.clone(),
            kind,
            version,
            namespace: namespace.map(str::to_owned),
            selector: selector.clone(),
            signal: site.store.subscribe(),
            told,
            epoch: site.watch_epoch,
            bookmarks,
            next_bookmark: Instant::now() + BOOKMARK,
            end: Instant::now() + limit,
            ended: false,
            first: Vec::new(),
        };
        if asked.is_none() {
            for (_, object) in site.store.list(kind.plural, namespace) {
                if watch.selector.matches(&object) {
                    watch.first.push(watch.line("ADDED", &object));
                }
            }
        }
        Ok(watch)
    });
    let watch = opened.unwrap_or_else(|| Err(Refusal::no_such_path()))?;
    let lines = stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(chunk), watch))
    });
    let mut answer = Answer::new(Body::from_stream(lines));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// The version after which the watch tells changes.
fn begin(site: &Site, asked: Option<u64>) -> Result<u64, Refusal> {
    let now = site.store.version();
    let oldest = if site.faults.on(Fault::Watch410) { now } else { site.store.oldest() };
    match asked {
        None => Ok(now),
        Some(version) if version < oldest => Err(Refusal::expired(version, oldest)),
        Some(version) if version > now => Err(Refusal::too_large(version, now)),
        Some(version) => Ok(version),
    }
}

enum Look {
    /// Something to send.
    Send(Bytes),
    /// Something to send, then the end.
    Last(Bytes),
    /// The end.
    End,
    /// Nothing yet.
    Wait,
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended || self.cancel.is_cancelled() {
                return None;
            }
            self.signal.borrow_and_update();
            let world = self.world.clone();
            let look = world.with(self.side, |site, _| self.look(site)).unwrap_or(Look::End);
            match look {
                Look::Send(bytes) => return Some(bytes),
                Look::Last(bytes) => {
                    self.ended = true;
                    return Some(bytes);
                }
                Look::End => return None,
                Look::Wait => self.wait().await,
            }
        }
    }

    async fn wait(&mut self) {
        let soon = self.end.min(self.next_bookmark);
        // A silent watch is looked at again now and then: its end and its bookmark may long be past.
        let until = soon.max(Instant::now() + Duration::from_millis(20));
        tokio::select! {
            () = self.cancel.cancelled() => {}
            _ = self.signal.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    fn look(&mut self, site: &Site) -> Look {
        if site.watch_epoch != self.epoch {
            self.epoch = site.watch_epoch;
            return if site.watch_gone { Look::Last(self.gone(site)) } else { Look::End };
        }
        if site.faults.on(Fault::WatchStall) || site.faults.on(Fault::ApiHang) {
            return Look::Wait;
        }
        let mut lines: Vec<u8> = self.first.drain(..).flatten().collect();
        match site.store.since(self.told) {
            Ok(changes) => {
                for change in &changes {
                    self.told = change.version;
                    if let Some(line) = self.tell(change) {
                        lines.extend_from_slice(&line);
                    }
                }
            }
            Err(_) => return Look::Last(self.gone(site)),
        }
        let now = Instant::now();
        if self.bookmarks && (now >= self.next_bookmark || now >= self.end) {
            lines.extend_from_slice(&self.bookmark());
        }
        if now >= self.next_bookmark {
            self.next_bookmark = now + BOOKMARK;
        }
        match (lines.is_empty(), now >= self.end) {
            (true, true) => Look::End,
            (true, false) => Look::Wait,
            (false, true) => Look::Last(lines.into()),
            (false, false) => Look::Send(lines.into()),
        }
    }

    /// A change as this watch sees it: an object that begins or ceases to match is added or deleted.
    fn tell(&self, change: &Change) -> Option<Bytes> {
        let (plural, namespace, _) = &change.key;
        if *plural != self.kind.plural || self.namespace.as_ref().is_some_and(|wanted| wanted != namespace) {
            return None;
        }
        let matching =
            |object: &Option<Arc<Value>>| object.clone().filter(|object| self.selector.matches(object));
        match (matching(&change.before), matching(&change.after)) {
            (None, None) => None,
            (None, Some(after)) => Some(self.line("ADDED", &after)),
            (Some(_), Some(after)) => Some(self.line("MODIFIED", &after)),
            (Some(before), None) => {
                let mut object = (*before).clone();
                object["metadata"]["resourceVersion"] = json!(change.version.to_string());
                Some(self.line("DELETED", &object))
            }
        }
    }

    fn line(&self, event: &str, object: &Value) -> Bytes {
        json_line(&json!({"type": event, "object": in_version(self.kind, self.version, object)}))
    }

    fn bookmark(&self) -> Bytes {
        json_line(&json!({
            "type": "BOOKMARK",
            "object": {
                "kind": self.kind.kind, "apiVersion": api_version(self.kind.group, self.version),
                "metadata": {"resourceVersion": self.told.to_string(), "creationTimestamp": null},
            },
        }))
    }

    fn gone(&self, site: &Site) -> Bytes {
        let refusal = Refusal::expired(self.told, site.store.oldest());
        json_line(&json!({"type": "ERROR", "object": refusal.body()}))
    }
}

fn json_line(value: &Value) -> Bytes {
    let mut text = value.to_string();
    text.push('\n');
    text.into()
}
