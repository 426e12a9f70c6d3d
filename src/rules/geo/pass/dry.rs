//! A pass that only computes: writes are noted and pretended, so that the following ones are computed as well.

use super::{Pass, Step};
use crate::rules::geo::{Answer, Balancer, Call, Pool, PoolChange};

impl Pass {
    /// A dry run notes its writes and goes on as if they had been made.
    pub(super) fn plan_dry(&mut self) {
        while self.input.dry_run {
            let Step::Call(call) = self.step() else { return };
            if !call.writes() {
                return;
            }
            let pretended = self.pretend(&call);
            let words = self.describe(&call);
            self.report.planned.push(words);
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
