//! `switchover-agent anycast status|explain|check|drain|undrain`: asks the running agent and prints for people.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use super::socket::{self, Answer, Request};
use super::status::{Explanation, RouteStatus, ServiceStatus, Status};
use crate::config::anycast::settings::{self, Source};
use crate::config::{Lookup, Reader};

/// Arguments of `anycast`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Control socket of the agent [default: ANYCAST_CONTROL_SOCKET, or what the file named by CONFIG says, or
    /// /run/anycastd/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What can be asked.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum What {
    /// Services, checks and routes.
    Status,
    /// Why a prefix is announced or not.
    Explain {
        /// The prefix, or an address for its host route.
        prefix: String,
    },
    /// Run all checks of a service at once.
    Check {
        /// The service.
        name: String,
    },
    /// Take a service out: mark its routes, wait its drain delay, withdraw them.
    Drain {
        /// The service.
        name: String,
        /// For so long (`10m`); until undrained where it is missing.
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        how_long: Option<std::time::Duration>,
    },
    /// End a drain.
    Undrain {
        /// The service.
        name: String,
    },
}

impl What {
    fn request(&self) -> Request {
        match self.clone() {
            Self::Status => Request::Status,
            Self::Explain { prefix } => Request::Explain { prefix },
            Self::Check { name } => Request::Check { service: name },
            Self::Drain { name, how_long } => {
                let for_ms = how_long.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
                Request::Drain { service: name, for_ms }
            }
            Self::Undrain { name } => Request::Undrain { service: name },
        }
    }
}

/// Asks and returns what to print and whether it was done.
pub async fn ask(path: &Path, what: &What, json: bool) -> Result<String, String> {
    match socket::ask(path, &what.request()).await? {
        Answer::Error(reason) => Err(reason),
        Answer::Ok(value) if json => Ok(format!("{value:#}\n")),
        Answer::Ok(value) => Ok(show(what, value)),
    }
}

/// Where the agent that runs with the same settings has its socket.
fn find_socket(env: &dyn Lookup) -> PathBuf {
    let reader = Reader::new(env);
    let of_file = Source::find(&reader).and_then(|source| source.anycast?.ok()?.control_socket);
    let named = || reader.text(settings::ANYCAST_CONTROL_SOCKET).map(PathBuf::from);
    of_file.or_else(named).unwrap_or_else(|| PathBuf::from(socket::DEFAULT_PATH))
}

/// Runs the command: 0 = done, 1 = not done.
#[expect(clippy::print_stdout, reason = "the output of a command")]
#[expect(clippy::print_stderr, reason = "errors of commands go to standard error")]
pub async fn run(env: &dyn Lookup, arguments: &Arguments) -> ExitCode {
    let path = arguments.socket.clone().unwrap_or_else(|| find_socket(env));
    match ask(&path, &arguments.what, arguments.json).await {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn show(what: &What, value: Value) -> String {
    let plain = format!("{}\n", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    match what {
        What::Status => serde_json::from_value::<Status>(value).map_or(plain, |status| {
            let mut text = String::new();
            if status.fail_open {
                text.push_str("fail-open is in force: too few services are healthy\n");
            }
            show_services(&mut text, &status.services);
            show_routes(&mut text, &status.routes);
            text
        }),
        What::Explain { .. } => serde_json::from_value::<Explanation>(value).map_or(plain, |found| {
            let mut text = String::new();
            show_routes(&mut text, &found.routes);
            show_services(&mut text, &found.services);
            text
        }),
        What::Check { .. } | What::Drain { .. } | What::Undrain { .. } => plain,
    }
}

fn show_services(text: &mut String, services: &[ServiceStatus]) {
    for service in services {
        let for_secs = std::time::Duration::from_secs(service.for_ms / 1000);
        let why = if service.reason.is_empty() { String::new() } else { format!(": {}", service.reason) };
        let _ = writeln!(
            text,
            "{:<10} {} for {}{why}",
            service.state,
            service.name,
            humantime::format_duration(for_secs)
        );
        for check in &service.checks {
            let why = if check.reason.is_empty() { String::new() } else { format!(": {}", check.reason) };
            let _ = writeln!(
                text,
                "  {:<8} {} ({}) {:.1} ms{why}",
                check.sample, check.name, check.kind, check.took_ms
            );
        }
    }
}

fn show_routes(text: &mut String, routes: &[RouteStatus]) {
    for route in routes {
        let state = match (route.wanted, route.announced) {
            (true, Some(true)) => "announced",
            (true, Some(false)) => "pending",
            (false, Some(false)) => "withdrawn",
            (false, Some(true)) => "leaving",
            (_, None) => "not known",
        };
        let _ = writeln!(text, "{state:<10} {} by {}: {}", route.prefix, route.announcer, route.reason);
        if let Some(diagnosis) = &route.diagnosis {
            let _ = writeln!(text, "           {diagnosis}");
        }
    }
}
