//! What a look at Patroni means: the role that is believed, whether it takes writes, whom it follows.
//!
//! `/cluster` repeats the configuration before PostgreSQL has followed, so the role endpoints are believed first and
//! `/cluster` only where they are not offered.

use crate::model::{Member, MemberRole, PatroniSample, PatroniView};

/// Role of the local database as believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Its leader takes writes.
    Primary,
    /// Its leader follows a source, or is read-only.
    Standby,
    /// It answers, but has no leader of either kind (an election, no pods).
    Neither,
    /// It cannot be seen.
    Unknown,
}

/// The role that a sample shows.
pub fn role(sample: &PatroniSample) -> Role {
    let PatroniSample::Seen(view) = sample else { return Role::Unknown };
    if view.primary_endpoint == Some(true) {
        return Role::Primary;
    }
    if view.standby_endpoint == Some(true) {
        return Role::Standby;
    }
    let endpoints_offered = view.primary_endpoint.is_some() || view.standby_endpoint.is_some();
    match leader(view) {
        Some(_) if endpoints_offered => Role::Neither,
        Some(member) if member.role == MemberRole::Leader && !view.standby_configured => Role::Primary,
        Some(member) if member.role == MemberRole::StandbyLeader => Role::Standby,
        Some(_) | None => Role::Neither,
    }
}

/// The last member with a leader's role, as the predecessor picks it.
pub fn leader(view: &PatroniView) -> Option<&Member> {
    let leads = |member: &&Member| matches!(member.role, MemberRole::Leader | MemberRole::StandbyLeader);
    view.members.iter().rfind(leads)
}

/// Whether the database takes writes; `None` = unknown.
pub fn is_writable(sample: &PatroniSample) -> Option<bool> {
    let PatroniSample::Seen(view) = sample else { return None };
    view.primary_endpoint.or(match role(sample) {
        Role::Primary => Some(true),
        Role::Standby => Some(false),
        Role::Neither | Role::Unknown => None,
    })
}

/// Members that are not healthy, or that stayed on another timeline than their leader, each in a few words.
pub fn concerns(view: &PatroniView) -> Vec<String> {
    let led = leader(view).and_then(|member| member.timeline);
    let concern = |member: &Member| {
        if !member.is_healthy() {
            return Some(format!("{} is {}", member.name, member.state));
        }
        match (member.timeline, led) {
            (Some(own), Some(led)) if own != led => {
                Some(format!("{} is on timeline {own}, its leader on {led}", member.name))
            }
            _ => None,
        }
    };
    view.members.iter().filter_map(concern).collect()
}

/// Whether the standby configuration names `host` as its source, alone or in a comma list; `None` = not told.
pub fn follows(view: &PatroniView, host: &str) -> Option<bool> {
    let wanted: Vec<&str> = host.split(',').map(str::trim).collect();
    match &view.standby_host {
        Some(hosts) => Some(hosts.split(',').map(str::trim).any(|host| wanted.contains(&host))),
        None if view.standby_configured => Some(false),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(role: MemberRole, state: &str, timeline: u64) -> Member {
        Member {
            name: "m0".to_owned(),
            role,
            role_text: String::new(),
            state: state.to_owned(),
            timeline: Some(timeline),
            lag: None,
        }
    }

    fn seen(view: PatroniView) -> PatroniSample {
        PatroniSample::Seen(view)
    }

    #[test]
    fn the_cluster_list_is_not_believed_against_the_role_endpoint() {
        let members = vec![member(MemberRole::Leader, "running", 1)];
        let promoted_by_configuration_only = PatroniView {
            members,
            primary_endpoint: Some(false),
            standby_endpoint: Some(true),
            ..PatroniView::default()
        };
        assert_eq!(role(&seen(promoted_by_configuration_only.clone())), Role::Standby);
        assert_eq!(is_writable(&seen(promoted_by_configuration_only)), Some(false));
    }

    #[test]
    fn without_role_endpoints_the_cluster_list_is_all_there_is() {
        let view =
            PatroniView { members: vec![member(MemberRole::Leader, "running", 1)], ..PatroniView::default() };
        assert_eq!(role(&seen(view.clone())), Role::Primary);
        assert_eq!(role(&seen(PatroniView { standby_configured: true, ..view })), Role::Neither);
    }

    #[test]
    fn members_without_a_leader_are_no_role_and_no_crash() {
        let view = PatroniView {
            members: vec![member(MemberRole::Replica, "running", 1)],
            ..PatroniView::default()
        };
        assert_eq!(role(&seen(view.clone())), Role::Neither);
        assert_eq!(is_writable(&seen(view)), None);
    }

    #[test]
    fn streaming_and_archive_recovery_are_healthy_states() {
        for state in ["running", "streaming", "in archive recovery"] {
            let view = PatroniView {
                members: vec![member(MemberRole::StandbyLeader, state, 2)],
                ..PatroniView::default()
            };
            assert!(concerns(&view).is_empty(), "{state}");
        }
        let view = PatroniView {
            members: vec![member(MemberRole::Leader, "start failed", 2)],
            ..PatroniView::default()
        };
        assert_eq!(concerns(&view), ["m0 is start failed"]);
    }

    #[test]
    fn a_replica_left_on_the_old_timeline_is_a_concern() {
        let members =
            vec![member(MemberRole::Leader, "running", 2), member(MemberRole::Replica, "running", 1)];
        assert_eq!(concerns(&PatroniView { members, ..PatroniView::default() }).len(), 1);
    }

    #[test]
    fn following_understands_lists_and_a_missing_host() {
        let view = |host: Option<&str>, configured| PatroniView {
            standby_host: host.map(str::to_owned),
            standby_configured: configured,
            ..PatroniView::default()
        };
        assert_eq!(follows(&view(Some("a, b"), true), "b"), Some(true));
        assert_eq!(follows(&view(Some("a"), true), "b"), Some(false));
        assert_eq!(follows(&view(None, true), "b"), Some(false));
        assert_eq!(follows(&view(None, false), "b"), None);
    }
}
