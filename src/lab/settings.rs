//! What a simulated world is made of: names, addresses, delays. Plain data with the defaults of the lab.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::model::Side;

/// How long the simulated parts take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// From a changed `spec` to the controller's first reaction.
    pub controller_ms: u64,
    /// From a pod's creation to its readiness (database pods: until PostgreSQL may start).
    pub pod_start_ms: u64,
    /// From a pod's deletion to its disappearance.
    pub pod_stop_ms: u64,
    /// A copy of the database into an empty volume.
    pub clone_ms: u64,
    /// From the changed configuration to a writable database.
    pub promote_ms: u64,
    /// From the changed configuration to a database that refuses writes.
    pub demote_ms: u64,
    /// From read-only to streaming from the other site.
    pub follow_ms: u64,
    /// A rewind of a diverged database.
    pub rewind_ms: u64,
    /// From a pipeline run's creation to `Running`.
    pub run_start_ms: u64,
    /// From `Running` to its end.
    pub run_ms: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            controller_ms: 50,
            pod_start_ms: 100,
            pod_stop_ms: 100,
            clone_ms: 150,
            promote_ms: 150,
            demote_ms: 100,
            follow_ms: 150,
            rewind_ms: 150,
            run_start_ms: 50,
            run_ms: 150,
        }
    }
}

impl Delays {
    /// Everything happens at the next step of the world.
    pub fn none() -> Self {
        Self {
            controller_ms: 0,
            pod_start_ms: 0,
            pod_stop_ms: 0,
            clone_ms: 0,
            promote_ms: 0,
            demote_ms: 0,
            follow_ms: 0,
            rewind_ms: 0,
            run_start_ms: 0,
            run_ms: 0,
        }
    }
}

/// Whose words the simulated Patroni uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatroniVersion {
    /// 3.0.2: `master`, every healthy member `running`.
    V3,
    /// 4.1.5: `primary`, healthy followers `streaming`.
    V4,
}

impl PatroniVersion {
    /// The version number that `GET /patroni` tells.
    pub fn number(self) -> &'static str {
        match self {
            Self::V3 => "3.0.2",
            Self::V4 => "4.1.5",
        }
    }
}

/// Everything a world can be told.
#[derive(Debug, Clone)]
pub struct WorldSettings {
    /// `ENVIRONMENT`: suffix of object names.
    pub environment: String,
    /// Names of the sites: active, passive.
    pub site_names: [String; 2],
    /// Namespace of the solution.
    pub namespace: String,
    /// Namespace of the health deployment and of the record.
    pub health_namespace: String,
    /// Namespace of the pipeline runs and of the Terraform variables Secret.
    pub tekton_namespace: String,
    /// Name of the Terraform variables Secret.
    pub tfvars_secret: String,
    /// Database hosts as the other site reaches them: active, passive.
    pub database_hosts: [String; 2],
    /// Database port as the other site reaches it.
    pub database_port: u16,
    /// Database pods on a normal day.
    pub database_replicas: u32,
    /// Application pods where the application runs.
    pub application_replicas: u32,
    /// Name that the global load balancer answers for.
    pub gslb_name: String,
    /// Name with a fixed answer, for the agents' test of their own network.
    pub self_test_name: String,
    /// The fixed answer.
    pub self_test_address: Ipv4Addr,
    /// Service address of the active site.
    pub active_ip: Ipv4Addr,
    /// Service address of the passive site.
    pub passive_ip: Ipv4Addr,
    /// Whose words Patroni uses.
    pub patroni_version: PatroniVersion,
    /// User and password that Patroni's PATCH demands.
    pub patroni_basic: Option<(String, String)>,
    /// Secret of the pipeline listener; `None` = signatures are not looked at.
    pub hmac_secret: Option<String>,
    /// Token that the Kubernetes API demands; `None` = open.
    pub api_token: Option<String>,
    /// Tokens that TokenReview accepts, with their user names.
    pub operator_tokens: BTreeMap<String, String>,
    /// How long things take.
    pub delays: Delays,
    /// Milliseconds between two rows of the built-in client; `None` = it does not write.
    pub writer_interval_ms: Option<u64>,
    /// Changes that the Kubernetes API remembers for watches; older ones are 410.
    pub watch_history: usize,
}

impl Default for WorldSettings {
    fn default() -> Self {
        Self {
            environment: "dev".to_owned(),
            site_names: ["gold".to_owned(), "golddr".to_owned()],
            namespace: "sso-dev".to_owned(),
            health_namespace: "health-dev".to_owned(),
            tekton_namespace: "tekton-dev".to_owned(),
            tfvars_secret: "sso-dev-tfvars".to_owned(),
            database_hosts: ["patroni-gold.lab".to_owned(), "patroni-golddr.lab".to_owned()],
            database_port: 5432,
            database_replicas: 3,
            application_replicas: 2,
            gslb_name: "sso.lab.test".to_owned(),
            self_test_name: "self-test.lab.test".to_owned(),
            self_test_address: Ipv4Addr::new(192, 0, 2, 53),
            active_ip: Ipv4Addr::new(142, 34, 229, 4),
            passive_ip: Ipv4Addr::new(142, 34, 64, 4),
            patroni_version: PatroniVersion::V4,
            patroni_basic: None,
            hmac_secret: None,
            api_token: None,
            operator_tokens: BTreeMap::new(),
            delays: Delays::default(),
            writer_interval_ms: None,
            watch_history: 2000,
        }
    }
}

impl WorldSettings {
    /// Name of the record ConfigMap.
    pub fn record_name(&self) -> String {
        format!("switchover-state-{}", self.environment)
    }

    /// Name of the health deployment.
    pub fn health_name(&self) -> String {
        format!("bcgov-health-api-{}-generic-api", self.environment)
    }

    /// Name of a site.
    pub fn site_name(&self, side: Side) -> &str {
        &self.site_names[index(side)]
    }

    /// Database host of a site.
    pub fn database_host(&self, side: Side) -> &str {
        &self.database_hosts[index(side)]
    }

    /// Service address of a site.
    pub fn service_ip(&self, side: Side) -> Ipv4Addr {
        match side {
            Side::Active => self.active_ip,
            Side::Passive => self.passive_ip,
        }
    }

    /// The side that a site name means.
    pub fn side_of(&self, name: &str) -> Option<Side> {
        Side::ALL.into_iter().find(|side| self.site_name(*side) == name)
    }
}

fn index(side: Side) -> usize {
    match side {
        Side::Active => 0,
        Side::Passive => 1,
    }
}

/// Name of the database StatefulSet.
pub const DATABASE: &str = "patroni-spilo";
/// ConfigMap in which Patroni keeps the state of the cluster.
pub const CLUSTER_STATE: &str = "patroni-spilo-config";
/// ConfigMap with the environment of the database pods.
pub const DATABASE_ENV: &str = "patroni-spilo-env-vars";
/// Name of the application's StatefulSet and Service.
pub const APPLICATION: &str = "keycloak";
/// Deployment of the gateway.
pub const GATEWAY: &str = "konghc-kong";
/// Deployment that shows the maintenance page.
pub const MAINTENANCE_PAGE: &str = "keycloak-maintenance-redirect-generic-api";
