//! The invariants of one side, judged over one step of its engine. What counts as exercised had its premise true.

use super::part::{Answer, Given, Part};
use super::rule::Rule;
use super::site::Role;
use super::store::Op;
use crate::model::{
    Action, Command, ConsentTag, Effect, Mono, Note, OperatorRequest, PeerLink, PeerMessage, Phase, Side,
    Transition,
};
use crate::rules::pipeline::Stage;
use crate::rules::state::State;

/// Facts older than this are unknown, in the settings of the model.
const FRESH_MS: u64 = 10_000;

/// What was judged about one step of one side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Judged {
    /// The first invariant that it breaks.
    pub bad: Option<Rule>,
    /// Invariants whose premise held, as bits.
    pub exercised: u32,
    /// Landmarks reached.
    pub landmarks: Vec<String>,
    /// A person's request for a transition was accepted.
    pub accepted: bool,
}

impl Judged {
    fn check(&mut self, rule: Rule, premise: bool, holds: impl FnOnce() -> bool) {
        if premise {
            self.exercised |= 1 << rule as u32;
            if !holds() && self.bad.is_none() {
                self.bad = Some(rule);
            }
        }
    }
}

/// One step of a side.
struct Step<'a> {
    before: &'a Part,
    op: Op,
    given: &'a Given,
    now: Mono,
    said: &'a [Action],
    after: &'a Part,
}

impl Step<'_> {
    fn was(&self) -> &State {
        &self.before.state
    }
    fn is(&self) -> &State {
        &self.after.state
    }
    fn commands(&self) -> impl Iterator<Item = &Command> {
        self.said.iter().filter_map(|action| match action {
            Action::Perform(command) => Some(command),
            Action::Report(_) => None,
        })
    }
    fn notes(&self) -> impl Iterator<Item = &Note> {
        self.said.iter().filter_map(|action| match action {
            Action::Report(note) => Some(note),
            Action::Perform(_) => None,
        })
    }
    fn halts(&self) -> bool {
        self.notes().any(|note| matches!(note, Note::Halted { .. }))
    }
    fn started(&self) -> Option<(&str, crate::model::Generation)> {
        self.notes().find_map(|note| match note {
            Note::TransitionStarted { rule, generation, .. } => Some((rule.as_str(), *generation)),
            _ => None,
        })
    }
    fn heard(&self) -> Option<&PeerMessage> {
        match self.given {
            Given::Hear((_, message)) => Some(message),
            Given::HearCopy => self.before.copy.as_ref().map(|(_, message)| message),
            _ => None,
        }
    }
    /// Whether what was heard had been heard before.
    fn repeats(&self) -> bool {
        let letter = match self.given {
            Given::Hear(letter) => Some(letter),
            Given::HearCopy => self.before.copy.as_ref(),
            _ => None,
        };
        letter
            .and_then(|(id, _)| id.as_ref())
            .is_some_and(|(instance, id)| self.was().handled.get(instance).is_some_and(|last| id <= last))
    }
}

/// Judges one step of a side; remembers in `after` what later judgements need.
pub fn judge_part(
    before: &Part,
    (op, given, now): (Op, &Given, Mono),
    said: &[Action],
    after: &mut Part,
) -> Judged {
    let mut judged = Judged::default();
    let nonce = {
        let step = Step { before, op, given, now, said, after };
        rules_of_runs(&mut judged, &step);
        rules_of_words(&mut judged, &step);
        rules_of_memory(&mut judged, &step);
        judged.landmarks.extend(step.said.iter().filter_map(|action| landmark(before.side, action)));
        judged.accepted = matches!(op, Op::Ask(_))
            && step.notes().any(|note| matches!(note, Note::Answer { accepted: true, .. }));
        spent(&step)
    };
    remember(after, nonce, said, given);
    judged
}

fn spent(step: &Step<'_>) -> Option<String> {
    let (Some(PeerMessage::Yes { item, .. }), Some(_)) = (step.heard(), step.started()) else { return None };
    ConsentTag::from_item(item).map(|tag| tag.nonce)
}

