//! `geo`: publish ingresses and do nothing else; with `--dry-run`, tell what that would change now.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::{fail, fail_config, run, say};
use crate::adapters::kube::Kube;
use crate::config::site::PROCESS_LIST;
use crate::config::{Config, Layered, Lookup};
use crate::lab::geo_scenario;
use crate::tasks::TaskName;
use crate::tasks::clock::wall_now;
use crate::tasks::geo_sync::{DryRun, dry_run};

/// `geo`: the agent with the process `geo_sync` alone, whatever `PROCESS_LIST` says.
pub(super) async fn geo(env: &dyn Lookup, dry: bool) -> ExitCode {
    let alone = BTreeMap::from([(PROCESS_LIST.to_owned(), TaskName::GeoSync.to_string())]);
    let env = Layered(vec![&alone, env]);
    if !dry {
        return run::run(&env).await;
    }
    let config = match Config::read(&env, wall_now()) {
        Ok(config) => config,
        Err(problems) => return fail_config(&problems),
    };
    for warning in config.warnings() {
        say(&format!("warning: {warning}"));
    }
    match told(config).await {
        Ok(told) => {
            for note in &told.notes {
                say(&format!("note: {note}"));
            }
            for change in &told.changes {
                say(&format!("would {change}"));
            }
            if told.changes.is_empty() {
                say("nothing would be changed");
            }
            ExitCode::SUCCESS
        }
        Err(reason) => fail(&reason),
    }
}

async fn told(config: Config) -> Result<DryRun, String> {
    let registry = prometheus::Registry::new();
    let kube = Kube::connect(config.kube, &registry).await.map_err(|error| error.to_string())?;
    let settings = config.geo.ok_or("geo_sync is not among the processes")?;
    dry_run(settings, kube, &registry).await
}

/// `lab --scenario geo`.
pub(super) async fn lab_scenario() -> ExitCode {
    let told = |ms: u128, what: &str| say(&format!("{:>8.2} s  {what}", ms as f64 / 1000.0));
    match geo_scenario::run(told).await {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}
