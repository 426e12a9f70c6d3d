//! One simulated site: what the engine's effects do to it, and what its watchers would see.
//!
//! As small as it can be while keeping what safety hangs on: who takes writes, what data exists where, what the record
//! says, where traffic goes. No clock of its own; [`super::pair`] decides when things happen.

use std::collections::BTreeMap;

use crate::model::{
    Detail, Effect, FailureKind, Member, MemberRole, Mono, Outcome, PatroniSample, PatroniView, Record,
    RecordSeen, RecordWrite, Side, Traffic,
};

/// How long a promotion or demotion takes after the configuration was changed.
pub const ROLE_CHANGE_MS: u64 = 400;

/// What the database of a site is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows the other site.
    Standby,
    /// Read-only, follows nobody.
    Fenced,
    /// No pods.
    Stopped,
}

/// The database of a site.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Database {
    /// What it is now.
    pub role: Role,
    /// What its configuration makes of it, from this moment on.
    pub becoming: Option<(Role, Mono)>,
    /// Pods.
    pub replicas: u32,
    /// Volumes that hold data.
    pub volumes: u32,
    /// Timeline of the data.
    pub timeline: u64,
    /// Last position.
    pub lsn: u64,
    /// The environment of the pods names the other site.
    pub follows_peer: bool,
}

/// A simulated site.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Site {
    /// Its side.
    pub side: Side,
    /// The record; `None` = deleted.
    pub record: Option<BTreeMap<String, String>>,
    /// Version of the record.
    pub version: u64,
    /// Replicas of the health deployment.
    pub health: u32,
    /// Where the service points.
    pub traffic: Traffic,
    /// The database.
    pub database: Database,
    /// Pipeline runs started.
    pub runs: u32,
    /// Pipeline runs that will fail.
    pub failing_runs: u32,
    /// Every effect asked of the site, in words.
    pub asked: Vec<String>,
    /// Effects that fail, by the start of their words, and how often.
    pub faults: BTreeMap<String, u32>,
    /// Whether the API server answers.
    pub api_up: bool,
}

impl Site {
    /// The site on a normal day.
    pub fn new(side: Side) -> Self {
        let active = side == Side::Active;
        let record = [("last_stable_state", "active-passive"), ("transition", "")];
        Self {
            side,
            record: Some(record.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()),
            version: 1,
            health: 2,
            traffic: if active { Traffic::Application } else { Traffic::MaintenancePage },
            database: Database {
                role: if active { Role::Primary } else { Role::Standby },
                becoming: None,
                replicas: 3,
                volumes: 3,
                timeline: 1,
                lsn: 1_000,
                follows_peer: !active,
            },
            runs: 0,
            failing_runs: 0,
            asked: Vec::new(),
            faults: BTreeMap::new(),
            api_up: true,
        }
    }

    /// Whether the database takes writes now.
    pub fn is_writable(&self) -> bool {
        self.database.role == Role::Primary && self.database.replicas > 0
    }

    /// Lets time pass: role changes take effect. Gives whether something changed.
    pub fn advance(&mut self, now: Mono) -> bool {
        let Some((role, at)) = self.database.becoming else { return false };
        if now < at {
            return false;
        }
        self.database.becoming = None;
        if role == Role::Primary && self.database.role != Role::Primary {
            self.database.timeline += 1;
        }
        self.database.role = role;
        true
    }

    /// What a look at the record gives.
    pub fn record_seen(&self) -> RecordSeen {
        if !self.api_up {
            return RecordSeen::Unknown("the API server does not answer".to_owned());
        }
        match &self.record {
            Some(data) => {
                RecordSeen::Present(Record::from_data(data.clone(), Some(self.version.to_string())))
            }
            None => RecordSeen::Missing,
        }
    }

    /// What a poll of Patroni gives; `source_ready` = the other site's database can be cloned and followed.
    pub fn patroni_seen(&self) -> PatroniSample {
        let database = &self.database;
        if database.replicas == 0 || database.role == Role::Stopped {
            return PatroniSample::Unknown("no pods".to_owned());
        }
        let primary = database.role == Role::Primary;
        let lead = if primary { MemberRole::Leader } else { MemberRole::StandbyLeader };
        let members = (0..database.replicas)
            .map(|ordinal| Member {
                name: format!("db-{ordinal}"),
                role: if ordinal == 0 { lead } else { MemberRole::Replica },
                role_text: String::new(),
                state: "running".to_owned(),
                timeline: Some(database.timeline),
                lag: None,
            })
            .collect();
        PatroniSample::Seen(PatroniView {
            // The configuration changes at once, the role a moment later.
            standby_configured: !matches!(
                (database.becoming, database.role),
                (Some((Role::Primary, _)), _) | (None, Role::Primary)
            ),
            standby_host: (database.role == Role::Standby && database.becoming.is_none())
                .then(|| "peer".to_owned()),
            members,
            primary_endpoint: Some(primary),
            standby_endpoint: Some(database.role == Role::Standby),
            timeline: Some(database.timeline),
            lsn: Some(database.lsn),
            in_recovery: Some(!primary),
        })
    }

