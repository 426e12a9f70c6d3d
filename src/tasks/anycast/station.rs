//! The `anycast` task as the agent runs it: out of a file, started again where it broke down, reloaded on SIGHUP.
//!
//! Owns the last good configuration, the way to the running task, and the order of a reload: the file is read whole,
//! then services and routes change, then neighbours. Never decides anything about a route.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::control::NewAnnouncers;
use super::equip;
use super::neighbours::NeighbourMetrics;
use super::{Control, ControlError, Running, Setup, StartError, socket, start};
use crate::announce::speaker::SpeakerHandle;
use crate::checks::trust::Trust;
use crate::config::anycast::settings::{AnycastSettings, Source};
use crate::config::anycast::{AnnouncerRef, Anycast};
use crate::tasks::Exit;

/// The task and what survives its restarts.
pub struct Station {
    file: PathBuf,
    socket: Option<PathBuf>,
    registry: Arc<prometheus::Registry>,
    trust: Trust,
    /// Asks the task to end.
    pub cancel: CancellationToken,
    state: Mutex<State>,
    control: watch::Sender<Option<Control>>,
    reloading: tokio::sync::Mutex<()>,
}

struct State {
    /// What runs, or ran last.
    config: Anycast,
    open: BTreeSet<AnnouncerRef>,
    speaker: Option<SpeakerHandle>,
    /// The start that [`Station::open`] made, until somebody waits for it.
    first: Option<Running>,
    feed: CancellationToken,
}

impl Station {
    /// Starts the task, so that whatever this machine lacks ends the process before anything is announced.
    ///
    /// # Errors
    /// Another agent runs, a check cannot be built, a listener cannot be had, an announcer refuses its settings.
    pub fn open(
        settings: AnycastSettings,
        registry: Arc<prometheus::Registry>,
    ) -> Result<Arc<Self>, StartError> {
        let AnycastSettings { file, config, control_socket } = settings;
        let named = config.control_socket.clone().or(control_socket);
        let socket = named.or_else(usual_socket);
        let state = State {
            config,
            open: BTreeSet::new(),
            speaker: None,
            first: None,
            feed: CancellationToken::new(),
        };
        let station = Self {
            file,
            socket,
            registry,
            trust: Trust::system(None),
            cancel: CancellationToken::new(),
            state: Mutex::new(state),
            control: watch::Sender::new(None),
            reloading: tokio::sync::Mutex::new(()),
        };
        // Go programs show these of themselves, and so did the predecessor; shown already is just as well.
        let process = prometheus::process_collector::ProcessCollector::for_self();
        let _ = station.registry.register(Box::new(process));
        let running = station.begin()?;
        station.state().first = Some(running);
        Ok(Arc::new(station))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Result<Running, StartError> {
        let mut state = self.state();
        let mut open = state.config.announcers();
        // Neighbours are kept even while no service has a route for them.
        if state.config.bgp.is_some() {
            open.insert(AnnouncerRef::Bgp);
        }
        let equipment = equip::build(&state.config, &open, self.socket.as_deref())?;
        let setup = Setup {
            config: state.config.clone(),
            announcers: equipment.announcers,
            trust: self.trust.clone(),
            registry: Arc::clone(&self.registry),
            socket: self.socket.clone(),
        };
        let running = start(setup, self.cancel.clone())?;
        state.open = open;
        state.speaker = equipment.speaker;
        self.feed(&mut state)?;
        self.control.send_replace(Some(running.control.clone()));
        Ok(running)
    }

    /// Shows the speaker's neighbours in the metrics, in place of what was shown before.
    fn feed(&self, state: &mut State) -> Result<(), StartError> {
        state.feed.cancel();
        state.feed = self.cancel.child_token();
        if let (Some(speaker), Some(section)) = (&state.speaker, &state.config.bgp) {
            let metrics = NeighbourMetrics::register(&self.registry)?;
            let router_id = section.router_id().to_owned();
            tokio::spawn(equip::feed(speaker.clone(), metrics, router_id, state.feed.clone()));
        }
        Ok(())
    }

    /// Runs the task to its end; started again by the supervisor, with the last good configuration.
    pub async fn run(self: Arc<Self>) -> Exit {
        let first = self.state().first.take();
        let running = match first.map_or_else(|| self.begin(), Ok) {
            Ok(running) => running,
            Err(error) => return Exit::Failed(error.to_string()),
        };
        let exit = running.task.await.unwrap_or_else(|error| Exit::Failed(error.to_string()));
        self.control.send_replace(None);
        let mut state = self.state();
        state.feed.cancel();
        // The last hold on the speaker of a task that broke down: its sessions end now, and not with the next start.
        state.speaker = None;
        exit
    }

    /// Whether the task takes requests.
    pub async fn alive(&self) -> bool {
        let control = self.control.borrow().clone();
        match control {
            Some(control) => control.alive().await.is_ok(),
            None => false,
        }
    }

    /// Reads the file again and takes it over. A file that cannot be used changes nothing; whatever is wrong with it is
    /// logged in one message.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn reload(&self) -> Result<String, ControlError> {
        let _one_at_a_time = self.reloading.lock().await;
        let result = self.take_over().await;
        match &result {
            Ok(told) => info!(path = %self.file.display(), "reloaded: {told}"),
            Err(error) => error!(path = %self.file.display(), %error, "reload"),
        }
        result
    }

