//! Actions that must not happen twice: aimed at something in the world first, looked up before they are repeated.
//!
//! ```text
//!  first try     identify what is meant ──▶ aim into the journal ──▶ call
//!  another try   compare the aim with the world ──▶ it has happened: done, no call
//!                                               └──▶ it has not: the same call again
//! ```
//!
//! A try may follow a lost answer, a time-out or a crash at any moment. Owns the look; never decides whether to try
//! again (the engine does).

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::clock::Clock;
use super::diary::Diary;
use super::executor::{Hands, SimulatedSite, describe, done, failed, missing};
use crate::adapters::kube::Kube;
use crate::adapters::kube::once::{ListedRun, Standing};
use crate::adapters::tekton::Tekton;
use crate::model::{
    Aim, Command, Detail, Effect, Event, FailureKind, Outcome, PipelineRunSeen, RunsBefore, Wall,
};

/// Time that listing the runs may cost before a trigger: a failover is not to wait for it.
const LIST_LIMIT: Duration = Duration::from_secs(3);
/// Looks at a run that has just been started, where the API server does not answer at once.
const LOOKS: u32 = 5;
/// Between two looks for a run that may still appear.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Carries out a once-only command within its limit. `aimed` is called between the journal's word and the act.
pub async fn perform(
    hands: &Hands,
    diary: &Diary,
    command: &Command,
    clock: Clock,
    aimed: impl Fn() + Send,
) -> Outcome {
    let limit = Duration::from_millis(command.limit_ms);
    let work = async {
        if let Some(site) = &hands.simulated {
            return simulated(site.as_ref(), diary, command, clock).await;
        }
        let known = diary.aim(command.id).await;
        let again = known.is_some();
        let aim = match known {
            Some(aim) => aim,
            None => match take_aim(hands, &command.effect, clock.now().wall).await {
                Ok(aim) => {
                    diary.take_aim(command.id, aim.clone(), clock.now()).await;
                    aim
                }
                Err(outcome) => return outcome,
            },
        };
        aimed();
        act(hands, diary, command, &aim, again, clock).await
    };
    timeout(limit, work).await.unwrap_or_else(|_| {
        let reason = format!("{}: no answer within {} ms", command.effect, command.limit_ms);
        failed(FailureKind::Transient, reason)
    })
}

/// The same at a simulated site, which identifies and looks up by its own means.
async fn simulated(site: &dyn SimulatedSite, diary: &Diary, command: &Command, clock: Clock) -> Outcome {
    match diary.aim(command.id).await {
        Some(aim) => {
            if let Some(outcome) = site.look_up(&command.effect, &aim).await {
                return outcome;
            }
        }
        None => diary.take_aim(command.id, site.aim(&command.effect), clock.now()).await,
    }
    site.carry_out(&command.effect).await
}

/// Identifies what the effect is about; `Err` = there is nothing to do, or it cannot be told now.
async fn take_aim(hands: &Hands, effect: &Effect, now: Wall) -> Result<Aim, Outcome> {
    match effect {
        Effect::PromoteDatabase => Ok(Aim::Standby),
        Effect::TriggerPipeline => {
            let before = match &hands.kube {
                Some(kube) => timeout(LIST_LIMIT, kube.list_runs()).await.ok().and_then(Result::ok),
                None => None,
            };
            if before.is_none() {
                tracing::warn!(
                    "the pipeline runs cannot be listed; a lost answer will be judged by the clock"
                );
            }
            let before =
                before.map(|runs| RunsBefore::of(runs.iter().map(|run| (run.name.as_str(), run.created))));
            Ok(Aim::Run { delivery: crate::peer::new_instance(), asked_ms: now.0, before })
        }
        deletion => {
            let Some((kube, path)) = target(hands, deletion) else {
                return Err(missing("Kubernetes", "KUBE_API_URL or a kubeconfig"));
            };
            match kube.standing(&path).await {
                Ok(Standing::There(uid)) => Ok(Aim::Object { uid }),
                Ok(Standing::Gone | Standing::Ending) => Err(Outcome::Done(Detail::AlreadySo)),
                Ok(Standing::Nameless(why)) => {
                    tracing::warn!(%why, "what is to be deleted cannot be identified; it is deleted by its name");
                    Ok(Aim::Nameless)
                }
                Err(error) => Err(failed(error.kind(), describe(&error))),
            }
        }
    }
}

