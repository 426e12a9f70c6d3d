//! What a round of a pass has to do, from what was read at its beginning.
//!
//! Pure. Fills the report anew in each round, so that it tells how things ended.

use super::{Job, Pass, Report};
use crate::rules::geo::names::{Marker, Rest};
use crate::rules::geo::pool::{self, Standing};
use crate::rules::geo::{GeoPolicy, OnEmpty, Pool, PoolChange, balancer};

impl Pass {
    /// What there is to do in this round. Also fills the report, anew in each round.
    pub(super) fn plan_round(&mut self) {
        self.jobs.clear();
        let writes = std::mem::take(&mut self.report.writes);
        let last = std::mem::take(&mut self.report.last);
        let enforced = self.report.enforced;
        self.report = Report { writes, last, enforced, looked: true, ..Report::default() };
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
                    note_standing(&self.policy, Some(&wanted.cluster), &mut self.report, pool);
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
                note_standing(&self.policy, None, &mut self.report, pool);
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
}

fn note_standing(policy: &GeoPolicy, cluster: Option<&str>, report: &mut Report, pool: &Pool) {
    match pool::standing(policy, cluster, pool) {
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
pub(super) fn removal(on_empty: OnEmpty, pool: &Pool) -> Option<PoolChange> {
    match on_empty {
        OnEmpty::Keep => None,
        OnEmpty::Disable if !pool.enabled => None,
        OnEmpty::Disable => pool::rest(pool, Some(Rest::Empty)),
        OnEmpty::Delete => pool::rest(pool, Some(Rest::Leaving)),
    }
}
