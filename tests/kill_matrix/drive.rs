//! One case from beginning to end, and the verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use switchover_agent::journal::Recorded;
use switchover_agent::model::Side;
use tokio::time::{Instant, sleep};

use crate::cases::{Case, JournalKind, SCENARIOS, Scenario};
use crate::rig::Rig;

/// Last resort; a case takes a few seconds.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two looks at a lab.
const LOOK: Duration = Duration::from_millis(80);
/// A halt that stands this long is the end.
const HALT_STANDS: Duration = Duration::from_secs(3);

pub type Counts = BTreeMap<String, usize>;

/// What an unkilled run comes to.
pub struct Reference {
    pub end: [Value; 2],
    pub once: [Counts; 2],
    pub journals: [Vec<Recorded>; 2],
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Goal,
    /// A safe halt, with what it says.
    Halt(String),
}

/// What a case showed.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub end: End,
    /// Restarts until the agent acted again.
    pub resumed: Vec<Duration>,
    /// Once-only effects beyond those of the unkilled run.
    pub doubled: Vec<String>,
}

pub fn scenario(name: &str) -> &'static Scenario {
    SCENARIOS.iter().find(|known| known.name == name).expect("a scenario of that name")
}

/// Runs a scenario without any kill.
pub async fn reference(scenario: &'static Scenario) -> Result<Reference, String> {
    let mut rig = Rig::lay(scenario, JournalKind::File).await;
    for side in Side::ALL {
        rig.start(side, &[]);
    }
    rig.until_acquainted().await?;
    for side in scenario.asked_at {
        rig.order(*side, scenario.transition).await?;
    }
    let begun = Instant::now();
    loop {
        if is_over(&rig, scenario).await {
            // The world may still be moving pods after the agents have ended.
            let (first, _) = (ends(&rig).await, sleep(Duration::from_millis(300)).await);
            if first == ends(&rig).await && is_over(&rig, scenario).await {
                break;
            }
        }
        if begun.elapsed() > LIMIT {
            return Err(format!("{}: the unkilled run does not end\n{}", scenario.name, report(&rig).await));
        }
        sleep(LOOK).await;
    }
    let end = ends(&rig).await;
    let once = Side::ALL.map(|side| rig.once_effects(side));
    rig.stop().await;
    let journals = Side::ALL.map(|side| rig.journal(side));
    Ok(Reference { end, once, journals })
}

/// Runs a case.
pub async fn run(case: &Case, reference: &Reference) -> Result<Verdict, String> {
    let scenario = scenario(case.scenario);
    let mut rig = Rig::lay(scenario, case.journal).await;
    for side in Side::ALL {
        match case.kills.iter().find(|kill| kill.side == side) {
            Some(kill) => rig.start(side, &[kill.setting()]),
            None => rig.start(side, &[]),
        }
    }
    let result = drive(&mut rig, case, scenario, reference).await;
    let verdict = match result {
        Ok(verdict) if verdict.doubled.is_empty() => Ok(verdict),
        Ok(verdict) => Err(format!("done twice: {}\n{}", verdict.doubled.join(", "), report(&rig).await)),
        Err(why) => Err(format!("{why}\n{}", report(&rig).await)),
    };
    rig.stop().await;
    verdict
}

async fn drive(
    rig: &mut Rig,
    case: &Case,
    scenario: &Scenario,
    reference: &Reference,
) -> Result<Verdict, String> {
    let mut begun = Instant::now();
    let mut alive: Vec<Side> = case.kills.iter().map(|kill| kill.side).collect();
    let (mut resumed, mut halted_since, mut ordered) = (Vec::new(), None, false);
    loop {
        for side in alive.clone() {
            let Some(status) = rig.ended(side) else { continue };
            if std::os::unix::process::ExitStatusExt::signal(&status) != Some(9) {
                return Err(format!("the {side} agent ended by itself: {status}"));
            }
            alive.retain(|other| *other != side);
            rig.start(side, &[]);
            resumed.push(rig.until_acting(side).await?);
        }
        for side in Side::ALL.into_iter().filter(|side| !alive.contains(side)) {
            if let Some(status) = rig.ended(side) {
                return Err(format!("the {side} agent ended by itself: {status}"));
            }
        }
        if !ordered {
            // An agent may die before: a torn write counts from the start.
            if rig.are_acquainted().await {
                for side in scenario.asked_at {
                    rig.order(*side, scenario.transition).await?;
                }
                (ordered, begun) = (true, Instant::now());
            } else if begun.elapsed() > LIMIT {
                return Err("the agents do not find each other".to_owned());
            }
            sleep(LOOK).await;
            continue;
        }
        if alive.is_empty() {
            if is_over(rig, scenario).await && ends(rig).await == reference.end {
                return Ok(Verdict { end: End::Goal, resumed, doubled: doubled(rig, reference) });
            }
            match halt(rig, scenario).await {
                Some(why) => {
                    let since = *halted_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > HALT_STANDS {
                        return Ok(Verdict {
                            end: End::Halt(why),
                            resumed,
                            doubled: doubled(rig, reference),
                        });
                    }
                }
                None => halted_since = None,
            }
        } else if begun.elapsed() > LIMIT / 3 && is_over(rig, scenario).await {
            return Err(format!("the kill was never reached at {alive:?}"));
        }
        if begun.elapsed() > LIMIT {
            return Err(format!(
                "not over after {LIMIT:?}; alive until the kill: {alive:?}{}",
                differences(rig, reference).await
            ));
        }
        sleep(LOOK).await;
    }
}

async fn is_over(rig: &Rig, scenario: &Scenario) -> bool {
    for side in Side::ALL {
        let Some(shown) = rig.status(side).await else { return false };
        if !(scenario.is_over)(side, &shown) {
            return false;
        }
    }
    true
}

async fn halt(rig: &Rig, scenario: &Scenario) -> Option<String> {
    for side in Side::ALL {
        let shown = rig.status(side).await?;
        // A gate that stays closed by design ends in a halt in the unkilled run too.
        if (scenario.is_over)(side, &shown) {
            continue;
        }
        let why = shown["run"]["halted"].as_str().or(shown["safe_halt"].as_str());
        if let Some(why) = why {
            return Some(format!("{side}: {why}"));
        }
    }
    None
}

async fn ends(rig: &Rig) -> [Value; 2] {
    [rig.end_state(Side::Active).await, rig.end_state(Side::Passive).await]
}

fn doubled(rig: &Rig, reference: &Reference) -> Vec<String> {
    let mut found = Vec::new();
    for side in Side::ALL {
        for (effect, count) in rig.once_effects(side) {
            let allowed = reference.once[side as usize].get(&effect).copied().unwrap_or_default();
            if count > allowed {
                found.push(format!("{side}: {effect} {count} times, {allowed} in the unkilled run"));
            }
        }
    }
    found
}

async fn differences(rig: &Rig, reference: &Reference) -> String {
    let mut text = String::new();
    for side in Side::ALL {
        let end = rig.end_state(side).await;
        for (key, want) in reference.end[side as usize].as_object().into_iter().flatten() {
            if end[key] != *want {
                text.push_str(&format!("\n{side} {key}: {} instead of {want}", end[key]));
            }
        }
    }
    text
}

async fn report(rig: &Rig) -> String {
    let mut text = String::new();
    for side in Side::ALL {
        let shown = rig.status(side).await.unwrap_or_default();
        let log = std::fs::read_to_string(rig.log(side)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n  ");
        let once = rig.once_effects(side);
        text.push_str(&format!("{side}: {shown}\n  once: {once:?}\n  {tail}\n"));
    }
    text
}