fn target<'a>(hands: &'a Hands, effect: &Effect) -> Option<(&'a Kube, String)> {
    let kube = hands.kube.as_ref()?;
    match effect {
        Effect::DeleteVolume { ordinal } => Some((kube, kube.volume_path(*ordinal))),
        Effect::DeleteClusterState => Some((kube, kube.cluster_state_path())),
        _ => None,
    }
}

async fn act(
    hands: &Hands,
    diary: &Diary,
    command: &Command,
    aim: &Aim,
    again: bool,
    clock: Clock,
) -> Outcome {
    match (&command.effect, aim) {
        (Effect::PromoteDatabase, _) => promote(hands, again).await,
        (Effect::TriggerPipeline, Aim::Run { .. }) => trigger(hands, diary, command, aim, again, clock).await,
        (deletion, Aim::Object { uid }) => delete(hands, deletion, uid, again).await,
        (deletion, _) => match target(hands, deletion) {
            Some((kube, path)) => done(kube.delete_exactly(&path, None).await, |error| error.kind()),
            None => failed(FailureKind::Permanent, format!("{deletion}: nothing is known of it")),
        },
    }
}

async fn promote(hands: &Hands, again: bool) -> Outcome {
    let Some(patroni) = &hands.patroni else { return missing("Patroni", "PATRONI_LOCAL_API") };
    // An unreadable configuration is changed once more: taking away what is gone changes nothing.
    if again && matches!(patroni.is_standby_configured().await, Ok(false)) {
        return Outcome::Done(Detail::AlreadySo);
    }
    done(patroni.promote().await, |error| error.kind())
}

async fn delete(hands: &Hands, effect: &Effect, uid: &str, again: bool) -> Outcome {
    let Some((kube, path)) = target(hands, effect) else {
        return missing("Kubernetes", "KUBE_API_URL or a kubeconfig");
    };
    if again {
        match kube.standing(&path).await {
            Ok(Standing::Gone | Standing::Ending) => return Outcome::Done(Detail::AlreadySo),
            Ok(Standing::There(now)) if now != uid => {
                tracing::info!(%path, "what was to be deleted is gone; the new one of its name stays");
                return Outcome::Done(Detail::AlreadySo);
            }
            Ok(Standing::There(_) | Standing::Nameless(_)) => {}
            Err(error) => return failed(error.kind(), describe(&error)),
        }
    }
    done(kube.delete_exactly(&path, Some(uid)).await, |error| error.kind())
}

async fn trigger(
    hands: &Hands,
    diary: &Diary,
    command: &Command,
    aim: &Aim,
    again: bool,
    clock: Clock,
) -> Outcome {
    let Some(tekton) = &hands.tekton else { return missing("a deployment pipeline", "TEKTON_URL") };
    let Aim::Run { delivery, .. } = aim else { return missing("an aim", "nothing: this is a defect") };
    if again {
        match await_run(hands, tekton, aim, clock).await {
            Ok(None) => {}
            Ok(Some(run)) => {
                tracing::info!(run = %run.name, "the run of a trigger whose answer was lost was found");
                let event_id = run.event_id.unwrap_or_default();
                return Outcome::Done(Detail::PipelineStarted { event_id });
            }
            Err(outcome) => return outcome,
        }
    }
    match tekton.trigger(delivery).await {
        Ok(event_id) => Outcome::Done(Detail::PipelineStarted { event_id }),
        Err(error) => {
            if error.is_surely_not_started() {
                diary.drop_aim(command.id).await;
            }
            failed(error.kind(), describe(&error))
        }
    }
}

