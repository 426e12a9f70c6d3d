//! Two agents in front of two simulated sites, all on loopback: real HTTP, real DNS, the real peer link through lines
//! that can be cut, certificates made on the fly.
//!
//! Owns: ports, certificates and environment of the agents, which are configured by the same variables as in
//! production. Never: drives them; that is [`super::cycle`], a test or a person with `curl`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpListener;

use super::cut::Line;
use super::settings::WorldSettings;
use super::world::{SiteHandle, World};
use crate::agent::Agent;
use crate::config::Config;
use crate::model::Side;
use crate::peer::certs::write_dev_certs;
use crate::tasks::clock::wall_now;

/// Token of the lab's operators.
pub const TOKEN: &str = "lab";
/// Resolvers of each site.
const RESOLVERS: usize = 3;

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct LabSettings {
    /// Addresses of the simulated sites: active, passive.
    pub sites: [SocketAddr; 2],
    /// Addresses of the agents' HTTP interfaces.
    pub agents: [SocketAddr; 2],
    /// Settings of the agents beside or instead of the lab's own; an empty value removes one.
    pub env: BTreeMap<String, String>,
    /// Further settings of each agent: active, passive.
    pub side_env: [BTreeMap<String, String>; 2],
    /// The simulated world.
    pub world: WorldSettings,
}

impl Default for LabSettings {
    /// The ports of the design: 6664 and 6665 the sites, 6666 and 6667 the agents.
    fn default() -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            sites: [at(6664), at(6665)],
            agents: [at(6666), at(6667)],
            env: BTreeMap::new(),
            side_env: [BTreeMap::new(), BTreeMap::new()],
            world: WorldSettings::default(),
        }
    }
}

impl LabSettings {
    /// On free ports, for tests that run side by side.
    pub fn on_free_ports() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { sites: [any; 2], agents: [any; 2], ..Self::default() }
    }

    /// The same with a setting of both agents changed.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// A running lab.
pub struct Lab {
    /// The simulated world.
    pub world: World,
    /// The served sites: active, passive.
    pub sites: Vec<SiteHandle>,
    /// The agents: active, passive.
    pub agents: Vec<Agent>,
    /// Environment of each agent, to start it again.
    pub env: Vec<BTreeMap<String, String>>,
    /// Folder of the certificates.
    pub dir: PathBuf,
    _resolvers: Vec<SiteHandle>,
    _lines: Vec<Line>,
}

/// Why a lab does not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LabError(pub String);

fn failed(what: &str, error: &dyn std::fmt::Display) -> LabError {
    LabError(format!("{what}: {error}"))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, LabError> {
    TcpListener::bind(address).await.map_err(|error| failed(&format!("cannot listen on {address}"), &error))
}

/// Ports that [`free_port`] has given away; whoever got one may not listen yet.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port that nothing uses now, below the range from which the system gives ports away, so that nobody gets it
/// before the agent listens on it; never the same twice in one process.
///
/// # Errors
/// Where a hundred tries find none.
pub async fn free_port() -> Result<u16, LabError> {
    for _ in 0..100 {
        let port = 10_000 + rand::random::<u16>() % 20_000;
        if listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.is_ok()
            && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port)
        {
            return Ok(port);
        }
    }
    Err(LabError("no free port between 10000 and 30000".to_owned()))
}

/// Everything around the agents.
struct Ground {
    world: World,
    sites: Vec<SiteHandle>,
    resolvers: Vec<Vec<SiteHandle>>,
    lines: Vec<Line>,
    peer_ports: [u16; 2],
    dir: PathBuf,
}

impl Ground {
    async fn lay(settings: &LabSettings) -> Result<Self, LabError> {
        let world = World::new(settings.world.clone());
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (mut sites, mut resolvers) = (Vec::new(), Vec::new());
        for side in Side::ALL {
            let listener = listen(settings.sites[side as usize]).await?;
            sites.push(world.serve(side, listener).map_err(|error| failed("a simulated site", &error))?);
            let mut own = Vec::new();
            for _ in 0..RESOLVERS {
                own.push(world.serve_dns(side, any).await.map_err(|error| failed("a resolver", &error))?);
            }
            resolvers.push(own);
        }
        let peer_ports = [free_port().await?, free_port().await?];
        let mut lines = Vec::new();
        for side in Side::ALL {
            let far = SocketAddr::from((Ipv4Addr::LOCALHOST, peer_ports[side.other() as usize]));
            let line = Line::open(listen(any).await?, far, Some(world.clone()));
            lines.push(line.map_err(|error| failed("a line between the sites", &error))?);
        }
        let dir = std::env::temp_dir().join(format!("switchover-lab-{}", crate::peer::new_instance()));
        let names = &settings.world.site_names;
        let sites_and_sans = [0, 1].map(|index| (names[index].as_str(), vec![names[index].clone()]));
        write_dev_certs(&dir, &sites_and_sans, 30, true).map_err(|error| failed("certificates", &error))?;
        Ok(Self { world, sites, resolvers, lines, peer_ports, dir })
    }

