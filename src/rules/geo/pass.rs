//! One pass of an instance over pools and load balancer: which call comes next, given all answers so far.
//!
//! Owns the order of reads and writes, the verification after writing and the reading of failures. Performs nothing:
//! [`Pass::step`] says what is needed, [`Pass::answer`] takes what it brought. So the task and the walk through all
//! interleavings of several instances use the same code.
//!
//! ```text
//! round: list pools -> list load balancers -> own pools (read, change)* -> load balancer (read, change) -> delete*
//!          ^                                                                                         |
//!          +------------------------- pause, where anything was written or contested ----------------+
//! ```
//!
//! A round that had nothing to write ends the pass: that is the verification. A read that fails ends it too, since
//! "could not read" is never "empty". A write that lost a race starts the next round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::names::{self, Marker, Rest};
use super::pool::{self, Standing, Wanted};
use super::{Answer, Balancer, Call, CallFailure, GeoPolicy, OnEmpty, Pool, PoolChange, balancer};
use crate::model::FailureKind;

/// Rounds of a pass, the verifying ones included.
pub const MAX_ROUNDS: u8 = 5;

/// What a pass starts from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Input {
    /// The pools that we want, by name.
    pub wanted: BTreeMap<String, Wanted>,
    /// Names of pools whose grace period is over.
    pub due: BTreeSet<String>,
    /// Whether to compute only.
    pub dry_run: bool,
}

/// The pools that addresses per cluster ask for.
pub fn wanted(policy: &GeoPolicy, clusters: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, Wanted> {
    let pool = |(cluster, addresses): (&String, &BTreeSet<String>)| {
        let wanted = Wanted { cluster: cluster.clone(), addresses: addresses.clone() };
        (names::pool_name(cluster, &policy.geo), wanted)
    };
    clusters.iter().map(pool).collect()
}

/// What a pass found and did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Report {
    /// Calls that changed something.
    pub writes: Vec<&'static str>,
    /// Writes that a dry run would have made.
    pub planned: Vec<Call>,
    /// Own pools without an address.
    pub orphans: BTreeSet<String>,
    /// Pools that others write too although nobody said they are shared.
    pub conflicts: BTreeSet<String>,
    /// Pools with the name of ours that belong to another load balancer.
    pub foreign: BTreeSet<String>,
    /// Empty pools that stay because they are the last ones.
    pub last: BTreeSet<String>,
    /// Pools that cannot be deleted, and who uses them.
    pub blocked: BTreeMap<String, Vec<String>>,
    /// Own pools without a monitor: they never fail over.
    pub unmonitored: BTreeSet<String>,
    /// Origins of each own pool.
    pub origins: BTreeMap<String, usize>,
    /// Pools of the load balancer.
    pub balancer_pools: usize,
    /// Failures.
    pub failures: Vec<CallFailure>,
    /// The rounds were used up without a quiet one.
    pub unsettled: bool,
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.blocked.is_empty() && !self.unsettled
    }
}

/// What the pass needs next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// This call.
    Call(Call),
    /// A short wait, so that others can finish; then [`Pass::resume`].
    Pause,
    /// Nothing: it is over.
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Job {
    Create(String),
    Update(String),
    Remove(String),
    Return(String),
    Confirm(String),
    Balancer,
    Delete(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    ListPools,
    ListBalancers,
    /// Reads a pool again before it is changed.
    Fresh(Job, String),
    WritePool(Call),
    FreshBalancer(String),
    WriteBalancer(Call),
    Delete(String),
    References(String),
    Pause,
    Done,
}

/// A pass under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pass {
    policy: Arc<GeoPolicy>,
    input: Arc<Input>,
    stage: Stage,
    jobs: VecDeque<Job>,
    round: u8,
    /// This round wrote, or lost a race: there must be another one.
    again: bool,
    /// A pool was put back into service, so that it is not taken out again by the same pass.
    returned: bool,
    pools: Vec<Pool>,
    balancer: Option<Balancer>,
    gone: BTreeSet<String>,
    report: Report,
}

impl Pass {
    /// A pass that has not begun.
    pub fn new(policy: Arc<GeoPolicy>, input: Arc<Input>) -> Self {
        Self {
            policy,
            input,
            stage: Stage::ListPools,
            jobs: VecDeque::new(),
            round: 1,
            again: false,
            returned: false,
            pools: Vec::new(),
            balancer: None,
            gone: BTreeSet::new(),
            report: Report::default(),
        }
    }

    /// What is needed next.
    pub fn step(&self) -> Step {
        Step::Call(match &self.stage {
            Stage::ListPools => Call::ListPools,
            Stage::ListBalancers => Call::ListBalancers,
            Stage::Fresh(_, id) => Call::GetPool(id.clone()),
            Stage::FreshBalancer(id) => Call::GetBalancer(id.clone()),
            Stage::WritePool(call) | Stage::WriteBalancer(call) => call.clone(),
            Stage::Delete(id) => Call::DeletePool(id.clone()),
            Stage::References(id) => Call::References(id.clone()),
            Stage::Pause => return Step::Pause,
            Stage::Done => return Step::Done,
        })
    }