/// The run of an event as it is now, for the engine once it knows the event's number: whatever the watch told of the
/// run before that went unheard, even its end.
pub async fn first_look(hands: &Hands, event_id: &str) -> Option<Event> {
    if let Some(site) = &hands.simulated {
        return site.run_of(event_id).await.map(Event::PipelineRun);
    }
    let kube = hands.kube.as_ref()?;
    for _ in 0..LOOKS {
        match timeout(LIST_LIMIT, kube.find_run_by_event(event_id)).await {
            Ok(Ok(run)) => return run.map(Event::PipelineRun),
            Ok(Err(_)) | Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
    None
}

/// The run that an earlier trigger has started, where there is one; waits while it may still appear.
async fn await_run(
    hands: &Hands,
    tekton: &Tekton,
    aim: &Aim,
    clock: Clock,
) -> Result<Option<PipelineRunSeen>, Outcome> {
    let Some(kube) = &hands.kube else { return Ok(None) };
    let Aim::Run { delivery, asked_ms, .. } = aim else { return Ok(None) };
    let settle = u64::try_from(tekton.settle_time().as_millis()).unwrap_or(u64::MAX);
    let begun = tokio::time::Instant::now();
    loop {
        let runs = kube.list_runs_with(delivery).await;
        let runs = runs.map_err(|error| failed(error.kind(), describe(&error)))?;
        if let Some(run) = choose(runs, aim, &kube.settings().namespace) {
            return Ok(Some(run));
        }
        let age = clock.now().wall.0.saturating_sub(*asked_ms);
        if age >= settle || begun.elapsed() >= tekton.settle_time() {
            return Ok(None);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// The run that carries our id, else the first of our release that came after the aim.
fn choose(runs: Vec<ListedRun>, aim: &Aim, release: &str) -> Option<PipelineRunSeen> {
    let Aim::Run { asked_ms, before, .. } = aim else { return None };
    let is_new = |run: &PipelineRunSeen| match before {
        Some(before) => before.precede(&run.name, run.created),
        // Creation is told in whole seconds.
        None => run.created.is_some_and(|created| created + 1_000 > *asked_ms),
    };
    let known: Vec<ListedRun> = runs.into_iter().filter(|listed| listed.run.event_id.is_some()).collect();
    if let Some(ours) = known.iter().find(|listed| listed.carries_id) {
        return Some(ours.run.clone());
    }
    let ours = |run: &PipelineRunSeen| run.release.as_deref() == Some(release) && is_new(run);
    known.into_iter().map(|listed| listed.run).filter(ours).min_by_key(|run| (run.created, run.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunEvent;

    fn listed(name: &str, release: &str, created: u64, carries_id: bool) -> ListedRun {
        let run = PipelineRunSeen {
            kind: RunEvent::Added,
            name: name.to_owned(),
            event_id: Some(format!("event-{name}")),
            release: Some(release.to_owned()),
            reason: None,
            succeeded: None,
            created: Some(created),
        };
        ListedRun { run, carries_id }
    }

    fn chosen(runs: Vec<ListedRun>, before: Option<RunsBefore>) -> Option<String> {
        let aim = Aim::Run { delivery: "d".to_owned(), asked_ms: 5_400, before };
        choose(runs, &aim, "sso").map(|run| run.name)
    }

    #[test]
    fn the_run_of_a_lost_answer_is_ours_new_and_the_first() {
        let old = listed("old", "sso", 5_000, false);
        let before = || Some(RunsBefore::of([("old", Some(5_000))].into_iter()));
        assert_eq!(chosen(vec![old.clone()], before()), None);
        let foreign = listed("foreign", "other", 6_000, false);
        let (first, second) = (listed("x", "sso", 5_000, false), listed("y", "sso", 7_000, false));
        let runs = vec![second, foreign.clone(), old.clone(), first.clone()];
        assert_eq!(chosen(runs, before()).as_deref(), Some("x"));
        let marked = listed("marked", "other", 9_000, true);
        assert_eq!(chosen(vec![first.clone(), marked], before()).as_deref(), Some("marked"));
        let nameless =
            ListedRun { run: PipelineRunSeen { event_id: None, ..first.run.clone() }, carries_id: true };
        assert_eq!(chosen(vec![nameless], before()), None, "a run without event id cannot be followed");
    }

    #[test]
    fn where_the_runs_were_not_listed_before_the_clock_decides() {
        let runs = |created| vec![listed("a", "sso", created, false)];
        assert_eq!(chosen(runs(5_000), None).as_deref(), Some("a"), "the same second counts");
        assert_eq!(chosen(runs(4_000), None), None);
    }
}
