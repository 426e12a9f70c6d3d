//! Makes a real Patroni cluster follow Kubernetes objects, as the StatefulSet controller and the Spilo image would.
//!
//! Owns: the loop that compares the world's objects with the running members. Never: changes the world except by
//! reporting what came into being; knows nothing of the agent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::patroni::{PatroniCluster, Upstream};

/// The objects that decide about members, and the reports that change their status.
pub trait ClusterWorld: Send + 'static {
    /// `spec.replicas` of the StatefulSet.
    fn replicas(&self) -> u32;
    /// Whether the claim of this ordinal exists. A deleted one stays away until [`Self::volume_created`].
    fn volume_present(&self, ordinal: u8) -> bool;
    /// `STANDBY_HOST` and `STANDBY_PORT`, `None` where they are empty.
    fn standby_env(&self) -> Option<Upstream>;
    /// Whether the cluster's configuration object exists. It stays away until [`Self::cluster_created`].
    fn cluster_state_present(&self) -> bool;
    /// A claim came into being because its member starts.
    fn volume_created(&self, ordinal: u8);
    /// The configuration object came into being because a first member starts.
    fn cluster_created(&self);
    /// How many members exist and how many of them answer as primary, standby leader or replica.
    fn status(&self, members: u32, ready: u32);
}

/// One comparison of the world with the cluster; public so that a test can step it.
pub fn reconcile(world: &dyn ClusterWorld, cluster: &mut PatroniCluster) {
    let want = world.replicas();
    for ordinal in cluster.running().into_iter().rev().filter(|n| u32::from(*n) >= want) {
        cluster.stop(ordinal);
    }
    // A claim in use is only marked for deletion; its data goes when its member is gone.
    for ordinal in (0..3).filter(|n| !world.volume_present(*n)) {
        if !cluster.running().contains(&ordinal) {
            cluster.wipe(ordinal);
        }
    }
    if cluster.running().is_empty() && !world.cluster_state_present() {
        cluster.forget_state();
    }
    // Ordered start: the next member only when the ones before it are ready.
    let ready = ready(cluster);
    let running = u32::try_from(cluster.running().len()).unwrap_or(u32::MAX);
    if running < want && ready == running {
        let next = u8::try_from(running).expect("a handful of members");
        cluster.start(next, world.standby_env().as_ref());
        if !world.volume_present(next) {
            world.volume_created(next);
        }
        if !world.cluster_state_present() {
            world.cluster_created();
        }
    }
    world.status(u32::try_from(cluster.running().len()).unwrap_or(u32::MAX), ready);
}

fn ready(cluster: &PatroniCluster) -> u32 {
    let up = |n: &u8| ["/primary", "/standby-leader", "/replica"].iter().any(|path| cluster.is(*n, path));
    u32::try_from(cluster.running().iter().filter(|n| up(n)).count()).unwrap_or(u32::MAX)
}

/// The loop in its own thread. Dropping it stops the loop and then every member.
pub struct Operator {
    stop: Arc<AtomicBool>,
    /// The cluster, for questions between two rounds.
    pub cluster: Arc<Mutex<PatroniCluster>>,
    thread: Option<JoinHandle<()>>,
}

impl Operator {
    /// Takes over the cluster.
    pub fn start(world: impl ClusterWorld, cluster: PatroniCluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cluster = Arc::new(Mutex::new(cluster));
        let (s, c) = (Arc::clone(&stop), Arc::clone(&cluster));
        let thread = std::thread::spawn(move || {
            while !s.load(Ordering::Relaxed) {
                reconcile(&world, &mut c.lock().expect("cluster"));
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        Self { stop, cluster, thread: Some(thread) }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