    /// What it found and did so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The round under way, from 1.
    pub fn round(&self) -> u8 {
        self.round
    }

    /// Goes on after a pause.
    pub fn resume(&mut self) {
        if self.stage == Stage::Pause {
            self.stage = Stage::ListPools;
        }
    }

    /// Takes what the call of [`Pass::step`] brought.
    pub fn answer(&mut self, answer: Result<Answer, CallFailure>) {
        match answer {
            Ok(answer) => self.succeeded(answer),
            Err(failure) => self.failed(failure),
        }
        self.plan_dry();
    }

    fn succeeded(&mut self, answer: Answer) {
        match (self.stage.clone(), answer) {
            (Stage::ListPools, Answer::Pools(pools)) => {
                self.pools = pools;
                self.gone.clear();
                self.stage = Stage::ListBalancers;
            }
            (Stage::ListBalancers, Answer::Balancers(list)) => {
                self.balancer = list.into_iter().find(|balancer| balancer.name == self.policy.hostname);
                self.plan_round();
                self.next_job();
            }
            (Stage::Fresh(job, _), Answer::Pool(pool)) => self.fresh(&job, pool),
            (Stage::WritePool(call), Answer::Pool(pool)) => {
                self.wrote(if matches!(call, Call::CreatePool(_)) { "create-pool" } else { "patch-pool" });
                self.keep(pool);
                self.next_job();
            }
            (Stage::FreshBalancer(_), Answer::Balancer(balancer)) => {
                let change = balancer::change(&self.policy, &self.pools, &self.gone, &balancer);
                let id = balancer.id.clone();
                self.balancer = Some(balancer);
                match change {
                    Some(change) => self.stage = Stage::WriteBalancer(Call::PatchBalancer(id, change)),
                    None => self.next_job(),
                }
            }
            (Stage::WriteBalancer(call), Answer::Balancer(balancer)) => {
                let created = matches!(call, Call::CreateBalancer(_));
                self.wrote(if created { "create-balancer" } else { "patch-balancer" });
                self.balancer = Some(balancer);
                self.next_job();
            }
            (Stage::Delete(id), Answer::Deleted) => {
                self.wrote("delete-pool");
                self.drop_pool(&id);
                self.next_job();
            }
            (Stage::References(id), Answer::References(users)) => {
                self.report.blocked.insert(self.name_of(&id), users);
                self.next_job();
            }
            // An answer to another question: the caller is wrong, and going on would be guessing.
            (_, other) => {
                let reason =
                    format!("an answer that was not asked for: {other:?}").chars().take(80).collect();
                self.give_up(CallFailure {
                    kind: FailureKind::Permanent,
                    missing: false,
                    taken: false,
                    forbidden: false,
                    reason,
                });
            }
        }
    }

    fn failed(&mut self, failure: CallFailure) {
        match self.stage.clone() {
            Stage::ListPools | Stage::ListBalancers => self.give_up(failure),
            // Gone between the list and now: that is a fact about this entry, and a reason to look again otherwise.
            Stage::Fresh(Job::Confirm(id), _) if failure.missing => {
                self.gone.insert(id);
                self.next_job();
            }
            Stage::Fresh(..) | Stage::FreshBalancer(_) if failure.missing => self.contested(failure),
            Stage::Fresh(..) | Stage::FreshBalancer(_) => self.give_up(failure),
            Stage::Delete(id) if failure.missing => {
                self.drop_pool(&id);
                self.next_job();
            }
            Stage::Delete(id) if failure.kind == FailureKind::Conflict => self.stage = Stage::References(id),
            Stage::References(id) => {
                self.report.blocked.insert(self.name_of(&id), vec![failure.reason]);
                self.next_job();
            }
            _ if failure.forbidden => self.give_up(failure),
            Stage::WriteBalancer(_) => self.contested(failure),
            _ if failure.taken || failure.missing || failure.kind != FailureKind::Permanent => {
                self.contested(failure);
            }
            _ => {
                self.report.failures.push(failure);
                self.next_job();
            }
        }
    }