fn remember(after: &mut Part, nonce: Option<String>, said: &[Action], given: &Given) {
    after.past.spent.extend(nonce);
    if matches!(given, Given::Dns(Answer::Active)) {
        after.past.old_news = false;
    }
    for action in said {
        match action {
            Action::Report(Note::TransitionStarted { rule, generation, transition, .. }) => {
                after.past.ran = after.past.ran.max(*generation);
                after.past.once.clear();
                (after.past.refused, after.past.waited_out) = (false, false);
                let home = transition == Transition::ActivePassive.wire()
                    || transition == Transition::ActivePassiveForce.wire();
                let by_itself = rule == "failover-by-traffic";
                after.past.by_itself = by_itself;
                after.past.automatic &= !home || by_itself;
            }
            Action::Report(Note::TransitionDone { transition, .. }) => {
                let goal = transition.parse().ok().and_then(Transition::target);
                let failed_over = goal == Some(Phase::GolddrPrimary);
                after.past.automatic |= after.past.by_itself && failed_over;
                let home = goal == Some(Phase::ActivePassive);
                after.past.old_news |= home && after.state.automation.traffic_moved;
            }
            Action::Report(Note::StepDone { step, how, .. })
                if matches!(step.as_str(), "await-peer-fenced" | "await-witness-lease") =>
            {
                after.past.waited_out |= how == "not-done";
            }
            Action::Report(Note::Refused(refusal)) if refusal.origin == "peer" => after.past.refused = true,
            Action::Report(Note::Answer { accepted: true, .. }) => {
                let asked = match given {
                    Given::Ask(index) => super::part::requests().into_iter().nth(usize::from(*index)),
                    _ => None,
                };
                if asked == Some(OperatorRequest::Acknowledge) {
                    after.past.automatic = false;
                }
            }
            _ => {}
        }
    }
}

fn rules_of_runs(judged: &mut Judged, step: &Step<'_>) {
    let (was, is) = (step.was(), step.is());
    let deletes = step.commands().any(|command| command.effect.is_destructive());
    judged.check(Rule::ByRun, deletes, || is.run.as_ref().is_some_and(|run| run.halted.is_none()));
    let accepted = is.run.as_ref().is_some_and(|run| run.accept_data_loss.is_some());
    judged.check(Rule::ProofAsked, deletes && !accepted, || {
        is.peer.status.as_ref().is_some_and(|(status, at)| {
            let fresh = step.now.since(*at) <= FRESH_MS && is.peer.link != PeerLink::Down;
            fresh && status.writable == Some(true)
        })
    });
    judged.check(Rule::GenerationGrows, is.generation != was.generation || step.started().is_some(), || {
        // Both sites may begin at once and choose the same number; who hears the other's order then obeys it.
        let ordered = is.run.as_ref().is_some_and(|run| run.origin == crate::rules::state::Origin::Peer);
        let again = step.started().is_some_and(|(_, generation)| {
            let ran = step.before.past.ran;
            generation < ran || generation == ran && !ordered || generation > is.generation
        });
        is.generation >= was.generation && !again
    });
    judged.check(Rule::OneRun, step.started().is_some(), || {
        let ended = step.halts() || step.notes().any(|note| matches!(note, Note::TransitionDone { .. }));
        ended || was.run.as_ref().is_none_or(|run| run.halted.is_some() || run.lane.is_finished())
    });
    for note in step.notes() {
        if let Note::TransitionDone { transition, .. } = note {
            judged.check(Rule::DoneIsDone, true, || keeps_promise(transition, step.after));
        }
    }
    for note in step.notes() {
        if let Note::StepDone { step: name, how, .. } = note
            && name == "await-peer-fenced"
        {
            judged.check(Rule::FenceAwaited, true, || fence_awaited(step, how));
        }
    }
    let halted = |state: &State| state.run.as_ref().is_some_and(|run| run.halted.is_some());
    judged.check(Rule::HaltTold, !halted(was) && halted(is), || step.halts());
    let resumed = matches!(step.op, Op::Ask(_)) && halted(was) && !halted(is);
    if let (true, Some(old), Some(new)) = (resumed, &was.run, &is.run)
        && old.generation == new.generation
    {
        let same = step.commands().all(|command| {
            let cursor = old.lane.current().map(|step| step.step.name.as_str());
            cursor == Some(command.step.as_str()) || command.step == "tell-peer"
        });
        judged.check(Rule::ResumeThere, true, || new.lane.cursor == old.lane.cursor || same);
    }
    judged.check(Rule::OnceOnly, step.commands().any(|command| command.effect.is_once_only()), || {
        step.commands().all(|command| !is_again(step, command))
    });
}

