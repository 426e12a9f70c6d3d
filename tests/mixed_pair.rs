//! One site with our agent, the other with a scripted stand-in of the predecessor: every transition in both roles, and
//! the predecessor's habits (late control pongs, a close with 1000 instead of a pong, copies, a late yes, silence).
#![allow(clippy::unwrap_used, reason = "a test")]

mod predecessor;

use std::time::Duration;

use predecessor::{Answers, Consent, Credentials, Predecessor, Timers};
use serde_json::{Value, json};
use switchover_agent::agent::Agent;
use switchover_agent::lab::agents::{Lab, LabSettings, start_agent};
use switchover_agent::model::Side;
use tokio::net::TcpListener;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(60);

/// Our agent at one site, the stand-in as the other.
struct Mixed {
    lab: Lab,
    side: Side,
    agent: Agent,
    old: Predecessor,
}

async fn mixed(side: Side, extra: &[(&str, &str)]) -> Mixed {
    let mut lab = Lab::start(LabSettings::on_free_ports()).await.expect("the lab");
    for agent in std::mem::take(&mut lab.agents) {
        agent.stop().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let names = lab.world.settings().site_names.clone();
    let file = |name: String| std::fs::read_to_string(lab.dir.join(name)).expect("a certificate of the lab");
    let theirs = &names[side.other() as usize];
    let own = Some((file(format!("{theirs}.crt")), file(format!("{theirs}.key"))));
    let credentials = Credentials { ca: file("ca.crt".to_owned()), only_tls12: false, own };
    let quiet = || Box::new(|_: &Value| {});
    let mut old = Predecessor::start(listener, &credentials, quiet(), quiet());
    let mut env = lab.env[side as usize].clone();
    let settings = [
        ("PEER_PORT", port.to_string()),
        ("PEER_CLIENT_AUTH", "accept-missing".to_owned()),
        ("PEER_TLS_MIN", "1.2".to_owned()),
        ("DESTRUCTION_GATE", "consent".to_owned()),
        ("AUTOMATION_ENABLED", "false".to_owned()),
        ("CONSENT_TIMEOUT_SECONDS", "5".to_owned()),
    ];
    env.extend(settings.map(|(name, value)| (name.to_owned(), value)));
    env.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let agent = start_agent(&env, "127.0.0.1:0".parse().unwrap()).await.expect("our agent");
    let ours = env["PEER_LISTEN"].parse().unwrap();
    old.dial(ours, &names[side as usize], &credentials, Timers::scaled(10));
    old.set_record("active-passive", "");
    let mixed = Mixed { lab, side, agent, old };
    mixed.until("the link is up", |shown| shown["peer_link"] == "up").await;
    mixed.until("the site is seen", |shown| shown["database"]["role"] != "unknown").await;
    mixed
}

impl Mixed {
    fn shown(&self) -> Value {
        self.agent.snapshot.borrow().clone()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds(&self.shown()) {
            assert!(Instant::now() < deadline, "waited for: {what}\n{}", self.shown());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_settled(&self, phase: &str) {
        let what = format!("our site settled in {phase}");
        let holds =
            |shown: &Value| shown["phase"] == phase && shown["transition"] == "" && shown["settled"] == true;
        self.until(&what, holds).await;
    }

    async fn until_heard(&self, event: &str, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let heard: Vec<Value> =
                self.old.messages().into_iter().filter(|message| message["event"] == event).collect();
            if heard.len() >= count {
                return heard;
            }
            assert!(Instant::now() < deadline, "the stand-in hears {event}: {:?}", self.old.messages());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A person asks through the record, as the simulated site's control does.
    async fn ask(&self, transition: &str) {
        let url = format!("{}/phase/transition-to-{transition}", self.lab.site_url(self.side));
        let answer = reqwest::Client::new().put(&url).send().await.unwrap();
        assert!(answer.status().is_success(), "PUT {url}: {}", answer.status());
    }

    /// What the stand-in's site does with its database, since no agent of ours is there.
    async fn promote_other(&self) {
        let url = format!("{}/patroni/config", self.lab.site_url(self.side.other()));
        let body = r#"{"standby_cluster":null}"#;
        let answer = reqwest::Client::new().patch(&url).body(body).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    fn changes(&self) -> usize {
        let activity = self.lab.world.activity(self.side);
        activity.as_array().map_or(0, |entries| entries.iter().filter(|entry| entry["method"] != "").count())
    }

    fn refused(&self, name: &str) -> bool {
        let shown = self.shown();
        let mut all = shown["refusals"].as_array().into_iter().flatten();
        all.any(|refusal| refusal[1]["refusal"] == name)
    }

    async fn stop(self) {
        self.agent.stop().await;
        self.lab.stop().await;
    }
}

fn provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_active_site_leads_a_predecessor_through_all_transitions() {
    provider();
    let pair = mixed(Side::Active, &[]).await;
    pair.ask("golddr-primary").await;
    pair.until_settled("golddr-primary").await;
    let orders = pair.until_heard("transition_to", 1).await;
    assert_eq!(orders[0]["state"], "golddr-primary");
    pair.promote_other().await;
    pair.old.set_record("golddr-primary", "");
    pair.ask("gold-standby").await;
    let asked = pair.until_heard("confirm_happy_to_proceed", 1).await;
    assert_eq!(asked[0]["required_state"], "golddr-primary");
    assert_eq!(asked[0]["item"]["event"], "switchover_state");
    assert_eq!(asked[0]["item"]["data"]["transition"], "gold-standby");
    pair.until_settled("gold-standby").await;
    assert_eq!(pair.until_heard("transition_to", 2).await[1]["state"], "gold-standby");
    pair.old.set_record("gold-standby", "");
    pair.ask("active-passive").await;
    pair.until_settled("active-passive").await;
    assert_eq!(pair.until_heard("transition_to", 3).await[2]["state"], "active-passive");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_passive_site_follows_a_predecessor_through_all_transitions() {
    provider();
    let pair = mixed(Side::Passive, &[]).await;
    pair.old.order("golddr-primary").await;
    pair.until_settled("golddr-primary").await;
    let data = json!({"last_stable_state": "golddr-primary", "transition": "gold-standby"});
    pair.old.ask_consent("golddr-primary", data.clone()).await;
    let yes = pair.until_heard("yes_happy_to_proceed", 1).await;
    assert_eq!(
        yes[0]["item"],
        json!({"event": "switchover_state", "data": data}),
        "the item comes back as it went"
    );
    pair.old.order("gold-standby").await;
    pair.until_settled("gold-standby").await;
    pair.old.ask_consent("gold-standby", json!({"transition": "active-passive"})).await;
    pair.until_heard("yes_happy_to_proceed", 2).await;
    pair.promote_other().await;
    pair.old.order("active-passive").await;
    pair.until_settled("active-passive").await;
    assert_eq!(pair.shown()["database"]["role"], "standby");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_late_pongs_and_closes_with_1000_do_no_harm() {
    provider();
    let pair = mixed(Side::Passive, &[("PEER_LOSS_SECONDS", "3")]).await;
    pair.old.set_answers(Answers::ThenBusy(Duration::from_millis(900)));
    for _ in 0..5 {
        pair.old.order("golddr-primary").await;
    }
    pair.until_settled("golddr-primary").await;
    let changes = pair.changes();
    for _ in 0..5 {
        pair.old.order("golddr-primary").await;
    }
    pair.old.set_answers(Answers::Close1000);
    let accepted = pair.old.shared.accepted.load(std::sync::atomic::Ordering::Relaxed);
    pair.until("the link is lost", |shown| shown["peer_link"] == "down").await;
    let dialled = pair.old.shared.accepted.load(std::sync::atomic::Ordering::Relaxed) - accepted;
    assert!(dialled < 60, "{dialled} connections while every one was closed with 1000");
    pair.old.set_answers(Answers::AtOnce);
    pair.until("the link is back", |shown| shown["peer_link"] == "up").await;
    assert_eq!(pair.changes(), changes, "copies changed nothing");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubled_yes_runs_once_and_a_late_one_not_at_all() {
    provider();
    let pair = mixed(Side::Active, &[]).await;
    pair.ask("golddr-primary").await;
    pair.until_settled("golddr-primary").await;
    pair.until_heard("transition_to", 1).await;
    pair.promote_other().await;
    pair.old.set_record("golddr-primary", "");
    pair.old.set_consent(Consent::Late(Duration::from_secs(8)));
    pair.ask("gold-standby").await;
    pair.until("our own time-out", |_| pair.refused("consent-timed-out")).await;
    pair.until("the late yes", |_| pair.refused("consent-expired")).await;
    assert_eq!(pair.shown()["phase"], "golddr-primary");
    pair.old.set_consent(Consent::Twice);
    pair.ask("gold-standby").await;
    pair.until_settled("gold-standby").await;
    let activity = pair.lab.world.activity(Side::Active);
    let deleted = activity.as_array().unwrap().iter().filter(|entry| {
        entry["method"] == "DELETE" && entry["path"].as_str().unwrap().ends_with("patroni-spilo-0")
    });
    assert_eq!(deleted.count(), 1);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_a_refusal_that_people_can_see() {
    provider();
    let pair = mixed(Side::Active, &[]).await;
    pair.ask("golddr-primary").await;
    pair.until_settled("golddr-primary").await;
    pair.until_heard("transition_to", 1).await;
    pair.old.set_record("active-passive", "");
    let before = pair.changes();
    pair.ask("gold-standby").await;
    pair.until("our own time-out", |_| pair.refused("consent-timed-out")).await;
    pair.until("the request is cleared", |shown| shown["transition"] == "").await;
    let activity = pair.lab.world.activity(Side::Active);
    let asked: Vec<&str> = activity
        .as_array()
        .unwrap()
        .iter()
        .skip(before)
        .map(|entry| entry["path"].as_str().unwrap_or(""))
        .collect();
    assert!(
        asked.iter().all(|path| !path.contains("/scale") && !path.contains("persistentvolumeclaims")),
        "{asked:?}"
    );
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_strict_gate_refuses_a_predecessors_word_before_anything_is_touched() {
    provider();
    let pair = mixed(Side::Active, &[("DESTRUCTION_GATE", "strict")]).await;
    pair.ask("golddr-primary").await;
    pair.until_settled("golddr-primary").await;
    pair.until_heard("transition_to", 1).await;
    pair.promote_other().await;
    pair.old.set_record("golddr-primary", "");
    pair.ask("gold-standby").await;
    pair.until("the refusal", |_| pair.refused("peer-not-verified")).await;
    let activity = pair.lab.world.activity(Side::Active).to_string();
    assert!(!activity.contains("persistentvolumeclaims") && !activity.contains("statefulsets"), "{activity}");
    assert_eq!(pair.shown()["phase"], "golddr-primary");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_and_a_forced_failback_reach_the_predecessor() {
    provider();
    let pair = mixed(Side::Active, &[]).await;
    pair.ask("golddr-primary").await;
    pair.until_settled("golddr-primary").await;
    let token = "Bearer lab";
    let url = format!("http://{}/phase/transition-to-active-passive-force", pair.agent.http);
    let answer = reqwest::Client::new().put(&url).header("Authorization", token).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    pair.until_settled("active-passive").await;
    let orders = pair.until_heard("transition_to", 2).await;
    assert_eq!(orders[1]["state"], "active-passive-force");
    let url = format!("http://{}/phase/transition-to-test-ping-pong", pair.agent.http);
    reqwest::Client::new().put(&url).header("Authorization", token).send().await.unwrap();
    let asked = pair.until_heard("confirm_happy_to_proceed", 1).await;
    assert_eq!(asked[0]["required_state"], "independent");
    pair.stop().await;
}
