//! The supervisor: starts the tasks, starts them again when they fail, stops them in order.
//!
//! Owns the state of every task as `/health` and the metrics show it. Never looks inside a task. Sits between the
//! command line, which adds the tasks, and the tasks themselves.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use super::heartbeat::Heartbeat;
use super::{Exit, TaskName};
use crate::telemetry::Metrics;

/// Pause before the first restart; doubles with every failure.
pub const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between restarts.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A task that worked this long starts again with the first pause.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// A vital task that fails this often ...
pub const VITAL_FAILURES: usize = 3;
/// ... within this time ends the process.
pub const VITAL_WINDOW: Duration = Duration::from_secs(60);

/// What a task's factory makes.
pub type TaskFuture = Pin<Box<dyn Future<Output = Exit> + Send>>;

/// How a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Not yet started.
    Starting,
    /// Works.
    Running,
    /// Failed and waits to be started again.
    BackingOff,
    /// Ended because it was asked to, or had nothing more to do and may end.
    Stopped,
    /// Failed and is not started again.
    Failed,
}

/// How a task is and was.
#[derive(Debug, Clone, Serialize)]
pub struct TaskStatus {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub name: TaskName,
    /// How it is.
    pub state: TaskState,
    /// Since when, wall clock in milliseconds since 1970.
    pub since: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it failed the last time.
    pub last_error: Option<String>,
    /// Its pulse, where it has one.
    #[serde(skip)]
    pub heartbeat: Option<Heartbeat>,
}

fn as_text<S: serde::Serializer>(name: &TaskName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

impl TaskStatus {
    /// Whether it runs and its pulse has been silent for too long.
    pub fn stalled(&self) -> bool {
        self.state == TaskState::Running && self.heartbeat.as_ref().is_some_and(Heartbeat::silent)
    }

    /// Whether it does what it is for.
    pub fn works(&self) -> bool {
        matches!(self.state, TaskState::Running | TaskState::Stopped) && !self.stalled()
    }
}

/// All tasks by name, as the supervisor publishes them.
pub type TaskTable = BTreeMap<TaskName, TaskStatus>;

/// How a task is treated.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The agent is no use without it.
    pub vital: bool,
    /// Ending by itself is right (`Exit::Finished`), not a failure.
    pub may_finish: bool,
    /// Time it gets to end when asked to.
    pub stop_limit: Duration,
    /// Its pulse; the factory hands a clone to the task.
    pub heartbeat: Option<Heartbeat>,
    /// The token whose cancellation asks this task to end; the task's `Ctx` holds a clone.
    pub cancel: CancellationToken,
}

impl Policy {
    /// An ordinary task: restarted when it ends, 5 s to stop, no pulse.
    pub fn new(cancel: CancellationToken) -> Self {
        Self { vital: false, may_finish: false, stop_limit: Duration::from_secs(5), heartbeat: None, cancel }
    }
}

/// How the supervisor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SupervisorEnd {
    /// It was asked to end; the tasks that had to be aborted.
    Stopped {
        /// Tasks that did not end in time.
        aborted: Vec<TaskName>,
        /// Tasks that could not end as they should, and why.
        failed: Vec<(TaskName, String)>,
    },
    /// A vital task cannot live.
    VitalTaskLost {
        /// Which.
        task: TaskName,
        /// Why it failed the last time.
        reason: String,
    },
}

struct Task {
    name: TaskName,
    factory: Box<dyn Fn() -> TaskFuture + Send>,
    policy: Policy,
    failures: Vec<Instant>,
    pause: Duration,
    started: Instant,
    handle: Option<AbortHandle>,
}

/// The supervisor. Tasks stop in the order in which they were added.
pub struct Supervisor {
    cancel: CancellationToken,
    metrics: Metrics,
    tasks: Vec<Task>,
    table: watch::Sender<TaskTable>,
    /// What failed while everything was asked to end.
    failed: Vec<(TaskName, String)>,
}

