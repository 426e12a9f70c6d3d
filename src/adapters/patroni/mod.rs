//! Patroni's REST API (3.x and 4.x): what the database cluster looks like, and the three changes of its
//! configuration that move it. <https://patroni.readthedocs.io/en/latest/rest_api.html>
//!
//! Owns the calls. Never decides a role: that is `rules::database`. Bodies are read in `body`.

mod body;

use std::time::Duration;

use futures_util::future::{join, join_all, join3};
use reqwest::{Client, Method};
use serde_json::{Map, Value, json};

use self::body::{Cluster, Progress};
use super::http_client::{self, Answer, HttpError};
use crate::config::Secret;
use crate::config::patroni::PatroniSettings;
use crate::model::{FailureKind, PatroniSample, PatroniView};

/// Why Patroni could not be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatroniError {
    /// No address of Patroni is set.
    #[error("Patroni: no address is set (PATRONI_LOCAL_API)")]
    NotConfigured,
    /// The call failed.
    #[error("Patroni: {0}")]
    Http(HttpError),
}

impl PatroniError {
    /// How to take it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotConfigured => FailureKind::Permanent,
            Self::Http(error) => error.kind(),
        }
    }
}

/// The local Patroni.
#[derive(Debug, Clone)]
pub struct Patroni {
    client: Client,
    base: String,
    credentials: Option<(String, Secret)>,
    timeout: Duration,
    poll: Duration,
    restore_command: String,
    create_replica_methods: Vec<String>,
}

/// What a member says when asked for a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    /// 200.
    Yes,
    /// 503.
    No,
    /// It does not know the question, or did not answer.
    Silent,
}

/// One member's (or the base address's) answers to both role questions.
#[derive(Debug, Clone, Copy)]
struct Beliefs {
    primary: Belief,
    standby: Belief,
}

impl Patroni {
    /// A client of the Patroni that is set.
    pub fn new(settings: &PatroniSettings) -> Result<Self, PatroniError> {
        let base = settings.base.clone().ok_or(PatroniError::NotConfigured)?;
        let timeout = Duration::from_millis(settings.timeout_ms);
        Ok(Self {
            client: http_client::client(&base, timeout).map_err(PatroniError::Http)?,
            base,
            credentials: settings.credentials.clone(),
            timeout,
            poll: Duration::from_millis(settings.poll_ms),
            restore_command: settings.fence_restore_command.clone(),
            create_replica_methods: settings.fence_create_replica_methods.clone(),
        })
    }

    /// Time between polls.
    pub fn poll_interval(&self) -> Duration {
        self.poll
    }

    /// Looks at the cluster; takes at most two time-outs. Whatever goes wrong with `/config` or `/cluster` makes the
    /// whole sample unknown. A cluster without a leader is a valid view.
    pub async fn poll(&self) -> PatroniSample {
        match self.look().await {
            Ok(view) => PatroniSample::Seen(view),
            Err(error) => PatroniSample::Unknown(error.to_string()),
        }
    }

    async fn look(&self) -> Result<PatroniView, HttpError> {
        let (config, cluster) =
            join(self.get_ok(&self.base, "/config"), self.get_ok(&self.base, "/cluster")).await;
        let (config, cluster) = (config?, cluster?);
        let standby = body::standby(&config.json()?).map_err(|why| config.malformed(why))?;
        let cluster = body::cluster(&cluster.json()?).map_err(|why| cluster.malformed(why))?;
        let (base, members, progress) =
            join3(self.beliefs(&self.base), self.ask_members(&cluster), self.progress(&cluster)).await;
        let (timeline, lsn) = (
            progress.timeline.or_else(|| cluster.leader().and_then(|leader| leader.member.timeline)),
            progress.lsn.or_else(|| cluster.leader().and_then(|leader| leader.lsn)),
        );
        Ok(PatroniView {
            standby_configured: standby.configured,
            standby_host: standby.host,
            primary_endpoint: conclude(base, &members, |beliefs| beliefs.primary),
            standby_endpoint: conclude(base, &members, |beliefs| beliefs.standby),
            timeline,
            lsn,
            in_recovery: progress.in_recovery,
            members: cluster.members.into_iter().map(|listed| listed.member).collect(),
        })
    }

