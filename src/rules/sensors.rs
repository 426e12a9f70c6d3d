//! Sensors: what each observer says about the active site, and what they say together.
//!
//! Owns: the four values of a sensor and the votes. Never: remembers or damps (that is [`super::dns`] and the state)
//! or acts (that is [`super::automation`]). [`judge`] is one pure function of the values; a golden table holds its
//! answer for every combination of them.

use serde::{Deserialize, Serialize};

use super::dns::DnsKind;
use super::policy::Automation;
use crate::model::{Mono, Reading, Side, WitnessSample};

/// What a sensor says about the service at the active site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sense {
    /// It is there.
    Good,
    /// It is not.
    Bad,
    /// The sensor never said anything, or is not configured.
    Unknown,
    /// The sensor spoke once, too long ago.
    Stale,
}

/// Values of all sensors at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Senses {
    /// The global load balancer's answer after quorum and damping: good = the active site, bad = the passive one.
    pub gslb: Sense,
    /// Whether at least two resolvers gave that answer, or the only one that is configured.
    pub resolvers_agree: bool,
    /// The peer's agent: good = it answers, bad = it is lost.
    pub peer: Sense,
    /// The global load balancer as the peer sees it.
    pub peer_view: Sense,
    /// Whether the active site holds the witness's lease.
    pub witness: Sense,
    /// The application of this site, meaningful at the active one.
    pub application: Sense,
    /// The local database: at the active site a primary, at the passive one a standby that could take over.
    pub patroni: Sense,
    /// The cloud's health checks of the active site.
    pub cloud: Sense,
    /// Whether the other site's lease has lapsed, grace included (self-fencing).
    pub lapsed: bool,
}

/// On what evidence a site moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ground {
    /// Both sites see the load balancer answer with the passive one.
    BothSitesSee,
    /// The load balancer has moved, and this site's own application or database is down.
    IllHere,
    /// The load balancer has moved, and the peer's agent is lost.
    PeerLost,
    /// The load balancer has moved, and the cloud sees the active site down.
    CloudSees,
    /// The resolvers agree that the load balancer has moved, and nothing contradicts them.
    ResolversAgree,
    /// The active site has stopped serving by its own rule: its lease and the grace are over.
    LeaseLapsed,
}

impl Ground {
    /// The words for logs.
    pub fn words(self) -> &'static str {
        match self {
            Self::BothSitesSee => "both sites see the traffic moved",
            Self::IllHere => "the traffic has moved and this site is down",
            Self::PeerLost => "the traffic has moved and the peer is lost",
            Self::CloudSees => "the traffic has moved and the cloud sees the active site down",
            Self::ResolversAgree => "the resolvers agree that the traffic has moved",
            Self::LeaseLapsed => "the active site's lease and the grace are over",
        }
    }
}

/// Why nothing is done although something is odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doubt {
    /// The witness knows the active site to live: the link is broken, not the site.
    WitnessVeto,
    /// The witness is configured and does not answer.
    WitnessUnknown,
    /// The peer sees the load balancer answer with the active site.
    PeerSeesOtherwise,
    /// The cloud sees the active site healthy.
    CloudVeto,
    /// Only one observer says so.
    NotCorroborated,
    /// The local database could not take over.
    DatabaseNotReady,
    /// The local database cannot be seen at the moment.
    DatabaseUnknown,
    /// The load balancer still answers with the active site.
    TrafficStaysHome,
    /// This site can no longer ask the load balancer: it may itself be the one that is cut off.
    CutOff,
}

impl Doubt {
    /// Its stable name, used as a refusal's.
    pub fn name(self) -> &'static str {
        match self {
            Self::WitnessVeto => "witness-veto",
            Self::WitnessUnknown => "witness-unknown",
            Self::PeerSeesOtherwise => "peer-sees-otherwise",
            Self::CloudVeto => "cloud-veto",
            Self::NotCorroborated => "not-corroborated",
            Self::DatabaseNotReady => "standby-not-ready",
            Self::DatabaseUnknown => "database-unknown",
            Self::TrafficStaysHome => "traffic-stays-home",
            Self::CutOff => "cut-off",
        }
    }

    /// The sentence for a person.
    pub fn why(self) -> &'static str {
        match self {
            Self::WitnessVeto => {
                "the witness knows the active site to live: the link is broken, not the site"
            }
            Self::WitnessUnknown => {
                "the witness does not answer, so nobody knows whether the active site lives"
            }
            Self::PeerSeesOtherwise => "the peer sees the load balancer answer with the active site",
            Self::CloudVeto => "the cloud sees the active site healthy",
            Self::NotCorroborated => "only one observer says so",
            Self::DatabaseNotReady => "the local database is no standby that could take over",
            Self::DatabaseUnknown => "the local database cannot be seen at the moment",
            Self::TrafficStaysHome => "the load balancer still answers with the active site",
            Self::CutOff => {
                "this site can no longer ask the load balancer and may itself be the one that is cut off"
            }
        }
    }
}

