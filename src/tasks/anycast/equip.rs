//! Builds what a configuration asks for: its announcers, and the feed of the neighbours' metrics.
//!
//! Owns the translation from the file's sections to the announcers' own settings. Never decides what is announced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::neighbours::{Messages, Neighbour, NeighbourMetrics};
use crate::announce::bird::{BirdAnnouncer, BirdSettings, BirdStyle};
use crate::announce::frr::memory::Memory;
use crate::announce::frr::{FrrAnnouncer, Vtysh};
use crate::announce::speaker::{SpeakerAnnouncer, SpeakerHandle};
use crate::announce::{AnnounceError, Announcer, PrefixKey};
use crate::bgp::status::MessageCounts;
use crate::bgp::{NeighbourState, NeighbourStatus};
use crate::config::anycast::bird::BirdSection;
use crate::config::anycast::{AnnouncerRef, Anycast};

/// Documentation prefixes (RFC 5737, RFC 3849) for BIRD's sets, which may not be empty.
const DUMMIES: [&str; 2] = ["192.0.2.255/32", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128"];

/// How often neighbours are looked at.
const FEED: Duration = Duration::from_secs(1);

/// Announcers, ready to be used.
#[derive(Default)]
pub struct Equipment {
    /// By reference.
    pub announcers: BTreeMap<AnnouncerRef, Box<dyn Announcer>>,
    /// The speaker among them.
    pub speaker: Option<SpeakerHandle>,
}

/// Builds these announcers of a configuration. The speaker begins to dial; the others contact nothing yet. What has to
/// outlive the process is kept beside the control socket.
///
/// # Errors
/// Settings that an announcer refuses, or a BFD socket that cannot be had.
pub fn build(
    config: &Anycast,
    which: &BTreeSet<AnnouncerRef>,
    socket: Option<&Path>,
) -> Result<Equipment, AnnounceError> {
    let mut equipment = Equipment::default();
    for reference in which {
        let announcer: Box<dyn Announcer> = match reference {
            AnnouncerRef::Bgp => {
                let announcer = speaker(config)?;
                equipment.speaker = Some(announcer.handle());
                Box::new(announcer)
            }
            AnnouncerRef::Bird => {
                let section = config.bird.as_ref();
                let section =
                    section.ok_or_else(|| missing("bird", "the file has no section `bird`".to_owned()))?;
                Box::new(BirdAnnouncer::new("bird", bird(section))?)
            }
            AnnouncerRef::Frr { vtysh } => {
                let memory = socket.map(|socket| Memory::beside(socket, vtysh)).unwrap_or_default();
                let vtysh = Vtysh { path: vtysh.clone(), ..Vtysh::default() };
                let announcer = FrrAnnouncer::new("frr", vtysh, managed(config, reference));
                Box::new(announcer.remembering(memory))
            }
        };
        equipment.announcers.insert(reference.clone(), announcer);
    }
    Ok(equipment)
}

fn missing(name: &str, reason: String) -> AnnounceError {
    AnnounceError::permanent(name, "start", reason)
}

fn speaker(config: &Anycast) -> Result<SpeakerAnnouncer, AnnounceError> {
    let section = config.bgp.as_ref();
    let section = section.ok_or_else(|| missing("bgp", "the file has no section `announcer`".to_owned()))?;
    let settings = section.speaker().map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        missing("bgp", all.join("; "))
    })?;
    SpeakerAnnouncer::start("bgp", settings)
}

fn bird(section: &BirdSection) -> BirdSettings {
    let usual = BirdSettings::new(&section.file);
    let (v4, v6) = (section.v4.clone(), section.v6.clone());
    let style = if section.sets {
        let [dummy_v4, dummy_v6] = [0, 1].map(|family| {
            section.dummies[family].unwrap_or_else(|| DUMMIES[family].parse().expect("a constant"))
        });
        BirdStyle::Sets {
            v4: v4.unwrap_or_else(|| "SWITCHOVER_V4".to_owned()),
            v6: v6.unwrap_or_else(|| "SWITCHOVER_V6".to_owned()),
            dummy_v4,
            dummy_v6,
        }
    } else {
        BirdStyle::Static {
            v4: v4.unwrap_or_else(|| "switchover_v4".to_owned()),
            v6: v6.unwrap_or_else(|| "switchover_v6".to_owned()),
        }
    };
    BirdSettings {
        style,
        birdc: section.birdc.clone(),
        socket: section.socket.clone(),
        timeout: section.timeout,
        ..usual
    }
}

/// The prefixes of the file that go through this announcer.
fn managed(config: &Anycast, which: &AnnouncerRef) -> BTreeSet<PrefixKey> {
    let routes = config.services.iter().flat_map(|service| &service.routes);
    routes.filter(|route| route.announcer == *which).map(|route| route.key.clone()).collect()
}

/// Shows the neighbours in the metrics until cancelled.
pub(super) async fn feed(
    speaker: SpeakerHandle,
    metrics: NeighbourMetrics,
    router_id: String,
    cancel: CancellationToken,
) {
    let mut beat = tokio::time::interval(FEED);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = beat.tick() => {}
        }
        let neighbours: Vec<Neighbour> = speaker.neighbours().iter().map(seen).collect();
        metrics.set(&router_id, &neighbours);
    }
}

fn seen(status: &NeighbourStatus) -> Neighbour {
    let direction = |ours: bool| if ours { "sent" } else { "received" };
    Neighbour {
        address: status.address.map(|address| address.to_string()).unwrap_or_default(),
        external: !status.ibgp,
        session_state: match status.state {
            NeighbourState::Idle => 1,
            NeighbourState::Connect => 2,
            NeighbourState::Active => 3,
            NeighbourState::OpenSent => 4,
            NeighbourState::OpenConfirm => 5,
            NeighbourState::Established => 6,
        },
        flaps: status.flaps,
        received: messages(&status.received, status.received_prefixes.1),
        sent: messages(&status.sent, status.withdrawn_prefixes),
        password_set: status.password_set,
        advertised_prefixes: status.advertised_count() as u64,
        established_at: status.established_at_ms.map(|ms| ms as f64 / 1000.0),
        last_notification: status.last_notification.map(|(code, sub, ours)| (code, sub, direction(ours))),
    }
}

fn messages(counts: &MessageCounts, withdrawn_prefixes: u64) -> Messages {
    Messages {
        open: counts.open,
        update: counts.update,
        notification: counts.notification,
        keepalive: counts.keepalive,
        refresh: counts.refresh,
        withdrawn_prefixes,
    }
}
