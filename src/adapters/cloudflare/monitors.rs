//! Monitors of Cloudflare load balancing: the one of today's settings, found by its description or made.
//!
//! Owns paths and bodies. Never changes or deletes a monitor: a person may have tuned it, and other pools may use it.
//! New settings give a new monitor; pools then move to it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::load_balancing::text;
use super::{Cloudflare, CloudflareError};
use crate::rules::geo::names::short_hash;

/// A monitor to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorSpec {
    /// `http`, `https`, `tcp`, ...
    pub kind: String,
    /// Path of `http` and `https`.
    pub path: String,
    /// Port; `None` = the usual one.
    pub port: Option<u16>,
    /// Expected codes of `http` and `https`.
    pub expected_codes: String,
    /// Seconds between probes.
    pub interval: u64,
    /// `Host` header.
    pub host: String,
    /// What tells our monitors of this load balancer from others.
    pub mark: String,
}

impl MonitorSpec {
    /// The description: the mark and what the settings come to.
    fn description(&self) -> String {
        format!("{} config={}", self.mark, short_hash(&self.fields().to_string()))
    }

    fn fields(&self) -> Value {
        let mut body = json!({
            "type": self.kind, "interval": self.interval,
            "timeout": 5, "retries": 2, "consecutive_up": 2, "consecutive_down": 2,
        });
        if matches!(self.kind.as_str(), "http" | "https") {
            body["method"] = json!("GET");
            body["path"] = json!(self.path);
            body["expected_codes"] = json!(self.expected_codes);
            body["header"] = json!({"Host": [self.host]});
            body["follow_redirects"] = json!(false);
            body["allow_insecure"] = json!(false);
        }
        if let Some(port) = self.port {
            body["port"] = json!(port);
        }
        body
    }

    /// What is wanted, in a line.
    pub fn words(&self) -> String {
        let port = self.port.map_or_else(String::new, |port| format!(" port {port}"));
        match self.kind.as_str() {
            "http" | "https" => format!(
                "{}{port} {} expecting {} every {} s, Host {}",
                self.kind, self.path, self.expected_codes, self.interval, self.host
            ),
            kind => format!("{kind}{port} every {} s", self.interval),
        }
    }
}

/// The monitors of an account that are ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Monitors {
    /// The one of these settings; `None` = there is none yet.
    pub current: Option<String>,
    /// Those of other settings, and doubles.
    pub others: BTreeSet<String>,
}

impl Cloudflare {
    /// Our monitors. Where instances made the same one twice, all of them take the first by identifier.
    ///
    /// # Errors
    /// As the API answers.
    pub async fn monitors(&self, account: &str, spec: &MonitorSpec) -> Result<Monitors, CloudflareError> {
        let list = self.list(&path(account), "monitor").await?;
        let wanted = spec.description();
        let ours = |monitor: &Value| {
            let description = monitor["description"].as_str()?;
            let ours = description == spec.mark || description.starts_with(&format!("{} ", spec.mark));
            ours.then(|| Some((monitor["id"].as_str()?.to_owned(), description == wanted)))?
        };
        let (same, others): (Vec<_>, Vec<_>) = list.iter().filter_map(ours).partition(|(_, same)| *same);
        let mut same: BTreeSet<String> = same.into_iter().map(|(id, _)| id).collect();
        let current = same.pop_first();
        let others = others.into_iter().map(|(id, _)| id).chain(same).collect();
        Ok(Monitors { current, others })
    }

    /// Makes the monitor.
    ///
    /// # Errors
    /// As the API answers; after a transient one it may have been made, and [`Cloudflare::monitors`] tells.
    pub async fn create_monitor(&self, account: &str, spec: &MonitorSpec) -> Result<String, CloudflareError> {
        let mut body = spec.fields();
        body["description"] = json!(spec.description());
        let made = self.write(Method::POST, &path(account), Some(&body), "monitor").await?;
        text(&made, "id", "monitor")
    }
}

fn path(account: &str) -> String {
    format!("/accounts/{account}/load_balancers/monitors")
}