/// Whether the wait for the old primary ended as it may.
fn fence_awaited(step: &Step<'_>, how: &str) -> bool {
    let (was, peer) = (step.was(), &step.is().peer);
    if how == "not-done" {
        let waiting = was.run.as_ref().filter(|run| !run.facts.automatic).and_then(|run| run.lane.current());
        return waiting.is_some_and(|waiting| {
            waiting.started.is_some_and(|since| step.now.since(since) >= waiting.step.limit_ms)
        });
    }
    let read_only = peer.status.as_ref().is_some_and(|(status, _)| status.writable == Some(false));
    read_only || peer.link == PeerLink::Down
}

/// What a finished transition promises about the database of its side.
fn keeps_promise(transition: &str, part: &Part) -> bool {
    let writable = part.site.is_writable();
    match (transition.parse(), part.side) {
        (Ok(Transition::GolddrPrimary | Transition::GolddrMaintenance), Side::Passive) => writable,
        (Ok(Transition::ActivePassive | Transition::ActivePassiveForce), Side::Active) => writable,
        (Ok(Transition::GoldStandby), Side::Active)
        | (Ok(Transition::ActivePassive | Transition::ActivePassiveForce), Side::Passive) => {
            part.site.database.role == Role::Standby && part.site.database.replicas == 2
        }
        _ => true,
    }
}

fn is_again(step: &Step<'_>, command: &Command) -> bool {
    let generation = step.is().run.as_ref().map_or(step.is().generation, |run| run.generation);
    let known = step.before.past.once.contains(&(generation, command.effect.to_string()));
    let in_effect = match command.effect {
        Effect::TriggerPipeline => !matches!(step.is().pipeline.stage, Stage::Starting),
        // A fence on its way will have undone it.
        Effect::PromoteDatabase => {
            step.after.site.is_writable() && step.after.site.database.becoming.is_none()
        }
        _ => true,
    };
    command.effect.is_once_only() && known && in_effect
}

fn rules_of_words(judged: &mut Judged, step: &Step<'_>) {
    let (was, is) = (step.was(), step.is());
    if let Some(PeerMessage::TransitionTo { generation: Some(generation), .. }) = step.heard() {
        judged.check(Rule::StaleNeverActs, *generation < was.generation, || {
            // It may wait until it can be judged.
            is.request == was.request && step.started().is_none()
        });
    }
    let needs = |rule: &str| matches!(rule, "rebuild-active-asked" | "failback-asked" | "bootstrap-asked");
    if let Some((rule, generation)) = step.started() {
        judged.check(Rule::ConsentOnce, needs(rule), || {
            let Some(PeerMessage::Yes { item, .. }) = step.heard() else { return false };
            let (Some(tag), Some(ask)) = (ConsentTag::from_item(item), &was.ask) else { return false };
            let wall = step.after.clock(step.now).wall;
            ask.nonce == tag.nonce
                && !step.before.past.spent.contains(&tag.nonce)
                && tag.generation == generation
                && generation > was.generation
                && wall <= tag.expires
        });
    }
    let yes = is.outbox.iter().find_map(|entry| match &entry.message {
        PeerMessage::Yes { item, .. } if !was.outbox.iter().any(|old| old.id == entry.id) => Some(item),
        _ => None,
    });
    let tag = yes.and_then(|item| ConsentTag::from_item(item));
    if let Some(tag) = tag.filter(|tag| tag.transition != Transition::TestPingPong.wire()) {
        judged.check(Rule::ConsentSound, true, || is_sound(step, &tag));
    }
    let refused = matches!(step.heard(), Some(PeerMessage::No { .. }));
    judged.check(Rule::VetoHolds, refused, || step.started().is_none());
    judged.check(Rule::HeardOnce, step.repeats(), || {
        let answers = |state: &State| {
            let said =
                |message: &PeerMessage| matches!(message, PeerMessage::Yes { .. } | PeerMessage::No { .. });
            state.outbox.iter().filter(|entry| said(&entry.message)).count()
        };
        let same = (&was.request, &was.waiting_order, was.generation)
            == (&is.request, &is.waiting_order, is.generation);
        // A limit that is over at the same moment has its effect whatever came.
        step.halts() || same && step.started().is_none() && answers(is) <= answers(was)
    });
    let sent = step.commands().find_map(|command| match command.effect {
        Effect::SendPeer { id, .. } => Some(id),
        _ => None,
    });
    judged.check(Rule::SendsInOrder, sent.is_some() && is.outbox.len() > 1, || {
        is.outbox.iter().all(|entry| Some(entry.id) >= sent)
    });
    let orders = |state: &State| {
        state.outbox.iter().filter(|entry| matches!(entry.message, PeerMessage::TransitionTo { .. })).count()
    };
    judged.check(Rule::OrderKept, orders(was) > 0, || {
        let ended = matches!(step.given, Given::Delivered(_, true));
        orders(is) >= orders(was) || ended || step.started().is_some()
    });
}

