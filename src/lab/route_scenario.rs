//! Route steering in the lab: two regions, two clouds, two agents; a region fails, dies and comes back, and a switchover
//! takes the routes along.
//!
//! Owns the story. Every step waits for what must be true then and fails loudly where it does not come true. The
//! agents are whole ones, with engine and `route_watch`; nothing here is used by a running agent.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::agents::{Lab, LabError, LabSettings};
use super::route_clouds::{PREFIXES, RouteClouds, ServedClouds, environment, write_key};
use crate::model::Side;

/// Longest wait for one step of the story.
const PATIENCE: Duration = Duration::from_secs(90);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Every process of the lab, and ours.
const PROCESSES: &str = "logic_handler,dns_watch,kube_watch,patroni_worker,tekton_watch,peer_server,peer_client,\
                         peer_client_fwd,route_watch";

/// A lab whose agents steer routes, with the clouds that they steer.
pub struct RouteLab {
    /// Agents and sites.
    pub lab: Lab,
    /// The clouds.
    pub clouds: RouteClouds,
    _served: ServedClouds,
    folder: std::path::PathBuf,
}

impl RouteLab {
    /// Starts everything on free ports.
    ///
    /// # Errors
    /// Where a socket, a file or an agent cannot be had.
    pub async fn start(more: &[(&str, &str)]) -> Result<Self, LabError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| LabError(format!("{what}: {error}"));
        let clouds = RouteClouds::new();
        clouds.compute.with(|cloud| cloud.propagation_ms = 300);
        let served = clouds.serve().await.map_err(|error| failed("the clouds", &error))?;
        let folder = std::env::temp_dir().join(format!("switchover-routes-{}", crate::peer::new_instance()));
        std::fs::create_dir_all(&folder).map_err(|error| failed("a folder", &error))?;
        let bases = served.bases();
        let key = write_key(&folder, &bases[0]).map_err(|error| failed("credentials", &error))?;
        let mut settings = LabSettings::on_free_ports();
        let quick =
            [("CHECK_INTERVAL_SECONDS", "1"), ("HEALTH_CHECK_WINDOW", "3"), ("HEALTH_CHECK_THRESHOLD", "2")];
        for side in Side::ALL {
            let mut env: BTreeMap<String, String> = environment(side, &bases, &key, &folder);
            let state = folder.join(format!("state-{}.json", side as usize)).display().to_string();
            let usual = [("PROCESS_LIST", PROCESSES), ("STATE_FILE", state.as_str())];
            for (name, value) in quick.iter().chain(&usual).chain(more) {
                env.insert((*name).to_owned(), (*value).to_owned());
            }
            settings.side_env[side as usize] = env;
        }
        let lab = Lab::start(settings).await?;
        Ok(Self { lab, clouds, _served: served, folder })
    }

    /// What `/status` of a side's agent shows.
    pub fn shown(&self, side: Side) -> serde_json::Value {
        self.lab.agent(side).snapshot.borrow().clone()
    }

    /// Whether the routers list these prefixes (numbers of sides) and Cloudflare has these priorities.
    pub fn routes_are(&self, lists: [&[usize]; 2], priorities: [i64; 2]) -> bool {
        Side::ALL.into_iter().all(|side| {
            let mut listed = self.clouds.listed(side);
            listed.sort();
            let mut wanted: Vec<&str> = lists[side as usize].iter().map(|number| PREFIXES[*number]).collect();
            wanted.sort_unstable();
            listed == wanted && self.clouds.priorities(side) == [priorities[side as usize]]
        })
    }

    /// The routes as a line.
    pub fn describe(&self) -> String {
        let one = |side: Side| {
            let listed = self.clouds.listed(side);
            let listed = if listed.is_empty() { "nothing".to_owned() } else { listed.join(" + ") };
            format!("{side} announces {listed}, Cloudflare {:?}", self.clouds.priorities(side))
        };
        Side::ALL.map(one).join("; ")
    }

    /// Waits; a wait in vain says how everything is.
    ///
    /// # Errors
    /// Where it does not come true.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), LabError> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            if Instant::now() >= deadline {
                let agents: Vec<String> =
                    self.lab.agents.iter().map(|agent| agent.snapshot.borrow().to_string()).collect();
                return Err(LabError(format!(
                    "waited {} s for {what}\n{}\n{}",
                    PATIENCE.as_secs(),
                    self.describe(),
                    agents.join("\n")
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until both sites are in a phase with everything that belongs to it.
    ///
    /// # Errors
    /// Where it does not come true.
    pub async fn settled(&self, phase: &str) -> Result<(), LabError> {
        self.until(&format!("both sites to settle in {phase}"), |it| {
            Side::ALL.into_iter().all(|side| {
                let shown = it.shown(side);
                shown["phase"] == phase && shown["transition"] == "" && shown["settled"] == true
            })
        })
        .await
    }

    /// Both agents have seen their sites, each other and the regions.
    ///
    /// # Errors
    /// Where it does not come true.
    pub async fn ready(&self) -> Result<(), LabError> {
        self.until("the agents to see their sites", |it| {
            Side::ALL.into_iter().all(|side| {
                let shown = it.shown(side);
                let known = |database: &serde_json::Value| database["writable"].is_boolean();
                shown["phase"] == "active-passive"
                    && shown["route_pin"] == "health"
                    && shown["peer_link"] == "up"
                    && known(&shown["database"])
                    && known(&shown["peer"])
                    && it.route_state(side) >= 1.0
            })
        })
        .await
    }

    /// The applied state of a side's `route_watch`.
    pub fn route_state(&self, side: Side) -> f64 {
        let families = self.lab.agent(side).registry.gather();
        let family = families.iter().find(|family| family.name() == "switchover_routes_state");
        family
            .and_then(|family| family.get_metric().first())
            .map_or(0.0, |metric| metric.get_gauge().get_value())
    }

    /// An operator's request at the active site.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn ask(&self, transition: &str) -> Result<(), LabError> {
        super::cycle::put(&format!("{}/phase/{transition}", self.lab.site_url(Side::Active))).await
    }

    /// Stops everything and removes its files.
    pub async fn stop(self) {
        self.lab.stop().await;
        // They were made for this run only.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Plays the story; `told` gets milliseconds since its beginning and a line.
///
/// # Errors
/// The step that did not come true.
pub async fn run(mut told: impl FnMut(u128, &str)) -> Result<(), LabError> {
    let stage = RouteLab::start(&[]).await?;
    let result = story(&stage, &mut told).await;
    stage.stop().await;
    result
}

async fn story(stage: &RouteLab, told: &mut impl FnMut(u128, &str)) -> Result<(), LabError> {
    let begun = Instant::now();
    let mut line = |what: &str| told(begun.elapsed().as_millis(), what);
    stage.ready().await?;
    line(&format!("a normal day: {}", stage.describe()));
    let usual = |it: &RouteLab| it.routes_are([&[0], &[1]], [100, 100]);
    line("the active site's backends fail");
    stage.clouds.set_backends(Side::Active, false);
    stage.until("the passive site to take over", |it| it.routes_are([&[], &[0, 1]], [200, 100])).await?;
    line(&stage.describe());
    stage.clouds.set_backends(Side::Active, true);
    stage.until("a normal day", usual).await?;
    line(&format!("they are well again: {}", stage.describe()));
    line("the passive region dies altogether: backends and sessions");
    stage.clouds.set_backends(Side::Passive, false);
    stage.clouds.set_sessions(Side::Passive, false);
    stage.until("the active site to take over", |it| it.clouds.listed(Side::Active).len() == 2).await?;
    line(&stage.describe());
    stage.clouds.set_backends(Side::Passive, true);
    stage.clouds.set_sessions(Side::Passive, true);
    stage.until("a normal day", usual).await?;
    line(&format!("it is back: {}", stage.describe()));
    line("an operator asks for golddr-primary");
    stage.ask("transition-to-golddr-primary").await?;
    stage.settled("golddr-primary").await?;
    stage.until("the routes to follow", |it| it.routes_are([&[], &[0, 1]], [200, 100])).await?;
    line(&format!("pinned: {}", stage.describe()));
    stage.ask("transition-to-gold-standby").await?;
    stage.settled("gold-standby").await?;
    line("gold-standby: the routes stay");
    stage.ask("transition-to-active-passive").await?;
    stage.settled("active-passive").await?;
    stage.until("the routes to come back", usual).await?;
    line(&format!("left to health again: {}", stage.describe()));
    Ok(())
}