    /// What there is to do in this round. Also fills the report, anew in each round.
    fn plan_round(&mut self) {
        self.jobs.clear();
        let writes = std::mem::take(&mut self.report.writes);
        let last = std::mem::take(&mut self.report.last);
        self.report = Report { writes, last, ..Report::default() };
        self.report.balancer_pools = self.balancer.as_ref().map_or(0, |b| b.default_pools.len());
        for (name, wanted) in &self.input.wanted {
            match self.pools.iter().find(|pool| pool.name == *name) {
                None => self.jobs.push_back(Job::Create(name.clone())),
                Some(pool) => {
                    self.report.origins.insert(name.clone(), pool.origins.len());
                    if pool.monitor.is_none() && self.policy.monitor.is_none() {
                        self.report.unmonitored.insert(name.clone());
                    }
                    if pool::change(&self.policy, wanted, pool).is_some() {
                        self.jobs.push_back(Job::Update(pool.id.clone()));
                    }
                    note_standing(&self.policy, &mut self.report, pool);
                }
            }
        }
        self.plan_orphans();
        if let Some(balancer) = &self.balancer {
            let unknown = balancer::unknown_entries(balancer, &self.pools);
            self.jobs.extend(unknown.into_iter().map(Job::Confirm));
        }
        self.jobs.push_back(Job::Balancer);
        if self.policy.on_empty == OnEmpty::Delete {
            let due = |pool: &&Pool| self.report.orphans.contains(&pool.name) && self.is_due(pool);
            let ids: Vec<String> = self.pools.iter().filter(due).map(|pool| pool.id.clone()).collect();
            self.jobs.extend(ids.into_iter().map(Job::Delete));
        }
    }

    fn plan_orphans(&mut self) {
        if let Some(balancer) = &self.balancer
            && let Some(pool) = balancer::must_return(&self.policy, &self.pools, balancer)
            && !self.input.wanted.contains_key(&pool.name)
        {
            self.jobs.push_back(Job::Return(pool.id.clone()));
        }
        for pool in &self.pools {
            let Some(marker) = Marker::read(&pool.description) else { continue };
            let ours = marker.lb == self.policy.hostname && marker.owners.contains(&self.policy.owner);
            if !ours || self.input.wanted.contains_key(&pool.name) {
                continue;
            }
            self.report.orphans.insert(pool.name.clone());
            self.report.origins.insert(pool.name.clone(), pool.origins.len());
            if !marker.is_only(&self.policy.owner) {
                note_standing(&self.policy, &mut self.report, pool);
                continue;
            }
            if self.is_due(pool) && removal(self.policy.on_empty, pool).is_some() {
                self.jobs.push_back(Job::Remove(pool.id.clone()));
            }
        }
    }

    fn is_due(&self, pool: &Pool) -> bool {
        self.input.due.contains(&pool.name)
    }

    fn next_job(&mut self) {
        while let Some(job) = self.jobs.pop_front() {
            if let Some(stage) = self.stage_of(job) {
                self.stage = stage;
                return;
            }
        }
        self.end_round();
    }

    fn stage_of(&mut self, job: Job) -> Option<Stage> {
        match &job {
            Job::Create(name) => {
                let wanted = self.input.wanted.get(name)?;
                Some(Stage::WritePool(Call::CreatePool(pool::new_pool(&self.policy, name, wanted))))
            }
            Job::Remove(id) if self.is_last(id) => {
                self.report.last.insert(self.name_of(id));
                None
            }
            Job::Update(id) | Job::Remove(id) | Job::Return(id) | Job::Confirm(id) => {
                let id = id.clone();
                Some(Stage::Fresh(job, id))
            }
            Job::Balancer => match &self.balancer {
                Some(current) => balancer::change(&self.policy, &self.pools, &self.gone, current)
                    .map(|_| Stage::FreshBalancer(current.id.clone())),
                None if self.input.wanted.is_empty() => None,
                None => balancer::new_balancer(&self.policy, &self.pools)
                    .map(|new| Stage::WriteBalancer(Call::CreateBalancer(new))),
            },
            Job::Delete(id) => self.may_delete(id).then(|| Stage::Delete(id.clone())),
        }
    }

    fn is_last(&self, id: &str) -> bool {
        let other = |b: &Balancer| balancer::has_other(&self.policy, &self.pools, b, id);
        self.returned || self.balancer.as_ref().is_some_and(|balancer| !other(balancer))
    }

    /// Only what we disabled ourselves and the load balancer no longer names.
    fn may_delete(&self, id: &str) -> bool {
        let leaving = |pool: &Pool| pool.id == id && balancer::is_own_leaving(&self.policy, pool);
        let named = |balancer: &Balancer| {
            balancer.default_pools.iter().chain(&balancer.fallback_pool).any(|entry| entry == id)
        };
        self.pools.iter().any(leaving) && !self.balancer.as_ref().is_some_and(named)
    }

