//! The database of a site: volumes, members, and what Patroni makes of them. Time is passed in; no I/O.
//!
//! Roles follow the configuration: a leader without `standby_cluster` promotes itself, one with it becomes
//! read-only and follows its host, each after its delay, so that what the configuration says and what PostgreSQL
//! does differ for a while, as in the real thing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::dynamic_config::{follows, is_standby, new_config};
use super::peer_view::SourceFacts;
use super::settings::Delays;
use super::volume::{Data, Fit, fit};

/// What a member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// Its pod is starting; it may go on at this moment.
    Starting(u64),
    /// It copies or makes a database until this moment.
    Creating(u64),
    /// It runs.
    Running,
}

/// A member of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// What it does.
    pub state: MemberState,
    /// Whether its PostgreSQL is in recovery (read-only).
    pub recovering: bool,
    /// Whether it receives from its source.
    pub streaming: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Promote,
    Demote,
    Follow,
    Rewind,
}

/// A time in which the database accepted writes, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Interval {
    /// First moment.
    pub start_ms: u64,
    /// Last moment; `None` = it still does.
    pub end_ms: Option<u64>,
}

/// What the database sees of its site in one step.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Ordinals of the pods that live.
    pub pods: BTreeSet<u32>,
    /// Ordinals of the volume claims that exist.
    pub claims: BTreeSet<u32>,
    /// `STANDBY_HOST` and `STANDBY_PORT`, where a host is set.
    pub standby_env: Option<(String, u16)>,
    /// The database at the other site, where it can be reached.
    pub source: Option<&'a SourceFacts>,
    /// The name under which the other site's database is known.
    pub source_host: &'a str,
    /// Members can't elect a leader.
    pub no_leader: bool,
    /// Every process of the database is dead.
    pub dead: bool,
    /// How long things take.
    pub delays: Delays,
}

/// The database of one site.
#[derive(Debug, Default)]
pub struct Database {
    /// What is on the volumes, by ordinal.
    pub volumes: BTreeMap<u32, Data>,
    /// The members whose pods live, by ordinal.
    pub members: BTreeMap<u32, Member>,
    /// Who holds the leader lock.
    pub leader: Option<u32>,
    /// The dynamic configuration; `None` = the cluster state is gone.
    pub config: Option<Value>,
    /// When it accepted writes.
    pub intervals: Vec<Interval>,
    goal: Option<(Goal, u64)>,
}

impl Database {
    /// Puts the database into a settled situation.
    pub fn settle(&mut self, pods: u32, mut data: Data, config: Value) {
        data.dynamic = config.clone();
        let standby = is_standby(&config);
        self.volumes = (0..pods).map(|ordinal| (ordinal, data.clone())).collect();
        self.members = (0..pods)
            .map(|ordinal| {
                let recovering = standby || ordinal > 0;
                let streaming = ordinal > 0 || follows(&config).is_some();
                (ordinal, Member { state: MemberState::Running, recovering, streaming })
            })
            .collect();
        self.leader = (pods > 0).then_some(0);
        self.config = Some(config);
        self.goal = None;
    }

    /// Whether something is under way in it: a member that starts, a change of role that waits for its delay.
    pub fn is_moving(&self) -> bool {
        let starts = |member: &Member| member.state != MemberState::Running;
        self.goal.is_some() || self.leader.is_none() || self.members.values().any(starts)
    }

    /// Whether it accepts writes.
    pub fn writable(&self) -> bool {
        self.leader_member().is_some_and(|member| !member.recovering)
    }

    /// Data of the leader.
    pub fn leader_data(&self) -> Option<&Data> {
        self.volumes.get(&self.leader?)
    }

    /// The leader, where it runs.
    pub fn leader_member(&self) -> Option<&Member> {
        self.members.get(&self.leader?).filter(|member| member.state == MemberState::Running)
    }

    /// What a standby at the other site sees.
    pub fn as_source(&self) -> Option<SourceFacts> {
        self.leader_member()?;
        let data = self.leader_data()?;
        Some(SourceFacts {
            system: data.system,
            timeline: data.timeline,
            lsn: data.lsn,
            writable: self.writable(),
            switches: data.switches.clone(),
            rows: Arc::clone(&data.rows),
        })
    }

    /// Writes a row; `false` = refused.
    pub fn write(&mut self, row: u64) -> bool {
        if !self.writable() {
            return false;
        }
        match self.leader.and_then(|leader| self.volumes.get_mut(&leader)) {
            Some(data) => {
                data.append(row);
                true
            }
            None => false,
        }
    }

