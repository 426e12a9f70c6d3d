//! What is killed: every transition, every step of each side's plan as an unkilled run shows it, every point.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use switchover_agent::config::faults::KillPoint;
use switchover_agent::journal::{EntryKind, Recorded};
use switchover_agent::model::{Command, Note, Phase, Side};
use switchover_agent::tasks::kill_switch;

/// A transition with the situation in which it begins.
pub struct Scenario {
    /// Its name in cases and in the table.
    pub name: &'static str,
    /// The transition as the record spells it.
    pub transition: &'static str,
    /// Phase of both sites before.
    pub from: Phase,
    /// Sites where it is asked for.
    pub asked_at: &'static [Side],
    /// Settings beside the lab's.
    pub env: &'static [(&'static str, &'static str)],
    /// Routes of two clouds are steered too. Then only the steps that steer them are killed at: every other one has its
    /// turn in the scenario without.
    pub routes: bool,
    /// Whether a site's agent shows that nothing more is to come.
    pub is_over: fn(Side, &Value) -> bool,
}

const SAFE_ORDER: &[(&str, &str)] = &[("PROMOTE_FIRST", "true"), ("FENCE_OLD_PRIMARY", "true")];

fn settled(shown: &Value, phase: &str) -> bool {
    shown["phase"] == phase && at_rest(shown)
}

fn at_rest(shown: &Value) -> bool {
    let empty = |key: &str| shown[key].as_array().is_some_and(Vec::is_empty);
    shown["transition"] == ""
        && shown["settled"] == true
        && shown["run"].is_null()
        && empty("beside")
        && empty("chores")
        && shown["outbox"] == 0
        && shown["waiting_for_consent"].is_null()
}

pub const SCENARIOS: [Scenario; 10] = [
    Scenario {
        name: "golddr-primary",
        transition: "golddr-primary",
        from: Phase::ActivePassive,
        asked_at: &[Side::Active],
        env: &[],
        routes: false,
        is_over: |_, shown| settled(shown, "golddr-primary"),
    },
    Scenario {
        name: "golddr-primary-fenced",
        transition: "golddr-primary",
        from: Phase::ActivePassive,
        asked_at: &[Side::Active],
        env: SAFE_ORDER,
        routes: false,
        is_over: |_, shown| settled(shown, "golddr-primary"),
    },
    Scenario {
        name: "gold-standby",
        transition: "gold-standby",
        from: Phase::GolddrPrimary,
        asked_at: &[Side::Active],
        env: &[],
        routes: false,
        is_over: |_, shown| settled(shown, "gold-standby"),
    },
    Scenario {
        name: "active-passive",
        transition: "active-passive",
        from: Phase::GoldStandby,
        asked_at: &[Side::Active],
        env: &[],
        routes: false,
        is_over: |_, shown| settled(shown, "active-passive"),
    },
    Scenario {
        name: "active-passive-fenced",
        transition: "active-passive",
        from: Phase::GoldStandby,
        asked_at: &[Side::Active],
        env: SAFE_ORDER,
        routes: false,
        is_over: |_, shown| settled(shown, "active-passive"),
    },
    Scenario {
        name: "active-passive-force",
        transition: "active-passive-force",
        from: Phase::GolddrPrimary,
        asked_at: &[Side::Active],
        env: &[],
        routes: false,
        // The passive site is fenced and keeps its copy until a person accepts the loss.
        is_over: |side, shown| match side {
            Side::Active => settled(shown, "active-passive"),
            Side::Passive => shown["run"]["gate_closed"].is_string(),
        },
    },
    Scenario {
        name: "golddr-primary-routes",
        transition: "golddr-primary",
        from: Phase::ActivePassive,
        asked_at: &[Side::Active],
        env: &[],
        routes: true,
        is_over: |_, shown| settled(shown, "golddr-primary"),
    },
    Scenario {
        name: "active-passive-routes",
        transition: "active-passive",
        from: Phase::GoldStandby,
        asked_at: &[Side::Active],
        env: SAFE_ORDER,
        routes: true,
        is_over: |_, shown| settled(shown, "active-passive"),
    },
    Scenario {
        name: "golddr-maintenance",
        transition: "golddr-maintenance",
        from: Phase::ActivePassive,
        asked_at: &[Side::Active, Side::Passive],
        env: &[],
        routes: false,
        is_over: |_, shown| settled(shown, "golddr-maintenance"),
    },
    Scenario {
        name: "test-ping-pong",
        transition: "test-ping-pong",
        from: Phase::Independent,
        asked_at: &[Side::Active],
        env: &[],
        routes: false,
        is_over: |_, shown| settled(shown, "independent"),
    },
];

/// Where the agents keep their journals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalKind {
    File,
    ConfigMap,
}

/// One kill, as `FAULT_KILL_AT` takes it, or `journal=` and what `FAULT_JOURNAL` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    pub side: Side,
    pub at: String,
}

