//! The adapters of one agent, made from its settings. What is not configured is not there.

use prometheus::Registry;
use tokio::sync::watch;

use super::StartError;
use crate::adapters::kube::Kube;
use crate::adapters::patroni::Patroni;
use crate::adapters::portal::Portal;
use crate::adapters::resolver::Resolvers;
use crate::adapters::tekton::Tekton;
use crate::config::Config;
use crate::peer::{Courier, DeliveryQueue};
use crate::tasks::TaskName;
use crate::tasks::executor::Hands;
use crate::tasks::route_watch::{PinSource, RouteParts};

/// The adapters of a site, made from its settings.
pub(super) struct Parts {
    pub(super) kube: Option<Kube>,
    pub(super) patroni: Option<Patroni>,
    pub(super) resolvers: Option<Resolvers>,
    pub(super) hands: Hands,
    pub(super) queue: Option<DeliveryQueue>,
    pub(super) routes: Option<RouteParts>,
}

/// Makes them; contacts nothing but what tells Kubernetes' address.
///
/// # Errors
/// Where one of them cannot be set up.
pub(super) async fn parts(
    config: &Config,
    registry: &Registry,
    snapshot: &watch::Receiver<serde_json::Value>,
) -> Result<Parts, StartError> {
    let on = |task: TaskName| config.site.tasks.contains(&task);
    let uses_kube = [TaskName::LogicHandler, TaskName::KubeWatch, TaskName::TektonWatch, TaskName::GeoSync]
        .into_iter()
        .any(on);
    let kube = if uses_kube {
        let client = Kube::connect(config.kube.clone(), registry).await;
        Some(client.map_err(|error| StartError::new("Kubernetes", &error))?)
    } else {
        None
    };
    let patroni = match &config.patroni.base {
        Some(_) => {
            let client = Patroni::new(&config.patroni);
            Some(client.map_err(|error| StartError::new("Patroni", &error))?)
        }
        None => None,
    };
    let tekton = config.tekton.trigger.as_ref().map(Tekton::new).transpose();
    let portal = config.portal.as_ref().map(Portal::new).transpose();
    let resolvers = on(TaskName::DnsWatch).then(|| Resolvers::new(&config.dns)).transpose();
    let (courier, queue) = match &config.peer {
        Some(peer) if on(TaskName::PeerClientFwd) => {
            let (courier, queue) = Courier::new(peer.forward_ms);
            (Some(courier), Some(queue))
        }
        _ => (None, None),
    };
    let pins =
        if on(TaskName::LogicHandler) { PinSource::Engine(snapshot.clone()) } else { PinSource::Health };
    let routes = config.routes.clone().map(|settings| RouteParts::new(settings, pins));
    let peer_host = config.patroni.peer_host.clone().unwrap_or_default();
    let hands = Hands {
        kube: kube.clone(),
        patroni: patroni.clone(),
        tekton: tekton.map_err(|error| StartError::new("Tekton", &error))?,
        portal: portal.map_err(|error| StartError::new("the maintenance portal", &error))?,
        routes: routes.as_ref().map(|(_, pinner)| pinner.clone()),
        courier,
        database_peer: (peer_host, config.patroni.peer_port.clone()),
        simulated: None,
    };
    let resolvers = resolvers.map_err(|error| StartError::new("DNS", &error))?;
    let routes = routes.map(|(parts, _)| parts);
    Ok(Parts { kube, patroni, resolvers, hands, queue, routes })
}
