//! Watches and the tasks that tell the engine what they see.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use switchover_agent::adapters::kube::watch::{list_then_watch, list_then_watch_at};
use switchover_agent::adapters::kube::{Change, Kube, WatchPace, WatchTarget};
use switchover_agent::bus::Bus;
use switchover_agent::model::{Event, RecordSeen, RunEvent};
use switchover_agent::tasks::{Ctx, Exit, kube_watch, tekton_watch};
use tokio_util::sync::CancellationToken;

use crate::server::{Answer, MAPS, PATIENCE, RUNS, list, pair};

fn config_map(version: &str, transition: &str) -> Value {
    json!({"metadata": {"name": "switchover-state-dev", "resourceVersion": version},
           "data": {"last_stable_state": "active-passive", "transition": transition}})
}

fn maps() -> WatchTarget {
    WatchTarget { name: "maps", path: MAPS.to_owned(), selector: Some("a=b".to_owned()) }
}

/// The next changes of a watch, each as a short text.
async fn texts(changes: &mut tokio::sync::mpsc::Receiver<Change>, count: usize) -> Vec<String> {
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap_or("-").to_owned();
    let mut texts = Vec::new();
    for _ in 0..count {
        let change = tokio::time::timeout(PATIENCE, changes.recv()).await.expect("a change in time").unwrap();
        texts.push(match change {
            Change::Listed(objects) => format!("listed {}", objects.len()),
            Change::Added(object) => format!("added {}", version(&object)),
            Change::Modified(object) => format!("modified {}", version(&object)),
            Change::Deleted(object) => format!("deleted {}", version(&object)),
            Change::Lost(_) => "lost".to_owned(),
        });
    }
    texts
}

fn event(kind: &str, version: &str) -> Value {
    json!({"type": kind, "object": config_map(version, "")})
}

#[tokio::test]
async fn a_watch_resumes_after_a_clean_end_and_relists_after_410() {
    let (server, kube) = pair("", &[]).await;
    let lists = [list("5", vec![]), list("20", vec![config_map("19", "")]), list("30", vec![])];
    server.on(&format!("GET {MAPS}"), lists);
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}});
    let bookmark = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}});
    let watches = [
        Answer::Lines(vec![event("ADDED", "6"), bookmark]),
        Answer::Lines(vec![json!({"type": "NOVELTY"}), gone]),
        Answer::Json(410, json!({"code": 410})),
        Answer::LinesThenSilence(vec![event("DELETED", "31")]),
    ];
    server.on(&format!("WATCH {MAPS}"), watches);
    let mut changes = list_then_watch(&kube, maps());
    assert_eq!(texts(&mut changes, 5).await, ["listed 0", "added 6", "listed 1", "listed 0", "deleted 31"]);
    let lines = server.lines();
    assert_eq!(lines[0], format!("GET {MAPS}?labelSelector=a%3Db"));
    assert!(lines[1].ends_with("&resourceVersion=5"), "{lines:?}");
    assert!(lines[2].ends_with("&resourceVersion=9"), "{lines:?}");
    assert!(lines[4].ends_with("&resourceVersion=20"), "{lines:?}");
    assert!(lines[1].contains("allowWatchBookmarks=true&timeoutSeconds=300"), "{lines:?}");
}

#[tokio::test]
async fn a_silent_watch_is_torn_down_and_the_list_read_again() {
    let (server, kube) = pair("", &[("KUBE_WATCH_STALL_SECONDS", "0.2")]).await;
    server.on(&format!("GET {MAPS}"), [list("5", vec![]), list("6", vec![config_map("6", "")])]);
    server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![])]);
    let mut changes = list_then_watch(&kube, maps());
    assert_eq!(texts(&mut changes, 2).await, ["listed 0", "listed 1"]);
}

