//! The anycast configuration file: services, their prefixes and checks, and what announces them.
//!
//! Owns the plain model that both predecessors' files become, and the way from a path or a text to it. Never
//! contacts anything, and never builds a check. Syntax (TOML, YAML, JSON) is told by content; so is the dialect:
//! `services` as a table is the Python predecessor's, as a list the Go predecessor's. Extensions are the same in both.

pub mod bgp;
pub mod bird;
pub mod check_kinds;
pub mod checks;
pub mod duration;
pub mod fields;
pub mod go;
pub mod native_kinds;
pub mod python;
pub mod service;
pub mod settings;
pub mod text;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::announce::{PrefixKey, RouteAttributes};
use crate::checks::CheckSpec;
use crate::config::Problem;
use crate::rules::health::{Policy, Strategy};
use crate::rules::prefixes::{ByState, FailOpen, Sharing};

pub use text::{environment, parse};

/// Largest file that is read.
const SIZE_LIMIT: u64 = 16 * 1024 * 1024;

/// Whose form a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `services` is a table: prefixes and checks by type.
    Python,
    /// `services` is a list beside `announcer` and `metrics`.
    Go,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq)]
pub struct Anycast {
    /// Whose form it has.
    pub dialect: Dialect,
    /// Services by name.
    pub services: Vec<Service>,
    /// Settings of our own BGP speaker.
    pub bgp: Option<bgp::BgpSection>,
    /// BIRD's file and commands.
    pub bird: Option<bird::BirdSection>,
    /// `host:port` of a metrics listener of its own; `None` = only the agent's.
    pub metrics_listen: Option<String>,
    /// What happens at the end.
    pub shutdown: ShutdownRules,
    /// What happens with routes that a former process left, before there are verdicts.
    pub start: StartRule,
    /// Time between two comparisons of wanted and actual routes.
    pub reconcile: Duration,
    /// Fail-open for the services that ask for it.
    pub fail_open: FailOpen,
    /// Where the control socket is.
    pub control_socket: Option<PathBuf>,
    /// Things that are accepted and yet deserve a look.
    pub warnings: Vec<String>,
}

impl Anycast {
    /// The announcers that some prefix needs.
    pub fn announcers(&self) -> BTreeSet<AnnouncerRef> {
        self.services
            .iter()
            .flat_map(|service| &service.routes)
            .map(|route| route.announcer.clone())
            .collect()
    }
}

/// Which announcer a route goes through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnnouncerRef {
    /// Our own BGP speaker.
    Bgp,
    /// BIRD.
    Bird,
    /// FRRouting, through this `vtysh`.
    Frr {
        /// The program.
        vtysh: PathBuf,
    },
}

impl fmt::Display for AnnouncerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bgp => f.write_str("bgp"),
            Self::Bird => f.write_str("bird"),
            Self::Frr { .. } => f.write_str("frr"),
        }
    }
}

/// One route of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// What announces it.
    pub announcer: AnnouncerRef,
    /// The prefix.
    pub key: PrefixKey,
}

/// Attributes with the class of the state they stand for, the better one higher.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Graded {
    /// 9 = healthy, 5 = draining, 2 = worse, 1 = last resort.
    pub class: u8,
    /// What the route carries.
    pub attributes: RouteAttributes,
}

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Its checks.
    pub checks: Vec<ConfiguredCheck>,
    /// How the checks make one verdict.
    pub strategy: Strategy,
    /// Rules of its state.
    pub policy: Policy,
    /// Announce without regard to checks.
    pub always_announce: bool,
    /// While this file exists the service is DISABLED.
    pub disable_file: Option<PathBuf>,
    /// How it shares prefixes.
    pub sharing: Sharing,
    /// Keep routes while UNKNOWN.
    pub hold_unknown: bool,
    /// Whether fail-open covers it.
    pub fail_open: bool,
    /// How long a drained service's routes carry GRACEFUL_SHUTDOWN.
    pub drain_delay: Duration,
    /// What its routes carry.
    pub attributes: ByState<Graded>,
}

