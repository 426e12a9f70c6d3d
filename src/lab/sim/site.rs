//! One simulated site: record, workloads, traffic, pipeline, and the lab's database with what is broken there.
//!
//! Effects change it at once or start something that takes its time; what is seen of it comes from the same fields.
//! Knows no phase and no rule.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::lab::Delays;
use crate::lab::database::{Database, MemberState, Surroundings};
use crate::lab::dynamic_config::new_config;
use crate::lab::peer_view::SourceFacts;
use crate::lab::volume::Data;
use crate::model::{
    Detail, Effect, FailureKind, PipelineRunSeen, Record, RecordSeen, RecordWrite, RunEvent, Side, Traffic,
    Wall,
};

/// The name under which each site knows the other one's database.
pub const PEER_HOST: &str = "database.peer";
/// Members of a database.
pub const MEMBERS: u32 = 3;
const SYSTEM: u64 = 4_711;
/// How long things of a site take.
const DELAYS: Delays = Delays {
    controller_ms: 0,
    pod_start_ms: 5_000,
    pod_stop_ms: 1_000,
    clone_ms: 20_000,
    promote_ms: 1_500,
    demote_ms: 1_000,
    follow_ms: 1_000,
    rewind_ms: 5_000,
    run_start_ms: 1_000,
    run_ms: 45_000,
};

/// What is broken at a site now.
#[derive(Debug, Clone, Default)]
pub struct Broken {
    /// The Kubernetes API does not answer.
    pub api_down: bool,
    /// Milliseconds that each call takes longer.
    pub api_slow: u64,
    /// Thousandths of calls whose answer is lost after they took effect, and of those that meet a conflict.
    pub api_flaky: u64,
    /// Patroni cannot be reached.
    pub patroni: bool,
    /// Members cannot elect a leader.
    pub no_leader: bool,
    /// Every process of the database is dead.
    pub database: bool,
    /// Resolvers that tell the passive site's address whatever is true.
    pub lying: usize,
    /// Resolvers that do not answer.
    pub silent: usize,
    /// Clients and resolvers cannot be reached from here, nor this site from them.
    pub outside: bool,
    /// Pipeline runs that will fail.
    pub failing_runs: u32,
    /// Pipeline runs hang until they are cancelled.
    pub hanging_runs: bool,
    /// The portal answers 500.
    pub portal: bool,
    /// Milliseconds by which what is replicated from here comes late.
    pub lag: u64,
}

/// A pipeline run.
#[derive(Debug, Clone)]
struct PipelineRun {
    number: u32,
    created: Wall,
    ends: Option<u64>,
    fails: bool,
    over: bool,
    transition: u64,
}

/// A call that did not do what it should.
pub type Refused = (FailureKind, String);

/// A site.
pub struct SimSite {
    /// Which one.
    pub side: Side,
    /// The record's keys.
    pub record: BTreeMap<String, String>,
    /// Version of the record.
    pub version: u64,
    /// Replicas of the health deployment.
    pub health: u32,
    /// Where the service points.
    pub traffic: Traffic,
    /// Database pods wanted.
    pub replicas: u32,
    /// The environment of the database pods names the other site.
    pub follows_peer: bool,
    /// The database.
    pub database: Database,
    /// What is broken.
    pub broken: Broken,
    claims: BTreeSet<u32>,
    runs: Vec<PipelineRun>,
    run_news: Vec<PipelineRunSeen>,
    recreated: BTreeSet<u32>,
    births: BTreeMap<u32, u64>,
    transitions: u64,
}

impl SimSite {
    /// A site on a normal day.
    pub fn new(side: Side) -> Self {
        let active = side == Side::Active;
        let mut database = Database::default();
        let standby = (!active).then(|| (PEER_HOST.to_owned(), 5432));
        database.settle(MEMBERS, Data::fresh(SYSTEM), new_config(standby.as_ref()));
        let record = [("last_stable_state", "active-passive"), ("transition", "")];
        Self {
            side,
            record: record.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            version: 1,
            health: 2,
            traffic: if active { Traffic::Application } else { Traffic::MaintenancePage },
            replicas: MEMBERS,
            follows_peer: !active,
            database,
            broken: Broken::default(),
            claims: (0..MEMBERS).collect(),
            runs: Vec::new(),
            run_news: Vec::new(),
            recreated: BTreeSet::new(),
            births: BTreeMap::new(),
            transitions: 0,
        }
    }

