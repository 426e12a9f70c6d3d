//! Settings of the Kubernetes adapter: how to reach the API server and what every object is called.
//!
//! Owns: names, defaults (the predecessor's constants) and validation. Never: contacts anything. Read by
//! `adapters::kube` and the tasks that watch through it.

use std::time::Duration;

use super::{Reader, Secret};

/// Namespace of the service that moves (database, application, gateway, maintenance page).
pub const NAMESPACE: &str = "KUBE_NAMESPACE";
/// Namespace of the health deployment and of the record.
pub const HEALTH_NAMESPACE: &str = "KUBE_HEALTH_NAMESPACE";
/// Namespace of PipelineRuns and of the Terraform variables Secret; default: `KUBE_NAMESPACE`.
pub const TEKTON_NAMESPACE: &str = "KUBE_TEKTON_NAMESPACE";
/// `production` = the pod's service account; anything else = a kubeconfig. Not set: the service account in a pod, unless
/// `KUBECONFIG` is set.
pub const PY_ENV: &str = "PY_ENV";
/// What every pod's environment has.
const IN_POD: &str = "KUBERNETES_SERVICE_HOST";
/// Kubeconfig file, or several separated by `:`; default `~/.kube/config`.
pub const KUBECONFIG: &str = "KUBECONFIG";
/// Base URL of the API server, a path prefix included; takes the place of service account and kubeconfig.
pub const API_URL: &str = "KUBE_API_URL";
/// Bearer token for `KUBE_API_URL` (or `KUBE_API_TOKEN_FILE`).
pub const API_TOKEN: &str = "KUBE_API_TOKEN";
/// Label selector of the record.
pub const CONFIGMAP_SELECTOR: &str = "CONFIGMAP_SELECTOR";
/// Name of the record, to which writes go.
pub const RECORD_NAME: &str = "RECORD_NAME";
/// Seconds between two full reads of the record beside its watch.
pub const RECORD_RESYNC_SECONDS: &str = "RECORD_RESYNC_SECONDS";
/// Label selector of PipelineRuns; default: all of the namespace.
pub const TEKTON_LABEL_SELECTOR: &str = "TEKTON_LABEL_SELECTOR";
/// `v1` or `v1beta1`; default: what the API server offers.
pub const TEKTON_API_VERSION: &str = "TEKTON_API_VERSION";
/// Name of the Secret with the Terraform variables; not set = there is none and it is not written.
pub const TERRAFORM_TFVARS: &str = "TERRAFORM_TFVARS";
/// Deployment that the global load balancer probes.
pub const HEALTH_DEPLOYMENT: &str = "HEALTH_DEPLOYMENT";
/// Disruption budget of the health deployment; default: its name and `-pdb`.
pub const HEALTH_PDB: &str = "HEALTH_PDB";
/// Deployment of the gateway (Kong).
pub const GATEWAY_DEPLOYMENT: &str = "GATEWAY_DEPLOYMENT";
/// Deployment that shows the maintenance page.
pub const MAINTENANCE_DEPLOYMENT: &str = "MAINTENANCE_DEPLOYMENT";
/// StatefulSet of the database.
pub const DATABASE_STATEFULSET: &str = "DATABASE_STATEFULSET";
/// Label selector of the database StatefulSet.
pub const DATABASE_SELECTOR: &str = "DATABASE_SELECTOR";
/// Replicas of the database when it is whole.
pub const DATABASE_REPLICAS: &str = "DATABASE_REPLICAS";
/// ConfigMap in which Patroni keeps its cluster state.
pub const DATABASE_CONFIG: &str = "DATABASE_CONFIG";
/// ConfigMap with the environment of the database pods (`STANDBY_HOST`, `STANDBY_PORT`).
pub const DATABASE_ENV_CONFIG: &str = "DATABASE_ENV_CONFIG";
/// Prefix of the database volume claims; `-<ordinal>` follows.
pub const DATABASE_VOLUME_PREFIX: &str = "DATABASE_VOLUME_PREFIX";
/// StatefulSet of the application (Keycloak).
pub const APPLICATION_STATEFULSET: &str = "APPLICATION_STATEFULSET";
/// Label selector of the application StatefulSet.
pub const KEYCLOAK_SELECTOR: &str = "KEYCLOAK_SELECTOR";
/// What is scaled with the application where there is no pipeline: `deployment/NAME:REPLICAS` or
/// `statefulset/NAME:REPLICAS`, comma-separated, in the order in which they start.
pub const APPLICATION_DEPENDANTS: &str = "APPLICATION_DEPENDANTS";
/// Label selector of the service whose selector switches between application and maintenance page.
pub const SERVICE_SELECTOR: &str = "SERVICE_SELECTOR";
/// Value of the pod label `app` of the maintenance page.
pub const SERVICE_MAINTENANCE_APP: &str = "SERVICE_MAINTENANCE_APP";
/// Value of the pod label `app.kubernetes.io/instance` of the application.
pub const SERVICE_APPLICATION_INSTANCE: &str = "SERVICE_APPLICATION_INSTANCE";
/// Value of the pod label `app.kubernetes.io/name` of the application.
pub const SERVICE_APPLICATION_NAME: &str = "SERVICE_APPLICATION_NAME";
/// Seconds that one call may take.
pub const TIMEOUT: &str = "KUBE_TIMEOUT_SECONDS";
/// Seconds that scaling may take until the pods are there or gone.
pub const SCALE_TIMEOUT: &str = "KUBE_SCALE_TIMEOUT_SECONDS";
/// Seconds after which the API server is asked to end a watch, so that it is opened anew.
pub const WATCH_SECONDS: &str = "KUBE_WATCH_SECONDS";
/// Seconds without a byte after which a watch is taken for dead. API servers send a bookmark about once a minute.
pub const WATCH_STALL: &str = "KUBE_WATCH_STALL_SECONDS";

