//! `lab --cycle`: the three transitions one after the other, with a timeline that a person can follow.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;

use super::agents::{Lab, LabError};
use crate::model::{Note, Side};

/// Transitions of the cycle with the phase in which each must end.
pub const CYCLE: [(&str, &str); 3] = [
    ("transition-to-golddr-primary", "golddr-primary"),
    ("transition-to-gold-standby", "gold-standby"),
    ("transition-to-active-passive", "active-passive"),
];
/// Time that a transition may take in the lab, where everything is quick.
const LIMIT: Duration = Duration::from_secs(120);

/// How long a transition took.
#[derive(Debug, Clone)]
pub struct Took {
    /// Its name.
    pub transition: &'static str,
    /// From the request until both sites had settled.
    pub time: Duration,
}

/// Runs the cycle; `line` gets the timeline.
///
/// # Errors
/// What went wrong: a halt, a refusal, a transition that did not end in time.
pub async fn run(lab: &Lab, mut line: impl FnMut(&str)) -> Result<Vec<Took>, LabError> {
    let start = Instant::now();
    let mut ears = Ears { sides: Side::ALL.map(|side| (side, lab.agent(side).notes.subscribe())) };
    wait_for(lab, &mut ears, start, &mut line, "the agents to see their sites", |lab| {
        Side::ALL.into_iter().all(|side| {
            let shown = lab.agent(side).snapshot.borrow();
            shown["phase"] == "active-passive"
                && shown["peer_link"] == "up"
                && shown["database"]["role"] != "unknown"
        })
    })
    .await?;
    let mut took = Vec::new();
    for (transition, phase) in CYCLE {
        line(&format!("\n== {transition}"));
        let begun = Instant::now();
        put(&format!("{}/phase/{transition}", lab.site_url(Side::Active))).await?;
        let what = format!("{transition} to end");
        wait_for(lab, &mut ears, start, &mut line, &what, |lab| {
            Side::ALL.into_iter().all(|side| {
                let shown = lab.agent(side).snapshot.borrow();
                shown["phase"] == phase && shown["transition"] == "" && shown["settled"] == true
            })
        })
        .await?;
        let time = begun.elapsed();
        line(&format!("== both sites are in {phase}, settled after {:.2} s", time.as_secs_f64()));
        took.push(Took { transition: phase, time });
    }
    Ok(took)
}

pub(super) async fn put(url: &str) -> Result<(), LabError> {
    let client = crate::adapters::http_client::client(url, Duration::from_secs(5))
        .map_err(|error| LabError(error.to_string()))?;
    let answer = client.put(url).send().await.map_err(|error| LabError(format!("PUT {url}: {error}")))?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(LabError(format!("PUT {url}: {}", answer.status())))
    }
}

/// Listens to both agents.
struct Ears {
    sides: [(Side, broadcast::Receiver<Note>); 2],
}

async fn wait_for(
    lab: &Lab,
    ears: &mut Ears,
    start: Instant,
    line: &mut impl FnMut(&str),
    what: &str,
    holds: impl Fn(&Lab) -> bool,
) -> Result<(), LabError> {
    let deadline = Instant::now() + LIMIT;
    loop {
        ears.tell(lab, start, line)?;
        if holds(lab) {
            return ears.tell(lab, start, line);
        }
        if Instant::now() >= deadline {
            let shown: Vec<String> =
                Side::ALL.into_iter().map(|side| lab.agent(side).snapshot.borrow().to_string()).collect();
            let limit = LIMIT.as_secs();
            return Err(LabError(format!("waited {limit} s for {what}\n{}", shown.join("\n"))));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Ears {
    /// Prints what was heard since the last time.
    fn tell(&mut self, lab: &Lab, start: Instant, line: &mut impl FnMut(&str)) -> Result<(), LabError> {
        for (side, notes) in &mut self.sides {
            let name = &lab.world.settings().site_names[*side as usize];
            while let Ok(note) = notes.try_recv() {
                if let Some(text) = describe(&note) {
                    let at = start.elapsed().as_secs_f64();
                    line(&format!("{at:7.2} s  {name:<7} {text}"));
                }
                if let Note::Halted { step, reason, .. } = note {
                    return Err(LabError(format!("{name} halted at {step}: {reason}")));
                }
            }
        }
        Ok(())
    }
}

/// One line of the timeline; `None` for what would only make it long.
fn describe(note: &Note) -> Option<String> {
    match note {
        Note::TransitionStarted { rule, transition, generation, steps, .. } => {
            Some(format!("{transition} begins (rule {rule}, generation {generation}, {} steps)", steps.len()))
        }
        Note::StepDone { step, how, .. } => Some(format!("  {step}: {how}")),
        Note::StepFailed { step, reason, .. } => Some(format!("  {step}: {reason}; trying again")),
        Note::TransitionDone { transition, took_ms, .. } => {
            Some(format!("{transition} recorded after {:.2} s", *took_ms as f64 / 1000.0))
        }
        Note::Settled { transition, .. } => Some(format!("{transition} settled")),
        Note::Refused(refusal) => Some(format!("refused {}: {}", refusal.asked, refusal.why)),
        Note::Pipeline { state, .. } => Some(format!("pipeline {state}")),
        Note::PeerLink { up, .. } => Some(format!("peer {}", if *up { "up" } else { "lost" })),
        Note::DnsChanged { result, kind } => Some(format!("dns answers {result} ({kind})")),
        Note::PatroniChanged { role, .. } => Some(format!("database is {role}")),
        Note::DivergenceReported { bytes: Some(bytes), .. } => {
            Some(format!("{bytes} bytes of the old primary's log never came here"))
        }
        Note::Advised { transition, why, .. } => Some(format!("would begin {transition}: {why}")),
        Note::Halted { step, reason, .. } => Some(format!("halted at {step}: {reason}")),
        Note::StepStarted { .. }
        | Note::DnsOdd { .. }
        | Note::DnsHealed
        | Note::Answer { .. }
        | Note::DivergenceReported { bytes: None, .. }
        | Note::Remark { .. } => None,
    }
}