/// One check of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfiguredCheck {
    /// Name within the service.
    pub name: String,
    /// Kind as configured, for metrics.
    pub kind: String,
    /// Group for the group strategy.
    pub group: String,
    /// Reported and never counted.
    pub advisory: bool,
    /// From start to start.
    pub interval: Duration,
    /// From start to start while samples and verdict differ; never more than `interval`.
    pub fast_interval: Duration,
    /// Hard limit of one run.
    pub deadline: Duration,
    /// Passes in a row that turn the verdict.
    pub rise: u32,
    /// Failures in a row that turn the verdict.
    pub fall: u32,
    /// What to test.
    pub spec: CheckSpec,
}

/// What happens at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownRules {
    /// Leave the routes where they are.
    pub keep_routes: bool,
    /// How long routes carry GRACEFUL_SHUTDOWN before they are taken back.
    pub drain_delay: Duration,
    /// Limit of everything after the drain delay.
    pub limit: Duration,
    /// What neighbours are told.
    pub reason: String,
}

impl Default for ShutdownRules {
    fn default() -> Self {
        Self {
            keep_routes: false,
            drain_delay: Duration::ZERO,
            limit: Duration::from_secs(10),
            reason: "anycast agent stops".to_owned(),
        }
    }
}

/// What happens with routes that a former process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartRule {
    /// Taken back at once unless a service wants them.
    #[default]
    Withdraw,
    /// Kept until every service has its first verdict (restart in place).
    KeepUntilVerdict,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not there.
    #[error("{path}: there is no such file")]
    Missing {
        /// Its path.
        path: String,
    },
    /// It cannot be read.
    #[error("{path}: can't be read: {reason}")]
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// It is a directory.
    #[error("{path}: is a directory, a file is wanted")]
    Directory {
        /// Its path.
        path: String,
    },
    /// Its name ends in something that is no syntax of ours.
    #[error("{path}: {extension:?} is not one of .toml, .yaml, .yml and .json")]
    Extension {
        /// Its path.
        path: String,
        /// How it ends.
        extension: String,
    },
    /// It follows no syntax.
    #[error("{syntax}: {reason}")]
    Syntax {
        /// What it was taken for.
        syntax: &'static str,
        /// Where and why, in one line.
        reason: String,
    },
    /// It is well-formed and says things that make no sense.
    #[error("{}", text::join(.0))]
    Invalid(Vec<Problem>),
}

impl LoadError {
    /// The exit code that the Python predecessor has for it (`sysexits.h`).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => 66,
            Self::Directory { .. } => 74,
            Self::Extension { .. } | Self::Syntax { .. } | Self::Invalid(_) => 65,
        }
    }

    /// What is wrong with the file at `path`, one problem for each thing.
    pub fn problems(&self, path: &Path) -> Vec<Problem> {
        match self {
            Self::Invalid(problems) => problems.clone(),
            other => {
                let value = Some(path.display().to_string());
                vec![Problem { setting: settings::CONFIG.to_owned(), value, want: other.to_string() }]
            }
        }
    }
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong with it, at once where it is well-formed.
pub fn load(path: &Path) -> Result<Anycast, LoadError> {
    parse(&read_text(path)?)
}

/// The text of a file whose name ends as one of ours, or in nothing at all.
///
/// # Errors
/// A file that is not there, is none, is too large, or is called like something else.
pub fn read_text(path: &Path) -> Result<String, LoadError> {
    let shown = path.display().to_string();
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => LoadError::Missing { path: shown.clone() },
        std::io::ErrorKind::IsADirectory => LoadError::Directory { path: shown.clone() },
        _ => LoadError::Unreadable { path: shown.clone(), reason: error.to_string() },
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(LoadError::Directory { path: shown });
    }
    if metadata.len() > SIZE_LIMIT {
        return Err(LoadError::Unreadable { path: shown, reason: "it is larger than 16 MiB".to_owned() });
    }
    if let Some(extension) = path.extension().map(|extension| extension.to_string_lossy().to_lowercase())
        && !["toml", "yaml", "yml", "json"].contains(&extension.as_str())
    {
        return Err(LoadError::Extension { path: shown, extension: format!(".{extension}") });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}
