//! Tekton's listener and the maintenance portal.

use switchover_agent::adapters::portal::Portal;
use switchover_agent::adapters::tekton::{Tekton, TektonError, signature_sha1, signature_sha256};
use switchover_agent::config::Secret;
use switchover_agent::config::portal::PortalSettings;
use switchover_agent::config::tekton::TektonSettings;
use switchover_agent::model::FailureKind;

use super::fake::{Site, closing};

fn tekton(base: &str, secret: &str) -> Tekton {
    let settings = TektonSettings {
        url: format!("{base}/tekton"),
        repository: "https://example.org/r.git".to_owned(),
        git_ref: "main".to_owned(),
        secret: Secret::new(secret),
        timeout_ms: 20_000,
        settle_ms: 1,
    };
    Tekton::new(&settings).unwrap()
}

#[tokio::test]
async fn a_trigger_is_a_signed_push_and_gives_the_event_id() {
    let site = Site::start().await;
    site.on("POST /tekton", 202, r#"{"eventListener":"l","eventID":"e-1"}"#);
    assert_eq!(tekton(&site.base, "s3").trigger("d-1").await.unwrap(), "e-1");
    let seen = &site.seen("POST /tekton")[0];
    assert_eq!(seen.headers["x-github-event"], "push");
    assert_eq!(seen.headers["x-github-delivery"], "d-1");
    assert_eq!(seen.headers["content-type"], "application/json");
    assert_eq!(seen.headers["accept"], "application/json");
    assert_eq!(seen.headers["x-hub-signature"], signature_sha1(b"s3", &seen.body).as_str());
    assert_eq!(seen.headers["x-hub-signature-256"], signature_sha256(b"s3", &seen.body).as_str());
}

#[tokio::test]
async fn an_empty_secret_signs_all_the_same() {
    let site = Site::start().await;
    site.on("POST /tekton", 201, r#"{"eventID":"e"}"#);
    tekton(&site.base, "").trigger("d-1").await.unwrap();
    let seen = &site.seen("POST /tekton")[0];
    assert_eq!(seen.headers["x-hub-signature-256"], signature_sha256(b"", &seen.body).as_str());
}

#[tokio::test]
async fn a_start_that_cannot_be_recognised_is_not_tried_again() {
    for body in ["", "ok", "{}", r#"{"eventID":""}"#, r#"{"eventID":7}"#, "[]"] {
        let site = Site::start().await;
        site.on("POST /tekton", 200, body);
        let error = tekton(&site.base, "s").trigger("d-1").await.unwrap_err();
        assert!(matches!(error, TektonError::NotIdentifiable { .. }), "{body}: {error}");
        assert_eq!(error.kind(), FailureKind::Permanent);
        assert_eq!(site.seen("POST").len(), 1);
    }
}

#[tokio::test]
async fn a_refusing_listener_and_a_missing_one_are_told_apart() {
    let site = Site::start().await;
    for (status, kind) in
        [(403, FailureKind::Permanent), (429, FailureKind::Transient), (500, FailureKind::Transient)]
    {
        site.on("POST /tekton", status, "no");
        assert_eq!(tekton(&site.base, "s").trigger("d-1").await.unwrap_err().kind(), kind, "{status}");
    }
    for base in ["http://127.0.0.1:1".to_owned(), closing().await] {
        assert_eq!(tekton(&base, "s").trigger("d-1").await.unwrap_err().kind(), FailureKind::Transient);
    }
}

#[tokio::test]
async fn the_portal_is_told_by_a_put_without_a_body() {
    let site = Site::start().await;
    let portal =
        Portal::new(&PortalSettings { base: format!("{}/p", site.base), timeout_ms: 20_000 }).unwrap();
    site.on("PUT /p/maintenance/true", 200, r#"{"maintenance":true}"#).on(
        "PUT /p/maintenance/false",
        204,
        "",
    );
    portal.set(true).await.unwrap();
    portal.set(false).await.unwrap();
    assert!(site.seen("PUT").iter().all(|seen| seen.body.is_empty()));
    site.on("PUT /p/maintenance/true", 200, "<html>sign in</html>");
    assert_eq!(portal.set(true).await.unwrap_err().kind(), FailureKind::Permanent);
    site.on("PUT /p/maintenance/true", 502, "");
    let error = portal.set(true).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Transient);
    assert_eq!(error.to_string(), "maintenance portal: PUT /maintenance/true: status 502");
}