    async fn take_over(&self) -> Result<String, ControlError> {
        let config = read(&self.file).await?;
        let control = self.control.borrow().clone().ok_or(ControlError::Gone)?;
        let (before, open) = {
            let state = self.state();
            (state.config.clone(), state.open.clone())
        };
        let mut fresh: BTreeSet<AnnouncerRef> = config.announcers().difference(&open).cloned().collect();
        if config.bgp.is_some() && !open.contains(&AnnouncerRef::Bgp) {
            fresh.insert(AnnouncerRef::Bgp);
        }
        let refused = |error: &dyn std::fmt::Display| ControlError::Reload(error.to_string());
        let equipment =
            equip::build(&config, &fresh, self.socket.as_deref()).map_err(|error| refused(&error))?;
        let told = control.reload_with(config.clone(), NewAnnouncers(equipment.announcers)).await?;
        let speaker = {
            let mut state = self.state();
            state.config = config;
            state.open.extend(fresh);
            let speaker = state.speaker.clone();
            if equipment.speaker.is_some() {
                state.speaker = equipment.speaker;
                self.feed(&mut state).map_err(|error| refused(&error))?;
            }
            speaker
        };
        match speaker {
            Some(speaker) => Ok(format!("{told}{}", self.neighbours(&speaker, &before).await)),
            None => Ok(told),
        }
    }

    /// Gives the speaker its new neighbours; those that did not change keep their sessions.
    async fn neighbours(&self, speaker: &SpeakerHandle, before: &Anycast) -> &'static str {
        let now = self.state().config.bgp.clone();
        if now == before.bgp {
            return "";
        }
        // Both were checked when they were read; a section that is gone means no neighbours.
        let old = before.bgp.as_ref().and_then(|section| section.speaker().ok());
        let new = now.as_ref().and_then(|section| section.speaker().ok());
        let Some(new) = new
            .or_else(|| Some(crate::config::bgp::SpeakerSettings { neighbours: Vec::new(), ..old.clone()? }))
        else {
            return "";
        };
        if let Err(error) = speaker.reconfigure(new).await {
            error!(%error, "the new neighbours cannot be had; back to the old ones");
            if let Some(old) = old
                && let Err(error) = speaker.reconfigure(old).await
            {
                error!(%error, "nor can the old ones");
            }
            return "; the new neighbours were refused";
        }
        if let Err(error) = self.feed(&mut self.state()) {
            warn!(%error, "metrics of neighbours");
        }
        "; neighbours changed"
    }
}

/// The socket where nobody names one: the usual path, unless this process may not use it, as in a container without
/// a writable `/run`.
fn usual_socket() -> Option<PathBuf> {
    let path = Path::new(socket::DEFAULT_PATH);
    match socket::usable(path) {
        Ok(()) => Some(path.to_owned()),
        Err(error) => {
            warn!(path = %path.display(), %error, "no control socket; `control_socket` names another place");
            None
        }
    }
}

async fn read(file: &Path) -> Result<Anycast, ControlError> {
    let owned = file.to_owned();
    let read = tokio::task::spawn_blocking(move || Source::read(&owned)).await;
    let source = read.map_err(|error| ControlError::Reload(error.to_string()))?;
    let config = source.anycast.ok_or_else(|| ControlError::Reload("the file has no services".to_owned()))?;
    config.map_err(|error| ControlError::Reload(error.to_string()))
}
