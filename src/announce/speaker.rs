//! The announcer on our own BGP sessions.
//!
//! Thin: keeps the trait's promises over [`Speaker`]. "Announced" means that at least one neighbour with a session has
//! the prefix; without a session nothing is announced, whatever is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{AnnounceError, Announcer, Changes, PrefixKey, RouteAttributes, Shutdown};
use crate::bgp::packing::family_of;
use crate::bgp::{Community, NeighbourStatus, Speaker};
use crate::config::bgp::SpeakerSettings;

/// Our own speaker as an announcer.
#[derive(Debug)]
pub struct SpeakerAnnouncer {
    name: String,
    speaker: SpeakerHandle,
}

/// The speaker behind an announcer, for whoever watches it or gives it other neighbours; cheap to clone. Empty after
/// the shutdown. The lock is never held while anything is waited for.
#[derive(Debug, Clone)]
pub struct SpeakerHandle(Arc<Mutex<Option<Speaker>>>);

impl SpeakerHandle {
    fn lock(&self) -> MutexGuard<'_, Option<Speaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every neighbour; empty after the shutdown.
    pub fn neighbours(&self) -> Vec<NeighbourStatus> {
        self.lock().as_ref().map(Speaker::status).unwrap_or_default()
    }

    /// Takes over new settings; unchanged neighbours keep their sessions and routes, and follow changes of routes
    /// while the others end.
    ///
    /// # Errors
    /// A BFD socket could not be made, or the speaker has ended.
    pub async fn reconfigure(&self, settings: SpeakerSettings) -> Result<(), AnnounceError> {
        let leaving = self.lock().as_mut().map(|speaker| speaker.detach(&settings));
        leaving.ok_or_else(|| ended("bgp"))?.stop().await;
        let attached = self.lock().as_mut().map(|speaker| speaker.attach(settings));
        let failed = |error| AnnounceError::permanent("bgp", "take over new BGP settings", error);
        attached.ok_or_else(|| ended("bgp"))?.map_err(failed)
    }
}

impl SpeakerAnnouncer {
    /// Starts the speaker. Needs a tokio runtime.
    ///
    /// # Errors
    /// A BFD socket could not be made.
    pub fn start(name: &str, settings: SpeakerSettings) -> Result<Self, AnnounceError> {
        let speaker = Speaker::start(settings)
            .map_err(|error| AnnounceError::permanent(name, "start the BGP speaker", error))?;
        Ok(Self { name: name.to_owned(), speaker: SpeakerHandle(Arc::new(Mutex::new(Some(speaker)))) })
    }

    /// The speaker, for others to look at.
    pub fn handle(&self) -> SpeakerHandle {
        self.speaker.clone()
    }

    /// Every neighbour; empty after the shutdown.
    pub fn neighbours(&self) -> Vec<NeighbourStatus> {
        self.speaker.neighbours()
    }

    /// Takes over new settings; unchanged neighbours keep their sessions and routes.
    ///
    /// # Errors
    /// A BFD socket could not be made, or the speaker has ended.
    pub async fn reconfigure(&mut self, settings: SpeakerSettings) -> Result<(), AnnounceError> {
        self.speaker.reconfigure(settings).await
    }
}

fn ended(name: &str) -> AnnounceError {
    AnnounceError::permanent(name, "announce", "the BGP speaker has ended")
}

/// Refuses what no session could say, before anything changes.
fn check(name: &str, desired: &BTreeMap<PrefixKey, RouteAttributes>) -> Result<(), AnnounceError> {
    for (key, attributes) in desired {
        let refused = |reason: String| AnnounceError::permanent(name, format!("announce {key}"), reason);
        if key.vrf.is_some() {
            let hint = "the own speaker has no VRFs; bind a neighbour to the VRF's interface instead";
            return Err(refused(hint.to_owned()));
        }
        for text in &attributes.communities {
            text.parse::<Community>().map_err(|error| refused(error.to_string()))?;
        }
    }
    Ok(())
}

fn keys(prefixes: impl IntoIterator<Item = ipnet::IpNet>) -> impl Iterator<Item = PrefixKey> {
    prefixes.into_iter().map(|prefix| PrefixKey { prefix, vrf: None })
}

/// Why wanted prefixes reach nobody now.
fn diagnoses(
    neighbours: &[NeighbourStatus],
    desired: &BTreeMap<PrefixKey, RouteAttributes>,
) -> BTreeMap<PrefixKey, String> {
    let up: Vec<_> = neighbours.iter().filter_map(|n| Some((n.negotiated.as_ref()?, &n.refused))).collect();
    let wrong = |key: &PrefixKey| {
        let takers = || up.iter().filter(|(n, _)| n.families.contains(&family_of(&key.prefix)));
        if takers().any(|(_, refused)| !refused.contains(&key.prefix)) {
            None
        } else if up.is_empty() {
            Some("no neighbour has a session")
        } else if takers().next().is_none() {
            Some("no neighbour takes this address family")
        } else {
            Some(
                "no neighbour can be told: no usable next hop, or attributes that do not fit; the log says which",
            )
        }
    };
    desired.keys().filter_map(|key| Some((key.clone(), wrong(key)?.to_owned()))).collect()
}

impl Announcer for SpeakerAnnouncer {
    fn name(&self) -> &str {
        &self.name
    }

    fn set<'a>(
        &'a mut self,
        desired: &'a BTreeMap<PrefixKey, RouteAttributes>,
    ) -> Pin<Box<dyn Future<Output = Result<Changes, AnnounceError>> + Send + 'a>> {
        Box::pin(async move {
            check(&self.name, desired)?;
            let guard = self.speaker.lock();
            let speaker = guard.as_ref().ok_or_else(|| ended(&self.name))?;
            let before: BTreeSet<ipnet::IpNet> = speaker.wanted().prefixes().collect();
            let delta = speaker.set(desired.iter().map(|(key, attributes)| (key.prefix, attributes)));
            let said = delta.announce.into_iter().flat_map(|(_, prefixes)| prefixes);
            let (updated, announced): (Vec<_>, Vec<_>) = said.partition(|prefix| before.contains(prefix));
            Ok(Changes {
                announced: keys(announced).collect(),
                updated: keys(updated).collect(),
                withdrawn: keys(delta.withdraw).collect(),
                diagnoses: diagnoses(&speaker.status(), desired),
                unsure: false,
            })
        })
    }

    fn current<'a>(
        &'a mut self,
    ) -> Pin<Box<dyn Future<Output = Result<BTreeSet<PrefixKey>, AnnounceError>> + Send + 'a>> {
        let guard = self.speaker.lock();
        let speaker = guard.as_ref().ok_or_else(|| ended(&self.name));
        let result = speaker.map(|speaker| keys(speaker.advertised()).collect());
        Box::pin(std::future::ready(result))
    }

    fn shutdown<'a>(&'a mut self, how: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let Some(speaker) = self.speaker.lock().take() else { return };
            match how {
                Shutdown::Withdraw { drain_ms, reason } => {
                    speaker.withdraw_and_stop(Duration::from_millis(drain_ms), &reason).await;
                }
                Shutdown::KeepRoutes => speaker.abandon().await,
            }
        })
    }
}
