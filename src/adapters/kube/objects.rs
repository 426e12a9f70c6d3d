//! The single changes that transitions are made of, spelt exactly as the predecessor spells them.
//!
//! Owns method, path, content type, body and key order of each. All are idempotent: they name the wanted state, and
//! deleting what is gone succeeds. Never decides which of them run, nor in which order.

use serde_json::{Value, json};

use super::request::items;
use super::{Kube, KubeError, PatchKind};
use crate::config::kube::is_object_name;
use crate::model::Detail;

/// What every change answers.
pub type Done = Result<Detail, KubeError>;

impl Kube {
    /// Sets `in_recovery` and `in_maintenance` in the Terraform variables Secret. Without such a Secret in the
    /// settings there is nothing to write: [`Detail::AlreadySo`].
    ///
    /// # Errors
    /// As [`Kube::patch`]; messages of the API server are withheld.
    pub async fn set_recovery_vars(&self, in_recovery: bool, in_maintenance: bool) -> Done {
        let settings = self.settings();
        let Some(name) = &settings.tfvars_secret else { return Ok(Detail::AlreadySo) };
        let body = json!({"stringData": {
            "in_recovery": in_recovery.to_string(), "in_maintenance": in_maintenance.to_string(),
        }});
        let target = format!("/api/v1/namespaces/{}/secrets/{name}", settings.tekton_namespace);
        self.strategic(&target, &body).await
    }

    /// Scales the health deployment.
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn scale_health(&self, replicas: u32) -> Done {
        let settings = self.settings();
        self.scale_deployment(&settings.health_namespace, &settings.health_deployment, replicas).await
    }

    /// Scales a deployment through its scale subresource, without waiting.
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn scale_deployment(&self, namespace: &str, name: &str, replicas: u32) -> Done {
        let target = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale");
        self.strategic(&target, &json!({"spec": {"replicas": replicas}})).await
    }

    /// Sets `minAvailable` of the health deployment's disruption budget.
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn set_pdb_min_available(&self, pods: u32) -> Done {
        let settings = self.settings();
        let target = format!(
            "/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}",
            settings.health_namespace, settings.health_pdb
        );
        self.strategic(&target, &json!({"spec": {"minAvailable": pods}})).await
    }

    /// Restarts the deployment of the maintenance page; `at` as in [`Kube::restart_deployment`].
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn restart_maintenance_page(&self, at: &str) -> Done {
        let settings = self.settings();
        self.restart_deployment(&settings.namespace, &settings.maintenance_deployment, at).await
    }

    /// Restarts the gateway; `at` as in [`Kube::restart_deployment`].
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn restart_gateway(&self, at: &str) -> Done {
        let settings = self.settings();
        self.restart_deployment(&settings.namespace, &settings.gateway_deployment, at).await
    }

    /// Restarts a deployment as `kubectl rollout restart` does. `at` is UTC in ISO form with microseconds and `Z`;
    /// the same moment twice restarts once.
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn restart_deployment(&self, namespace: &str, name: &str, at: &str) -> Done {
        let target = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}?pretty=true");
        let body = json!({"spec": {"template": {"metadata": {"annotations": {
            "kubectl.kubernetes.io/restartedAt": at,
        }}}}});
        self.strategic(&target, &body).await
    }

    /// Points the service at the maintenance page (`true`) or at the application. Where several services match, the
    /// first one is meant, and a warning says so.
    ///
    /// # Errors
    /// [`KubeError::NoMatch`] where no service matches; else as [`Kube::list`] and [`Kube::patch`].
    pub async fn route_service(&self, to_maintenance: bool) -> Done {
        let settings = self.settings();
        let path = format!("/api/v1/namespaces/{}/services", settings.namespace);
        let list = self.list(&path, Some(&settings.service_selector)).await?;
        let services = items(&list).ok_or_else(|| KubeError::Malformed {
            call: format!("GET {path}"),
            reason: "not a list of services".to_owned(),
        })?;
        let Some(first) = services.first() else {
            return Err(KubeError::NoMatch {
                kind: "service",
                namespace: settings.namespace.clone(),
                selector: settings.service_selector.clone(),
            });
        };
        let name = first.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if !is_object_name(name) {
            return Err(KubeError::BadName(name.to_owned()));
        }
        if services.len() > 1 {
            tracing::warn!(
                found = services.len(), service = name, selector = %settings.service_selector,
                "several services match, the first one is routed"
            );
        }
        let selector = if to_maintenance {
            json!({
                "app": settings.service_maintenance_app,
                "app.kubernetes.io/instance": null,
                "app.kubernetes.io/name": null,
            })
        } else {
            json!({
                "app": null,
                "app.kubernetes.io/instance": settings.service_application_instance,
                "app.kubernetes.io/name": settings.service_application_name,
            })
        };
        self.strategic(&format!("{path}/{name}"), &json!({"spec": {"selector": selector}})).await
    }

    /// Writes the database's standby source into the environment of its pods; two empty texts = follow nobody.
    ///
    /// # Errors
    /// As [`Kube::patch`].
    pub async fn set_standby_source(&self, host: &str, port: &str) -> Done {
        let settings = self.settings();
        let target =
            format!("/api/v1/namespaces/{}/configmaps/{}", settings.namespace, settings.database_env_config);
        self.strategic(&target, &json!({"data": {"STANDBY_HOST": host, "STANDBY_PORT": port}})).await
    }

    /// Deletes the volume claim of one database pod. Cannot be undone. [`Detail::AlreadySo`] = it was gone.
    ///
    /// # Errors
    /// As [`Kube::delete`].
    pub async fn delete_volume(&self, ordinal: u32) -> Done {
        self.delete_exactly(&self.volume_path(ordinal), None).await
    }

    /// Deletes the ConfigMap of Patroni's cluster state. Cannot be undone. [`Detail::AlreadySo`] = it was gone.
    ///
    /// # Errors
    /// As [`Kube::delete`].
    pub async fn delete_cluster_state(&self) -> Done {
        self.delete_exactly(&self.cluster_state_path(), None).await
    }

    pub(super) async fn strategic(&self, target: &str, body: &Value) -> Done {
        self.patch(target, PatchKind::Strategic, body).await.map(|_| Detail::Nothing)
    }
}