/// Whether a consent may be given as this side stands.
fn is_sound(step: &Step<'_>, tag: &ConsentTag) -> bool {
    let (was, part) = (step.was(), step.after);
    let shown = part.site.recorded().0;
    let wall = part.clock(step.now).wall;
    let granted_now = was.grant.is_none();
    let (phase, database) = match tag.transition.parse() {
        Ok(Transition::GoldStandby) => (shown == "golddr-primary", part.site.is_writable()),
        Ok(Transition::ActivePassive) => (
            matches!(shown.as_str(), "gold-standby" | "golddr-maintenance" | "independent"),
            !part.site.is_writable(),
        ),
        _ => (true, true),
    };
    let in_time = !granted_now || tag.expires >= wall && tag.generation > was.generation;
    // What is asked here while the database is made read-only for the peer is refused, and the consent stands.
    let idle = !granted_now || part.site.recorded().1.is_empty();
    phase && database && in_time && idle && was.run.is_none()
}

fn rules_of_memory(judged: &mut Judged, step: &Step<'_>) {
    let (was, is) = (step.was(), step.is());
    let unknown = matches!(step.given, Given::Dns(Answer::Silence | Answer::OneLies));
    judged.check(Rule::UnknownStill, unknown, || {
        let only_news = step.commands().all(|command| {
            matches!(&command.effect, Effect::SendPeer { message: PeerMessage::Dns { .. }, .. })
        });
        only_news && (was.automation.traffic_moved || !is.automation.traffic_moved)
    });
    let by_itself = |state: &State| {
        state
            .request
            .as_ref()
            .is_some_and(|request| request.origin == crate::rules::state::Origin::Automation)
    };
    judged.check(Rule::OneAutomatic, by_itself(is) && !by_itself(was), || {
        let past = &step.before.past;
        !past.automatic && !past.old_news && !past.quiet
    });
    if let Given::Crash(_) = step.given {
        judged.check(Rule::RestartKeeps, true, || {
            let ids = |state: &State| state.outbox.iter().map(|entry| entry.id).collect::<Vec<_>>();
            let run = |state: &State| state.run.as_ref().map(|run| (run.generation, run.lane.cursor));
            let finished = |state: &State| {
                let steps = state.run.iter().flat_map(|run| run.lane.steps.iter().skip(run.lane.cursor));
                steps.filter(|step| step.status == crate::rules::state::StepStatus::Finished).count()
            };
            was.generation == is.generation
                && ids(was) == ids(is)
                && was.handled == is.handled
                && was.grant.is_some() == is.grant.is_some()
                && was.automation.unacknowledged == is.automation.unacknowledged
                && run(was) == run(is)
                && finished(was) == finished(is)
        });
    }
    let settled = step.notes().any(|note| matches!(note, Note::Settled { .. }));
    judged.check(Rule::SettledTold, settled, || is.pipeline.stage == Stage::Idle && is.run.is_none());
    judged.check(Rule::ComesToRest, !step.said.is_empty(), || {
        !step
            .notes()
            .any(|note| matches!(note, Note::Remark { text, .. } if text.contains("did not come to rest")))
    });
}

fn landmark(side: Side, action: &Action) -> Option<String> {
    match action {
        Action::Perform(command) if command.effect.is_once_only() => {
            Some(format!("{side}: {}", command.effect))
        }
        Action::Report(Note::TransitionDone { transition, .. }) => Some(format!("{side}: {transition} done")),
        Action::Report(Note::Halted { transition, step, .. }) => {
            Some(format!("{side}: {transition} halted at {step}"))
        }
        Action::Report(Note::Settled { transition, .. }) => Some(format!("{side}: {transition} settled")),
        Action::Report(Note::Refused(refusal)) => Some(format!("{side}: refused: {}", refusal.refusal)),
        Action::Perform(_) | Action::Report(_) => None,
    }
}
