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

mod dry;
mod plan;
mod report;

use std::collections::{BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{Answer, Balancer, Call, CallFailure, GeoPolicy, Pool, PoolChange, balancer, pool, words};
use crate::model::FailureKind;
use plan::removal;
pub use report::{Input, Report, wanted};

/// Rounds of a pass, the verifying ones included.
pub const MAX_ROUNDS: u8 = 5;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    policy: Arc<GeoPolicy>,
    input: Arc<Input>,
    stage: Stage,
    jobs: VecDeque<Job>,
    round: u8,
    rounds: u8,
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
        Self::with_rounds(policy, input, MAX_ROUNDS)
    }

    /// A pass with another number of rounds, the verifying ones included.
    pub fn with_rounds(policy: Arc<GeoPolicy>, input: Arc<Input>, rounds: u8) -> Self {
        Self {
            policy,
            input,
            stage: Stage::ListPools,
            jobs: VecDeque::new(),
            round: 1,
            rounds,
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

    /// A call in words, beside what was read before it.
    pub fn describe(&self, call: &Call) -> String {
        words::describe(call, &self.pools, self.balancer.as_ref())
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
                if let Call::PatchBalancer(_, change) = &call {
                    self.report.enforced |= change.sets_more_than_pools();
                }
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
        if self.round >= self.rounds {
            self.report.unsettled = true;
            return self.give_up(failure);
        }
        self.again = true;
        self.end_round();
    }

    fn end_round(&mut self) {
        // The next round reads everything anew; what is kept would only look like knowledge.
        self.pools.clear();
        self.balancer = None;
        self.jobs.clear();
        if !self.again || self.input.dry_run {
            self.stage = Stage::Done;
        } else if self.round >= self.rounds {
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
}

/// What a pass will do and how it ends, without its policy, its input and the wording of its report: so a walk
/// through interleavings can tell states of the same instances apart cheaply.
impl Hash for Pass {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.stage, &self.jobs, self.round, self.again, self.returned).hash(hasher);
        (&self.pools, &self.balancer, &self.gone).hash(hasher);
        let report = &self.report;
        (report.writes.is_empty(), report.unsettled, &report.failures, &report.blocked).hash(hasher);
    }
}
