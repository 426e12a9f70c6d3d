//! The command line: one binary, `run` by default, so that a container with only an environment works.
//!
//! Owns: exit codes (0 done, 1 failed, 2 usage, 78 settings; 65, 66 and 74 for the anycast predecessor's file) and
//! what goes to standard output. Every command reads the
//! same settings in the same way.

mod geo;
mod operate;
mod past;
mod plan;
mod routes;
mod run;
mod simulate;
mod standby;
mod verify;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::anycast::settings;
use crate::config::{Layered, Problems, ProcessEnv, log};

/// Moves a live service between two data centres.
#[derive(Debug, Parser)]
#[command(name = "switchover-agent", version, about)]
struct Cli {
    /// Settings from a file of NAME=value lines; what the environment sets already wins
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Commands>,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Run the agent (the default)
    Run {
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Check the settings exactly as the start does; every problem at once, exit 78
    CheckConfig {
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Ask a running agent about its anycast services, or take one out
    Anycast(crate::tasks::anycast::command::Arguments),
    /// Print the steps that a transition would take now; writes nothing
    Plan {
        /// golddr-primary, gold-standby, active-passive, ...
        transition: String,
    },
    /// Ask a running agent for a transition
    Transition {
        /// golddr-primary, gold-standby, active-passive, ...
        transition: String,
        /// Accept that data may be lost, with the reason that goes into the journal
        #[arg(long, value_name = "REASON")]
        accept_data_loss: Option<String>,
        #[command(flatten)]
        agent: AgentAddress,
    },
    /// Show the state of a running agent
    Status {
        #[command(flatten)]
        agent: AgentAddress,
    },
    /// Print the journal of a running agent or of a directory, and whether its hash chain holds
    History {
        /// Directory of a journal in files, instead of a running agent
        #[arg(long, value_name = "DIR")]
        journal: Option<PathBuf>,
        /// Newest entries to print
        #[arg(long, default_value_t = 200)]
        limit: usize,
        #[command(flatten)]
        agent: AgentAddress,
    },
    /// Run a recording (RECORD_EVENTS) through the engine again and compare every action
    Replay {
        /// The recording
        file: PathBuf,
    },
    /// Two agents and two simulated sites on loopback
    Lab {
        /// Run the three transitions, print a timeline, exit
        #[arg(long)]
        cycle: bool,
        /// Use free ports instead of 6664 to 6667
        #[arg(long)]
        free_ports: bool,
        #[command(flatten)]
        simulation: simulate::Arguments,
        /// Play a built-in story instead, print a timeline, exit: `geo` (four clusters share a load balancer) or `routes`
        /// (two regions, two clouds)
        #[arg(long, conflicts_with_all = ["cycle", "free_ports"])]
        scenario: Option<String>,
    },
    /// Steer the routes of Cloud Router and Cloudflare by the health of two regions, and do nothing else
    Routes {
        /// Check the settings of this process alone, as check-config does for all
        #[arg(long, conflicts_with_all = ["once", "dry_run"])]
        check: bool,
        /// One cycle, then exit
        #[arg(long)]
        once: bool,
        /// One cycle that says what it would write, and writes nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Publish labelled ingresses as a Cloudflare geo load balancer, and do nothing else
    Geo {
        /// Print what would be changed now; write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Explore two engines of the shipped type, every order of everything, and judge the invariants
    Verify(verify::Arguments),
    /// One simulated site, for two sites in two containers
    LabSite {
        /// Name of the site
        #[arg(long)]
        site: String,
        /// Address to listen on
        #[arg(long, default_value = "0.0.0.0:8000")]
        listen: SocketAddr,
        /// URL of the other simulated site
        #[arg(long)]
        peer_site: String,
    },
    /// Write a development authority and two site certificates
    Certs {
        /// Folder to write to
        dir: PathBuf,
        /// Site names, each with further names after a colon: gold:agent-gold,127.0.0.1
        #[arg(default_values_t = ["gold".to_owned(), "golddr".to_owned()])]
        sites: Vec<String>,
        /// Days of validity
        #[arg(long, default_value_t = 365)]
        days: u32,
        /// Overwrite files that exist
        #[arg(long)]
        force: bool,
    },
}

/// Settings that the command line may give in place of the environment.
#[derive(Debug, Default, clap::Args)]
struct Overrides {
    /// File with anycast services in either predecessor's form (TOML, YAML, JSON), and an `env` table of further
    /// settings [env: CONFIG, CONFIG_PATH]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// As LOG_LEVEL
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// As LOG_FORMAT
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// As NO_COLOR
    #[arg(long)]
    no_color: bool,
}

impl Overrides {
    fn layer(self) -> BTreeMap<String, String> {
        let file = self.config.map(|path| path.display().to_string());
        let colour = self.no_color.then(|| "1".to_owned());
        [
            (settings::CONFIG, file),
            (log::LOG_LEVEL, self.log_level),
            (log::LOG_FORMAT, self.log_format),
            (log::NO_COLOR, colour),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }
}

/// Where the running agent is.
#[derive(Debug, clap::Args)]
struct AgentAddress {
    /// URL of the agent
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    agent: String,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // One provider for everything; a second installation is refused, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let process = ProcessEnv;
    let file = match cli.env_file.as_deref().map(routes::env_file).transpose() {
        Ok(file) => file.unwrap_or_default(),
        Err(reason) => {
            fail(&reason);
            return ExitCode::from(crate::config::EXIT_CONFIG);
        }
    };
    let env = Layered(vec![&process, &file]);
    runtime.block_on(async {
        match cli.command.unwrap_or(Commands::Run { overrides: Overrides::default() }) {
            Commands::Run { overrides } => run::run(&Layered(vec![&overrides.layer(), &env])).await,
            Commands::CheckConfig { overrides } => run::check(&Layered(vec![&overrides.layer(), &env])),
            Commands::Anycast(arguments) => crate::tasks::anycast::command::run(&env, &arguments).await,
            Commands::Plan { transition } => plan::plan(&env, &transition).await,
            Commands::Transition { transition, accept_data_loss, agent } => {
                operate::transition(&env, &agent.agent, &transition, accept_data_loss).await
            }
            Commands::Status { agent } => operate::status(&agent.agent).await,
            Commands::Lab { simulation, .. } if simulation.wanted() => simulate::simulate(&simulation),
            Commands::History { journal: Some(dir), limit, .. } => past::journal(&dir, limit),
            Commands::History { journal: None, limit, agent } => past::agent(&env, &agent.agent, limit).await,
            Commands::Replay { file } => past::replay(&file),
            Commands::Lab { scenario: Some(name), .. } => run::scenario(&env, &name).await,
            Commands::Routes { check, once, dry_run } => routes::routes(&env, check, once, dry_run).await,
            Commands::Lab { cycle, free_ports, .. } => run::lab(&env, cycle, free_ports).await,
            Commands::Geo { dry_run } => geo::geo(&env, dry_run).await,
            Commands::Verify(arguments) => verify::verify(&arguments),
            Commands::LabSite { site, listen, peer_site } => run::lab_site(&site, listen, peer_site).await,
            Commands::Certs { dir, sites, days, force } => run::certs(&dir, &sites, days, force),
        }
    })
}

/// Prints a line for the person at the terminal.
#[expect(clippy::print_stdout, reason = "the commands talk to a person on standard output")]
fn say(text: &str) {
    println!("{text}");
}

/// Progress for the person at the terminal, beside the result.
#[expect(clippy::print_stderr, reason = "progress is not the result, so it goes to standard error")]
fn remark(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stderr, reason = "warnings of commands go to standard error")]
fn warn(text: &str) {
    eprintln!("warning: {text}");
}

#[expect(clippy::print_stderr, reason = "errors of commands go to standard error")]
fn fail(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::FAILURE
}

#[expect(clippy::print_stderr, reason = "errors of commands go to standard error")]
fn fail_config(problems: &Problems) -> ExitCode {
    eprint!("{problems}");
    ExitCode::from(problems.exit_code)
}