    /// Changes the configuration by a recursive merge in which `null` deletes; gives the whole new one.
    pub fn patch_config(&mut self, patch: &Value) -> Option<Value> {
        let config = self.config.as_mut()?;
        super::api::patch::merge(config, patch);
        Some(config.clone())
    }

    /// One step of the world.
    pub fn advance(&mut self, around: &Surroundings<'_>) {
        self.volumes.retain(|ordinal, _| around.claims.contains(ordinal));
        let alive = |ordinal: &u32| !around.dead && around.pods.contains(ordinal);
        self.members.retain(|ordinal, _| alive(ordinal));
        for ordinal in around.pods.iter().filter(|ordinal| alive(ordinal)) {
            self.members.entry(*ordinal).or_insert(Member {
                state: MemberState::Starting(around.now_ms + around.delays.pod_start_ms),
                recovering: true,
                streaming: false,
            });
        }
        self.advance_members(around);
        self.keep_config(around);
        self.elect(around);
        self.advance_leader(around);
        self.advance_replicas();
        self.note_interval(around.now_ms);
    }

    fn advance_members(&mut self, around: &Surroundings<'_>) {
        for ordinal in self.members.keys().copied().collect::<Vec<_>>() {
            let Some(member) = self.members.get(&ordinal).copied() else { continue };
            let next = match member.state {
                MemberState::Starting(at) if at <= around.now_ms => self.start(ordinal, around),
                MemberState::Creating(at) if at <= around.now_ms => self.create(ordinal, around),
                // The volume was taken away under the member: it starts again, on an empty one.
                MemberState::Running if !self.volumes.contains_key(&ordinal) => {
                    Some(Member { state: MemberState::Starting(around.now_ms), ..member })
                }
                _ => None,
            };
            if let Some(next) = next {
                self.members.insert(ordinal, next);
            }
        }
    }

    fn start(&mut self, ordinal: u32, around: &Surroundings<'_>) -> Option<Member> {
        let (recovering, streaming) = (true, false);
        if !around.claims.contains(&ordinal) {
            return None;
        }
        if self.volumes.contains_key(&ordinal) {
            return Some(Member { state: MemberState::Running, recovering, streaming });
        }
        let creates = self.leader_member().is_some()
            || match self.standby_host(around) {
                Some(host) => host_matches(&host, around) && around.source.is_some(),
                // Without cluster state the first member makes a new database; with it, it waits for a leader.
                None => self.config.is_none() && ordinal == 0,
            };
        creates.then_some(Member {
            state: MemberState::Creating(around.now_ms + around.delays.clone_ms),
            recovering,
            streaming,
        })
    }

    fn create(&mut self, ordinal: u32, around: &Surroundings<'_>) -> Option<Member> {
        let data = match (self.leader_member(), self.leader_data(), self.standby_host(around)) {
            (Some(_), Some(data), _) => Some(data.clone()),
            (_, _, Some(_)) => around.source.map(Data::copy_of),
            _ if self.config.is_none() => Some(Data::fresh(rand::random::<u64>() >> 1)),
            _ => None,
        };
        let fresh = data.as_ref().is_some_and(|data| data.timeline == 1 && data.rows.is_empty());
        match data {
            Some(data) => {
                let first = self.leader_member().is_none() && self.standby_host(around).is_none();
                self.volumes.insert(ordinal, data);
                let recovering = !(first && fresh);
                Some(Member { state: MemberState::Running, recovering, streaming: false })
            }
            None => Some(Member {
                state: MemberState::Starting(around.now_ms),
                recovering: true,
                streaming: false,
            }),
        }
    }

    /// The host to follow: from the configuration, or from the environment where there is none yet.
    fn standby_host(&self, around: &Surroundings<'_>) -> Option<String> {
        match &self.config {
            Some(config) => follows(config),
            None => around.standby_env.as_ref().map(|(host, _)| host.clone()),
        }
    }

    /// A running member writes the configuration again where it is gone: from its own copy, or as a new cluster.
    fn keep_config(&mut self, around: &Surroundings<'_>) {
        let running = self.members.iter().find(|(_, member)| member.state == MemberState::Running);
        if let (None, Some((ordinal, _))) = (&self.config, running) {
            let kept = self.volumes.get(ordinal).map(|data| data.dynamic.clone());
            let kept = kept.filter(Value::is_object);
            self.config = Some(kept.unwrap_or_else(|| new_config(around.standby_env.as_ref())));
        }
        if let Some(config) = &self.config {
            for data in self.volumes.values_mut().filter(|data| data.dynamic != *config) {
                data.dynamic = config.clone();
            }
        }
    }

