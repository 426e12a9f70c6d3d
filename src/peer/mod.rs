//! The link to the agent at the other site: a websocket over mutual TLS, wire-compatible with the predecessor.
//!
//! ```text
//!  peer_server (1x) -- session (Nx) --> bus          frames of the peer: heartbeats and messages
//!  peer_client (1x) -- ping connection (1x) --> bus  whether the peer answers
//!  peer_client_fwd (1x) -- connection per message    what the engine wants the peer to know
//! ```
//!
//! Here are the parts that know the protocol: [`message`] (frames), [`material`] (certificate files), [`tls`]
//! (who may talk to us), [`reload`] (certificates that change), [`dial`] (outgoing connections), [`delivery`] (the
//! queue to the carrier), [`certs`] (development certificates). The tasks of the same names are in `tasks/`. Nothing
//! here knows a phase.

pub mod certs;
pub mod delivery;
pub mod dial;
pub mod material;
pub mod message;
pub mod metrics;
pub mod reload;
pub mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::peer::PeerSettings;
use crate::model::{OutboxId, PeerStatus};

pub use delivery::{Courier, DeliveryError, DeliveryQueue};
pub use material::MaterialError;
pub use metrics::PeerMetrics;
pub use reload::PeerTls;

/// What the three peer tasks of one agent share. Made once per agent, cloned into each task.
#[derive(Clone)]
pub struct PeerShared {
    /// TLS configurations that follow the certificate files.
    pub tls: Arc<PeerTls>,
    /// Counters.
    pub metrics: PeerMetrics,
    /// Random name of this process, in every frame that we send.
    pub instance: String,
    /// How our site is; sent with every heartbeat and every answer.
    pub status: watch::Receiver<PeerStatus>,
    /// Highest message number that our engine has handled, per peer instance.
    pub handled: watch::Receiver<BTreeMap<String, OutboxId>>,
}

impl PeerShared {
    /// Reads the certificate files and registers the metrics.
    ///
    /// # Errors
    /// [`MaterialError`] where a certificate file is missing or unusable.
    pub fn new(
        settings: &PeerSettings,
        registry: &prometheus::Registry,
        instance: String,
        status: watch::Receiver<PeerStatus>,
        handled: watch::Receiver<BTreeMap<String, OutboxId>>,
    ) -> Result<Self, MaterialError> {
        let metrics = PeerMetrics::register(registry);
        let tls = Arc::new(PeerTls::load(settings, metrics.clone())?);
        Ok(Self { tls, metrics, instance, status, handled })
    }
}

/// A fresh random name for this process.
pub fn new_instance() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}

/// Websocket limits of every connection of the link: messages of 1 MiB, a small buffer since frames are small.
pub(crate) fn websocket_config() -> tokio_tungstenite::tungstenite::protocol::WebSocketConfig {
    tokio_tungstenite::tungstenite::protocol::WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * message::MAX_MESSAGE_BYTES)
        .max_message_size(Some(message::MAX_MESSAGE_BYTES))
        .max_frame_size(Some(message::MAX_MESSAGE_BYTES))
}
