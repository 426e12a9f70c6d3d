//! `routes`: steer routes and do nothing else; with `--once` for one cycle, with `--dry-run` without writing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::{fail, fail_config, run, say};
use crate::config::env_file::EnvFile;
use crate::config::site::PROCESS_LIST;
use crate::config::{Config, Layered, Lookup, ProcessEnv};
use crate::lab::route_scenario;
use crate::tasks::TaskName;
use crate::tasks::clock::wall_now;
use crate::tasks::route_watch::events::Ended;
use crate::tasks::route_watch::{PinSource, RouteParts, once};
use crate::verify::routes as search;

/// `routes`: the agent with the process `route_watch` alone, whatever `PROCESS_LIST` says.
pub(super) async fn routes(env: &dyn Lookup, check: bool, only_once: bool, dry_run: bool) -> ExitCode {
    let alone = BTreeMap::from([(PROCESS_LIST.to_owned(), TaskName::RouteWatch.to_string())]);
    let env = Layered(vec![&alone, env]);
    if check {
        return run::check(&env);
    }
    if !only_once && !dry_run {
        return run::run(&env).await;
    }
    let config = match Config::read(&env, wall_now()) {
        Ok(config) => config,
        Err(problems) => return fail_config(&problems),
    };
    let _guard = crate::telemetry::init(&config.log);
    let Some(settings) = config.routes else { return fail("route_watch is not among the processes") };
    let (mut parts, _pinner) = RouteParts::new(settings, PinSource::Health);
    parts.dry_run = dry_run;
    let stop = CancellationToken::new();
    let (mut ending, asked) = (run::Ending::new(), stop.clone());
    tokio::spawn(async move {
        ending.asked().await;
        asked.cancel();
    });
    match once(&parts, &prometheus::Registry::new(), &stop).await {
        Ok(report) => {
            say(&format!("{}{}", report.ended.word(), if dry_run { " (nothing was written)" } else { "" }));
            for note in &report.notes {
                say(&format!("  {note}"));
            }
            if report.ended == Ended::Failure { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(reason) => fail(&reason),
    }
}

/// The settings of a file, with what is odd about it said on standard error.
pub(super) fn env_file(path: &Path) -> Result<EnvFile, String> {
    let file = EnvFile::read(path)?;
    let env = ProcessEnv;
    // Reading everything once tells which names nobody knows; its problems come again from the command itself.
    let _ = Config::read(&Layered(vec![&env, &file]), wall_now());
    for warning in &file.warnings {
        super::warn(&format!("{}: {warning}", path.display()));
    }
    for name in file.unasked(&env) {
        super::warn(&format!("{}: {name} is not read by any process that runs", path.display()));
    }
    Ok(file)
}

/// More states than the search over routes has.
const ROUTE_STATES: usize = 5_000_000;

/// The route decision's own search, which is small and always closes.
pub(super) fn verify() -> Result<(), String> {
    let found = search::search(1, ROUTE_STATES);
    say(&format!(
        "routes: {} states, {} moves, {:.1} s, {}",
        found.states,
        found.moves,
        found.took.as_secs_f64(),
        if found.closed { "closed" } else { "not closed" }
    ));
    for (name, says) in search::INVARIANTS {
        say(&format!("  {name:<26} {says}"));
    }
    match found.violation {
        Some((name, trace)) => Err(format!("{}\nviolated: {name}", trace.join("\n"))),
        None if found.closed => Ok(()),
        None => Err("the search over routes ended at a limit before it closed".to_owned()),
    }
}

/// `lab --scenario routes`.
pub(super) async fn lab_scenario() -> ExitCode {
    let told = |ms: u128, what: &str| say(&format!("{:>8.2} s  {what}", ms as f64 / 1000.0));
    match route_scenario::run(told).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}
