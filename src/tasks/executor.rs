//! The executor: turns one effect into one call and its answer into an outcome.
//!
//! Owns: the adapters and the limit on every call. Never: decides, retries or waits for the world (the engine does).
//! Sits behind `logic_handler`, which hands it commands and sends the outcomes back over the bus. What must not happen
//! twice goes through [`super::once`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::route_watch::RoutePinner;
use crate::adapters::kube::Kube;
use crate::adapters::patroni::Patroni;
use crate::adapters::portal::Portal;
use crate::adapters::tekton::Tekton;
use crate::model::{Aim, Command, Detail, Effect, FailureKind, Outcome, PipelineRunSeen, Traffic, Wall};
use crate::peer::delivery::Courier;

/// A simulated site in place of the adapters: everything but messages to the peer.
pub trait SimulatedSite: Send + Sync {
    /// Carries out one effect, as the adapters would.
    fn carry_out<'a>(&'a self, effect: &'a Effect) -> BoxFuture<'a, Outcome>;

    /// Identifies what a once-only effect is about.
    fn aim(&self, effect: &Effect) -> Aim;

    /// The pipeline run of an event as it is now.
    fn run_of<'a>(&'a self, event_id: &'a str) -> BoxFuture<'a, Option<PipelineRunSeen>>;

    /// Whether what an earlier try aimed at has happened: its outcome then, `None` = try again.
    fn look_up<'a>(&'a self, effect: &'a Effect, aim: &'a Aim) -> BoxFuture<'a, Option<Outcome>>;
}

/// The adapters of this site; `None` where the site has no such thing.
#[derive(Clone, Default)]
pub struct Hands {
    /// Kubernetes.
    pub kube: Option<Kube>,
    /// Patroni.
    pub patroni: Option<Patroni>,
    /// Deployment pipeline.
    pub tekton: Option<Tekton>,
    /// Maintenance portal.
    pub portal: Option<Portal>,
    /// The way to the routes.
    pub routes: Option<RoutePinner>,
    /// The way to the peer.
    pub courier: Option<Courier>,
    /// Host and port of the peer's database, as the pods' environment names them.
    pub database_peer: (String, String),
    /// In the simulation: what stands in for all of them but the courier.
    pub simulated: Option<Arc<dyn SimulatedSite>>,
}

impl Hands {
    /// Carries out a command within its limit. `now` stamps restart annotations.
    pub async fn perform(&self, command: &Command, now: Wall) -> Outcome {
        let limit = Duration::from_millis(command.limit_ms);
        match tokio::time::timeout(limit, self.carry_out(&command.effect, now)).await {
            Ok(outcome) => outcome,
            Err(_) => failed(
                FailureKind::Transient,
                format!("{}: no answer within {} ms", command.effect, command.limit_ms),
            ),
        }
    }

    async fn carry_out(&self, effect: &Effect, now: Wall) -> Outcome {
        if let Some(site) = self.simulated.as_ref().filter(|_| !matches!(effect, Effect::SendPeer { .. })) {
            return site.carry_out(effect).await;
        }
        match effect {
            Effect::PromoteDatabase => match &self.patroni {
                Some(patroni) => done(patroni.promote().await, |error| error.kind()),
                None => missing("Patroni", "PATRONI_LOCAL_API"),
            },
            Effect::FenceDatabase => match &self.patroni {
                Some(patroni) => done(patroni.fence().await, |error| error.kind()),
                None => missing("Patroni", "PATRONI_LOCAL_API"),
            },
            Effect::TriggerPipeline => match &self.tekton {
                Some(tekton) => match tekton.trigger(&crate::peer::new_instance()).await {
                    Ok(event_id) => Outcome::Done(Detail::PipelineStarted { event_id }),
                    Err(error) => failed(error.kind(), describe(&error)),
                },
                None => missing("a deployment pipeline", "TEKTON_URL"),
            },
            Effect::SetPortal { on } => match &self.portal {
                Some(portal) => done(portal.set(*on).await, |error| error.kind()),
                None => missing("a maintenance portal", "MAINTENANCE_URL"),
            },
            Effect::SendPeer { id, message } => match &self.courier {
                Some(courier) => match courier.deliver(*id, message).await {
                    Ok(detail) => Outcome::Done(detail),
                    Err(error) => failed(error.kind(), describe(&error)),
                },
                None => missing("a peer", "PROCESS_LIST with peer_client_fwd"),
            },
            Effect::PinRoutes(pin) => match &self.routes {
                Some(routes) => routes.pin(*pin).await,
                None => missing("steered routes", "PROCESS_LIST with route_watch"),
            },
            cluster => match &self.kube {
                Some(kube) => self.on_cluster(kube, cluster, now).await,
                None => missing("Kubernetes", "KUBE_API_URL or a kubeconfig"),
            },
        }
    }