    /// Lets the database and the pipeline go on. `source` is the other site's database, where it can be reached.
    pub fn advance(&mut self, now: u64, source: Option<&SourceFacts>) {
        let pods: BTreeSet<u32> = (0..self.replicas).collect();
        for ordinal in &pods {
            if self.claims.insert(*ordinal) {
                self.recreated.insert(*ordinal);
                *self.births.entry(*ordinal).or_default() += 1;
            }
        }
        let around = Surroundings {
            now_ms: now,
            pods,
            claims: self.claims.clone(),
            standby_env: self.follows_peer.then(|| (PEER_HOST.to_owned(), 5432)),
            source,
            source_host: PEER_HOST,
            no_leader: self.broken.no_leader,
            dead: self.broken.database,
            delays: DELAYS,
        };
        self.database.advance(&around);
        self.advance_runs(now);
    }

    fn advance_runs(&mut self, now: u64) {
        let mut ended = Vec::new();
        for run in self.runs.iter_mut().filter(|run| !run.over && run.ends.is_some_and(|at| at <= now)) {
            run.over = true;
            ended.push(run.clone());
        }
        for run in ended {
            self.run_news.push(self.seen(&run, RunEvent::Modified));
        }
    }

    fn seen(&self, run: &PipelineRun, kind: RunEvent) -> PipelineRunSeen {
        let succeeded = run.over.then_some(!run.fails);
        let reason = match succeeded {
            None => "Running",
            Some(true) => "Completed",
            Some(false) => "Failed",
        };
        PipelineRunSeen {
            kind,
            name: format!("run-{}", run.number),
            event_id: Some(format!("{}-{}", self.side, run.number)),
            release: Some("sso".to_owned()),
            reason: Some(reason.to_owned()),
            succeeded,
            created: Some(run.created.0),
        }
    }

    /// News about pipeline runs since the last call.
    pub fn take_run_news(&mut self) -> Vec<PipelineRunSeen> {
        std::mem::take(&mut self.run_news)
    }

    /// Whether there are any.
    pub fn has_run_news(&self) -> bool {
        !self.run_news.is_empty()
    }

    /// All runs, as a watch lists them when it begins.
    pub fn list_runs(&self) -> Vec<PipelineRunSeen> {
        self.runs.iter().rev().take(10).rev().map(|run| self.seen(run, RunEvent::Added)).collect()
    }

    /// A new transition begins: volumes that an earlier one made may go once more.
    pub fn begin_transition(&mut self) {
        self.recreated.clear();
        self.transitions += 1;
    }

    /// Whether anything is under way that needs the clock.
    pub fn is_moving(&self) -> bool {
        self.database.is_moving() && (self.replicas > 0 || !self.database.members.is_empty())
            || self.runs.iter().any(|run| !run.over && run.ends.is_some())
    }

    /// Whether clients that come here can write.
    pub fn serves(&self) -> bool {
        self.traffic == Traffic::Application && !self.broken.outside
    }

    /// What stands for a volume claim or the pipeline runs so far, so that a later look can compare.
    pub fn identity(&self, effect: &Effect) -> String {
        match effect {
            Effect::DeleteVolume { ordinal } => match self.claims.contains(ordinal) {
                true => format!("{}", self.births.get(ordinal).copied().unwrap_or_default()),
                false => "gone".to_owned(),
            },
            Effect::TriggerPipeline => self.runs.len().to_string(),
            Effect::DeleteClusterState => self.database.config.is_some().to_string(),
            _ => String::new(),
        }
    }

    /// The event of the newest pipeline run.
    pub fn newest_event(&self) -> Option<String> {
        self.runs.last().map(|run| format!("{}-{}", self.side, run.number))
    }

    /// Whether the wanted database pods are there and ready.
    pub fn database_scaled(&self) -> bool {
        let ready = self.database.members.values().filter(|member| member.state == MemberState::Running);
        let (there, ready) = (self.database.members.len(), ready.count());
        let wanted = self.replicas as usize;
        there == wanted && ready == wanted
    }

    /// What a look at the record gives.
    pub fn record_seen(&self) -> RecordSeen {
        if self.broken.api_down {
            return RecordSeen::Unknown("the API server does not answer".to_owned());
        }
        RecordSeen::Present(Record::from_data(self.record.clone(), Some(self.version.to_string())))
    }

    /// `last_stable_state` and `transition`.
    pub fn recorded(&self) -> (&str, &str) {
        let text = |key: &str| self.record.get(key).map_or("", String::as_str);
        (text("last_stable_state"), text("transition"))
    }

    /// A person edits the record.
    pub fn edit_record(&mut self, key: &str, value: &str) {
        self.record.insert(key.to_owned(), value.to_owned());
        self.version += 1;
    }