enum Turn {
    Ended(usize, Exit),
    Start(usize),
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The text of a panic.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no text"))
}

impl Supervisor {
    /// A supervisor without tasks; `cancel` asks it to stop them all.
    pub fn new(cancel: CancellationToken, metrics: Metrics) -> Self {
        let table = watch::Sender::new(TaskTable::new());
        Self { cancel, metrics, tasks: Vec::new(), table, failed: Vec::new() }
    }

    /// The tasks as they are, now and later.
    pub fn statuses(&self) -> watch::Receiver<TaskTable> {
        self.table.subscribe()
    }

    /// Adds a task. A restarted task gets a new future of `factory`.
    pub fn add(
        &mut self,
        name: TaskName,
        factory: impl Fn() -> TaskFuture + Send + 'static,
        policy: Policy,
    ) -> &mut Self {
        let status = TaskStatus {
            name,
            state: TaskState::Starting,
            since: wall_ms(),
            restarts: 0,
            last_error: None,
            heartbeat: policy.heartbeat.clone(),
        };
        self.table.send_modify(|table| {
            table.insert(name, status);
        });
        self.metrics.set_task_up(name.as_str(), false);
        self.tasks.push(Task {
            name,
            factory: Box::new(factory),
            policy,
            failures: Vec::new(),
            pause: FIRST_PAUSE,
            started: Instant::now(),
            handle: None,
        });
        self
    }

    /// Runs until it is asked to stop or a vital task cannot live; either way all tasks have ended when it returns.
    pub async fn run(mut self) -> SupervisorEnd {
        let mut set: JoinSet<Turn> = JoinSet::new();
        for index in 0..self.tasks.len() {
            self.start(index, &mut set);
        }
        let lost = loop {
            let turn = tokio::select! {
                () = self.cancel.cancelled() => break None,
                Some(turn) = set.join_next() => turn,
                else => {
                    self.cancel.cancelled().await;
                    break None;
                }
            };
            match turn {
                Ok(Turn::Start(index)) => {
                    let name = self.tasks[index].name;
                    self.table.send_modify(|table| {
                        if let Some(status) = table.get_mut(&name) {
                            status.restarts += 1;
                        }
                    });
                    self.metrics.count_task_restart(name.as_str());
                    self.start(index, &mut set);
                }
                Ok(Turn::Ended(index, exit)) => {
                    if let Some(lost) = self.ended(index, exit, &mut set) {
                        break Some(lost);
                    }
                }
                // panics are caught inside, and nothing is aborted before the stop
                Err(error) => tracing::error!(%error, "supervised task vanished"),
            }
        };
        let aborted = self.stop(&mut set).await;
        match lost {
            Some((task, reason)) => SupervisorEnd::VitalTaskLost { task, reason },
            None => SupervisorEnd::Stopped { aborted, failed: std::mem::take(&mut self.failed) },
        }
    }

