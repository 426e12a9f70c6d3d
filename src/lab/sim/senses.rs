//! The watchers of a simulated site: the same events on the same rhythm as the shipped tasks post them, out of the
//! simulated world instead of sockets.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::world::{Bell, Shared, World};
use crate::bus::Bus;
use crate::model::{DnsSample, Event, Mono, PatroniSample, RecordSeen, ResolverAnswer, Side, WitnessSample};

/// Resolvers that each agent asks.
const RESOLVERS: usize = 3;
/// From a change to the watch event.
const WATCH_MS: u64 = 20;

/// As `dns_watch`.
pub async fn dns(shared: Shared, side: Side, bus: Bus) {
    let mut ticks = interval(Duration::from_millis(shared.plan.pace.dns));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let sample = look_up(&mut shared.lock(), side);
        if !bus.send(Event::Dns(sample)).await {
            return;
        }
    }
}

fn look_up(world: &mut World, side: Side) -> DnsSample {
    let truth = world.traffic();
    let broken = world.look(side).broken.clone();
    let loss = world.sensor_loss;
    let address = |side: Side| {
        let last = if side == Side::Active { 1 } else { 2 };
        ResolverAnswer::Addresses([IpAddr::from([10, 0, 0, last])].into())
    };
    let unknown = || ResolverAnswer::Unknown("time-out".to_owned());
    let answers = (0..RESOLVERS).map(|number| {
        let failed = world.dice().chance(loss);
        let answer = match (number, truth) {
            _ if failed || broken.outside => unknown(),
            (number, _) if number < broken.lying => address(Side::Passive),
            (number, _) if number >= RESOLVERS - broken.silent.min(RESOLVERS) => unknown(),
            (_, Some(side)) => address(side),
            (_, None) => ResolverAnswer::NoAddress,
        };
        (format!("resolver-{number}"), answer)
    });
    DnsSample { answers: answers.collect(), self_test: Some(!broken.outside) }
}

/// As `patroni_worker`.
pub async fn patroni(shared: Shared, side: Side, bus: Bus) {
    let mut ticks = interval(Duration::from_millis(shared.plan.pace.patroni));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let sample = {
            let mut world = shared.lock();
            let loss = world.sensor_loss;
            if world.dice().chance(loss) {
                PatroniSample::Unknown("time-out".to_owned())
            } else {
                world.look(side).patroni_seen()
            }
        };
        if !bus.send(Event::Patroni(sample)).await {
            return;
        }
    }
}

/// As `sensor_watch` asks the witness: every now and then, and at once when the engine changes its mind.
pub async fn witness(shared: Shared, side: Side, bus: Bus, mut wanted: watch::Receiver<Option<bool>>) {
    let mut ticks = interval(Duration::from_millis(shared.plan.pace.witness));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let lasts = shared.plan.policy(side, String::new()).safety;
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {}
            changed = wanted.changed() => if changed.is_err() { return },
        }
        let wants = *wanted.borrow_and_update();
        let asked = bus.now();
        let sample = {
            let mut world = shared.lock();
            let loss = world.sensor_loss;
            let (failed, now) = (world.dice().chance(loss), Mono(world.now));
            match world.witness.look(side, wants, lasts.lease_ms + lasts.grace_ms, now) {
                WitnessSample::Answered { holder, .. } if !failed => {
                    WitnessSample::Answered { holder, asked }
                }
                WitnessSample::Answered { .. } => WitnessSample::Unknown("time-out".to_owned()),
                unknown @ WitnessSample::Unknown(_) => unknown,
            }
        };
        sleep(Duration::from_millis(WATCH_MS)).await;
        if !bus.send(Event::Witness(sample)).await {
            return;
        }
    }
}

/// As `kube_watch`: a change soon, the whole record every now and then, trouble at the second failed read.
pub async fn record(shared: Shared, side: Side, bus: Bus) {
    let bell = shared.bell(side, Bell::Record);
    let resync = Duration::from_millis(shared.plan.pace.resync);
    let mut told: Option<RecordSeen> = None;
    let mut failed = 0_u32;
    let mut full = true;
    loop {
        let seen = shared.lock().look(side).record_seen();
        if full {
            failed = if matches!(seen, RecordSeen::Unknown(_)) { failed + 1 } else { 0 };
        }
        let news = match &seen {
            RecordSeen::Unknown(_) => failed > 1 && !matches!(told, Some(RecordSeen::Unknown(_))),
            _ => full || told.as_ref() != Some(&seen),
        };
        if news {
            told = Some(seen.clone());
            sleep(Duration::from_millis(WATCH_MS)).await;
            if !bus.send(Event::Record(seen)).await {
                return;
            }
        }
        full = tokio::time::timeout(resync, bell.notified()).await.is_err();
    }
}

/// As `tekton_watch`: every run at the start, then every change; nothing while the API is down.
pub async fn runs(shared: Shared, side: Side, bus: Bus) {
    let bell = shared.bell(side, Bell::Runs);
    let mut news = {
        let mut world = shared.lock();
        world.site(side).take_run_news();
        world.look(side).list_runs()
    };
    let mut was_down = false;
    loop {
        for run in news {
            if !bus.send(Event::PipelineRun(run)).await {
                return;
            }
        }
        bell.notified().await;
        sleep(Duration::from_millis(WATCH_MS)).await;
        let mut world = shared.lock();
        let down = world.look(side).broken.api_down;
        news = match (down, was_down) {
            (true, _) => Vec::new(),
            (false, true) => {
                world.site(side).take_run_news();
                world.look(side).list_runs()
            }
            (false, false) => world.site(side).take_run_news(),
        };
        was_down = down;
    }
}
