//! Commands that start something: the agent, the lab, certificates.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{fail, fail_config, say, standby};
use crate::agent::Agent;
use crate::config::{Config, Lookup, log};
use crate::lab::agents::{Lab, LabSettings};
use crate::lab::cycle;
use crate::lab::settings::WorldSettings;
use crate::lab::world::World;
use crate::model::Side;
use crate::peer::certs::write_dev_certs;
use crate::tasks::TaskName;
use crate::tasks::anycast::Station;
use crate::tasks::clock::wall_now;
use crate::tasks::supervisor::SupervisorEnd;

/// The signals that ask the process to end; they count from the moment this is made.
pub(super) struct Ending(Option<(Signal, Signal)>);

impl Ending {
    pub(super) fn new() -> Self {
        Self(signal(SignalKind::terminate()).ok().zip(signal(SignalKind::interrupt()).ok()))
    }

    /// Resolves when the process is asked to end.
    pub(super) async fn asked(&mut self) {
        match &mut self.0 {
            Some((term, int)) => tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            },
            None => std::future::pending().await,
        }
    }
}

/// Ends the agent when the process is asked to end. Asked again, the process ends at once: connections close, and
/// what was not taken back yet stays.
async fn end_on_signal(mut ending: Ending, cancel: CancellationToken) {
    ending.asked().await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("asked to end");
    cancel.cancel();
    ending.asked().await;
    tracing::error!("asked to end again: ending at once, routes may remain");
    std::process::exit(1);
}

/// Reads the anycast file again on SIGHUP.
async fn reload_on_signal(mut hangups: Signal, station: Option<Arc<Station>>) {
    while hangups.recv().await.is_some() {
        match &station {
            // What went wrong is in the log already.
            Some(station) => drop(station.reload().await),
            None => tracing::info!("SIGHUP: there is no anycast file to read again"),
        }
    }
}

/// `run`.
pub(super) async fn run(env: &dyn Lookup) -> ExitCode {
    // First of all: until then a signal would end the process without a word.
    let ending = Ending::new();
    let hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return fail(&format!("SIGHUP: {error}")),
    };
    let config = match Config::read(env, wall_now()) {
        Ok(config) => config,
        Err(problems) => return fail_config(&problems),
    };
    let _guard = crate::telemetry::init(&config.log);
    let listener = match config.http.listen {
        Some(address) => match crate::http::bind(address).await {
            Ok(listener) => Some(listener),
            Err(error) => return fail(&error.to_string()),
        },
        None => None,
    };
    let mut ending = ending;
    let turn = match standby::wait_for_turn(&config, listener.as_ref(), ending.asked()).await {
        Ok(Some(turn)) => turn,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => return fail(&error),
    };
    let agent = match Agent::start(config, listener).await {
        Ok(agent) => agent,
        Err(error) => return fail(&error.to_string()),
    };
    let guard = tokio::spawn(turn.clone().end_when_lost(agent.cancel.clone()));
    if agent.http.port() != 0 {
        tracing::info!(address = %agent.http, "the agent serves http");
    }
    // A process that systemd did not start has nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let ending = tokio::spawn(end_on_signal(ending, agent.cancel.clone()));
    let reloading = tokio::spawn(reload_on_signal(hangups, agent.anycast.clone()));
    let watchdog = tokio::spawn(feed_watchdog(agent.snapshot.clone(), agent.anycast.clone()));
    let end = agent.wait().await;
    guard.abort();
    let lost = turn.is_lost();
    turn.give_back().await;
    ending.abort();
    reloading.abort();
    watchdog.abort();
    match end {
        SupervisorEnd::Stopped { .. } if lost => fail("the Lease was lost; another agent may act"),
        SupervisorEnd::Stopped { aborted, failed } => {
            if !aborted.is_empty() {
                tracing::warn!(?aborted, "tasks did not end in time");
            }
            // A route that may remain is somebody's traffic into nowhere: the only end that is no success.
            match failed.iter().find(|(task, _)| *task == TaskName::Anycast) {
                Some((task, reason)) => fail(&format!("{task}: {reason}")),
                None if aborted.contains(&TaskName::Anycast) => fail("anycast: routes may remain"),
                None => ExitCode::SUCCESS,
            }
        }
        SupervisorEnd::VitalTaskLost { task, reason } => fail(&format!("{task} cannot live: {reason}")),
    }
}

