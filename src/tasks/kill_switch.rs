//! The agent's own death at an exact moment, for tests (`FAULT_KILL_AT`): what a crash, an OOM kill or a power cut
//! does, at the point that a test names. Does nothing where it was not set.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::faults::{KillAt, KillPoint};
use crate::model::{Action, ActionId, Command, Effect, Note, PeerMessage};

/// Ends the process as `kill -9` does.
pub fn die() {
    // A process may always signal itself; should it ever not, the test sees that it lives.
    let _ = kill(Pid::this(), Signal::SIGKILL);
}

/// The switch; without a setting it is never thrown.
#[derive(Debug, Default)]
pub struct KillSwitch {
    at: Option<KillAt>,
    seen: AtomicU64,
    names: Mutex<BTreeMap<ActionId, String>>,
}

impl KillSwitch {
    /// A switch that is thrown there.
    pub fn new(at: Option<KillAt>) -> Self {
        Self { at, ..Self::default() }
    }

    /// Decisions are about to be written down.
    pub fn before_write(&self, actions: &[Action]) {
        if self.at.is_none() {
            return;
        }
        for action in actions {
            match action {
                Action::Perform(command) => self.reached(KillPoint::BeforeIntent, &name(command)),
                Action::Report(Note::StepDone { step, .. }) => self.reached(KillPoint::BeforeDone, step),
                Action::Report(_) => {}
            }
        }
    }

    /// They are written down; `ended` is the action whose outcome was among them.
    pub fn after_write(&self, actions: &[Action], ended: Option<ActionId>) {
        if self.at.is_none() {
            return;
        }
        let ended =
            ended.and_then(|id| self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        if let Some(name) = ended {
            self.reached(KillPoint::AfterRecord, &name);
        }
        for action in actions {
            if let Action::Report(Note::StepDone { step, .. }) = action {
                self.reached(KillPoint::AfterDone, step);
            }
        }
    }

    /// A command is about to be carried out.
    pub fn before_act(&self, command: &Command) {
        if self.at.is_some() {
            self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(command.id, name(command));
            self.reached(KillPoint::AfterIntent, &name(command));
        }
    }

    /// A command has reached another point.
    pub fn command(&self, point: KillPoint, command: &Command) {
        if self.at.is_some() {
            self.reached(point, &name(command));
        }
    }

    fn reached(&self, point: KillPoint, name: &str) {
        let Some(at) = self.at.as_ref().filter(|at| at.point == point && at.step == name) else { return };
        if self.seen.fetch_add(1, Ordering::SeqCst) + 1 == at.nth {
            die();
        }
    }
}

/// A command's name for the switch: its step, and of messages their kind.
pub fn name(command: &Command) -> String {
    let Effect::SendPeer { message, .. } = &command.effect else { return command.step.clone() };
    let kind = match message {
        PeerMessage::Dns { .. } => "dns",
        PeerMessage::TransitionTo { .. } => "order",
        PeerMessage::Confirm { .. } => "confirm",
        PeerMessage::Yes { .. } => "yes",
        PeerMessage::No { .. } => "no",
        PeerMessage::Unknown { .. } => "unknown",
    };
    format!("{}-{kind}", command.step)
}
