//! `sensor_watch`: asks the witness and the application of this site, and hands what they say to the engine.
//!
//! Owns the rhythm, and what a failed look means: nothing. Never decides; whether this site should hold the witness's
//! lease is the engine's word.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use super::{Ctx, Exit};
use crate::adapters::http_client;
use crate::adapters::witness::Witness;
use crate::bus::Bus;
use crate::config::witness::{ApplicationSettings, ObserverSettings};
use crate::model::{Event, LeaseHolder, Reading, SensorName, WitnessSample};

/// What the task asks, and whom.
#[derive(Clone)]
pub struct Observers {
    /// Settings.
    pub settings: ObserverSettings,
    /// Name of this site, as it stands in the lease.
    pub site: String,
    /// How long the lease outlives its last renewal, in milliseconds: lease and grace.
    pub ttl_ms: u64,
    /// Whether this site should hold the lease, by the engine.
    pub wanted: watch::Receiver<Option<bool>>,
}

/// Asks until cancelled.
pub async fn run(ctx: Ctx, observers: Observers) -> Exit {
    let witness = match &observers.settings.witness {
        None => None,
        Some(settings) => match Witness::new(settings, &observers.site, observers.ttl_ms) {
            Ok(witness) => Some((witness, settings.poll_ms)),
            Err(error) => return Exit::Failed(error.to_string()),
        },
    };
    let ask_witness = async {
        match witness {
            Some((witness, poll_ms)) => {
                ask_witness(&ctx.bus, witness, poll_ms, observers.wanted.clone()).await
            }
            None => std::future::pending().await,
        }
    };
    let ask_application = async {
        match &observers.settings.application {
            Some(settings) => ask_application(&ctx.bus, settings).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = ctx.cancel.cancelled() => Exit::Cancelled,
        never = ask_witness => match never {},
        why = ask_application => Exit::Failed(why),
    }
}

async fn ask_witness(
    bus: &Bus,
    mut witness: Witness,
    poll_ms: u64,
    mut wanted: watch::Receiver<Option<bool>>,
) -> Infallible {
    let mut ticks = interval(Duration::from_millis(poll_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last: Option<LeaseHolder> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // A change of mind is carried out at once: the other site may wait for it.
            changed = wanted.changed() => if changed.is_err() { std::future::pending::<()>().await },
        }
        let wants = *wanted.borrow_and_update();
        // Counted from before the question: what the witness knows is no newer than that.
        let asked = bus.now();
        let sample = match witness.look(wants).await {
            Ok(holder) => {
                if last != Some(holder) {
                    info!(?holder, "witness");
                    last = Some(holder);
                }
                WitnessSample::Answered { holder, asked }
            }
            Err(error) => {
                debug!(%error, "witness");
                WitnessSample::Unknown(error.to_string())
            }
        };
        bus.send(Event::Witness(sample)).await;
    }
}

async fn ask_application(bus: &Bus, settings: &ApplicationSettings) -> String {
    let limit = Duration::from_millis(settings.poll_ms.clamp(500, 10_000));
    let client = match http_client::client(&settings.url, limit) {
        Ok(client) => client,
        Err(error) => return error.to_string(),
    };
    let mut ticks = interval(Duration::from_millis(settings.poll_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut count = Failures { seen: 0, need: settings.failures };
    loop {
        ticks.tick().await;
        let answered = match http_client::call(client.get(&settings.url), "GET application health").await {
            Ok(answer) => Some(answer.status.is_success()),
            Err(error) => {
                debug!(%error, "application");
                None
            }
        };
        if let Some(reading) = count.judge(answered) {
            bus.send(Event::Sensor { name: SensorName::Application, reading }).await;
        }
    }
}

/// Bad answers in a row.
struct Failures {
    seen: u32,
    need: u32,
}

impl Failures {
    /// What a look means: a bad answer counts after enough of them; no answer says nothing about the application.
    fn judge(&mut self, answered: Option<bool>) -> Option<Reading> {
        match answered {
            Some(true) => {
                self.seen = 0;
                Some(Reading::Good)
            }
            Some(false) => {
                self.seen = self.seen.saturating_add(1);
                (self.seen >= self.need).then_some(Reading::Bad)
            }
            None => Some(Reading::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bad_answers_in_a_row_make_the_application_bad() {
        let mut count = Failures { seen: 0, need: 2 };
        assert_eq!(count.judge(Some(false)), None);
        assert_eq!(count.judge(None), Some(Reading::Unknown));
        assert_eq!(count.judge(Some(false)), Some(Reading::Bad));
        assert_eq!(count.judge(Some(true)), Some(Reading::Good));
        assert_eq!(count.judge(Some(false)), None);
    }
}
