//! The handle on a running `anycast` task: status, explain, check now, drain, undrain, reload.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::reconcile::Applied;
use super::schedule::Sampled;
use super::status::{Explanation, Status};
use crate::announce::Announcer;
use crate::config::anycast::{AnnouncerRef, Anycast};

/// Everything that reaches the owner.
#[derive(Debug)]
pub(super) enum Input {
    /// A check ran.
    Sampled(Sampled),
    /// An announcer was called.
    Applied(Applied),
    /// Somebody asks.
    Request(Request),
}

/// What can be asked, each with the way back.
#[derive(Debug)]
pub(super) enum Request {
    Status(oneshot::Sender<Status>),
    Explain(String, oneshot::Sender<Result<Explanation, ControlError>>),
    CheckNow(String, oneshot::Sender<Result<String, ControlError>>),
    Drain(String, Option<Duration>, oneshot::Sender<Result<String, ControlError>>),
    Undrain(String, oneshot::Sender<Result<String, ControlError>>),
    Reload(Box<Anycast>, NewAnnouncers, oneshot::Sender<Result<String, ControlError>>),
    Alive(oneshot::Sender<()>),
}

/// Announcers that a reloaded file needs and that do not run yet.
#[derive(Default)]
pub(super) struct NewAnnouncers(pub(super) BTreeMap<AnnouncerRef, Box<dyn Announcer>>);

impl fmt::Debug for NewAnnouncers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// A request that was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No such service.
    #[error("there is no service {name:?}; there are {known}")]
    NoService {
        /// The name asked for.
        name: String,
        /// Names that exist.
        known: String,
    },
    /// Not a prefix, or not one of ours.
    #[error("{0}")]
    Prefix(String),
    /// The new configuration cannot be used; the old one stays.
    #[error("nothing was changed: {0}")]
    Reload(String),
    /// The task has ended.
    #[error("the anycast task has ended")]
    Gone,
    /// The task did not answer in time.
    #[error("the anycast task did not answer in time")]
    Late,
}

/// Longest wait for an answer of the owner.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    sender: mpsc::Sender<Input>,
}

impl Control {
    pub(super) fn new(sender: mpsc::Sender<Input>) -> Self {
        Self { sender }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ControlError> {
        let (sender, receiver) = oneshot::channel();
        let exchange = async {
            self.sender.send(Input::Request(request(sender))).await.map_err(|_| ControlError::Gone)?;
            receiver.await.map_err(|_| ControlError::Gone)
        };
        tokio::time::timeout(ANSWER_LIMIT, exchange).await.unwrap_or(Err(ControlError::Late))
    }

    /// Whether the owner of the state takes requests: for a watchdog.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn alive(&self) -> Result<(), ControlError> {
        self.ask(Request::Alive).await
    }

    /// Everything there is to see.
    ///
    /// # Errors
    /// Where the task does not answer.
    pub async fn status(&self) -> Result<Status, ControlError> {
        self.ask(Request::Status).await
    }

    /// Why a prefix is announced or not.
    ///
    /// # Errors
    /// A text that is no prefix of ours, or a task that does not answer.
    pub async fn explain(&self, prefix: &str) -> Result<Explanation, ControlError> {
        self.ask(|reply| Request::Explain(prefix.to_owned(), reply)).await?
    }

    /// Runs all checks of a service at once.
    ///
    /// # Errors
    /// No such service, or a task that does not answer.
    pub async fn check_now(&self, service: &str) -> Result<String, ControlError> {
        self.ask(|reply| Request::CheckNow(service.to_owned(), reply)).await?
    }

    /// Takes a service out, for a while or until [`Self::undrain`].
    ///
    /// # Errors
    /// No such service, or a task that does not answer.
    pub async fn drain(&self, service: &str, how_long: Option<Duration>) -> Result<String, ControlError> {
        self.ask(|reply| Request::Drain(service.to_owned(), how_long, reply)).await?
    }

    /// Ends a drain.
    ///
    /// # Errors
    /// No such service, or a task that does not answer.
    pub async fn undrain(&self, service: &str) -> Result<String, ControlError> {
        self.ask(|reply| Request::Undrain(service.to_owned(), reply)).await?
    }

    /// Reads a file whole and takes it over, as SIGHUP asks for. A file that cannot be used changes nothing.
    ///
    /// # Errors
    /// Everything that is wrong with the file, or see [`Self::reload`].
    pub async fn reload_file(&self, path: &Path) -> Result<String, ControlError> {
        let owned = path.to_owned();
        let read = tokio::task::spawn_blocking(move || crate::config::anycast::load(&owned)).await;
        let result = match read {
            Ok(Ok(config)) => self.reload(config).await,
            Ok(Err(error)) => Err(ControlError::Reload(error.to_string())),
            Err(error) => Err(ControlError::Reload(error.to_string())),
        };
        if let Err(error) = &result {
            tracing::error!(path = %path.display(), %error, "reload");
        }
        result
    }

    /// Takes over a configuration that was read whole. Services that did not change keep their state and routes.
    ///
    /// # Errors
    /// A configuration that cannot be built here; then nothing has changed.
    pub async fn reload(&self, config: Anycast) -> Result<String, ControlError> {
        self.reload_with(config, NewAnnouncers::default()).await
    }

    pub(super) async fn reload_with(
        &self,
        config: Anycast,
        announcers: NewAnnouncers,
    ) -> Result<String, ControlError> {
        self.ask(|reply| Request::Reload(Box::new(config), announcers, reply)).await?
    }
}