/// How the API server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeAccess {
    /// The pod's service account; its token is read again as it rotates.
    InCluster,
    /// Kubeconfig files, merged in order; empty = the default place.
    Kubeconfig(Vec<String>),
    /// A base URL, perhaps with a path prefix, and a bearer token.
    Url(String, Option<Secret>),
}

/// Settings of the Kubernetes adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeSettings {
    /// How the API server is reached.
    pub access: KubeAccess,
    /// Namespace of the service that moves.
    pub namespace: String,
    /// Namespace of the health deployment and of the record.
    pub health_namespace: String,
    /// Namespace of PipelineRuns and of the Terraform variables.
    pub tekton_namespace: String,
    /// Label selector of the record.
    pub record_selector: String,
    /// Name of the record.
    pub record_name: String,
    /// Time between two full reads of the record.
    pub record_resync: Duration,
    /// Label selector of PipelineRuns.
    pub tekton_selector: Option<String>,
    /// Fixed API version of Tekton (`v1`, `v1beta1`), `None` = by discovery.
    pub tekton_version: Option<String>,
    /// Secret with the Terraform variables; `None` = there is none.
    pub tfvars_secret: Option<String>,
    /// Health deployment.
    pub health_deployment: String,
    /// Its disruption budget.
    pub health_pdb: String,
    /// Gateway deployment.
    pub gateway_deployment: String,
    /// Maintenance page deployment.
    pub maintenance_deployment: String,
    /// Database StatefulSet.
    pub database_statefulset: String,
    /// Its label selector.
    pub database_selector: String,
    /// Its replicas when whole.
    pub database_replicas: u32,
    /// ConfigMap of Patroni's cluster state.
    pub database_config: String,
    /// ConfigMap of the database pods' environment.
    pub database_env_config: String,
    /// Prefix of the volume claims.
    pub database_volume_prefix: String,
    /// Application StatefulSet.
    pub application_statefulset: String,
    /// Its label selector.
    pub application_selector: String,
    /// What is scaled with the application, in starting order.
    pub application_dependants: Vec<Dependant>,
    /// Label selector of the service.
    pub service_selector: String,
    /// Pod label `app` of the maintenance page.
    pub service_maintenance_app: String,
    /// Pod label `app.kubernetes.io/instance` of the application.
    pub service_application_instance: String,
    /// Pod label `app.kubernetes.io/name` of the application.
    pub service_application_name: String,
    /// Limit of one call.
    pub timeout: Duration,
    /// Limit of scaling and waiting.
    pub scale_timeout: Duration,
    /// Length of one watch.
    pub watch_length: Duration,
    /// Silence after which a watch is dead.
    pub watch_stall: Duration,
}

/// A workload that runs where the application runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependant {
    /// `deployments` or `statefulsets`, as the API's path has it.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Replicas where it runs.
    pub replicas: u32,
}