    fn fresh(&mut self, job: &Job, pool: Pool) {
        let change: Option<PoolChange> = match job {
            Job::Update(_) => {
                self.input.wanted.get(&pool.name).and_then(|wanted| pool::change(&self.policy, wanted, &pool))
            }
            Job::Remove(_) => removal(self.policy.on_empty, &pool),
            Job::Return(_) => {
                self.returned = true;
                self.report.last.insert(pool.name.clone());
                pool::rest(&pool, None)
            }
            Job::Create(_) | Job::Confirm(_) | Job::Balancer | Job::Delete(_) => None,
        };
        let id = pool.id.clone();
        self.keep(pool);
        match change {
            Some(change) => self.stage = Stage::WritePool(Call::PatchPool(id, change)),
            None => self.next_job(),
        }
    }

    fn keep(&mut self, pool: Pool) {
        match self.pools.iter_mut().find(|known| known.id == pool.id) {
            Some(known) => *known = pool,
            None => self.pools.push(pool),
        }
    }

    fn drop_pool(&mut self, id: &str) {
        self.report.orphans.remove(&self.name_of(id));
        self.pools.retain(|pool| pool.id != id);
    }

    fn name_of(&self, id: &str) -> String {
        self.pools.iter().find(|pool| pool.id == id).map_or(id, |pool| &pool.name).to_owned()
    }

    fn wrote(&mut self, what: &'static str) {
        self.report.writes.push(what);
        self.again = true;
    }

    /// Somebody else was faster, or nobody knows what became of the write: look again.
    fn contested(&mut self, failure: CallFailure) {
        if self.round >= MAX_ROUNDS {
            return self.give_up(failure);
        }
        self.again = true;
        self.end_round();
    }

    fn end_round(&mut self) {
        if !self.again || self.input.dry_run {
            self.stage = Stage::Done;
        } else if self.round >= MAX_ROUNDS {
            self.report.unsettled = true;
            self.stage = Stage::Done;
        } else {
            self.again = false;
            self.round += 1;
            self.stage = Stage::Pause;
        }
    }

    fn give_up(&mut self, failure: CallFailure) {
        self.report.failures.push(failure);
        self.jobs.clear();
        self.stage = Stage::Done;
    }

    /// A dry run notes its writes and goes on as if they had been made.
    fn plan_dry(&mut self) {
        while self.input.dry_run {
            let Step::Call(call) = self.step() else { return };
            if !call.writes() {
                return;
            }
            let pretended = self.pretend(&call);
            self.report.planned.push(call);
            match pretended {
                Some(answer) => self.succeeded(answer),
                None => self.next_job(),
            }
            self.report.writes.clear();
        }
    }

    fn pretend(&self, call: &Call) -> Option<Answer> {
        match call {
            Call::CreatePool(pool) => {
                Some(Answer::Pool(Pool { id: format!("(new {})", pool.name), ..pool.clone() }))
            }
            Call::PatchPool(id, change) => {
                let mut pool = self.pools.iter().find(|pool| pool.id == *id)?.clone();
                change.apply(&mut pool);
                Some(Answer::Pool(pool))
            }
            Call::CreateBalancer(new) => {
                Some(Answer::Balancer(Balancer { id: "(new)".into(), ..new.clone() }))
            }
            Call::PatchBalancer(_, change) => {
                let mut balancer = self.balancer.clone()?;
                balancer.default_pools = change.default_pools.clone().unwrap_or(balancer.default_pools);
                balancer.fallback_pool = change.fallback_pool.clone().or(balancer.fallback_pool);
                Some(Answer::Balancer(balancer))
            }
            Call::DeletePool(_) => Some(Answer::Deleted),
            _ => None,
        }
    }
}

impl PoolChange {
    /// Makes the change on a copy.
    pub fn apply(&self, pool: &mut Pool) {
        if let Some(description) = &self.description {
            pool.description.clone_from(description);
        }
        pool.enabled = self.enabled.unwrap_or(pool.enabled);
        if let Some((latitude, longitude)) = self.coordinates {
            (pool.latitude, pool.longitude) = (Some(latitude), Some(longitude));
        }
        if self.monitor.is_some() {
            pool.monitor.clone_from(&self.monitor);
        }
        if let Some(origins) = &self.origins {
            pool.origins.clone_from(origins);
        }
    }
}

fn note_standing(policy: &GeoPolicy, report: &mut Report, pool: &Pool) {
    match pool::standing(policy, pool) {
        Standing::Own => {}
        Standing::Together if policy.shared_pool => {}
        Standing::Together => {
            report.conflicts.insert(pool.name.clone());
        }
        Standing::Foreign => {
            report.foreign.insert(pool.name.clone());
        }
    }
}

/// How an empty pool is taken out of service; `None` = it already is, or a person did it, or nothing is asked.
fn removal(on_empty: OnEmpty, pool: &Pool) -> Option<PoolChange> {
    match on_empty {
        OnEmpty::Keep => None,
        OnEmpty::Disable if !pool.enabled => None,
        OnEmpty::Disable => pool::rest(pool, Some(Rest::Empty)),
        OnEmpty::Delete => pool::rest(pool, Some(Rest::Leaving)),
    }
}
