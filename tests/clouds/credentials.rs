//! Tokens: from a key, the metadata server and federation; renewed early, thrown away on 401, never shown.

use std::time::Duration;

use serde_json::{Value, json};
use switchover_agent::adapters::gcp::{
    Compute, CredentialError, CredentialSource, Credentials, GcpError, GcpSettings,
};
use switchover_agent::config::Secret;
use switchover_agent::lab::compute::{API_PATH, LAB_BASE, SUBJECT_TOKEN, Tokens};
use switchover_agent::lab::front::CloudFault;
use switchover_agent::model::FailureKind;

use crate::bench::{Bench, SERVICES, deadline, settings};

fn json_source(file: &Value) -> CredentialSource {
    CredentialSource::Json { content: Secret::new(file.to_string()), token_endpoint: None }
}

/// A client of the bench's cloud with other credentials.
fn client(bench: &Bench, source: CredentialSource) -> Compute {
    let settings = GcpSettings { endpoint: format!("{LAB_BASE}{API_PATH}"), ..settings() };
    let credentials = Credentials::new(source, bench.cloud.wire(), bench.attempts.clone());
    Compute::new(settings, bench.cloud.wire(), credentials, bench.attempts.clone())
}

async fn works(compute: &Compute) -> Result<(), GcpError> {
    compute.check_project(SERVICES, deadline()).await
}

