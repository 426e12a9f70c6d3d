//! Commands about what has happened: `history` and `replay`. They change nothing.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{fail, say};
use crate::adapters::http_client;
use crate::config::http::API_TOKEN;
use crate::config::{Lookup, Reader};
use crate::journal::{file, story};
use crate::tasks::recorder;

const TIMEOUT: Duration = Duration::from_secs(10);

/// `history --journal DIR`. A damaged chain is a failure.
pub(super) fn journal(dir: &Path, limit: usize) -> ExitCode {
    match file::look(dir) {
        Ok(recovered) => {
            for line in story::tell(&recovered, limit) {
                say(&line);
            }
            if recovered.damage.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// `history` of a running agent.
pub(super) async fn agent(env: &dyn Lookup, agent: &str, limit: usize) -> ExitCode {
    let Some(token) = Reader::new(env).secret(API_TOKEN) else {
        return fail(&format!("{API_TOKEN} (or {API_TOKEN}_FILE) must hold the agent's token"));
    };
    let url = format!("{agent}/history?limit={limit}");
    let client = match http_client::client(&url, TIMEOUT) {
        Ok(client) => client,
        Err(error) => return fail(&error.to_string()),
    };
    let request = client.get(&url).bearer_auth(token.expose());
    match http_client::call(request, &format!("GET {url}")).await {
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.body).trim_end().to_owned();
            if !answer.status.is_success() {
                return fail(&format!("{}: {text}", answer.status));
            }
            say(&text);
            let damaged = text.lines().last().is_some_and(|line| line.starts_with("DAMAGED"));
            if damaged { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// `replay FILE`.
pub(super) fn replay(path: &Path) -> ExitCode {
    match recorder::replay(path) {
        Ok(replayed) => {
            say(&format!(
                "{} events of {} start(s) of the engine gave the same {} actions",
                replayed.events, replayed.begins, replayed.actions
            ));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}