/// What the sensors together ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// Nothing is odd.
    Rest,
    /// Something is odd, and nothing is done.
    Hold(Doubt),
    /// The service belongs at the passive site.
    Move(Ground),
}

/// What the sensors ask for at this side. `witness` = one is configured.
pub fn judge(mode: Automation, side: Side, witness: bool, senses: &Senses) -> Judgement {
    let wanted = match lease_judgement(mode, side, witness, senses) {
        Judgement::Rest => traffic_judgement(mode, side, senses),
        other => other,
    };
    match (wanted, side, senses.patroni) {
        // Nobody may ask a database to take over that cannot.
        (Judgement::Move(_), Side::Passive, Sense::Bad) => Judgement::Hold(Doubt::DatabaseNotReady),
        (Judgement::Move(_), Side::Passive, Sense::Stale) => Judgement::Hold(Doubt::DatabaseUnknown),
        _ => wanted,
    }
}

/// Takes over what the active site has provably let go of.
fn lease_judgement(mode: Automation, side: Side, witness: bool, senses: &Senses) -> Judgement {
    if mode != Automation::SelfFencing || side != Side::Passive || !senses.lapsed {
        return Judgement::Rest;
    }
    match (witness, senses.witness) {
        (true, Sense::Good) => return Judgement::Hold(Doubt::WitnessVeto),
        (true, Sense::Unknown | Sense::Stale) => return Judgement::Hold(Doubt::WitnessUnknown),
        (true, Sense::Bad) | (false, _) => {}
    }
    match (senses.gslb, senses.cloud) {
        (Sense::Good, _) => Judgement::Hold(Doubt::TrafficStaysHome),
        // Serving nobody would cost a rebuild; a witness that was asked a moment ago proves the opposite.
        (Sense::Stale, _) if !witness => Judgement::Hold(Doubt::CutOff),
        (_, Sense::Good) => Judgement::Hold(Doubt::CloudVeto),
        _ => Judgement::Move(Ground::LeaseLapsed),
    }
}

/// Follows the traffic where at least two observers agree and none that would know contradicts.
fn traffic_judgement(mode: Automation, side: Side, senses: &Senses) -> Judgement {
    if senses.gslb != Sense::Bad {
        return Judgement::Rest;
    }
    let ill = side == Side::Active && (senses.application == Sense::Bad || senses.patroni == Sense::Bad);
    if ill {
        return Judgement::Move(Ground::IllHere);
    }
    if senses.peer == Sense::Good {
        match senses.peer_view {
            Sense::Bad => return Judgement::Move(Ground::BothSitesSee),
            Sense::Good => return Judgement::Hold(Doubt::PeerSeesOtherwise),
            Sense::Unknown | Sense::Stale => {}
        }
    } else if side == Side::Passive {
        // Alone with a silent peer, every observer that sees the active site alive is believed.
        if mode == Automation::SelfFencing {
            return Judgement::Hold(Doubt::NotCorroborated);
        }
        if senses.witness == Sense::Good {
            return Judgement::Hold(Doubt::WitnessVeto);
        }
    }
    match (senses.cloud, senses.peer) {
        (Sense::Good, _) => Judgement::Hold(Doubt::CloudVeto),
        (Sense::Bad, _) => Judgement::Move(Ground::CloudSees),
        (_, Sense::Bad) => Judgement::Move(Ground::PeerLost),
        _ if senses.resolvers_agree => Judgement::Move(Ground::ResolversAgree),
        _ => Judgement::Hold(Doubt::NotCorroborated),
    }
}

/// What was last heard from each sensor. Nothing of it survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SensorMemory {
    /// When the resolvers last gave a valid answer, and whether two of them (or the only one) gave it.
    pub gslb: Option<(bool, Mono)>,
    /// The same as the peer told it.
    pub peer_view: Option<(DnsKind, Mono)>,
    /// When the peer was last heard in any way.
    pub peer_heard: Option<Mono>,
    /// The last look at the witness that was answered.
    pub witness: Option<(WitnessSample, Mono)>,
    /// The application.
    pub application: Option<(Reading, Mono)>,
    /// The cloud.
    pub cloud: Option<(Reading, Mono)>,
}

/// A reading with its age as a sensor's value. A failed look leaves the sensor stale.
pub fn sense(reading: Option<(Reading, Mono)>, stale_ms: u64, now: Mono) -> Sense {
    match reading {
        None => Sense::Unknown,
        Some((_, at)) if now.since(at) > stale_ms => Sense::Stale,
        Some((Reading::Good, _)) => Sense::Good,
        Some((Reading::Bad, _)) => Sense::Bad,
        Some((Reading::Unknown, _)) => Sense::Stale,
    }
}

/// A look at the load balancer as a sensor's value.
pub fn sense_of_kind(kind: DnsKind) -> Sense {
    match kind {
        DnsKind::Active => Sense::Good,
        DnsKind::Passive => Sense::Bad,
        DnsKind::Both | DnsKind::Other | DnsKind::None | DnsKind::Unknown => Sense::Unknown,
    }
}