    /// Asks every member that `/cluster` gives an address for; with each answer, whether that member is listed as
    /// working. The base address may be a balanced one, so its answer alone speaks for one member at most.
    async fn ask_members(&self, cluster: &Cluster) -> Vec<(bool, Beliefs)> {
        let asked = cluster.members.iter().map(|listed| async move {
            let beliefs = match &listed.api {
                Some(api) => self.beliefs(api).await,
                None => Beliefs { primary: Belief::Silent, standby: Belief::Silent },
            };
            (listed.member.is_healthy(), beliefs)
        });
        join_all(asked).await
    }

    async fn beliefs(&self, api: &str) -> Beliefs {
        let (primary, standby) =
            join(self.belief(api, "/primary"), self.belief(api, "/standby-leader")).await;
        Beliefs { primary, standby }
    }

    async fn belief(&self, api: &str, path: &str) -> Belief {
        match self.get(api, path).await.map(|answer| answer.status.as_u16()) {
            Ok(200) => Belief::Yes,
            Ok(503) => Belief::No,
            Ok(_) | Err(_) => Belief::Silent,
        }
    }

    /// Timeline and position by the leader itself; empty where it does not answer or is no longer the leader.
    async fn progress(&self, cluster: &Cluster) -> Progress {
        let Some(leader) = cluster.leader() else { return Progress::default() };
        let api = leader.api.as_deref().unwrap_or(&self.base);
        for api in [api, &self.base] {
            if let Ok(json) = self.get_ok(api, "/patroni").await.and_then(|answer| answer.json()) {
                return body::progress(&json);
            }
        }
        Progress::default()
    }

    async fn get(&self, api: &str, path: &str) -> Result<Answer, HttpError> {
        let request = self.client.get(format!("{api}{path}")).header("Accept", "application/json");
        http_client::call(request, &format!("GET {path}")).await
    }

    /// A GET whose only good answer is 200.
    async fn get_ok(&self, api: &str, path: &str) -> Result<Answer, HttpError> {
        let answer = self.get(api, path).await?.success()?;
        if answer.status.as_u16() == 200 {
            Ok(answer)
        } else {
            Err(answer.malformed("a status other than 200"))
        }
    }

    /// Removes `standby_cluster`, so that the leader is promoted. Judged by its status; that the database has been
    /// promoted shows only in later polls. Idempotent.
    pub async fn promote(&self) -> Result<(), PatroniError> {
        self.patch(&json!({ "standby_cluster": null })).await
    }

    /// Whether the configuration still makes this cluster a standby; a promotion that was asked for takes that away.
    ///
    /// # Errors
    /// Where `/config` cannot be read.
    pub async fn is_standby_configured(&self) -> Result<bool, PatroniError> {
        let answer = self.get_ok(&self.base, "/config").await.map_err(PatroniError::Http)?;
        let config = answer.json().map_err(PatroniError::Http)?;
        let standby = body::standby(&config).map_err(|why| PatroniError::Http(answer.malformed(why)))?;
        Ok(standby.configured)
    }

    /// Makes the cluster read-only: a `standby_cluster` without a host. Idempotent.
    ///
    /// No host, on purpose: with one, Patroni would make this site follow it at once, rewinding and silently
    /// discarding the rows that only this site has. Without, the database stays as it is, refuses writes, and a
    /// person (or a later plan) can still compare it. The `restore_command` is what makes Patroni take the section
    /// for a standby cluster at all.
    pub async fn fence(&self) -> Result<(), PatroniError> {
        let mut section = Map::new();
        // A host already there (this site was a standby) would survive the merge. It is nulled only where present:
        // Patroni stores a null literally inside a section that is new.
        let old = self.standby_section().await;
        for key in ["host", "port"] {
            if old.contains_key(key) {
                section.insert(key.to_owned(), Value::Null);
            }
        }
        section.insert("create_replica_methods".to_owned(), json!(self.create_replica_methods));
        section.insert("restore_command".to_owned(), json!(self.restore_command));
        self.patch(&json!({ "standby_cluster": section })).await
    }