#[tokio::test(start_paused = true)]
async fn a_token_is_used_until_five_minutes_before_its_end_and_then_renewed() {
    let bench = Bench::new();
    works(&bench.compute).await.unwrap();
    tokio::time::advance(Duration::from_secs(3599 - 301)).await;
    works(&bench.compute).await.unwrap();
    assert_eq!(bench.cloud.with(|cloud| cloud.tokens.made()), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    works(&bench.compute).await.unwrap();
    assert_eq!(bench.cloud.with(|cloud| cloud.tokens.made()), 2);
    assert!(bench.cloud.seen().iter().all(|call| call.status == 200), "no call was made with a dead token");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_no_error_while_the_old_token_lives() {
    let bench = Bench::new();
    works(&bench.compute).await.unwrap();
    bench.cloud.fail("POST", "/token", u32::MAX, CloudFault::Refused(503, "backendError"));
    tokio::time::advance(Duration::from_secs(3599 - 200)).await;
    works(&bench.compute).await.unwrap();
    tokio::time::advance(Duration::from_secs(300)).await;
    let error = works(&bench.compute).await.unwrap_err();
    assert!(matches!(error, GcpError::Credentials(_)), "{error}");
    assert_eq!(error.kind(), FailureKind::Transient);
    bench.cloud.heal();
    works(&bench.compute).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_revoked_is_replaced_and_the_call_made_once_more() {
    let bench = Bench::new();
    works(&bench.compute).await.unwrap();
    bench.cloud.with(|cloud| cloud.tokens.revoke_all());
    works(&bench.compute).await.unwrap();
    assert_eq!(bench.cloud.with(|cloud| cloud.tokens.made()), 2);
    bench.cloud.fail("GET", "/projects", u32::MAX, CloudFault::Refused(401, "authError"));
    let calls = bench.cloud.count("projects.get");
    let error = works(&bench.compute).await.unwrap_err();
    assert_eq!((error.status(), error.kind()), (Some(401), FailureKind::Permanent));
    assert_eq!(bench.cloud.count("projects.get") - calls, 2, "once more, not for ever");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_without_a_token_are_one_question() {
    let bench = Bench::new();
    bench.cloud.fail("POST", "/token", 1, CloudFault::Slow(Duration::from_secs(5)));
    let calls = (0..100).map(|_| works(&bench.compute));
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(bench.cloud.count("token"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_metadata_server_is_asked_as_it_wants_to_be() {
    let bench = Bench::new();
    let compute = client(&bench, CredentialSource::Metadata { endpoint: LAB_BASE.to_owned() });
    works(&compute).await.unwrap();
    bench.cloud.with(|cloud| cloud.tokens.metadata = false);
    let without = client(&bench, CredentialSource::Metadata { endpoint: LAB_BASE.to_owned() });
    let error = works(&without).await.unwrap_err();
    assert!(error.to_string().contains("has no service account"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn federation_works_from_a_file_and_from_an_address_with_and_without_impersonation() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("token");
    std::fs::write(&text, format!("{SUBJECT_TOKEN}\n")).unwrap();
    let document = dir.path().join("token.json");
    std::fs::write(&document, json!({"inner": SUBJECT_TOKEN}).to_string()).unwrap();
    let field = |name: &str| json!({"type": "json", "subject_token_field_name": name});
    let url = json!({"url": format!("{LAB_BASE}/subject-token"), "headers": {"Metadata": "true"},
        "format": field("access_token")});
    for source in [json!({ "file": text }), json!({"file": document, "format": field("inner")}), url] {
        for impersonate in [false, true] {
            let file = Tokens::federation_file(LAB_BASE, &source, impersonate);
            let result = works(&client(&bench, json_source(&file))).await;
            assert!(result.is_ok(), "{source} {impersonate}: {result:?}");
        }
    }
    std::fs::write(&text, "somebody else's").unwrap();
    let file = Tokens::federation_file(LAB_BASE, &json!({ "file": text }), true);
    let error = works(&client(&bench, json_source(&file))).await.unwrap_err();
    assert!(error.to_string().contains("invalid_grant"), "{error}");
    assert!(!error.to_string().contains("somebody"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_rotated_subject_token_and_a_rotated_key_need_no_restart() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.json");
    std::fs::write(&path, "{\"type\": \"service_account\"").unwrap();
    let source = CredentialSource::File { path: path.clone(), token_endpoint: None };
    let credentials = Credentials::new(source, bench.cloud.wire(), bench.attempts.clone());
    assert_eq!(credentials.check().await.unwrap_err().kind(), FailureKind::Permanent);
    std::fs::write(&path, Tokens::key_file(LAB_BASE).to_string()).unwrap();
    credentials.check().await.unwrap();
    credentials.token().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_token_server_can_be_named() {
    let bench = Bench::new();
    let mut file = Tokens::key_file("https://nowhere.invalid");
    let content = Secret::new(file.to_string());
    let endpoint = format!("{LAB_BASE}/token");
    let source = CredentialSource::Json { content, token_endpoint: Some(endpoint) };
    works(&client(&bench, source)).await.unwrap();
    file["token_uri"] = json!("http://tokens.example.com/token");
    let error = works(&client(&bench, json_source(&file))).await.unwrap_err();
    assert!(error.to_string().contains("https only"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_credentials_is_said_without_showing_them() {
    let bench = Bench::new();
    let good = Tokens::key_file(LAB_BASE);
    let change = |field: &str, value: Value| {
        let mut file = good.clone();
        file[field] = value;
        file
    };
    for (file, about) in [
        (change("type", json!("authorized_user")), "authorized_user"),
        (change("type", Value::Null), "no type"),
        (change("client_email", json!("")), "client_email is missing"),
        (change("private_key", json!("-----BEGIN nonsense-----")), "no RSA key"),
        (change("private_key_id", json!("another")), "Invalid JWT header"),
        (
            json!({"type": "external_account", "audience": "a", "credential_source": {"environment_id": "aws1"}}),
            "file or url",
        ),
    ] {
        let error = works(&client(&bench, json_source(&file))).await.unwrap_err().to_string();
        assert!(error.contains(about), "{error}");
        assert!(!error.contains("nonsense") && !error.contains("BEGIN"), "{error}");
    }
    let missing = CredentialSource::File { path: "/nowhere/key.json".into(), token_endpoint: None };
    let credentials = Credentials::new(missing, bench.cloud.wire(), bench.attempts.clone());
    let error = credentials.check().await.unwrap_err();
    assert!(matches!(error, CredentialError::File { .. }));
    assert!(error.to_string().contains("/nowhere/key.json"), "{error}");
    let shown =
        format!("{:?}", Credentials::new(json_source(&good), bench.cloud.wire(), bench.attempts.clone()));
    assert!(!shown.contains("PRIVATE"), "{shown}");
}
