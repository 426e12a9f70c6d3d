//! Two simulated clouds whose routes the agents steer beside everything else.

use std::time::Duration;

use serde_json::{Value, json};
use switchover_agent::lab::agents::Lab;
use switchover_agent::lab::route_clouds::{PREFIXES, RouteClouds, ServedClouds, environment, write_key};
use switchover_agent::model::{Phase, Side};
use tokio::time::{Instant, sleep};

use crate::cases::JournalKind;
use crate::drive::scenario;
use crate::rig::Rig;

const QUICK: [(&str, &str); 3] =
    [("CHECK_INTERVAL_SECONDS", "1"), ("HEALTH_CHECK_WINDOW", "3"), ("HEALTH_CHECK_THRESHOLD", "2")];

/// The clouds of a rig.
pub struct Routes {
    pub clouds: RouteClouds,
    _served: ServedClouds,
}

impl Routes {
    /// Both clouds on a normal day, and the settings that point the agents of a lab there.
    pub async fn lay(lab: &mut Lab) -> Self {
        let clouds = RouteClouds::new();
        clouds.compute.with(|cloud| cloud.propagation_ms = 100);
        let served = clouds.serve().await.unwrap();
        let bases = served.bases();
        let key = write_key(&lab.dir, &bases[0]).unwrap();
        for side in Side::ALL {
            let state = lab.dir.join(format!("routes-{side}.json")).display().to_string();
            let env = &mut lab.env[side as usize];
            let processes = format!("{},route_watch", env["PROCESS_LIST"]);
            env.extend(environment(side, &bases, &key, &lab.dir));
            env.extend(QUICK.map(|(name, value)| (name.to_owned(), value.to_owned())));
            env.extend([("PROCESS_LIST".to_owned(), processes), ("STATE_FILE".to_owned(), state)]);
        }
        Self { clouds, _served: served }
    }

    /// What the routers list and Cloudflare prefers.
    pub fn end_state(&self) -> Value {
        let of_side = |side: Side| {
            let mut listed = self.clouds.listed(side);
            listed.sort();
            json!([listed, self.clouds.priorities(side)])
        };
        json!(Side::ALL.map(of_side))
    }

    /// Whether the routes are as a phase wants them: at home by health, in every other one at the passive site.
    pub fn are_as_in(&self, phase: Phase) -> bool {
        let [active, passive] = PREFIXES;
        let wanted = match phase {
            Phase::ActivePassive => json!([[[active], [100]], [[passive], [100]]]),
            _ => json!([[[], [200]], [[active, passive], [100]]]),
        };
        self.end_state() == wanted
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_pin_that_a_kill_interrupts_between_two_clouds_is_finished_by_the_next_life() {
    let scenario = scenario("golddr-primary-routes");
    let mut rig = Rig::lay(scenario, JournalKind::File).await;
    for side in Side::ALL {
        rig.start(side, &[]);
    }
    rig.until_acquainted().await.unwrap();
    let clouds = rig.routes.as_ref().unwrap().clouds.clone();
    // A change of a router is asked for at once and takes effect, and is answered, long after.
    clouds.compute.with(|cloud| cloud.propagation_ms = 3_000);
    let writes = clouds.compute.write_count();
    rig.order(Side::Active, scenario.transition).await.unwrap();
    let begun = Instant::now();
    while clouds.compute.write_count() == writes {
        assert!(begun.elapsed() < Duration::from_secs(120), "no router was written");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!rig.routes.as_ref().unwrap().are_as_in(Phase::GolddrPrimary), "the pin is on its way");
    for side in Side::ALL {
        rig.kill(side).await;
        rig.start(side, &[]);
    }
    for side in Side::ALL {
        rig.until(side, "the whole failover", |shown| (scenario.is_over)(side, shown)).await;
    }
    let begun = Instant::now();
    while !rig.routes.as_ref().unwrap().are_as_in(Phase::GolddrPrimary) {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", rig.routes.as_ref().unwrap().end_state());
        sleep(Duration::from_millis(50)).await;
    }
    rig.stop().await;
}
