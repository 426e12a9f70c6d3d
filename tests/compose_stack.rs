//! The compose file's five services as processes on loopback: the same commands and environment, with addresses in
//! place of service names. Shows that the curl lines of the README work on it.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_switchover-agent");
const LIMIT: Duration = Duration::from_secs(90);

/// A started service; ends with its guard.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    // Below the range from which the system gives ports away, so that nobody gets it before the service does.
    let candidates = std::iter::repeat_with(|| 10_000 + rand::random::<u16>() % 20_000).take(100);
    candidates.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port")
}

fn compose() -> Value {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml")).expect("file");
    serde_saphyr::from_str(&text).expect("YAML")
}

/// Addresses of the services by the names that the compose file uses.
struct Names {
    sites: BTreeMap<&'static str, u16>,
    agents: BTreeMap<&'static str, u16>,
    peers: BTreeMap<&'static str, u16>,
    certs: String,
}

impl Names {
    fn translate(&self, text: &str) -> String {
        let mut text = text.replace("/certs", &self.certs);
        for (name, port) in &self.sites {
            text = text.replace(&format!("{name}:8000"), &format!("127.0.0.1:{port}"));
        }
        text
    }

    fn site(&self, service: &Value, name: &str) -> Service {
        let arguments = service["command"].as_array().expect("a command");
        let arguments = arguments.iter().map(|text| self.translate(text.as_str().expect("text")));
        let arguments: Vec<String> = arguments
            .map(|text| text.replace("0.0.0.0:8000", &format!("127.0.0.1:{}", self.sites[name])))
            .collect();
        Service(Command::new(BINARY).args(arguments).stdout(Stdio::null()).spawn().expect("a site"))
    }

    fn agent(&self, service: &Value, name: &str) -> Service {
        let mut command = Command::new(BINARY);
        command.env_clear();
        for (key, value) in service["environment"].as_object().expect("an environment") {
            command.env(key, self.translate(value.as_str().expect("text")));
        }
        let peer = service["environment"]["PEER_HOST"].as_str().expect("a peer").to_owned();
        command.env("PEER_PORT", self.peers[peer.as_str()].to_string());
        command.env("PEER_HOST", "127.0.0.1").env("PEER_SAN", peer);
        command.env("PEER_LISTEN", format!("127.0.0.1:{}", self.peers[name]));
        command.env("HTTP_LISTEN", format!("127.0.0.1:{}", self.agents[name]));
        Service(command.stdout(Stdio::null()).spawn().expect("an agent"))
    }
}

fn get(port: u16, path: &str) -> Option<Value> {
    request(port, "GET", path)
}

fn request(port: u16, method: &str, path: &str) -> Option<Value> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let good = head.starts_with("HTTP/1.1 20");
    let body = body.find(['{', '[']).map_or(Value::Null, |at| {
        let end = body.rfind(['}', ']']).unwrap_or(body.len() - 1);
        serde_json::from_str(&body[at..=end]).unwrap_or(Value::Null)
    });
    good.then_some(body)
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "waited for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_services_of_the_compose_file_switch_over_together() {
    let services = &compose()["services"];
    let dir = tempfile::tempdir().expect("a folder");
    let ports = |names: [&'static str; 2]| names.map(|name| (name, free_port())).into_iter().collect();
    let names = Names {
        sites: ports(["site-gold", "site-golddr"]),
        agents: ports(["agent-gold", "agent-golddr"]),
        peers: ports(["agent-gold", "agent-golddr"]),
        certs: dir.path().join("certs").display().to_string(),
    };
    let arguments = services["certs"]["command"].as_array().expect("a command").iter();
    let arguments = arguments.map(|text| names.translate(text.as_str().expect("text")));
    let made = Command::new(BINARY).args(arguments).output().expect("the certs command");
    assert!(made.status.success(), "{made:?}");
    let _sites: Vec<Service> =
        ["site-gold", "site-golddr"].iter().map(|name| names.site(&services[*name], name)).collect();
    let _agents: Vec<Service> =
        ["agent-gold", "agent-golddr"].iter().map(|name| names.agent(&services[*name], name)).collect();
    let shown =
        |agent: &str, key: &str| get(names.agents[agent], "/status").map(|status| status[key].clone());
    let both = |key: &str, value: &str| {
        ["agent-gold", "agent-golddr"].iter().all(|agent| shown(agent, key) == Some(Value::from(value)))
    };
    wait_for("both agents to see their sites and each other", || {
        both("phase", "active-passive") && both("peer_link", "up")
    });
    assert!(get(names.agents["agent-gold"], "/health").is_some(), "gold's agent is healthy");
    for phase in ["golddr-primary", "gold-standby"] {
        let path = format!("/phase/transition-to-{phase}");
        assert!(request(names.sites["site-gold"], "PUT", &path).is_some(), "PUT {path}");
        wait_for(phase, || both("phase", phase) && shown("agent-gold", "settled") == Some(Value::Bool(true)));
    }
    let activity = get(names.sites["site-gold"], "/activity").expect("gold's activity");
    assert!(activity.as_array().is_some_and(|entries| entries.len() > 10), "{activity}");
}
