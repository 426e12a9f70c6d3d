//! What a look at Patroni means: role, concerns, whether it takes writes, whom it follows. Pure; no I/O, no memory.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::{MemberRole, PatroniSample, PatroniView};

/// Role of the database of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows, read-only.
    Standby,
    /// It was asked and is neither: no leader, an election, everything stopped.
    Neither,
    /// It could not be asked, or what it says contradicts itself.
    Unknown,
}

impl Role {
    /// The word in metrics and notes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Neither => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// The role that is believed.
///
/// A member's own 200 on `/primary` or `/standby-leader` decides. Only where that question has no answer (`None`)
/// does `/cluster` count, and only together with the configuration: its role word is computed from the configuration
/// and changes before PostgreSQL does.
pub fn role(sample: &PatroniSample) -> Role {
    let PatroniSample::Seen(view) = sample else { return Role::Unknown };
    let word = leader_role(view);
    match (view.primary_endpoint, view.standby_endpoint) {
        (Some(true), _) => Role::Primary,
        (_, Some(true)) => Role::Standby,
        (None, _) if word == Some(MemberRole::Leader) && !view.standby_configured => Role::Primary,
        (_, None) if word == Some(MemberRole::StandbyLeader) && view.standby_configured => Role::Standby,
        (Some(false), Some(false)) => Role::Neither,
        _ if word.is_none() => Role::Neither,
        _ => Role::Unknown,
    }
}

/// The leader's role as `/cluster` words it, where there is one and it works.
fn leader_role(view: &PatroniView) -> Option<MemberRole> {
    let leads = |role| matches!(role, MemberRole::Leader | MemberRole::StandbyLeader);
    view.members.iter().rfind(|member| leads(member.role) && member.is_healthy()).map(|member| member.role)
}

/// What a person should look at: members that do not work, and members on another timeline than the leader (a
/// replica that follows nothing still calls itself `running` without lag). Empty = none.
pub fn concerns(view: &PatroniView) -> Vec<String> {
    let mut found = Vec::new();
    for member in &view.members {
        if !member.is_healthy() {
            found.push(format!("{}: {}", member.name, member.state));
        } else if let (Some(own), Some(leading)) = (member.timeline, view.timeline)
            && own != leading
        {
            found.push(format!("{}: timeline {own}, the leader's is {leading}", member.name));
        }
    }
    found
}

/// Whether every member is on the leader's timeline; `None` where one of them is not known.
pub fn timelines_agree(view: &PatroniView) -> Option<bool> {
    let leading = view.timeline?;
    if view.members.iter().filter_map(|member| member.timeline).any(|own| own != leading) {
        return Some(false);
    }
    view.members.iter().all(|member| member.timeline.is_some()).then_some(true)
}

/// Whether the database takes writes; `None` = not known. "No" needs the answer of every working member: the words
/// of `/cluster` alone never prove it, since writes go on for a moment after they change.
pub fn is_writable(sample: &PatroniSample) -> Option<bool> {
    let PatroniSample::Seen(view) = sample else { return None };
    match (view.primary_endpoint, role(sample)) {
        (Some(answer), _) => Some(answer),
        (None, Role::Primary) => Some(true),
        (None, _) => None,
    }
}

/// Whether the configuration makes this cluster follow `peer_host`; both sides may be comma lists, one shared host is
/// enough. `None` where no peer host is set.
pub fn follows(view: &PatroniView, peer_host: &str) -> Option<bool> {
    let wanted = hosts(peer_host);
    if wanted.is_empty() {
        return None;
    }
    let followed = hosts(view.standby_host.as_deref().unwrap_or_default());
    Some(view.standby_configured && !followed.is_disjoint(&wanted))
}

fn hosts(list: &str) -> BTreeSet<String> {
    list.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Member;

    fn member(name: &str, role: MemberRole, state: &str, timeline: Option<u64>) -> Member {
        let (name, role_text, state) = (name.to_owned(), "any".to_owned(), state.to_owned());
        Member { name, role, role_text, state, timeline, lag: None }
    }

    fn view(word: Option<MemberRole>, configured: bool, ends: (Option<bool>, Option<bool>)) -> PatroniView {
        PatroniView {
            standby_configured: configured,
            members: word.map(|role| member("a", role, "running", Some(2))).into_iter().collect(),
            primary_endpoint: ends.0,
            standby_endpoint: ends.1,
            timeline: Some(2),
            ..PatroniView::default()
        }
    }

    fn role_of(word: Option<MemberRole>, configured: bool, ends: (Option<bool>, Option<bool>)) -> Role {
        role(&PatroniSample::Seen(view(word, configured, ends)))
    }

    #[test]
    fn the_members_own_answer_beats_what_cluster_repeats_of_the_configuration() {
        use MemberRole::{Leader, StandbyLeader};
        let (yes, no) = (Some(true), Some(false));
        for (word, configured, ends, want) in [
            (Some(Leader), false, (yes, no), Role::Primary),
            (Some(StandbyLeader), true, (yes, no), Role::Primary), // asked to stand by, still takes writes
            (Some(StandbyLeader), true, (no, yes), Role::Standby),
            (Some(Leader), false, (no, yes), Role::Standby), // asked to promote, has not yet
            (Some(Leader), false, (no, no), Role::Neither),
            (None, false, (no, no), Role::Neither),
            (Some(Leader), false, (None, None), Role::Primary),
            (Some(Leader), true, (None, None), Role::Unknown),
            (Some(StandbyLeader), true, (None, None), Role::Standby),
            (Some(StandbyLeader), false, (None, None), Role::Unknown),
            (Some(Leader), false, (no, None), Role::Unknown),
            (Some(StandbyLeader), true, (no, None), Role::Standby),
            (None, true, (None, None), Role::Neither),
        ] {
            assert_eq!(role_of(word, configured, ends), want, "{word:?} {configured} {ends:?}");
        }
        assert_eq!(role(&PatroniSample::Unknown("down".to_owned())), Role::Unknown);
    }

    #[test]
    fn a_leader_that_does_not_work_leads_nothing() {
        let mut stopped = view(None, false, (None, None));
        stopped.members = vec![member("a", MemberRole::Leader, "stopped", None)];
        assert_eq!(role(&PatroniSample::Seen(stopped)), Role::Neither);
    }

    #[test]
    fn read_only_is_never_concluded_from_words() {
        let sample = |ends| PatroniSample::Seen(view(Some(MemberRole::StandbyLeader), true, ends));
        assert_eq!(is_writable(&sample((Some(true), Some(false)))), Some(true));
        assert_eq!(is_writable(&sample((Some(false), Some(true)))), Some(false));
        assert_eq!(is_writable(&sample((None, Some(true)))), None);
        assert_eq!(is_writable(&sample((None, None))), None);
        assert_eq!(is_writable(&PatroniSample::Unknown(String::new())), None);
        let leader = PatroniSample::Seen(view(Some(MemberRole::Leader), false, (None, None)));
        assert_eq!(is_writable(&leader), Some(true));
    }

    #[test]
    fn only_the_timeline_betrays_a_replica_that_follows_nothing() {
        let mut seen = view(Some(MemberRole::StandbyLeader), true, (None, None));
        assert_eq!((concerns(&seen), timelines_agree(&seen)), (vec![], Some(true)));
        seen.members.push(member("b", MemberRole::Replica, "running", Some(1)));
        seen.members.push(member("c", MemberRole::Replica, "start failed", None));
        assert_eq!(concerns(&seen), ["b: timeline 1, the leader's is 2", "c: start failed"]);
        assert_eq!(timelines_agree(&seen), Some(false));
        seen.members.remove(1);
        assert_eq!(timelines_agree(&seen), None);
        for state in ["running", "streaming", "in archive recovery"] {
            seen.members[1].state = state.to_owned();
            assert!(concerns(&seen).is_empty(), "{state}");
        }
    }

    #[test]
    fn following_understands_comma_lists() {
        let following = |configured, host: Option<&str>| PatroniView {
            standby_configured: configured,
            standby_host: host.map(str::to_owned),
            ..PatroniView::default()
        };
        assert_eq!(follows(&following(true, Some("h1, H2")), "h2"), Some(true));
        assert_eq!(follows(&following(true, Some("h1")), "h2,h1"), Some(true));
        assert_eq!(follows(&following(true, Some("h10")), "h1"), Some(false));
        assert_eq!(follows(&following(true, None), "h1"), Some(false), "fenced follows nobody");
        assert_eq!(follows(&following(false, None), "h1"), Some(false));
        assert_eq!(follows(&following(true, Some("h1")), " "), None);
    }
}