    async fn on_cluster(&self, kube: &Kube, effect: &Effect, now: Wall) -> Outcome {
        let names = kube.settings();
        let kind = |error: &crate::adapters::kube::KubeError| error.kind();
        let micros = || restart_stamp(now);
        match effect {
            Effect::SetRecoveryVars { in_recovery, in_maintenance } => {
                done(kube.set_recovery_vars(*in_recovery, *in_maintenance).await, kind)
            }
            Effect::ScaleHealth { replicas } => {
                let (namespace, name) = (&names.health_namespace, &names.health_deployment);
                done(kube.scale_deployment(namespace, name, *replicas).await, kind)
            }
            Effect::SetDisruptionBudget { min_available } => {
                done(kube.set_pdb_min_available(*min_available).await, kind)
            }
            Effect::RestartMaintenancePage => {
                let name = &names.maintenance_deployment;
                done(kube.restart_deployment(&names.namespace, name, &micros()).await, kind)
            }
            Effect::RestartGateway => {
                let name = &names.gateway_deployment;
                done(kube.restart_deployment(&names.namespace, name, &micros()).await, kind)
            }
            Effect::RouteService(traffic) => {
                done(kube.route_service(*traffic == Traffic::MaintenancePage).await, kind)
            }
            Effect::SetStandbySource { follow_peer } => {
                let (host, port) = &self.database_peer;
                let (host, port) = if *follow_peer { (host.as_str(), port.as_str()) } else { ("", "") };
                done(kube.set_standby_source(host, port).await, kind)
            }
            Effect::ScaleDatabase { replicas } => done(kube.scale_database(*replicas).await, kind),
            Effect::DeleteVolume { ordinal } => done(kube.delete_volume(*ordinal).await, kind),
            Effect::DeleteClusterState => done(kube.delete_cluster_state().await, kind),
            Effect::ScaleApplication { replicas } => done(kube.scale_application(*replicas).await, kind),
            Effect::StartApplication => done(kube.start_application().await, kind),
            Effect::CancelPipelineRun { name } => done(kube.cancel_run(name).await, kind),
            Effect::WriteRecord(write) => done(kube.write_record(write).await, kind),
            Effect::PromoteDatabase
            | Effect::FenceDatabase
            | Effect::TriggerPipeline
            | Effect::SetPortal { .. }
            | Effect::SendPeer { .. }
            | Effect::PinRoutes(_) => missing("an adapter", "this effect is carried out elsewhere"),
        }
    }
}

pub(super) fn done<T, E: std::error::Error>(
    result: Result<T, E>,
    kind: impl Fn(&E) -> FailureKind,
) -> Outcome {
    match result {
        Ok(_) => Outcome::Done(Detail::Nothing),
        Err(error) => failed(kind(&error), describe(&error)),
    }
}

pub(super) fn failed(kind: FailureKind, reason: String) -> Outcome {
    Outcome::Failed { kind, reason }
}

pub(super) fn missing(what: &str, setting: &str) -> Outcome {
    failed(FailureKind::Permanent, format!("this site has no {what} (set {setting})"))
}

/// An error with its causes, in one line.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// UTC with microseconds and a trailing Z, as the predecessor stamps restarts.
fn restart_stamp(now: Wall) -> String {
    let seconds = now.to_iso();
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), (now.0 % 1000) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_stamped_with_microseconds() {
        assert_eq!(restart_stamp(Wall(1_795_219_201_042)), "2026-11-21T00:00:01.042000Z");
    }

    #[tokio::test]
    async fn what_a_site_does_not_have_is_named_with_its_setting() {
        let hands = Hands::default();
        let command = Command {
            id: crate::model::ActionId(1),
            step: "start-pipeline".to_owned(),
            effect: Effect::TriggerPipeline,
            limit_ms: 1_000,
        };
        let Outcome::Failed { kind, reason } = hands.perform(&command, Wall(0)).await else {
            panic!("a site without a pipeline cannot start one")
        };
        assert_eq!(kind, FailureKind::Permanent);
        assert!(reason.contains("TEKTON_URL"), "{reason}");
    }
}