/// Reads the section. `environment` (the setting `ENVIRONMENT`) is part of derived names; `needed` says whether any
/// task uses Kubernetes, so that an agent that only announces prefixes needs no namespaces.
pub fn read(reader: &mut Reader<'_>, environment: &str, needed: bool) -> KubeSettings {
    let unused = (!needed).then_some("default");
    // Where it is required and missing that is said by its own section; derived names stay well-formed.
    let environment = if environment.is_empty() { "unset" } else { environment };
    let namespace = namespace(reader, NAMESPACE, unused);
    let health_namespace = self::namespace(reader, HEALTH_NAMESPACE, unused);
    let tekton_namespace = self::namespace(reader, TEKTON_NAMESPACE, Some(&namespace));
    let health_deployment =
        object(reader, HEALTH_DEPLOYMENT, &format!("bcgov-health-api-{environment}-generic-api"));
    let selector_default = format!("app=switchover,name=switchover-config,env={environment}");
    KubeSettings {
        access: access(reader),
        record_selector: selector(reader, CONFIGMAP_SELECTOR, &selector_default),
        record_name: object(reader, RECORD_NAME, &format!("switchover-state-{environment}")),
        record_resync: seconds(reader, RECORD_RESYNC_SECONDS, 30, 1.0, 3600.0),
        tekton_selector: reader
            .text(TEKTON_LABEL_SELECTOR)
            .map(|text| selector(reader, TEKTON_LABEL_SELECTOR, &text)),
        tekton_version: tekton_version(reader),
        tfvars_secret: reader.text(TERRAFORM_TFVARS).map(|text| object(reader, TERRAFORM_TFVARS, &text)),
        health_pdb: object(reader, HEALTH_PDB, &format!("{health_deployment}-pdb")),
        health_deployment,
        gateway_deployment: object(reader, GATEWAY_DEPLOYMENT, "konghc-kong"),
        maintenance_deployment: object(
            reader,
            MAINTENANCE_DEPLOYMENT,
            "keycloak-maintenance-redirect-generic-api",
        ),
        database_statefulset: object(reader, DATABASE_STATEFULSET, "patroni-spilo"),
        database_selector: selector(reader, DATABASE_SELECTOR, "app=patroni-spilo"),
        database_replicas: reader.integer(DATABASE_REPLICAS, 3, 1, 99) as u32,
        database_config: object(reader, DATABASE_CONFIG, "patroni-spilo-config"),
        database_env_config: object(reader, DATABASE_ENV_CONFIG, "patroni-spilo-env-vars"),
        database_volume_prefix: object(reader, DATABASE_VOLUME_PREFIX, "storage-volume-patroni-spilo"),
        application_statefulset: object(reader, APPLICATION_STATEFULSET, "keycloak"),
        application_selector: selector(reader, KEYCLOAK_SELECTOR, "app.kubernetes.io/instance=keycloak"),
        application_dependants: dependants(reader),
        service_selector: selector(
            reader,
            SERVICE_SELECTOR,
            "app.kubernetes.io/component=http,app.kubernetes.io/instance=keycloak",
        ),
        service_maintenance_app: label(reader, SERVICE_MAINTENANCE_APP, "keycloak-maintenance-page"),
        service_application_instance: label(reader, SERVICE_APPLICATION_INSTANCE, "keycloak"),
        service_application_name: label(reader, SERVICE_APPLICATION_NAME, "keycloak"),
        timeout: seconds(reader, TIMEOUT, 10, 0.1, 120.0),
        scale_timeout: seconds(reader, SCALE_TIMEOUT, 600, 1.0, 7200.0),
        watch_length: seconds(reader, WATCH_SECONDS, 300, 1.0, 3600.0),
        watch_stall: seconds(reader, WATCH_STALL, 90, 0.1, 3600.0),
        namespace,
        health_namespace,
        tekton_namespace,
    }
}

fn seconds(reader: &mut Reader<'_>, name: &str, default: u64, min: f64, max: f64) -> Duration {
    Duration::from_millis(reader.seconds(name, default * 1000, min, max))
}