#[tokio::test]
async fn a_server_that_closes_at_once_is_not_hammered() {
    let (server, kube) = pair("", &[]).await;
    server.on(&format!("GET {MAPS}"), [list("5", vec![])]);
    server.on(&format!("WATCH {MAPS}"), [Answer::Lines(vec![event("MODIFIED", "6")])]);
    let mut changes = list_then_watch(&kube, maps());
    let began = std::time::Instant::now();
    texts(&mut changes, 5).await;
    // Waits of 0.2, 0.4 and 0.8 s lie between the four watches.
    assert!(began.elapsed() >= Duration::from_millis(1390), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_sloppy_list_falls_back_to_a_watch_from_the_start() {
    for answer in [
        Answer::Json(200, json!({"items": []})),
        Answer::LinesThenSilence(vec![event("ADDED", "1")]),
        Answer::Text(200, "nonsense".into()),
    ] {
        let (server, kube) = pair("", &[("KUBE_TIMEOUT_SECONDS", "1")]).await;
        server.on(&format!("GET {MAPS}"), [answer]);
        server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![event("ADDED", "7")])]);
        let mut changes = list_then_watch(&kube, maps());
        loop {
            let text = texts(&mut changes, 1).await.remove(0);
            if text == "added 7" {
                break;
            }
            assert_eq!(text, "listed 0");
        }
        assert!(!server.lines().last().unwrap().contains("resourceVersion"), "{:?}", server.lines());
    }
}

fn page(version: &str, next: &str, name: &str) -> Answer {
    let metadata = json!({"resourceVersion": version, "continue": next});
    Answer::Json(200, json!({"metadata": metadata, "items": [{"metadata": {"name": name}}]}))
}

fn in_pages() -> WatchPace {
    let backoff = (Duration::from_millis(10), Duration::from_millis(80));
    WatchPace { backoff, jitter: Some(7), page: Some(500), from_start: false, ..WatchPace::default() }
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_begun_anew_when_a_page_is_gone() {
    let (server, kube) = pair("", &[]).await;
    let gone = Answer::Json(410, json!({"reason": "Expired", "code": 410}));
    let pages = [page("5", "t/1", "a"), gone, page("7", "t/2", "a"), page("7", "", "b")];
    server.on(&format!("GET {MAPS}"), pages);
    server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![event("ADDED", "9")])]);
    let mut changes = list_then_watch_at(&kube, maps(), in_pages());
    assert_eq!(texts(&mut changes, 2).await, ["listed 2", "added 9"]);
    let first = format!("GET {MAPS}?labelSelector=a%3Db&limit=500");
    let lines = server.lines();
    let next = |token: &str| format!("{first}&continue={token}");
    assert_eq!(lines[..4], [first.clone(), next("t%2F1"), first.clone(), next("t%2F2")]);
    assert!(lines[4].ends_with("&resourceVersion=7"), "{lines:?}");
}

#[tokio::test]
async fn a_strict_list_that_cannot_be_read_is_neither_empty_nor_skipped() {
    for bad in [Answer::Json(200, json!({"kind": "Status"})), Answer::Text(200, "{".into()), Answer::Hang] {
        let (server, kube) = pair("", &[("KUBE_TIMEOUT_SECONDS", "0.3")]).await;
        // The second page is of no use at first: not even the first one is told.
        let answers = [page("5", "t", "a"), bad, page("6", "t", "a"), page("6", "", "b")];
        server.on(&format!("GET {MAPS}"), answers);
        server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![])]);
        let mut changes = list_then_watch_at(&kube, maps(), in_pages());
        assert_eq!(texts(&mut changes, 1).await, ["listed 2"]);
        let lists = server.lines().iter().filter(|line| !line.contains("watch=true")).count();
        assert_eq!(lists, 4, "no watch from the start in between: {:?}", server.lines());
    }
}

#[tokio::test]
async fn an_outage_is_told_once_and_its_end_by_a_list() {
    let (server, kube) = pair("", &[]).await;
    let mut answers = vec![Answer::Text(503, String::new()); 6];
    answers.push(list("5", vec![]));
    server.on(&format!("GET {MAPS}"), answers);
    server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![])]);
    let mut changes = list_then_watch(&kube, maps());
    assert_eq!(texts(&mut changes, 2).await, ["lost", "listed 0"]);
}

fn context() -> (Ctx, tokio::sync::mpsc::Receiver<Event>) {
    let (bus, events) = Bus::new();
    let registry = Arc::new(prometheus::Registry::new());
    (Ctx { cancel: CancellationToken::new(), bus, registry }, events)
}

