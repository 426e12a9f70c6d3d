//! What can be broken at a site, by name, and which of it is broken now.

use std::collections::BTreeMap;

/// Something that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The GSLB name can't be resolved (SERVFAIL, empty list at `/dns`).
    DnsLookupError,
    /// The GSLB name resolves to the passive site.
    DnsFlip,
    /// DNS questions stay unanswered.
    DnsTimeout,
    /// Every DNS answer is SERVFAIL, the self-test name's too.
    DnsServfail,
    /// The first DNS responder of the site answers with the passive site.
    DnsOneResolverLies,
    /// Patroni closes every connection without an answer.
    PatroniDown,
    /// Patroni has members and no leader.
    PatroniNoLeader,
    /// The Kubernetes API answers 503.
    ApiDown,
    /// The Kubernetes API closes every connection without an answer.
    ApiRefused,
    /// The Kubernetes API accepts requests and does not answer.
    ApiHang,
    /// The Kubernetes API answers a second late.
    ApiSlow,
    /// The history of changes is compacted: watches from older versions are 410.
    Watch410,
    /// Watches stay open and say nothing.
    WatchStall,
    /// Watches are closed cleanly as soon as they are open.
    WatchClose,
    /// Patches of services fail with 500 (for good, or `?count=N` times).
    ServicePatch500,
    /// The maintenance portal answers 500.
    PortalDown,
    /// Pipeline runs fail.
    PipelineFail,
    /// Pipeline runs never end.
    PipelineHang,
    /// The pipeline listener answers 503.
    ListenerDown,
    /// The pipeline listener starts the run and closes the connection without an answer.
    ListenerMute,
    /// The Kubernetes API deletes what it is asked to and closes the connection without an answer.
    ApiDeleteMute,
    /// The line between the sites is cut for the agents and for replication.
    PeerPartition,
    /// Replication between the sites is cut.
    ReplicationCut,
    /// The database processes of the site are dead.
    DatabaseDown,
}

impl Fault {
    /// Every fault with its name.
    pub const ALL: [(Self, &'static str); 24] = [
        (Self::DnsLookupError, "dns_lookup_error"),
        (Self::DnsFlip, "dns_flip"),
        (Self::DnsTimeout, "dns_timeout"),
        (Self::DnsServfail, "dns_servfail"),
        (Self::DnsOneResolverLies, "dns_one_resolver_lies"),
        (Self::PatroniDown, "patroni_down"),
        (Self::PatroniNoLeader, "patroni_no_leader"),
        (Self::ApiDown, "api_down"),
        (Self::ApiRefused, "api_refused"),
        (Self::ApiHang, "api_hang"),
        (Self::ApiSlow, "api_slow"),
        (Self::Watch410, "watch_410"),
        (Self::WatchStall, "watch_stall"),
        (Self::WatchClose, "watch_close"),
        (Self::ServicePatch500, "service_patch_500"),
        (Self::PortalDown, "portal_down"),
        (Self::PipelineFail, "pipeline_fail"),
        (Self::PipelineHang, "pipeline_hang"),
        (Self::ListenerDown, "listener_down"),
        (Self::ListenerMute, "listener_mute"),
        (Self::ApiDeleteMute, "api_delete_mute"),
        (Self::PeerPartition, "peer_partition"),
        (Self::ReplicationCut, "replication_cut"),
        (Self::DatabaseDown, "database_down"),
    ];

    /// Its name in `PUT /initiate/<name>`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(fault, _)| *fault == self).map_or("", |(_, name)| name)
    }

    /// The fault of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(fault, _)| *fault)
    }

    /// The known names.
    pub fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|(_, name)| *name).collect()
    }
}

/// What is broken now; a number = how many more times it bites.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    active: BTreeMap<Fault, Option<u64>>,
}

impl Faults {
    /// Breaks something, for good or a number of times.
    pub fn initiate(&mut self, fault: Fault, count: Option<u64>) {
        if count != Some(0) {
            self.active.insert(fault, count);
        }
    }

    /// Mends it.
    pub fn lift(&mut self, fault: Fault) {
        self.active.remove(&fault);
    }

    /// Mends everything.
    pub fn lift_all(&mut self) {
        self.active.clear();
    }

    /// Whether it is broken.
    pub fn on(&self, fault: Fault) -> bool {
        self.active.contains_key(&fault)
    }

    /// Whether it bites this time; counts down where the fault has a count.
    pub fn bites(&mut self, fault: Fault) -> bool {
        match self.active.get_mut(&fault) {
            None => false,
            Some(None) => true,
            Some(Some(left)) => {
                *left -= 1;
                if *left == 0 {
                    self.active.remove(&fault);
                }
                true
            }
        }
    }

    /// Names of what is broken, in a fixed order.
    pub fn names(&self) -> Vec<&'static str> {
        self.active.keys().map(|fault| fault.name()).collect()
    }
}
