//! `plan TRANSITION`: what would run now, from one fresh look at this site. Nothing is written.

use std::process::ExitCode;

use super::{fail, fail_config, say};
use crate::adapters::kube::Kube;
use crate::adapters::patroni::Patroni;
use crate::config::{Config, Lookup};
use crate::model::{Event, Now, PatroniSample, Record, RecordSeen, RecordTransition, Transition};
use crate::plan::{self, Failure, Step};
use crate::rules::Engine;
use crate::rules::state::Origin;
use crate::rules::table::{Trigger, decide};
use crate::tasks::clock::wall_now;

/// `plan`.
pub(super) async fn plan(env: &dyn Lookup, name: &str) -> ExitCode {
    let transition: Transition = match name.parse() {
        Ok(transition) => transition,
        Err(error) => return fail(&format!("{error}")),
    };
    let config = match Config::read(env, wall_now()) {
        Ok(config) => config,
        Err(problems) => return fail_config(&problems),
    };
    let (record, patroni) = match look(&config).await {
        Ok(seen) => seen,
        Err(reason) => return fail(&reason),
    };
    let now = Now { wall: wall_now(), ..Now::default() };
    let mut engine = Engine::new(config.policy("plan"));
    if let Some(sample) = patroni {
        // What the engine would do is thrown away: this only makes it know the database.
        engine.handle(Event::Patroni(sample), now);
    }
    let Some(phase) = record.known_phase() else {
        return fail(&format!("the record's phase is {:?}: nothing can be planned", record.phase));
    };
    let rule = match decide(phase, Trigger::Asked(transition), config.site.side) {
        Ok(rule) => rule,
        Err(refusal) => return fail(&format!("refused ({}): {}", refusal.name(), refusal.why())),
    };
    say(&format!("{transition} at {} ({}), from {phase}", config.site.site, config.site.side));
    say(&format!("rule {}: {}", rule.id, rule.why));
    for guard in rule.guards {
        say(&format!("guard {guard:?}"));
    }
    if record.transition != RecordTransition::Empty {
        say(&format!("the record asks for {:?} already", record.transition));
    }
    let facts = engine.facts(Origin::Operator, config.site.fence_old_primary, now);
    for (index, step) in plan::build(transition, &facts).iter().enumerate() {
        say(&describe(index + 1, step));
    }
    ExitCode::SUCCESS
}

async fn look(config: &Config) -> Result<(Record, Option<PatroniSample>), String> {
    let registry = prometheus::Registry::new();
    let kube = Kube::connect(config.kube.clone(), &registry).await.map_err(|error| error.to_string())?;
    let record = match kube.read_record().await.map_err(|error| error.to_string())? {
        RecordSeen::Present(record) => record,
        RecordSeen::Missing => return Err("the record does not exist".to_owned()),
        RecordSeen::Unknown(why) => return Err(format!("the record cannot be read: {why}")),
    };
    let patroni = match &config.patroni.base {
        Some(_) => {
            let patroni = Patroni::new(&config.patroni).map_err(|error| error.to_string())?;
            Some(patroni.poll().await)
        }
        None => None,
    };
    Ok((record, patroni))
}

fn describe(number: usize, step: &Step) -> String {
    let failure = match step.on_failure {
        Failure::Halt => "then halt".to_owned(),
        Failure::Proceed => "then go on".to_owned(),
        Failure::Beside { patience_ms } => format!("beside the plan after {} s", patience_ms / 1000),
    };
    let gate = if step.gated { ", behind the destruction gate" } else { "" };
    format!(
        "{number:3}. {:<26} {}\n     done when {}, within {} s {failure}{gate}; undo: {:?}",
        step.name,
        step.work,
        step.done,
        step.limit_ms / 1000,
        step.undo
    )
}