impl Kill {
    /// The agent's setting.
    pub fn setting(&self) -> (&'static str, &str) {
        match self.at.strip_prefix("journal=") {
            Some(fault) => ("FAULT_JOURNAL", fault),
            None => ("FAULT_KILL_AT", &self.at),
        }
    }
}

/// One case: who is killed where, in which scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub scenario: &'static str,
    pub kills: Vec<Kill>,
    pub journal: JournalKind,
}

impl Case {
    /// `gold`, `golddr` or `both`.
    pub fn who(&self) -> &'static str {
        match self.kills[..] {
            [Kill { side: Side::Active, .. }] => "gold",
            [Kill { side: Side::Passive, .. }] => "golddr",
            _ => "both",
        }
    }

    /// The case of an id, as [`fmt::Display`] spells it.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [scenario, who, kills, journal] = parts[..] else { return None };
        let scenario = SCENARIOS.iter().find(|known| known.name == scenario)?.name;
        let sides: &[Side] = match who {
            "gold" => &[Side::Active],
            "golddr" => &[Side::Passive],
            _ => &Side::ALL,
        };
        let kills = kills.split('+').zip(sides).map(|(at, side)| Kill { side: *side, at: at.to_owned() });
        let journal = if journal == "file" { JournalKind::File } else { JournalKind::ConfigMap };
        Some(Self { scenario, kills: kills.collect(), journal })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kills: Vec<&str> = self.kills.iter().map(|kill| kill.at.as_str()).collect();
        let journal = if self.journal == JournalKind::File { "file" } else { "configmap" };
        write!(f, "{}/{}/{}/{journal}", self.scenario, self.who(), kills.join("+"))
    }
}

fn word(point: KillPoint) -> &'static str {
    KillPoint::ALL.iter().find(|(known, _)| *known == point).map_or("", |(_, word)| word)
}

/// Every place at which an agent whose unkilled run left this journal can be killed.
pub fn places(journal: &[Recorded]) -> Vec<String> {
    let mut places = Vec::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut commanded = Vec::new();
    for recorded in journal {
        let (name, points) = match &recorded.entry.kind {
            EntryKind::Intent { step, action_id, effect } => {
                let command =
                    Command { id: *action_id, step: step.clone(), effect: effect.clone(), limit_ms: 0 };
                commanded.push(step.clone());
                let mut points = vec![
                    KillPoint::BeforeIntent,
                    KillPoint::AfterIntent,
                    KillPoint::AfterEffect,
                    KillPoint::AfterRecord,
                ];
                if effect.is_once_only() {
                    points.push(KillPoint::AfterAim);
                }
                (kill_switch::name(&command), points)
            }
            // Steps whose end is seen, not answered, and steps that command nothing.
            EntryKind::Fact { fact: Note::StepDone { step, .. } }
                if !commanded.contains(step)
                    || step.starts_with("record-")
                    || ["promote-database", "fence-database"].contains(&step.as_str()) =>
            {
                (step.clone(), vec![KillPoint::BeforeDone, KillPoint::AfterDone])
            }
            _ => continue,
        };
        // News of DNS come when they come.
        if name == "tell-peer-dns" {
            continue;
        }
        let family = if points[0] == KillPoint::BeforeDone { "done" } else { "command" };
        let count = counts.entry(format!("{family} {name}")).or_insert(0);
        *count += 1;
        places.extend(points.into_iter().map(|point| format!("{name}:{}:{count}", word(point))));
    }
    places
}

/// The cases of a scenario: each side alone at each of its places, then both together.
pub fn cases(scenario: &'static str, places: [&[String]; 2]) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |kills: Vec<Kill>| {
        let torn = kills.iter().any(|kill| kill.at.starts_with("journal="));
        let in_map = cases.len() % 3 == 2 && !torn;
        let journal = if in_map { JournalKind::ConfigMap } else { JournalKind::File };
        cases.push(Case { scenario, kills, journal });
    };
    for side in Side::ALL {
        for at in places[side as usize] {
            add(vec![Kill { side, at: at.clone() }]);
        }
    }
    for side in Side::ALL {
        // Killed in the middle of a write of the journal; a step is at least one write.
        for write in (3..places[side as usize].len() / 4).step_by(4) {
            add(vec![Kill { side, at: format!("journal=torn:{write}") }]);
        }
    }
    let [gold, golddr] = places;
    if !gold.is_empty() && !golddr.is_empty() {
        // Both at about the same moment of the transition, at every third place of the longer plan.
        let longest = gold.len().max(golddr.len());
        for index in (0..longest).step_by(3) {
            let kill = |side: Side, places: &[String]| Kill {
                side,
                at: places[index * places.len() / longest].clone(),
            };
            add(vec![kill(Side::Active, gold), kill(Side::Passive, golddr)]);
        }
    }
    cases
}