    fn env(&self, side: Side, settings: &LabSettings) -> BTreeMap<String, String> {
        let world = self.world.settings();
        let (here, there) = (side as usize, side.other() as usize);
        let site = self.sites[here].url();
        let names = &world.site_names;
        let file = |name: String| self.dir.join(name).display().to_string();
        let resolvers: Vec<String> =
            self.resolvers[here].iter().map(|resolver| resolver.address().to_string()).collect();
        let pairs = [
            ("ACTIVE_SITE", names[0].clone()),
            ("PASSIVE_SITE", names[1].clone()),
            ("KUBE_CLUSTER", names[here].clone()),
            ("ENVIRONMENT", world.environment.clone()),
            ("PROCESS_LIST", PROCESSES.to_owned()),
            ("AUTOMATION_ENABLED", "true".to_owned()),
            ("KUBE_API_URL", format!("{site}/k8s")),
            ("KUBE_NAMESPACE", world.namespace.clone()),
            ("KUBE_HEALTH_NAMESPACE", world.health_namespace.clone()),
            ("KUBE_TEKTON_NAMESPACE", world.tekton_namespace.clone()),
            ("TERRAFORM_TFVARS", world.tfvars_secret.clone()),
            ("PATRONI_LOCAL_API", format!("{site}/patroni")),
            ("PATRONI_POLL_SECONDS", "0.5".to_owned()),
            ("PATRONI_PEER_HOST", world.database_hosts[there].clone()),
            ("PATRONI_PEER_PORT", world.database_port.to_string()),
            ("MAINTENANCE_URL", format!("{site}/maintenance")),
            ("TEKTON_URL", format!("{site}/tekton")),
            ("TEKTON_GITHUB_REPO", "https://git.example/deploy.git".to_owned()),
            ("TEKTON_GITHUB_REF", "refs/heads/main".to_owned()),
            ("TEKTON_HMAC_SECRET", world.hmac_secret.clone().unwrap_or_default()),
            ("TEKTON_SETTLE_SECONDS", "1".to_owned()),
            ("GSLB_DOMAIN", world.gslb_name.clone()),
            ("DNS_RESOLVERS", resolvers.join(",")),
            ("DNS_POLL_SECONDS", "0.5".to_owned()),
            ("DNS_SELF_TEST_NAME", world.self_test_name.clone()),
            ("ACTIVE_IP", world.active_ip.to_string()),
            ("PASSIVE_IP", world.passive_ip.to_string()),
            ("TLS_CA", file("ca.crt".to_owned())),
            ("TLS_LOCAL_CRT", file(format!("{}.crt", names[here]))),
            ("TLS_LOCAL_KEY", file(format!("{}.key", names[here]))),
            ("PEER_HOST", Ipv4Addr::LOCALHOST.to_string()),
            ("PEER_PORT", self.lines[here].address().port().to_string()),
            ("PEER_SAN", names[there].clone()),
            ("PEER_LISTEN", format!("127.0.0.1:{}", self.peer_ports[here])),
            ("API_TOKEN", TOKEN.to_owned()),
            ("JOURNAL", "memory".to_owned()),
        ];
        let mut env: BTreeMap<String, String> =
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        env.extend(settings.env.clone());
        env.extend(settings.side_env[here].clone());
        env.retain(|name, value| !value.is_empty() || name == "TEKTON_HMAC_SECRET");
        env
    }
}

const PROCESSES: &str = "logic_handler,dns_watch,kube_watch,patroni_worker,tekton_watch,peer_server,peer_client,\
                         peer_client_fwd,tick_producer";

/// Starts an agent with an environment of its own.
///
/// # Errors
/// All problems of the environment, or what could not be set up.
pub async fn start_agent(env: &BTreeMap<String, String>, address: SocketAddr) -> Result<Agent, LabError> {
    let config = Config::read(env, wall_now()).map_err(|error| failed("an agent", &error))?;
    Agent::start(config, listen(address).await?).await.map_err(|error| failed("an agent", &error))
}

impl Lab {
    /// Starts sites, lines and agents.
    ///
    /// # Errors
    /// Where a port is taken or an agent does not start.
    pub async fn start(settings: LabSettings) -> Result<Self, LabError> {
        let mut lab = Self::without_agents(&settings).await?;
        for side in Side::ALL {
            let agent = start_agent(&lab.env[side as usize], settings.agents[side as usize]).await?;
            lab.agents.push(agent);
        }
        Ok(lab)
    }

    /// Starts sites and lines; the agents are processes of their own, with [`Lab::env`] as their environment.
    ///
    /// # Errors
    /// Where a port is taken.
    pub async fn without_agents(settings: &LabSettings) -> Result<Self, LabError> {
        let ground = Ground::lay(settings).await?;
        let env: Vec<_> = Side::ALL.into_iter().map(|side| ground.env(side, settings)).collect();
        Ok(Self {
            world: ground.world,
            sites: ground.sites,
            agents: Vec::new(),
            env,
            dir: ground.dir,
            _resolvers: ground.resolvers.into_iter().flatten().collect(),
            _lines: ground.lines,
        })
    }

    /// The agent of a side.
    pub fn agent(&self, side: Side) -> &Agent {
        &self.agents[side as usize]
    }

    /// `http://address` of the simulated site of a side.
    pub fn site_url(&self, side: Side) -> String {
        self.sites[side as usize].url()
    }

    /// Stops the agents, then the sites.
    pub async fn stop(self) {
        for agent in self.agents {
            agent.stop().await;
        }
        for site in self.sites {
            site.stop().await;
        }
        // The certificates were made for this run only.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
