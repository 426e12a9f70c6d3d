//! Commands for a running agent.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{fail, say};
use crate::adapters::http_client;
use crate::config::http::API_TOKEN;
use crate::config::{Lookup, Reader};
use crate::model::Transition;

const TIMEOUT: Duration = Duration::from_secs(10);

/// `transition NAME`.
pub(super) async fn transition(
    env: &dyn Lookup,
    agent: &str,
    name: &str,
    accept_data_loss: Option<String>,
) -> ExitCode {
    let transition: Transition = match name.parse() {
        Ok(transition) => transition,
        Err(error) => return fail(&format!("{error}")),
    };
    let Some(token) = Reader::new(env).secret(API_TOKEN) else {
        return fail(&format!("{API_TOKEN} (or {API_TOKEN}_FILE) must hold the agent's token"));
    };
    let url = format!("{agent}/phase/transition-to-{transition}");
    let client = match http_client::client(&url, TIMEOUT) {
        Ok(client) => client,
        Err(error) => return fail(&error.to_string()),
    };
    let body = accept_data_loss.map_or_else(|| json!({}), |reason| json!({"accept_data_loss": reason}));
    let request = client.put(&url).bearer_auth(token.expose()).json(&body);
    match http_client::call(request, &format!("PUT {url}")).await {
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            if answer.status.is_success() {
                say(&text);
                ExitCode::SUCCESS
            } else {
                fail(&format!("{}: {text}", answer.status))
            }
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// `status`.
pub(super) async fn status(agent: &str) -> ExitCode {
    let url = format!("{agent}/status");
    let client = match http_client::client(&url, TIMEOUT) {
        Ok(client) => client,
        Err(error) => return fail(&error.to_string()),
    };
    let answer = match http_client::call(client.get(&url), &format!("GET {url}")).await {
        Ok(answer) => answer,
        Err(error) => return fail(&error.to_string()),
    };
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(status) => {
            show(&status);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("GET {url}: {error}")),
    }
}

fn show(status: &Value) {
    let text = |key: &str| status[key].as_str().unwrap_or("?").to_owned();
    say(&format!("site        {} ({})", text("site"), text("side")));
    say(&format!("phase       {}, generation {}", text("phase"), status["generation"]));
    say(&format!("settled     {}", status["settled"]));
    say(&format!("peer        {}", text("peer_link")));
    let database = &status["database"];
    say(&format!(
        "database    {}, writable {}",
        database["role"].as_str().unwrap_or("?"),
        database["writable"]
    ));
    say(&format!("dns         {}", status["dns"].as_str().unwrap_or("not seen")));
    let run = &status["run"];
    if run.is_object() {
        say(&format!("transition  {} (rule {}, asked by {})", run["transition"], run["rule"], run["origin"]));
        for step in run["steps"].as_array().into_iter().flatten() {
            let error = step["last_error"].as_str().map(|error| format!("  {error}")).unwrap_or_default();
            let (name, state) =
                (step["name"].as_str().unwrap_or("?"), step["status"].as_str().unwrap_or("?"));
            say(&format!("  {state:<10} {name}{error}"));
        }
        for key in ["halted", "gate_closed"] {
            if let Some(why) = run[key].as_str() {
                say(&format!("  {key}: {why}"));
            }
        }
    }
    for refusal in status["refusals"].as_array().into_iter().flatten() {
        let (name, why) = (&refusal[1]["refusal"], &refusal[1]["why"]);
        say(&format!("refused     {} ({})", name.as_str().unwrap_or("?"), why.as_str().unwrap_or("?")));
    }
}