    /// Makes the cluster a standby of `host`, which may be a comma list. Rewinds diverged data: only for a site
    /// whose own rows may go. Idempotent. The command that a fence left behind is taken away.
    pub async fn follow(&self, host: &str, port: &str) -> Result<(), PatroniError> {
        let port = port.parse::<u16>().map_or_else(|_| json!(port), |number| json!(number));
        let mut section = Map::from_iter([("host".to_owned(), json!(host)), ("port".to_owned(), port)]);
        let old = self.standby_section().await;
        if old.get("restore_command").and_then(Value::as_str) == Some(&self.restore_command) {
            section.insert("restore_command".to_owned(), Value::Null);
        }
        self.patch(&json!({ "standby_cluster": section })).await
    }

    /// The present `standby_cluster`, empty where there is none or it cannot be read: the change is worth trying
    /// even then.
    async fn standby_section(&self) -> Map<String, Value> {
        match self.get_ok(&self.base, "/config").await.and_then(|answer| answer.json()) {
            Ok(mut config) => match config.get_mut("standby_cluster").map(Value::take) {
                Some(Value::Object(section)) => section,
                _ => Map::new(),
            },
            Err(_) => Map::new(),
        }
    }

    async fn patch(&self, body: &Value) -> Result<(), PatroniError> {
        let mut request = self.client.request(Method::PATCH, format!("{}/config", self.base));
        if let Some((user, password)) = &self.credentials {
            request = request.basic_auth(user, Some(password.expose()));
        }
        let request = request.header("Content-Type", "application/json").body(body.to_string());
        let answer = http_client::call(request, "PATCH /config").await;
        match answer.and_then(Answer::success) {
            // The answer repeats the whole configuration; only its status matters.
            Ok(_) => Ok(()),
            Err(error) => Err(PatroniError::Http(error)),
        }
    }

    /// Time one call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Yes where anyone says yes. No only where the base address and every member that is listed as working say no.
/// Otherwise unknown.
fn conclude(base: Beliefs, members: &[(bool, Beliefs)], of: impl Fn(&Beliefs) -> Belief) -> Option<bool> {
    if of(&base) == Belief::Yes || members.iter().any(|(_, beliefs)| of(beliefs) == Belief::Yes) {
        return Some(true);
    }
    let working: Vec<Belief> = members.iter().filter(|(healthy, _)| *healthy).map(|(_, b)| of(b)).collect();
    // One working member without an address of its own is the one behind the base address.
    let spoken_for = working.len() == 1 && members.len() == 1;
    let all_said_no = working.iter().all(|belief| *belief == Belief::No) || spoken_for;
    (of(&base) == Belief::No && all_said_no).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beliefs(primary: Belief) -> Beliefs {
        Beliefs { primary, standby: Belief::No }
    }

    fn verdict(base: Belief, members: &[(bool, Belief)]) -> Option<bool> {
        let members: Vec<_> = members.iter().map(|(healthy, belief)| (*healthy, beliefs(*belief))).collect();
        conclude(beliefs(base), &members, |b| b.primary)
    }

    #[test]
    fn no_needs_every_working_member_and_yes_needs_one() {
        use Belief::{No, Silent, Yes};
        assert_eq!(verdict(No, &[(true, No), (true, Yes)]), Some(true));
        assert_eq!(
            verdict(Silent, &[(false, Yes)]),
            Some(true),
            "a broken member that takes writes takes writes"
        );
        assert_eq!(verdict(No, &[(true, No), (true, No)]), Some(false));
        assert_eq!(verdict(No, &[(true, No), (false, Silent)]), Some(false), "a dead member need not answer");
        assert_eq!(verdict(No, &[(true, No), (true, Silent)]), None);
        assert_eq!(verdict(Silent, &[(true, No)]), None);
        assert_eq!(verdict(No, &[]), Some(false));
        assert_eq!(verdict(Silent, &[]), None);
        assert_eq!(verdict(No, &[(true, Silent)]), Some(false), "the only member is the one that was asked");
    }
}