    fn elect(&mut self, around: &Surroundings<'_>) {
        if around.no_leader || self.leader_member().is_none() {
            if let Some(member) = self.leader.and_then(|leader| self.members.get_mut(&leader)) {
                member.recovering = true;
            }
            self.leader = None;
            self.goal = None;
        }
        if self.leader.is_some() || around.no_leader {
            return;
        }
        let best = self
            .members
            .iter()
            .filter(|(_, member)| member.state == MemberState::Running)
            .filter_map(|(ordinal, _)| self.volumes.get(ordinal).map(|data| (*ordinal, data)))
            .max_by_key(|(ordinal, data)| (data.timeline, data.lsn, std::cmp::Reverse(*ordinal)));
        self.leader = best.map(|(ordinal, _)| ordinal);
    }

    fn advance_leader(&mut self, around: &Surroundings<'_>) {
        let (Some(leader), Some(config)) = (self.leader, self.config.clone()) else { return };
        let (Some(member), Some(data)) = (self.members.get(&leader), self.volumes.get(&leader)) else {
            return;
        };
        let source = follows(&config)
            .filter(|host| host_matches(host, around))
            .and(around.source)
            .filter(|source| source.system == data.system);
        let wanted = match (is_standby(&config), member.recovering, source) {
            (false, true, _) => Some(Goal::Promote),
            (true, false, _) => Some(Goal::Demote),
            (true, true, Some(source)) => match fit(data, source) {
                Fit::Same if member.streaming => None,
                Fit::Same => Some(Goal::Follow),
                Fit::Diverged => Some(Goal::Rewind),
                Fit::Ahead => None,
            },
            (true, true, None) | (false, false, _) => None,
        };
        let streams = wanted.is_none() && source.is_some_and(|source| fit(data, source) == Fit::Same);
        let due = self.due(wanted, around);
        let (Some(member), Some(data)) = (self.members.get_mut(&leader), self.volumes.get_mut(&leader))
        else {
            return;
        };
        member.streaming = streams;
        match (due, source) {
            (Some(Goal::Promote), _) => {
                data.promote();
                member.recovering = false;
            }
            (Some(Goal::Demote), _) => member.recovering = true,
            (Some(Goal::Follow), _) => member.streaming = true,
            (Some(Goal::Rewind), Some(source)) => {
                *data = Data { dynamic: config, ..Data::copy_of(source) };
                member.streaming = true;
            }
            (Some(Goal::Rewind), None) | (None, _) => {}
        }
        if let (true, Some(source)) = (member.streaming, source)
            && (source.timeline, source.lsn) != (data.timeline, data.lsn)
        {
            *data = Data { dynamic: data.dynamic.clone(), ..Data::copy_of(source) };
        }
    }

    /// Starts, keeps or drops the delay before a change; gives the change when its time has come.
    fn due(&mut self, wanted: Option<Goal>, around: &Surroundings<'_>) -> Option<Goal> {
        let Some(wanted) = wanted else {
            self.goal = None;
            return None;
        };
        let delay = match wanted {
            Goal::Promote => around.delays.promote_ms,
            Goal::Demote => around.delays.demote_ms,
            Goal::Follow => around.delays.follow_ms,
            Goal::Rewind => around.delays.rewind_ms,
        };
        let at = match self.goal {
            Some((goal, at)) if goal == wanted => at,
            _ => around.now_ms + delay,
        };
        self.goal = (at > around.now_ms).then_some((wanted, at));
        (at <= around.now_ms).then_some(wanted)
    }

    fn advance_replicas(&mut self) {
        let source = self.leader_member().and(self.leader_data()).cloned();
        for (ordinal, member) in &mut self.members {
            if Some(*ordinal) == self.leader || member.state != MemberState::Running {
                continue;
            }
            member.recovering = true;
            member.streaming = source.is_some();
            if let (Some(source), Some(data)) = (&source, self.volumes.get_mut(ordinal))
                && data != source
            {
                *data = source.clone();
            }
        }
    }

    fn note_interval(&mut self, now_ms: u64) {
        let open = self.intervals.last().is_some_and(|interval| interval.end_ms.is_none());
        match (open, self.writable()) {
            (false, true) => self.intervals.push(Interval { start_ms: now_ms, end_ms: None }),
            (true, false) => {
                if let Some(last) = self.intervals.last_mut() {
                    last.end_ms = Some(now_ms);
                }
            }
            _ => {}
        }
    }
}

/// `standby_cluster.host` may be a list with commas.
fn host_matches(host: &str, around: &Surroundings<'_>) -> bool {
    host.split(',').any(|one| one.trim() == around.source_host)
}
