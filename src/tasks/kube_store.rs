//! What the journal and the HTTP interface need of Kubernetes: one ConfigMap, and TokenReview.
//!
//! A bridge only: the adapter knows the API, the journal and the interface know their own traits.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::adapters::kube::{Kube, KubeError};
use crate::config::Secret;
use crate::http::TokenReviewer;
use crate::journal::{ConfigMapStore, StoreError, StoredMap};

/// The bridge.
pub struct KubeStore {
    kube: Kube,
    namespace: String,
    name: String,
}

impl KubeStore {
    /// For the ConfigMap of this name.
    pub fn new(kube: Kube, namespace: String, name: String) -> Self {
        Self { kube, namespace, name }
    }
}

fn stored(object: &Value) -> StoredMap {
    let data = object.get("data").and_then(Value::as_object).into_iter().flatten();
    StoredMap {
        data: data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
        resource_version: version(object),
    }
}

fn version(object: &Value) -> Option<String> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned)
}

fn store_error(error: &KubeError) -> StoreError {
    if error.is_conflict() { StoreError::Conflict } else { StoreError::Failed(error.to_string()) }
}

impl ConfigMapStore for KubeStore {
    fn get(&self) -> BoxFuture<'_, Result<Option<StoredMap>, StoreError>> {
        async {
            let object = self.kube.get_config_map(&self.namespace, &self.name).await;
            object.map(|object| object.as_ref().map(stored)).map_err(|error| store_error(&error))
        }
        .boxed()
    }

    fn put(
        &self,
        data: BTreeMap<String, String>,
        expect: Option<String>,
    ) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        async move {
            let mut body = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": self.name, "namespace": self.namespace},
                "data": data,
            });
            let result = match expect {
                Some(expect) => {
                    body["metadata"]["resourceVersion"] = json!(expect);
                    self.kube.replace_config_map(&self.namespace, &self.name, &body).await
                }
                None => self.kube.create_config_map(&self.namespace, &body).await,
            };
            result.map(|object| version(&object)).map_err(|error| store_error(&error))
        }
        .boxed()
    }
}

impl TokenReviewer for KubeStore {
    fn review<'a>(&'a self, token: &'a Secret) -> BoxFuture<'a, Result<Option<String>, String>> {
        async { self.kube.review_token(token.expose()).await.map_err(|error| error.to_string()) }.boxed()
    }
}
