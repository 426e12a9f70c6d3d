//! The Kubernetes API: the record, the actuators of a site, PipelineRuns, and watches.
//!
//! Owns: how each effect is spelt on the wire (method, path, content type, body), time limits, size limits and the
//! sorting of failures. Never: decides anything, retries a write, shows a body. Sits on `kube::Client`, which brings
//! TLS, kubeconfig and rotating tokens; requests are made by hand, because their exact form is a contract.

mod error;
mod objects;
pub mod once;
mod pace;
mod pipeline;
mod record;
mod request;
mod scale;
pub mod watch;

use std::sync::Arc;

use ::kube::config::{AuthInfo, Config, KubeConfigOptions, Kubeconfig};

use crate::config::kube::{KubeAccess, KubeSettings};

pub use error::KubeError;
pub use objects::Done;
pub use pace::WatchPace;
pub use pipeline::{EVENT_ID_LABEL, run_from_object};
pub use record::{REFUSAL_ANNOTATION, choose_record, name_of, record_from_object};
pub use request::{PatchKind, encode, items};
pub use watch::{Change, WatchTarget};

/// A client of one API server. Cheap to clone: clones share connections, settings and counters.
#[derive(Clone)]
pub struct Kube {
    inner: Arc<Inner>,
}

struct Inner {
    client: ::kube::Client,
    settings: KubeSettings,
    tekton_version: tokio::sync::OnceCell<&'static str>,
    restarts: prometheus::IntCounterVec,
}

impl Kube {
    /// Sets the client up; contacts nothing (a kubeconfig's credential plugin runs at the first call).
    ///
    /// # Errors
    /// [`KubeError::Setup`] where service account, kubeconfig or URL cannot be used.
    pub async fn connect(settings: KubeSettings, registry: &prometheus::Registry) -> Result<Self, KubeError> {
        // kube takes the process-wide provider; a second installation is refused, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = load_config(&settings.access).await?;
        // An actuator that repeats writes behind our back would break the order and count of changes.
        config.default_retry = false;
        config.connect_timeout = Some(settings.timeout);
        let client = ::kube::Client::try_from(config).map_err(|error| KubeError::Setup(error.to_string()))?;
        let restarts = watch::register_restarts(registry)
            .map_err(|error| KubeError::Setup(format!("registering metrics: {error}")))?;
        let tekton_version = tokio::sync::OnceCell::new();
        Ok(Self { inner: Arc::new(Inner { client, settings, tekton_version, restarts }) })
    }

    /// The settings that the client was made from.
    pub fn settings(&self) -> &KubeSettings {
        &self.inner.settings
    }
}

async fn load_config(access: &KubeAccess) -> Result<Config, KubeError> {
    let setup = |what: &str, error: &dyn std::fmt::Display| KubeError::Setup(format!("{what}: {error}"));
    match access {
        KubeAccess::InCluster => Config::incluster().map_err(|error| setup("service account", &error)),
        KubeAccess::Kubeconfig(files) if files.is_empty() => {
            Config::from_kubeconfig(&KubeConfigOptions::default())
                .await
                .map_err(|error| setup("default kubeconfig", &error))
        }
        KubeAccess::Kubeconfig(files) => {
            let mut merged = Kubeconfig::default();
            for file in files {
                let next = Kubeconfig::read_from(file).map_err(|error| setup(file, &error))?;
                merged = merged.merge(next).map_err(|error| setup(file, &error))?;
            }
            Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default())
                .await
                .map_err(|error| setup("kubeconfig", &error))
        }
        KubeAccess::Url(url, token) => {
            let uri = url.parse::<http::Uri>().map_err(|error| setup("KUBE_API_URL", &error))?;
            let mut config = Config::new(uri);
            if let Some(token) = token {
                let token = Some(token.expose().to_owned().into());
                config.auth_info = AuthInfo { token, ..AuthInfo::default() };
            }
            Ok(config)
        }
    }
}
