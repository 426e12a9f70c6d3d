//! The maintenance portal: tells it that maintenance is on or off. Knows nothing of who decides so.

use std::time::Duration;

use reqwest::Client;

use super::http_client::{self, HttpError};
use crate::config::portal::PortalSettings;
use crate::model::FailureKind;

/// Why the portal could not be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("maintenance portal: {0}")]
pub struct PortalError(HttpError);

impl PortalError {
    /// How to take it.
    pub fn kind(&self) -> FailureKind {
        self.0.kind()
    }
}

/// The portal.
#[derive(Debug, Clone)]
pub struct Portal {
    client: Client,
    base: String,
}

impl Portal {
    /// A client of the portal at the address that is set.
    pub fn new(settings: &PortalSettings) -> Result<Self, PortalError> {
        let client = http_client::client(&settings.base, Duration::from_millis(settings.timeout_ms))
            .map_err(PortalError)?;
        Ok(Self { client, base: settings.base.clone() })
    }

    /// `PUT /maintenance/true` or `/maintenance/false` without a body.
    ///
    /// Any 2xx with a JSON body or none counts. A page of text does not: that is a proxy in between, not the portal.
    pub async fn set(&self, on: bool) -> Result<(), PortalError> {
        let request = self.client.put(format!("{}/maintenance/{on}", self.base));
        let what = format!("PUT /maintenance/{on}");
        let answer = http_client::call(request, &what)
            .await
            .and_then(http_client::Answer::success)
            .map_err(PortalError)?;
        if !answer.body.is_empty() {
            answer.json().map_err(PortalError)?;
        }
        Ok(())
    }
}