/// Tells systemd that the engine goes round: only while it publishes, so that a stuck engine is restarted. Where there
/// is nothing but the anycast task, the same goes for the owner of its state.
async fn feed_watchdog(
    mut snapshot: tokio::sync::watch::Receiver<serde_json::Value>,
    station: Option<Arc<Station>>,
) {
    if sd_notify::watchdog_enabled().is_none() {
        return;
    }
    if let Some(station) = station {
        loop {
            if station.alive().await {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
    while snapshot.changed().await.is_ok() {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

/// `check-config`.
pub(super) fn check(env: &dyn Lookup) -> ExitCode {
    match Config::read(env, wall_now()) {
        Ok(config) => {
            for warning in config.warnings() {
                say(&format!("warning: {warning}"));
            }
            say("the settings are good");
            ExitCode::SUCCESS
        }
        Err(problems) => fail_config(&problems),
    }
}

/// Logs of the lab; without `LOG_LEVEL` none beside a timeline, which is what a person wants to read then.
fn lab_logs(env: &dyn Lookup, timeline: bool) -> crate::telemetry::log::Guard {
    let mut logging = log::read(&mut crate::config::Reader::new(env));
    if timeline && env.get(log::LOG_LEVEL).is_none() {
        logging.directives = "off".to_owned();
    }
    crate::telemetry::init(&logging)
}

/// `lab --scenario NAME`.
pub(super) async fn scenario(env: &dyn Lookup, name: &str) -> ExitCode {
    let _guard = lab_logs(env, true);
    match name {
        "geo" => super::geo::lab_scenario().await,
        "routes" => super::routes::lab_scenario().await,
        other => fail(&format!("--scenario {other}: the built-in scenarios are: geo, routes")),
    }
}

/// `lab`.
pub(super) async fn lab(env: &dyn Lookup, run_cycle: bool, free_ports: bool) -> ExitCode {
    let _guard = lab_logs(env, run_cycle);
    let settings = if free_ports { LabSettings::on_free_ports() } else { LabSettings::default() };
    let lab = match Lab::start(settings).await {
        Ok(lab) => lab,
        Err(error) => return fail(&error.to_string()),
    };
    for side in Side::ALL {
        let name = &lab.world.settings().site_names[side as usize];
        say(&format!("{name}: site {} agent http://{}", lab.site_url(side), lab.agent(side).http));
    }
    if !run_cycle {
        say("operators' token: lab; stop with Ctrl-C");
        Ending::new().asked().await;
        lab.stop().await;
        return ExitCode::SUCCESS;
    }
    let result = cycle::run(&lab, say).await;
    lab.stop().await;
    match result {
        Ok(took) => {
            say("");
            for transition in took {
                say(&format!("{:<16} {:6.2} s", transition.transition, transition.time.as_secs_f64()));
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// `lab-site`.
pub(super) async fn lab_site(site: &str, listen: SocketAddr, peer_site: String) -> ExitCode {
    let settings = WorldSettings::default();
    let side = match settings.site_names.iter().position(|name| name == site) {
        Some(0) => Side::Active,
        Some(_) => Side::Passive,
        None => return fail(&format!("--site {site}: one of {}", settings.site_names.join(", "))),
    };
    let listener = match TcpListener::bind(listen).await {
        Ok(listener) => listener,
        Err(error) => return fail(&format!("--listen {listen}: {error}")),
    };
    let world = World::single(settings, side, peer_site);
    match world.serve(side, listener) {
        Ok(handle) => {
            say(&format!("simulated site {site} on {}", handle.url()));
            Ending::new().asked().await;
            handle.stop().await;
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("simulated site: {error}")),
    }
}

/// `certs`.
pub(super) fn certs(dir: &Path, sites: &[String], days: u32, force: bool) -> ExitCode {
    let parsed: Vec<(&str, Vec<String>)> = sites
        .iter()
        .map(|site| {
            let (name, more) = site.split_once(':').unwrap_or((site, ""));
            let mut sans = crate::peer::certs::development_sans(name);
            sans.extend(more.split(',').filter(|san| !san.is_empty()).map(str::to_owned));
            (name, sans)
        })
        .collect();
    match write_dev_certs(dir, &parsed, days, force) {
        Ok(_) => {
            say(&format!("certificates of {} in {}", sites.join(", "), dir.display()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}
