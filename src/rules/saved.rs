//! The part of the state that survives a restart, and how a new process takes it up.

use super::lag::LagMemory;
use super::sensors::SensorMemory;
use super::state::{State, StepStatus};
use crate::model::{Mono, PeerLink, PeerStatus, RecordSeen};

impl State {
    /// What must survive a restart: everything that is not seen again by itself.
    pub fn durable(&self) -> Self {
        let mut durable = self.clone();
        durable.record = RecordSeen::Unknown("not read since the start".to_owned());
        durable.damping.forget();
        durable.dns_result = None;
        durable.patroni = None;
        durable.patroni_told = None;
        durable.peer.link = PeerLink::Unknown;
        durable.peer.status = self.peer.status.as_ref().map(|(status, _)| {
            // Of the peer only what fences old orders is kept; facts about its database must be fresh.
            let kept = PeerStatus { generation: status.generation, ..PeerStatus::default() };
            (kept, Mono(0))
        });
        durable.sensors = SensorMemory::default();
        durable.lease = self.lease.durable();
        durable.lag = LagMemory::default();
        durable.automation.traffic_moved = false;
        durable.automation.last_refusal = None;
        durable
    }

    /// The saved state as a new process takes it up: calls that were under way have an unknown outcome, so their
    /// steps look at the world and then try again.
    pub fn after_restart(mut self, now: Mono) -> Self {
        let run = self.run.iter_mut().flat_map(|run| &mut run.lane.steps);
        let followup = self.followup.iter_mut().flat_map(|lane| &mut lane.steps);
        let fence = self.grant.iter_mut().filter_map(|grant| grant.fence.as_mut());
        let steps = run
            .chain(followup)
            .chain(&mut self.chores.steps)
            .chain(&mut self.beside)
            .chain(fence.flat_map(|lane| &mut lane.steps));
        for step in steps {
            if matches!(step.status, StepStatus::InFlight { .. }) {
                step.status = StepStatus::Backoff { until: now };
                step.last_error = Some("the agent was restarted during this call".to_owned());
            }
        }
        for entry in &mut self.outbox {
            entry.in_flight = None;
        }
        self
    }
}