    /// Carries out an effect. Messages to the peer are not its business.
    pub fn apply(&mut self, effect: &Effect, now: Mono) -> Outcome {
        let words = effect.to_string();
        self.asked.push(words.clone());
        if !self.api_up {
            return failed(FailureKind::Transient, "the API server does not answer");
        }
        let fault = self.faults.iter_mut().find(|(start, left)| words.starts_with(*start) && **left > 0);
        if let Some((_, left)) = fault {
            *left -= 1;
            return failed(FailureKind::Transient, "500 Internal Server Error");
        }
        self.change(effect, now)
    }

    fn change(&mut self, effect: &Effect, now: Mono) -> Outcome {
        let soon = now.plus(ROLE_CHANGE_MS);
        let database = &mut self.database;
        match effect {
            Effect::ScaleHealth { replicas } => self.health = *replicas,
            Effect::RouteService(traffic) => self.traffic = *traffic,
            Effect::SetStandbySource { follow_peer } => database.follows_peer = *follow_peer,
            Effect::PromoteDatabase => database.becoming = Some((Role::Primary, soon)),
            Effect::FenceDatabase => database.becoming = Some((Role::Fenced, soon)),
            Effect::ScaleDatabase { replicas: 0 } => {
                (database.replicas, database.role, database.becoming) = (0, Role::Stopped, None);
            }
            Effect::ScaleDatabase { replicas } => {
                if database.replicas == 0 {
                    let role = if database.follows_peer { Role::Standby } else { Role::Primary };
                    database.role = role;
                }
                (database.replicas, database.volumes) = (*replicas, database.volumes.max(*replicas));
            }
            Effect::DeleteVolume { ordinal } => {
                database.volumes = database.volumes.min(if *ordinal == 0 { 0 } else { 3 });
                if *ordinal == 0 {
                    (database.lsn, database.timeline) = (0, 0);
                }
            }
            Effect::TriggerPipeline => {
                self.runs += 1;
                let event_id = format!("{}-{}", self.side, self.runs);
                return Outcome::Done(Detail::PipelineStarted { event_id });
            }
            Effect::WriteRecord(write) => return self.write_record(write),
            Effect::SetRecoveryVars { .. }
            | Effect::SetDisruptionBudget { .. }
            | Effect::RestartMaintenancePage
            | Effect::RestartGateway
            | Effect::SetPortal { .. }
            | Effect::DeleteClusterState
            | Effect::ScaleApplication { .. }
            | Effect::StartApplication
            | Effect::CancelPipelineRun { .. }
            | Effect::SendPeer { .. }
            | Effect::PinRoutes(_) => {}
        }
        Outcome::Done(Detail::Nothing)
    }

    fn write_record(&mut self, write: &RecordWrite) -> Outcome {
        let Some(data) = &mut self.record else {
            return failed(FailureKind::Permanent, "the record was not found");
        };
        if write.expect.as_ref().is_some_and(|expect| *expect != self.version.to_string()) {
            return failed(FailureKind::Conflict, "the record was changed by somebody else");
        }
        if let Some(phase) = &write.phase {
            data.insert("last_stable_state".to_owned(), phase.clone());
        }
        if let Some(transition) = &write.transition {
            data.insert("transition".to_owned(), transition.clone());
        }
        self.version += 1;
        Outcome::Done(Detail::Nothing)
    }

    /// A person edits the record.
    pub fn edit_record(&mut self, key: &str, value: &str) {
        if let Some(data) = &mut self.record {
            data.insert(key.to_owned(), value.to_owned());
            self.version += 1;
        }
    }

    /// `last_stable_state` and `transition`.
    pub fn recorded(&self) -> (String, String) {
        let text =
            |key: &str| self.record.as_ref().and_then(|data| data.get(key)).cloned().unwrap_or_default();
        (text("last_stable_state"), text("transition"))
    }
}

fn failed(kind: FailureKind, reason: &str) -> Outcome {
    Outcome::Failed { kind, reason: reason.to_owned() }
}