fn access(reader: &mut Reader<'_>) -> KubeAccess {
    if let Some(url) = reader.text(API_URL) {
        let plain = url.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some()
                && uri.query().is_none()
        });
        if !plain || url.contains('@') {
            // Only the setting's name is shown where the URL might hold a password.
            let shown = if url.contains('@') { "***" } else { url.as_str() };
            reader.problem(API_URL, Some(shown), "http(s)://host[:port][/prefix] without user and query");
        }
        let token = reader.secret(API_TOKEN).filter(|token| !token.is_empty());
        return KubeAccess::Url(url, token);
    }
    let (mode, files) = (reader.text(PY_ENV), reader.text(KUBECONFIG));
    let in_pod = mode.is_none() && files.is_none() && reader.present(IN_POD);
    if in_pod || mode.as_deref() == Some("production") {
        return KubeAccess::InCluster;
    }
    let files = files.unwrap_or_default();
    KubeAccess::Kubeconfig(files.split(':').filter(|file| !file.is_empty()).map(str::to_owned).collect())
}

fn dependants(reader: &mut Reader<'_>) -> Vec<Dependant> {
    let mut found = Vec::new();
    for entry in reader.list(APPLICATION_DEPENDANTS).unwrap_or_default() {
        match dependant(&entry) {
            Some(dependant) => found.push(dependant),
            None => reader.problem(
                APPLICATION_DEPENDANTS,
                Some(&entry),
                "deployment/NAME:REPLICAS or statefulset/NAME:REPLICAS, comma-separated",
            ),
        }
    }
    found
}

fn dependant(entry: &str) -> Option<Dependant> {
    let (kind, rest) = entry.split_once('/')?;
    let (name, replicas) = rest.split_once(':').unwrap_or((rest, "1"));
    let kind = match kind {
        "deployment" => "deployments",
        "statefulset" => "statefulsets",
        _ => return None,
    };
    let replicas = replicas.parse().ok().filter(|replicas| (1..=99).contains(replicas))?;
    is_object_name(name).then(|| Dependant { kind, name: name.to_owned(), replicas })
}

fn tekton_version(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.text(TEKTON_API_VERSION)?;
    if !matches!(text.as_str(), "v1" | "v1beta1") {
        reader.problem(TEKTON_API_VERSION, Some(&text), "v1 or v1beta1");
        return None;
    }
    Some(text)
}

/// A namespace: an RFC 1123 label.
fn namespace(reader: &mut Reader<'_>, name: &str, default: Option<&str>) -> String {
    let text = match default {
        Some(default) => reader.text_or(name, default),
        None => reader.required(name, "the name of a Kubernetes namespace"),
    };
    if !text.is_empty() && (text.contains('.') || text.len() > 63 || !is_object_name(&text)) {
        reader.problem(name, Some(&text), "a namespace: a-z, 0-9 and -, at most 63 characters");
    }
    text
}

/// An object's name: an RFC 1123 subdomain.
fn object(reader: &mut Reader<'_>, name: &str, default: &str) -> String {
    let text = reader.text_or(name, default);
    if !is_object_name(&text) {
        reader.problem(name, Some(&text), "an object's name: a-z, 0-9, - and ., at most 253 characters");
    }
    text
}

fn label(reader: &mut Reader<'_>, name: &str, default: &str) -> String {
    let text = reader.text_or(name, default);
    if text.len() > 63 || !text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        reader.problem(
            name,
            Some(&text),
            "a label's value: letters, digits, -, _ and ., at most 63 characters",
        );
    }
    text
}

fn selector(reader: &mut Reader<'_>, name: &str, default: &str) -> String {
    let text = reader.text_or(name, default);
    if !is_selector(&text) {
        reader.problem(name, Some(&text), "a label selector such as app=switchover,env=prod");
    }
    text
}

/// Whether the text can be the name of an object (RFC 1123 subdomain), so is safe as a segment of a path.
pub fn is_object_name(text: &str) -> bool {
    text.len() <= 253
        && !text.is_empty()
        && text.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        })
}

/// Whether the text looks like a label selector: requirements of keys and values, separated by commas.
pub fn is_selector(text: &str) -> bool {
    let requirement = |part: &str| {
        let part = part.trim();
        let key = part.trim_start_matches('!').split(['=', '!', ' ', '(', ')']).next().unwrap_or_default();
        let well_placed = part.matches('=').count() <= 2;
        !part.is_empty()
            && well_placed
            && (!key.is_empty() || part.ends_with(')'))
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=!() ".contains(c))
    };
    text.matches('(').count() == text.matches(')').count() && text.split(',').all(requirement)
}

#[cfg(test)]
#[path = "kube_tests.rs"]
mod tests;
