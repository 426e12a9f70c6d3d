//! The announcer on our own BGP sessions.
//!
//! Thin: keeps the trait's promises over [`Speaker`]. "Announced" means that at least one neighbour with a session has
//! the prefix; without a session nothing is announced, whatever is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::{AnnounceError, Announcer, Changes, PrefixKey, RouteAttributes, Shutdown};
use crate::bgp::{Community, NeighbourStatus, Speaker};
use crate::config::bgp::SpeakerSettings;
use crate::model::FailureKind;

/// Our own speaker as an announcer.
#[derive(Debug)]
pub struct SpeakerAnnouncer {
    name: String,
    speaker: Option<Speaker>,
}

fn permanent(message: String) -> AnnounceError {
    AnnounceError { message, kind: FailureKind::Permanent }
}

impl SpeakerAnnouncer {
    /// Starts the speaker. Needs a tokio runtime.
    ///
    /// # Errors
    /// A BFD socket could not be made.
    pub fn start(name: &str, settings: SpeakerSettings) -> Result<Self, AnnounceError> {
        let speaker = Speaker::start(settings).map_err(|error| permanent(format!("BGP speaker: {error}")))?;
        Ok(Self { name: name.to_owned(), speaker: Some(speaker) })
    }

    /// Every neighbour; empty after the shutdown.
    pub fn neighbours(&self) -> Vec<NeighbourStatus> {
        self.speaker.as_ref().map(Speaker::status).unwrap_or_default()
    }

    /// The speaker itself, until the shutdown.
    pub fn speaker(&self) -> Option<&Speaker> {
        self.speaker.as_ref()
    }

    /// Takes over new settings; unchanged neighbours keep their sessions and routes.
    ///
    /// # Errors
    /// A BFD socket could not be made, or the speaker has ended.
    pub async fn reconfigure(&mut self, settings: SpeakerSettings) -> Result<(), AnnounceError> {
        let Some(speaker) = &mut self.speaker else { return Err(ended()) };
        speaker.reconfigure(settings).await.map_err(|error| permanent(format!("BGP speaker: {error}")))
    }
}

fn ended() -> AnnounceError {
    permanent("the BGP speaker has ended".to_owned())
}

/// Refuses what no session could say, before anything changes.
fn check(desired: &BTreeMap<PrefixKey, RouteAttributes>) -> Result<(), AnnounceError> {
    for (key, attributes) in desired {
        if let Some(vrf) = &key.vrf {
            return Err(permanent(format!(
                "{} in VRF {vrf}: the own speaker has no VRFs; bind a neighbour to the VRF's interface instead",
                key.prefix
            )));
        }
        for text in &attributes.communities {
            text.parse::<Community>().map_err(|error| permanent(format!("{}: {error}", key.prefix)))?;
        }
    }
    Ok(())
}

fn keys(prefixes: impl IntoIterator<Item = ipnet::IpNet>) -> impl Iterator<Item = PrefixKey> {
    prefixes.into_iter().map(|prefix| PrefixKey { prefix, vrf: None })
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
            check(desired)?;
            let speaker = self.speaker.as_ref().ok_or_else(ended)?;
            let delta = speaker.set(desired.iter().map(|(key, attributes)| (key.prefix, attributes)));
            let mut announced: Vec<PrefixKey> =
                keys(delta.announce.into_iter().flat_map(|(_, p)| p)).collect();
            announced.sort();
            Ok(Changes { announced, withdrawn: keys(delta.withdraw).collect() })
        })
    }

    fn current<'a>(
        &'a mut self,
    ) -> Pin<Box<dyn Future<Output = Result<BTreeSet<PrefixKey>, AnnounceError>> + Send + 'a>> {
        let result =
            self.speaker.as_ref().ok_or_else(ended).map(|speaker| keys(speaker.advertised()).collect());
        Box::pin(std::future::ready(result))
    }

    fn shutdown<'a>(&'a mut self, how: Shutdown) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let Some(speaker) = self.speaker.take() else { return };
            match how {
                Shutdown::Withdraw { drain_ms, reason } => {
                    speaker.withdraw_and_stop(Duration::from_millis(drain_ms), &reason).await;
                }
                Shutdown::KeepRoutes => speaker.abandon().await,
            }
        })
    }
}
