//! What a poll of Patroni shows of the simulated database, in the words of the shipped adapter.

use super::site::SimSite;
use crate::lab::database::MemberState;
use crate::lab::dynamic_config::{follows, is_standby};
use crate::model::{Member, MemberRole, PatroniSample, PatroniView};

impl SimSite {
    /// What a poll of Patroni gives.
    pub fn patroni_seen(&self) -> PatroniSample {
        let database = &self.database;
        if self.broken.patroni || database.members.is_empty() {
            return PatroniSample::Unknown("no member answers".to_owned());
        }
        let standby = database.config.as_ref().is_some_and(is_standby);
        let leader = database.leader_member().copied();
        let data = leader.and_then(|_| database.leader_data());
        let members = database.members.iter().map(|(ordinal, member)| {
            let leads = database.leader == Some(*ordinal);
            let (role, role_text) = match (leads, standby) {
                (true, true) => (MemberRole::StandbyLeader, "standby_leader"),
                (true, false) => (MemberRole::Leader, "leader"),
                (false, _) => (MemberRole::Replica, "replica"),
            };
            let runs = member.state == MemberState::Running;
            let state = match member.state {
                MemberState::Starting(_) => "starting",
                MemberState::Creating(_) => "creating replica",
                MemberState::Running if member.streaming => "streaming",
                MemberState::Running => "running",
            };
            let own = database.volumes.get(ordinal).filter(|_| runs);
            Member {
                name: format!("db-{ordinal}"),
                role,
                role_text: role_text.to_owned(),
                state: state.to_owned(),
                timeline: own.map(|own| u64::from(own.timeline)),
                lag: (!leads && runs).then_some(0),
            }
        });
        PatroniSample::Seen(PatroniView {
            standby_configured: standby,
            standby_host: database.config.as_ref().and_then(follows),
            members: members.collect(),
            primary_endpoint: Some(leader.is_some_and(|leader| !standby && !leader.recovering)),
            standby_endpoint: Some(leader.is_some() && standby),
            timeline: data.map(|data| u64::from(data.timeline)),
            lsn: data.map(|data| data.lsn),
            in_recovery: leader.map(|leader| leader.recovering),
        })
    }
}
