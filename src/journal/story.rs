//! The journal as a person reads it: one line per entry, and at the end whether the chain holds.

use super::{EntryKind, Recorded, Recovered};
use crate::model::{Aim, Note, Outcome, Wall};

/// The newest `limit` entries, oldest first, and the verdict on the whole journal as the last line.
pub fn tell(recovered: &Recovered, limit: usize) -> Vec<String> {
    let all = &recovered.entries;
    let mut lines: Vec<String> = all[all.len().saturating_sub(limit)..].iter().map(line).collect();
    lines.push(verdict(recovered));
    lines
}

/// Whether the chain holds, in one line.
pub fn verdict(recovered: &Recovered) -> String {
    let ends = recovered.entries.first().zip(recovered.entries.last());
    let range = match ends {
        Some((first, last)) => format!("entries {} to {}", first.seq, last.seq),
        None => "no entries".to_owned(),
    };
    match (&recovered.damage, &recovered.torn) {
        (Some(damage), _) => format!("DAMAGED: {damage}; good up to there: {range}"),
        (None, Some(torn)) => {
            format!("whole: {range}; the last {} bytes are unfinished and count for nothing", torn.bytes)
        }
        (None, None) => format!("whole: {range}, every hash and number as written"),
    }
}

/// Number, moment, generation, kind, step, and what it says.
fn line(recorded: &Recorded) -> String {
    let entry = &recorded.entry;
    let at = Wall(entry.wall_ms).to_iso();
    let (kind, text) = words(&entry.kind);
    format!("#{:<6} {at} g{:<3} {kind:<8} {text}", recorded.seq, entry.generation.0)
}

fn words(kind: &EntryKind) -> (&'static str, String) {
    match kind {
        EntryKind::Intent { step, action_id, effect } => {
            ("intent", format!("{step}: {effect} (action {})", action_id.0))
        }
        EntryKind::Aim { step, action_id, aim } => {
            let at = match aim {
                Aim::Object { uid } => format!("the object with uid {uid}"),
                Aim::Nameless => "an object that could not be identified".to_owned(),
                Aim::Standby => "a database that stands by".to_owned(),
                Aim::Run { delivery, .. } => format!("a new run, delivery {delivery}"),
            };
            ("aim", format!("{step}: {at} (action {})", action_id.0))
        }
        EntryKind::Outcome { step, action_id, outcome } => {
            let how = match outcome {
                Outcome::Done(detail) => format!("done, {detail:?}"),
                Outcome::Failed { kind, reason } => format!("failed ({kind:?}): {reason}"),
            };
            ("outcome", format!("{step}: {how} (action {})", action_id.0))
        }
        EntryKind::Fact { fact } => ("fact", fact_words(fact)),
        EntryKind::State { .. } => ("state", "checkpoint".to_owned()),
        EntryKind::Lost { entries } => ("lost", format!("{entries} entries could not be written")),
        EntryKind::SetAside { damage } => ("aside", format!("a damaged journal was set aside: {damage}")),
    }
}

/// A fact in words: what, who, why.
fn fact_words(fact: &Note) -> String {
    match fact {
        Note::Refused(refusal) => {
            format!(
                "{} asks for {}: refused, {}: {}",
                refusal.origin, refusal.asked, refusal.refusal, refusal.why
            )
        }
        Note::TransitionStarted { rule, transition, side, why, steps, .. } => {
            format!("{transition} begins at the {side} side by rule {rule} ({} steps): {why}", steps.len())
        }
        Note::StepStarted { step, attempt, .. } => format!("{step}: try {attempt}"),
        Note::StepDone { step, how, .. } => format!("{step}: {how}"),
        Note::StepFailed { step, reason, .. } => format!("{step}: {reason}"),
        Note::TransitionDone { transition, took_ms, .. } => {
            format!("{transition} is done after {took_ms} ms")
        }
        Note::Halted { transition, step, reason, .. } => format!("{transition} HALTED at {step}: {reason}"),
        Note::Settled { transition, .. } => format!("{transition} has settled"),
        Note::Remark { level, text } => format!("{level}: {text}"),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Entry, JournalError, MemoryJournal};
    use crate::model::{ActionId, Effect, Generation};

    #[test]
    fn a_person_reads_number_moment_generation_and_what_happened() {
        let entry = Entry {
            wall_ms: 1_795_219_201_042,
            generation: Generation(4),
            kind: EntryKind::Intent {
                step: "stop-database".to_owned(),
                action_id: ActionId(9),
                effect: Effect::ScaleDatabase { replicas: 0 },
            },
        };
        let recorded = Recorded { seq: 12, prev: String::new(), hash: String::new(), entry };
        let recovered = Recovered { entries: vec![recorded], ..Recovered::default() };
        let told = tell(&recovered, 10);
        assert_eq!(
            told[0],
            "#12     2026-11-21T00:00:01Z g4   intent   stop-database: scale the database to 0 and wait (action 9)"
        );
        assert_eq!(told[1], "whole: entries 12 to 12, every hash and number as written");
        assert_eq!(tell(&recovered, 0).len(), 1, "the verdict is never left out");
    }

    #[test]
    fn damage_is_the_last_word() {
        let damage = JournalError::Altered { place: "j".to_owned(), line: 3, what: "no".to_owned() };
        let recovered = Recovered { damage: Some(damage), ..MemoryJournal::default().recover() };
        assert_eq!(
            verdict(&recovered),
            "DAMAGED: journal j altered at line 3: no; good up to there: no entries"
        );
    }
}