    /// Carries out an effect on this site. `Ok(true)` in the second place: it was done twice where it may be once.
    ///
    /// # Errors
    /// Where the site refuses it.
    pub fn apply(&mut self, effect: &Effect, now: u64, wall: Wall) -> Result<(Detail, bool), Refused> {
        let nothing = Ok((Detail::Nothing, false));
        match effect {
            Effect::ScaleHealth { replicas } => self.health = *replicas,
            Effect::RouteService(traffic) => self.traffic = *traffic,
            Effect::SetStandbySource { follow_peer } => self.follows_peer = *follow_peer,
            Effect::PromoteDatabase => return self.patch(&json!({"standby_cluster": null})),
            Effect::FenceDatabase => {
                let section = json!({"create_replica_methods": ["basebackup"], "host": null, "port": null});
                return self.patch(&json!({"standby_cluster": section}));
            }
            Effect::ScaleDatabase { replicas } => {
                self.replicas = *replicas;
            }
            Effect::DeleteVolume { ordinal } => return Ok((Detail::Nothing, self.delete_volume(*ordinal))),
            Effect::DeleteClusterState => self.database.config = None,
            Effect::TriggerPipeline => return Ok(self.trigger(now, wall)),
            Effect::CancelPipelineRun { name } => {
                for run in
                    self.runs.iter_mut().filter(|run| !run.over && format!("run-{}", run.number) == *name)
                {
                    (run.fails, run.ends) = (true, Some(now + 2_000));
                }
            }
            Effect::WriteRecord(write) => return self.write_record(write),
            Effect::SetPortal { .. } if self.broken.portal => {
                return Err((FailureKind::Transient, "the portal answered 500".to_owned()));
            }
            Effect::SetPortal { .. }
            | Effect::SetRecoveryVars { .. }
            | Effect::SetDisruptionBudget { .. }
            | Effect::RestartMaintenancePage
            | Effect::RestartGateway
            | Effect::ScaleApplication { .. }
            | Effect::StartApplication
            | Effect::SendPeer { .. }
            | Effect::PinRoutes(_) => {}
        }
        nothing
    }

    fn patch(&mut self, patch: &serde_json::Value) -> Result<(Detail, bool), Refused> {
        if self.broken.patroni || self.database.members.is_empty() {
            return Err((FailureKind::Transient, "Patroni does not answer".to_owned()));
        }
        match self.database.patch_config(patch) {
            Some(_) => Ok((Detail::Nothing, false)),
            None => Err((FailureKind::Transient, "503: no configuration yet".to_owned())),
        }
    }

    /// A claim goes when no pod uses it; deleting one that was made anew in the same rebuild is once too often.
    fn delete_volume(&mut self, ordinal: u32) -> bool {
        let there = self.claims.contains(&ordinal) && ordinal >= self.replicas;
        let again = there && self.recreated.contains(&ordinal);
        if there {
            self.claims.remove(&ordinal);
            self.database.volumes.remove(&ordinal);
        }
        again
    }

    fn trigger(&mut self, now: u64, wall: Wall) -> (Detail, bool) {
        let doubled = self.runs.iter().any(|run| !run.over && run.transition == self.transitions);
        let number = self.runs.last().map_or(1, |run| run.number + 1);
        let fails = self.broken.failing_runs > 0;
        self.broken.failing_runs = self.broken.failing_runs.saturating_sub(1);
        let ends = (!self.broken.hanging_runs).then_some(now + DELAYS.run_start_ms + DELAYS.run_ms);
        let run =
            PipelineRun { number, created: wall, ends, fails, over: false, transition: self.transitions };
        self.run_news.push(self.seen(&run, RunEvent::Added));
        self.runs.push(run);
        (Detail::PipelineStarted { event_id: format!("{}-{number}", self.side) }, doubled)
    }

    fn write_record(&mut self, write: &RecordWrite) -> Result<(Detail, bool), Refused> {
        if write.expect.as_ref().is_some_and(|expect| *expect != self.version.to_string()) {
            return Err((FailureKind::Conflict, "the record was changed by somebody else".to_owned()));
        }
        if let Some(phase) = &write.phase {
            self.record.insert("last_stable_state".to_owned(), phase.clone());
            self.record.insert("last_stable_state_ts".to_owned(), write.timestamp.clone());
        }
        if let Some(transition) = &write.transition {
            self.record.insert("transition".to_owned(), transition.clone());
        }
        self.version += 1;
        Ok((Detail::Nothing, false))
    }
}