async fn next_record(events: &mut tokio::sync::mpsc::Receiver<Event>) -> RecordSeen {
    match tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event in time") {
        Some(Event::Record(seen)) => seen,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_record_is_told_once_per_change_and_missing_only_when_deleted() {
    let (server, kube) = pair("", &[]).await;
    server.on(&format!("GET {MAPS}"), [list("5", vec![config_map("5", "")])]);
    let asked = json!({"type": "MODIFIED", "object": config_map("6", "golddr-primary")});
    let lines = vec![event("ADDED", "5"), event("ADDED", "4"), asked.clone(), asked, event("DELETED", "7")];
    server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(lines)]);
    let (ctx, mut events) = context();
    let task = tokio::spawn(kube_watch::run(ctx.clone(), kube));
    let mut versions = Vec::new();
    for _ in 0..3 {
        versions.push(match next_record(&mut events).await {
            RecordSeen::Present(record) => record.resource_version.unwrap(),
            RecordSeen::Missing => "missing".to_owned(),
            RecordSeen::Unknown(reason) => panic!("{reason}"),
        });
    }
    assert_eq!(versions, ["5", "6", "missing"]);
    ctx.cancel.cancel();
    assert_eq!(task.await.unwrap(), Exit::Cancelled);
}

#[tokio::test]
async fn the_record_is_read_again_at_an_interval_even_if_its_watch_is_silent() {
    let (server, kube) = pair("", &[("RECORD_RESYNC_SECONDS", "1")]).await;
    let lists = [list("5", vec![config_map("5", "")]), list("6", vec![config_map("6", "")])];
    server.on(&format!("GET {MAPS}"), lists);
    server.on(&format!("WATCH {MAPS}"), [Answer::LinesThenSilence(vec![])]);
    let (ctx, mut events) = context();
    tokio::spawn(kube_watch::run(ctx.clone(), kube));
    for version in ["5", "6", "6"] {
        let RecordSeen::Present(record) = next_record(&mut events).await else { panic!("no record") };
        assert_eq!(record.resource_version.as_deref(), Some(version));
    }
    ctx.cancel.cancel();
}

#[tokio::test]
async fn an_unreachable_record_is_unknown_and_never_missing() {
    let (server, kube) = pair("", &[]).await;
    server.on(&format!("GET {MAPS}"), [Answer::Text(500, String::new())]);
    let (ctx, mut events) = context();
    tokio::spawn(kube_watch::run(ctx.clone(), kube));
    assert!(matches!(next_record(&mut events).await, RecordSeen::Unknown(_)));
    ctx.cancel.cancel();
}

#[tokio::test]
async fn pipeline_runs_are_told_in_the_version_that_is_served() {
    let (server, kube) = pair("", &[]).await;
    let mut settings = kube.settings().clone();
    settings.tekton_version = None;
    let kube = Kube::connect(settings, &prometheus::Registry::new()).await.unwrap();
    let group = json!({"versions": [{"version": "v1beta1"}, {"version": "v1"}]});
    server.on("GET /apis/tekton.dev", [Answer::Json(404, json!({})), Answer::Json(200, group)]);
    assert_eq!(kube.pipeline_runs_path().await.unwrap(), RUNS);
    let runs = RUNS.replace("v1beta1", "v1");
    server.on(&format!("GET {runs}"), [list("3", vec![json!({"metadata": {"name": "r1"}}), json!({})])]);
    let done = json!({"type": "MODIFIED", "object": {"metadata": {"name": "r1"},
        "status": {"conditions": [{"type": "Succeeded", "status": "True", "reason": "Completed"}]}}});
    server.on(&format!("WATCH {runs}"), [Answer::LinesThenSilence(vec![done])]);
    let (ctx, mut events) = context();
    tokio::spawn(tekton_watch::run(ctx.clone(), kube));
    let mut told = Vec::new();
    for _ in 0..3 {
        match tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            Event::PipelineRun(run) => told.push((run.kind, run.name, run.succeeded)),
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        (RunEvent::Added, "r1".to_owned(), None),
        (RunEvent::Added, String::new(), None),
        (RunEvent::Modified, "r1".to_owned(), Some(true)),
    ];
    assert_eq!(told, expected);
    ctx.cancel.cancel();
}