    fn start(&mut self, index: usize, set: &mut JoinSet<Turn>) {
        let task = &mut self.tasks[index];
        if let Some(heartbeat) = &task.policy.heartbeat {
            heartbeat.touch();
        }
        task.started = Instant::now();
        // the factory may panic as well as the task
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| (task.factory)()));
        task.handle = Some(set.spawn(async move {
            let exit = match made {
                Ok(future) => match AssertUnwindSafe(future).catch_unwind().await {
                    Ok(exit) => exit,
                    Err(panic) => Exit::Failed(panic_text(panic.as_ref())),
                },
                Err(panic) => Exit::Failed(panic_text(panic.as_ref())),
            };
            Turn::Ended(index, exit)
        }));
        let name = task.name;
        self.publish(name, TaskState::Running, None);
    }

    /// Takes note of an end; `Some` where the process cannot go on.
    fn ended(&mut self, index: usize, exit: Exit, set: &mut JoinSet<Turn>) -> Option<(TaskName, String)> {
        let task = &mut self.tasks[index];
        let name = task.name;
        task.handle = None;
        let reason = match exit {
            Exit::Finished if task.policy.may_finish => {
                self.publish(name, TaskState::Stopped, None);
                return None;
            }
            Exit::Cancelled if task.policy.cancel.is_cancelled() => {
                self.publish(name, TaskState::Stopped, None);
                return None;
            }
            Exit::Finished => "ended by itself".to_owned(),
            Exit::Cancelled => "ended as cancelled, and nobody had asked it to".to_owned(),
            Exit::Failed(reason) => reason,
        };
        let now = Instant::now();
        if now.duration_since(task.started) >= HEALTHY_AFTER {
            task.pause = FIRST_PAUSE;
        }
        task.failures.retain(|at| now.duration_since(*at) < VITAL_WINDOW);
        task.failures.push(now);
        if task.policy.vital && task.failures.len() >= VITAL_FAILURES {
            tracing::error!(task = %name, %reason, "vital task keeps failing, the agent ends");
            self.publish(name, TaskState::Failed, Some(reason.clone()));
            return Some((name, reason));
        }
        let pause = task.pause;
        task.pause = (pause * 2).min(LONGEST_PAUSE);
        tracing::error!(task = %name, %reason, pause_ms = pause.as_millis() as u64, "task failed, it starts again");
        task.handle = Some(set.spawn(async move {
            tokio::time::sleep(pause).await;
            Turn::Start(index)
        }));
        self.publish(name, TaskState::BackingOff, Some(reason));
        None
    }

    /// Asks one task after the other to end and aborts those that do not in time.
    async fn stop(&mut self, set: &mut JoinSet<Turn>) -> Vec<TaskName> {
        let mut aborted = Vec::new();
        // who waits for a restart has nothing to end
        for index in 0..self.tasks.len() {
            let name = self.tasks[index].name;
            let waits = self.table.borrow().get(&name).is_some_and(|s| s.state == TaskState::BackingOff);
            if waits && let Some(handle) = self.tasks[index].handle.take() {
                handle.abort();
                self.publish(name, TaskState::Failed, None);
            }
        }
        for index in 0..self.tasks.len() {
            let (name, limit) = (self.tasks[index].name, self.tasks[index].policy.stop_limit);
            self.tasks[index].policy.cancel.cancel();
            let end = Instant::now() + limit;
            while self.tasks[index].handle.is_some() {
                match tokio::time::timeout_at(end, set.join_next()).await {
                    Ok(Some(Ok(Turn::Ended(ended, exit)))) => self.ended_in_stop(ended, exit),
                    // a pause is over: nothing is started any more
                    Ok(Some(Ok(Turn::Start(over)))) => self.ended_in_stop(over, Exit::Cancelled),
                    Ok(Some(Err(_))) => {}
                    Ok(None) => self.tasks[index].handle = None,
                    Err(_) => {
                        tracing::warn!(task = %name, limit_ms = limit.as_millis() as u64, "task aborted");
                        if let Some(handle) = self.tasks[index].handle.take() {
                            handle.abort();
                        }
                        aborted.push(name);
                        self.publish(
                            name,
                            TaskState::Stopped,
                            Some("aborted: did not end in time".to_owned()),
                        );
                    }
                }
            }
        }
        set.shutdown().await;
        aborted
    }

    fn ended_in_stop(&mut self, index: usize, exit: Exit) {
        self.tasks[index].handle = None;
        let name = self.tasks[index].name;
        match exit {
            Exit::Failed(reason) => {
                self.failed.push((name, reason.clone()));
                self.publish(name, TaskState::Failed, Some(reason));
            }
            Exit::Cancelled | Exit::Finished => self.publish(name, TaskState::Stopped, None),
        }
    }

    fn publish(&self, name: TaskName, state: TaskState, error: Option<String>) {
        self.metrics.set_task_up(name.as_str(), state == TaskState::Running);
        self.table.send_modify(|table| {
            if let Some(status) = table.get_mut(&name) {
                status.state = state;
                status.since = wall_ms();
                if error.is_some() {
                    status.last_error = error;
                }
            }
        });
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
